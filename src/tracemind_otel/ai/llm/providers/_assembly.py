"""Builds replies in several formats: their text, end, tool calls, and the blocks of a stream."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ....errors import LLMResponseError
from ..types import FinishReason, LLMUsage, ReasoningDelta, StreamEvent, TextDelta, ToolCall, ToolCallDelta
from ._wire_format import arguments_of, arguments_text, count_of, listed, mapped, normal_finish, part_of, text_of


def message_in(holder: Mapping[str, Any], request_id: str | None) -> Mapping[str, Any]:
    """The message in a part of a reply, which may be empty; raises an `LLMResponseError` where there is none."""
    if not isinstance(holder.get("message"), dict):
        raise LLMResponseError("the reply has no message", request_id=request_id)
    return mapped(holder["message"])


def joined(blocks: Iterable[Mapping[str, Any]], name: str) -> str:
    """The strings that blocks have under a name, put together."""
    return "".join([text_of(block.get(name)) or "" for block in blocks])


def ending_of(reasons: Mapping[str, FinishReason], raw: str | None, calls: Sequence[ToolCall]) -> dict[str, Any]:
    """The fields of an `LLMResponse` that say how a reply of one choice ended."""
    return {
        "finish_reasons": (raw,) if raw else (),
        "finish_reason": normal_finish(reasons, raw, calls_tools=bool(calls)),
        "tool_calls": tuple(calls),
    }


def usage_of_parts(
    prompt: int | None, completion: int | None, stated_total: int | None = None, **parts: Any
) -> LLMUsage:
    """Usage whose total is the sum of both halves, where both are known; a smaller total leaves something out."""
    total = stated_total if prompt is None or completion is None else max(prompt + completion, stated_total or 0)
    return LLMUsage.of_reply(prompt, completion, total, **parts)


def usage_beside_cache(
    fresh: object, completion: object, read: int | None, written: int | None, lifetimes: Mapping[Any, Any], **more: Any
) -> LLMUsage:
    """Usage of a format whose input (`fresh`) leaves out what the cache read and wrote; the conventions count it in.

    The lifetimes divide what was written by its time to live: `5m`, `1h`.
    """
    count = count_of(fresh)
    return usage_of_parts(
        None if count is None else count + (read or 0) + (written or 0),
        count_of(completion),
        cache_read_tokens=read,
        cache_write_tokens=written,
        cache_write_5m_tokens=part_of(lifetimes.get("5m"), written or 0),
        cache_write_1h_tokens=part_of(lifetimes.get("1h"), written or 0),
        **more,
    )


# --- Tool calls


def made_call(call_id: str, name: str, arguments: object, *, is_custom: bool) -> ToolCall:
    """A call that a model made; a custom tool gets a string that is no JSON."""
    if is_custom:
        return ToolCall(call_id, name, arguments if isinstance(arguments, str) else "", kind="custom")
    return ToolCall(call_id, name, arguments_of(arguments))


def incoming_calls(
    asked: Iterable[Mapping[str, Any]], id_field: str, arguments_field: str, first: int = 0
) -> list[ToolCall]:
    """The calls that have a name; an id that is missing is made up from `first` on."""
    named = [call for call in asked if text_of(call.get("name"))]
    return [
        ToolCall(text_of(call.get(id_field)) or f"call_{number}", call["name"], arguments_of(call.get(arguments_field)))
        for number, call in enumerate(named, first)
    ]


def function_calls(message: Mapping[str, Any], first: int = 0) -> list[ToolCall]:
    """The calls in a message that spells them `{id, function: {name, arguments}}`."""
    calls = listed(message.get("tool_calls"))
    return incoming_calls(
        ({**mapped(call.get("function")), "id": call.get("id")} for call in calls), "id", "arguments", first
    )


def call_delta(index: int, call: ToolCall) -> ToolCallDelta:
    """A call that came whole, as a piece of a stream."""
    return ToolCallDelta(index, call.id, call.name, arguments_text(call.arguments))


@dataclass(slots=True)
class CallPieces:
    """A tool call in a stream, as far as it came."""

    id: str | None = None
    name: str | None = None
    arguments: list[str] = field(default_factory=list[str])
    is_custom: bool = False
    """Whether the tool gets free text and no JSON."""

    def whole(self, index: int) -> ToolCall:
        """The call, once all its pieces have come."""
        said = "".join(self.arguments)
        return made_call(self.id or f"call_{index}", self.name or "", said, is_custom=self.is_custom)

    def document(self, index: int) -> dict[str, Any]:
        """The call as a whole reply of Chat Completions has it: its arguments are the text that came."""
        kind = "custom" if self.is_custom else "function"
        asked = {"name": self.name, "input" if self.is_custom else "arguments": "".join(self.arguments)}
        return {"id": self.id or f"call_{index}", "type": kind, kind: asked}

    def delta(self, index: int, piece: str, *, is_first: bool) -> ToolCallDelta:
        """Add a piece of the arguments; the first piece of a call tells its id and name."""
        self.arguments.append(piece)
        return ToolCallDelta(index, self.id if is_first else None, self.name if is_first else None, piece)


# --- Blocks of content


@dataclass(slots=True)
class Block:
    """One block of streamed content, as far as it came."""

    start: Mapping[str, Any] = field(default_factory=dict[str, Any])
    pieces: dict[str, list[str]] = field(default_factory=dict[str, list[str]])
    """The pieces of each field so far. `text`, `thinking` and a call's `arguments` are streamed on."""
    citations: list[Any] = field(default_factory=list[Any])
    call_index: int | None = None
    """Which tool call it is; `None` for any other block."""

    def add(self, name: str, piece: object) -> Sequence[StreamEvent]:
        """Keep a piece of a field where it is a string; returns the event that it is, if it is one."""
        if not isinstance(piece, str) or not piece:
            return ()
        self.pieces.setdefault(name, []).append(piece)
        if name == "text":
            return (TextDelta(piece),)
        if name == "thinking":
            return (ReasoningDelta(piece),)
        if name == "arguments" and self.call_index is not None:
            return (ToolCallDelta(self.call_index, None, None, piece),)
        return ()

    def joined(self) -> dict[str, str]:
        """Each field as far as it came."""
        return {name: "".join(pieces) for name, pieces in self.pieces.items()}


class Blocks:
    """The blocks of one streamed reply, by their index."""

    def __init__(self) -> None:
        self._blocks: dict[int, Block] = {}
        self._call_count = 0

    def at(self, index: object) -> Block:
        """The block of that index; a new one where none began there."""
        return self._blocks.setdefault(count_of(index) or 0, Block())

    def begin_call(self, block: Block, call_id: object, name: object) -> Sequence[ToolCallDelta]:
        """Note that a block is the next tool call."""
        block.call_index = self._call_count
        self._call_count += 1
        return (ToolCallDelta(block.call_index, text_of(call_id), text_of(name), ""),)

    def in_order(self) -> list[Block]:
        """All blocks, sorted by their index."""
        return [block for _, block in sorted(self._blocks.items())]
