"""A provider that answers by rules: the fixture `fake_llm`."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import AsyncGenerator, Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from ..ai.llm import providers
from ..ai.llm.client import AsyncLLMClient
from ..ai.llm.providers._client import telemetry_name_of
from ..ai.llm.providers.fake import FakeLLMClient
from ..ai.llm.types import Finish, LLMRequest, LLMResponse, LLMUsage, StreamEvent, ToolCallDelta
from ..errors import ConfigError, LLMError, LLMRequestError, LLMTimeoutError

Reply = str | LLMResponse | Callable[[LLMRequest], str | LLMResponse]
"""The text of a reply, a whole reply with tool calls and the like, or a function of the request that returns one."""


@dataclass(slots=True)
class _Rule:
    """What the attempts that match get."""

    pattern: re.Pattern[str] | None
    """What the request must contain; `None` for any request."""
    model: str | None
    """The model that must be asked for; `None` for any model."""
    times: int | None
    """How many attempts it has left; `None` for any number."""
    fault: str | None = None
    """An entry of `FakeLLMClient`'s script; `None` for a reply."""
    reply: Reply | None = None
    """The reply; `None` for an echo of the prompt."""
    usage: LLMUsage | None = None
    """What the reply reports; `None` to count words."""
    chunks: Sequence[str] | None = None
    """The pieces of a stream; `None` for the words of the text."""

    def takes(self, request: LLMRequest) -> bool:
        """Whether the rule answers a request."""
        if self.times == 0 or self.model not in (None, request.model):
            return False
        return self.pattern is None or self.pattern.search(request.all_text) is not None


class FakeLLM:
    """Answers every model call in place of its provider: by rules, in no time, and without a network.

    Rules are tried in the order in which they were added; faults come before replies. Without a `reply` every request
    gets an echo. Calls keep the name of their provider, so that they have its prices and its attributes.
    """

    def __init__(self) -> None:
        self._rules: list[_Rule] = []
        self._requests: list[LLMRequest] = []
        self._lock = threading.Lock()

    @property
    def requests(self) -> list[LLMRequest]:
        """The requests so far, one for each attempt, in order."""
        return list(self._requests)

    def reply(
        self,
        reply: Reply,
        *,
        to: str | re.Pattern[str] | None = None,
        model: str | None = None,
        usage: LLMUsage | None = None,
        chunks: Sequence[str] | None = None,
        times: int | None = None,
    ) -> FakeLLM:
        """Answer requests.

        Args:
            reply: the text, a whole `LLMResponse` (for tool calls, a refusal, another model that answers), or a
                function of the request that returns either.
            to: a regular expression that is searched for in everything the request says; the default is any request.
            model: the model that must be asked for; the default is any model.
            usage: the tokens, and the cost if any, that a text reports; the default counts words.
            chunks: the pieces in which a stream delivers the text; the default is its words.
            times: the number of replies, after which the rule no longer holds; the default is any number.

        Raises:
            ConfigError: an argument has a value that is not allowed.
        """
        if times is not None and times < 1:
            raise ConfigError(f"times is {times!r}; it must be 1 or more, or None for any number")
        return self._add(_Rule(_compiled(to), model, times, reply=reply, usage=usage, chunks=chunks))

    def fail(
        self,
        *faults: str,
        to: str | re.Pattern[str] | None = None,
        model: str | None = None,
    ) -> FakeLLM:
        """Let the next attempts fail, one for each fault; the attempts after them get replies.

        A fault does not wait: a `timeout` comes at once, and so does the retry after a fault without `retry-after`.

        Args:
            faults: `timeout`, `connection`, `invalid`, `cut`, or an HTTP status from 400 to 599, each with the
                options of `FakeLLMClient`: `"429 retry-after=0.2"`, `"cut after=2"` for a stream.
            to: as of `reply`.
            model: as of `reply`.

        Raises:
            ConfigError: a fault cannot be read.
        """
        if "ok" in faults:
            raise ConfigError("faults has 'ok', which is no fault; an attempt without a fault gets a reply")
        FakeLLMClient(script=faults)  # reads all of them, or says which it cannot read
        for fault in faults:
            self._add(_Rule(_compiled(to), model, times=1, fault=fault))
        return self

    def client(self, provider: str = "fake") -> AsyncLLMClient:
        """A client that answers by the same rules, for code that is handed its client."""
        return _RuleClient(self, provider)

    @contextmanager
    def installed(self) -> Generator[FakeLLM]:
        """Answer in place of every provider, until the block ends."""
        with providers.replaced(self.client):
            yield self

    @property
    def reports_cost(self) -> bool:
        """Whether replies name their cost."""
        return any(rule.usage is not None and rule.usage.cost_usd is not None for rule in self._rules)

    def _add(self, rule: _Rule) -> FakeLLM:
        with self._lock:
            self._rules.append(rule)
        return self

    def rule_for(self, request: LLMRequest) -> _Rule:
        """What an attempt gets; the request is kept."""
        with self._lock:
            self._requests.append(request)
            matching = [rule for rule in self._rules if rule.takes(request)]
            rule = next((rule for rule in matching if rule.fault), matching[0] if matching else None)
            if rule is None and any(rule.fault is None for rule in self._rules):
                raise LLMRequestError(
                    f"fake_llm has no reply to this request for {request.model!r}; add one with fake_llm.reply(...), "
                    "without to= for any request",
                    status_code=400,
                    code="fake_llm_no_reply",
                )
            if rule is None:
                return _Rule(None, None, None)
            if rule.times is not None:
                rule.times -= 1
            return rule


def _compiled(pattern: str | re.Pattern[str] | None) -> re.Pattern[str] | None:
    try:
        return None if pattern is None else re.compile(pattern)
    except re.error as error:
        raise ConfigError(f"to is {pattern!r}; it must be a regular expression: {error}") from None


class _RuleClient(AsyncLLMClient):
    """Hands each attempt to a `FakeLLMClient` made for it."""

    def __init__(self, fake: FakeLLM, provider: str) -> None:
        self._fake = fake
        self.provider_name = provider
        self.telemetry_name = telemetry_name_of(provider)
        self.reports_cost = fake.reports_cost

    async def complete(self, req: LLMRequest) -> LLMResponse:
        attempt = _Attempt(self._fake.rule_for(req), req)
        try:
            reply = await attempt.client.complete(req)
        except LLMError as error:
            raise attempt.at_once(error) from None
        return attempt.whole or reply

    async def stream(self, req: LLMRequest) -> AsyncGenerator[Sequence[StreamEvent]]:
        attempt = _Attempt(self._fake.rule_for(req), req)
        try:
            async for events in attempt.client.stream(req):
                yield events if attempt.whole is None else _ending_in(attempt.whole, events)
        except LLMError as error:
            raise attempt.at_once(error) from None


class _Attempt:
    """One attempt, and the `FakeLLMClient` that makes it."""

    def __init__(self, rule: _Rule, request: LLMRequest) -> None:
        reply = rule.reply(request) if callable(rule.reply) else rule.reply
        if reply is None:
            reply = f"[{request.provider}:{request.model}] {request.prompt[::-1]}"
        self.whole = reply if isinstance(reply, LLMResponse) else None
        text = reply.text if isinstance(reply, LLMResponse) else reply
        usage = rule.usage or _count_words(request.all_text, text if rule.chunks is None else "".join(rule.chunks))
        self._is_timeout = rule.fault is not None and rule.fault.split()[0] == "timeout"
        script = [] if rule.fault is None else [rule.fault.replace("timeout", "connection", 1)]
        self.client = FakeLLMClient(0, script=script, usage=usage, text=text, chunks=rule.chunks)

    def at_once(self, error: LLMError) -> LLMError:
        """The error of a fault, whose retry waits only where the fault says so."""
        if self._is_timeout:
            error = LLMTimeoutError("scripted: no answer in time", retry_after_s=error.retry_after_s)
        if error.retry_after_s is None:
            error.retry_after_s = 0.0
        return error


def _ending_in(reply: LLMResponse, events: Sequence[StreamEvent]) -> list[StreamEvent]:
    """Events of a stream, whose end is this reply."""
    if not any(isinstance(event, Finish) for event in events):
        return list(events)
    calls = [
        ToolCallDelta(index, call.id, call.name, _json(call.arguments)) for index, call in enumerate(reply.tool_calls)
    ]
    return [*calls, Finish(reply)]


def _json(arguments: Mapping[str, Any] | str) -> str:
    return arguments if isinstance(arguments, str) else json.dumps(dict(arguments))


def _count_words(prompt: str, reply: str) -> LLMUsage:
    prompt_tokens, completion_tokens = max(1, len(prompt.split())), max(1, len(reply.split()))
    return LLMUsage(prompt_tokens, completion_tokens, prompt_tokens + completion_tokens)
