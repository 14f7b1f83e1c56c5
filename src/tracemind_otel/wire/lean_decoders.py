"""Which formats are read leanly, and how."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from ..ai.llm.providers._chat_reply import ChatReader
from ..ai.llm.providers._sse import EventDecoder, JsonLinesDecoder
from ..ai.llm.providers._wire_format import WireFormat
from ..ai.llm.providers.anthropic import MessagesReader
from ..ai.llm.providers.bedrock import ConverseReader, FrameDecoder
from ..ai.llm.providers.bedrock_invoke import ChunkDecoder, InvokeReader
from .lean import RULES, LeanEvents, LeanLines, Rules
from .lean_frames import CONVERSE, LeanChunks, LeanFrames

LeanDecoder = LeanEvents | LeanLines | LeanFrames

_BY_FRAMING: dict[type, Callable[[Rules], LeanEvents | LeanLines]] = {
    EventDecoder: LeanEvents,
    JsonLinesDecoder: LeanLines,
}


def _with_metrics(rules: Rules) -> Rules:
    """The rules of a format inside InvokeModel's frames: Bedrock adds its counts to the last event."""
    return replace(rules, telling=(*rules.telling, b"invocationMetrics"))


_INVOKED = {
    b'"type"': _with_metrics(RULES[MessagesReader]),
    b'"choices"': _with_metrics(RULES[ChatReader]),
    b"message": _with_metrics(CONVERSE),
    b"contentBlock": _with_metrics(CONVERSE),
}
"""By a word in the first event, in the order in which the reader of these frames looks for them."""


def lean_decoder(wire: WireFormat) -> LeanDecoder | None:
    """The lean decoder for a stream of a format; `None` where the format has no rules and is read in full."""
    reader: type[Any] = type(wire.new_reader())
    decoder = wire.new_decoder()
    if reader is ConverseReader and type(decoder) is FrameDecoder:
        return LeanFrames(decoder)
    if reader is InvokeReader and type(decoder) is ChunkDecoder:
        return LeanChunks(decoder, _INVOKED)
    rules, made = RULES.get(reader), _BY_FRAMING.get(type(decoder))
    return None if rules is None or made is None else made(rules)
