"""`LLMCallConfig`: the fields that it accepts, and the messages for those that it rejects."""

from __future__ import annotations

from typing import Any

import pytest

from tracemind_otel.errors import ConfigError
from tracemind_otel.steps.ai_llm_call import LLMCallConfig

MINIMAL: dict[str, Any] = {"provider": "fake", "model": "toy-1", "prompt": "hi"}


def test_the_published_order_of_arguments() -> None:
    """Positional arguments have the meaning that they had in the first version."""
    cfg = LLMCallConfig("openai", "gpt-4o-mini", "p", "t", {"a": 1}, 1000, 3, 0.2, 0.9, {"seed": 7})
    assert (cfg.provider, cfg.model, cfg.prompt, cfg.template) == ("openai", "gpt-4o-mini", "p", "t")
    assert (cfg.vars, cfg.timeout_ms, cfg.max_retries) == ({"a": 1}, 1000, 3)
    assert (cfg.temperature, cfg.top_p, cfg.extra) == (0.2, 0.9, {"seed": 7})


def test_the_published_defaults() -> None:
    """Thirty seconds an attempt, two retries, no deadline; the provider decides the rest."""
    cfg = LLMCallConfig("fake", "toy-1")
    assert (cfg.timeout_ms, cfg.max_retries, cfg.deadline_ms) == (30000, 2, None)
    assert (cfg.prompt, cfg.template, cfg.vars, cfg.temperature, cfg.top_p, cfg.extra) == (None,) * 6


def test_from_mapping_is_the_same_as_the_arguments() -> None:
    """A step in YAML gives the same configuration as one in Python."""
    values: dict[str, Any] = {
        **MINIMAL,
        "template": "hi {who}",
        "vars": {"who": "you"},
        "timeout_ms": 500.5,
        "max_retries": 0,
        "temperature": 1,
        "top_p": 0.5,
        "extra": {"seed": 1},
        "deadline_ms": 9000,
    }
    assert LLMCallConfig.from_mapping(values) == LLMCallConfig(**values)


WRONG: list[tuple[dict[str, Any], tuple[str, ...]]] = [
    ({"provider": ""}, ("provider", "''")),
    ({"provider": "  "}, ("provider",)),
    ({"provider": None}, ("provider", "None", "a string")),
    ({"provider": 7}, ("provider", "7", "a string")),
    ({"model": ""}, ("model",)),
    ({"model": 4}, ("model", "4")),
    ({"prompt": 5}, ("prompt", "int")),
    ({"template": ["x"]}, ("template", "list")),
    ({"vars": [1]}, ("vars", "a mapping")),
    ({"extra": "x"}, ("extra", "a mapping")),
    ({"extra": {"stream": True}}, ("extra['stream']",)),
    ({"timeout_ms": 0}, ("timeout_ms", "0", "more than 0")),
    ({"timeout_ms": -1}, ("timeout_ms", "-1")),
    ({"timeout_ms": "30"}, ("timeout_ms", "'30'")),
    ({"timeout_ms": True}, ("timeout_ms", "True")),
    ({"timeout_ms": float("nan")}, ("timeout_ms", "nan")),
    ({"timeout_ms": float("inf")}, ("timeout_ms", "inf")),
    ({"timeout_ms": None}, ("timeout_ms", "None")),
    ({"max_retries": -1}, ("max_retries", "-1", "0 or more")),
    ({"max_retries": 1.5}, ("max_retries", "1.5")),
    ({"max_retries": True}, ("max_retries", "True")),
    ({"temperature": "hot"}, ("temperature", "'hot'")),
    ({"temperature": float("nan")}, ("temperature", "nan")),
    ({"temperature": True}, ("temperature", "True")),
    ({"top_p": "0.5"}, ("top_p", "'0.5'")),
    ({"deadline_ms": 0}, ("deadline_ms", "0")),
    ({"deadline_ms": "soon"}, ("deadline_ms", "'soon'")),
    ({"timout_ms": 5}, ("timout_ms", "did you mean 'timeout_ms'?", "max_retries")),
    ({"retries": 5}, ("retries", "max_retries")),
    ({"zzz": 5}, ("zzz", "Allowed are")),
]


@pytest.mark.parametrize(("values", "named"), WRONG)
def test_a_mistake_is_named(values: dict[str, Any], named: tuple[str, ...]) -> None:
    """The message names the field, shows the value and says what is allowed; it is a `ValueError`."""
    with pytest.raises(ConfigError) as caught:
        LLMCallConfig.from_mapping({**MINIMAL, **values})
    assert isinstance(caught.value, ValueError)
    assert all(part in str(caught.value) for part in named), str(caught.value)


@pytest.mark.parametrize("field", ["provider", "model"])
def test_a_missing_field_is_named(field: str) -> None:
    """The message says whether the provider or the model is missing."""
    with pytest.raises(ConfigError, match=f"'{field}' is missing"):
        LLMCallConfig.from_mapping({name: value for name, value in MINIMAL.items() if name != field})


@pytest.mark.parametrize("field", ["prompt", "template", "vars", "extra"])
def test_a_mistake_never_shows_a_prompt(field: str) -> None:
    """A value that might be a prompt is shown only by its type."""
    with pytest.raises(ConfigError) as caught:
        LLMCallConfig.from_mapping({**MINIMAL, field: ("my secret",)})
    assert "my secret" not in str(caught.value)
    assert "tuple" in str(caught.value)


def test_a_config_cannot_be_changed() -> None:
    """A configuration is immutable, so that a thousand calls can share it."""
    with pytest.raises(AttributeError):
        LLMCallConfig("fake", "toy-1").model = "other"  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]
