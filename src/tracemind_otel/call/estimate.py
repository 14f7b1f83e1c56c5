"""Token counts where no provider has reported any: of a call before it is made, and of a stream that ended early."""

from __future__ import annotations

import json
import math
import string
from collections.abc import Iterator, Mapping
from typing import Any, Protocol, cast

from ..ai.llm.types import Image, LLMRequest, LLMUsage

_IMAGE_TOKENS = 1000
"""Tokens of a picture of usual size, roughly; providers count its pixels, which are unknown here."""

_LETTERS = f"{string.ascii_letters}{string.whitespace}".encode()
_DIGITS = string.digits.encode()
_FORMAT_TOKENS = 16
"""Tokens that a request has beside its strings."""
_MESSAGE_TOKENS = 4
"""Tokens that each message has beside its strings: its role and the marks around it."""

_OUTPUT_LIMITS = frozenset(
    {"max_tokens", "max_completion_tokens", "max_output_tokens", "maxOutputTokens", "num_predict"}
)
"""The providers' names for the limit of output tokens in a request's body."""
_OPTION_GROUPS = frozenset({"generationConfig", "options"})
"""Objects of the body in which some providers have it."""


class Tokenizer(Protocol):
    """Counts the tokens of a string; its counts are marked as estimated."""

    def count(self, text: str, model: str) -> int:
        """The number of tokens that a model makes of a string."""
        ...


class CharacterTokenizer:
    """Counts four characters as a token, which is within a third for English and needs no vocabulary."""

    def count(self, text: str, model: str) -> int:
        """A quarter of the characters, rounded up."""
        return -(-len(text) // 4)


RULE_OF_THUMB = CharacterTokenizer()


class CautiousTokenizer:
    """Counts more tokens than a prompt usually has: for what is reserved, and corrected when the call has ended.

    GPT-4's tokenizer makes fewer tokens than this of prose in nine languages, code, JSON, numbers and hexadecimal
    strings; of base64 and of composed emoji it makes more.
    """

    def count(self, text: str, model: str) -> int:
        """A third for a letter or space, two thirds for a digit, one for any other ASCII character, half for a byte."""
        in_ascii = text.encode("ascii", "ignore")
        others = 0 if len(in_ascii) == len(text) else len(text.encode("utf-8", "surrogatepass")) - len(in_ascii)
        digits_and_marks = in_ascii.translate(None, _LETTERS)
        marks = len(digits_and_marks.translate(None, _DIGITS))
        letters, digits = len(in_ascii) - len(digits_and_marks), len(digits_and_marks) - marks
        return math.ceil(letters / 3 + digits * 2 / 3 + marks + others / 2) + _FORMAT_TOKENS


def expected_usage(
    request: LLMRequest, default_max_tokens: int | None = None, tokenizer: Tokenizer = RULE_OF_THUMB
) -> LLMUsage:
    """The input by an estimate, and as much output as the request allows; none where it sets no limit.

    Args:
        request: what will be sent.
        default_max_tokens: the limit of output that the client sets where the request has none.
        tokenizer: estimates the input.
    """
    text = "\n".join(text for text in _texts(request) if text)
    contents = (message.content for message in request.messages if not isinstance(message.content, str))
    images = sum(isinstance(part, Image) for content in contents for part in content)
    prompt = tokenizer.count(text, request.model) + _IMAGE_TOKENS * images
    output = _output_limit(request, default_max_tokens)
    return LLMUsage(prompt, output, prompt + output, estimated=True)


def cautious_usage(request: LLMRequest, default_max_tokens: int | None = None) -> LLMUsage:
    """The same with an input that a request hardly exceeds."""
    usage = expected_usage(request, default_max_tokens, CautiousTokenizer())
    prompt = (usage.prompt_tokens or 0) + _MESSAGE_TOKENS * len(request.conversation)
    output = usage.completion_tokens or 0
    return LLMUsage(prompt, output, prompt + output, estimated=True)


def _texts(request: LLMRequest) -> Iterator[str]:
    """System instructions, messages, arguments of earlier tool calls, and the tools that `extra` describes."""
    yield request.system or ""
    for message in request.conversation:
        yield message.text
        for call in message.tool_calls:
            yield f"{call.name} {call.arguments if isinstance(call.arguments, str) else _json(call.arguments)}"
    if request.extra:
        yield _json(request.extra)


def _json(value: Mapping[str, Any]) -> str:
    try:
        return json.dumps(value, default=lambda other: type(other).__name__)
    except (TypeError, ValueError, RecursionError):  # the client will say what is wrong with it
        return ""


def _output_limit(request: LLMRequest, default: int | None) -> int:
    """The limit for all choices together; one in `extra` replaces ours, as in the request."""
    limits = [limit for limit in _limits_in(request.extra) if limit >= 0]
    limit = limits[-1] if limits else request.max_tokens if request.max_tokens is not None else default
    choices = request.extra.get("n")
    return (limit or 0) * (choices if type(choices) is int and choices > 0 else 1)


def _limits_in(body: Mapping[str, Any]) -> Iterator[int]:
    for key, value in body.items():
        if key in _OUTPUT_LIMITS and type(value) is int:
            yield value
        elif key in _OPTION_GROUPS and isinstance(value, Mapping):
            yield from _limits_in(cast("Mapping[str, Any]", value))
