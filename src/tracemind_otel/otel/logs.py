"""The ids of a flow, and the trace, on log records."""

from __future__ import annotations

import logging

from opentelemetry.trace import get_current_span

from ..flows.correlation import NO_CORRELATION, current_correlation
from .attributes import correlation_attributes

TRACE_ID = "trace_id"
SPAN_ID = "span_id"
TRACE_FLAGS = "trace_flags"
"""Names of the OpenTelemetry specification, "Trace Context in non-OTLP Log Formats"."""


class LogContextFilter(logging.Filter):
    """Puts the ids that hold where a record is logged, and the current span, on the record.

    The attributes are those of the spans (`session.id`, `user.id`, `gen_ai.conversation.id`, `tracemind.flow.id`,
    `tracemind.tags`), and `trace_id`, `span_id` and `trace_flags` in hexadecimal digits; what is not set is left out.
    Add it to a handler; OpenTelemetry's own then exports them as attributes of the log. No record is filtered out.

    Example:
        >>> handler = logging.StreamHandler()
        >>> handler.addFilter(LogContextFilter())
        >>> handler.setFormatter(logging.Formatter("%(message)s %(session.id)s", defaults={"session.id": "-"}))
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Add the attributes; always true."""
        known: dict[str, object] = (
            dict(correlation_attributes(ids)) if (ids := current_correlation()) is not NO_CORRELATION else {}
        )
        span = get_current_span().get_span_context()
        if span.is_valid:
            known[TRACE_ID] = f"{span.trace_id:032x}"
            known[SPAN_ID] = f"{span.span_id:016x}"
            known[TRACE_FLAGS] = f"{span.trace_flags:02x}"
        record.__dict__.update({**known, **record.__dict__})  # what was logged with the record wins
        return True
