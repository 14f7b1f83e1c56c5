"""Tokens of streams whose server reports none, where the user asks for an estimate. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import cast

from ..ai.llm.types import LLMResponse, LLMUsage
from ..call.estimate import CharacterTokenizer
from .recognition import ModelCall

_NOT_SAID = frozenset(
    {"role", "type", "id", "tool_call_id", "model", "url", "data", "bytes", "mimeType", "media_type", "format"}
)
"""Fields of a message whose strings are no text: names, ids, and pictures in base64."""
_PROMPT = frozenset(
    {"messages", "input", "contents", "system", "systemInstruction", "system_instruction", "instructions", "tools"}
)
"""The fields of a request that a model reads, in every format."""


@dataclass(frozen=True, kw_only=True, slots=True)
class UsageEstimate:
    """What is needed to estimate the tokens of one call."""

    model: str
    """The model that is asked for."""
    prompt_tokens: int
    """The tokens of the request, by a rule of thumb."""

    @classmethod
    def of_request(cls, model: str, body: bytes | None) -> UsageEstimate:
        """The estimate for a request by its body."""
        try:
            document: object = json.loads(body or b"")
        except (ValueError, RecursionError):
            document = None
        text = "".join(_said_in(cast("dict[str, object]", document))) if isinstance(document, dict) else ""
        return cls(model=model, prompt_tokens=CharacterTokenizer().count(text, model))

    def completed(self, reply: LLMResponse) -> LLMResponse:
        """The reply with an estimate of the counts that its usage lacks, marked as estimated."""
        usage = reply.usage.sanitized()
        prompt, completion = (usage.prompt_tokens, usage.completion_tokens) if usage.is_known else (None, None)
        if prompt is not None and completion is not None:
            return reply
        prompt = self.prompt_tokens if prompt is None else prompt
        completion = self._output_of(reply) if completion is None else completion
        total = prompt + completion
        estimated = replace(
            usage, prompt_tokens=prompt, completion_tokens=completion, total_tokens=total, estimated=True
        )
        return replace(reply, usage=estimated)

    def _output_of(self, reply: LLMResponse) -> int:
        calls = (call.arguments for call in reply.tool_calls)
        arguments = "".join(each if isinstance(each, str) else json.dumps(dict(each)) for each in calls)
        said = (reply.text, reply.reasoning or "", arguments)
        return sum(CharacterTokenizer().count(text, self.model) for text in said)


def expected_in(seen: ModelCall, body: bytes | None) -> LLMUsage:
    """What a call is expected to use: the input by a rule of thumb, and as much output as the request allows."""
    prompt = UsageEstimate.of_request(seen.model, body).prompt_tokens
    output = seen.max_output
    return LLMUsage(prompt, output, prompt + output, estimated=True)


def _said_in(document: Mapping[str, object]) -> Iterator[str]:
    """Every string that the model reads."""
    waiting = [value for name, value in document.items() if name in _PROMPT]
    while waiting:
        value = waiting.pop()
        if isinstance(value, str):
            if not value.startswith("data:"):
                yield value
        elif isinstance(value, dict):
            fields = cast("dict[str, object]", value).items()
            waiting.extend(inner for name, inner in fields if name not in _NOT_SAID)
        elif isinstance(value, list):
            waiting.extend(cast("list[object]", value))
