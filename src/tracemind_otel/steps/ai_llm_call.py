"""The step `ai.llm_call`: one call to any provider, with time-outs, retries, tokens and cost."""

from __future__ import annotations

import asyncio
import difflib
import logging
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from ..ai.llm import providers
from ..ai.llm.client import AsyncLLMClient
from ..ai.llm.policy import RetryPolicy
from ..ai.llm.pricing import price_call
from ..ai.llm.scrub import scrub
from ..ai.llm.types import LLMRequest, LLMResponse, LLMUsage
from ..errors import ConfigError, LLMClientError, LLMConnectionError, LLMError, LLMResponseError, LLMTimeoutError
from ..runtime.recorder import Recorder, StepEnd, StepHandle, StepRetry, StepStart, begin_safely
from ..runtime.rollup import current_flow

log = logging.getLogger(__name__)

STEP_TYPE = "ai.llm_call"
"""The name of this step type in flows and in telemetry."""


@dataclass(frozen=True)
class LLMCallConfig:
    """What to call and how.

    Raises:
        ConfigError: a value is not allowed; the message names the field, the value and what is allowed.
    """

    provider: str
    """The provider's name: `fake`, `openai`, or one that was registered."""
    model: str
    """The model's name, as the provider knows it."""
    prompt: str | None = None
    """The user's message; `{{ name }}` and `{name}` are replaced from `vars`."""
    template: str | None = None
    """The same as `prompt`; wins where both are given."""
    vars: Mapping[str, Any] | None = None
    """Values for the names in the prompt or template."""
    timeout_ms: int = 30000
    """Milliseconds for each attempt."""
    max_retries: int = 2
    """Attempts after the first one; 2 means three attempts."""
    temperature: float | None = None
    """Sampling temperature; `None` leaves it to the provider."""
    top_p: float | None = None
    """Nucleus sampling; `None` leaves it to the provider."""
    extra: Mapping[str, Any] | None = None
    """Fields that go into the provider's request body as they are."""
    deadline_ms: int | None = field(default=None, kw_only=True)
    """Milliseconds for the whole call, attempts and waits together; `None` for no such limit."""

    def __post_init__(self) -> None:
        for name in ("provider", "model"):
            _require(name, getattr(self, name), isinstance(getattr(self, name), str), "a string")
            _require(name, getattr(self, name), bool(getattr(self, name).strip()), "not empty")
        for name in ("prompt", "template"):
            _require(name, getattr(self, name), isinstance(getattr(self, name), str | None), "a string or absent")
        for name in ("vars", "extra"):
            _require(name, getattr(self, name), isinstance(getattr(self, name), Mapping | None), "a mapping or absent")
        _require("timeout_ms", self.timeout_ms, _is_number(self.timeout_ms, above=0), "more than 0 milliseconds")
        _require("max_retries", self.max_retries, _is_count(self.max_retries), "a whole number, 0 or more")
        for name in ("temperature", "top_p"):
            value = getattr(self, name)
            _require(name, value, value is None or _is_number(value), "a number or absent")
        _require(
            "deadline_ms",
            self.deadline_ms,
            self.deadline_ms is None or _is_number(self.deadline_ms, above=0),
            "more than 0 milliseconds, or absent",
        )
        _require("extra['stream']", True, not (self.extra or {}).get("stream"), "absent: this step reads a whole reply")

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> LLMCallConfig:
        """A configuration from a plain mapping, a flow's step in YAML for instance.

        Raises:
            ConfigError: a field is unknown, missing, or has a value that is not allowed.
        """
        allowed = [known.name for known in fields(cls)]
        for name in values:
            if name not in allowed:
                close = difflib.get_close_matches(str(name), allowed, n=1)
                hint = f"; did you mean {close[0]!r}?" if close else "."
                raise ConfigError(f"{STEP_TYPE}: unknown field {name!r}{hint} Allowed are {', '.join(allowed)}")
        for name in ("provider", "model"):
            if name not in values:
                raise ConfigError(f"{STEP_TYPE}: field {name!r} is missing; it must be a string")
        return cls(**values)


def _require(name: str, value: object, is_allowed: bool, allowed: str) -> None:
    if not is_allowed:
        raise ConfigError(f"{STEP_TYPE}: {name} is {_shown(name, value)}; it must be {allowed}")


def _shown(name: str, value: object) -> str:
    """A value for an error message; a prompt and its parts are shown by type only."""
    return type(value).__name__ if name in ("prompt", "template", "vars", "extra") else repr(value)


def _is_number(value: object, *, above: float = float("-inf")) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and above < value < float("inf")


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


class LLMClientFactory:
    """Makes clients by provider name."""

    @staticmethod
    def make(provider: str, *, api_key: str | None = None, base_url: str | None = None) -> AsyncLLMClient:
        """The client for a provider. Inside an event loop it is reused, and closed when the loop ends.

        Raises:
            UnknownProviderError: no such provider; the message lists those there are.
        """
        return providers.make(provider, api_key=api_key, base_url=base_url)

    @staticmethod
    def register(name: str, factory: providers.ClientFactory) -> None:
        """Add a provider, or replace one: `factory(*, api_key=None, base_url=None)` returns an `AsyncLLMClient`."""
        providers.register(name, factory)

    @staticmethod
    def names() -> list[str]:
        """The providers that are registered, sorted."""
        return providers.names()


_VARIABLE = re.compile(r"\{\{\s*([a-zA-Z_][a-zA-Z0-9_]*)\s*\}\}|\{([a-zA-Z_][a-zA-Z0-9_]*)\}")


def apply_vars(template: str, vars: Mapping[str, Any] | None) -> str:
    """Replace `{{ name }}` and `{name}` by the values of `vars`.

    A name that is not in `vars` stays as it is. Values are put in as text and never looked at again: no
    expression, attribute or nested name in them is interpreted.
    """
    if not vars:
        return template

    def value_of(match: re.Match[str]) -> str:
        name = match.group(1) or match.group(2)
        return str(vars[name]) if name in vars else match.group(0)

    return _VARIABLE.sub(value_of, template)


async def run_llm_call(
    flow_id: str,
    step_id: str,
    cfg: LLMCallConfig,
    recorder: Recorder,
    *,
    client: AsyncLLMClient | None = None,
) -> dict[str, Any]:
    """Call a model; repeat what is worth repeating; record it once; return a plain result.

    Args:
        flow_id: the flow's id, for telemetry; need not be unique.
        step_id: the step's id, for telemetry; need not be unique.
        cfg: what to call and how.
        recorder: what records the call; one that raises is logged and does no harm.
        client: a client of your own; the default is `LLMClientFactory.make(cfg.provider)`.

    Returns:
        `{"status": "ok", "text", "usage": {...}, "provider", "model", ...}`, or
        `{"status": "error", "reason", "error_type", "provider", "model", ...}`: faults at run time are
        returned, never raised. Every value is plain, so the result can be stored as JSON.

    Raises:
        ConfigError: neither prompt nor template, or an unknown provider: the caller's mistake, a `ValueError`.
        asyncio.CancelledError: the task was cancelled; the call is recorded as cancelled.
    """
    request = _request(cfg)
    llm = client if client is not None else await _client_for(cfg.provider)
    return await _Call(cfg, request, llm, begin_safely(recorder, _start(flow_id, step_id, cfg, llm))).run()


def _request(cfg: LLMCallConfig) -> LLMRequest:
    text = cfg.template or cfg.prompt
    if not text:
        raise ConfigError(f"{STEP_TYPE} requires either 'prompt' or 'template'")
    return LLMRequest(
        cfg.provider, cfg.model, apply_vars(text, cfg.vars), cfg.temperature, cfg.top_p, dict(cfg.extra or {})
    )


async def _client_for(provider: str) -> AsyncLLMClient:
    if not providers.is_known(provider):
        await asyncio.to_thread(providers.load_plugins)
    return providers.make(provider)


def _start(flow_id: str, step_id: str, cfg: LLMCallConfig, client: AsyncLLMClient) -> StepStart:
    return StepStart(
        flow_id=flow_id,
        step_id=step_id,
        step_type=STEP_TYPE,
        operation=client.operation,
        provider=client.telemetry_name or client.provider_name,
        model=cfg.model,
        server_address=client.server_address,
        server_port=client.server_port,
        temperature=cfg.temperature,
        top_p=cfg.top_p,
    )


@lru_cache(maxsize=64)
def _policy(max_retries: int) -> RetryPolicy:
    return RetryPolicy(max_retries=max_retries)


class _Call:
    """One call from its first attempt to its end, which is told to the recorder exactly once."""

    def __init__(self, cfg: LLMCallConfig, request: LLMRequest, client: AsyncLLMClient, handle: StepHandle) -> None:
        self._cfg = cfg
        self._request = request
        self._client = client
        self._handle = handle
        self._policy = _policy(cfg.max_retries)
        self._ends_at = None if cfg.deadline_ms is None else time.monotonic() + cfg.deadline_ms / 1000.0
        self._retries = 0

    async def run(self) -> dict[str, Any]:
        response: LLMResponse | None = None
        try:
            response = await self._complete()
            ended_ns = time.time_ns()
            usage = await self._priced(response)
        except LLMError as error:
            return self._failed(error)
        except BaseException:
            self._interrupted(response)
            raise
        return self._succeeded(response, usage, ended_ns)

    async def _complete(self) -> LLMResponse:
        """Attempts until one succeeds, or until the policy says that it is enough."""
        while True:
            try:
                return await self._attempt()
            except LLMError as error:
                delay_s = self._policy.next_delay_s(
                    error, failed_attempts=self._retries + 1, remaining_s=self._remaining_s()
                )
                if delay_s is None:
                    raise
                self._report_retry(error, delay_s)
            await asyncio.sleep(delay_s)

    async def _attempt(self) -> LLMResponse:
        try:
            with self._handle.active():
                return _checked(await self._complete_in_time(), self._client)
        except LLMError as error:
            error.reword(scrub(error.message, prompt=self._request.prompt))
            raise
        except Exception as error:
            raise _as_llm_error(error, self._request.prompt) from error

    async def _complete_in_time(self) -> LLMResponse:
        timeout_s, remaining_s = self._cfg.timeout_ms / 1000.0, self._remaining_s()
        limit_s = timeout_s if remaining_s is None else min(timeout_s, remaining_s)
        scope = asyncio.timeout(limit_s)
        try:
            async with scope:
                return await self._client.complete(self._request)
        except TimeoutError:
            if not scope.expired():
                raise
        if limit_s < timeout_s:
            raise LLMTimeoutError(f"deadline of {self._cfg.deadline_ms} ms exceeded", retryable=False)
        raise LLMTimeoutError(f"timeout after {timeout_s:.2f}s")

    def _remaining_s(self) -> float | None:
        return None if self._ends_at is None else max(0.0, self._ends_at - time.monotonic())

    def _report_retry(self, error: LLMError, delay_s: float) -> None:
        self._retries += 1
        retry = StepRetry(
            attempt=self._retries,
            max_attempts=self._policy.max_retries + 1,
            delay_s=delay_s,
            reason=error.retry_reason,
            error_type=error.error_type,
            status_code=error.status_code,
        )
        log.info(
            "%s: attempt %d of %d failed (%s), next in %.3g s",
            self._name,
            retry.attempt,
            retry.max_attempts,
            retry.error_type,
            delay_s,
        )
        self._handle.retry(retry)

    @property
    def _name(self) -> str:
        return f"{STEP_TYPE} {self._cfg.provider}/{self._cfg.model}"

    async def _priced(self, response: LLMResponse) -> LLMUsage:
        """A cost in the reply wins; else by the model that answered, then by the one that was asked for."""
        usage = response.usage
        if usage.cost_usd is not None:
            return usage if usage.cost_source else usage.with_cost(usage.cost_usd, "provider")
        models = (response.response_model, self._cfg.model) if response.response_model else (self._cfg.model,)
        priced = await price_call(
            self._client.provider_name, models, usage, at=datetime.now(UTC), service_tier=response.service_tier
        )
        return usage if priced is None else usage.with_cost(priced.cost_usd, priced.source)

    def _succeeded(self, response: LLMResponse, usage: LLMUsage, ended_ns: int) -> dict[str, Any]:
        result = {
            "status": "ok",
            "text": response.text,
            "usage": dict(vars(usage)),
            **self._common_result(),
            "response_id": response.response_id,
            "response_model": response.response_model,
            "finish_reasons": list(response.finish_reasons),
            "request_id": response.request_id,
        }
        self._end(
            StepEnd(
                status="success",
                payload=result,
                response=response,
                usage=usage,
                retries=self._retries,
                ended_ns=ended_ns,
            )
        )
        return result

    def _failed(self, error: LLMError) -> dict[str, Any]:
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
        }
        log.warning("%s failed after %d attempt(s): %s", self._name, self._retries + 1, error.error_type)
        self._end(StepEnd(status="error", payload=result, error=error, retries=self._retries))
        return result

    def _interrupted(self, response: LLMResponse | None) -> None:
        """Cancelled, if need be after the reply had come: then what it used is known, though not its price."""
        result = {"status": "error", "reason": "cancelled", "cancelled": True, **self._common_result()}
        usage = response.usage if response is not None else None
        self._end(
            StepEnd(
                status="error", payload=result, response=response, usage=usage, cancelled=True, retries=self._retries
            )
        )

    def _common_result(self) -> dict[str, Any]:
        return {"provider": self._cfg.provider, "model": self._cfg.model, "retries": self._retries}

    def _end(self, end: StepEnd) -> None:
        flow = current_flow()
        if flow is not None:
            flow.add_call(end.usage, retries=end.retries)
        self._handle.end(end)


def _checked(response: object, client: AsyncLLMClient) -> LLMResponse:
    """What a client of a third party returns need not be what its signature says."""
    usage: object = getattr(response, "usage", None)
    if isinstance(response, LLMResponse) and isinstance(usage, LLMUsage):
        return response
    raise LLMResponseError(f"{type(client).__name__}.complete returned no LLMResponse", retryable=False)


def _as_llm_error(error: Exception, prompt: str) -> LLMError:
    """A fault of a client that does not use our error tree; its text may hold the prompt."""
    said = scrub(str(error), prompt=prompt)
    text = f"{type(error).__name__}: {said}" if said else type(error).__name__
    if isinstance(error, TimeoutError):
        return LLMTimeoutError(text)
    if isinstance(error, ConnectionError):
        return LLMConnectionError(text)
    return LLMClientError(text)
