"""The model calls that the runtime's own client makes, each one span, priced and counted in the flow around it."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import logging
import math
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, cast
from urllib.parse import urlsplit

from ..._base.context import set_here
from ..._base.once import report_fault
from ...ai.llm.providers._chat_reply import from_payload
from ...ai.llm.types import LLMResponse, LLMUsage
from ...ai.llm.usage import ReportedCost
from ...call.estimate import RULE_OF_THUMB, CautiousTokenizer
from ...errors import BudgetExceededError, LLMClientError, LLMError, LLMRateLimitError, LLMTimeoutError
from ...flows.budget import current_budget, is_shared, needs_price
from ...flows.correlation import current_correlation, current_step
from ...recording.port import StepRetry, StepStart
from ...wire.counted_call import CountedCall
from ...wire.observation import recorded_already, until_priceable
from ...wire.reserving import held_for

log = logging.getLogger(__name__)

STEP_TYPE = "ai.llm_call"

_PROVIDERS = {"FakeProvider": "fake", "OpenAIProvider": "openai"}
"""The names of the runtime's own providers by their classes."""
_LISTED = frozenset({"gpt-4o-mini"})
"""Models that the runtime's default table lists, without its cached tokens; any other entry is the user's own price."""


class RuntimeCall(CountedCall):
    """A call of the runtime's client, with its attempts."""

    def failed_attempt(self, error: LLMError, *, max_attempts: int, delay_s: float) -> None:
        """An attempt failed, and the runtime waits for another."""
        self.retries += 1
        self._handle.retry(
            StepRetry(
                attempt=self.retries,
                max_attempts=max_attempts,
                delay_s=delay_s,
                reason=error.retry_reason,
                error_type=error.error_type,
            )
        )


_current: contextvars.ContextVar[RuntimeCall | None] = contextvars.ContextVar("tracemind_runtime_call", default=None)
_recorded: contextvars.ContextVar[object] = contextvars.ContextVar("tracemind_runtime_usage", default=None)
"""The usage of the last call that was recorded here: the runtime reports the same object once more."""


async def traced_call(
    call: Callable[..., Awaitable[Any]],
    client: object,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Any:
    """Await `AsyncLLMClient.call` under a span of its own.

    Raises:
        BudgetExceededError: a budget around the call denies it; it was not made.
    """
    provider = _provider_of(client)
    try:
        made = RuntimeCall(_start(provider, kwargs), _name_of(provider))
    except Exception:
        report_fault(log, "TraceMindInstrumentor", "call")
        return await call(client, *args, **kwargs)
    await _reserve(made, provider, kwargs)
    try:
        with set_here(_current, made), made.active(), recorded_already():
            result = await call(client, *args, **kwargs)
    except asyncio.CancelledError:
        made.end_cancelled()
        raise
    except Exception as error:
        _end_failed(made, error)
        raise
    except BaseException:
        made.end_cancelled()
        raise
    _end_answered(made, provider, str(kwargs.get("model")), result)
    await until_priceable()
    return result


async def _reserve(made: RuntimeCall, provider: object, kwargs: Mapping[str, Any]) -> None:
    """Hold what the call is expected to use of the budget around it."""
    budget = current_budget()
    if budget is None:
        return
    name = _name_of(provider)
    try:
        if needs_price(budget):
            await until_priceable()
        tokenizer = CautiousTokenizer() if is_shared(budget) else RULE_OF_THUMB
        prompt = tokenizer.count(str(kwargs.get("prompt")), str(kwargs.get("model")))
        is_own = name in _PROVIDERS.values()
        made.reservation = held_for(name, str(kwargs.get("model")), prompt, reports_cost=not is_own)
        if made.reservation is not None:
            await made.reservation.ask_soon()
    except BudgetExceededError as error:
        made.reservation = None
        made.deny(error)
        raise
    except asyncio.CancelledError:
        made.reservation = None
        made.end_cancelled()
        raise
    except Exception:
        report_fault(log, "TraceMindInstrumentor", "reserve")


async def traced_retry(retry: Callable[..., Awaitable[Any]], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Await `with_retry` with its own callbacks, which tell what it repeats, and when."""
    call = _current.get()
    if call is None or not callable(kwargs.get("is_retryable")):
        return await retry(*args, **kwargs)
    attempts = _Attempts(call, kwargs["is_retryable"], kwargs.get("backoff") or _default_of(retry))
    attempts.max_attempts = int(kwargs.get("max_retries") or 0) + 1
    also = {} if attempts.backoff is None else {"backoff": attempts.wait_s}
    return await retry(*args, **{**kwargs, "is_retryable": attempts.is_retryable, **also})


class _Attempts:
    """What `with_retry` asks its callbacks, passed on to them and told to the call."""

    def __init__(
        self, call: RuntimeCall, is_retryable: Callable[[Exception], bool], backoff: Callable[[int], float] | None
    ) -> None:
        self._call = call
        self._is_retryable = is_retryable
        self._error: Exception | None = None
        self.backoff = backoff
        self.max_attempts = 1

    def is_retryable(self, error: Exception) -> bool:
        self._error = error
        return self._is_retryable(error)

    def wait_s(self, attempt: int) -> float:
        if self.backoff is None:
            return 0.0
        delay_s = self.backoff(attempt)
        try:
            error = _as_llm_error(self._error or Exception())
            self._call.failed_attempt(error, max_attempts=self.max_attempts, delay_s=delay_s)
        except Exception:
            report_fault(log, "TraceMindInstrumentor", "retry")
        return delay_s


def _default_of(retry: Callable[..., object]) -> Callable[[int], float] | None:
    """The waits that `with_retry` uses where it is told none."""
    try:
        default: object = inspect.signature(retry).parameters["backoff"].default
    except (KeyError, TypeError, ValueError):
        return None
    return cast("Callable[[int], float]", default) if callable(default) else None


def record_usage(
    *,
    provider: str,
    model: str,
    usage: Any,
    flow_id: str | None = None,
    step_id: str | None = None,
    meta: Mapping[str, Any] | None = None,
) -> None:
    """The runtime's hook for usage: a call that was seen is not counted twice, any other is a span without a length."""
    if usage is _recorded.get() and usage is not None:
        return
    start = StepStart(
        flow_id=flow_id or current_correlation().flow_id or "",
        step_id=step_id or current_step() or model,
        provider=provider,
        model=model,
        step_type=STEP_TYPE,
    )
    RuntimeCall(start, provider).end_answered(LLMResponse("", _usage_of(usage), reported_cost=_cost(usage)))


def _start(provider: object, kwargs: Mapping[str, Any]) -> StepStart:
    model = str(kwargs.get("model"))
    server = urlsplit(str(getattr(provider, "base_url", "")))
    return StepStart(
        flow_id=current_correlation().flow_id or "",
        step_id=current_step() or model,
        step_type=STEP_TYPE,
        provider=_name_of(provider),
        model=model,
        temperature=_number(kwargs.get("temperature")),
        top_p=_number(kwargs.get("top_p")),
        server_address=server.hostname,
        server_port=_port_of(server.scheme, server.port),
    )


def _port_of(scheme: str, port: int | None) -> int | None:
    return port or {"https": 443, "http": 80}.get(scheme)


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _provider_of(client: object) -> object:
    """The client's provider: whatever it holds that can complete."""
    return next((value for value in vars(client).values() if callable(getattr(value, "complete", None))), None)


def _name_of(provider: object) -> str:
    name = type(provider).__name__
    return _PROVIDERS.get(name) or name.removesuffix("Provider").lower() or "unknown"


def _end_answered(call: RuntimeCall, provider: object, model: str, result: Any) -> None:
    usage = getattr(result, "usage", None)
    _recorded.set(usage)
    try:
        call.end_answered(_response(provider, model, result, usage))
    except Exception:
        report_fault(log, "TraceMindInstrumentor", "call")
        call.end_answered(None)


def _response(provider: object, model: str, result: Any, usage: object) -> LLMResponse:
    """The reply: from the provider's own words where it has kept them, which tell cached tokens apart."""
    raw: object = getattr(result, "raw", None)
    is_priced_by_user = model in (getattr(provider, "pricing", None) or {}) and model not in _LISTED
    if _name_of(provider) == "openai" and isinstance(raw, Mapping) and not is_priced_by_user:
        return from_payload(cast("Mapping[str, Any]", raw))
    is_own = _name_of(provider) in _PROVIDERS.values() and not is_priced_by_user
    cost = None if is_own else _cost(usage)
    return LLMResponse(str(getattr(result, "output_text", "")), _usage_of(usage), reported_cost=cost)


def _usage_of(usage: object) -> LLMUsage:
    counts = [_count(getattr(usage, f"{name}_tokens", None)) for name in ("prompt", "completion", "total")]
    return LLMUsage(*counts)


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _cost(usage: object) -> ReportedCost | None:
    """The cost that a provider's code reports, in USD as the name of its field says."""
    cost = _number(getattr(usage, "cost_usd", None))
    return None if cost is None or not math.isfinite(cost) or cost < 0 else ReportedCost(usd=cost, is_declared=True)


def _end_failed(call: RuntimeCall, error: Exception) -> None:
    if getattr(error, "code", None) == "RUN_CANCELLED":
        call.end_cancelled()
    else:
        call.end_failed(_as_llm_error(error))


def _as_llm_error(error: Exception) -> LLMError:
    """An error of the runtime as one of our tree; its message, which may hold a prompt, is left out."""
    code: object = getattr(error, "code", None)
    if isinstance(error, TimeoutError) or code in ("RUN_TIMEOUT", "QUEUE_TIMEOUT"):
        return LLMTimeoutError("no answer within timeout_ms")
    if code == "RATE_LIMIT":
        return LLMRateLimitError("the provider's rate limit is reached", code="RATE_LIMIT")
    if isinstance(code, str):
        return LLMError(f"the runtime's client failed with {code}", code=code)
    fault = LLMClientError(f"the runtime's client failed with {type(error).__name__}")
    fault.__cause__ = error
    return fault
