"""The sampling parameters, defined once for configuration, request and record."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, fields
from typing import Any, Literal, cast, get_args

ReasoningEffort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]
"""How much a model reasons before it answers; each provider takes some of these."""


@dataclass(frozen=True)
class SamplingOptions:
    """How a model samples its reply. `None` or an empty value leaves an option to the provider.

    A new option is a field here with a rule below, a name in each provider's table, and a span attribute.
    """

    temperature: float | None = None
    """Sampling temperature."""
    top_p: float | None = None
    """Nucleus sampling: the share of the probability mass to draw tokens from."""
    _: KW_ONLY
    max_tokens: int | None = None
    """The limit of output tokens."""
    stop: Sequence[str] = ()
    """Strings at which the reply ends."""
    seed: int | None = None
    """Seed for repeatable replies, as far as the provider supports them."""
    top_k: int | None = None
    """The number of likeliest tokens to draw from."""
    frequency_penalty: float | None = None
    """Penalty for a token by its number of occurrences."""
    presence_penalty: float | None = None
    """Penalty for a token that has occurred."""
    reasoning_effort: ReasoningEffort | None = None
    """Effort of reasoning before the answer."""

    def sampling(self) -> dict[str, Any]:
        """The sampling options alone, as keyword arguments."""
        values = vars(self)
        return {name: values[name] for name in SAMPLING_NAMES}


SAMPLING_NAMES = tuple(field.name for field in fields(SamplingOptions))


@dataclass(frozen=True, slots=True)
class Rule:
    """The check of an option's value."""

    allows: Callable[[Any], bool]
    """Whether a value is allowed."""
    wanted: str
    """The allowed values, for a message."""


_NUMBERS = (int, float)


def is_number(value: object) -> bool:
    """Whether a value is a finite number and not a bool."""
    return isinstance(value, _NUMBERS) and not isinstance(value, bool) and abs(value) < math.inf


def is_whole(value: object, least: int | None = None) -> bool:
    """Whether a value is an integer of at least `least`, and not a bool."""
    return isinstance(value, int) and not isinstance(value, bool) and (least is None or value >= least)


def is_sequence_of(value: object, kind: type) -> bool:
    """Whether a value is a sequence, other than a string, of items of a type."""
    if isinstance(value, str) or not isinstance(value, Sequence):
        return False
    kinds = set(map(type, cast("Sequence[object]", value)))
    return all(issubclass(each, kind) for each in kinds)


_NUMBER = Rule(lambda value: value is None or is_number(value), "a number or absent")
_COUNT = Rule(lambda value: value is None or is_whole(value, 1), "a whole number above 0, or absent")
_EFFORTS = get_args(ReasoningEffort)

SAMPLING_RULES: Mapping[str, Rule] = {
    "temperature": _NUMBER,
    "top_p": _NUMBER,
    "max_tokens": _COUNT,
    "stop": Rule(lambda value: is_sequence_of(value, str), "a sequence of strings"),
    "seed": Rule(lambda value: value is None or is_whole(value), "a whole number or absent"),
    "top_k": _COUNT,
    "frequency_penalty": _NUMBER,
    "presence_penalty": _NUMBER,
    "reasoning_effort": Rule(lambda value: value is None or value in _EFFORTS, f"one of {', '.join(_EFFORTS)}"),
}
