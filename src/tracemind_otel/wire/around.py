"""What is around a call that is seen on the wire: a span of ours that counts it already, or one of somebody else."""

from __future__ import annotations

import contextvars
import threading
import time
from collections.abc import Sequence
from typing import Any

from opentelemetry.trace import Span

from .._base.context import Setting, set_here
from .._base.fork import in_forked_child
from ..ai.llm.types import LLMResponse, LLMUsage
from ..otel.double_spans import name_double_span
from ..otel.genai_spans import current_model_span, measured_by_maker, scope_of
from ..otel.instruments import SCOPE_NAME, is_ours
from ..otel.open_spans import CallTellers, begin_counted_call, span_around_suppression
from ..otel.recorder import JoinedSpan, MeasuredElsewhere, OTelRecorder
from ..recording.port import Recorder, StepEnd, StepHandle, StepRetry, StepStart


class SeenInside:
    """Collects what the wire shows inside a call of ours, for one that learns nothing by itself."""

    def __init__(self) -> None:
        self.has_ended = False
        self.gave_way = False
        """Whether the call of ours does not count, because one inside it does."""
        self.retries = 0
        """Attempts that were repeated."""
        self._lock = threading.Lock()
        self._responses: list[LLMResponse] = []

    def retried(self) -> None:
        """An attempt failed and is repeated."""
        with self._lock:
            self.retries += 1

    def answered(self, response: LLMResponse) -> None:
        """A reply came."""
        with self._lock:
            self._responses.append(response)

    def response(self) -> LLMResponse | None:
        """The reply; of several by one model the last, with the sum of their counts."""
        with self._lock:
            responses = list(self._responses)
        if not responses or len({each.response_model for each in responses}) > 1:
            return None
        return responses[-1] if len(responses) == 1 else _summed(responses)


def _summed(responses: Sequence[LLMResponse]) -> LLMResponse | None:
    if any(each.reported_cost is not None for each in responses):
        return None
    counts: dict[str, Any] = {}
    for response in responses:
        for name, value in vars(response.usage).items():
            if isinstance(value, int) and not isinstance(value, bool):
                counts[name] = counts.get(name, 0) + value
    sides = [counts.pop(name, None) for name in ("prompt_tokens", "completion_tokens", "total_tokens")]
    return LLMResponse(
        "",
        LLMUsage.of_reply(*sides, **counts),
        finish_reasons=responses[-1].finish_reasons,
        response_model=responses[-1].response_model,
        response_id=responses[-1].response_id,
    )


_current: contextvars.ContextVar[SeenInside | None] = contextvars.ContextVar("tracemind_seen_inside", default=None)


def current_seen_inside() -> SeenInside | None:
    """What collects here; `None` outside of any call of ours that asks for it."""
    return _current.get()


def enter_seen_inside(seen: SeenInside) -> Setting:
    """Collect what the wire shows from now on, until the setting is undone."""
    return set_here(_current, seen)


in_forked_child(lambda: _current.set(None))


class InsideOurs(Recorder):
    """A call inside a span of ours, which counts it: only its retries are recorded there.

    Args:
        recorder: has the tracer and the instruments.
        span: the span, where it records.
        seen: collects what is seen, where the call of ours asks for it.
    """

    def __init__(self, recorder: OTelRecorder, span: Span | None, seen: SeenInside | None) -> None:
        self._recorder = recorder
        self._span = span
        self._seen = seen

    def begin_step(self, start: StepStart) -> StepHandle:
        on_span = StepHandle() if self._span is None else self._recorder.begin_inside(start, self._span)
        return _SeenHandle(on_span, self._seen)


class _SeenHandle(StepHandle):
    def __init__(self, on_span: StepHandle, seen: SeenInside | None) -> None:
        self._on_span = on_span
        self._seen = seen

    def retry(self, retry: StepRetry) -> None:
        self._on_span.retry(retry)
        if self._seen is not None:
            self._seen.retried()

    def next_attempt(self) -> None:
        self._on_span.next_attempt()

    def end(self, end: StepEnd) -> None:
        self._on_span.end(end)
        if self._seen is not None and end.response is not None and not end.closed_early:
            self._seen.answered(end.response)


def recorder_here(recorder: OTelRecorder, model: str) -> tuple[Recorder, CallTellers | None]:
    """What records a call here, and what keeps who else tells of it; `None` for the latter where ours counts it."""
    found = _recorder_around(recorder, model)
    if isinstance(found, InsideOurs):
        return found, None
    call = begin_counted_call(model, time.time_ns(), None if found is None else found.span)
    for scope in call.beside:
        name_double_span(scope, SCOPE_NAME if found is None else scope_of(found.span))
    if found is not None:
        found.measured = call.measured if call.scopes else found.measured
        return found, call
    return (recorder if call.measured == "nothing" else MeasuredElsewhere(recorder, call.measured)), call


def _recorder_around(recorder: OTelRecorder, model: str) -> JoinedSpan | InsideOurs | None:
    """`None` where nothing around the call records it, so that it gets a span of its own."""
    span, seen = current_model_span() or span_around_suppression(model), current_seen_inside()
    if seen is not None and seen.has_ended:
        seen = None
    if seen is not None and seen.gave_way:
        return None
    if span is None:
        return None if seen is None else InsideOurs(recorder, None, seen)
    if is_ours(span):
        return InsideOurs(recorder, span, seen)
    return JoinedSpan(recorder, span, measured_by_maker(span))


def move_to_current(joined: JoinedSpan) -> None:
    """Go on with the current span: some SDKs make one for each attempt, and never end that of a repeated one."""
    span = current_model_span()
    if span is not None and not is_ours(span):
        joined.span = span
