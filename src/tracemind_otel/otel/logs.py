"""The ids of a flow, and the trace, on log records."""

from __future__ import annotations

import logging

from opentelemetry.trace import get_current_span

from ..flows.correlation import NO_CORRELATION, current_correlation
from .attributes import FIELDS, correlation_attributes
from .semconv import TRACEMIND_TAGS

TRACE_ID = "trace_id"
SPAN_ID = "span_id"
TRACE_FLAGS = "trace_flags"
"""Names of the OpenTelemetry specification, "Trace Context in non-OTLP Log Formats"."""


class LogContextFilter(logging.Filter):
    """Puts the ids that hold where a record is logged, and the current span, on the record.

    The attributes are those of the spans (`session.id`, `user.id`, `gen_ai.conversation.id`, `tracemind.flow.id`,
    `tracemind.tags`), and `trace_id`, `span_id` and `trace_flags` in hexadecimal digits. What is not set is an empty
    string, so that a format may name it everywhere. Add the filter to a handler; OpenTelemetry's own then exports the
    attributes with the log. No record is filtered out, and what was logged with a record wins.

    Example:
        >>> handler = logging.StreamHandler()
        >>> handler.addFilter(LogContextFilter())
        >>> handler.setFormatter(logging.Formatter("%(message)s %(session.id)s"))
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Add the attributes; always true."""
        known = _known()
        for name in _FIELDS:
            record.__dict__.setdefault(name, known.get(name, ""))
        return True


def _known() -> dict[str, object]:
    """What holds here and now."""
    ids, span = current_correlation(), get_current_span().get_span_context()
    known: dict[str, object] = {} if ids is NO_CORRELATION else dict(correlation_attributes(ids))
    if span.is_valid:
        known[TRACE_ID] = f"{span.trace_id:032x}"
        known[SPAN_ID] = f"{span.span_id:016x}"
        known[TRACE_FLAGS] = f"{span.trace_flags:02x}"
    return known


_FIELDS = (*FIELDS, TRACEMIND_TAGS, TRACE_ID, SPAN_ID, TRACE_FLAGS)
"""The attributes of every record."""
