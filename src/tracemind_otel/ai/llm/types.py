"""What goes to a model and what comes back, in one form for every provider."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from decimal import Decimal
from typing import Any, Literal, cast

from .sampling import SamplingOptions

CostSource = Literal["provider", "local", "override"]
"""Where a cost came from: the reply itself, the price table, or the user's own prices."""


def _sound_count(value: object) -> int | None:
    return value if type(value) is int and 0 <= value < 2**53 else None


def _sound_amount(value: object) -> float | None:
    if value is None or isinstance(value, bool) or not isinstance(value, (float, int, Decimal)):
        return None
    try:
        cost = float(value)
    except (OverflowError, ValueError):  # too large an int, a signalling NaN
        return None
    return cost if 0.0 <= cost < float("inf") else None


Role = Literal["system", "user", "assistant", "tool"]
"""Who says a message."""

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
    kind: Literal["function", "custom"] = field(default="function", kw_only=True)
    """Whether the tool gets JSON, or free text as OpenAI's custom tools do."""


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
    """What one call used, as the provider reported it, and what that cost.

    `None` says that the provider did not report a figure, which is not zero. Fields after `estimated` are named like
    the usage keys of `genai-prices` (`genai_prices.data_units`), except that its `output_reasoning_tokens` is
    `reasoning_tokens` here. A field that names a modality, a cache or a tool is a part of `prompt_tokens` or of
    `completion_tokens`; nothing is counted beside them.
    """

    prompt_tokens: int | None = 0
    """Input tokens; those read from or written to a cache are included."""
    completion_tokens: int | None = 0
    """Output tokens; reasoning tokens are included."""
    total_tokens: int | None = 0
    """Input and output together, as the provider counts them."""
    cost_usd: float | None = None
    """USD for the whole call; `None` when the price is unknown."""
    _: KW_ONLY
    cost_source: CostSource | None = None
    """Where `cost_usd` came from; `None` while there is no cost."""
    cache_read_tokens: int | None = None
    """The part of `prompt_tokens` that was read from a cache."""
    cache_write_tokens: int | None = None
    """The part of `prompt_tokens` that was written to a cache, for whatever time."""
    reasoning_tokens: int | None = None
    """The part of `completion_tokens` that was spent on reasoning."""
    estimated: bool = False
    """Whether some of the counts were estimated here, since the provider reported none."""
    cache_write_5m_tokens: int | None = None
    """The part of `cache_write_tokens` that is kept for five minutes."""
    cache_write_1h_tokens: int | None = None
    """The part of `cache_write_tokens` that is kept for one hour."""
    input_text_tokens: int | None = None
    """The text in the input."""
    input_audio_tokens: int | None = None
    """The audio in the input."""
    input_image_tokens: int | None = None
    """The images in the input."""
    input_video_tokens: int | None = None
    """The video in the input."""
    input_tool_tokens: int | None = None
    """The input that tools of the provider's own put there, pages that were searched for instance."""
    cache_text_read_tokens: int | None = None
    """The text in `cache_read_tokens`."""
    cache_audio_read_tokens: int | None = None
    """The audio in `cache_read_tokens`."""
    cache_image_read_tokens: int | None = None
    """The images in `cache_read_tokens`."""
    cache_video_read_tokens: int | None = None
    """The video in `cache_read_tokens`."""
    output_text_tokens: int | None = None
    """The text in the output."""
    output_audio_tokens: int | None = None
    """The audio in the output."""
    output_image_tokens: int | None = None
    """The images in the output."""
    output_video_tokens: int | None = None
    """The video in the output."""
    output_citation_tokens: int | None = None
    """The citations in the output."""
    input_characters: int | None = None
    """Characters of input, at providers that charge by them."""
    input_text_messages: int | None = None
    """Messages of input, at providers that charge by them."""
    input_document_pages: int | None = None
    """Pages of documents in the input."""
    input_annotated_document_pages: int | None = None
    """Pages of documents in the input that were annotated as well."""
    audio_seconds: float | None = None
    """Seconds of audio, where it is not said on which side."""
    input_audio_seconds: float | None = None
    """Seconds of audio in the input."""
    output_audio_seconds: float | None = None
    """Seconds of audio in the output."""
    web_searches: int | None = None
    """Searches of the web that the provider made for the call."""
    social_searches: int | None = None
    """Searches of social networks that the provider made for the call."""
    storage_searches: int | None = None
    """Searches of stored files that the provider made for the call."""
    code_executions: int | None = None
    """Runs of code that the provider made for the call."""
    rerank_searches: int | None = None
    """Rerank searches that the provider made for the call."""
    billed_input_tokens: int | None = None
    """The input tokens that are charged, where a provider counts them apart from those that were used (Cohere)."""
    billed_output_tokens: int | None = None
    """The output tokens that are charged, likewise."""
    input_cost_usd: float | None = None
    """The part of `cost_usd` for the input; `None` where only the whole is known."""
    output_cost_usd: float | None = None
    """The part of `cost_usd` for the output, likewise."""
    fees_usd: float | None = None
    """The part of `cost_usd` that is charged by the request, the search and the like; likewise."""
    cost_table: str | None = None
    """The version or date of the price data behind `cost_usd`, or `override`; `None` for a cost of the reply."""
    cost_partial: tuple[str, ...] = ()
    """What `cost_usd` could not price at a rate of its own: names of fields here, or conditions like `speed=fast`."""

    @classmethod
    def of_reply(
        cls, prompt_tokens: int | None, completion_tokens: int | None, total_tokens: int | None, **parts: Any
    ) -> LLMUsage:
        """What a reply reports; a part that is `None`, or not named, is absent.

        The instance holds what there is. Fields that are absent have their default from the class, so that nothing
        goes through forty of them for each call.
        """
        if unknown := parts.keys() - _DEFAULTS.keys():
            raise TypeError(f"LLMUsage has no field {', '.join(sorted(unknown))}")
        usage = object.__new__(LLMUsage)
        held = vars(usage)
        held.update(prompt_tokens=prompt_tokens, completion_tokens=completion_tokens, total_tokens=total_tokens)
        held.update({name: value for name, value in parts.items() if value is not None})
        return usage

    def with_cost(
        self,
        cost_usd: float,
        source: CostSource,
        *,
        input_cost_usd: float | None = None,
        output_cost_usd: float | None = None,
        fees_usd: float | None = None,
        cost_table: str | None = None,
        cost_partial: tuple[str, ...] = (),
    ) -> LLMUsage:
        """The same usage at a price; the arguments are the fields of the same names."""
        return self._changed(
            cost_usd=cost_usd,
            cost_source=source,
            input_cost_usd=input_cost_usd,
            output_cost_usd=output_cost_usd,
            fees_usd=fees_usd,
            cost_table=cost_table,
            cost_partial=cost_partial,
        )

    @property
    def billable(self) -> LLMUsage:
        """What is to be priced: the counts that are charged, where the provider counts them apart."""
        if self.billed_input_tokens is None and self.billed_output_tokens is None:
            return self
        given, made = self.billed_input_tokens, self.billed_output_tokens
        return LLMUsage(
            self.prompt_tokens if given is None else given, self.completion_tokens if made is None else made, None
        )

    def without_cost(self) -> LLMUsage:
        """The same usage at no known price."""
        return self._changed(**_NO_COST)

    def sanitized(self) -> LLMUsage:
        """The same without what cannot be: counts and costs that are no numbers, negative or endless.

        Usage comes from clients of third parties too, and a sum that took in one such value is lost.
        """
        changes = {
            name: sound
            for name, value in vars(self).items()
            if value is not None and name in _SOUND and (sound := _SOUND[name](value)) is not value
        }
        if "cost_usd" in changes and changes["cost_usd"] is None:
            changes["cost_source"] = None
        return self._changed(**changes) if changes else self

    def as_dict(self) -> dict[str, Any]:
        """Every field, as plain values that JSON can hold."""
        return {**_DEFAULTS, **vars(self), "cost_partial": list(self.cost_partial)}

    def _changed(self, **changes: Any) -> LLMUsage:
        # `dataclasses.replace` takes ten times as long for as many fields, and every call is priced.
        changed = object.__new__(LLMUsage)
        vars(changed).update(vars(self))
        vars(changed).update(changes)
        return changed

    @property
    def is_known(self) -> bool:
        """Whether any tokens were counted: a reply without usage is unknown, not zero."""
        return bool(self.prompt_tokens or self.completion_tokens)

    @property
    def is_whole(self) -> bool:
        """Whether both input and output were counted: the price of one half is not the price of the call."""
        return self.is_known and self.prompt_tokens is not None and self.completion_tokens is not None


_DEFAULTS = vars(LLMUsage())
_NO_FIGURES = frozenset({"cost_source", "cost_table", "cost_partial", "estimated"})
_AMOUNTS = frozenset(name for name in _DEFAULTS if name.endswith(("_usd", "_seconds")))
"""The fields that hold numbers which need not be whole."""
_SOUND: Mapping[str, Callable[[object], Any]] = {
    name: _sound_amount if name in _AMOUNTS else _sound_count for name in _DEFAULTS if name not in _NO_FIGURES
}
"""What makes a figure sound, for each field that holds one."""
_NO_COST: Mapping[str, Any] = {
    "cost_usd": None,
    "cost_source": None,
    "input_cost_usd": None,
    "output_cost_usd": None,
    "fees_usd": None,
    "cost_table": None,
    "cost_partial": (),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportedCost:
    """What a reply itself says that it cost, in USD: only from providers that document the unit, or by declaration."""

    usd: float | None
    """USD for the whole call; `None` where the reply names at most a fee beside it (`fees_usd`), as a gateway does that
    calls the provider with the user's own key. The table's price is added to such a fee."""
    is_declared: bool = False
    """Whether the user or the preset declared the unit. Only then is a zero taken for a price."""
    input_usd: float | None = None
    """The part of `usd` for the input, where the reply says it."""
    output_usd: float | None = None
    """The part of `usd` for the output, where the reply says it."""
    fees_usd: float | None = None
    """The part of `usd` for requests, searches and the gateway itself, where the reply says it."""
    partial: tuple[str, ...] = ()
    """What else belongs to the cost and is not said: `fees_usd`, where a gateway keeps its fee to itself."""


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
class _RequestArguments:
    """The positional parameters of `LLMRequest`, in their published order."""

    provider: str
    """The provider's name, as given to `LLMClientFactory.make`."""
    model: str
    """The model's name, as the provider knows it."""
    prompt: str
    """The user's message."""
    temperature: float | None = None
    top_p: float | None = None
    extra: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """Fields that go into the provider's request body as they are, and win over ours."""


@dataclass(frozen=True)
class LLMRequest(SamplingOptions, _RequestArguments):
    """One call to a model."""

    _: KW_ONLY
    messages: tuple[Message, ...] = ()
    """A conversation, instead of `prompt`; a prompt that is given too comes last."""
    system: str | None = None
    """Instructions for the model, apart from the conversation."""

    @property
    def conversation(self) -> tuple[Message, ...]:
        """The messages, with the prompt as the last one; without the system text."""
        return (*self.messages, Message(role="user", content=self.prompt)) if self.prompt else self.messages

    @property
    def all_text(self) -> str:
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
    price_conditions: Mapping[str, str] = field(default_factory=dict[str, str])
    """What else the reply says that can change the price, by the keys of `genai-prices`: `speed`, `processing`,
    `route`, `search_type`."""
    request_id: str | None = None
    """The provider's id of the HTTP request, for its support."""
    reported_cost: ReportedCost | None = None
    """What the reply says that it cost. Where it is given, `usage.cost_usd` of this reply is not looked at."""


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


@dataclass(frozen=True, slots=True)
class StreamOpened:
    """A stream has begun. Comes first, from a client to the step, which keeps it to itself."""

    so_far: Callable[[], LLMResponse]
    """Gives the reply as far as it has come by then: id, model, tier and the usage that was reported already. Called
    when a stream ends early, so that nothing of what was said is lost."""


StreamEvent = TextDelta | ReasoningDelta | ToolCallDelta | Finish
"""What a stream consists of; `Finish` comes last, and once."""
