"""The request and the replies of each provider, as data for `test_conformance.py`.

Every provider gets the same request and answers the same: reasoning, a text, one tool call. The shapes are those of the
references that the provider's module names.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from tests.servers.bedrock_server import frame

Json = dict[str, Any]

KEY = "k-test-0123456789"
TEXT, REASONING, CITY = "Grüße, 世界 🎉", "Two and two.", {"city": "Zürich"}
_ARGUMENTS = json.dumps(CITY)
_BEARER = {"authorization": f"Bearer {KEY}"}


@dataclass(frozen=True, kw_only=True)
class Conforming:
    """A provider, with the requests that it gets and the replies that it sends."""

    name: str
    """The name in the registry."""
    model: str
    path: str
    """The path of a whole call."""
    stream_path: str | None = None
    """The path of a stream, where it differs."""
    options: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """The options that its client needs."""
    base: str = ""
    """The part between the server's address and the path."""
    headers: Mapping[str, str] = field(default_factory=lambda: _BEARER)
    """Headers of each request; no other holds the key."""
    body: Json
    """The body of the request for `ASKED`, without the model."""
    whole: Json
    """The whole reply."""
    events: list[tuple[str, Json]]
    """The same reply as a stream."""
    end: int = 1
    """The number of events from the one with the finish reason to the last."""
    frame: Callable[[str, Json], bytes]
    """One event as bytes."""
    keep_alive: bytes = b": keep-alive\n\n"
    content_type: str = "text/event-stream"
    mark: bytes = b""
    """The bytes after the last event."""
    reason: str
    """The finish reason, in the provider's words."""
    reasons: Mapping[str, str]
    """The provider's words for a reply without calls, with their normal forms."""
    place_of_reason: tuple[str | int, ...]
    """The path to the finish reason in the whole reply."""
    place_of_call: tuple[str | int, ...]
    """The path to the tool call in the whole reply."""
    place_of_usage: tuple[str | int, ...] = ("usage",)
    usage: tuple[int | None, ...]
    """Input, output, total, cache read and reasoning tokens."""
    response_id: str | None = None
    response_model: str | None = None
    unknown: tuple[str, Json] = ("future.event", {"type": "future.event", "value": 1})
    failure: tuple[str, Json]
    """An event with a server's error."""
    error_type: str | None
    """The type in an error body of `error_body`."""
    error_body: Json

    @property
    def pieces(self) -> list[bytes]:
        """The events of the stream, as bytes."""
        return [self.frame(*event) for event in self.events]

    @property
    def stream(self) -> bytes:
        """The stream."""
        return b"".join(self.pieces) + self.mark

    def with_(self, *changes: tuple[tuple[str | int, ...], object]) -> Json:
        """The whole reply with other values in some places."""
        document: Any = json.loads(json.dumps(self.whole))
        for place, value in changes:
            inner = document
            for step in place[:-1]:
                inner = inner[step]
            inner[place[-1]] = value
        return dict(document)


def named(name: str, document: Json) -> bytes:
    """A server-sent event with a name."""
    return f"event: {name}\ndata: {json.dumps(document, ensure_ascii=False)}\n\n".encode()


def nameless(_: str, document: Json) -> bytes:
    """A server-sent event of data alone."""
    return f"data: {json.dumps(document, ensure_ascii=False)}\n\n".encode()


def line(_: str, document: Json) -> bytes:
    """A line of JSON."""
    return json.dumps(document, ensure_ascii=False).encode() + b"\n"


def aws(kind: str, document: Json) -> bytes:
    """A frame of AWS's event stream."""
    return frame("exception" if kind.endswith("Exception") else "event", kind, document)


# --- Chat Completions


def _asked_chat(**more: Any) -> Json:
    call = {"id": "c0", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}
    return {
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Sum?"},
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "content": "2", "tool_call_id": "c0", "name": "add"},
            {"role": "user", "content": "And?"},
        ],
        "temperature": 0.5,
        "top_p": 0.9,
        **more,
    }


_FUNCTION = {"name": "get_weather", "arguments": _ARGUMENTS}
_CHAT_CALL = {"id": "call_1", "type": "function", "function": _FUNCTION}
_CHAT_USAGE = {
    "prompt_tokens": 40,
    "completion_tokens": 12,
    "total_tokens": 52,
    "prompt_tokens_details": {"cached_tokens": 8},
    "completion_tokens_details": {"reasoning_tokens": 5},
}
_CHAT_MESSAGE = {"role": "assistant", "content": TEXT, "reasoning_content": REASONING, "tool_calls": [_CHAT_CALL]}


def _chunk(delta: Json, reason: str | None = None, **more: Any) -> tuple[str, Json]:
    choice = {"index": 0, "delta": delta, "finish_reason": reason}
    return "", {"id": "chat-1", "model": "gpt-4o", "choices": [choice], **more}


OPENAI = Conforming(
    name="openai",
    model="gpt-4o",
    base="/v1",
    path="/v1/chat/completions",
    body=_asked_chat(max_tokens=9, stop=["x"]),
    whole={
        "id": "chat-1",
        "model": "gpt-4o",
        "choices": [{"index": 0, "message": _CHAT_MESSAGE, "finish_reason": "tool_calls"}],
        "usage": _CHAT_USAGE,
    },
    events=[
        _chunk({"role": "assistant", "content": ""}),
        _chunk({"reasoning_content": REASONING}),
        _chunk({"content": TEXT[:4]}),
        _chunk({"content": TEXT[4:]}),
        _chunk({"tool_calls": [{"index": 0, **_CHAT_CALL, "function": {**_FUNCTION, "arguments": ""}}]}),
        _chunk({"tool_calls": [{"index": 0, "function": {"arguments": _ARGUMENTS[:5]}}]}),
        _chunk({"tool_calls": [{"index": 0, "function": {"arguments": _ARGUMENTS[5:]}}]}),
        _chunk({}, "tool_calls"),
        ("", {"id": "chat-1", "model": "gpt-4o", "choices": [], "usage": _CHAT_USAGE}),
    ],
    end=2,
    frame=nameless,
    mark=b"data: [DONE]\n\n",
    reason="tool_calls",
    reasons={"stop": "stop", "length": "length", "content_filter": "content_filter"},
    place_of_reason=("choices", 0, "finish_reason"),
    place_of_call=("choices", 0, "message", "tool_calls"),
    usage=(40, 12, 52, 8, 5),
    response_id="chat-1",
    response_model="gpt-4o",
    unknown=("", {"id": "chat-1", "choices": [], "future": 1}),
    failure=("", {"error": {"message": "Overloaded", "type": "server_error", "code": None}}),
    error_type="requests",
    error_body={"error": {"message": "Slow down", "type": "requests", "code": "rate_limit_exceeded"}},
)
MISTRAL = replace(OPENAI, name="mistral")
AZURE = replace(
    OPENAI,
    name="azure_openai",
    base="",
    path="/openai/v1/chat/completions",
    headers={"api-key": KEY},
    body=_asked_chat(max_completion_tokens=9, stop=["x"]),
)

# --- Responses

_ITEMS: list[Json] = [
    {"id": "r1", "type": "reasoning", "summary": [{"type": "summary_text", "text": REASONING}]},
    {"id": "m1", "type": "message", "role": "assistant", "content": [{"type": "output_text", "text": TEXT}]},
    {"id": "f1", "type": "function_call", "call_id": "call_1", "name": "get_weather", "arguments": _ARGUMENTS},
]
_RESPONSE: Json = {
    "id": "resp-1",
    "model": "gpt-5",
    "status": "completed",
    "error": None,
    "incomplete_details": None,
    "output": _ITEMS,
    "usage": {
        "input_tokens": 40,
        "input_tokens_details": {"cached_tokens": 8},
        "output_tokens": 12,
        "output_tokens_details": {"reasoning_tokens": 5},
        "total_tokens": 52,
    },
}


def _typed(kind: str, **fields: Any) -> tuple[str, Json]:
    return kind, {"type": kind, **fields}


RESPONSES = Conforming(
    name="openai_responses",
    model="gpt-5",
    base="/v1",
    path="/v1/responses",
    body={
        "instructions": "Be brief.",
        "input": [
            {"role": "user", "content": "Sum?"},
            {"type": "function_call", "call_id": "c0", "name": "add", "arguments": '{"a": 1}'},
            {"type": "function_call_output", "call_id": "c0", "output": "2"},
            {"role": "user", "content": "And?"},
        ],
        "max_output_tokens": 9,
        "temperature": 0.5,
        "top_p": 0.9,
    },
    whole=_RESPONSE,
    events=[
        _typed("response.created", response={**_RESPONSE, "status": "in_progress", "output": [], "usage": None}),
        _typed("response.reasoning_summary_text.delta", output_index=0, summary_index=0, delta=REASONING),
        _typed("response.output_text.delta", output_index=1, content_index=0, delta=TEXT[:4]),
        _typed("response.output_text.delta", output_index=1, content_index=0, delta=TEXT[4:]),
        _typed("response.output_item.added", output_index=2, item={**_ITEMS[2], "arguments": ""}),
        _typed("response.function_call_arguments.delta", output_index=2, delta=_ARGUMENTS[:5]),
        _typed("response.function_call_arguments.delta", output_index=2, delta=_ARGUMENTS[5:]),
        _typed("response.completed", response=_RESPONSE),
    ],
    frame=named,
    reason="completed",
    reasons={},
    place_of_reason=("status",),
    place_of_call=("output", 2),
    usage=(40, 12, 52, 8, 5),
    response_id="resp-1",
    response_model="gpt-5",
    failure=_typed("error", code="server_error", message="Overloaded", param=None),
    error_type="requests",
    error_body=OPENAI.error_body,
)
AZURE_RESPONSES = replace(
    RESPONSES, name="azure_openai_responses", base="", path="/openai/v1/responses", headers={"api-key": KEY}
)

# --- Messages

_BLOCKS: list[Json] = [
    {"type": "thinking", "thinking": REASONING, "signature": "sig"},
    {"type": "text", "text": TEXT},
    {"type": "tool_use", "id": "call_1", "name": "get_weather", "input": CITY},
]
_MESSAGE: Json = {"id": "msg-1", "type": "message", "role": "assistant", "model": "claude-sonnet-4-5"}
_MESSAGE_USAGE: Json = {
    "input_tokens": 32,
    "cache_read_input_tokens": 8,
    "cache_creation_input_tokens": 0,
    "output_tokens": 12,
    "output_tokens_details": {"thinking_tokens": 5},
}


def _block(index: int, start: Json, *deltas: Json) -> list[tuple[str, Json]]:
    return [
        _typed("content_block_start", index=index, content_block=start),
        *(_typed("content_block_delta", index=index, delta=delta) for delta in deltas),
        _typed("content_block_stop", index=index),
    ]


ANTHROPIC = Conforming(
    name="anthropic",
    model="claude-sonnet-4-5",
    path="/v1/messages",
    headers={"x-api-key": KEY, "anthropic-version": "2023-06-01"},
    body={
        "system": "Be brief.",
        "messages": [
            {"role": "user", "content": "Sum?"},
            {"role": "assistant", "content": [{"type": "tool_use", "id": "c0", "name": "add", "input": {"a": 1}}]},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c0", "content": "2"}]},
            {"role": "user", "content": "And?"},
        ],
        "max_tokens": 9,
        "temperature": 0.5,
        "top_p": 0.9,
        "stop_sequences": ["x"],
    },
    whole={**_MESSAGE, "content": _BLOCKS, "stop_reason": "tool_use", "usage": _MESSAGE_USAGE},
    events=[
        _typed("message_start", message={**_MESSAGE, "content": [], "usage": {**_MESSAGE_USAGE, "output_tokens": 1}}),
        _typed("ping"),
        *_block(
            0,
            {"type": "thinking", "thinking": ""},
            {"type": "thinking_delta", "thinking": REASONING},
            {"type": "signature_delta", "signature": "sig"},
        ),
        *_block(
            1,
            {"type": "text", "text": ""},
            {"type": "text_delta", "text": TEXT[:4]},
            {"type": "text_delta", "text": TEXT[4:]},
        ),
        *_block(
            2,
            {**_BLOCKS[2], "input": {}},
            {"type": "input_json_delta", "partial_json": _ARGUMENTS[:5]},
            {"type": "input_json_delta", "partial_json": _ARGUMENTS[5:]},
        ),
        _typed("message_delta", delta={"stop_reason": "tool_use"}, usage=_MESSAGE_USAGE),
        _typed("message_stop"),
    ],
    end=2,
    frame=named,
    keep_alive=named("ping", {"type": "ping"}) + b": nothing\n\n",
    reason="tool_use",
    reasons={"end_turn": "stop", "stop_sequence": "stop", "max_tokens": "length", "refusal": "content_filter"},
    place_of_reason=("stop_reason",),
    place_of_call=("content", 2),
    usage=(40, 12, 52, 8, 5),
    response_id="msg-1",
    response_model="claude-sonnet-4-5",
    failure=_typed("error", error={"type": "overloaded_error", "message": "Overloaded"}),
    error_type="rate_limit_error",
    error_body={"type": "error", "error": {"type": "rate_limit_error", "message": "Slow down"}},
)

# --- Gemini

_PARTS: list[Json] = [
    {"text": REASONING, "thought": True},
    {"text": TEXT},
    {"functionCall": {"id": "call_1", "name": "get_weather", "args": CITY}},
]
_GEMINI: Json = {"responseId": "g-1", "modelVersion": "gemini-2.5-flash"}
_GEMINI_USAGE = {
    "promptTokenCount": 40,
    "candidatesTokenCount": 7,
    "thoughtsTokenCount": 5,
    "cachedContentTokenCount": 8,
    "totalTokenCount": 52,
}


def _candidate(*parts: Json, **more: Any) -> Json:
    return {**_GEMINI, "candidates": [{"index": 0, "content": {"role": "model", "parts": list(parts)}, **more}]}


GEMINI = Conforming(
    name="gemini",
    model="gemini-2.5-flash",
    path="/v1beta/models/gemini-2.5-flash:generateContent",
    stream_path="/v1beta/models/gemini-2.5-flash:streamGenerateContent?alt=sse",
    headers={"x-goog-api-key": KEY},
    body={
        "systemInstruction": {"parts": [{"text": "Be brief."}]},
        "contents": [
            {"role": "user", "parts": [{"text": "Sum?"}]},
            {"role": "model", "parts": [{"functionCall": {"id": "c0", "name": "add", "args": {"a": 1}}}]},
            {"role": "user", "parts": [{"functionResponse": {"id": "c0", "name": "add", "response": {"output": "2"}}}]},
            {"role": "user", "parts": [{"text": "And?"}]},
        ],
        "generationConfig": {"temperature": 0.5, "topP": 0.9, "maxOutputTokens": 9, "stopSequences": ["x"]},
    },
    whole={**_candidate(*_PARTS, finishReason="STOP"), "usageMetadata": _GEMINI_USAGE},
    events=[
        ("", _candidate(_PARTS[0])),
        ("", _candidate({"text": TEXT[:4]})),
        ("", _candidate({"text": TEXT[4:]})),
        ("", _candidate(_PARTS[2])),
        ("", {**_candidate(finishReason="STOP"), "usageMetadata": _GEMINI_USAGE}),
    ],
    frame=nameless,
    reason="STOP",
    reasons={"STOP": "stop", "MAX_TOKENS": "length", "SAFETY": "content_filter", "MALFORMED_FUNCTION_CALL": "error"},
    place_of_reason=("candidates", 0, "finishReason"),
    place_of_call=("candidates", 0, "content", "parts", 2),
    place_of_usage=("usageMetadata",),
    usage=(40, 12, 52, 8, 5),
    response_id="g-1",
    response_model="gemini-2.5-flash",
    unknown=("", {"future": 1}),
    failure=("", {"error": {"code": 503, "message": "Overloaded", "status": "UNAVAILABLE"}}),
    error_type="RESOURCE_EXHAUSTED",
    error_body={"error": {"code": 429, "message": "Slow down", "status": "RESOURCE_EXHAUSTED"}},
)
_VERTEX_MODEL = "/v1/projects/p/locations/global/publishers/google/models/gemini-2.5-flash"
VERTEX = replace(
    GEMINI,
    name="vertex",
    options={"project": "p", "location": "global", "token": lambda: KEY},
    path=f"{_VERTEX_MODEL}:generateContent",
    stream_path=f"{_VERTEX_MODEL}:streamGenerateContent?alt=sse",
    headers=_BEARER,
)

# --- Cohere


def _delta(kind: str, index: int = 0, **message: Any) -> tuple[str, Json]:
    return _typed(kind, index=index, delta={"message": message})


_COHERE_USAGE = {
    "billed_units": {"input_tokens": 30, "output_tokens": 12},
    "tokens": {"input_tokens": 40, "output_tokens": 12, "reasoning_tokens": 5},
    "cached_tokens": 8,
}
COHERE = Conforming(
    name="cohere",
    model="command-a-03-2025",
    path="/v2/chat",
    body={
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Sum?"},
            {"role": "assistant", "tool_calls": _asked_chat()["messages"][2]["tool_calls"]},
            {"role": "tool", "content": "2", "tool_call_id": "c0"},
            {"role": "user", "content": "And?"},
        ],
        "max_tokens": 9,
        "temperature": 0.5,
        "p": 0.9,
        "stop_sequences": ["x"],
        "stream": False,
    },
    whole={
        "id": "co-1",
        "message": {
            "role": "assistant",
            "content": [{"type": "thinking", "thinking": REASONING}, {"type": "text", "text": TEXT}],
            "tool_calls": [_CHAT_CALL],
        },
        "finish_reason": "TOOL_CALL",
        "usage": _COHERE_USAGE,
    },
    events=[
        _typed("message-start", id="co-1", delta={"message": {"role": "assistant"}}),
        _delta("content-start", content={"type": "thinking", "thinking": REASONING}),
        _delta("content-delta", 1, content={"text": TEXT[:4]}),
        _delta("content-delta", 1, content={"text": TEXT[4:]}),
        _delta("tool-call-start", tool_calls={**_CHAT_CALL, "function": {**_FUNCTION, "arguments": ""}}),
        _delta("tool-call-delta", tool_calls={"function": {"arguments": _ARGUMENTS[:5]}}),
        _delta("tool-call-delta", tool_calls={"function": {"arguments": _ARGUMENTS[5:]}}),
        _typed("message-end", id="co-1", delta={"finish_reason": "TOOL_CALL", "usage": _COHERE_USAGE}),
    ],
    frame=named,
    reason="TOOL_CALL",
    reasons={
        "COMPLETE": "stop",
        "STOP_SEQUENCE": "stop",
        "MAX_TOKENS": "length",
        "ERROR_TOXIC": "content_filter",
        "ERROR": "error",
        "TIMEOUT": "error",
    },
    place_of_reason=("finish_reason",),
    place_of_call=("message", "tool_calls"),
    usage=(40, 12, 52, 8, 5),
    response_id="co-1",
    failure=_typed("message-end", delta={"finish_reason": "ERROR", "error": "Overloaded"}),
    error_type=None,
    error_body={"id": "e-1", "message": "Slow down"},
)

# --- Ollama

_OLLAMA: Json = {"model": "qwen3:8b", "created_at": "2026-11-01T00:00:00Z"}
_OLLAMA_END = {"done": True, "done_reason": "stop", "prompt_eval_count": 40, "eval_count": 12}
_OLLAMA_CALL = {"id": "call_1", "function": {"name": "get_weather", "arguments": CITY}}


def _said(**message: Any) -> tuple[str, Json]:
    return "", {**_OLLAMA, "message": {"role": "assistant", **message}, "done": False}


OLLAMA = Conforming(
    name="ollama",
    model="qwen3:8b",
    path="/api/chat",
    body={
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Sum?"},
            {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "add", "arguments": {"a": 1}}}]},
            {"role": "tool", "content": "2", "tool_name": "add"},
            {"role": "user", "content": "And?"},
        ],
        "options": {"temperature": 0.5, "top_p": 0.9, "num_predict": 9, "stop": ["x"]},
        "stream": False,
    },
    whole={
        **_OLLAMA,
        "message": {"role": "assistant", "content": TEXT, "thinking": REASONING, "tool_calls": [_OLLAMA_CALL]},
        **_OLLAMA_END,
    },
    events=[
        _said(content="", thinking=REASONING),
        _said(content=TEXT[:4]),
        _said(content=TEXT[4:]),
        _said(content="", tool_calls=[_OLLAMA_CALL]),
        ("", {**_OLLAMA, "message": {"role": "assistant", "content": ""}, **_OLLAMA_END}),
    ],
    frame=line,
    keep_alive=b"\n",
    content_type="application/x-ndjson",
    reason="stop",
    reasons={"stop": "stop", "length": "length", "load": "error", "unload": "error"},
    place_of_reason=("done_reason",),
    place_of_call=("message", "tool_calls"),
    place_of_usage=("prompt_eval_count",),
    usage=(40, 12, 52, None, None),
    response_model="qwen3:8b",
    unknown=("", {"future": 1}),
    failure=("", {"error": "Overloaded"}),
    error_type=None,
    error_body={"error": "Slow down"},
)

# --- Converse


def _converse_block(index: int, delta: Json) -> tuple[str, Json]:
    return "contentBlockDelta", {"contentBlockIndex": index, "delta": delta}


_TOOL_USE = {"toolUseId": "call_1", "name": "get_weather"}
_CONVERSE_USAGE = {"inputTokens": 32, "outputTokens": 12, "totalTokens": 52, "cacheReadInputTokens": 8}
BEDROCK = Conforming(
    name="bedrock",
    model="amazon.nova-pro-v1:0",
    path="/model/amazon.nova-pro-v1:0/converse",
    stream_path="/model/amazon.nova-pro-v1:0/converse-stream",
    options={"region": "us-east-1"},
    body={
        "system": [{"text": "Be brief."}],
        "messages": [
            {"role": "user", "content": [{"text": "Sum?"}]},
            {"role": "assistant", "content": [{"toolUse": {"toolUseId": "c0", "name": "add", "input": {"a": 1}}}]},
            {
                "role": "user",
                "content": [{"toolResult": {"toolUseId": "c0", "content": [{"text": "2"}]}}, {"text": "And?"}],
            },
        ],
        "inferenceConfig": {"maxTokens": 9, "temperature": 0.5, "topP": 0.9, "stopSequences": ["x"]},
    },
    whole={
        "output": {
            "message": {
                "role": "assistant",
                "content": [
                    {"reasoningContent": {"reasoningText": {"text": REASONING}}},
                    {"text": TEXT},
                    {"toolUse": {**_TOOL_USE, "input": CITY}},
                ],
            }
        },
        "stopReason": "tool_use",
        "usage": _CONVERSE_USAGE,
    },
    events=[
        ("messageStart", {"role": "assistant"}),
        _converse_block(0, {"reasoningContent": {"text": REASONING}}),
        _converse_block(1, {"text": TEXT[:4]}),
        _converse_block(1, {"text": TEXT[4:]}),
        ("contentBlockStart", {"contentBlockIndex": 2, "start": {"toolUse": _TOOL_USE}}),
        _converse_block(2, {"toolUse": {"input": _ARGUMENTS[:5]}}),
        _converse_block(2, {"toolUse": {"input": _ARGUMENTS[5:]}}),
        ("messageStop", {"stopReason": "tool_use"}),
        ("metadata", {"usage": _CONVERSE_USAGE}),
    ],
    end=2,
    frame=aws,
    keep_alive=b"",
    content_type="application/vnd.amazon.eventstream",
    reason="tool_use",
    reasons={
        "end_turn": "stop",
        "max_tokens": "length",
        "guardrail_intervened": "content_filter",
        "malformed_tool_use": "error",
    },
    place_of_reason=("stopReason",),
    place_of_call=("output", "message", "content", 2),
    usage=(40, 12, 52, 8, None),
    unknown=("futureEvent", {"value": 1}),
    failure=("internalServerException", {"message": "Overloaded"}),
    error_type=None,
    error_body={"message": "Slow down"},
)

EVERY = (OPENAI, MISTRAL, AZURE, RESPONSES, AZURE_RESPONSES, ANTHROPIC, GEMINI, VERTEX, COHERE, OLLAMA, BEDROCK)
"""All providers of the suite: each wire format, and other ways to reach it."""
