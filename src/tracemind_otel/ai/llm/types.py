"""What goes to a model and what comes back, in one form for every provider."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from decimal import Decimal
from typing import Any, Literal, cast

CostSource = Literal["provider", "local", "override"]
"""Where a cost came from: the reply itself, the price table, or the user's own prices."""


def _is_count(value: object) -> bool:
    return type(value) is int and 0 <= value < 2**53


def _sound_cost(value: object) -> float | None:
    if value is None or isinstance(value, bool) or not isinstance(value, (float, int, Decimal)):
        return None
    try:
        cost = float(value)
    except (OverflowError, ValueError):  # too large an int, a signalling NaN
        return None
    return cost if 0.0 <= cost < float("inf") else None


Role = Literal["system", "user", "assistant", "tool"]
"""Who says a message."""

ReasoningEffort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]
"""How much a model shall reason, in the providers' words; which of them a model takes is for the provider to say."""

FinishReason = Literal["stop", "length", "tool_call", "content_filter", "error"]
"""Why a reply ended, in one vocabulary for all providers (OpenTelemetry GenAI, output messages)."""


@dataclass(frozen=True, slots=True)
class Text:
    """A piece of text."""

    text: str
    """The text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """A picture, by address or by its bytes; exactly one of `url` and `data`."""

    url: str | None = None
    """Where the provider fetches it."""
    data: bytes | None = field(default=None, repr=False)
    """The picture itself."""
    media_type: str = "image/png"
    """Its media type, needed with `data`."""


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call of a tool that the model asks for."""

    id: str
    """The provider's id of the call; one is made up where the provider has none."""
    name: str
    """The tool's name."""
    arguments: Mapping[str, Any] | str
    """The arguments; as the raw text where that is not a JSON object."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One message of a conversation."""

    role: Role
    """Who says it."""
    content: str | tuple[Text | Image, ...] = ""
    """What is said; the result, in a tool's message."""
    tool_calls: tuple[ToolCall, ...] = ()
    """The calls that an assistant's message asked for."""
    tool_call_id: str | None = None
    """Which call a tool's message answers."""
    name: str | None = None
    """The tool's name in a tool's message; some providers need it."""

    @property
    def text(self) -> str:
        """The text in the content."""
        if isinstance(self.content, str):
            return self.content
        return "".join(part.text for part in self.content if isinstance(part, Text))


@dataclass(frozen=True)
class LLMUsage:
    """Tokens of one call, as the provider reported them, and what they cost."""

    prompt_tokens: int = 0
    """Input tokens; those read from or written to a cache are included."""
    completion_tokens: int = 0
    """Output tokens; reasoning tokens are included."""
    total_tokens: int = 0
    """Input and output together, as the provider counts them."""
    cost_usd: float | None = None
    """USD for the whole call; `None` when the price is unknown, which is not zero."""
    _: KW_ONLY
    cost_source: CostSource | None = None
    """Where `cost_usd` came from; `None` while there is no cost."""
    cache_read_tokens: int | None = None
    """The part of `prompt_tokens` that was read from a cache; `None` when not reported."""
    cache_write_tokens: int | None = None
    """The part of `prompt_tokens` that was written to a cache; `None` when not reported."""
    reasoning_tokens: int | None = None
    """The part of `completion_tokens` that was spent on reasoning; `None` when not reported."""
    estimated: bool = False
    """Whether the counts were estimated here, since the provider reported none."""

    def with_cost(self, cost_usd: float, source: CostSource) -> LLMUsage:
        """The same tokens at a price."""
        return LLMUsage(
            self.prompt_tokens,
            self.completion_tokens,
            self.total_tokens,
            cost_usd,
            cost_source=source,
            cache_read_tokens=self.cache_read_tokens,
            cache_write_tokens=self.cache_write_tokens,
            reasoning_tokens=self.reasoning_tokens,
            estimated=self.estimated,
        )

    def sound(self) -> LLMUsage:
        """The same without what cannot be: counts and costs that are no numbers, negative or endless.

        Usage comes from clients of third parties too, and a sum that took in one such value is lost.
        """
        counts = (self.prompt_tokens, self.completion_tokens, self.total_tokens)
        parts = (self.cache_read_tokens, self.cache_write_tokens, self.reasoning_tokens)
        cost = _sound_cost(self.cost_usd)
        if cost is self.cost_usd and all(map(_is_count, counts)) and all(p is None or _is_count(p) for p in parts):
            return self
        prompt, completion, total = (count if _is_count(count) else 0 for count in counts)
        read, write, reasoning = (part if _is_count(part) else None for part in parts)
        return LLMUsage(
            prompt,
            completion,
            total,
            cost,
            cost_source=None if cost is None else self.cost_source,
            cache_read_tokens=read,
            cache_write_tokens=write,
            reasoning_tokens=reasoning,
            estimated=self.estimated,
        )

    @property
    def is_known(self) -> bool:
        """Whether any tokens were counted: a reply without usage is unknown, not zero."""
        return bool(self.prompt_tokens or self.completion_tokens)


def _texts_in(value: object) -> Iterator[str]:
    """Every string in a JSON-like value: what goes through `extra` may be a conversation too."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for item in cast("Mapping[object, object]", value).values():
            yield from _texts_in(item)
    elif isinstance(value, list | tuple):
        for item in cast("Sequence[object]", value):
            yield from _texts_in(item)


@dataclass(frozen=True)
class LLMRequest:
    """One call to a model."""

    provider: str
    """The provider's name, as given to `LLMClientFactory.make`."""
    model: str
    """The model's name, as the provider knows it."""
    prompt: str
    """The user's message."""
    temperature: float | None = None
    """Sampling temperature; `None` leaves it to the provider."""
    top_p: float | None = None
    """Nucleus sampling; `None` leaves it to the provider."""
    extra: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """Fields that go into the provider's request body as they are, and win over ours."""
    _: KW_ONLY
    messages: tuple[Message, ...] = ()
    """A conversation, instead of `prompt`; a prompt that is given too comes last."""
    system: str | None = None
    """Instructions for the model, apart from the conversation."""
    max_tokens: int | None = None
    """Most output tokens; `None` leaves it to the provider."""
    stop: tuple[str, ...] = ()
    """Texts at which the reply ends."""
    seed: int | None = None
    """For replies that repeat, as far as the provider keeps that."""
    top_k: int | None = None
    """Sampling among the k likeliest tokens."""
    frequency_penalty: float | None = None
    """Less of what was said often."""
    presence_penalty: float | None = None
    """Less of what was said at all."""
    reasoning_effort: ReasoningEffort | None = None
    """How much the model shall reason."""

    @property
    def conversation(self) -> tuple[Message, ...]:
        """The messages, with the prompt as the last one; without the system text."""
        return (*self.messages, Message(role="user", content=self.prompt)) if self.prompt else self.messages

    @property
    def said(self) -> str:
        """All text that is sent, for finding it where it should not be, and for counting it."""
        if not self.messages and self.system is None and not self.extra:
            return self.prompt
        texts = [self.system or "", *(message.text for message in self.conversation), *_texts_in(self.extra)]
        return "\n".join(text for text in texts if text)


@dataclass(frozen=True)
class LLMResponse:
    """One whole reply of a model."""

    text: str
    """The visible text of the first choice; empty where there is none."""
    usage: LLMUsage
    """Tokens and cost."""
    raw: Mapping[str, Any] = field(default_factory=dict[str, Any], repr=False)
    """The provider's reply as it came."""
    _: KW_ONLY
    finish_reasons: tuple[str, ...] = ()
    """Why each choice ended, in the provider's own words."""
    finish_reason: FinishReason | None = None
    """Why the first choice ended, in one vocabulary; `None` for a word that is not known here."""
    reasoning: str | None = None
    """The model's reasoning, where the provider shows it."""
    refusal: str | None = None
    """Why the model refused to answer, where it says so apart from the text."""
    tool_calls: tuple[ToolCall, ...] = ()
    """The tools that the first choice asks to call."""
    response_id: str | None = None
    """The provider's id of this reply."""
    response_model: str | None = None
    """The model that really answered."""
    service_tier: str | None = None
    """The tier that served the call, where the provider says so; it can change the price."""
    request_id: str | None = None
    """The provider's id of the HTTP request, for its support."""


@dataclass(frozen=True, slots=True)
class TextDelta:
    """A piece of the visible text of the first choice."""

    text: str
    """The piece."""


@dataclass(frozen=True, slots=True)
class ReasoningDelta:
    """A piece of the model's reasoning."""

    text: str
    """The piece."""


@dataclass(frozen=True, slots=True)
class ToolCallDelta:
    """A piece of a tool call."""

    index: int
    """Which call of the reply; pieces of one call share it."""
    id: str | None
    """The call's id, in its first piece."""
    name: str | None
    """The tool's name, in its first piece."""
    arguments: str
    """A piece of the arguments, as JSON text."""


@dataclass(frozen=True, slots=True)
class Finish:
    """The end of a stream."""

    response: LLMResponse
    """The whole reply."""


StreamEvent = TextDelta | ReasoningDelta | ToolCallDelta | Finish
"""What a stream consists of; `Finish` comes last, and once."""
