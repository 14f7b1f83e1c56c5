"""One call of a model, from its first attempt to its end: what whole replies and streams share."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from types import MappingProxyType
from typing import Any, TypeVar

from ..ai.llm.client import AsyncLLMClient
from ..ai.llm.policy import RetryPolicy
from ..ai.llm.pricing import find_price, price_call
from ..ai.llm.scrub import scrub
from ..ai.llm.tokens import CharacterTokenizer
from ..ai.llm.types import LLMRequest, LLMResponse, LLMUsage, ToolCall
from ..errors import (
    BudgetExceededError,
    ConfigError,
    LLMClientError,
    LLMConnectionError,
    LLMError,
    LLMStatusError,
    LLMTimeoutError,
)
from ..runtime.budget import Estimate, Reservation, current_budget, needs_price, reserve
from ..runtime.recorder import Recorder, StepEnd, StepRetry, StepStart, begin_safely
from ..runtime.rollup import current_flow
from .config import STEP_TYPE, LLMCallConfig

log = logging.getLogger(__name__)

T = TypeVar("T")

_NOTHING: Mapping[str, Any] = MappingProxyType({})


@lru_cache(maxsize=64)
def _policy(max_retries: int) -> RetryPolicy:
    return RetryPolicy(max_retries=max_retries)


class Call:
    """A call whose end is told to the recorder, and to the flow around it, exactly once."""

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
        self.cfg = cfg
        self.request = request
        self.client = client
        self.retries = 0
        self._policy = _policy(cfg.max_retries)
        self._ends_at = None if cfg.deadline_ms is None else time.monotonic() + cfg.deadline_ms / 1000.0
        self._flow = current_flow()
        self._budget = current_budget()
        self._reservation: Reservation | None = None
        self._has_ended = False
        self.handle = begin_safely(recorder, _start(ids, cfg, request, client, is_stream=is_stream))

    @property
    def name(self) -> str:
        """What the call is named in the log."""
        return f"{STEP_TYPE} {self.cfg.provider}/{self.cfg.model}"

    @property
    def has_ended(self) -> bool:
        """Whether its end was told."""
        return self._has_ended

    async def reserve(self) -> None:
        """Hold what the call is expected to use, where there is a budget around it.

        Raises:
            BudgetExceededError: there is not so much left; the call must not be sent.
        """
        if self._budget is not None:
            estimate = await self._estimate(with_price=needs_price(self._budget))
            self._reservation = reserve(self._budget, estimate)

    async def _estimate(self, *, with_price: bool) -> Estimate:
        """The prompt by a rule of thumb, and as much output as the request allows."""
        request, provider = self.request, provider_of(self.client, self.cfg)
        prompt = CharacterTokenizer().count(request.said, request.model)
        output = request.max_tokens or 0
        usage = LLMUsage(prompt, output, prompt + output)
        return Estimate(
            model=f"{provider}/{request.model}",
            tokens=usage.total_tokens,
            cost_usd=await self._price_before(provider, usage) if with_price else None,
            reports_cost=self.client.reports_cost,
        )

    async def _price_before(self, provider: str, usage: LLMUsage) -> float | None:
        try:
            priced = await find_price(provider, (self.request.model,), usage, at=datetime.now(UTC))
        except Exception:
            log.exception("the price table failed for %s; the budget takes the price for unknown", self.name)
            return None
        return None if priced is None else priced.cost_usd

    async def with_retries(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """Attempts until one succeeds, or until the policy says that it is enough."""
        while True:
            try:
                return await attempt()
            except LLMError as error:
                delay_s = self._policy.next_delay_s(
                    error, failed_attempts=self.retries + 1, remaining_s=self._remaining_s()
                )
                if delay_s is None:
                    raise
                self._report_retry(error, delay_s)
            await asyncio.sleep(delay_s)

    async def provider(self, work: Callable[[], Awaitable[T]]) -> T:
        """Let the client work: under the call's span, within its time, and with its faults in our error tree."""
        try:
            with self.handle.active():
                return await self._in_time(work)
        except LLMError as error:
            error.reword(scrub(error.message, prompt=self.request.said))
            raise
        except (ConfigError, StopAsyncIteration):
            raise
        except Exception as error:
            raise _as_llm_error(error, self.request.said) from error

    async def _in_time(self, work: Callable[[], Awaitable[T]]) -> T:
        timeout_s, remaining_s = self.cfg.timeout_ms / 1000.0, self._remaining_s()
        limit_s = timeout_s if remaining_s is None else min(timeout_s, remaining_s)
        scope = asyncio.timeout(limit_s)
        try:
            async with scope:
                return await work()
        except TimeoutError:
            if not scope.expired():
                raise
        if limit_s < timeout_s:
            raise LLMTimeoutError(f"deadline of {self.cfg.deadline_ms} ms exceeded", retryable=False)
        raise LLMTimeoutError(f"timeout after {timeout_s:.2f}s")

    def _remaining_s(self) -> float | None:
        return None if self._ends_at is None else max(0.0, self._ends_at - time.monotonic())

    def _report_retry(self, error: LLMError, delay_s: float) -> None:
        self.retries += 1
        retry = StepRetry(
            attempt=self.retries,
            max_attempts=self._policy.max_retries + 1,
            delay_s=delay_s,
            reason=error.retry_reason,
            error_type=error.error_type,
            status_code=error.status_code,
        )
        log.info(
            "%s: attempt %d of %d failed (%s), next in %.3g s",
            self.name,
            retry.attempt,
            retry.max_attempts,
            retry.error_type,
            delay_s,
        )
        self.handle.retry(retry)

    async def priced(self, response: LLMResponse) -> LLMUsage:
        """A cost in the reply wins; else by the model that answered, then by the one that was asked for."""
        usage = response.usage.sound()
        if usage.cost_usd is not None:
            return usage if usage.cost_source else usage.with_cost(usage.cost_usd, "provider")
        models = (response.response_model, self.cfg.model) if response.response_model else (self.cfg.model,)
        priced = await price_call(
            provider_of(self.client, self.cfg), models, usage, at=datetime.now(UTC), service_tier=response.service_tier
        )
        return usage if priced is None else usage.with_cost(priced.cost_usd, priced.source)

    def succeeded(
        self, response: LLMResponse, usage: LLMUsage, *, also: Mapping[str, Any] = _NOTHING, **more: Any
    ) -> dict[str, Any]:
        """End well; returns the step's result, `also` included. What is in `more` goes to the recorder."""
        result = {
            "status": "ok",
            "text": response.text,
            "usage": dict(vars(usage)),
            **self._common_result(),
            "response_id": response.response_id,
            "response_model": response.response_model,
            "finish_reasons": list(response.finish_reasons),
            "finish_reason": response.finish_reason,
            "reasoning": response.reasoning,
            "refusal": response.refusal,
            "tool_calls": [_plain_call(call) for call in response.tool_calls],
            "service_tier": response.service_tier,
            "request_id": response.request_id,
            **also,
        }
        self.end(
            StepEnd(status="success", payload=result, response=response, usage=usage, retries=self.retries, **more)
        )
        return result

    def failed(self, error: LLMError, *, also: Mapping[str, Any] = _NOTHING, **more: Any) -> dict[str, Any]:
        """End in an error; returns the step's result, `also` included. What is in `more` goes to the recorder."""
        result = {
            "status": "error",
            "reason": error.message,
            "error_type": error.error_type,
            **self._common_result(),
            "status_code": error.status_code,
            "code": error.code,
            "request_id": error.request_id,
            "retry_after_s": error.retry_after_s,
            "retryable": error.retryable,
            **also,
        }
        attempts = 0 if isinstance(error, BudgetExceededError) else self.retries + 1
        log.warning("%s failed after %d attempt(s): %s", self.name, attempts, error.error_type)
        self.end(StepEnd(status="error", payload=result, error=error, retries=self.retries, **more))
        return result

    def refused(self, error: ConfigError) -> None:
        """End a call that the client could not even make; the error goes to the caller, whose mistake it is."""
        if self._reservation is not None:
            self._reservation.give_back()
            self._reservation = None
        fault = LLMClientError(str(error))
        fault.__cause__ = error
        self.failed(fault)

    def interrupted(self, response: LLMResponse | None, **more: Any) -> dict[str, Any]:
        """End as cancelled, if need be after the reply had come: then what it used is known, though not its price."""
        result = {"status": "error", "reason": "cancelled", "cancelled": True, **self._common_result()}
        more = {"usage": response.usage.sound() if response is not None else None, **more}
        self.end(
            StepEnd(status="error", payload=result, response=response, cancelled=True, retries=self.retries, **more)
        )
        return result

    def _common_result(self) -> dict[str, Any]:
        return {"provider": self.cfg.provider, "model": self.cfg.model, "retries": self.retries}

    def end(self, end: StepEnd) -> None:
        """Tell the end; a second one is not told."""
        if self._has_ended:
            return
        self._has_ended = True
        try:
            self._account(end)
        finally:
            self.handle.end(end)

    def _account(self, end: StepEnd) -> None:
        """Tell the flow and the budgets around; a call that a budget refused was none."""
        if self._flow is not None and not isinstance(end.error, BudgetExceededError):
            self._flow.add_call(end.usage, retries=end.retries)
        if self._reservation is not None:
            self._reservation.settle(end.usage, was_refused=isinstance(end.error, LLMStatusError))


def provider_of(client: AsyncLLMClient, cfg: LLMCallConfig) -> str:
    """The client's name of its provider, as the price table knows it; the configuration's where it has none."""
    return str(getattr(client, "provider_name", cfg.provider)).strip().lower()


def _start(
    ids: tuple[str, str], cfg: LLMCallConfig, request: LLMRequest, client: AsyncLLMClient, *, is_stream: bool
) -> StepStart:
    return StepStart(
        flow_id=ids[0],
        step_id=ids[1],
        step_type=STEP_TYPE,
        operation=client.operation,
        provider=client.telemetry_name or provider_of(client, cfg),
        model=request.model,
        server_address=client.server_address,
        server_port=client.server_port,
        temperature=request.temperature,
        top_p=request.top_p,
        max_tokens=request.max_tokens,
        stop=request.stop,
        seed=request.seed,
        top_k=request.top_k,
        frequency_penalty=request.frequency_penalty,
        presence_penalty=request.presence_penalty,
        reasoning_effort=request.reasoning_effort,
        is_stream=is_stream,
    )


def _plain_call(call: ToolCall) -> dict[str, Any]:
    arguments = dict(call.arguments) if isinstance(call.arguments, Mapping) else call.arguments
    return {"id": call.id, "name": call.name, "arguments": arguments}


def _as_llm_error(error: Exception, prompt: str) -> LLMError:
    """A fault of a client that does not use our error tree; its text may hold the prompt."""
    said = scrub(str(error), prompt=prompt)
    text = f"{type(error).__name__}: {said}" if said else type(error).__name__
    if isinstance(error, TimeoutError):
        return LLMTimeoutError(text)
    if isinstance(error, ConnectionError):
        return LLMConnectionError(text)
    return LLMClientError(text)
