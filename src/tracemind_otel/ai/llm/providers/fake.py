"""A provider that needs no key, no server and no network, and fails on demand."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, replace

from ....errors import (
    ConfigError,
    LLMConnectionError,
    LLMError,
    LLMQuotaError,
    LLMResponseError,
    error_class_for_status,
)
from ..client import AsyncLLMClient
from ..types import Finish, LLMRequest, LLMResponse, LLMUsage, StreamEvent, TextDelta

_KINDS = "ok, timeout, connection, invalid, cut, or an HTTP status from 400 to 599"
_OPTIONS = "retry-after=SECONDS, code=NAME, latency=MILLISECONDS, after=CHUNKS"


@dataclass(frozen=True, slots=True)
class _ScriptedAttempt:
    kind: str
    """`ok`, `timeout`, `connection`, `invalid`, `cut`, or an HTTP status."""
    after: int = 0
    """Chunks that a stream delivers before it fails."""
    retry_after_s: float | None = None
    code: str | None = None
    latency_s: float | None = None


def _parse(entry: str) -> _ScriptedAttempt:
    """Read one entry of a script, like `429 retry-after=0.2`."""
    kind, *options = entry.split() or [""]
    if kind not in ("ok", "timeout", "connection", "invalid", "cut") and not _is_error_status(kind):
        raise ConfigError(f"script: {entry!r} begins with {kind!r}; allowed are {_KINDS}")
    attempt = _ScriptedAttempt(kind)
    for option in options:
        attempt = _with_option(attempt, entry, *option.partition("=")[::2])
    return attempt


def _is_error_status(kind: str) -> bool:
    return kind.isascii() and kind.isdigit() and 400 <= int(kind) <= 599


def _with_option(attempt: _ScriptedAttempt, entry: str, name: str, value: str) -> _ScriptedAttempt:
    if name == "code" and value:
        return replace(attempt, code=value)
    if name == "retry-after":
        return replace(attempt, retry_after_s=_number(entry, value))
    if name == "after":
        return replace(attempt, after=int(_number(entry, value)))
    if name == "latency":
        return replace(attempt, latency_s=_number(entry, value) / 1000.0)
    raise ConfigError(f"script: {entry!r} has {name!r}; allowed are {_OPTIONS}")


def _number(entry: str, value: str) -> float:
    try:
        return float(value)
    except ValueError:
        raise ConfigError(f"script: {value!r} in {entry!r} is not a number") from None


class FakeLLMClient(AsyncLLMClient):
    """Echoes the prompt backwards, the same for the same prompt, at no cost.

    Args:
        latency_ms: milliseconds each attempt takes.
        script: what the attempts do, in order, such as `["429 retry-after=0.2", "timeout", "ok"]`; after its
            end every attempt succeeds. A `timeout` never answers, so that the caller's time-out is what ends it.
        usage: the tokens, and the cost if any, that every reply reports; the default counts words.
        text: the text of every reply; the default is the echo.
        chunks: the pieces in which a stream delivers its text; the default is its words.
        chunk_gap_ms: milliseconds before each piece of a stream after the first.

    Raises:
        ConfigError: a script's entry cannot be read.
    """

    provider_name = "fake"

    def __init__(
        self,
        latency_ms: float = 30,
        *,
        script: Sequence[str] = (),
        usage: LLMUsage | None = None,
        text: str | None = None,
        chunks: Sequence[str] | None = None,
        chunk_gap_ms: float = 0,
    ) -> None:
        self._chunks = chunks
        self._chunk_gap_s = chunk_gap_ms / 1000.0
        self._latency_s = latency_ms / 1000.0
        self._script = [_parse(entry) for entry in script]
        self._usage = usage
        self.reports_cost = usage is not None and usage.cost_usd is not None
        self._text = text
        self._attempts = 0
        self._lock = threading.Lock()

    async def complete(self, req: LLMRequest) -> LLMResponse:
        attempt = self._next_attempt()
        if attempt.kind == "timeout":
            await asyncio.Event().wait()
        await asyncio.sleep(self._latency_s if attempt.latency_s is None else attempt.latency_s)
        if attempt.kind != "ok":
            raise _error(attempt)
        return self._reply(req)

    async def stream(self, req: LLMRequest) -> AsyncGenerator[Sequence[StreamEvent]]:
        attempt = self._next_attempt()
        await asyncio.sleep(self._latency_s if attempt.latency_s is None else attempt.latency_s)
        reply = self._reply(req)
        pieces = list(self._chunks) if self._chunks is not None else re.findall(r"\S+\s*", reply.text)
        delivered = pieces if attempt.kind == "ok" else pieces[: attempt.after]
        for number, piece in enumerate(delivered):
            if number:
                await asyncio.sleep(self._chunk_gap_s)
            yield (TextDelta(piece),)
        if attempt.kind == "timeout":
            await asyncio.Event().wait()
        if attempt.kind != "ok":
            raise _error(attempt)
        yield (Finish(replace(reply, text="".join(pieces))),)

    def _next_attempt(self) -> _ScriptedAttempt:
        with self._lock:
            index = self._attempts
            self._attempts += 1
        return self._script[index] if index < len(self._script) else _ScriptedAttempt("ok")

    def _reply(self, req: LLMRequest) -> LLMResponse:
        text = f"[fake:{req.model}] {req.prompt[::-1]}" if self._text is None else self._text
        return LLMResponse(
            text,
            self._usage or _count_words(req.prompt, text),
            {"echo": True},
            finish_reasons=("stop",),
            finish_reason="stop",
            response_model=req.model,
        )


def _error(attempt: _ScriptedAttempt) -> LLMError:
    if attempt.kind == "cut":
        return LLMConnectionError("scripted: the reply was cut before its end")
    if attempt.kind == "connection":
        return LLMConnectionError("scripted: the connection was reset")
    if attempt.kind == "invalid":
        return LLMResponseError("scripted: the reply cannot be read")
    status_code = int(attempt.kind)
    error_class = error_class_for_status(status_code)
    if status_code == 429 and attempt.code == "insufficient_quota":
        error_class = LLMQuotaError
    return error_class(
        f"HTTP {status_code}: scripted", status_code=status_code, code=attempt.code, retry_after_s=attempt.retry_after_s
    )


def _count_words(prompt: str, text: str) -> LLMUsage:
    prompt_tokens = max(1, len(prompt.split()))
    completion_tokens = max(1, len(text.split()) - 1)
    return LLMUsage(prompt_tokens, completion_tokens, prompt_tokens + completion_tokens)
