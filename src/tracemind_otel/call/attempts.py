"""One call of a model, from its first attempt to its end: what whole replies and streams share."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from types import MappingProxyType
from typing import Any, TypeGuard, TypeVar, cast

from .._base.context import OwnContext
from ..ai.llm.client import AsyncLLMClient
from ..ai.llm.liveness import DeadlinePassedError, Patience, ProviderSilentError
from ..ai.llm.pricing import find_price, price_reply, price_reply_now
from ..ai.llm.resends import telling
from ..ai.llm.retry import RetryPolicy
from ..ai.llm.scrub import scrub
from ..ai.llm.types import LLMRequest, LLMResponse, LLMUsage, ToolCall
from ..errors import BudgetExceededError, ConfigError, LLMClientError, LLMConnectionError, LLMError, LLMTimeoutError
from ..flows.budget import Reservation, current_budget, needs_price, reserve
from ..flows.budget.limits import Estimate
from ..flows.correlation import current_ids, hidden_ids
from ..flows.totals import current_flow
from ..recording.port import Recorder, StepEnd, StepRetry, StepStart, begin_safely
from .config import STEP_TYPE, LLMCallConfig
from .estimate import expected_usage

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
        self.client = client = client.for_model(request.model)
        self.retries = 0
        self._policy = _policy(cfg.max_retries)
        self._ends_at = None if cfg.deadline_ms is None else time.monotonic() + cfg.deadline_ms / 1000.0
        self._flow = current_flow()
        self._budget = current_budget()
        self._reservation: Reservation | None = None
        self._attempts = 0
        self._is_attempting = False
        self._has_ended = False
        self._patience: Patience | None = None
        self._context: OwnContext | None = None
        self.handle = begin_safely(recorder, _start(ids, cfg, request, client, is_stream=is_stream))

    @property
    def name(self) -> str:
        """What the call is named in the log."""
        return f"{STEP_TYPE} {self.cfg.provider}/{self.cfg.model}"

    @property
    def provider_name(self) -> str:
        """The client's name of its provider, as the price table knows it; the configuration's where it has none."""
        return _provider_of(self.client, self.cfg)

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
        usage = expected_usage(self.request, self.client.default_max_tokens)
        return Estimate(
            model=f"{self.provider_name}/{self.request.model}",
            tokens=usage.total_tokens or 0,
            cost_usd=await self._price_before(usage) if with_price else None,
            reports_cost=self.client.reports_cost,
        )

    async def _price_before(self, usage: LLMUsage) -> float | None:
        """The price of what is expected; waited for no longer than the call may last."""
        try:
            async with asyncio.timeout(self._remaining_s()):
                priced = await find_price(self.provider_name, (self.request.model,), usage, at=datetime.now(UTC))
        except TimeoutError:
            raise self._deadline_exceeded() from None
        except Exception:
            log.exception("the price table failed for %s; the budget takes the price for unknown", self.name)
            return None
        return None if priced is None else priced.cost_usd

    async def with_retries(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """Attempts until one succeeds, or until the policy says that it is enough."""
        while True:
            self._attempts += 1
            self._is_attempting = True
            try:
                return await attempt()
            except LLMError as error:
                delay_s = self._policy.next_delay_s(
                    error, failed_attempts=self._attempts, remaining_s=self._remaining_s()
                )
                if delay_s is None or not self._may_repeat(error):
                    raise
                self._is_attempting = False
                self._report_retry(error, delay_s)
            await asyncio.sleep(delay_s)

    def _may_repeat(self, error: LLMError) -> bool:
        """Whether the budgets around have room for another attempt, beside the one that may yet be billed."""
        if self._reservation is None or not error.may_be_billed or self._reservation.repeat():
            return True
        log.info("%s: attempt %d failed, and no budget is left for another", self.name, self._attempts)
        return False

    async def provider(self, work: Callable[[], Awaitable[T]]) -> T:
        """Let the client work: under the call's span, within its time, and with its faults in our error tree."""
        with self.handle.active(), hidden_ids(), telling(self._reservation):
            return await self._judged(work)

    async def provider_in_turns(self, work: Callable[[], Awaitable[T]]) -> T:
        """The same for one of many waits, none of which the code between them may feel."""
        if self._context is None:
            self._context = OwnContext(self.handle.active, hidden_ids, lambda: telling(self._reservation))
        return await self._context.run(self._judged(work))

    async def close(self, stream: AsyncGenerator[object]) -> None:
        """Let the client close what was read in turns: what it set there can be put back nowhere else."""

        async def closing() -> None:
            await stream.aclose()

        await (closing() if self._context is None else self._context.run(closing()))

    async def _judged(self, work: Callable[[], Awaitable[T]]) -> T:
        try:
            return await self._in_time(work)
        except LLMError as error:
            error.reword(scrub(_text_of(error) or type(error).__name__, prompt=self.request.said))
            raise
        except (ConfigError, StopAsyncIteration):
            raise
        except Exception as error:
            raise self.as_llm_error(error) from error

    async def _in_time(self, work: Callable[[], Awaitable[T]]) -> T:
        timeout_s = self.cfg.timeout_ms / 1000.0
        if self._patience is None:
            self._patience = Patience(timeout_s, self._remaining_s())
        try:
            return await self._patience.wait(work)
        except DeadlinePassedError:
            raise self._deadline_exceeded() from None
        except ProviderSilentError:
            raise LLMTimeoutError(f"timeout after {timeout_s:.2f}s") from None

    def _deadline_exceeded(self) -> LLMTimeoutError:
        return LLMTimeoutError(f"deadline of {self.cfg.deadline_ms} ms exceeded", retryable=False)

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
        return await price_reply(self.provider_name, self._models(response), response, at=datetime.now(UTC))

    def priced_now(self, response: LLMResponse) -> LLMUsage:
        """The same where nothing can be awaited: by the models whose price was found before."""
        return price_reply_now(self.provider_name, self._models(response), response, at=datetime.now(UTC))

    def _models(self, response: LLMResponse) -> tuple[str, ...]:
        return (response.response_model, self.cfg.model) if response.response_model else (self.cfg.model,)

    def succeeded(
        self, response: LLMResponse, usage: LLMUsage, *, also: Mapping[str, Any] = _NOTHING, **more: Any
    ) -> dict[str, Any]:
        """End well; returns the step's result, `also` included. What is in `more` goes to the recorder."""
        result = {
            "status": "ok",
            "text": response.text,
            "usage": usage.as_dict(),
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
            **_budget_of(error),
            **also,
        }
        log.warning("%s failed after %d attempt(s): %s", self.name, self._attempts, error.error_type)
        self.end(StepEnd(status="error", payload=result, error=error, retries=self.retries, **more))
        return result

    def refused(self, error: ConfigError, *, was_sent: bool = False) -> None:
        """End a call that the client could not make; the error goes to the caller, whose mistake it is."""
        if not was_sent:
            self._attempts = max(0, self._attempts - 1)
            self._is_attempting = False
        fault = LLMClientError(str(error))
        fault.__cause__ = error
        self.failed(fault)

    def interrupted(self, response: LLMResponse | None, *, usage: LLMUsage | None = None) -> dict[str, Any]:
        """End as cancelled, if need be after the reply had come: then what it used is known, and is to be paid."""
        if usage is None and response is not None:
            usage = self.priced_now(response)
        result = {
            "status": "error",
            "reason": "cancelled",
            "cancelled": True,
            **self._common_result(),
            **partial_result(response, usage),
        }
        self.end(
            StepEnd(
                status="error",
                payload=result,
                response=response,
                usage=usage,
                cancelled=True,
                retries=self.retries,
            )
        )
        return result

    def _common_result(self) -> dict[str, Any]:
        return {"provider": self.cfg.provider, "model": self.cfg.model, "retries": self.retries}

    def end(self, end: StepEnd) -> None:
        """Tell the end; a second one is not told."""
        if self._has_ended:
            return
        self._has_ended = True
        if self._patience is not None:
            self._patience.stop()
        if self._context is not None:
            self._context.leave()
        try:
            self._account(end)
        finally:
            self.handle.end(end)

    def _account(self, end: StepEnd) -> None:
        """Tell the flow and the budgets around; a call that was never sent was none."""
        was_sent = self._attempts > 0
        try:
            if self._flow is not None and was_sent:
                self._flow.add_call(end.usage, retries=end.retries)
        finally:
            if self._reservation is not None:
                self._settle(self._reservation, end, was_sent=was_sent)

    def _settle(self, reservation: Reservation, end: StepEnd, *, was_sent: bool) -> None:
        if was_sent:
            is_free = not self._is_attempting or (end.error is not None and not end.error.may_be_billed)
            reservation.settle(end.usage, is_free=is_free)
        else:
            reservation.give_back()

    def as_llm_error(self, error: Exception) -> LLMError:
        """A fault of a client that does not use our error tree; its text may hold the prompt."""
        said = scrub(_text_of(error), prompt=self.request.said)
        text = f"{type(error).__name__}: {said}" if said else type(error).__name__
        if isinstance(error, TimeoutError):
            return LLMTimeoutError(text)
        if isinstance(error, ConnectionError):
            return LLMConnectionError(text)
        fault = LLMClientError(text)
        fault.__cause__ = error
        return fault


def is_response(reply: object) -> TypeGuard[LLMResponse]:
    """Whether a client returned what its signature says; that of a third party need not."""
    return (
        isinstance(reply, LLMResponse)
        and isinstance(cast("object", reply.usage), LLMUsage)
        and isinstance(cast("object", reply.text), str)
        and isinstance(cast("object", reply.finish_reasons), tuple | list)
        and isinstance(cast("object", reply.tool_calls), tuple | list)
        and all(isinstance(cast("object", call), ToolCall) for call in reply.tool_calls)
    )


def partial_result(response: LLMResponse | None, usage: LLMUsage | None) -> dict[str, Any]:
    """What a result keeps of a reply that did not come to its end, or that nobody waited for."""
    if response is None or usage is None:
        return {}
    return {
        "text": response.text,
        "usage": usage.as_dict(),
        "response_id": response.response_id,
        "response_model": response.response_model,
        "service_tier": response.service_tier,
    }


def _provider_of(client: AsyncLLMClient, cfg: LLMCallConfig) -> str:
    return str(getattr(client, "provider_name", cfg.provider)).strip().lower()


def _start(
    ids: tuple[str, str], cfg: LLMCallConfig, request: LLMRequest, client: AsyncLLMClient, *, is_stream: bool
) -> StepStart:
    return StepStart(
        flow_id=ids[0] or current_ids().flow_id or "",
        step_id=ids[1],
        step_type=STEP_TYPE,
        operation=client.operation,
        provider=client.telemetry_name or _provider_of(client, cfg),
        model=request.model,
        server_address=client.server_address,
        server_port=client.server_port,
        is_stream=is_stream,
        **request.sampling(),
    )


def _plain_call(call: ToolCall) -> dict[str, Any]:
    arguments = dict(call.arguments) if isinstance(call.arguments, Mapping) else call.arguments
    return {"id": call.id, "name": call.name, "arguments": arguments}


def _text_of(error: Exception) -> str:
    """Its text; an exception whose own text cannot be had has none."""
    try:
        return str(error)
    except Exception:
        return ""


def _budget_of(error: LLMError) -> dict[str, Any]:
    if not isinstance(error, BudgetExceededError):
        return {}
    figures = {"kind": error.kind, "limit": error.limit, "spent": error.spent, "spent_on": dict(error.spent_on)}
    return {"budget": {"name": error.budget, **figures}}
