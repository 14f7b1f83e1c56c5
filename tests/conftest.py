"""Fixtures for every test."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, cast

import pytest
from genai_prices import data_snapshot
from opentelemetry import trace

from tests.support import Captured, UseSnapshot, captured
from tracemind_otel._base.once import FAULTS
from tracemind_otel.ai.llm import pricing
from tracemind_otel.ai.llm.retry import RetryPolicy
from tracemind_otel.call.lost_replies import usual_output
from tracemind_otel.errors import LLMError
from tracemind_otel.flows.budget import COUNTED_AS_ZERO
from tracemind_otel.flows.correlation import LEFT_OUT

_KEYS_AND_ADDRESSES = (
    *("_API_KEY", "_BASE_URL", "_API_URL", "_AD_TOKEN", "_API_VERSION"),
    *("AZURE_OPENAI_ENDPOINT", "OLLAMA_HOST"),
)
"""The endings of the variables that providers read."""


_APART = ("chain", "nightly", "tools")
"""The marks of tests that install or build much."""


_SLOW = frozenset(
    {
        "aggregation",
        "aimock",
        "apply_vars",
        "asgiref",
        "bedrock",
        "cli",
        "collector_down",
        "config",
        "decorator_table",
        "delivery",
        "docs",
        "dropped",
        "ends_without_a_mark",
        "event_loop",
        "examples",
        "exits",
        "file_flush",
        "golden_telemetry",
        "imports",
        "installs",
        "kept_connections",
        "kinds",
        "layers",
        "lifecycle",
        "lost_replies",
        "prices_of_every_model",
        "propagation",
        "pytest_plugin",
        "recipe",
        "recorded",
        "secrets",
        "setup",
        "smoke",
        "transport",
        "view_sums",
    }
)
"""The modules `test_*.py` whose tests start processes and servers, or try thousands of inputs: not for `make check`."""


_STARTS_OF_PROCESSES = frozenset({"subprocess.Popen", "os.fork", "os.forkpty", "os.posix_spawn"})
_quick_test = list[str]()
"""The running test, if it has no mark `slow`."""


def _reject_processes(event: str, _: tuple[object, ...]) -> None:
    if _quick_test and event in _STARTS_OF_PROCESSES:
        raise RuntimeError(f"{_quick_test[0]} starts a process: mark it with @pytest.mark.slow")


sys.addaudithook(_reject_processes)


@pytest.fixture(autouse=True)
def _no_process_in_a_quick_test(request: pytest.FixtureRequest) -> Iterator[None]:
    """`make check` stays quick: a test that starts a process without the mark `slow` fails."""
    node = cast("pytest.Item", request.node)
    if not any(node.get_closest_marker(mark) for mark in ("slow", "e2e", *_APART)):
        _quick_test.append(node.nodeid)
    yield
    _quick_test.clear()


def _mark(item: pytest.Item) -> None:
    if item.path.stem.removeprefix("test_") in _SLOW or "openai_server" in getattr(item, "fixturenames", ()):
        item.add_marker(pytest.mark.slow)
    if item.get_closest_marker("e2e"):
        item.add_marker(pytest.mark.xdist_group("stack"))


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect tests that install or build much, unless the command line names their mark."""
    for item in items:
        _mark(item)
    apart = [(item, mark) for item in items for mark in _APART if item.get_closest_marker(mark)]
    for item, _ in apart:
        if not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(300, func_only=True))
    if deselected := [item for item, mark in apart if mark not in config.option.markexpr]:
        items[:] = [item for item in items if item not in deselected]
        config.hook.pytest_deselected(items=deselected)


@pytest.fixture(scope="session")
def visibly(request: pytest.FixtureRequest) -> Callable[[], AbstractContextManager[None]]:
    """Lets a build's progress through to the terminal."""
    capture = cast("Any", request.config.pluginmanager.getplugin("capturemanager"))

    @contextmanager
    def shown() -> Generator[None]:
        with capture.global_and_fixture_disabled():
            yield

    return shown


@pytest.fixture
def capture() -> Iterator[Captured]:
    """Spans and metrics in memory, for the recorder and the decorators."""
    with captured() as found:
        yield found


@pytest.fixture
def use_snapshot() -> Iterator[UseSnapshot]:
    """Sets the table of prices for one test."""
    yield data_snapshot.set_custom_snapshot
    data_snapshot.set_custom_snapshot(None)


@pytest.fixture
def no_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retries a failed attempt at once, where the policy asks for a wait."""
    chosen = RetryPolicy.next_delay_s

    def at_once(self: RetryPolicy, error: LLMError, **situation: Any) -> float | None:
        return None if chosen(self, error, **situation) is None else 0.0

    monkeypatch.setattr(RetryPolicy, "next_delay_s", at_once)


@pytest.fixture(autouse=True)
def _clean_slate(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Start each test without the machine's keys, other tests' prices and log lines; end it without an open span."""
    for name in list(os.environ):
        if name.endswith(_KEYS_AND_ADDRESSES) or name.startswith("OTEL_"):
            monkeypatch.delenv(name)
    for said in (FAULTS, LEFT_OUT, COUNTED_AS_ZERO, pricing.UNPRICED, usual_output):
        said.forget()
    yield
    pricing.set_prices([])
    assert trace.get_current_span() is trace.INVALID_SPAN, "a span is still current after the test"
