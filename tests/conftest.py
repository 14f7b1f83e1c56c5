"""Fixtures for every test."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from opentelemetry import trace

from tests.support import Captured, captured
from tracemind_otel.ai.llm import pricing

_KEYS_AND_ADDRESSES = (
    *("_API_KEY", "_BASE_URL", "_API_URL", "_AD_TOKEN", "_API_VERSION"),
    *("AZURE_OPENAI_ENDPOINT", "OLLAMA_HOST"),
)
"""How the variables end that providers read."""


@pytest.fixture
def capture() -> Iterator[Captured]:
    """Spans and metrics in memory, for the recorder and the decorators."""
    with captured() as found:
        yield found


@pytest.fixture(autouse=True)
def _clean_slate(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No key of the machine, no prices of another test, and no span left open behind."""
    for name in list(os.environ):
        if name.endswith(_KEYS_AND_ADDRESSES) or name.startswith("OTEL_"):
            monkeypatch.delenv(name)
    yield
    pricing.set_prices([])
    assert trace.get_current_span() is trace.INVALID_SPAN, "a span is still current after the test"
