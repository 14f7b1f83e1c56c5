"""A provider that needs no key, no server and no network, and fails on demand."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NoReturn

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

_FAULTS: Mapping[str, tuple[type[LLMError], str]] = {
    "connection": (LLMConnectionError, "the connection was reset"),
    "invalid": (LLMResponseError, "the reply cannot be read"),
    "cut": (LLMConnectionError, "the reply was cut before its end"),
}
_KINDS = "ok, timeout, connection, invalid, cut, or an HTTP status from 400 to 599"
_OPTIONS: Mapping[str, tuple[str, Callable[[str], object]]] = {
    "retry-after": ("retry_after_s", float),
    "code": ("code", str),
    "latency": ("latency_s", lambda milliseconds: float(milliseconds) / 1000.0),
    "after": ("after", lambda chunks: int(float(chunks))),
}
_OPTIONS_HINT = "retry-after=SECONDS, code=NAME, latency=MILLISECONDS, after=CHUNKS"


@dataclass(frozen=True, slots=True)
class _ScriptedAttempt:
    kind: str = "ok"
    """`ok`, `timeout`, `connection`, `invalid`, `cut`, or an HTTP status."""
    after: int = 0
    """Chunks that a stream delivers before it fails."""
    retry_after_s: float | None = None
    code: str | None = None
    latency_s: float | None = None

    async def fail(self) -> NoReturn:
        """Raise the scripted error; a `timeout` never ends."""
        if self.kind == "timeout":
            await asyncio.Event().wait()
        if self.kind in _FAULTS:
            error_class, what = _FAULTS[self.kind]
            raise error_class(f"scripted: {what}")
        status = int(self.kind)
        is_spent = status == 429 and self.code == "insufficient_quota"
        raise (LLMQuotaError if is_spent else error_class_for_status(status))(
            f"HTTP {status}: scripted", status_code=status, code=self.code, retry_after_s=self.retry_after_s
        )


def _parse(entry: str) -> _ScriptedAttempt:
    """Read one entry of a script, like `429 retry-after=0.2`."""
    kind, *options = entry.split() or [""]
    if kind not in ("ok", "timeout", *_FAULTS) and not re.fullmatch("[45][0-9]{2}", kind):
        raise ConfigError(f"script: {entry!r} begins with {kind!r}; allowed are {_KINDS}")
    given: dict[str, Any] = {}
    for option in options:
        name, _, value = option.partition("=")
        if name not in _OPTIONS or option == "code=":
            raise ConfigError(f"script: {entry!r} has {name!r}; allowed are {_OPTIONS_HINT}")
        field, read = _OPTIONS[name]
        try:
            given[field] = read(value)
        except ValueError:
            raise ConfigError(f"script: {value!r} in {entry!r} is not a number") from None
    return _ScriptedAttempt(kind, **given)


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
        attempt = await self._next_attempt()
        if attempt.kind != "ok":
            await attempt.fail()
        return self._reply(req)

    async def stream(self, req: LLMRequest) -> AsyncGenerator[Sequence[StreamEvent]]:
        attempt = await self._next_attempt()
        reply = self._reply(req)
        pieces = list(self._chunks) if self._chunks is not None else re.findall(r"\S+\s*", reply.text)
        delivered = pieces if attempt.kind == "ok" else pieces[: attempt.after]
        for number, piece in enumerate(delivered):
            if number:
                await asyncio.sleep(self._chunk_gap_s)
            yield (TextDelta(piece),)
        if attempt.kind != "ok":
            await attempt.fail()
        yield (Finish(replace(reply, text="".join(pieces))),)

    async def _next_attempt(self) -> _ScriptedAttempt:
        """Wait as long as the next attempt takes, and return what it does."""
        with self._lock:
            index = self._attempts
            self._attempts += 1
        attempt = self._script[index] if index < len(self._script) else _ScriptedAttempt()
        await asyncio.sleep(self._latency_s if attempt.latency_s is None else attempt.latency_s)
        return attempt

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


def _count_words(prompt: str, text: str) -> LLMUsage:
    prompt_tokens = max(1, len(prompt.split()))
    completion_tokens = max(1, len(text.split()) - 1)
    return LLMUsage(prompt_tokens, completion_tokens, prompt_tokens + completion_tokens)
