"""Sampling options are defined once, and reach every place that needs them."""

from __future__ import annotations

import inspect

import tracemind_otel as tm
from tracemind_otel.ai.llm.sampling import SAMPLING_NAMES, SAMPLING_RULES
from tracemind_otel.otel.recorder import SAMPLING_ATTRIBUTES

VALUES = {
    "temperature": 0.5,
    "top_p": 0.9,
    "max_tokens": 7,
    "stop": ("END",),
    "seed": 3,
    "top_k": 40,
    "frequency_penalty": 0.1,
    "presence_penalty": 0.2,
    "reasoning_effort": "low",
}


def test_every_option_has_a_rule_and_an_attribute() -> None:
    """Every option has a check and a span attribute."""
    assert set(SAMPLING_NAMES) == set(SAMPLING_RULES) == set(SAMPLING_ATTRIBUTES) == set(VALUES)


def test_options_reach_the_request_and_the_record() -> None:
    """The options of a configuration reach the client and the recorder."""
    request = tm.LLMCallConfig("fake", "toy-1", "hi", **VALUES).request()  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    assert request.sampling() == VALUES


def test_the_published_order_of_arguments_holds() -> None:
    """Positional arguments have the meaning that they had in the first version."""
    request = list(inspect.signature(tm.LLMRequest).parameters)
    assert request[:6] == ["provider", "model", "prompt", "temperature", "top_p", "extra"]
    config = list(inspect.signature(tm.LLMCallConfig).parameters)
    published = ["provider", "model", "prompt", "template", "vars", "timeout_ms", "max_retries", "temperature"]
    assert config[:10] == [*published, "top_p", "extra"]
