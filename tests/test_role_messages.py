"""Messages as users of OpenAI, Anthropic and Gemini write them are understood."""

from __future__ import annotations

import base64
from types import SimpleNamespace
from typing import Any

import pytest

from tracemind_otel import ConfigError, Image, Message, Text, ToolCall
from tracemind_otel.call.messages import read_messages

PNG = b"\x89PNG"
ENCODED = base64.b64encode(PNG).decode()
CALL = ToolCall("call-1", "add", '{"a": 1}')

OPENAI = [
    {"role": "developer", "content": "Be brief."},
    {
        "role": "user",
        "content": [
            {"type": "text", "text": "What is it?"},
            {"type": "image_url", "image_url": {"url": "https://a.example/b.png"}},
        ],
    },
    {"role": "user", "content": [{"type": "image_url", "image_url": {"url": f"data:image/png;base64,{ENCODED}"}}]},
    {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"id": "call-1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}],
    },
    {"role": "tool", "tool_call_id": "call-1", "content": "3"},
    {"role": "assistant", "tool_calls": [{"id": "c", "type": "custom", "custom": {"name": "run", "input": "ls"}}]},
]
ANTHROPIC = [
    {
        "role": "user",
        "content": [{"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": ENCODED}}],
    },
    {
        "role": "assistant",
        "content": [
            {"type": "text", "text": "I add."},
            {"type": "tool_use", "id": "call-1", "name": "add", "input": {"a": 1}},
        ],
    },
    {
        "role": "user",
        "content": [
            {"type": "tool_result", "tool_use_id": "call-1", "content": [{"type": "text", "text": "3"}]},
            {"type": "text", "text": "Go on."},
        ],
    },
]
GEMINI = [
    {"role": "user", "parts": [{"text": "Hello"}, {"inlineData": {"mimeType": "image/png", "data": ENCODED}}]},
    {"role": "model", "parts": [{"function_call": {"id": "call-1", "name": "add", "args": {"a": 1}}}]},
    {"role": "user", "parts": [{"functionResponse": {"id": "call-1", "name": "add", "response": {"sum": 3}}}]},
    {"parts": ["Thanks", {"fileData": {"fileUri": "https://a.example/c.png"}}]},
]


def test_openais_messages() -> None:
    """OpenAI's roles, parts, images, tool calls and results are understood."""
    assert read_messages("messages", OPENAI) == (
        Message(role="system", content="Be brief."),
        Message(role="user", content=(Text("What is it?"), Image(url="https://a.example/b.png"))),
        Message(role="user", content=(Image(data=PNG, media_type="image/png"),)),
        Message(role="assistant", tool_calls=(CALL,)),
        Message(role="tool", content="3", tool_call_id="call-1"),
        Message(role="assistant", tool_calls=(ToolCall("c", "run", "ls", kind="custom"),)),
    )


def test_anthropics_messages() -> None:
    """Anthropic's content blocks are understood; a tool's result becomes a message before the rest of its message."""
    assert read_messages("messages", ANTHROPIC) == (
        Message(role="user", content=(Image(data=PNG, media_type="image/png"),)),
        Message(role="assistant", content="I add.", tool_calls=(ToolCall("call-1", "add", {"a": 1}),)),
        Message(role="tool", content="3", tool_call_id="call-1"),
        Message(role="user", content="Go on."),
    )


def test_geminis_messages() -> None:
    """Gemini's parts are understood in REST's and Python's spelling; a content without a role is the user's."""
    assert read_messages("messages", GEMINI) == (
        Message(role="user", content=(Text("Hello"), Image(data=PNG, media_type="image/png"))),
        Message(role="assistant", content=(), tool_calls=(ToolCall("call-1", "add", {"a": 1}),)),
        Message(role="tool", content='{"sum": 3}', tool_call_id="call-1", name="add"),
        Message(role="user", content=(Text("Thanks"), Image(url="https://a.example/c.png"))),
    )


def test_a_part_that_says_it_is_no_thought() -> None:
    """A part that Gemini's SDK dumped with all its keys is content, with `thought` false and the rest `None`."""
    part = {"text": "Hello", "thought": False, "inline_data": None, "function_call": None}
    assert read_messages("messages", [{"role": "model", "parts": [part]}]) == (
        Message(role="assistant", content="Hello"),
    )


def test_messages_of_ours_stay() -> None:
    """`Message` objects may stand beside dicts, and keep their order."""
    ours = Message(role="user", content="Hello")
    assert read_messages("messages", [ours, {"role": "assistant", "content": "Hi"}])[0] is ours


WRONG: list[tuple[Any, str]] = [
    ("Hello", r"messages is str; it must be a list"),
    ({"role": "user"}, r"messages is dict; it must be a list"),
    (["Hello"], r"messages\[0\] is str; it must be a dict"),
    ([{"role": "user", "content": 5}], r"messages\[0\]\['content'\] is int; it must be a string or a list of parts"),
    ([{"role": "user", "content": [{}]}], r"messages\[0\]\['content'\]\[0\] has the keys none; it must have text"),
    (
        [{"role": "user", "content": [{"text": 5}]}],
        r"messages\[0\]\['content'\]\[0\]\['text'\] is int",
    ),
    ([{"role": "assistant", "content": [{"type": "thinking", "thinking": "x"}]}], r"\[0\] is the model's reasoning"),
    ([{"role": "assistant", "tool_calls": [{"id": "1"}]}], r"messages\[0\].tool_calls\[0\]\['name'\] is NoneType"),
    ([{"role": "tool", "content": "x", "tool_call_id": 7}], r"messages\[0\]\['tool_call_id'\] is int"),
    ([{"role": "user", "parts": [{"inline_data": {"mime_type": "image/png", "data": "?"}}]}], r"is not base64"),
    ([SimpleNamespace(model_dump=dict)], r"is SimpleNamespace; it must be a dict; pass the object's .model_dump\(\)"),
]


@pytest.mark.parametrize(("messages", "expected"), WRONG)
def test_a_wrong_item_is_named(messages: Any, expected: str) -> None:
    """The error for a wrong item names its index, its key and the allowed values."""
    with pytest.raises(ConfigError, match=expected):
        read_messages("messages", messages)
