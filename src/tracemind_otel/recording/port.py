"""The port between a call and whatever records it. No OpenTelemetry here.

Write a recorder of your own by overriding either

- `record_step_start`, `record_step_retry` and `record_step_end`, which get plain dicts, or
- `begin_step`, which gets typed data and returns the handle of one call. A thousand calls may share a flow id and a
  step id, so only the handle identifies a call.

A recorder that raises never breaks a call, which reaches it through `begin_safely`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from .._base.dropped import end_dropped
from .._base.once import report_fault
from ..ai.llm.message_parts import InputContent
from ..ai.llm.sampling import SamplingOptions
from ..ai.llm.types import LLMResponse, LLMUsage
from ..errors import LLMError, RetryReason

log = logging.getLogger(__name__)

StepStatus = Literal["success", "error"]
"""The status that `record_step_end` gets. A cancelled call is an `error` with `cancelled` in its payload."""


@dataclass(frozen=True, kw_only=True)
class StepStart(SamplingOptions):
    """The start of a model call."""

    flow_id: str
    """The flow's id, as the caller gave it."""
    step_id: str
    """The step's id, as the caller gave it."""
    provider: str
    """The provider's name in telemetry (`gen_ai.provider.name`)."""
    model: str
    """The model that is asked for; empty where the request does not tell."""
    step_type: str = "ai.llm_call"
    """The kind of step."""
    operation: str = "chat"
    """The GenAI operation (`gen_ai.operation.name`)."""
    server_address: str | None = None
    """Host name of the provider's server, where there is one."""
    server_port: int | None = None
    """Port of the provider's server, where there is one."""
    is_stream: bool = False
    """Whether the reply is streamed."""
    output_type: str | None = None
    """What the model is asked to make (`gen_ai.output.type`), where that is no text."""
    prompt_name: str | None = None
    """The name of the prompt in a library or registry (`gen_ai.prompt.name`), where the call itself gives one."""
    prompt_version: str | None = None
    """Its version."""
    asked: Callable[[], InputContent] | None = field(default=None, repr=False, compare=False)
    """Returns what the model is asked: a prompt is written out only if the user wants it recorded."""

    def payload(self) -> dict[str, Any]:
        """The dict that `record_step_start` gets."""
        return {"type": self.step_type, "provider": self.provider, "model": self.model, "attempt": 0}


@dataclass(frozen=True, kw_only=True, slots=True)
class StepRetry:
    """A failed attempt that will be repeated."""

    attempt: int
    """The number of the attempt that failed, from 1."""
    max_attempts: int | None
    """The greatest number of attempts; `None` where only an SDK knows it."""
    delay_s: float
    """Seconds until the next attempt."""
    reason: RetryReason
    """The reason to repeat the attempt."""
    error_type: str
    """The low-cardinality name of the error (`error.type`)."""
    status_code: int | None = None
    """The HTTP status, where a reply came."""
    failed_ns: int | None = None
    """The end of the attempt, in nanoseconds since the epoch; `None` for now."""
    presumed_cost_usd: float | None = None
    """USD that the attempt presumably cost though its reply was lost; `None` where it was not, or has no price."""

    def payload(self) -> dict[str, Any]:
        """The dict that `record_step_retry` gets."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True, slots=True)
class StepEnd:
    """How a model call ended. A call that was cancelled has neither a response nor an error."""

    status: StepStatus
    """`success`, or `error` for a failed or a cancelled call."""
    payload: Mapping[str, Any]
    """The step's result, as `record_step_end` gets it."""
    response: LLMResponse | None = None
    """The reply, as the client returned it."""
    usage: LLMUsage | None = None
    """Tokens and cost of the reply, priced where a price is known."""
    error: LLMError | None = None
    """The error of a call that failed."""
    cancelled: bool = False
    """Whether the call was cancelled."""
    retries: int = 0
    """The number of failed attempts that were repeated."""
    closed_early: bool = False
    """Whether the reader closed or dropped a stream before its end."""
    is_counted: bool = True
    """Whether the call counts; not one that has calls inside it which count themselves."""
    ended_ns: int | None = None
    """The end of the last attempt, in nanoseconds since the epoch; `None` for now."""
    presumed_cost_usd: float | None = None
    """USD that the last attempt presumably cost though its reply was lost, and requests that were sent again within an
    attempt; `None` where nothing was lost, or has no price."""


class StepHandle:
    """One running call. This one does nothing; every method may be overridden."""

    def active(self) -> AbstractContextManager[object]:
        """A context in which the provider is called, so that what happens inside nests under the call."""
        return nullcontext()

    def retry(self, retry: StepRetry) -> None:
        """An attempt failed and will be repeated; called before the wait."""

    def next_attempt(self) -> None:
        """The wait is over, and the next attempt begins."""

    def first_chunk(self) -> None:
        """The first piece of a streamed reply has come."""

    def next_chunk(self, gap_s: float, response_model: str | None) -> None:
        """A later piece of a streamed reply has come, `gap_s` seconds after the one before.

        `response_model` is the model that answers, if the provider has named it.
        """

    def end(self, end: StepEnd) -> None:
        """The call is over; ending twice is harmless."""


class Recorder:
    """Records calls. This one does nothing; override what you need."""

    def record_step_start(self, flow_id: str, step_id: str, payload: dict[str, Any] | None = None) -> None:
        """A step begins; `payload` has `type`, `provider`, `model` and `attempt` (0)."""

    def record_step_retry(self, flow_id: str, step_id: str, payload: dict[str, Any] | None = None) -> None:
        """An attempt failed and will be repeated; `payload` as `StepRetry.payload`."""

    def record_step_end(self, flow_id: str, step_id: str, status: str, payload: dict[str, Any] | None = None) -> None:
        """A step is over, with `status` `success` or `error`; `payload` is the step's result."""

    def begin_step(self, start: StepStart) -> StepHandle:
        """Begin one call; the default forwards to the three methods above."""
        return _ForwardingHandle(self, start)


class _ForwardingHandle(StepHandle):
    """Turns the calls of a handle into the recorder's three methods."""

    __slots__ = ("_has_ended", "_recorder", "_start")

    def __init__(self, recorder: Recorder, start: StepStart) -> None:
        self._recorder, self._start, self._has_ended = recorder, start, False
        recorder.record_step_start(start.flow_id, start.step_id, start.payload())

    def retry(self, retry: StepRetry) -> None:
        self._recorder.record_step_retry(self._start.flow_id, self._start.step_id, retry.payload())

    def end(self, end: StepEnd) -> None:
        if not self._has_ended:
            self._has_ended = True
            self._recorder.record_step_end(self._start.flow_id, self._start.step_id, end.status, dict(end.payload))


def begin_safely(start: StepStart, *recorders: Recorder) -> StepHandle:
    """Begin a step on recorders that may raise: their faults are logged and never reach the call or one another."""
    end_dropped()
    handles: list[_Named] = []
    for recorder in recorders:
        name = type(recorder).__name__
        try:
            handles.append((name, recorder.begin_step(start)))
        except Exception:
            report_fault(log, name, "begin_step")
    return _SafeHandle(handles)


_listeners: tuple[Recorder, ...] = ()


@contextmanager
def listening(listener: Recorder) -> Generator[None]:
    """Let a second recorder hear of every call that begins in this process: for tests."""
    global _listeners
    _listeners = (*_listeners, listener)
    try:
        yield
    finally:
        _listeners = tuple(each for each in _listeners if each is not listener)


def listeners() -> tuple[Recorder, ...]:
    """The recorders that hear of every call."""
    return _listeners


_Named = tuple[str, StepHandle]
"""The class of a recorder, for the log, and its handle."""


class _SafeHandle(StepHandle):
    """Calls every handle, and logs what one raises."""

    __slots__ = ("_handles",)

    def __init__(self, handles: Sequence[_Named]) -> None:
        self._handles = handles

    def active(self) -> AbstractContextManager[object]:
        return _SafeActive(self._handles)

    def retry(self, retry: StepRetry) -> None:
        self._tell("retry", retry)

    def next_attempt(self) -> None:
        self._tell("next_attempt")

    def first_chunk(self) -> None:
        self._tell("first_chunk")

    def next_chunk(self, gap_s: float, response_model: str | None) -> None:
        for name, handle in self._handles:  # without `_tell`, which takes longer: it is called for every chunk
            try:
                handle.next_chunk(gap_s, response_model)
            except Exception:
                report_fault(log, name, "next_chunk")

    def end(self, end: StepEnd) -> None:
        self._tell("end", end)

    def _tell(self, method: str, *arguments: object) -> None:
        for name, handle in self._handles:
            try:
                getattr(handle, method)(*arguments)
            except Exception:
                report_fault(log, name, method)


class _SafeActive(AbstractContextManager[object]):
    """Enters the context of every handle, and logs what one raises."""

    __slots__ = ("_entered", "_handles")

    def __init__(self, handles: Sequence[_Named]) -> None:
        self._handles = handles
        self._entered: list[tuple[str, AbstractContextManager[object]]] = []

    def __enter__(self) -> None:
        for name, handle in self._handles:
            try:
                active = handle.active()
                active.__enter__()
            except Exception:
                report_fault(log, name, "active")
            else:
                self._entered.append((name, active))

    def __exit__(self, *exc_info: Any) -> None:
        for name, active in reversed(self._entered):
            try:
                active.__exit__(*exc_info)
            except Exception:
                report_fault(log, name, "active")
