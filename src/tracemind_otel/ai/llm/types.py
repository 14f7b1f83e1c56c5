"""The request, the reply and the events of a stream, in one form for every provider."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import Any, Literal, cast

from .sampling import SamplingOptions
from .usage import CostSource as CostSource
from .usage import LLMUsage as LLMUsage
from .usage import ReportedCost as ReportedCost

Role = Literal["system", "user", "assistant", "tool"]
"""The author of a message."""

FinishReason = Literal["stop", "length", "tool_call", "content_filter", "error"]
"""Why a reply ended, in the words of OpenTelemetry's GenAI output messages."""


@dataclass(frozen=True, slots=True)
class Text:
    """A text part of a message."""

    text: str
    """The part's content."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """An image, given by its URL or its bytes; exactly one of `url` and `data`."""

    url: str | None = None
    """The URL from which the provider fetches it."""
    data: bytes | None = field(default=None, repr=False)
    """The bytes of the file."""
    media_type: str = "image/png"
    """The media type of `data`."""


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A tool call that the model requests."""

    id: str
    """The provider's id of the call, or a generated one where the provider has none."""
    name: str
    """The name of the tool."""
    arguments: Mapping[str, Any] | str
    """The parsed arguments, or the raw string where it is not a JSON object."""
    kind: Literal["function", "custom"] = field(default="function", kw_only=True)
    """Whether the tool takes JSON, or a free string as OpenAI's custom tools do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One message of a conversation."""

    role: Role
    """The author."""
    content: str | tuple[Text | Image, ...] = ""
    """The parts of the message; in a tool's message, the result."""
    tool_calls: tuple[ToolCall, ...] = ()
    """The tool calls that an assistant's message requests."""
    tool_call_id: str | None = None
    """The id of the call that a tool's message answers."""
    name: str | None = None
    """The name of the tool, in a tool's message; some providers need it."""

    @property
    def text(self) -> str:
        """The text in the content."""
        if isinstance(self.content, str):
            return self.content
        return "".join(part.text for part in self.content if isinstance(part, Text))


def _texts_in(value: object) -> Iterator[str]:
    """Every string in a JSON-like value: `extra` may hold a conversation too."""
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
    """Fields for the provider's request body, unchanged; they replace ours."""


@dataclass(frozen=True)
class LLMRequest(SamplingOptions, _RequestArguments):
    """One call to a model."""

    _: KW_ONLY
    messages: tuple[Message, ...] = ()
    """A conversation, instead of `prompt` or before it."""
    system: str | None = None
    """Instructions to the model, apart from the conversation."""

    @property
    def conversation(self) -> tuple[Message, ...]:
        """The messages with the prompt as the last one, without the system instructions."""
        return (*self.messages, Message(role="user", content=self.prompt)) if self.prompt else self.messages

    @property
    def all_text(self) -> str:
        """Every string that is sent, for counting its tokens and for keeping it out of messages."""
        if not self.messages and self.system is None and not self.extra:
            return self.prompt
        texts = [self.system or "", *(message.text for message in self.conversation), *_texts_in(self.extra)]
        return "\n".join(text for text in texts if text)

    @property
    def texts(self) -> tuple[str, ...]:
        """The same text by text, for keeping each of them out of messages; what is in `extra` is one."""
        said = (self.system or "", *(message.text for message in self.conversation), "\n".join(_texts_in(self.extra)))
        return tuple(filter(None, said))


@dataclass(frozen=True)
class LLMResponse:
    """One whole reply of a model."""

    text: str
    """The visible text of the first choice, or an empty string."""
    usage: LLMUsage
    """Tokens and cost."""
    raw: Mapping[str, Any] = field(default_factory=dict[str, Any], repr=False)
    """The provider's reply as received."""
    _: KW_ONLY
    finish_reasons: tuple[str, ...] = ()
    """The reason why each choice ended, in the provider's own words."""
    finish_reason: FinishReason | None = None
    """The first reason in the common vocabulary; `None` for an unknown word."""
    reasoning: str | None = None
    """The model's reasoning, if the provider returns it."""
    refusal: str | None = None
    """The model's refusal to answer, if the provider returns it apart from the text."""
    tool_calls: tuple[ToolCall, ...] = ()
    """The tool calls that the first choice requests."""
    response_id: str | None = None
    """The provider's id of this reply."""
    response_model: str | None = None
    """The model that answered, which may be another one than requested."""
    service_tier: str | None = None
    """The tier that served the call, if the provider reports it; it can change the price."""
    price_conditions: Mapping[str, str] = field(default_factory=dict[str, str])
    """Other conditions that can change the price, by the keys of `genai-prices`: `speed`, `processing`, `route`,
    `search_type`."""
    request_id: str | None = None
    """The provider's id of the HTTP request, for its support desk."""
    reported_cost: ReportedCost | None = None
    """The cost that the reply names; it replaces `usage.cost_usd`."""


@dataclass(frozen=True, slots=True)
class TextDelta:
    """A piece of the first choice's visible text."""

    text: str
    """The piece, to be appended to those before."""


@dataclass(frozen=True, slots=True)
class ReasoningDelta:
    """A piece of the model's reasoning."""

    text: str
    """The piece, to be appended to those before."""


@dataclass(frozen=True, slots=True)
class ToolCallDelta:
    """A piece of a tool call."""

    index: int
    """The position of the call in the reply, the same for all of its pieces."""
    id: str | None
    """The call's id, in its first piece."""
    name: str | None
    """The tool's name, in its first piece."""
    arguments: str
    """A piece of the arguments' JSON."""


@dataclass(frozen=True, slots=True)
class Finish:
    """The end of a stream."""

    response: LLMResponse
    """The whole reply."""


@dataclass(frozen=True, slots=True)
class StreamOpened:
    """The beginning of a stream: the first event that a client gives to the step, which does not pass it on."""

    so_far: Callable[[], LLMResponse]
    """Returns the reply received so far: its id, model, tier and reported usage. Called when a stream ends early."""
    shortcut: Shortcut | None = None
    """A way past the client's generator, where there is one."""


@dataclass(frozen=True, slots=True)
class Shortcut:
    """Reads the middle of a stream in place of the client's generator, whose steps cost more than a chunk does.

    The generator must be able to go on at any time: it reads the end, and raises what went wrong.
    """

    read: Callable[[], Awaitable[bytes]]
    """Waits for the next bytes, in any context. The generator has to go on if there are none, or if it raises."""
    feed: Callable[[bytes], Sequence[StreamEvent]]
    """Returns the events that these bytes add."""
    is_over: Callable[[], bool]
    """Returns whether the generator has to go on now, with the end of the stream or its fault."""


StreamEvent = TextDelta | ReasoningDelta | ToolCallDelta | Finish
"""An event of a stream; `Finish` comes last and once."""
