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
GROQ = _chat(replace(conforming.OPENAI, name="groq"), "llama-3.3-70b-versatile")
GROQ.events[-2][1]["x_groq"] = {"id": "req-1", "usage": GROQ.events.pop()[1]["usage"]}
"""Groq reports the usage of a stream beside the finish reason, without being asked."""
TOGETHER = _chat(replace(conforming.OPENAI, name="together"), "meta-llama/Llama-3.3-70B-Instruct-Turbo")
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

# --- Replies that call no tool, for agents: a call would be answered, and the model asked again


def _chat_text(each: Conforming) -> Conforming:
    whole, events = deepcopy(each.whole), deepcopy(each.events)
    (choice,) = whole["choices"]
    choice["finish_reason"] = "stop"
    del choice["message"]["tool_calls"]
    said = [(name, event) for name, event in events if "tool_calls" not in str(event["choices"]) or _ends(event)]
    for _, event in filter(lambda named: _ends(named[1]), said):
        event["choices"][0]["finish_reason"] = "stop"
    return replace(each, whole=whole, events=said)


def _ends(event: Json) -> bool:
    return any(choice["finish_reason"] for choice in event["choices"])


def _responses_text(each: Conforming) -> Conforming:
    """With all events of a message, as the stream helper of OpenAI's SDK demands them."""
    (message,) = deepcopy([item for item in each.whole["output"] if item["type"] == "message"])
    (part,) = message["content"]
    part["annotations"] = []
    message["status"] = "completed"
    said = [event["delta"] for name, event in each.events if name == "response.output_text.delta"]
    whole = {**each.whole, "output": [message]}
    created = next(event["response"] for name, event in each.events if name == "response.created")
    at: Json = {"item_id": message["id"], "output_index": 0, "content_index": 0}
    item: Json = {"output_index": 0}
    events: list[tuple[str, Json]] = [
        ("created", {"response": created}),
        ("output_item.added", {**item, "item": {**message, "status": "in_progress", "content": []}}),
        ("content_part.added", {**at, "part": {**part, "text": ""}}),
        *(("output_text.delta", {**at, "delta": delta, "logprobs": []}) for delta in said),
        ("output_text.done", {**at, "text": part["text"], "logprobs": []}),
        ("content_part.done", {**at, "part": part}),
        ("output_item.done", {**item, "item": message}),
        ("completed", {"response": whole}),
    ]
    named = [
        (f"response.{name}", {"type": f"response.{name}", "sequence_number": number, **fields})
        for number, (name, fields) in enumerate(events)
    ]
    return replace(each, whole=whole, events=named)


def _anthropic_text(each: Conforming) -> Conforming:
    whole, events = deepcopy(each.whole), deepcopy(each.events)
    whole["content"] = [block for block in whole["content"] if block["type"] == "text"]
    whole["stop_reason"] = "end_turn"
    events = [(name, event) for name, event in events if event.get("index", 1) == 1]
    next(event for name, event in events if name == "message_delta")["delta"]["stop_reason"] = "end_turn"
    return replace(each, whole=whole, events=events)


EVERY: Mapping[str, Conforming] = {
    "openai": OPENAI,
    "azure_openai": AZURE,
    "mistral": MISTRAL,
    "groq": GROQ,
    "together": TOGETHER,
    "openai_responses": RESPONSES,
    "anthropic": ANTHROPIC,
    "gemini": conforming.GEMINI,
    "cohere": conforming.COHERE,
    "ollama": conforming.OLLAMA,
    "bedrock": conforming.BEDROCK,
    "azure_responses": replace(RESPONSES, name="azure_openai", path="/openai/responses"),
    "openai_text": _chat_text(OPENAI),
    "openai_responses_text": _responses_text(RESPONSES),
    "anthropic_text": _anthropic_text(ANTHROPIC),
}
"""The replies, by the name of the format."""
