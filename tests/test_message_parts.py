"""Requests and replies in the parts form of the GenAI conventions, whatever format they have."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from tests.content_schema import assert_messages, assert_parts, assert_tools
from tracemind_otel.ai.llm.message_parts import ChatMessage, InputContent, input_of_body, input_of_request, output_of
from tracemind_otel.ai.llm.types import Image, LLMRequest, LLMResponse, LLMUsage, Message, Text, ToolCall

PNG = base64.b64encode(b"x" * 3000).decode()
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}
CALL = {"type": "tool_call", "id": "c1", "name": "weather", "arguments": {"city": "Paris"}}
RESULT = {"type": "tool_call_response", "id": "c1", "response": "sunny"}
BLOB = {"type": "blob", "modality": "image", "mime_type": "image/png", "content": "", "size": 3000}
URI = {"type": "uri", "modality": "image", "uri": "https://example.com/a.png"}
TOOL = {"type": "function", "name": "weather", "description": "The weather", "parameters": SCHEMA}


def text(content: str) -> dict[str, Any]:
    return {"type": "text", "content": content}


BODIES: dict[str, dict[str, Any]] = {
    "Chat Completions": {
        "messages": [
            {"role": "developer", "content": "Be brief"},
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "What is it like?"},
                    {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}},
                    {"type": "image_url", "image_url": {"url": "https://example.com/a.png?sig=secret"}},
                ],
            },
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [
                    {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Paris"}'}}
                ],
            },
            {"role": "tool", "tool_call_id": "c1", "content": "sunny"},
        ],
        "tools": [
            {
                "type": "function",
                "function": {"name": "weather", "description": "The weather", "parameters": SCHEMA},
            }
        ],
    },
    "Responses": {
        "instructions": "Be brief",
        "input": [
            {
                "role": "user",
                "content": [
                    {"type": "input_text", "text": "What is it like?"},
                    {"type": "input_image", "image_url": f"data:image/png;base64,{PNG}"},
                    {"type": "input_image", "image_url": "https://example.com/a.png#part"},
                ],
            },
            {"type": "function_call", "call_id": "c1", "name": "weather", "arguments": '{"city": "Paris"}'},
            {"type": "function_call_output", "call_id": "c1", "output": "sunny"},
        ],
        "tools": [{"type": "function", "name": "weather", "description": "The weather", "parameters": SCHEMA}],
    },
    "Anthropic": {
        "system": [{"type": "text", "text": "Be brief", "cache_control": {"type": "ephemeral"}}],
        "messages": [
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "What is it like?"},
                    {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}},
                    {"type": "image", "source": {"type": "url", "url": "https://example.com/a.png"}},
                ],
            },
            {
                "role": "assistant",
                "content": [{"type": "tool_use", "id": "c1", "name": "weather", "input": {"city": "Paris"}}],
            },
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c1", "content": "sunny"}]},
        ],
        "tools": [{"name": "weather", "description": "The weather", "input_schema": SCHEMA}],
    },
    "Gemini": {
        "systemInstruction": {"parts": [{"text": "Be brief"}]},
        "contents": [
            {
                "role": "user",
                "parts": [
                    {"text": "What is it like?"},
                    {"inlineData": {"mimeType": "image/png", "data": PNG}},
                    {"fileData": {"fileUri": "https://example.com/a.png"}},
                ],
            },
            {"role": "model", "parts": [{"functionCall": {"id": "c1", "name": "weather", "args": {"city": "Paris"}}}]},
            {
                "role": "user",
                "parts": [{"functionResponse": {"id": "c1", "name": "weather", "response": {"output": "sunny"}}}],
            },
        ],
        "tools": [
            {"functionDeclarations": [{"name": "weather", "description": "The weather", "parameters": SCHEMA}]},
            {"googleSearch": {}},
        ],
    },
    "Cohere": {
        "messages": [
            {"role": "system", "content": "Be brief"},
            {"role": "user", "content": [{"type": "text", "text": "What is it like?"}]},
            {
                "role": "assistant",
                "tool_calls": [
                    {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Paris"}'}}
                ],
            },
            {"role": "tool", "tool_call_id": "c1", "content": [{"type": "text", "text": "sunny"}]},
        ],
    },
    "Ollama": {
        "messages": [
            {"role": "system", "content": "Be brief"},
            {"role": "user", "content": "What is it like?", "images": [PNG]},
            {
                "role": "assistant",
                "content": "",
                "tool_calls": [{"function": {"name": "weather", "arguments": {"city": "Paris"}}}],
            },
            {"role": "tool", "content": "sunny"},
        ],
    },
    "Bedrock Converse": {
        "system": [{"text": "Be brief"}],
        "messages": [
            {
                "role": "user",
                "content": [
                    {"text": "What is it like?"},
                    {"image": {"format": "png", "source": {"bytes": PNG}}},
                    {"image": {"format": "png", "source": {"s3Location": {"uri": "s3://bucket/a.png"}}}},
                ],
            },
            {
                "role": "assistant",
                "content": [{"toolUse": {"toolUseId": "c1", "name": "weather", "input": {"city": "Paris"}}}],
            },
            {
                "role": "user",
                "content": [{"toolResult": {"toolUseId": "c1", "content": [{"text": "sunny"}]}}],
            },
        ],
        "toolConfig": {
            "tools": [{"toolSpec": {"name": "weather", "description": "The weather", "inputSchema": {"json": SCHEMA}}}]
        },
    },
}


def all_parts(content: InputContent) -> list[dict[str, Any]]:
    return [*content.system_instructions, *(part for message in content.messages for part in message.parts)]


@pytest.mark.parametrize("name", BODIES)
def test_a_conversation_in_any_format_has_the_same_parts(name: str) -> None:
    """System text, question, call and result of a tool are found in each format, in the conventions' schema."""
    content = input_of_body(BODIES[name])
    parts = all_parts(content)
    assert text("Be brief") in parts
    assert text("What is it like?") in parts
    calls = [{key: part[key] for key in part if key != "id"} for part in parts if part["type"] == "tool_call"]
    assert calls == [{key: CALL[key] for key in CALL if key != "id"}]
    assert "assistant" in {message.role for message in content.messages}
    results = [part["response"] for part in parts if part["type"] == "tool_call_response"]
    assert results in (["sunny"], [{"output": "sunny"}]) or name == "Ollama"
    assert_messages([{"role": message.role, "parts": [*message.parts]} for message in content.messages])
    assert_parts(content.system_instructions)
    assert_tools(content.tool_definitions)


@pytest.mark.parametrize("name", [name for name in BODIES if name not in ("Cohere", "Ollama")])
def test_images_are_sizes_or_references(name: str) -> None:
    """Bytes are recorded as their number, a URL without its query, which may hold a signature."""
    parts = all_parts(input_of_body(BODIES[name]))
    assert BLOB in parts
    uris = [part for part in parts if part["type"] == "uri"]
    assert uris == [{**URI, "uri": "s3://bucket/a.png"} if name == "Bedrock Converse" else URI] or (
        name == "Gemini" and uris == [{**URI, "modality": "document"}]
    )


@pytest.mark.parametrize("name", [name for name in BODIES if name not in ("Cohere", "Ollama")])
def test_tools_are_named_with_their_parameters(name: str) -> None:
    """A definition has type, name, description and parameters; a tool of the provider's own its name."""
    definitions = input_of_body(BODIES[name]).tool_definitions
    assert definitions[0] == TOOL
    assert definitions[1:] == (({"type": "googleSearch", "name": "googleSearch"},) if name == "Gemini" else ())


@pytest.mark.parametrize(
    ("block", "part"),
    [
        ({"type": "thinking", "thinking": "Hmm", "signature": "x"}, {"type": "reasoning", "content": "Hmm"}),
        ({"text": "Hmm", "thought": True}, {"type": "reasoning", "content": "Hmm"}),
        ({"reasoningContent": {"reasoningText": {"text": "Hmm"}}}, {"type": "reasoning", "content": "Hmm"}),
        ({"type": "file", "file": {"file_id": "f-1"}}, {"type": "file", "modality": "document", "file_id": "f-1"}),
        (
            {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "mp3"}},
            {"type": "blob", "modality": "audio", "mime_type": "audio/mp3", "content": "", "size": 3},
        ),
        ({"type": "redacted_thinking", "data": "opaque" * 9}, {"type": "redacted_thinking"}),
        (
            {"type": "server_tool_use", "id": "s1", "name": "web_search", "input": {"query": "x"}},
            {
                "type": "server_tool_call",
                "id": "s1",
                "name": "web_search",
                "server_tool_call": {"type": "web_search", "input": {"query": "x"}},
            },
        ),
        (
            {"type": "web_search_tool_result", "tool_use_id": "s1", "content": [{"url": "x"}]},
            {
                "type": "server_tool_call_response",
                "id": "s1",
                "server_tool_call_response": {"type": "web_search_tool_result"},
            },
        ),
        ({"newest": {"secret": "thing"}}, {"type": "unknown"}),
    ],
)
def test_a_block_of_each_kind(block: dict[str, Any], part: dict[str, Any]) -> None:
    """What has no form in the conventions is named by its type alone."""
    content = input_of_body({"messages": [{"role": "user", "content": [block]}]})
    assert [*content.messages[0].parts] == [part]
    assert_parts(content.messages[0].parts)


@pytest.mark.parametrize(
    "body",
    [
        {"prompt": "Hello"},
        {"input": "Hello"},
        {"contents": "Hello"},
        {"contents": [{"parts": [{"text": "Hello"}]}]},
        {"messages": [{"role": "user", "content": "Hello"}]},
        {"inputText": "Hello"},
    ],
)
def test_a_plain_question(body: dict[str, Any]) -> None:
    """One text is one message of the user."""
    assert input_of_body(body).messages == (ChatMessage(role="user", parts=(text("Hello"),)),)


@pytest.mark.parametrize(
    "body", [{}, {"messages": None}, {"messages": [1, None, {"role": 3}]}, {"input": 7}, {"tools": "x"}]
)
def test_a_body_of_no_known_form_does_no_harm(body: dict[str, Any]) -> None:
    """What is not understood is left out."""
    content = input_of_body(body)
    assert_messages([{"role": message.role, "parts": [*message.parts]} for message in content.messages])


def test_our_own_request() -> None:
    """Prompt, system, messages, images, calls and results of our types have the same form; tools are in `extra`."""
    request = LLMRequest(
        "openai",
        "m",
        "And tomorrow?",
        system="Be brief",
        messages=(
            Message(role="user", content=(Text("What is it like?"), Image(data=b"x" * 3000))),
            Message(role="assistant", tool_calls=(ToolCall("c1", "weather", {"city": "Paris"}),)),
            Message(role="tool", tool_call_id="c1", content="sunny"),
        ),
        extra={"tools": BODIES["Chat Completions"]["tools"]},
    )
    content = input_of_request(request)
    assert content.system_instructions == (text("Be brief"),)
    assert content.messages == (
        ChatMessage(role="user", parts=(text("What is it like?"), BLOB)),
        ChatMessage(role="assistant", parts=(CALL,)),
        ChatMessage(role="tool", parts=(RESULT,)),
        ChatMessage(role="user", parts=(text("And tomorrow?"),)),
    )
    assert content.tool_definitions == (TOOL,)


def test_a_reply() -> None:
    """Reasoning, text and calls are the parts of one message; further choices are messages too."""
    reply = LLMResponse(
        "It is sunny",
        LLMUsage(),
        {"choices": [{"message": {"content": "It is sunny"}}, {"message": {"role": "assistant", "content": "Sun"}}]},
        reasoning="Hmm",
        finish_reasons=("tool_calls", "stop"),
        tool_calls=(ToolCall("c1", "weather", '{"city": "Paris"}'),),
    )
    assert output_of(reply) == (
        ChatMessage(
            role="assistant",
            parts=({"type": "reasoning", "content": "Hmm"}, text("It is sunny"), CALL),
            finish_reason="tool_calls",
        ),
        ChatMessage(role="assistant", parts=(text("Sun"),), finish_reason="stop"),
    )
    assert output_of(LLMResponse("", LLMUsage())) == ()


def answer(said: str, reason: str | None) -> ChatMessage:
    return ChatMessage(role="assistant", parts=(text(said),), finish_reason=reason)


def test_each_choice_has_its_own_reason() -> None:
    """Where a stream broke off, the choices that had ended say why, and the others say nothing."""
    choices = [
        {"message": {"content": "Su"}, "finish_reason": None},
        {"message": {"content": "Rain"}, "finish_reason": "length"},
        {"message": {"content": "Sn"}},
    ]
    cut = LLMResponse("Su", LLMUsage(), {"choices": choices}, finish_reasons=("length",))
    assert output_of(cut) == (answer("Su", None), answer("Rain", "length"), answer("Sn", None))
    candidates = [{"content": {"parts": [{"text": said}]}, "finishReason": said} for said in ("UNSET", "STOP")]
    unset = LLMResponse("UNSET", LLMUsage(), {"candidates": candidates}, finish_reasons=("STOP",))
    assert output_of(unset) == (answer("UNSET", None), answer("STOP", "STOP"))


def test_a_first_choice_without_content_takes_no_reason_of_another() -> None:
    """It has no message, and the second keeps its own reason."""
    choices = [{"message": {"content": None}}, {"message": {"content": "Sun"}}]
    reply = LLMResponse("", LLMUsage(), {"choices": choices}, finish_reasons=("content_filter", "stop"))
    assert output_of(reply) == (answer("Sun", "stop"),)
