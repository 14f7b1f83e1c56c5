"""The ids of a flow on the spans of other libraries: of HTTP clients, databases, queues."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

from opentelemetry.context import Context

from ...flows.correlation import NO_CORRELATION, current_correlation
from ..attributes import correlation_attributes
from ..instruments import is_ours

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import Span, SpanProcessor

_enriched: weakref.WeakSet[Any] = weakref.WeakSet()


def enrich(provider: Any) -> None:
    """Let every span of a provider of the SDK have the ids that hold where it starts. Doing so twice is harmless."""
    if provider not in _enriched and hasattr(provider, "add_span_processor"):
        _enriched.add(provider)
        provider.add_span_processor(_id_processor())


def _id_processor() -> SpanProcessor:
    from opentelemetry.sdk.trace import SpanProcessor

    class IdProcessor(SpanProcessor):
        def on_start(self, span: Span, parent_context: Context | None = None) -> None:
            ids = current_correlation()
            if ids is not NO_CORRELATION and not is_ours(span):  # ours have them already
                own = span.attributes or {}
                span.set_attributes(
                    {name: value for name, value in correlation_attributes(ids).items() if name not in own}
                )

    return IdProcessor()
