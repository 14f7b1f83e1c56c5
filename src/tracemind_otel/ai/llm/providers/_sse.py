"""Server-sent events and JSON lines, decoded from bytes as they come.

A reply may be split at any byte: within a line ending, within a character, within a byte order mark. So lines are
split as bytes and decoded whole, and only CR, LF and CRLF end a line: U+2028 and its like occur inside JSON.
Source: WHATWG HTML, "Server-sent events", 9.2.6 (interpreting an event stream).
"""

from __future__ import annotations

from dataclasses import dataclass

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class LineSplitter:
    """Splits bytes into lines, wherever they are cut."""

    def __init__(self) -> None:
        self._rest: list[bytes] = []
        self._is_first = True
        self._ignore_newline = False

    def feed(self, data: bytes) -> list[bytes]:
        """The lines that are complete now, without their endings."""
        if self._ignore_newline and data:
            self._ignore_newline = False
            if data.startswith(b"\n"):
                data = data[1:]
        if b"\r" in data:
            # A CR at the end may be half of a CRLF: the line ends now, and an LF that follows belongs to it.
            self._ignore_newline = data.endswith(b"\r")
            data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        first, *others = data.split(b"\n")
        # A list, since joining at every piece costs the square of a long line's length.
        self._rest.append(first)
        if not others:
            return []
        lines = [b"".join(self._rest), *others]
        self._rest = [lines.pop()]
        if self._is_first:
            self._is_first = False
            lines[0] = lines[0].removeprefix(_BYTE_ORDER_MARK)
        return lines

    def end(self) -> list[bytes]:
        """The last line, if the bytes ended without a line ending."""
        rest, self._rest = b"".join(self._rest), []
        return [rest.removeprefix(_BYTE_ORDER_MARK) if self._is_first else rest] if rest else []


@dataclass(slots=True)  # not frozen: one is made for each chunk, and frozen ones take three times as long
class ServerSentEvent:
    """One event of a stream."""

    name: str
    """Its `event` field; `message` where there is none."""
    data: bytes
    """Its `data` lines, joined by newlines."""


class EventDecoder:
    """Turns the bytes of an event stream into events."""

    def __init__(self) -> None:
        self._lines = LineSplitter()
        self._name = b""
        self._data: list[bytes] = []

    def feed(self, data: bytes) -> list[ServerSentEvent]:
        """The events that are complete now."""
        return self._take(self._lines.feed(data))

    def end(self) -> list[ServerSentEvent]:
        """The last event, if the stream ended without the blank line after it."""
        return self._take([*self._lines.end(), b""])

    def _take(self, lines: list[bytes]) -> list[ServerSentEvent]:
        events: list[ServerSentEvent] = []
        pending = self._data
        for line in lines:
            if not line:
                if len(pending) == 1 and not self._name and pending[0]:
                    # Nearly every event of most streams: one line of data and nothing else.
                    events.append(ServerSentEvent("message", pending.pop()))
                elif pending or self._name:
                    self._dispatch(events)
            elif line.startswith(b"data: "):
                pending.append(line[6:])
            elif line.startswith(b"data:"):
                pending.append(line[5:])
            elif line.startswith(b"event:"):
                self._name = line[6:].removeprefix(b" ")
            elif line == b"data":
                pending.append(b"")
        return events

    def _dispatch(self, events: list[ServerSentEvent]) -> None:
        data = b"\n".join(self._data)
        self._data.clear()
        name, self._name = self._name, b""
        if data:
            events.append(ServerSentEvent(name.decode("utf-8", "replace") if name else "message", data))


class JsonLinesDecoder:
    """Turns the bytes of a stream of JSON documents, one a line, into events."""

    def __init__(self) -> None:
        self._lines = LineSplitter()

    def feed(self, data: bytes) -> list[ServerSentEvent]:
        """The events that are complete now."""
        return [ServerSentEvent("message", line) for line in self._lines.feed(data) if line.strip()]

    def end(self) -> list[ServerSentEvent]:
        """The last event, if the stream ended without a line ending."""
        return [ServerSentEvent("message", line) for line in self._lines.end() if line.strip()]
