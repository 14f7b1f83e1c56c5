"""One model call, from its start to its end."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

from ..ai.llm.client import AsyncLLMClient
from ..ai.llm.providers import read_environment_again
from ..ai.llm.types import LLMRequest, LLMResponse, LLMUsage
from ..errors import ConfigError, LLMAuthenticationError, LLMClientError, LLMError
from ..flows.enclosing import enclosing_gives_way
from ..recording.port import Recorder, StepEnd, StepStatus, begin_safely, listeners
from .accounting import CallAccount
from .attempts import Attempts, as_llm_error
from .config import CallTarget, LLMCallConfig
from .lost_replies import lacks_reply
from .result import Result, cancelled_result, error_result, ok_result

log = logging.getLogger(__name__)


class Call:
    """A call; its end goes to the recorder, and to the flow and the budgets around it."""

    def __init__(
        self,
        ids: tuple[str, str],
        cfg: LLMCallConfig,
        request: LLMRequest,
        client: AsyncLLMClient,
        recorder: Recorder,
        *,
        is_stream: bool = False,
    ) -> None:
        enclosing_gives_way()
        self.target = CallTarget(cfg, request, client.for_model(request.model))
        self.account = CallAccount(self.target, ids[1])
        self.handle = begin_safely(self.target.start(*ids, is_stream=is_stream), recorder, *listeners())
        self.attempts = Attempts(self.target, self.account, self.handle)
        self.reply: LLMResponse | None = None
        self.result: Result | None = None
        self.error: LLMError | None = None

    async def reserve(self) -> None:
        """Hold what the call is expected to use, where there is a budget around it.

        Raises:
            BudgetExceededError: the budget has less left; the call must not be sent.
            LLMTimeoutError: the deadline passed before the price was found.
        """
        try:
            await self.account.reserve(self.attempts.remaining_s())
        except TimeoutError:
            raise self.attempts.deadline_error() from None

    def succeeded(self, response: LLMResponse, usage: LLMUsage, *, also: Result | None = None, **more: Any) -> Result:
        """End with a reply, and return the step's result; `also` goes into the result, `more` into the `StepEnd`."""
        result = ok_result(self.target.cfg, response, usage, self.attempts.retries) | (also or {})
        return self._end("success", result, response=response, usage=usage, **more)

    def failed(self, error: LLMError, *, also: Result | None = None, **more: Any) -> Result:
        """End in an error; arguments and result as of `succeeded`."""
        self.error = error
        if isinstance(error, LLMAuthenticationError):
            read_environment_again()
        result = error_result(self.target.cfg, error, self.attempts.retries) | (also or {})
        made = self.attempts.made
        how = f"failed after {made} attempt{'' if made == 1 else 's'}" if made else "was not sent"
        log.warning("%s %s: %s", self.target.name, how, error.error_type)
        return self._end("error", result, error=error, **more)

    def misused(self, error: ConfigError, *, was_sent: bool = False) -> None:
        """End a call that the client cannot make; the caller gets the error too, because it is the caller's mistake."""
        if not was_sent:
            self.attempts.take_back()
        fault = LLMClientError(str(error))
        fault.__cause__ = error
        self.failed(fault)

    def broke(self, error: Exception) -> Result:
        """End in a fault of this package, whose message may hold the prompt."""
        log.error("%s: a fault of this package (%s); please report it", self.target.name, type(error).__name__)
        return self.failed(self.as_llm_error(error))

    def interrupted(self, ended_ns: int) -> None:
        """End as cancelled; a reply that has come is counted, because it is billed."""
        reply = self.reply
        usage = None if reply is None else self.account.priced_now(reply)
        result = cancelled_result(self.target.cfg, reply, usage, self.attempts.retries)
        self._end("error", result, response=reply, usage=usage, cancelled=True, ended_ns=ended_ns)

    def as_llm_error(self, error: Exception) -> LLMError:
        """An exception outside our error tree, as one of it and without the prompt."""
        return as_llm_error(error, prompt=self.target.request.texts)

    def _end(self, status: StepStatus, result: Result, **fields: Any) -> Result:
        """End the call; the first end counts."""
        if self.result is not None:
            return self.result
        self.result = result
        attempts = self.attempts
        attempts.stop()
        end = StepEnd(status=status, payload=result, retries=attempts.retries, **fields)
        lost = [self.account.presume() for _ in range(attempts.lost_requests)]
        if attempts.may_have_sent and lacks_reply(end):
            lost.append(self.account.presume(end.response))
        if any(lost):
            end = replace(end, presumed_cost_usd=sum(filter(None, lost)))
        if self.account.presumed_usd is not None:
            result["presumed_cost_usd"] = self.account.presumed_usd
        assume_billed = attempts.is_running and (end.error is None or end.error.may_be_billed)
        try:
            self.account.close(end, was_sent=attempts.made > 0, assume_billed=assume_billed)
        finally:
            self.handle.end(end)
        return result
