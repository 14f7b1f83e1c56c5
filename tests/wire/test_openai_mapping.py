"""Requests and replies of Chat Completions, without a server."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.wire.canned import read_whole
from tracemind_otel import LLMRequest, LLMResponse, LLMResponseError
from tracemind_otel.ai.llm.providers.openai import to_payload

anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.just(10**400),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


async def reply(message: Any = None, **fields: Any) -> LLMResponse:
    """The normal form of a reply with one choice."""
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    return await read_whole("openai", {"choices": [choice], **fields})


async def test_usage_of_openai() -> None:
    """OpenAI's input includes the cached part, and its output the reasoning."""
    usage = (
        await reply(
            usage={
                "prompt_tokens": 2006,
                "completion_tokens": 300,
                "total_tokens": 2306,
                "prompt_tokens_details": {"cached_tokens": 1920, "cache_write_tokens": 80, "audio_tokens": 0},
                "completion_tokens_details": {"reasoning_tokens": 192, "accepted_prediction_tokens": 0},
            }
        )
    ).usage

    assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (2006, 300, 2306)
    assert (usage.cache_read_tokens, usage.cache_write_tokens, usage.reasoning_tokens) == (1920, 80, 192)


async def test_absent_is_not_zero() -> None:
    """A part that was not reported is unknown, and one that was reported as zero is zero."""
    unknown = (await reply(usage={"prompt_tokens": 5, "completion_tokens": 2, "prompt_tokens_details": None})).usage
    zero = (await reply(usage={"prompt_tokens": 5, "prompt_tokens_details": {"cached_tokens": 0}})).usage

    assert unknown.cache_read_tokens is None
    assert unknown.reasoning_tokens is None
    assert unknown.total_tokens == 7
    assert zero.cache_read_tokens == 0


async def test_more_cached_than_prompt() -> None:
    """Where Grok on Azure reports more cached tokens than prompt tokens, the cost is not negative."""
    usage = (await reply(usage={"prompt_tokens": 10, "prompt_tokens_details": {"cached_tokens": 64}})).usage

    assert usage.cache_read_tokens == 10


@pytest.mark.parametrize("usage", [None, {}, {"prompt_tokens": None}, [], "none"])
async def test_usage_unknown(usage: Any) -> None:
    """A reply without valid usage has unknown tokens and an unknown cost."""
    seen = (await reply(usage=usage)).usage

    assert not seen.is_known
    assert seen.cost_usd is None


@pytest.mark.parametrize("absent", ["", None, 5, {}])
async def test_empty_strings_count_as_absent(absent: Any) -> None:
    """An empty id, model or finish reason, which some servers send for null, is not recorded."""
    response = await read_whole(
        "openai",
        {
            "id": absent,
            "model": absent,
            "service_tier": absent,
            "choices": [{"message": {"content": "x"}, "finish_reason": absent}],
        },
    )

    assert response.response_id is None
    assert response.response_model is None
    assert response.service_tier is None
    assert response.finish_reasons == ()


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("plain", "plain"),
        (None, ""),
        ("", ""),
        ([{"type": "text", "text": "one "}, {"type": "text", "text": "two"}], "one two"),
        ([{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}, {"type": "text", "text": "yes"}], "yes"),
        ([{"type": "refusal", "refusal": "no"}], ""),
        ([None, "x", {"type": "text", "text": None}], ""),
    ],
)
async def test_content(content: Any, text: str) -> None:
    """The text is the string, or the text parts of the list."""
    assert (await reply({"role": "assistant", "content": content})).text == text


async def test_first_choice_is_the_text() -> None:
    """The text is the first choice's, and the finish reasons are those of all."""
    choices = [
        {"message": {"content": "a"}, "finish_reason": "stop"},
        {"message": {"content": "b"}, "finish_reason": "length"},
    ]

    response = await read_whole("openai", {"choices": choices})

    assert response.text == "a"
    assert response.finish_reasons == ("stop", "length")


@pytest.mark.parametrize("choices", [None, [], {}, "x", 1])
async def test_no_choices(choices: Any) -> None:
    """A reply without choices cannot be read, and the error has the request's id."""
    with pytest.raises(LLMResponseError, match="no choices") as caught:
        await read_whole("openai", {"choices": choices}, headers={"x-request-id": "req_1"})

    assert caught.value.request_id == "req_1"


async def test_choice_without_message() -> None:
    """A choice without a message, which Azure's filter removed, has an empty text and its reason."""
    response = await read_whole("openai", {"choices": [{"index": 0, "finish_reason": "content_filter"}]})

    assert response.text == ""
    assert response.finish_reasons == ("content_filter",)


def test_smallest_payload() -> None:
    """A parameter that is not set is not sent, since reasoning models reject even default values."""
    payload = to_payload(LLMRequest("openai", "gpt-5", "hi"))

    assert payload == {"model": "gpt-5", "messages": [{"role": "user", "content": "hi"}]}


def test_zero_is_sent() -> None:
    """A temperature of zero is sent."""
    payload = to_payload(LLMRequest("openai", "m", "hi", temperature=0.0, top_p=0.0))

    assert payload["temperature"] == 0.0
    assert payload["top_p"] == 0.0


@given(st.text(), st.dictionaries(st.text(max_size=12), anything, max_size=4))
def test_extra_fields_win(prompt: str, extra: dict[str, Any]) -> None:
    """Every extra field is in the payload unchanged, whatever its name."""
    payload = to_payload(LLMRequest("openai", "m", prompt, 0.5, extra=extra))

    assert {name: payload[name] for name in extra} == extra
    assert set(payload) == {"model", "messages", "temperature", *extra}


def test_extra_replaces_messages() -> None:
    """Messages in `extra` replace the prompt."""
    messages = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hi"}]

    payload = to_payload(LLMRequest("openai", "m", "unused", extra={"messages": messages}))

    assert payload["messages"] == messages
