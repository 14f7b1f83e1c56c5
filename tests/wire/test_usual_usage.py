"""The short way through usage that looks like OpenAI's gives what the long way gives."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tracemind_otel.ai.llm.providers.openai import chat_wire
from tracemind_otel.ai.llm.types import LLMUsage

pytestmark = pytest.mark.slow

COUNTS = st.one_of(st.none(), st.integers(-2, 40), st.just(True), st.just(7.0), st.just("7"))
GIVEN = st.dictionaries(st.sampled_from(["cached_tokens", "audio_tokens", "text_tokens"]), COUNTS)
MADE = st.dictionaries(st.sampled_from(["reasoning_tokens", "audio_tokens", "accepted_prediction_tokens"]), COUNTS)


def usage_of(usage: dict[str, Any]) -> LLMUsage:
    """What the client reads."""
    choice = {"message": {"content": "x"}, "finish_reason": "stop"}
    return chat_wire().from_payload({"choices": [choice], "usage": usage}, None).usage


@settings(max_examples=400, deadline=None)
@given(
    st.fixed_dictionaries(
        {"prompt_tokens": COUNTS, "completion_tokens": COUNTS},
        optional={
            "total_tokens": COUNTS,
            "prompt_tokens_details": st.one_of(st.none(), GIVEN),
            "completion_tokens_details": st.one_of(st.none(), MADE),
        },
    ),
    st.booleans(),
)
def test_both_ways_agree(usage: dict[str, Any], is_total: bool) -> None:
    """A field more, which means nothing, sends the same usage the long way."""
    prompt, completion = usage["prompt_tokens"], usage["completion_tokens"]
    if is_total and type(prompt) is int and type(completion) is int:
        usage["total_tokens"] = prompt + completion
    assert usage_of(usage) == usage_of({**usage, "unheard_of": 1})
