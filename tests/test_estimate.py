"""The estimate before a call covers everything that the request sends, and the most output that it allows."""

from __future__ import annotations

from typing import Any

import pytest

from tracemind_otel import LLMClientFactory
from tracemind_otel.ai.llm.types import Image, LLMRequest, Message, Text, ToolCall
from tracemind_otel.call.estimate import expected_usage


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
