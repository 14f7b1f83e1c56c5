"""Requests and replies of Chat Completions, without a server."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tracemind_otel import ConfigError, LLMRequest, LLMResponse, LLMResponseError
from tracemind_otel.ai.llm.providers._chat_reply import from_payload
from tracemind_otel.ai.llm.providers.openai import to_payload
from tracemind_otel.ai.llm.types import Image, Message

LARGEST_ATTRIBUTE = 2**63 - 1
"""OTLP carries integers of 64 bits; one that does not fit loses its whole batch."""

anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.just(10**400),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
counts = st.integers(-5, 50) | st.floats(-5, 50) | anything
usages = anything | st.fixed_dictionaries(
    {},
    optional={
        "prompt_tokens": counts,
        "completion_tokens": counts,
        "total_tokens": counts,
        "cost": counts,
        "prompt_tokens_details": anything
        | st.fixed_dictionaries({}, optional={"cached_tokens": counts, "cache_write_tokens": counts}),
        "completion_tokens_details": anything | st.fixed_dictionaries({}, optional={"reasoning_tokens": counts}),
    },
)


def reply(message: Any = None, **fields: Any) -> LLMResponse:
    """The normal form of a reply with one choice."""
    return from_payload({"choices": [{"index": 0, "message": message, "finish_reason": "stop"}], **fields})


@given(usages)
@example({"prompt_tokens": 10**400, "completion_tokens": 1e300})
@example({"cost": 10**400})
def test_usage_is_always_sane(usage: Any) -> None:
    """Whatever a server puts into `usage`, counts are small enough whole numbers and no part exceeds its whole."""
    seen = reply(usage=usage).usage

    read, write, reasoning = seen.cache_read_tokens or 0, seen.cache_write_tokens or 0, seen.reasoning_tokens or 0
    tokens: list[object] = [seen.prompt_tokens, seen.completion_tokens, seen.total_tokens, read, write, reasoning]
    known = [count for count in tokens if count is not None]
    assert all(isinstance(count, int) and 0 <= count <= LARGEST_ATTRIBUTE for count in known)
    assert read + write <= (seen.prompt_tokens or 0)
    assert reasoning <= (seen.completion_tokens or 0)
    assert seen.cost_usd is None


@given(st.dictionaries(st.sampled_from(["id", "model", "choices", "usage", "service_tier", "created"]), anything))
def test_any_reply_is_read_or_refused(document: dict[str, Any]) -> None:
    """A reply of any shape is either read or refused with the one error that says so."""
    try:
        response = from_payload(document)
    except LLMResponseError:
        return
    assert isinstance(response.text, str)
    assert all(isinstance(reason, str) for reason in response.finish_reasons)


@given(st.lists(anything, min_size=1, max_size=3))
def test_any_choices_are_read(choices: list[Any]) -> None:
    """Choices of any shape give text, perhaps empty, and never break the call."""
    assert isinstance(from_payload({"choices": choices}).text, str)


def test_usage_of_openai() -> None:
    """OpenAI's counts are taken as they are: input includes cached, output includes reasoning."""
    usage = reply(
        usage={
            "prompt_tokens": 2006,
            "completion_tokens": 300,
            "total_tokens": 2306,
            "prompt_tokens_details": {"cached_tokens": 1920, "cache_write_tokens": 80, "audio_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": 192, "accepted_prediction_tokens": 0},
        }
    ).usage

    assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (2006, 300, 2306)
    assert (usage.cache_read_tokens, usage.cache_write_tokens, usage.reasoning_tokens) == (1920, 80, 192)


def test_absent_is_not_zero() -> None:
    """A part that the server does not report stays unknown; one that it reports as zero is zero."""
    unknown = reply(usage={"prompt_tokens": 5, "completion_tokens": 2, "prompt_tokens_details": None}).usage
    zero = reply(usage={"prompt_tokens": 5, "prompt_tokens_details": {"cached_tokens": 0}}).usage

    assert unknown.cache_read_tokens is None
    assert unknown.reasoning_tokens is None
    assert unknown.total_tokens == 7
    assert zero.cache_read_tokens == 0


def test_more_cached_than_prompt() -> None:
    """Grok on Azure reports more cached tokens than prompt tokens; cost must not become negative by it."""
    usage = reply(usage={"prompt_tokens": 10, "prompt_tokens_details": {"cached_tokens": 64}}).usage

    assert usage.cache_read_tokens == 10


@pytest.mark.parametrize("usage", [None, {}, {"prompt_tokens": None}, [], "none"])
def test_usage_unknown(usage: Any) -> None:
    """A reply without usable usage has unknown tokens and an unknown cost."""
    seen = reply(usage=usage).usage

    assert not seen.is_known
    assert seen.cost_usd is None


@pytest.mark.parametrize("absent", ["", None, 5, {}])
def test_empty_strings_count_as_absent(absent: Any) -> None:
    """Some servers send empty strings for null: no id, model or finish reason is recorded then."""
    response = from_payload(
        {
            "id": absent,
            "model": absent,
            "service_tier": absent,
            "choices": [{"message": {"content": "x"}, "finish_reason": absent}],
        }
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
def test_content(content: Any, text: str) -> None:
    """The text is the visible text: of a string, or of the text parts of a list."""
    assert reply({"role": "assistant", "content": content}).text == text


def test_first_choice_is_the_text() -> None:
    """With several choices the text is the first one's, and every finish reason is kept."""
    choices = [
        {"message": {"content": "a"}, "finish_reason": "stop"},
        {"message": {"content": "b"}, "finish_reason": "length"},
    ]

    response = from_payload({"choices": choices})

    assert response.text == "a"
    assert response.finish_reasons == ("stop", "length")


@pytest.mark.parametrize("choices", [None, [], {}, "x", 1])
def test_no_choices(choices: Any) -> None:
    """A reply without choices cannot be read, and says its request's id."""
    with pytest.raises(LLMResponseError, match="no choices") as caught:
        from_payload({"choices": choices}, request_id="req_1")

    assert caught.value.request_id == "req_1"


def test_choice_without_message() -> None:
    """Azure leaves the message out where its filter took it: an empty text, and the reason says why."""
    response = from_payload({"choices": [{"index": 0, "finish_reason": "content_filter"}]})

    assert response.text == ""
    assert response.finish_reasons == ("content_filter",)


def test_smallest_payload() -> None:
    """What was not asked for is not sent: reasoning models refuse even default values."""
    payload = to_payload(LLMRequest("openai", "gpt-5", "hi"))

    assert payload == {"model": "gpt-5", "messages": [{"role": "user", "content": "hi"}]}


def test_zero_is_sent() -> None:
    """A temperature of zero is a value, not an absence."""
    payload = to_payload(LLMRequest("openai", "m", "hi", temperature=0.0, top_p=0.0))

    assert payload["temperature"] == 0.0
    assert payload["top_p"] == 0.0


@given(st.text(), st.dictionaries(st.text(max_size=12), anything, max_size=4))
def test_extra_fields_win(prompt: str, extra: dict[str, Any]) -> None:
    """Every extra field is in the payload as it was given, whatever its name."""
    payload = to_payload(LLMRequest("openai", "m", prompt, 0.5, extra=extra))

    assert {name: payload[name] for name in extra} == extra
    assert set(payload) == {"model", "messages", "temperature", *extra}


def test_extra_replaces_messages() -> None:
    """A whole conversation goes in as an extra field, in the place of the prompt."""
    messages = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hi"}]

    payload = to_payload(LLMRequest("openai", "m", "unused", extra={"messages": messages}))

    assert payload["messages"] == messages


@pytest.mark.parametrize("image", [Image(), Image(url="https://x/y.png", data=b"x")])
def test_an_image_is_in_one_place(image: Image) -> None:
    """An image with neither URL nor data, or with both, is rejected before a server sees it."""
    with pytest.raises(ConfigError, match="exactly one of url and data"):
        to_payload(LLMRequest("openai", "m", "", messages=(Message(role="user", content=(image,)),)))
