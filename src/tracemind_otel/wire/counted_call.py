"""One call of a model that other code makes: recorded, priced and counted once."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from .._base.once import report_fault
from ..ai.llm.pricing import UnknownServer, price_reply_soon, warm_up
from ..ai.llm.types import LLMResponse, LLMUsage
from ..call.lost_replies import is_lost, lacks_reply, presumed_cost, usual_output
from ..errors import BudgetExceededError, LLMError
from ..flows.agents import current_agent
from ..flows.budget import Reservation
from ..flows.totals import FlowRun, current_flow
from ..otel.open_spans import CallTellers
from ..otel.recorder import OTelRecorder
from ..recording.port import Recorder, StepEnd, StepStart, begin_safely, listeners

log = logging.getLogger(__name__)


@lru_cache(maxsize=1)
def default_recorder() -> OTelRecorder:
    """The recorder that follows `configure()`."""
    return OTelRecorder()


class CountedCall:
    """A call that has begun; the first end counts.

    Args:
        start: what is known at the start.
        provider: the provider whose prices apply.
        recorder: what records the call; the default follows `configure()`.
        is_counted: whether it counts for the flow around it; a call inside one that counts does not.
    """

    def __init__(
        self, start: StepStart, provider: str, recorder: Recorder | None = None, *, is_counted: bool = True
    ) -> None:
        self.is_counted = is_counted
        self.flow: FlowRun | None = current_flow() if is_counted else None
        self._agent = current_agent() if is_counted else None
        self.retries = 0
        self.denial: BudgetExceededError | None = None
        self.reservation: Reservation | None = None
        self.failed_before: LLMError | None = None
        """How the last attempt failed, where the budgets or a cancellation kept it from being repeated."""
        self.unknown_server: UnknownServer | None = None
        self.told: CallTellers | None = None
        """What keeps who else tells of the call."""
        self.expected: Callable[[], LLMUsage] | None = None
        """Estimates what the call uses: the input, and the most output; `None` where the request was not seen."""
        self.presumed_usd: float | None = None
        """USD that lost replies presumably cost."""
        self._model = start.model
        self._provider = provider
        self._step_id = start.step_id
        heard_by = listeners() if is_counted else ()
        self._handle = begin_safely(start, recorder or default_recorder(), *heard_by)
        self._has_ended = False
        self._gave_way = False
        try:
            warm_up(provider, start.model)
        except Exception:
            report_fault(log, "CountedCall", "warm_up")

    def active(self) -> AbstractContextManager[object]:
        """A block in which the call's span is current."""
        return self._handle.active()

    def give_way(self) -> None:
        """Count no more: a call inside this one counts itself."""
        if not self.is_counted or self._has_ended:
            return
        self.is_counted, self.flow = False, None
        self._gave_way = True
        reservation, self.reservation = self.reservation, None
        if reservation is not None:
            reservation.release(llm_calls=1)

    def deny(self, error: BudgetExceededError) -> None:
        """End a call that a budget denies."""
        self.denial = error
        self.end_failed(error)

    def first_chunk(self) -> None:
        """The first piece of a stream has come."""
        self._handle.first_chunk()

    def next_chunk(self, gap_s: float) -> None:
        """A later piece has come."""
        self._handle.next_chunk(gap_s, None)

    def end_failed(self, error: LLMError, *, response: LLMResponse | None = None, ended_ns: int | None = None) -> None:
        """End in an error, with the part of the reply that had come."""
        self._end_with(response, ended_ns, status="error", payload=_failed(error), error=error)

    def end_cancelled(self, *, response: LLMResponse | None = None, ended_ns: int | None = None) -> None:
        """End as cancelled, with the part of the reply that had come."""
        self._end_with(response, ended_ns, status="error", payload={"status": "error"}, cancelled=True)

    def end_answered(
        self, response: LLMResponse | None, *, closed_early: bool = False, ended_ns: int | None = None
    ) -> None:
        """End with a reply, as far as it has come; `None` where nothing is known of it."""
        self._end_with(response, ended_ns, status="success", payload={"status": "ok"}, closed_early=closed_early)

    def _end_with(self, response: LLMResponse | None, ended_ns: int | None, **how: Any) -> None:
        """End with the price of a reply. A part of one is priced only where its counts are those of the whole."""
        ended_ns = ended_ns or time.time_ns()

        def end(usage: LLMUsage | None) -> None:
            told = None if self._gave_way else response
            counts: dict[str, Any] = {"retries": self.retries, "is_counted": not self._gave_way}
            self._end(StepEnd(response=told, usage=usage, ended_ns=ended_ns, **counts, **how))

        if response is None or not self.is_counted:
            end(None)
            return
        if self.told is not None:
            self.told.replied(response, ended_ns)
        is_whole = how["status"] == "success" and not how["closed_early"]
        if not is_whole and not response.usage.is_whole:
            counted = response.usage.sanitized()
            end(counted if counted.is_known else None)
            return
        models = tuple(filter(None, (response.response_model, self._model))) or ("unknown",)
        at = datetime.now(UTC)
        price_reply_soon(self._provider, models, response, end, at=at, unknown_server=self.unknown_server)

    def presume(self, part: LLMResponse | None = None) -> float | None:
        """What the reply that was just lost presumably cost; the call's sum has it too."""
        if self.expected is None or not self.is_counted or not self._model:
            return None
        try:
            names = self._provider, self._model
            cost_usd = presumed_cost(*names, self.expected(), step=self._step_id, part=part)
        except Exception:
            report_fault(log, "CountedCall", "presume")
            return None
        if cost_usd is not None:
            self.presumed_usd = (self.presumed_usd or 0.0) + cost_usd
        return cost_usd

    def _end(self, end: StepEnd) -> None:
        if self._has_ended:
            return
        self._has_ended = True
        lost = self.failed_before if self.failed_before is not None and is_lost(self.failed_before) else None
        if lacks_reply(end) or lost is not None:
            end = replace(end, presumed_cost_usd=self.presume(end.response if lost is None else lost.reply))
        try:
            if end.error is None:
                usual_output.note(self._step_id, f"{self._provider}/{self._model}", end.usage)
            if self.told is not None:
                self.told.priced(end.usage)
            if self.reservation is not None:
                told = end.error if self.failed_before is None else self.failed_before
                assume_billed = told is None or told.may_be_billed
                self.reservation.settle(end.usage, assume_billed=assume_billed)
            was_sent = self.denial is None or self.reservation is not None
            if self._agent is not None and was_sent:
                self._agent.count_inference()
            if self.flow is not None and was_sent:
                answered_by = None if end.response is None else end.response.response_model
                model = f"{self._provider}/{self._model or answered_by or 'unknown'}"
                self.flow.add_call(
                    end.usage,
                    retries=end.retries,
                    step=self._step_id,
                    model=model,
                    presumed_cost_usd=self.presumed_usd,
                )
        except Exception:
            report_fault(log, "CountedCall", "end")
        finally:
            self._handle.end(end)


def _failed(error: LLMError) -> dict[str, str]:
    return {"status": "error", "reason": error.message, "error_type": error.error_type}
