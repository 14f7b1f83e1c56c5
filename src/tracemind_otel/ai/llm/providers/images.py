"""Images that OpenAI's GPT Image models generate. Only read: we have no client for them.

Source: OpenAI API reference, "Create image" and "Image generation streaming events", as of 2026-11.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..types import LLMResponse, LLMUsage, StreamEvent
from ._assembly import usage_of_parts
from ._error_bodies import error_body
from ._sse import ServerSentEvent
from ._wire_format import DONE, StreamedError, WireFormat, count_of, document_of, mapped, part_of, text_of
from .openai import chat_wire


def from_payload(document: Mapping[str, Any], request_id: str | None = None) -> LLMResponse:
    """The usage of a reply, which names no model. DALL-E's have no usage."""
    drawing = text_of(mapped(document.get("svg_usage")).get("model"))
    return LLMResponse(
        text="",
        usage=usage_of(mapped(document.get("usage"))),
        request_id=request_id,
        # The tokens of the model that writes an SVG are counted apart, and have another price.
        price_conditions={} if drawing is None else {"svg_usage": drawing},
    )


def usage_of(usage: Mapping[str, Any]) -> LLMUsage:
    """The tokens by modality; output of which nothing more is said is image tokens."""
    prompt, completion = count_of(usage.get("input_tokens")), count_of(usage.get("output_tokens"))
    given, made = mapped(usage.get("input_tokens_details")), mapped(usage.get("output_tokens_details"))
    return usage_of_parts(
        prompt,
        completion,
        count_of(usage.get("total_tokens")),
        input_text_tokens=part_of(given.get("text_tokens"), prompt or 0),
        input_image_tokens=part_of(given.get("image_tokens"), prompt or 0),
        output_text_tokens=part_of(made.get("text_tokens"), completion or 0),
        output_image_tokens=part_of(made.get("image_tokens"), completion or 0) if made else completion,
    )


class ImagesReader:
    """Finds the usage in a stream of partial images, whose last event has it."""

    is_complete = has_ended = False

    def __init__(self) -> None:
        self._completed: list[Mapping[str, Any]] = []

    def feed(self, event: ServerSentEvent) -> Sequence[StreamEvent]:
        if event.data.rstrip() == DONE:
            return ()
        document = document_of(event)
        if document.get("error") or document.get("type") == "error":
            raise StreamedError(error_body(document))
        if str(document.get("type")).endswith(".completed"):
            self._completed.append(document)
            self.is_complete = True
        return ()

    def response(self, request_id: str | None) -> LLMResponse:
        """Of several images it is not documented whether each event counts one or all: their usage is unknown."""
        return from_payload(self._completed[0] if len(self._completed) == 1 else {}, request_id)


IMAGES = WireFormat(
    path=chat_wire().path,
    to_payload=chat_wire().to_payload,
    from_payload=from_payload,
    new_reader=ImagesReader,
    operation="generate_content",
)
"""OpenAI's."""
