"""Lean reading of AWS event streams: frames that hold a piece of text are told by their bytes, and dropped.

A frame is its length and that of its headers, a checksum, the headers, the payload and another checksum. The checksums
of what is dropped are not looked at.
"""

from __future__ import annotations

import binascii
import struct
from collections.abc import Iterator

from ..ai.llm.providers._sse import ServerSentEvent
from ..ai.llm.providers._wire_format import StreamDecoder
from .lean import Rules, Sieve

_PRELUDE = struct.Struct(">II")
_PRELUDE_LENGTH = 12
"""Two lengths and their checksum."""
_CHECKSUM_LENGTH = 4
_MAX_FRAME = 25 * 2**20
"""Bytes; more is no length of a frame."""
_DELTA = b"contentBlockDelta"
"""The name of Converse's events with pieces."""
_CHUNK = b"\x05chunk"
"""The name of InvokeModel's events, with its length."""
_BYTES = b'"bytes":"'
"""Before an event of the model in such a frame, in base64."""
_SEPARATOR = b"\n\n"
_NOTHING_DROPPED = Rules(piece=b"\0", output=())

CONVERSE = Rules(piece=_DELTA, output=(_DELTA,))
"""Nova's events inside InvokeModel's frames have Converse's names as keys."""


class LeanFrames:
    """Decodes those events of an AWS event stream that are kept.

    Args:
        decoder: decodes frames.
    """

    def __init__(self, decoder: StreamDecoder) -> None:
        self._decoder = decoder
        self._rest = bytearray()
        self.sieve = Sieve(_NOTHING_DROPPED, _SEPARATOR)

    def drops(self, data: bytes) -> bool:
        """Never: whether bytes are one whole frame only shows when they are cut."""
        return False

    def feed(self, data: bytes) -> list[ServerSentEvent]:
        """The events that are complete now, and kept."""
        self._rest += data
        return [event for frame, headers_end in self._frames() for event in self._kept(frame, headers_end)]

    def _frames(self) -> Iterator[tuple[bytes, int]]:
        """Each frame that is complete, with the end of its headers."""
        at, length = 0, len(self._rest)
        while length - at >= _PRELUDE_LENGTH:
            size, headers = _PRELUDE.unpack_from(self._rest, at)
            if not _PRELUDE_LENGTH + _CHECKSUM_LENGTH <= size <= _MAX_FRAME:
                size = length - at  # no frame: the decoder says what is wrong
            if length - at < size:
                break
            yield bytes(self._rest[at : at + size]), _PRELUDE_LENGTH + headers
            at += size
        del self._rest[:at]

    def _kept(self, frame: bytes, headers_end: int) -> list[ServerSentEvent]:
        if not self.sieve.is_open and _DELTA in frame[_PRELUDE_LENGTH:headers_end]:
            self.sieve.has_output = True
            return []
        return list(self._decoder.feed(frame))

    def end(self) -> list[ServerSentEvent]:
        """What was held back; an incomplete frame is no event."""
        return []


class LeanChunks(LeanFrames):
    """Decodes those of a model's own events that are kept, which InvokeModel's frames hold in base64.

    Args:
        decoder: decodes frames.
        rules: those of each format, by a word in its first event; the first word that is found counts.
    """

    def __init__(self, decoder: StreamDecoder, rules: dict[bytes, Rules]) -> None:
        super().__init__(decoder)
        self._rules = rules
        self._is_first = True

    def _kept(self, frame: bytes, headers_end: int) -> list[ServerSentEvent]:
        inner = _inner(frame, headers_end)
        if inner is None:
            return list(self._decoder.feed(frame))
        if self._is_first:
            self._is_first = False
            found = next((rules for word, rules in self._rules.items() if word in inner), _NOTHING_DROPPED)
            self.sieve = Sieve(found, _SEPARATOR)
        return _events_in(self.sieve.kept(inner))

    def end(self) -> list[ServerSentEvent]:
        """What was held back; an incomplete frame is no event."""
        held = _events_in(self.sieve.held())
        self.sieve.is_open = True
        return held


def _inner(frame: bytes, headers_end: int) -> bytes | None:
    """The model's own event in a frame; `None` where it holds none, or one that only the decoder can read."""
    if _CHUNK not in frame[_PRELUDE_LENGTH:headers_end]:
        return None
    _, found, rest = frame[headers_end:-_CHECKSUM_LENGTH].replace(b'"bytes": "', _BYTES).partition(_BYTES)
    try:
        inner = binascii.a2b_base64(rest.partition(b'"')[0], strict_mode=True) if found else b""
    except binascii.Error:
        return None
    return inner if inner and _SEPARATOR not in inner else None


def _events_in(kept: bytes) -> list[ServerSentEvent]:
    return [ServerSentEvent("", part) for part in kept.split(_SEPARATOR)] if kept else []
