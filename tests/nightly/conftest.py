"""Real servers, built the first time; only `make nightly`, or another `-m` that names the mark, runs these tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, cast

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


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect what is nightly, unless the command line names the mark; a build is no part of a test's time."""
    nightly = [item for item in items if item.get_closest_marker("nightly")]
    for item in nightly:
        item.add_marker(pytest.mark.timeout(300, func_only=True))
    if "nightly" not in config.option.markexpr:
        items[:] = [item for item in items if item not in nightly]
        config.hook.pytest_deselected(items=nightly)


@pytest.fixture(scope="session")
def visibly(request: pytest.FixtureRequest) -> Callable[[], AbstractContextManager[None]]:
    """Lets the progress of a build through to the terminal."""
    capture = cast("Any", request.config.pluginmanager.getplugin("capturemanager"))

    @contextmanager
    def shown() -> Iterator[None]:
        with capture.global_and_fixture_disabled():
            yield

    return shown


@pytest.fixture(scope="session")
def scripted() -> Iterator[OpenAIServer]:
    """What stands behind LiteLLM where a test says what comes from there."""
    with running_server() as server:
        yield server


@pytest.fixture(scope="session")
def litellm(
    scripted: OpenAIServer,
    visibly: Callable[[], AbstractContextManager[None]],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[str]:
    """The root URL of LiteLLM's proxy, with aimock behind it for what its own mock replies cannot do."""
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
