"""A wire format: pure functions between our types and a provider's JSON, without I/O."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast

from ....errors import LLMResponseError
from ..types import FinishReason, LLMRequest, LLMResponse, StreamEvent, ToolCall
from ._error_bodies import ErrorBody, error_body, is_error
from ._sse import EventDecoder, ServerSentEvent

DONE = b"[DONE]"
"""The end mark of Chat Completions, which gateways send in other formats too."""


class StreamReader(Protocol):
    """Puts one streamed reply together, event by event."""

    def feed(self, event: ServerSentEvent) -> Sequence[StreamEvent]:
        """What an event adds; `Finish` is not among it.

        Raises:
            StreamedError: the provider reports an error inside the stream.
            LLMResponseError: the event cannot be read.
        """
        ...

    @property
    def is_complete(self) -> bool:
        """Whether a finish reason or the format's end mark has come: a stream without either was cut."""
        ...

    @property
    def has_ended(self) -> bool:
        """Whether the format's end mark has come: what follows is not part of the reply and is not awaited."""
        ...

    def response(self, request_id: str | None) -> LLMResponse:
        """The part of the reply that has come, at any time; id, model, tier and usage once they were reported."""
        ...


class StreamDecoder(Protocol):
    """Cuts the bytes of one stream into events."""

    def feed(self, data: bytes) -> Sequence[ServerSentEvent]:
        """The events that are complete now."""
        ...

    def end(self) -> Sequence[ServerSentEvent]:
        """The last event, if the bytes ended without its ending."""
        ...


class StreamedError(Exception):
    """An error that a provider reports inside a stream that began as a success."""

    def __init__(self, body: ErrorBody, reply: LLMResponse | None = None) -> None:
        super().__init__(body.type or body.code or "error")
        self.body = body
        self.reply = reply


@dataclass(frozen=True, kw_only=True, slots=True)
class WireFormat:
    """A wire format."""

    path: Callable[[LLMRequest, bool], str]
    """The path below the base URL, for a request and whether it streams."""
    to_payload: Callable[[LLMRequest, bool], dict[str, Any]]
    """The body, for a request and whether it streams. Raises `ConfigError` for what the format does not support."""
    from_payload: Callable[[Mapping[str, Any], str | None], LLMResponse]
    """The reply in the normal form, for a body and the request's id. Raises `LLMResponseError` when it is none."""
    figures_of: Callable[[Mapping[str, Any], str | None], LLMResponse] | None = None
    """The same without texts and tool calls, for telemetry alone, where that takes less time; else `None`."""
    new_reader: Callable[[], StreamReader]
    """A reader for one stream."""
    new_decoder: Callable[[], StreamDecoder] = EventDecoder
    """What cuts a stream into events: server-sent events, unless the format has another framing."""
    with_headers: Callable[[LLMResponse, Mapping[str, str]], LLMResponse] | None = None
    """Adds what a reply's headers say (a cost, a tier); `None` where they say nothing."""
    operation: str = "chat"
    """The GenAI operation in telemetry."""
    errors_of: Callable[[object], ErrorBody] = error_body
    """Reads an error body."""
    failed_reply: Callable[[Mapping[str, Any], str | None], LLMResponse] | None = None
    """The reply in a document that also has an error; `None` if the format has no such documents."""
    with_cost: Callable[[Any, str], WireFormat] | None = None
    """The same format for a server whose replies name their cost in a form of `_chat_usage.CostFormat`, and whose
    server it is, which also tells how it counts; `None` where replies of the format name no cost."""
    reports_cost: bool = False
    """Whether replies name their cost in a form that is understood."""
    default_max_tokens: int | None = None
    """Most output tokens that `to_payload` asks for where the request sets none."""


def mapped(value: object) -> Mapping[str, Any]:
    """A JSON object, or an empty one for anything else: details may be null or missing."""
    return value if isinstance(value, dict) else {}  # pyright: ignore[reportUnknownVariableType]  # no cast: it is a call


def listed(value: object) -> list[Mapping[str, Any]]:
    """The objects of a JSON array; any other entry is left out."""
    if not isinstance(value, list):
        return []
    if len(items := cast("list[object]", value)) == 1 and isinstance(items[0], dict):
        return cast("list[Mapping[str, Any]]", items)
    return [cast("Mapping[str, Any]", item) for item in cast("list[object]", value) if isinstance(item, dict)]


def cumulated(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    """Two states of one stream's usage: the later holds, but what it lacks, or has a zero or a null for, stays."""
    merged = dict(before)
    for name, value in after.items():
        known = before.get(name)
        if parts := mapped(known):
            merged[name] = cumulated(parts, mapped(value))
        elif value or not known:
            merged[name] = value
    return merged


def text_of(value: object) -> str | None:
    """A string that is not empty; some servers send an empty one for null."""
    return value if isinstance(value, str) and value else None


_MAX_COUNT = 2**53
"""No count is as large; beyond it a float is no exact number, and beyond 2**63 OTLP loses the whole batch."""


def count_of(value: object) -> int | None:
    """A token count, or `None` where there is none; absent is not zero, and nothing is negative."""
    if type(value) is int:
        return value if 0 <= value < _MAX_COUNT else None
    if value is None or isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < _MAX_COUNT:
        return None
    return int(value)


def part_of(value: object, whole: int) -> int | None:
    """The count of a part, limited to the count of its whole."""
    count = count_of(value)
    return None if count is None else min(count, whole)


def cost_of(value: object) -> float | None:
    """USD, where a reply names its cost: a number of zero or more."""
    return None if count_of(value) is None else float(cast("float", value))


def normal_finish(reasons: Mapping[str, FinishReason], raw: str | None, *, calls_tools: bool) -> FinishReason | None:
    """The normal finish reason; a stop beside tool calls means the calls."""
    reason = reasons.get(raw) if raw else None
    return "tool_call" if calls_tools and reason in (None, "stop") else reason


def parse_together(events: Sequence[ServerSentEvent]) -> None:
    """Parse what came in one read at once, in two thirds of the time; faults are left to `document_of`."""
    objects = [event for event in events if event.data.startswith(b"{")]
    joined = b"[" + b",".join([event.data for event in objects]) + b"]"
    try:
        documents: list[Any] = _DECODER.decode(joined.decode("utf-8", "surrogatepass"))
    except (ValueError, RecursionError):
        return
    if len(documents) == len(objects):
        for event, document in zip(objects, documents, strict=True):
            event.document = document


def document_of(event: ServerSentEvent) -> Mapping[str, Any]:
    """The JSON object in an event.

    Raises:
        StreamedError: it is an error in another form: plain text in an `error` event, a list.
        LLMResponseError: it has none.
    """
    if event.document is not None:
        return event.document
    try:
        # A string spares the guess of its encoding; JSON on the wire is UTF-8 (RFC 8259, 8.1).
        document: Any = _parse(event.data.decode("utf-8", "surrogatepass"))
    except (ValueError, RecursionError):
        fault = "is not JSON"
    else:
        if isinstance(document, dict):
            return document  # pyright: ignore[reportUnknownVariableType]
        fault = "is not a JSON object"
    body = error_body(event.data.decode("utf-8", "replace"))
    if event.name == "error" or is_error(body):
        raise StreamedError(body)
    raise LLMResponseError(f"an event of the stream {fault}")


_DECODER = json.JSONDecoder()


def _parse(text: str) -> object:
    """Half the time of `json.loads` for a document without white space around it, as each chunk is."""
    if text.startswith("{"):
        document, end = _DECODER.raw_decode(text)
        if end == len(text):
            return document
    return _DECODER.decode(text)


def arguments_of(arguments: object) -> Mapping[str, Any] | str:
    """Arguments as an object; as the raw text where they are no JSON object; empty for null and nothing."""
    if not isinstance(arguments, str) or not arguments.strip():
        return mapped(arguments)
    try:
        parsed = json.loads(arguments)
    except (ValueError, RecursionError):
        return arguments
    return cast("dict[str, Any]", parsed) if isinstance(parsed, dict) else arguments


def outgoing_call(call: ToolCall) -> dict[str, Any]:
    """A tool call as Chat Completions spells it, and Cohere after it."""
    if call.kind == "custom":
        return {"id": call.id, "type": "custom", "custom": {"name": call.name, "input": call.arguments}}
    return {
        "id": call.id,
        "type": "function",
        "function": {"name": call.name, "arguments": arguments_text(call.arguments)},
    }


def arguments_text(arguments: Mapping[str, Any] | str) -> str:
    """The arguments of a tool call as JSON text; a string is passed on as it is."""
    return arguments if isinstance(arguments, str) else json.dumps(dict(arguments))
