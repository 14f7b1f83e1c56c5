"""Puts the content of a call on its span, and on the event of the logs signal."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

from opentelemetry import _logs as logs
from opentelemetry.trace import Span, set_span_in_context

from .._base.once import report_fault
from .._version import __version__
from ..ai.llm.message_parts import output_of
from . import semconv
from .content import ContentOptions, ShownContent, shown_content
from .genai_spans import attributes_of
from .instruments import SCOPE_NAME

if TYPE_CHECKING:
    from ..recording.port import StepEnd, StepStart

log = logging.getLogger(__name__)


def record_content(
    span: Span,
    start: StepStart,
    end: StepEnd,
    options: ContentOptions,
    *,
    logger_provider: logs.LoggerProvider | None = None,
    ended_ns: int | None = None,
    present: Collection[str] = (),
) -> None:
    """Record what was asked and answered; a fault in it leaves the span without content.

    Embeddings have no messages, and the conventions have no content for them.

    Args:
        span: the span of the call, which has not ended.
        start: the start of the call.
        end: its end; a reply that broke off is recorded as far as it came.
        options: what to record.
        logger_provider: gets the event; `None` for the global one.
        ended_ns: the time of the event, in nanoseconds since the epoch.
        present: content attributes that the span has already, which stay.
    """
    if start.operation == semconv.OPERATION_EMBEDDINGS:
        return
    try:
        asked = None if start.asked is None else start.asked()
        answered = () if end.response is None else output_of(end.response)
        content = shown_content(asked, answered, options)
        if options.on_span:
            span.set_attributes({name: shown.text for name, shown in content.items() if name not in present})
        if options.on_event:
            _emit(span, content, logger_provider, ended_ns)
    except Exception:
        report_fault(log, "OTelRecorder", "record_content")


def _emit(
    span: Span, content: Mapping[str, ShownContent], provider: logs.LoggerProvider | None, ended_ns: int | None
) -> None:
    shared = {name: value for name, value in attributes_of(span).items() if name.startswith(semconv.OF_INFERENCE)}
    logger = logs.get_logger(SCOPE_NAME, __version__, logger_provider=provider, schema_url=semconv.SCHEMA_URL)
    logger.emit(
        timestamp=ended_ns,
        context=set_span_in_context(span),
        severity_number=logs.SeverityNumber.DEBUG,
        event_name=semconv.INFERENCE_DETAILS_EVENT,
        attributes={**shared, **{name: shown.values for name, shown in content.items()}},
    )
