"""Google Gemini in AI Studio; Vertex speaks the same format.

Source: Gemini API reference v1beta, "Generating content" (`models.generateContent`, `models.streamGenerateContent`),
and Vertex AI REST v1, `publishers.models.generateContent`, as of 2026-11; enums as in google-genai 3.4.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast
from urllib.parse import quote

from ....errors import LLMResponseError
from ..types import (
    FinishReason,
    Image,
    LLMRequest,
    LLMResponse,
    LLMUsage,
    Message,
    StreamEvent,
    Text,
    ToolCall,
    ToolCallDelta,
)
from ._assembly import Block, call_delta
from ._conversation import (
    effort_of,
    image_bytes,
    merged,
    object_arguments,
    only_text,
    settings_of,
    split_system,
    with_tool_names,
)
from ._error_bodies import ErrorBody, error_body
from ._sse import ServerSentEvent
from ._wire_format import (
    StreamedError,
    WireFormat,
    arguments_of,
    count_of,
    cumulated,
    document_of,
    listed,
    mapped,
    normal_finish,
    part_of,
    text_of,
)
from .presets import Preset

# --- Request

_GENERATION_FIELDS = {
    "temperature": "temperature",
    "top_p": "topP",
    "top_k": "topK",
    "max_tokens": "maxOutputTokens",
    "seed": "seed",
    "presence_penalty": "presencePenalty",
    "frequency_penalty": "frequencyPenalty",
    "stop": "stopSequences",
}
_EFFORTS = {
    effort: {"thinkingConfig": {"thinkingLevel": effort.upper()}}
    for effort in ("minimal", "low", "medium", "high", "xhigh")
}
_EFFORT_HINT = ". A budget of tokens goes into extra={'generationConfig': {'thinkingConfig': {'thinkingBudget': ...}}}"
_MADE_UP_ID = "gemini-call-"
"""The prefix of ids that are made up here. They are never sent, because the server does not know them."""
_MEDIA_TYPES = {kind: f"image/{kind}" for kind in ("gif", "heic", "heif", "jpeg", "png", "webp")} | {
    "jpg": "image/jpeg"
}


@dataclass(frozen=True, slots=True)
class SignedToolCall(ToolCall):
    """A call with its thought signature; newer models reject a conversation without it."""

    signature: str = field(default="", repr=False)
    """The signature as it came; it is sent back with the call."""


def path_of(req: LLMRequest, stream: bool) -> str:
    """The path in AI Studio, the only place that names the model."""
    kind, slash, name = req.model.partition("/")
    if not slash or kind not in ("models", "tunedModels"):
        kind, name = "models", req.model
    return f"/v1beta/{kind}/{quote(name, safe='')}:{method_of(stream)}"


def method_of(stream: bool) -> str:
    """The method at the end of the path."""
    # Without alt=sse the stream is one JSON array.
    return "streamGenerateContent?alt=sse" if stream else "generateContent"


def to_payload(req: LLMRequest, stream: bool = False) -> dict[str, Any]:
    """The body of the request; `extra` wins, and its `generationConfig` is merged with ours."""
    system, conversation = split_system(req, "gemini")
    payload: dict[str, Any] = {"contents": _contents(conversation)}
    if system:
        payload["systemInstruction"] = {"parts": [{"text": text} for text in system]}
    settings = settings_of(req, "gemini", _GENERATION_FIELDS, "reasoning_effort")
    if config := {**settings, **effort_of(req, "gemini", _EFFORTS, _EFFORT_HINT)}:
        payload["generationConfig"] = config
    return merged(payload, req.extra)


def _contents(conversation: Sequence[Message]) -> list[dict[str, Any]]:
    """The turns. Consecutive results of tools are one turn, as their calls were."""
    turns: list[dict[str, Any]] = []
    answers = False
    for message, tool_name in with_tool_names(conversation, "gemini"):
        parts = _parts(message, tool_name)
        if answers and message.role == "tool":
            turns[-1]["parts"] += parts
        else:
            turns.append({"role": "model" if message.role == "assistant" else "user", "parts": parts})
        answers = message.role == "tool"
    return turns


def _parts(message: Message, tool_name: str) -> list[dict[str, Any]]:
    """The parts of one message."""
    if message.role == "tool":
        response = {**_sent_id(message.tool_call_id), "name": tool_name, "response": _result(message)}
        return [{"functionResponse": response}]
    said = [{"text": message.content}] if isinstance(message.content, str) else [*map(_part, message.content)]
    if message.tool_calls:
        said = [part for part in said if part != {"text": ""}]
    return [*said, *(_function_call(call) for call in message.tool_calls)]


def _function_call(call: ToolCall) -> dict[str, Any]:
    asked = {**_sent_id(call.id), "name": call.name, "args": object_arguments(call, "gemini")}
    if isinstance(call, SignedToolCall) and call.signature:
        return {"functionCall": asked, "thoughtSignature": call.signature}
    return {"functionCall": asked}


def _result(message: Message) -> Mapping[str, Any]:
    """A tool's result as the object that Gemini requires; any other value becomes its `output`."""
    text = only_text(message, "gemini")
    parsed = arguments_of(text) if text.strip() else text
    return {"output": text} if isinstance(parsed, str) else parsed


def _sent_id(call_id: str | None) -> dict[str, str]:
    return {"id": call_id} if call_id and not call_id.startswith(_MADE_UP_ID) else {}


def _part(part: Text | Image) -> dict[str, Any]:
    if isinstance(part, Text):
        return {"text": part.text}
    if given := image_bytes(part, "gemini"):
        return {"inlineData": {"mimeType": given[0], "data": given[1]}}
    url = part.url or ""
    suffix = url.partition("?")[0].rpartition(".")[2].lower()
    return {"fileData": {"mimeType": _MEDIA_TYPES.get(suffix, part.media_type), "fileUri": url}}


# --- Reply

_FINISH_REASONS: dict[str, FinishReason] = {
    "STOP": "stop",
    "MAX_TOKENS": "length",
    **dict.fromkeys(
        ("SAFETY", "RECITATION", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII", "MODEL_ARMOR"), "content_filter"
    ),
    **dict.fromkeys(("IMAGE_SAFETY", "IMAGE_PROHIBITED_CONTENT", "IMAGE_RECITATION", "IMAGE_OTHER"), "content_filter"),
    **dict.fromkeys(("MALFORMED_FUNCTION_CALL", "UNEXPECTED_TOOL_CALL", "TOO_MANY_TOOL_CALLS"), "error"),
    **dict.fromkeys(("MALFORMED_RESPONSE", "MISSING_THOUGHT_SIGNATURE"), "error"),
}
_UNSET_REASON = "FINISH_REASON_UNSPECIFIED"
_SUMMANDS = ("promptTokenCount", "toolUsePromptTokenCount", "candidatesTokenCount", "thoughtsTokenCount")
_OUTPUT = frozenset({"candidatesTokenCount", "candidatesTokensDetails", "thoughtsTokenCount"})
_COUNTS = ("promptTokenCount", "candidatesTokenCount", "thoughtsTokenCount", "totalTokenCount")


def from_payload(document: Mapping[str, Any], request_id: str | None = None) -> LLMResponse:
    """The reply as an `LLMResponse`. It is read as a stream of one event, so that both always agree.

    Raises:
        LLMResponseError: there are no candidates, and the prompt was not blocked either.
    """
    reader = GeminiReader()
    reader.take(document)
    if not reader.is_answered:
        raise LLMResponseError("the reply has no candidates", request_id=request_id)
    return reader.response(request_id, document)


_MODALITIES = {"TEXT": "text", "AUDIO": "audio", "IMAGE": "image", "DOCUMENT": "image", "VIDEO": "video"}
"""The modalities on the wire, and what each is priced as: a document is charged as images of its pages."""

_TIERS = {
    "ON_DEMAND": "standard",
    "ON_DEMAND_PRIORITY": "priority",
    "ON_DEMAND_FLEX": "flex",
    "ON_DEMAND_OFFPEAK": "offpeak",
    "PROVISIONED_THROUGHPUT": "provisioned_throughput",
}
"""Vertex's traffic types, under the Gemini API's names for service tiers where it has one."""


def usage_of(usage: Mapping[str, Any], *, is_silent: bool = False, web_searches: int | None = None) -> LLMUsage:
    """Tokens as reported. `totalTokenCount` is the sum of all counts, so it reveals one that is missing.

    Args:
        usage: the reply's `usageMetadata`.
        is_silent: whether the reply is empty, so that a missing `candidatesTokenCount` means zero.
        web_searches: the searches that are billed.
    """
    given, tool = count_of(usage.get("promptTokenCount")), count_of(usage.get("toolUsePromptTokenCount"))
    thoughts, said = count_of(usage.get("thoughtsTokenCount")), count_of(usage.get("candidatesTokenCount"))
    total = count_of(usage.get("totalTokenCount"))
    if said is None and total is None and given is not None and is_silent:
        said = 0
    prompt = None if given is None else given + (tool or 0)
    completion = None if said is None else said + (thoughts or 0)
    if total is not None:
        if completion is None and prompt is not None:
            completion = max(total - prompt, thoughts or 0)
        elif prompt is None and completion is not None:
            prompt = max(total - completion, 0)
    elif prompt is not None and completion is not None:
        total = prompt + completion
    return LLMUsage.of_reply(
        prompt,
        completion,
        total,
        cache_read_tokens=part_of(usage.get("cachedContentTokenCount"), prompt or 0),
        reasoning_tokens=thoughts,
        input_tool_tokens=tool,
        web_searches=web_searches,
        **input_by_modality(usage),
        **_by_modality("output_{}_tokens", usage, "candidatesTokensDetails"),
        **_read_by_modality(usage),
    )


def input_by_modality(usage: Mapping[str, Any]) -> dict[str, Any]:
    """The input by modality, as fields of `LLMUsage`."""
    return _by_modality("input_{}_tokens", usage, "promptTokensDetails", "toolUsePromptTokensDetails")


def _read_by_modality(usage: Mapping[str, Any]) -> dict[str, Any]:
    """The cache reads. Where they add up to the whole, a modality of the input that they lack was not read: zero."""
    read = _by_modality("cache_{}_read_tokens", usage, "cacheTokensDetails")
    if not read or sum(read.values()) != count_of(usage.get("cachedContentTokenCount")):
        return read
    return {**dict.fromkeys(_by_modality("cache_{}_read_tokens", usage, "promptTokensDetails"), 0), **read}


def _by_modality(name: str, usage: Mapping[str, Any], *places: str) -> dict[str, Any]:
    """The counts of a kind by modality, added up; a modality that is not reported is left out."""
    counts: dict[str, int] = {}
    for detail in (detail for place in places for detail in listed(usage.get(place))):
        modality, count = _MODALITIES.get(str(detail.get("modality"))), count_of(detail.get("tokenCount"))
        if modality is not None and count is not None:
            field_name = name.format(modality)
            counts[field_name] = counts.get(field_name, 0) + count
    return counts


def _is_zero(value: object) -> bool:
    """Whether a value is a list of details by modality whose counts are all zero."""
    details = listed(value)
    return isinstance(value, list) and not any(count_of(detail.get("tokenCount")) for detail in details)


def tier_of(usage: Mapping[str, Any], document: Mapping[str, Any]) -> str | None:
    """The tier that served the call: `serviceTier` of the Gemini API, or Vertex's `trafficType`."""
    tier = text_of(usage.get("serviceTier")) or text_of(document.get("serviceTier"))
    tier = tier or _TIERS.get(str(usage.get("trafficType")))
    return None if tier is None or tier.lower() == "unspecified" else tier.lower()


def _web_searches(candidates: Iterable[Mapping[str, Any]], model: str | None) -> int | None:
    """Searches as they are billed: each query from Gemini 3 on, each grounded reply before it."""
    queries = [mapped(candidate.get("groundingMetadata")).get("webSearchQueries") for candidate in candidates]
    count = sum(len(cast("list[object]", each)) for each in queries if isinstance(each, list))
    if not count:
        return None
    is_billed_by_reply = bool(model) and str(model).removeprefix("models/").startswith(("gemini-1", "gemini-2"))
    return 1 if is_billed_by_reply else count


class GeminiReader:
    """Puts a reply together. Only the first candidate is streamed; the others are in `raw`."""

    has_ended = False

    def __init__(self) -> None:
        self._said = Block()
        self._calls: list[ToolCall] = []
        self._reasons: dict[int, str | None] = {}
        self._block_reason: str | None = None
        self._refusal: str | None = None
        self._usage: Mapping[str, Any] = {}
        self._grounded: dict[int, Mapping[str, Any]] = {}
        self._tier: str | None = None
        self._head: dict[str, str] = {}
        self._last: Mapping[str, Any] = {}
        self._parts: dict[int, list[Mapping[str, Any]]] = {}

    @property
    def is_answered(self) -> bool:
        """Whether there is a candidate, or the prompt was blocked and there will be none."""
        return bool(self._reasons) or self._block_reason is not None

    @property
    def is_complete(self) -> bool:
        return self.is_answered and all(self._reasons.values())

    def feed(self, event: ServerSentEvent) -> Sequence[StreamEvent]:
        document = document_of(event)
        if document.get("error"):
            raise StreamedError(errors_of(document))
        return self.take(document)

    def take(self, document: Mapping[str, Any]) -> Sequence[StreamEvent]:
        """Note one document of the reply; returns what it adds."""
        self._take_head(document)
        self._last = document
        self._take_usage(mapped(document.get("usageMetadata")), document)
        deltas: list[StreamEvent] = []
        for position, candidate in enumerate(listed(document.get("candidates"))):
            index = count_of(candidate.get("index"))
            deltas += self._candidate(position if index is None else index, candidate)
        return deltas

    def _take_usage(self, usage: Mapping[str, Any], document: Mapping[str, Any]) -> None:
        """Merge running totals: the last state counts, but a half, a zero or a null takes nothing back.

        A state with a count of candidates replaces all counts of output, thoughts included.
        """
        self._tier = tier_of(usage, document) or self._tier
        if not any(count_of(usage.get(name)) is not None for name in _COUNTS):
            return
        left_out = _OUTPUT - usage.keys() if usage.get("candidatesTokenCount") else frozenset[str]()
        known = {name: value for name, value in self._usage.items() if name not in left_out}
        said = {name: value for name, value in usage.items() if not (known.get(name) and _is_zero(value))}
        is_less = any(known.get(name) and not said.get(name) for name in _SUMMANDS)
        self._usage = {**cumulated(known, said), **({"totalTokenCount": None} if is_less else {})}

    def _take_head(self, document: Mapping[str, Any]) -> None:
        for name in ("responseId", "modelVersion"):
            if name not in self._head and (value := text_of(document.get(name))):
                self._head[name] = value
        feedback = mapped(document.get("promptFeedback"))
        self._block_reason = text_of(feedback.get("blockReason")) or self._block_reason
        self._refusal = text_of(feedback.get("blockReasonMessage")) or self._refusal or self._block_reason

    def _candidate(self, index: int, candidate: Mapping[str, Any]) -> list[StreamEvent]:
        reason = text_of(candidate.get("finishReason"))
        # Some servers send the enum's unset value until there is a reason.
        self._reasons[index] = (None if reason == _UNSET_REASON else reason) or self._reasons.get(index)
        if candidate.get("groundingMetadata"):
            self._grounded[index] = candidate
        parts = listed(mapped(candidate.get("content")).get("parts"))
        self._parts.setdefault(index, []).extend(parts)
        if index != min(self._reasons):
            return []
        self._refusal = text_of(candidate.get("finishMessage")) or self._refusal
        return [delta for part in parts for delta in self._part(part)]

    def _part(self, part: Mapping[str, Any]) -> Sequence[StreamEvent]:
        call = mapped(part.get("functionCall"))
        if name := text_of(call.get("name")):
            return (self._call(name, call, text_of(part.get("thoughtSignature"))),)
        return self._said.add("thinking" if part.get("thought") is True else "text", part.get("text"))

    def _call(self, name: str, call: Mapping[str, Any], signature: str | None) -> ToolCallDelta:
        index = len(self._calls)
        call_id = text_of(call.get("id")) or f"{_MADE_UP_ID}{index}"
        args = call.get("args")
        arguments = args if isinstance(args, str) else mapped(args)
        signed = SignedToolCall(call_id, name, arguments, signature=signature) if signature else None
        self._calls.append(signed or ToolCall(call_id, name, arguments))
        return call_delta(index, self._calls[-1])

    def response(self, request_id: str | None, document: Mapping[str, Any] | None = None) -> LLMResponse:
        raw = [reason for _, reason in sorted(self._reasons.items())]
        reason = normal_finish(_FINISH_REASONS, next(iter(raw), None), calls_tools=bool(self._calls))
        is_blocked = self._block_reason is not None and not any(raw[:1])
        model = self._head.get("modelVersion")
        said = self._said.joined()
        is_silent = self.is_complete and not any(self._parts.values())
        searches = _web_searches(self._grounded.values(), model)
        return LLMResponse(
            said.get("text", ""),
            usage_of(self._usage, is_silent=is_silent, web_searches=searches),
            document or self._whole(),
            finish_reasons=tuple(filter(None, raw)) or tuple(filter(None, [self._block_reason])),
            finish_reason="content_filter" if is_blocked else reason,
            reasoning=said.get("thinking"),
            refusal=self._refusal,
            tool_calls=tuple(self._calls),
            response_id=self._head.get("responseId"),
            response_model=model,
            service_tier=self._tier,
            request_id=request_id,
        )

    def _whole(self) -> dict[str, Any]:
        """The document that a whole reply would have been: the last one, with all that came before it."""
        candidates: list[dict[str, Any]] = [
            {
                **self._grounded.get(index, {}),
                "index": index,
                "content": {"role": "model", "parts": _joined_parts(self._parts.get(index, []))},
                **({"finishReason": reason} if reason else {}),
            }
            for index, reason in sorted(self._reasons.items())
        ]
        return {**self._last, **self._head, "candidates": candidates, "usageMetadata": dict(self._usage)}


def _joined_parts(parts: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The parts of a candidate, with neighbouring pieces of one text put together."""
    joined: list[dict[str, Any]] = []
    for part in parts:
        last = joined[-1] if joined else {}
        text, before = part.get("text"), last.get("text")
        if isinstance(text, str) and isinstance(before, str) and part.get("thought") == last.get("thought"):
            joined[-1] = {**last, **part, "text": before + text}
        else:
            joined.append(dict(part))
    return joined


# --- Errors

_SECONDS = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)s")


def errors_of(document: object) -> ErrorBody:
    """Read an error body, or a list of them, as a stream without `alt=sse` sends.

    The type is the status in words, `RESOURCE_EXHAUSTED`; the code is the reason, `API_KEY_INVALID`, where given.
    """
    found = listed(document) or [mapped(document)]
    first = next((each for each in found if each.get("error")), found[0])
    plain = error_body(first)
    error = mapped(first.get("error"))
    details = listed(error.get("details"))
    reasons = (text_of(each.get("reason")) for each in details)
    delays = (_seconds_of(each.get("retryDelay")) for each in details)
    return replace(
        plain,
        type=text_of(error.get("status")) or plain.type,
        code=next(filter(None, reasons), plain.code),
        retry_after_s=next(filter(None, delays), None),
    )


def _seconds_of(delay: object) -> float | None:
    """The seconds in a JSON duration, `48s` or `1.5s`; `None` for one that is not positive."""
    match = _SECONDS.fullmatch(delay) if isinstance(delay, str) else None
    return (float(match[1]) or None) if match else None


WIRE = WireFormat(
    path=path_of,
    to_payload=to_payload,
    from_payload=from_payload,
    new_reader=GeminiReader,
    operation="generate_content",
    errors_of=errors_of,
)
"""The format in AI Studio."""

PRESET = Preset(
    name="gemini",
    wire=WIRE,
    base_url="https://generativelanguage.googleapis.com",
    key_variables=("GOOGLE_API_KEY", "GEMINI_API_KEY"),
    url_variables=("GEMINI_BASE_URL",),
    key_header="x-goog-api-key",
)
"""Gemini in AI Studio."""
