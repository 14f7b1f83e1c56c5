"""Names, once each, the instrumentations whose spans stand beside the span of the same call."""

from __future__ import annotations

import logging

from .._base.once import Once
from .instruments import SCOPE_NAME

log = logging.getLogger(__name__)

_NAMED = Once()
_OFF = (
    ("com.anthropic.sdk.python", "ANTHROPIC_OPEN_TELEMETRY=false"),
    ("mistralai_sdk_tracer", "MISTRAL_SDK_TELEMETRY=off"),
    (SCOPE_NAME, "tm.configure(instrument=False)"),
    ("opentelemetry.instrumentation.anthropic", "AnthropicInstrumentor().uninstrument()"),
    ("opentelemetry.instrumentation.openai", "OpenAIInstrumentor().uninstrument()"),
    ("openinference.instrumentation.anthropic", "AnthropicInstrumentor().uninstrument()"),
    ("openinference.instrumentation.openai", "OpenAIInstrumentor().uninstrument()"),
)
"""What turns a maker of spans off, by the beginning of its scope's name, as of 2026-11."""


def name_double_span(scope: str, beside: str) -> None:
    """Say that two makers have a span each for one call.

    Args:
        scope: the one that does not make its span current.
        beside: the one whose span has the cost.
    """
    if _NAMED.is_new(scope, beside):
        log.warning(
            "a model call has two spans, one of %s and one of %s, because %s does not make its span current while the "
            "request is sent. The call is counted once. To have one span, turn one of them off: %s, or %s",
            beside,
            scope,
            scope,
            _off(scope),
            _off(beside),
        )


def _off(scope: str) -> str:
    named = next((line for beginning, line in _OFF if scope.startswith(beginning)), None)
    return named or f"the uninstrument() of the instrumentor that has the scope {scope}"
