"""The ids of a flow and of the current span on log records."""

from __future__ import annotations

import logging

from opentelemetry.trace import get_current_span

from ..flows.correlation import NO_CORRELATION, current_correlation
from .attributes import FIELDS, correlation_attributes
from .semconv import TRACEMIND_TAGS

_FIELDS = (*FIELDS, TRACEMIND_TAGS, "trace_id", "span_id", "trace_flags")
"""The attributes of every record. The last three are named in the OpenTelemetry specification, "Trace Context in
non-OTLP Log Formats"."""


class LogContextFilter(logging.Filter):
    """Adds the ids that hold where a record is logged, and those of the current span, to the record.

    The attributes are those of the spans (`session.id`, `user.id`, `gen_ai.conversation.id`, `tracemind.flow.id`,
    `tracemind.tags`), and `trace_id`, `span_id` and `trace_flags` in hexadecimal digits. An attribute that is not set
    is an empty string, so that a format can name it everywhere. Add the filter to a handler; OpenTelemetry's handler
    then exports the attributes too. No record is filtered out, and attributes that a record has already are kept.

    Example:
        >>> handler = logging.StreamHandler()
        >>> handler.addFilter(LogContextFilter())
        >>> handler.setFormatter(logging.Formatter("%(message)s %(session.id)s"))
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Add the attributes; always true."""
        ids, span = current_correlation(), get_current_span().get_span_context()
        known: dict[str, object] = {} if ids is NO_CORRELATION else dict(correlation_attributes(ids))
        if span.is_valid:
            known["trace_id"] = f"{span.trace_id:032x}"
            known["span_id"] = f"{span.span_id:016x}"
            known["trace_flags"] = f"{span.trace_flags:02x}"
        for name in _FIELDS:
            record.__dict__.setdefault(name, known.get(name, ""))
        return True
