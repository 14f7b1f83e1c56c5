"""Real servers for `make nightly`, built the first time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from tests.servers import aimock, litellm_proxy, llama_cpp
from tests.servers.fixture import OpenAIServer, running_server

FIXTURES: list[dict[str, Any]] = [
    {
        "match": {"userMessage": "weather in"},
        "response": {"toolCalls": [{"name": "look", "arguments": '{"at":"Oslo"}'}]},
    },
    {"match": {"userMessage": "hello"}, "response": {"content": litellm_proxy.TEXT}},
]


@pytest.fixture(scope="session")
def scripted() -> Iterator[OpenAIServer]:
    """A server behind LiteLLM, whose replies the test decides."""
    with running_server() as server:
        yield server


@pytest.fixture(scope="session")
def litellm(
    scripted: OpenAIServer,
    visibly: Callable[[], AbstractContextManager[None]],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[str]:
    """The root URL of LiteLLM's proxy, with aimock behind it."""
    folders: list[Path] = [tmp_path_factory.mktemp(name) for name in ("aimock", "litellm")]
    with visibly():
        litellm_proxy.python()
    with (
        aimock.running(folders[0], FIXTURES) as behind,
        litellm_proxy.running(folders[1], litellm_proxy.Upstreams(scripted.base_url, behind.url)) as url,
    ):
        yield url


@pytest.fixture(scope="session")
def llama(
    visibly: Callable[[], AbstractContextManager[None]], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """The root URL of llama.cpp's server with a small model."""
    with visibly():
        llama_cpp.model()
        llama_cpp.program()
    with llama_cpp.running(tmp_path_factory.mktemp("llama")) as url:
        yield url
