"""One call of a model that another SDK makes: one span, however many attempts."""

from __future__ import annotations

import logging
import time
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from functools import lru_cache

from .._base.once import report_fault
from ..ai.llm.pricing import price_reply_soon, warm_up
from ..ai.llm.providers._client import telemetry_name_of
from ..ai.llm.types import LLMResponse, LLMUsage
from ..errors import BudgetExceededError, LLMError
from ..flows.budget import Reservation
from ..flows.correlation import current_correlation
from ..flows.current_step import current_step
from ..flows.totals import FlowRun, current_flow
from ..otel.recorder import OTelRecorder
from ..recording.port import Recorder, StepEnd, StepRetry, StepStart, begin_safely, listeners
from .recognition import UNKNOWN, ModelCall
from .reserving import reserve_for

log = logging.getLogger(__name__)

STEP_TYPE = "sdk.llm_call"
"""The kind of step that such a call is."""


@lru_cache(maxsize=1)
def _recorder() -> Recorder:
    return OTelRecorder()


class LogicalCall:
    """A call: begun with its first attempt, ended once.

    Args:
        seen: the request.
        host: the server.
        port: its port.
    """

    def __init__(self, seen: ModelCall, host: str, port: int | None) -> None:
        self.seen = seen
        self.flow: FlowRun | None = current_flow()
        self.retries = 0
        self._step_id = current_step() or seen.model or "model call"
        self._handle = begin_safely(self._start(host, port), _recorder(), *listeners())
        self.denial: BudgetExceededError | None = None
        self._reservation: Reservation | None = None
        self._failure: LLMError | None = None
        self._failed_ns = 0
        self._has_ended = False
        warm_up(seen.provider, seen.model)

    def _start(self, host: str, port: int | None) -> StepStart:
        seen = self.seen
        return StepStart(
            flow_id=current_correlation().flow_id or "",
            step_id=self._step_id,
            step_type=STEP_TYPE,
            operation=seen.wire.operation,
            provider=telemetry_name_of(seen.endpoint.inventor if seen.provider == UNKNOWN else seen.provider),
            model=seen.model,
            server_address=host,
            server_port=port,
            is_stream=seen.is_stream,
            **seen.sampling,
        )

    def active(self) -> AbstractContextManager[object]:
        """A block in which the call's span is current."""
        return self._handle.active()

    def reserve(self, body: bytes | None) -> None:
        """Hold what the call is expected to use, or end it as denied."""
        try:
            self._reservation = reserve_for(self.seen, body)
        except BudgetExceededError as error:
            self._deny(error)

    def _deny(self, error: BudgetExceededError) -> None:
        self.denial = error
        self.end_failed(error)

    def begin_attempt(self) -> None:
        """Another attempt begins: the last one failed and is repeated, unless no budget is left for it."""
        if self._failure is None:
            return
        if self._reservation is not None and self._failure.may_be_billed:
            try:
                self._reservation.repeat_or_raise()
            except BudgetExceededError as error:
                self._deny(error)
                return
        self.retries += 1
        failure, self._failure = self._failure, None
        self._handle.retry(
            StepRetry(
                attempt=self.retries,
                max_attempts=None,
                delay_s=(time.time_ns() - self._failed_ns) / 1e9,
                reason=failure.retry_reason,
                error_type=failure.error_type,
                status_code=failure.status_code,
                failed_ns=self._failed_ns,
            )
        )

    def fail(self, error: LLMError) -> None:
        """An attempt failed that may be repeated."""
        self._failure, self._failed_ns = error, time.time_ns()

    def settle(self) -> None:
        """End with the last failure, at its time."""
        if self._failure is not None:
            self.end_failed(self._failure, ended_ns=self._failed_ns)

    def first_chunk(self) -> None:
        """The first piece of a stream has come."""
        self._handle.first_chunk()

    def next_chunk(self, gap_s: float) -> None:
        """A later piece has come."""
        self._handle.next_chunk(gap_s, None)

    def end_failed(self, error: LLMError, *, ended_ns: int | None = None) -> None:
        """End in an error."""
        self._end(StepEnd(status="error", payload=_failed(error), error=error, retries=self.retries, ended_ns=ended_ns))

    def end_cancelled(self) -> None:
        """End as cancelled."""
        self._end(StepEnd(status="error", payload={"status": "error"}, cancelled=True, retries=self.retries))

    def end_answered(self, response: LLMResponse, *, closed_early: bool = False, ended_ns: int | None = None) -> None:
        """End with a reply, as far as it has come."""
        ended_ns = ended_ns or time.time_ns()

        def end(usage: LLMUsage | None) -> None:
            self._end(
                StepEnd(
                    status="success",
                    payload={"status": "ok"},
                    response=response,
                    usage=usage,
                    retries=self.retries,
                    closed_early=closed_early,
                    ended_ns=ended_ns,
                )
            )

        if closed_early and not response.usage.is_whole:
            end(None)  # what was reported so far is no bill
            return
        models = tuple(filter(None, (response.response_model, self.seen.model)))
        price_reply_soon(self.seen.provider, models, response, end, at=datetime.now(UTC))

    def _end(self, end: StepEnd) -> None:
        if self._has_ended:
            return
        self._has_ended = True
        try:
            if self._reservation is not None:
                assume_billed = end.error is None or end.error.may_be_billed
                self._reservation.settle(end.usage, assume_billed=assume_billed)
            if self.flow is not None and not (self.denial is not None and self._reservation is None):
                model = f"{self.seen.provider}/{self.seen.model}"
                self.flow.add_call(end.usage, retries=end.retries, step=self._step_id, model=model)
        except Exception:
            report_fault(log, "LogicalCall", "end")
        finally:
            self._handle.end(end)


def _failed(error: LLMError) -> dict[str, str]:
    return {"status": "error", "reason": error.message, "error_type": error.error_type}
