"""The estimate before a call covers everything that the request sends, and the most output that it allows."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest

from tracemind_otel import LLMClientFactory
from tracemind_otel.ai.llm.types import Image, LLMRequest, Message, Text, ToolCall
from tracemind_otel.call.estimate import cautious_usage, expected_usage


def expected(prompt: str = "x" * 40, **options: Any) -> tuple[int | None, int | None]:
    usage = expected_usage(LLMRequest("acme", "m", prompt, **options))
    assert usage.estimated
    return usage.prompt_tokens, usage.completion_tokens


def test_a_prompt_alone() -> None:
    """A prompt is estimated at four characters a token; without a limit, no output is estimated."""
    assert expected() == (10, 0)


@pytest.mark.parametrize(
    ("options", "at_least"),
    [
        ({"system": "x" * 400}, 100),
        ({"messages": (Message(role="assistant", content="x" * 400),)}, 100),
        ({"messages": (Message(role="assistant", tool_calls=(ToolCall("1", "t", {"a": "x" * 400}),)),)}, 100),
        ({"messages": (Message(role="assistant", tool_calls=(ToolCall("1", "t", "x" * 400),)),)}, 100),
        ({"messages": (Message(role="user", content=(Text("what?"), Image(url="https://a/b.png"))),)}, 1000),
        ({"extra": {"tools": [{"type": "function", "function": {"x" * 400: 1}}]}}, 100),
    ],
    ids=["system", "message", "tool call", "tool call as text", "image", "tools"],
)
def test_whatever_is_sent_is_counted(options: dict[str, Any], at_least: int) -> None:
    """A long tool description counts like a long prompt."""
    assert 10 + at_least <= (expected(**options)[0] or 0) < 10 + at_least + 50


@pytest.mark.parametrize(
    ("options", "output"),
    [
        ({"max_tokens": 7}, 7),
        ({"max_tokens": 7, "extra": {"max_tokens": 9}}, 9),
        ({"extra": {"max_completion_tokens": 9}}, 9),
        ({"extra": {"generationConfig": {"maxOutputTokens": 9}}}, 9),
        ({"extra": {"options": {"num_predict": 9}}}, 9),
        ({"extra": {"options": {"num_predict": -1}}}, 0),
        ({"max_tokens": 7, "extra": {"n": 3}}, 21),
        ({"extra": {"max_tokens": "many", "n": "two"}}, 0),
    ],
)
def test_the_limit_of_the_output(options: dict[str, Any], output: int) -> None:
    """The output limit counts wherever the request sets it, under any name, for all choices together."""
    assert expected(**options)[1] == output


@pytest.mark.parametrize(
    ("prompt", "tokens"),
    [
        ("ping", 1),
        ("今天北京的天气怎么样？请用一句话回答我。", 23),
        ("오늘 날씨가 어때요? 짧게 답해 주세요.", 24),
        ("आज मौसम कैसा है? संक्षेप में उत्तर दें", 38),
        ('{"a": 1, "b": [2, 3], "c": {"d": null}}' * 10, 230),
        (hashlib.sha512(b"x").hexdigest() * 8, 504),
        ("!?;:,.-_" * 40, 200),
    ],
    ids=["English", "Chinese", "Korean", "Hindi", "JSON", "hexadecimal", "marks"],
)
def test_a_shared_budget_reserves_more_than_a_prompt_has(prompt: str, tokens: int) -> None:
    """More than GPT-4's tokenizer (cl100k_base) makes of it with the marks of the format, and less than three times."""
    usage = cautious_usage(LLMRequest("acme", "m", prompt, max_tokens=7))
    assert usage.completion_tokens == 7
    assert tokens + 7 <= (usage.prompt_tokens or 0) <= 3 * (tokens + 7)


def test_each_message_has_marks() -> None:
    """A conversation of short messages is mostly marks: four tokens for each."""
    short = LLMRequest("acme", "m", "", messages=tuple(Message(role="user", content="ok") for _ in range(50)))
    assert (cautious_usage(short).prompt_tokens or 0) >= 50 * 5


def test_a_limit_that_the_client_sets() -> None:
    """The limit that Anthropic's client sets by default counts too."""
    client = LLMClientFactory.make("anthropic", api_key="k")
    assert expected_usage(LLMRequest("anthropic", "m", "hi"), client.default_max_tokens).completion_tokens == 4096
    assert LLMClientFactory.make("openai", api_key="k").default_max_tokens is None


def test_what_cannot_be_written_as_json_does_no_harm() -> None:
    """The estimate skips what is not JSON, and leaves the error to the client."""
    loop: dict[str, Any] = {}
    loop["loop"] = loop
    assert expected(extra=loop)[0] == expected(extra={("a", "tuple"): 1})[0] == 10
    assert (expected(extra={"tools": object()})[0] or 0) > 10
