"""The server of the wire tests."""

from tests.servers.fixture import openai_server as openai_server
