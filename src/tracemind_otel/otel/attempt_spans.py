"""The attempts of a call that was retried, as child spans: a timeline shows why the call was slow."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

from opentelemetry.context import Context
from opentelemetry.trace import SpanKind, Status, StatusCode, Tracer

from ..flows.correlation import current_correlation
from . import semconv
from .attributes import correlation_attributes
from .sanitize import encodable
from .span_names import attempt_name

if TYPE_CHECKING:
    from ..flows.totals import AttributeValue
    from ..recording.port import StepEnd, StepRetry


class AttemptSpans:
    """The attempts of one call. Each span is made when its attempt is over, with the times that the attempt had.

    They are INTERNAL and have no `gen_ai.*` attribute, so that no backend counts them as calls. The waits are the gaps
    between them.

    Args:
        tracer: makes the spans.
        parent: the context of the call's span.
        started_ns: the start of the first attempt, in nanoseconds since the epoch.
    """

    def __init__(self, tracer: Tracer, parent: Context, started_ns: int) -> None:
        self._tracer = tracer
        self._parent = parent
        self._started_ns = started_ns
        self._made = 0
        self._ids = correlation_attributes(current_correlation())

    def failed(self, retry: StepRetry) -> None:
        """The attempt failed, and another follows after the wait."""
        ended_ns = retry.failed_ns or time.time_ns()
        attributes: dict[str, AttributeValue] = {
            semconv.ERROR_TYPE: retry.error_type,
            semconv.TRACEMIND_RETRY_REASON: retry.reason,
        }
        self._add(ended_ns, attributes, retry.status_code, is_error=True)
        self._started_ns = ended_ns + int(retry.delay_s * 1e9)

    def begin(self) -> None:
        """The next attempt begins."""
        self._started_ns = time.time_ns()

    def end(self, end: StepEnd, ended_ns: int) -> None:
        """The call is over, and with it the attempt that runs, if one does."""
        if ended_ns < self._started_ns:  # it ended in the wait
            return
        error = end.error
        attributes: dict[str, AttributeValue] = {}
        if error is not None:
            attributes[semconv.ERROR_TYPE] = error.error_type
            if error.retryable:  # others have no reason to repeat them
                attributes[semconv.TRACEMIND_RETRY_REASON] = error.retry_reason
        if end.cancelled:
            attributes[semconv.TRACEMIND_CANCELLED] = True
        self._add(ended_ns, attributes, None if error is None else error.status_code, is_error=error is not None)

    def _add(
        self, ended_ns: int, attributes: Mapping[str, AttributeValue], status_code: int | None, *, is_error: bool
    ) -> None:
        self._made += 1
        described = {**self._ids, semconv.TRACEMIND_RETRY_ATTEMPT: self._made, **attributes}
        if status_code is not None:
            described[semconv.HTTP_RESPONSE_STATUS_CODE] = status_code
        span = self._tracer.start_span(
            attempt_name(self._made),
            context=self._parent,
            kind=SpanKind.INTERNAL,
            attributes=encodable(described),
            start_time=min(self._started_ns, ended_ns),
        )
        if is_error:
            span.set_status(Status(StatusCode.ERROR))
        span.end(ended_ns)
