"""What providers answer to their own SDKs: the replies of `tests/wire/conforming.py`, with all that the SDKs demand."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import replace

from tests.wire import conforming
from tests.wire.conforming import Conforming, Json

_CREATED = 1_792_000_000
_MISTRAL_MODEL, _CLAUDE = "mistral-large-latest", "claude-sonnet-4-6"


def _chat(each: Conforming, model: str) -> Conforming:
    """With `object` and `created`, as every server sends them."""
    more = {"created": _CREATED, "model": model}
    return replace(
        each,
        model=model,
        response_model=model,
        whole={**each.whole, **more, "object": "chat.completion"},
        events=[(name, {**deepcopy(event), **more, "object": "chat.completion.chunk"}) for name, event in each.events],
    )


OPENAI = _chat(conforming.OPENAI, "gpt-4o")
AZURE = replace(OPENAI, name="azure_openai", path="/openai/deployments/gpt-4o/chat/completions")
MISTRAL = _chat(conforming.MISTRAL, _MISTRAL_MODEL)
_WHOLE_CALL = {"tool_calls": [{"index": 0, **conforming.MISTRAL.whole["choices"][0]["message"]["tool_calls"][0]}]}
"""Mistral streams a call in one piece, and its SDK rejects parts of one."""
MISTRAL.events[4][1]["choices"][0]["delta"] = _WHOLE_CALL
del MISTRAL.events[5:7]

_RESPONSE_MORE: Json = {
    "object": "response",
    "created_at": _CREATED,
    "parallel_tool_calls": True,
    "tool_choice": "auto",
    "tools": [],
}


def _responses_event(number: int, event: Json) -> Json:
    inner = {"response": {**event["response"], **_RESPONSE_MORE}} if "response" in event else {}
    return {**event, **inner, "sequence_number": number}


RESPONSES = replace(
    conforming.RESPONSES,
    whole={**conforming.RESPONSES.whole, **_RESPONSE_MORE},
    events=[(name, _responses_event(n, event)) for n, (name, event) in enumerate(conforming.RESPONSES.events)],
)


def _claude(event: Json) -> Json:
    return {**event, "message": {**event["message"], "model": _CLAUDE}} if "message" in event else event


ANTHROPIC = replace(
    conforming.ANTHROPIC,
    model=_CLAUDE,
    response_model=_CLAUDE,
    whole={**conforming.ANTHROPIC.whole, "model": _CLAUDE},
    events=[(name, _claude(event)) for name, event in conforming.ANTHROPIC.events],
)

EVERY: Mapping[str, Conforming] = {
    "openai": OPENAI,
    "azure_openai": AZURE,
    "mistral": MISTRAL,
    "openai_responses": RESPONSES,
    "anthropic": ANTHROPIC,
    "gemini": conforming.GEMINI,
    "cohere": conforming.COHERE,
    "ollama": conforming.OLLAMA,
}
"""The replies, by the name of the format."""
