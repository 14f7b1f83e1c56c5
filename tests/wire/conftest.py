"""The server that the wire tests meet."""

from tests.servers.fixture import openai_server as openai_server
