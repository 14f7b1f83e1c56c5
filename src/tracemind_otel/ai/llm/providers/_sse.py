"""Server-sent events and JSON lines, decoded from bytes as they come.

A reply may be split at any byte: within a line ending, within a character, within a byte order mark. So lines are
split as bytes and decoded whole, and only CR, LF and CRLF end a line: U+2028 and its like occur inside JSON.
Source: WHATWG HTML, "Server-sent events", 9.2.6 (interpreting an event stream).
"""

from __future__ import annotations

import abc
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_NEWLINE, _CARRIAGE_RETURN = b"\n\r"
"""Numbers, which are found eight times as fast as strings of one byte."""
_PLAIN = b"data: "
_PLAIN_BEGINNING = re.compile(b"\n\n" + _PLAIN)
"""Where a block begins with data. Nearly every event of most streams is one line of it and nothing else."""


@dataclass(slots=True)  # not frozen: one is made for each chunk, and frozen ones take three times as long
class ServerSentEvent:
    """One event of a stream."""

    name: str
    """Its `event` field; `message` where there is none."""
    data: bytes
    """Its `data` lines, joined by newlines."""
    document: Mapping[str, Any] | None = None
    """The JSON object that `data` is, where it has been parsed already."""


class _PartDecoder(abc.ABC):
    """Turns the parts of a stream into events. The bytes may be cut at any place."""

    _ending: bytes
    """What ends a part, in newlines."""

    def __init__(self) -> None:
        self._rest = [b""]
        self._is_first = True
        self._ignore_newline = False

    @property
    def _is_between_parts(self) -> bool:
        """Whether what comes next begins a part, and is not the first one."""
        return self._rest == [b""] and not self._is_first and not self._ignore_newline

    @abc.abstractmethod
    def _events_in(self, parts: bytes) -> list[ServerSentEvent]:
        """The events in whole parts, with newlines for every CR and CRLF and without the last ending."""

    def feed(self, data: bytes) -> list[ServerSentEvent]:
        """The events that are complete now."""
        data = self._with_newlines(data)
        if self._ending not in self._rest[-1][-1:] + data:
            if data:
                self._rest.append(data)
            return []
        # Joined only now, since joining at every piece costs the square of a long part's length.
        parts, _, rest = b"".join((*self._rest, data)).rpartition(self._ending)
        self._rest = [rest]
        return self._events_in(self._without_mark(parts))

    def end(self) -> list[ServerSentEvent]:
        """The last event, if the stream ended without the ending after it."""
        rest, self._rest = b"".join(self._rest), [b""]
        return self._events_in(self._without_mark(rest))

    def _with_newlines(self, data: bytes) -> bytes:
        if self._ignore_newline and data:
            self._ignore_newline = False
            data = data.removeprefix(b"\n")
        if _CARRIAGE_RETURN not in data:
            return data
        # A CR at the end may be half of a CRLF: the line ends now, and an LF that follows belongs to it.
        self._ignore_newline = data.endswith(b"\r")
        return data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")

    def _without_mark(self, parts: bytes) -> bytes:
        is_first, self._is_first = self._is_first, False
        return parts.removeprefix(_BYTE_ORDER_MARK) if is_first else parts


class EventDecoder(_PartDecoder):
    """Decodes server-sent events: blocks of lines, with a blank line after each."""

    _ending = b"\n\n"

    def feed(self, data: bytes) -> list[ServerSentEvent]:
        # What comes alone is nearly always one whole event of one line, which is told in a quarter of the time.
        if data.startswith(_PLAIN) and data.find(b"\n\n") == len(data) - 2 and self._is_between_parts:
            line = data[:-2]
            if _NEWLINE not in line and _CARRIAGE_RETURN not in line and len(line) > len(_PLAIN):
                return self._events_in_line(line)
        return super().feed(data)

    def _events_in_line(self, line: bytes) -> list[ServerSentEvent]:
        """As `_events_in`, for a part that is one line of data."""
        return [ServerSentEvent("message", line[len(_PLAIN) :])]

    def _events_in(self, parts: bytes) -> list[ServerSentEvent]:
        events: list[ServerSentEvent] = []
        for part in _PLAIN_BEGINNING.split(b"\n\n" + parts):
            if _NEWLINE in part:
                events += filter(None, map(_event_of, (b"data: " + part).split(b"\n\n")))
            elif part:
                events.append(ServerSentEvent("message", part))
        return events


def _event_of(block: bytes) -> ServerSentEvent | None:
    """The event in the lines of a block; `None` where they have no data."""
    name, data = b"", list[bytes]()
    for line in block.split(b"\n"):
        field, _, value = line.partition(b":")
        if field == b"data":
            data.append(value.removeprefix(b" "))
        elif field == b"event":
            name = value.removeprefix(b" ")
    joined = b"\n".join(data)
    return ServerSentEvent(name.decode("utf-8", "replace") or "message", joined) if joined else None


class JsonLinesDecoder(_PartDecoder):
    """Decodes JSON documents, one a line."""

    _ending = b"\n"

    def _events_in(self, parts: bytes) -> list[ServerSentEvent]:
        return [ServerSentEvent("message", line) for line in parts.split(b"\n") if line.strip()]
