"""Embeddings in the formats of OpenAI, Cohere, Ollama, Gemini and Titan. Only read: we have no client for them.

Source: the references of OpenAI's `/v1/embeddings`, Cohere's `/v2/embed`, Ollama's `/api/embed`, Gemini's
`models.embedContent` and Amazon Titan's text embeddings, as of 2026-11.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

from ....errors import LLMResponseError
from ..types import LLMRequest, LLMResponse, LLMUsage, StreamEvent
from ._sse import ServerSentEvent
from ._wire_format import WireFormat, count_of, mapped, text_of

CountOf = Callable[[Mapping[str, Any]], object]
"""Finds the count of input tokens in a reply."""


def _wire(count: CountOf) -> WireFormat:
    def from_payload(document: Mapping[str, Any], request_id: str | None) -> LLMResponse:
        return LLMResponse(
            text="",
            usage=usage_of_input(count_of(count(document))),
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


def usage_of_input(prompt: int | None) -> LLMUsage:
    """The usage: an embedding is no tokens, so a count of input is the whole of it."""
    return LLMUsage.of_reply(prompt, None if prompt is None else 0, prompt)


def _not_sent(req: LLMRequest, stream: bool) -> NoReturn:
    raise NotImplementedError("embeddings are only read")


class _Nothing:
    """The reader of a stream, which embeddings do not come as."""

    is_complete = has_ended = False

    def feed(self, event: ServerSentEvent) -> Sequence[StreamEvent]:
        raise LLMResponseError("embeddings came as a stream")

    def response(self, request_id: str | None) -> LLMResponse:
        return LLMResponse(text="", usage=usage_of_input(None), request_id=request_id)


def _openai(document: Mapping[str, Any]) -> object:
    """Voyage and Jina report the total alone, which is the input."""
    usage = mapped(document.get("usage"))
    return usage.get("prompt_tokens", usage.get("total_tokens"))


def _cohere(document: Mapping[str, Any]) -> object:
    return mapped(mapped(document.get("meta")).get("billed_units")).get("input_tokens")


OPENAI = _wire(_openai)
"""OpenAI's, and all who speak it."""
COHERE = _wire(_cohere)
"""Cohere's."""
OLLAMA = _wire(lambda document: document.get("prompt_eval_count"))
"""Ollama's."""
GEMINI = _wire(lambda document: mapped(document.get("usageMetadata")).get("promptTokenCount"))
"""Gemini's. Older models report no usage."""
TITAN = _wire(lambda document: document.get("inputTextTokenCount"))
"""Amazon Titan's."""
