"""Text completions: OpenAI's `/completions`, Mistral's fill-in-the-middle, Ollama's `/api/generate`. Only read.

Source: OpenAI API reference, "Create completion"; Mistral API reference, "Fim completion"; Ollama API documentation,
"Generate a completion", as of 2026-11.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

from ..types import LLMResponse, StreamEvent
from . import ollama
from ._chat_reply import ChatReader, from_payload
from ._dialect import OPENAI, CostFormat, Dialect
from ._sse import ServerSentEvent
from ._wire_format import DONE, WireFormat, document_of, mapped, text_of
from .openai import as_spoken_by, chat_wire


def completions_wire(dialect: Dialect = OPENAI) -> WireFormat:
    """The format of `/completions` in a dialect: Chat Completions whose choices have a text and no message."""

    def read(document: Mapping[str, Any], request_id: str | None) -> LLMResponse:
        reply = from_payload(_with_messages(document, "message"), request_id=request_id, dialect=dialect)
        return replace(reply, raw=document)

    def with_cost(cost: CostFormat | None, server: str) -> WireFormat:
        return completions_wire(as_spoken_by(server, replace(dialect, cost=cost)))

    return replace(
        chat_wire(dialect),
        from_payload=read,
        new_reader=lambda: CompletionReader(dialect),
        operation="text_completion",
        with_cost=with_cost,
    )


def _with_messages(document: Mapping[str, Any], place: str) -> dict[str, Any]:
    """The document with each choice's text where Chat Completions has it; Mistral's has it there already."""
    choices = document.get("choices")
    if not isinstance(choices, list):
        return dict(document)
    moved = [_with_message(mapped(choice), place) for choice in cast("list[object]", choices)]
    return {**document, "choices": moved}


def _with_message(choice: Mapping[str, Any], place: str) -> Mapping[str, Any]:
    text = text_of(choice.get("text"))
    return choice if text is None or place in choice else {**choice, place: {"content": text}}


class CompletionReader(ChatReader):
    """Puts a streamed text completion together."""

    def feed(self, event: ServerSentEvent) -> Sequence[StreamEvent]:
        if event.document is None and event.data.rstrip() == DONE:
            return super().feed(event)
        return super().feed(replace(event, document=_with_messages(document_of(event), "delta")))


class GenerateReader(ollama.OllamaReader):
    """Puts Ollama's streamed completion together."""

    def feed(self, event: ServerSentEvent) -> Sequence[StreamEvent]:
        return super().feed(replace(event, document=_as_chat(document_of(event))))


def _as_chat(document: Mapping[str, Any]) -> dict[str, Any]:
    """Ollama's completion as a reply of its `/api/chat`."""
    return {**document, "message": {"content": document.get("response"), "thinking": document.get("thinking")}}


def _generated(document: Mapping[str, Any], request_id: str | None) -> LLMResponse:
    return replace(ollama.from_payload(_as_chat(document), request_id), raw=document)


COMPLETIONS = completions_wire()
"""OpenAI's, and all who speak it."""
GENERATE = replace(ollama.PRESET.wire, from_payload=_generated, new_reader=GenerateReader, operation="text_completion")
"""Ollama's."""
