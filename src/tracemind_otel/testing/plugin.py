"""The pytest plugin. Loading it loads pytest and this file alone; the rest comes with what uses it."""

from __future__ import annotations

import argparse
import math
from collections.abc import Generator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from .recorded_spans import LLMSpans
    from .scripted_provider import FakeLLM
    from .spending_plugin import SpendingPlugin

__all__ = ["fake_llm", "llm_spans"]

_SPENDING_PLUGIN = "tracemind_otel_spending"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options."""
    group = parser.getgroup("tracemind-otel", "cost of model calls (tracemind-otel)")
    group.addoption(
        "--llm-cost-report", action="store_true", help="print what the tests spent on model calls, by test and model"
    )
    group.addoption(
        "--llm-cost-baseline",
        metavar="FILE",
        help="fail each test whose model calls cost more than FILE records for it",
    )
    group.addoption(
        "--llm-cost-update", action="store_true", help="write what the tests spend to the file of --llm-cost-baseline"
    )
    group.addoption(
        "--llm-cost-tolerance",
        type=_percentage,
        default=5.0,
        metavar="PERCENT",
        help="how much more than its baseline a test may cost (default: 5)",
    )


def _percentage(value: str) -> float:
    try:
        number = float(value.strip().removesuffix("%"))
    except ValueError:
        number = math.nan
    if not 0 <= number < math.inf:
        raise argparse.ArgumentTypeError(f"{value!r} is no percentage of zero or more; write one such as 5")
    return number


def pytest_configure(config: pytest.Config) -> None:
    """Describe the marker, and measure where an option asks for it."""
    config.addinivalue_line(
        "markers",
        "llm_budget(usd=None, calls=None, tokens=None): fail the test if its model calls use more than that "
        "(tracemind-otel)",
    )
    if config.getoption("--llm-cost-report") or config.getoption("--llm-cost-baseline"):
        _measure(config)
    elif config.getoption("--llm-cost-update"):
        raise pytest.UsageError("--llm-cost-update needs --llm-cost-baseline FILE: the file to write")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Measure where a test has a budget."""
    if any(item.get_closest_marker("llm_budget") for item in items):
        _measure(config).check_budgets(items)


def _measure(config: pytest.Config) -> SpendingPlugin:
    from .spending_plugin import SpendingPlugin

    plugin: object = config.pluginmanager.get_plugin(_SPENDING_PLUGIN)
    if not isinstance(plugin, SpendingPlugin):
        plugin = SpendingPlugin(config)
        config.pluginmanager.register(plugin, _SPENDING_PLUGIN)
    return plugin


@pytest.fixture
def fake_llm() -> Generator[FakeLLM]:
    """A scripted provider that answers every model call of the test, whatever its provider; see `FakeLLM`."""
    from .scripted_provider import FakeLLM

    with FakeLLM().installed() as fake:
        yield fake


@pytest.fixture
def llm_spans(request: pytest.FixtureRequest) -> Generator[LLMSpans]:
    """The spans and metrics of the test as plain data; see `LLMSpans`. A span that never ends fails the test."""
    from .recorded_spans import recorded_spans

    with recorded_spans(request.node, request.config.pluginmanager) as spans:
        yield spans
