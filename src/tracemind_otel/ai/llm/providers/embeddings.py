"""Embeddings in the formats of OpenAI, Cohere, Ollama, Gemini, Vertex and Titan. Only read: we have no client for them.

Source: the references of OpenAI's `/v1/embeddings`, Cohere's `/v2/embed`, Ollama's `/api/embed`, Gemini's
`models.embedContent`, Vertex AI's text embeddings and Amazon Titan's, as of 2026-11.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

from ....errors import LLMResponseError
from ..types import LLMRequest, LLMResponse, LLMUsage, StreamEvent
from . import gemini
from ._sse import ServerSentEvent
from ._wire_format import WireFormat, count_of, listed, mapped, text_of

UsageOf = Callable[[Mapping[str, Any]], LLMUsage]
"""Finds the usage in a reply."""


def _wire(usage_of: UsageOf) -> WireFormat:
    def from_payload(document: Mapping[str, Any], request_id: str | None) -> LLMResponse:
        return LLMResponse(
            text="",
            usage=usage_of(document),
            response_model=text_of(document.get("model")),
            response_id=text_of(document.get("id")),
            request_id=request_id,
        )

    return WireFormat(
        path=_not_sent,
        to_payload=_not_sent,
        from_payload=from_payload,
        new_reader=_Nothing,
        operation="embeddings",
    )


def usage_of_input(prompt: int | None, **parts: Any) -> LLMUsage:
    """The usage: an embedding is no tokens, so a count of input is the whole of it."""
    return LLMUsage.of_reply(prompt, None if prompt is None else 0, prompt, **parts)


def _not_sent(req: LLMRequest, stream: bool) -> NoReturn:
    raise NotImplementedError("embeddings are only read")


class _Nothing:
    """The reader of a stream, which embeddings do not come as."""

    is_complete = has_ended = False

    def feed(self, event: ServerSentEvent) -> Sequence[StreamEvent]:
        raise LLMResponseError("embeddings came as a stream")

    def response(self, request_id: str | None) -> LLMResponse:
        return LLMResponse(text="", usage=usage_of_input(None), request_id=request_id)


def _openai(document: Mapping[str, Any]) -> LLMUsage:
    """Voyage and Jina report the total alone, which is the input."""
    usage = mapped(document.get("usage"))
    return usage_of_input(count_of(usage.get("prompt_tokens", usage.get("total_tokens"))))


def _cohere(document: Mapping[str, Any]) -> LLMUsage:
    billed = mapped(mapped(document.get("meta")).get("billed_units"))
    images = count_of(billed.get("image_tokens")) or None
    prompt = count_of(billed.get("input_tokens"))
    if prompt is None and images is not None:
        prompt = images + (count_of(billed.get("text_tokens")) or 0)
    return usage_of_input(prompt, input_image_tokens=images)


def _ollama(document: Mapping[str, Any]) -> LLMUsage:
    return usage_of_input(count_of(document.get("prompt_eval_count")))


def _gemini(document: Mapping[str, Any]) -> LLMUsage:
    usage = mapped(document.get("usageMetadata"))
    return usage_of_input(count_of(usage.get("promptTokenCount")), **gemini.input_by_modality(usage))


def _vertex(document: Mapping[str, Any]) -> LLMUsage:
    """The sum of the counts of all texts; unknown where one has none."""
    predictions = listed(document.get("predictions"))
    statistics = [mapped(mapped(each.get("embeddings")).get("statistics")) for each in predictions]
    counts = [count_of(each.get("token_count")) for each in statistics]
    known = [count for count in counts if count is not None]
    return usage_of_input(sum(known) if counts and len(known) == len(counts) else None)


def _titan(document: Mapping[str, Any]) -> LLMUsage:
    return usage_of_input(count_of(document.get("inputTextTokenCount")))


OPENAI = _wire(_openai)
"""OpenAI's, and all who speak it."""
COHERE = _wire(_cohere)
"""Cohere's."""
OLLAMA = _wire(_ollama)
"""Ollama's. The old `/api/embeddings` reports no usage."""
GEMINI = _wire(_gemini)
"""Gemini's. Older models report no usage."""
VERTEX = _wire(_vertex)
"""Those of text models on Vertex AI."""
TITAN = _wire(_titan)
"""Amazon Titan's."""
