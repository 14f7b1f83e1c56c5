"""Server-sent events and JSON lines, cut anywhere. Source: WHATWG HTML, 9.2.6."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tracemind_otel.ai.llm.providers._sse import EventDecoder, JsonLinesDecoder, ServerSentEvent


def decode(*pieces: bytes) -> list[tuple[str, bytes]]:
    """The events in the pieces, with those that come at the end."""
    decoder = EventDecoder()
    events = [event for piece in pieces for event in decoder.feed(piece)]
    return [(event.name, event.data) for event in [*events, *decoder.end()]]


def cut(body: bytes, positions: list[int]) -> list[bytes]:
    """The body in pieces that end at the positions."""
    ends = sorted({position % (len(body) + 1) for position in positions})
    return [body[start:end] for start, end in zip([0, *ends], [*ends, len(body)], strict=True)]


MESSAGE = "message"
CASES: dict[str, tuple[bytes, list[tuple[str, bytes]]]] = {
    "lf": (b"data: a\n\ndata: b\n\n", [(MESSAGE, b"a"), (MESSAGE, b"b")]),
    "crlf": (b"data: a\r\n\r\ndata: b\r\n\r\n", [(MESSAGE, b"a"), (MESSAGE, b"b")]),
    "cr": (b"data: a\r\rdata: b\r\r", [(MESSAGE, b"a"), (MESSAGE, b"b")]),
    "mixed": (b"data: a\r\n\ndata: b\r\r\ndata: c\n\r\n", [(MESSAGE, b"a"), (MESSAGE, b"b"), (MESSAGE, b"c")]),
    "comments": (b": PROCESSING\n\n:\ndata: a\n: between\n\n:\n\n", [(MESSAGE, b"a")]),
    "keep-alive": (b"\n\n\n\ndata: a\n\n\n\n", [(MESSAGE, b"a")]),
    "bom": (b"\xef\xbb\xbfdata: a\n\n", [(MESSAGE, b"a")]),
    "bom-alone": (b"\xef\xbb\xbf\n\ndata: a", [(MESSAGE, b"a")]),
    "bom-unended": (b"\xef\xbb\xbfdata: a", [(MESSAGE, b"a")]),
    "bom-later": (b"data: a\n\n\xef\xbb\xbfdata: b\n\n", [(MESSAGE, b"a")]),
    "two-boms": (b"\xef\xbb\xbf\xef\xbb\xbfdata: a\n\n", []),
    "utf-8": ("data: é€😀\n\n".encode(), [(MESSAGE, "é€😀".encode())]),
    "no-line-ends": (
        "data: a\u2028b\u2029c\u0085d\x0be\x0cf\x1c\n\n".encode(),
        [(MESSAGE, "a\u2028b\u2029c\u0085d\x0be\x0cf\x1c".encode())],
    ),
    "several-data": (b"data: a\ndata:b\ndata\ndata:  c\n\n", [(MESSAGE, b"a\nb\n\n c")]),
    "name": (b"event: error\ndata: a\n\ndata: b\n\n", [("error", b"a"), (MESSAGE, b"b")]),
    "name-after": (b"data: a\nevent:ping\n\n", [("ping", b"a")]),
    "name-alone": (b"event: ping\n\ndata: a\n\n", [(MESSAGE, b"a")]),
    "bad-name": (b"event: \xff\ndata: a\n\n", [("\N{REPLACEMENT CHARACTER}", b"a")]),
    "id-and-retry": (b"id: 1\nretry: 5\ndata: a\n\n", [(MESSAGE, b"a")]),
    "comment-after-id": (b"id: 1\ndata: a\n\n: ping\n\ndata: b\n\n", [(MESSAGE, b"a"), (MESSAGE, b"b")]),
    "id-alone": (b"id: 1\n\n: ping\n\n", []),
    "no-blank-line": (b"data: a\n\ndata: [DONE]", [(MESSAGE, b"a"), (MESSAGE, b"[DONE]")]),
    "no-last-newline": (b"data: a\n", [(MESSAGE, b"a")]),
    "empty-data": (b"data:\n\ndata: \n\ndata\n\ndata: a\n\n", [(MESSAGE, b"a")]),
    "unknown-field": (b"dat: x\ndatas: y\n data: z\ndata: a\n\n", [(MESSAGE, b"a")]),
    "colons": (b"data: a: b\n\ndata::\n\n", [(MESSAGE, b"a: b"), (MESSAGE, b":")]),
    "nothing": (b"", []),
}


@pytest.mark.parametrize("name", CASES)
def test_events(name: str) -> None:
    """Each shape of stream gives its events: whole, a byte at a time, and cut in two at every byte."""
    body, expected = CASES[name]

    assert decode(body) == expected
    assert decode(*(body[at : at + 1] for at in range(len(body)))) == expected
    assert all(decode(body[:at], b"", body[at:]) == expected for at in range(len(body) + 1))


lines = st.sampled_from(
    [b"data: a", b"data:", b"data: \xe2\x82\xac", b"event: e", b"id: 1", b": c", b"", b"data", b"x", b"\xef\xbb\xbf"]
)
endings = st.sampled_from([b"\n", b"\r\n", b"\r"])
bodies = st.lists(st.tuples(lines, endings), max_size=12).map(lambda parts: b"".join(a + b for a, b in parts))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(bodies | st.binary(max_size=40), st.lists(st.integers(0, 200), max_size=8))
def test_any_split_gives_the_same_events(body: bytes, positions: list[int]) -> None:
    """However the bytes are cut, the events are the same."""
    assert decode(*cut(body, positions)) == decode(body)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.text(st.characters(exclude_characters="\r\n"), min_size=1), max_size=5), endings)
def test_what_is_sent_is_read(texts: list[str], ending: bytes) -> None:
    """Every text without a line ending is read unchanged."""
    clean = [text.encode("utf-8", "surrogatepass") for text in texts]
    body = b"".join(b"data: " + text + ending + ending for text in clean)

    assert decode(body) == [("message", text) for text in clean]


def test_an_event_comes_with_its_blank_line() -> None:
    """An event is complete with its blank line, also where that is a CR that may begin a CRLF."""
    decoder = EventDecoder()

    assert decoder.feed(b"data: a\r\n") == []
    assert decoder.feed(b"\r") == [ServerSentEvent("message", b"a")]
    assert decoder.feed(b"\ndata: b\n\n") == [ServerSentEvent("message", b"b")]
    assert decoder.end() == []


def test_a_long_line_in_many_pieces() -> None:
    """A line of megabytes in small pieces is joined once."""
    lines = JsonLinesDecoder()

    assert not any(lines.feed(b"x" * 100) for _ in range(30_000))
    assert lines.feed(b"\n") == [ServerSentEvent("message", b"x" * 3_000_000)]
    assert lines.end() == []


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.integers(0, 60), max_size=8))
def test_json_lines(positions: list[int]) -> None:
    """Each JSON line is an event; blank lines, a byte order mark and a missing last line ending do no harm."""
    body = '\ufeff{"a": "\u2028é"}\r\n\n  \r{"b": 1}'.encode()
    lines = JsonLinesDecoder()
    events = [event for piece in cut(body, positions) for event in lines.feed(piece)] + lines.end()

    assert [event.data.decode() for event in events] == ['{"a": "\u2028é"}', '{"b": 1}']
