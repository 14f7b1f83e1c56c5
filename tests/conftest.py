"""Fixtures for every test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from opentelemetry import trace

from tests.support import Captured, captured
from tracemind_otel.ai.llm import pricing


@pytest.fixture
def capture() -> Iterator[Captured]:
    """Spans and metrics in memory, for the recorder and the decorators."""
    with captured() as found:
        yield found


@pytest.fixture(autouse=True)
def _clean_slate(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No key of the machine, no prices of another test, and no span left open behind."""
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_SEMCONV_STABILITY_OPT_IN"):
        monkeypatch.delenv(name, raising=False)
    yield
    pricing.set_prices([])
    assert trace.get_current_span() is trace.INVALID_SPAN, "a span is still current after the test"
