"""The sampling parameters, defined once: configuration, request and the start of a record each have them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, fields
from typing import Any, Literal, cast, get_args

ReasoningEffort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]
"""How much a model reasons before it answers; providers take some of these words."""


@dataclass(frozen=True)
class SamplingOptions:
    """How a model makes its reply. What is `None` or empty is left to the provider.

    A new option is a field here, a rule below, its name in each provider that has it, and its span attribute.
    """

    temperature: float | None = None
    """Sampling temperature."""
    top_p: float | None = None
    """Nucleus sampling: the share of the probability that tokens are drawn from."""
    _: KW_ONLY
    max_tokens: int | None = None
    """Most output tokens."""
    stop: Sequence[str] = ()
    """Strings at which the reply ends."""
    seed: int | None = None
    """Seed for replies that repeat, as far as the provider keeps that."""
    top_k: int | None = None
    """Sampling among the k likeliest tokens."""
    frequency_penalty: float | None = None
    """Penalty for tokens, by how often they were said."""
    presence_penalty: float | None = None
    """Penalty for tokens that were said at all."""
    reasoning_effort: ReasoningEffort | None = None
    """How much the model reasons."""

    def sampling(self) -> dict[str, Any]:
        """The sampling options alone, as keyword arguments."""
        return {name: getattr(self, name) for name in SAMPLING_NAMES}


SAMPLING_NAMES = tuple(field.name for field in fields(SamplingOptions))
"""The names of the options."""


@dataclass(frozen=True, slots=True)
class Rule:
    """What a value may be."""

    allows: Callable[[Any], bool]
    """Whether a value is allowed."""
    wanted: str
    """What is allowed, for a message."""


def is_number(value: object) -> bool:
    """Whether it is a finite number, and no bool."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < float("inf")


def is_whole(value: object, least: int | None = None) -> bool:
    """Whether it is an integer, no bool, and at least `least`."""
    return isinstance(value, int) and not isinstance(value, bool) and (least is None or value >= least)


def is_sequence_of(value: object, kind: type) -> bool:
    """Whether it is a sequence, no string, of items of that type."""
    if isinstance(value, str) or not isinstance(value, Sequence):
        return False
    return all(isinstance(item, kind) for item in cast("Sequence[object]", value))


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
"""What each option may be."""
