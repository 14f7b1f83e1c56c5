"""One call that code of any kind makes inside a span of ours."""

from __future__ import annotations

import logging
import time
from collections.abc import Generator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace

from .._base.context import Setting
from .._base.once import Once, report_fault
from .._base.waiting import is_cancellation
from ..ai.llm.providers._client import telemetry_name_of
from ..ai.llm.types import LLMResponse, LLMUsage
from ..errors import BudgetExceededError, LLMClientError, LLMError, error_class_for_status
from ..flows.correlation import current_correlation, current_step
from ..flows.enclosing import enclosing_gives_way, enter_enclosing
from ..recording.port import StepStart
from .around import SeenInside, enter_seen_inside
from .counted_call import CountedCall
from .observation import settle_inside
from .replies import PiecesOfReply, reply_in
from .reserving import held_for

log = logging.getLogger(__name__)

STEP_TYPE = "custom.llm_call"
"""The kind of step that such a call is."""
_UNREAD = Once()
"""The calls of which it was logged that nothing they returned has usage."""


class CallRun:
    """One run; ends with what its code raises or returns.

    Args:
        provider: the provider by whose prices it is priced.
        model: the model.
        operation: the GenAI operation.
        name: the name of the step; the default is the running step, else the model.

    Raises:
        BudgetExceededError: a budget of this process around the call is spent; shared ones have yet to be asked.
    """

    def __init__(self, provider: str, model: str, operation: str, name: str | None) -> None:
        self.name = f"the model call {provider}/{model}"
        """What a warning calls it."""
        self.usage: LLMUsage | None = None
        """The user's word on what the call used."""
        self._provider, self._model = provider, model
        self._response: LLMResponse | None = None
        self._pieces: PiecesOfReply | None = None
        self._last_s: float | None = None
        self._active: AbstractContextManager[object] | None = None
        self._seen = SeenInside()
        self._seeing: Setting | None = None
        enclosing_gives_way()
        self._enclosing: Setting | None = None
        self._call = CountedCall(_start_of(provider, model, operation, name), provider)
        try:
            self._call.reservation = held_for(provider, model)
        except BudgetExceededError as error:
            self._call.deny(error)
            raise

    def ask_blocking(self) -> None:
        """Ask the shared budgets, which count as away on an event loop: it must not be blocked.

        Raises:
            BudgetExceededError: a budget denies the call.
        """
        if (held := self._call.reservation) is not None and held.is_unasked:
            with self._asking():
                held.ask_blocking()

    async def ask_soon(self) -> None:
        """The same where it can be awaited, and then on every event loop."""
        if (held := self._call.reservation) is not None and held.is_unasked:
            with self._asking():
                await held.ask_soon()

    @contextmanager
    def _asking(self) -> Generator[None]:
        """Ends the call where it is denied or cancelled meanwhile; with a fault of ours it goes on."""
        try:
            yield
        except BudgetExceededError as error:
            self._call.reservation = None
            self._call.deny(error)
            raise
        except Exception:
            report_fault(log, "llm_call_span", "ask")
        except BaseException:
            self._call.reservation = None
            self._call.end_cancelled()
            raise

    def enter(self) -> None:
        """Make the span current."""
        self._active = self._call.active()
        self._active.__enter__()
        self._seeing = enter_seen_inside(self._seen)
        self._enclosing = enter_enclosing(self)

    def leave(self) -> None:
        """Make the span current that was."""
        if self._enclosing is not None:
            self._enclosing.undo()
        if self._seeing is not None:
            self._seeing.undo()
        active, self._active = self._active, None
        if active is not None:
            active.__exit__(None, None, None)

    def give_way(self) -> None:
        """Count no more, because a call inside counts itself; what the code uses beside it is seen as its own."""
        self._seen.gave_way = True
        self._call.give_way()

    def read(self, reply: object) -> None:
        """Read a reply."""
        self._response = reply_in(reply, self._provider)
        if self._response is None:
            self._say_that_it_is_unread(type(reply).__name__)

    def item(self, value: object) -> None:
        """Read a piece of a stream."""
        now_s = time.perf_counter()
        if self._last_s is None:
            self._call.first_chunk()
        else:
            self._call.next_chunk(now_s - self._last_s)
        self._last_s = now_s
        if self._pieces is None:
            self._pieces = PiecesOfReply(self._provider)
        self._pieces.feed(value)

    def fail(self, error_type: str) -> None:
        """End in a failure that the code returned instead of raising it."""
        self._call.end_failed(LLMError("the call failed", code=error_type))

    def end(self, exc: BaseException | None, result: object = None, *, ended_ns: int | None = None) -> None:
        """End the span; never raises."""
        self._stop_seeing()
        try:
            if exc is None:
                self._call.end_answered(self._reply(result), ended_ns=ended_ns)
            elif isinstance(exc, GeneratorExit):
                self.close(ended_ns)
            elif is_cancellation(exc):
                self._call.end_cancelled(ended_ns=ended_ns)
            else:
                self._call.end_failed(_error_of(exc), ended_ns=ended_ns)
        except Exception:
            report_fault(log, "llm_call_span", "end")

    def close(self, ended_ns: int | None = None) -> None:
        """End the span of a stream that was not read to its end."""
        self._stop_seeing()
        try:
            self._call.end_answered(self._reply(None), closed_early=True, ended_ns=ended_ns)
        except Exception:
            report_fault(log, "llm_call_span", "close")

    def _stop_seeing(self) -> None:
        settle_inside(self._seen)
        self._seen.has_ended = True
        self._call.retries = self._seen.retries

    def _reply(self, result: object) -> LLMResponse | None:
        """What is known of the reply; a fault of ours costs what is known, and not the span."""
        try:
            return self._known_reply(result)
        except Exception:
            report_fault(log, type(result).__name__, "usage")
            return None

    def _known_reply(self, result: object) -> LLMResponse | None:
        """The user's word on the usage comes first."""
        found = self._response or (None if self._pieces is None else self._pieces.reply())
        if found is None and result is not None:
            found = reply_in(result, self._provider)
        found = found or self._seen.response()
        if self.usage is not None:
            return (
                LLMResponse("", self.usage) if found is None else replace(found, usage=self.usage, reported_cost=None)
            )
        if found is None:
            self._say_that_it_is_unread("its pieces" if self._pieces is not None else type(result).__name__)
        return found

    def _say_that_it_is_unread(self, where: str) -> None:
        if _UNREAD.is_new(self._provider, self._model, where):
            log.warning(
                "the call of %s/%s has no tokens and no cost: no usage was found in %s; return the provider's own "
                "reply or an LLMUsage, or call span.set_usage() in `with llm_call_span(...) as span`",
                self._provider,
                self._model,
                where,
            )


def _start_of(provider: str, model: str, operation: str, name: str | None) -> StepStart:
    return StepStart(
        flow_id=current_correlation().flow_id or "",
        step_id=name or current_step() or model,
        step_type=STEP_TYPE,
        operation=operation,
        provider=telemetry_name_of(provider),
        model=model,
    )


def _error_of(error: BaseException) -> LLMError:
    """Our error for one of other code: its type and status, not its message, which may hold the prompt."""
    if isinstance(error, LLMError):
        return error
    status = getattr(error, "status_code", None)
    name = type(error).__name__
    if isinstance(status, int) and not isinstance(status, bool) and 300 <= status < 600:
        return error_class_for_status(status)(f"{name}: HTTP {status}", status_code=status)
    fault = LLMClientError(name)
    fault.__cause__ = error
    return fault
