"""One call of a model from its start to its end, which is told exactly once."""

from __future__ import annotations

import logging
import time
from functools import partial
from typing import Any, TypeVar

from .._base.dropped import end_outside_collector
from ..ai.llm.client import AsyncLLMClient
from ..ai.llm.types import LLMRequest, LLMResponse, LLMUsage
from ..errors import ConfigError, LLMClientError, LLMError
from ..recording.port import Recorder, StepEnd, begin_safely
from .accounting import CallAccount
from .attempts import Attempts, as_llm_error
from .config import LLMCallConfig
from .result import Result, cancelled_result, error_result, ok_result
from .target import CallTarget

log = logging.getLogger(__name__)

T = TypeVar("T")


class Call:
    """A call whose end is told to the recorder, to the flow and to the budgets around it."""

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
        self.target = CallTarget(cfg, request, client.for_model(request.model))
        self.account = CallAccount(self.target)
        self.handle = begin_safely(recorder, self.target.start(*ids, is_stream=is_stream))
        self.attempts = Attempts(self.target, self.account, self.handle)
        self.has_ended = False

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
        """End well.

        Args:
            response: the reply.
            usage: its usage, with its cost.
            also: fields of the result besides.
            more: fields of the `StepEnd` besides.

        Returns:
            The step's result.
        """
        result = ok_result(self.target.cfg, response, usage, self.attempts.retries) | (also or {})
        self._end("success", result, response=response, usage=usage, **more)
        return result

    def failed(self, error: LLMError, *, also: Result | None = None, **more: Any) -> Result:
        """End in an error; arguments and result as of `succeeded`."""
        result = error_result(self.target.cfg, error, self.attempts.retries) | (also or {})
        log.warning("%s failed after %d attempt(s): %s", self.target.name, self.attempts.made, error.error_type)
        self._end("error", result, error=error, **more)
        return result

    def misused(self, error: ConfigError, *, was_sent: bool = False) -> None:
        """End a call that the client cannot make; the error goes to the caller, whose mistake it is."""
        if not was_sent:
            self.attempts.take_back()
        fault = LLMClientError(str(error))
        fault.__cause__ = error
        self.failed(fault)

    def broke(self, error: Exception) -> Result:
        """End in a fault of the step itself, whose message may hold the prompt."""
        log.error("%s: a fault of the step itself (%s)", self.target.name, type(error).__name__)
        return self.failed(self.as_llm_error(error))

    def interrupted(self, response: LLMResponse | None) -> Result:
        """End as cancelled; a reply that had come is to be paid."""
        usage = None if response is None else self.account.priced_now(response)
        result = cancelled_result(self.target.cfg, response, usage, self.attempts.retries)
        fields = {"response": response, "usage": usage, "cancelled": True, "ended_ns": time.time_ns()}
        end_outside_collector(self.target.name, partial(self._end, "error", result, **fields))
        return result

    def as_llm_error(self, error: Exception) -> LLMError:
        """An exception that is not of our error tree, as one that is, without the prompt."""
        return as_llm_error(error, prompt=self.target.request.all_text)

    def _end(self, status: Any, payload: Result, **fields: Any) -> None:
        if self.has_ended:
            return
        self.has_ended = True
        attempts = self.attempts
        attempts.stop()
        end = StepEnd(status=status, payload=payload, retries=attempts.retries, **fields)
        assume_billed = attempts.is_running and (end.error is None or end.error.may_be_billed)
        try:
            self.account.close(end, was_sent=attempts.made > 0, assume_billed=assume_billed)
        finally:
            self.handle.end(end)
