"""Lean reading of streams: what is dropped changes nothing that a span records."""

from __future__ import annotations

import base64
import json
import tracemalloc
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, cast

import pytest

from tests.servers.bedrock_server import frame
from tests.wire.conforming import ANTHROPIC, BEDROCK, COHERE, EVERY, GEMINI, OLLAMA, OPENAI, RESPONSES, Conforming
from tracemind_otel.ai.llm.providers import anthropic, bedrock, bedrock_invoke, cohere, gemini, ollama, openai_responses
from tracemind_otel.ai.llm.providers.openai import chat_wire
from tracemind_otel.ai.llm.types import LLMResponse
from tracemind_otel.errors import LLMError
from tracemind_otel.wire.lean_decoders import lean_decoder
from tracemind_otel.wire.tap import Tap

Wire = Any
"""A wire format."""
HEADERS = {"x-request-id": "req-1"}
METRICS = {"amazon-bedrock-invocationMetrics": {"inputTokenCount": 41, "outputTokenCount": 13}}


def _invoked(case: Conforming, *, is_named: bool = False) -> Conforming:
    """The same stream in the frames of InvokeModel, in base64, with Bedrock's counts in the last event."""

    def framed(name: str, document: Any) -> bytes:
        if name == "internalServerException":
            return frame("exception", name, document)
        inner = json.dumps({name: document} if is_named else document, separators=(",", ":")).encode()
        return frame("event", "chunk", {"bytes": base64.b64encode(inner).decode(), "p": "abcdefgh"[: len(inner) % 8]})

    *events, (name, last) = case.events
    return replace(
        case,
        events=[*events, (name, {**last, **METRICS})],
        frame=framed,
        mark=b"",
        keep_alive=b"",
        failure=BEDROCK.failure,
    )


CASES: dict[str, tuple[Conforming, Wire]] = {
    "chat": (OPENAI, chat_wire()),
    "responses": (RESPONSES, openai_responses.responses_wire()),
    "messages": (ANTHROPIC, anthropic.MESSAGES),
    "gemini": (GEMINI, gemini.WIRE),
    "cohere": (COHERE, cohere.PRESET.wire),
    "ollama": (OLLAMA, ollama.PRESET.wire),
    "converse": (BEDROCK, bedrock.CONVERSE),
    "invoked claude": (_invoked(ANTHROPIC), bedrock_invoke.INVOKE),
    "invoked nova": (_invoked(BEDROCK, is_named=True), bedrock_invoke.INVOKE),
    "invoked chat": (_invoked(OPENAI), bedrock_invoke.INVOKE),
}
FRAMED = [name for name, (case, _) in CASES.items() if case.frame in (BEDROCK.frame,) or name.startswith("invoked")]
"""Those whose frames have no lines."""
REPEATED = 12
"""Times that each event with a piece stands in a stream, so that most of them come when pieces are dropped."""


@dataclass
class Seen:
    """Stands for the call that a tap ends."""

    wire: Wire
    is_stream: bool = True
    model: str = "m"


@dataclass
class Call:
    """What a tap tells its call."""

    seen: Seen
    estimate: None = None
    needs_text = False
    chunks: int = 0
    ends: list[object] = field(default_factory=list[object])

    def first_chunk(self) -> None:
        self.chunks += 1

    def next_chunk(self, gap_s: float) -> None:
        self.chunks += 1

    def end_answered(
        self, response: LLMResponse | None, *, closed_early: bool = False, ended_ns: int | None = None
    ) -> None:
        self.ends.append(response)

    def end_failed(self, error: LLMError, *, ended_ns: int | None = None) -> None:
        self.ends.append(error)


def recorded(end: object) -> object:
    """What a span says of an end."""
    if isinstance(end, LLMError):
        return type(end), end.error_type, end.message, end.status_code, end.retryable
    assert isinstance(end, LLMResponse)
    return (
        end.response_id,
        end.response_model,
        end.finish_reasons,
        end.service_tier,
        dict(end.price_conditions),
        end.usage,
        end.reported_cost,
        end.request_id,
    )


def read(wire: Wire, pieces: Iterable[bytes], *, is_left: bool = False) -> tuple[object, int]:
    """What a span gets of a stream, and how many chunks are measured."""
    call = Call(Seen(wire))
    tap = Tap(cast("Any", call), 200, HEADERS, is_decoded=True, on_cut=lambda error: None)
    for piece in pieces:
        tap.feed(piece)
    if is_left:
        tap.close()
    else:
        tap.end()
    (end,) = call.ends
    return recorded(end), call.chunks


def in_full(wire: Wire) -> Wire:
    """The same format with a reader of another class, for which there are no rules: every event is read."""

    def new_reader() -> object:
        reader: object = wire.new_reader()
        reader.__class__ = type("Full", (type(reader),), {})
        return reader

    return replace(wire, new_reader=new_reader)


def events_of(case: Conforming) -> list[bytes]:
    """The stream with each event that is neither the first nor among the last repeated, and the mark of its end."""
    first, *between = case.pieces[: -case.end]
    return [first, *(event for event in between for _ in range(REPEATED)), *case.pieces[-case.end :], case.mark]


def halves(stream: bytes) -> Iterable[list[bytes]]:
    """The stream cut in two at every place."""
    return ([stream[:at], stream[at:]] for at in range(1, len(stream)))


def cuts(stream: bytes) -> Iterable[list[bytes]]:
    """The stream in parts of every odd size."""
    return ([stream[at : at + size] for at in range(0, len(stream), size)] for size in (1, 2, 3, 7, 50, 97, 211, 1_000))


@pytest.mark.parametrize("name", CASES)
def test_event_by_event(name: str) -> None:
    """Ids, models, tokens, reasons and the number of chunks are those of the full reader."""
    case, wire = CASES[name]
    assert read(wire, events_of(case)) == read(in_full(wire), events_of(case))


@pytest.mark.parametrize("ending", [b"\n", b"\r\n", b"\r"])
@pytest.mark.parametrize("name", CASES)
def test_any_cut_and_any_line_ending(name: str, ending: bytes) -> None:
    """It makes no difference where the network cuts the bytes, nor how lines end."""
    case, wire = CASES[name]
    if name in FRAMED and ending != b"\n":
        pytest.skip("frames have no lines")
    stream = b"".join(events_of(case)).replace(b"\n", ending)
    expected, _ = read(in_full(wire), [stream])
    for pieces in cuts(stream):
        assert read(wire, pieces)[0] == expected, len(pieces[0])


@pytest.mark.parametrize("name", CASES)
def test_cut_in_two(name: str) -> None:
    """The same for a cut at every place of the stream as the provider sends it."""
    case, wire = CASES[name]
    expected, _ = read(in_full(wire), [case.stream])
    for pieces in halves(case.stream):
        assert read(wire, pieces)[0] == expected


@pytest.mark.parametrize("name", CASES)
def test_streams_that_break_off(name: str) -> None:
    """A stream that ends after any of its events, and one that its reader leaves there."""
    case, wire = CASES[name]
    events = events_of(case)
    for count in range(1, len(events)):
        assert read(wire, events[:count])[0] == read(in_full(wire), events[:count])[0], count
        assert read(wire, events[:count], is_left=True)[0] == read(in_full(wire), events[:count], is_left=True)[0], (
            count
        )


@pytest.mark.parametrize("name", CASES)
def test_errors_in_the_middle(name: str) -> None:
    """An error of the provider, an unknown event, a comment, and lines that are no JSON."""
    case, wire = CASES[name]
    events = events_of(case)
    for other in (case.frame(*case.failure), case.frame(*case.unknown), case.keep_alive, b"data: oops\n\n"):
        stream = [*events[:20], other, *events[20:]]
        assert read(wire, stream)[0] == read(in_full(wire), stream)[0], other


def _chat(**fields: Any) -> bytes:
    return f"data: {json.dumps({'id': 'c', 'model': 'm', **fields}, separators=(',', ':'))}\n\n".encode()


def _said(text: str, **more: Any) -> Mapping[str, Any]:
    return {"index": 0, "delta": {"content": text}, "finish_reason": None, **more}


WORDS = [_chat(choices=[_said(f"word {n}")], usage=None) for n in range(5)]
BEGINNING = [
    _chat(choices=[_said("a")], usage=None),
    *(_chat(choices=[_said(f"word {n}")], usage=None) for n in range(5)),
]
ENDING = [_chat(choices=[{"index": 0, "delta": {}, "finish_reason": "stop"}], usage=None), b"data: [DONE]\n\n"]
MIDDLES: dict[str, list[bytes]] = {
    "totals in each chunk": [
        _chat(choices=[_said(f"w{n}")], usage={"prompt_tokens": 9, "completion_tokens": n}) for n in range(9)
    ],
    "totals that name less later": [
        _chat(choices=[_said("x")], usage={"prompt_tokens": 9, "completion_tokens": 1, "prompt_cache_hit_tokens": 4}),
        _chat(choices=[_said("y")], usage={"prompt_tokens": 9, "completion_tokens": 2}),
    ],
    "totals of Groq": [_chat(choices=[_said("x")], x_groq={"usage": {"prompt_tokens": 9, "completion_tokens": 2}})],
    "totals in a choice": [_chat(choices=[_said("x", usage={"prompt_tokens": 9, "completion_tokens": 2})], usage=None)],
    "a reason behind a quotation mark": [_chat(choices=[_said('say "}],"finish_reason":"length"')], usage=None)],
    "the words in the text": [_chat(choices=[_said('"usage": {"prompt_tokens": 5} "error" [DONE]')], usage=None)],
    "a text that ends in a backslash": [
        _chat(choices=[_said("C:\\")], usage=None),
        _chat(choices=[_said("\\")], usage=None),
    ],
    "a second choice": [_chat(choices=[_said("b", index=1)], usage=None)],
    "three choices, of which one is cut": [
        *(_chat(choices=[_said("b", index=index)], usage=None) for index in (0, 1, 2)),
        *(_chat(choices=[_said("", index=index, finish_reason="stop")], usage=None) for index in (0, 1)),
    ],
    "three choices": [
        *(_chat(choices=[_said("b", index=index)], usage=None) for index in (0, 1, 2)),
        *(_chat(choices=[_said("", index=index, finish_reason="stop")], usage=None) for index in (2, 1)),
    ],
    "no text at all": [_chat(choices=[_said("b", delta={"content": None, "refusal": "no"})], usage=None)],
    "null before a text": [_chat(choices=[_said("", delta={"content": None, "reasoning": "b"})], usage=None)],
    "a text that looks like another": [_chat(choices=[_said('x","reasoning":"y')], usage=None)],
    "two texts": [_chat(choices=[_said("", delta={"content": "a", "reasoning": "b"})], usage=None) for _ in range(3)],
    "arguments of two calls": [
        _chat(choices=[_said("", delta={"tool_calls": [{"index": at, "function": {"arguments": "{"}}]})], usage=None)
        for at in (0, 1, 0, 1)
    ],
    "an error beside choices": [_chat(choices=[_said("b")], error={"message": "Overloaded", "type": "server_error"})],
    "an error of null": [_chat(choices=[_said("b")], error=None) for _ in range(3)],
    "a reason in a piece": [_chat(choices=[_said("b", finish_reason="length")], usage=None)],
}


@pytest.mark.parametrize("name", MIDDLES)
@pytest.mark.parametrize("is_at_once", [False, True])
def test_chunks_that_hold_more_than_text(name: str, is_at_once: bool) -> None:
    """What stands in the middle of a stream of Chat Completions counts, also where texts imitate it."""
    stream = [*BEGINNING, *MIDDLES[name], *WORDS, *ENDING]
    pieces = [*BEGINNING, b"".join(stream[len(BEGINNING) :])] if is_at_once else stream
    assert read(chat_wire(), pieces)[0] == read(in_full(chat_wire()), pieces)[0]


def test_openais_padding() -> None:
    """Random letters at the end of each chunk, as OpenAI sends them."""
    stream = [_chat(choices=[_said(f"word {n}")], usage=None, obfuscation="x" * (n % 7)) for n in range(40)] + [
        _chat(choices=[], usage={"prompt_tokens": 3, "completion_tokens": 4}, obfuscation="ab"),
        *ENDING,
    ]
    assert read(chat_wire(), stream) == read(in_full(chat_wire()), stream)


@pytest.mark.parametrize("name", CASES)
def test_pieces_are_dropped(name: str) -> None:
    """The formats have rules, and the other side of these comparisons has none."""
    wire = CASES[name][1]
    assert lean_decoder(wire) is not None
    assert lean_decoder(in_full(wire)) is None


def test_every_format_is_read_leanly_or_in_full() -> None:
    """A format of the other providers is one of these."""
    assert {case.stream for case, _ in CASES.values()} >= {case.stream for case in EVERY}


MANY = 100_000
"""Chunks of a stream of two hours."""
TRACED = 4_000
"""Those whose memory is measured, which takes ten times as long."""


@pytest.mark.slow
@pytest.mark.parametrize("name", ["chat", "responses", "messages", "gemini", "converse", "invoked claude"])
def test_a_stream_of_two_hours(name: str) -> None:
    """A hundred thousand chunks hold a few KiB, where their text alone would be megabytes, and each is measured."""
    case, wire = CASES[name]
    *events, last = case.pieces[: -case.end]
    ends = case.pieces[-case.end :]
    call = Call(Seen(wire))
    tap = Tap(cast("Any", call), 200, HEADERS, is_decoded=True, on_cut=lambda error: None)
    piece = b""
    for event in events:
        before = call.chunks
        tap.feed(event)
        piece = event if call.chunks > before else piece
    before = call.chunks
    for _ in range(MANY - TRACED):
        tap.feed(piece)
    tracemalloc.start()
    try:
        for _ in range(TRACED):
            tap.feed(piece)
        assert tracemalloc.get_traced_memory()[1] < 32 * 1024
    finally:
        tracemalloc.stop()
    assert call.chunks == before + MANY
    for event in (last, *ends, case.mark):
        tap.feed(event)
    tap.end()
    assert len(call.ends) == 1
    assert recorded(call.ends[0]) == read(wire, [*case.pieces, case.mark])[0]
