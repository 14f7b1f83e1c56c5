"""One call of a model that another SDK makes: one span, however many attempts."""

from __future__ import annotations

import json
import time
from functools import partial

from ..ai.llm.message_parts import InputContent, input_of_body
from ..ai.llm.pricing import UnknownServer
from ..ai.llm.providers._client import telemetry_name_of
from ..ai.llm.providers._hosts import UNKNOWN
from ..call.lost_replies import is_lost
from ..errors import BudgetExceededError, LLMError
from ..flows.correlation import current_correlation, current_step
from ..otel.recorder import JoinedSpan
from ..recording.port import StepRetry, StepStart
from .around import current_seen_inside, move_to_current, recorder_here
from .counted_call import CountedCall, default_recorder
from .recognition import ModelCall
from .reserving import reserve_for
from .usage_estimate import UsageEstimate

STEP_TYPE = "sdk.llm_call"
"""The kind of step that such a call is."""


class LogicalCall(CountedCall):
    """A call: begun with its first attempt, ended once.

    Args:
        seen: the request.
        host: the server.
        port: its port.
        body: the body of the request, where the user wants content recorded.
    """

    def __init__(self, seen: ModelCall, host: str, port: int | None, body: bytes | None = None) -> None:
        around, told = recorder_here(default_recorder(), seen.model)
        super().__init__(_start_of(seen, host, port, body), seen.provider, around, is_counted=told is not None)
        self.told = told
        self.seen = seen
        self.inside = current_seen_inside()
        """The call of ours around it, where there is one."""
        if seen.provider == UNKNOWN:
            self.unknown_server = UnknownServer(host if port is None else f"{host}:{port}", seen.endpoint.inventor)
        self.estimate: UsageEstimate | None = None
        self._is_content_recorded = body is not None
        self._joined = around if isinstance(around, JoinedSpan) else None
        self._failure: LLMError | None = None
        self._failed_ns = 0

    @property
    def needs_text(self) -> bool:
        """Whether the text of the reply is needed, and not only what is counted."""
        return self._is_content_recorded or self.estimate is not None

    def estimate_usage(self, body: bytes | None) -> None:
        """Estimate the tokens that the reply does not report."""
        self.estimate = UsageEstimate.of_request(self.seen.model, body)

    def reserve(self, body: bytes | None) -> None:
        """Hold what the call is expected to use, or end it as denied."""
        if not self.is_counted:
            return
        try:
            unknown = None if self.unknown_server is None else self.unknown_server.name
            self.reservation = reserve_for(self.seen, body, unknown)
        except BudgetExceededError as error:
            self.deny(error)

    @property
    def is_unasked(self) -> bool:
        """Whether shared budgets must be asked before the attempt is sent."""
        return self.reservation is not None and self.reservation.is_unasked

    def ask_blocking(self) -> None:
        """Ask them, in a thread that the attempt will block anyway.

        Raises:
            BudgetExceededError: a budget denies it.
        """
        if self.reservation is not None:
            self.reservation.ask_blocking(may_block=True)

    async def ask_soon(self) -> None:
        """The same without blocking the thread."""
        if self.reservation is not None:
            await self.reservation.ask_soon()

    def begin_attempt(self) -> None:
        """Another attempt begins: the last one failed and is repeated, unless no budget is left for it."""
        if self._failure is None or self.denial is not None:
            return
        if self.reservation is not None and self._failure.may_be_billed:
            try:
                self.reservation.hold_here(llm_calls=0)
            except BudgetExceededError as error:
                self.deny_attempt(error)
                return
        if not self.is_unasked:
            self.admit_attempt()

    def deny_attempt(self, error: BudgetExceededError) -> None:
        """End the call, because a budget denies its attempt. The one that failed before may still be billed."""
        self._give_up_attempt()
        self.deny(error)

    def cancel_attempt(self) -> None:
        """End the call, which was cancelled before its attempt was sent."""
        self._give_up_attempt()
        self.end_cancelled()

    def _give_up_attempt(self) -> None:
        if self._failure is None:
            self.reservation = None  # nothing was ever sent, and nothing is held any more
        else:
            self.failed_before = self._failure

    def admit_attempt(self) -> None:
        """The budgets have room for the attempt; where it repeats another, that is a retry."""
        if self._failure is None:
            return
        if self.reservation is not None and self._failure.may_be_billed:
            self.reservation.presume()
        if self._joined is not None:
            move_to_current(self._joined)
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
                presumed_cost_usd=self.presume(failure.reply) if is_lost(failure) else None,
            )
        )
        self._handle.next_attempt()

    def fail(self, error: LLMError) -> None:
        """An attempt failed that may be repeated."""
        self._failure, self._failed_ns = error, time.time_ns()

    def settle(self) -> None:
        """End with the last failure, at its time."""
        if self._failure is not None:
            self.end_failed(self._failure, ended_ns=self._failed_ns)


def _start_of(seen: ModelCall, host: str, port: int | None, body: bytes | None) -> StepStart:
    return StepStart(
        flow_id=current_correlation().flow_id or "",
        step_id=current_step() or seen.model or "model call",
        step_type=STEP_TYPE,
        operation=seen.wire.operation,
        provider=telemetry_name_of(seen.endpoint.inventor if seen.provider == UNKNOWN else seen.provider),
        model=seen.model,
        server_address=host,
        server_port=port,
        is_stream=seen.is_stream,
        output_type=seen.endpoint.output_type,
        asked=None if body is None else partial(_asked_in, body),
        **seen.sampling,
    )


def _asked_in(body: bytes) -> InputContent:
    """What a request asks; a body that is not a JSON object asks nothing that is known."""
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return InputContent()
    return input_of_body(document) if isinstance(document, dict) else InputContent()  # pyright: ignore[reportUnknownArgumentType]
