"""Whole replies: the body is one document, of which telemetry needs the counts and some names.

Replies with embeddings can be many megabytes of numbers, and decoding them would hold up an event loop for a second.
So long arrays of numbers are cut out before a large body is decoded, which changes nothing that is recorded.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, cast

from ..ai.llm.providers._http import HttpReply
from ..ai.llm.providers._reading import Reading, reply_in_document
from ..ai.llm.providers._wire_format import WireFormat
from ..ai.llm.types import LLMResponse
from ..errors import LLMConnectionError

_LARGE = 256 * 1024
"""Bytes of a body above which it is searched for long arrays."""
_LONG = 512
"""Bytes of an array above which it is cut out."""
_PATIENCE = 64
"""Brackets in a row that close no such array, after which the search ends."""

_decoder = json.JSONDecoder()


def reply_in_body(
    wire: WireFormat, status_code: int, headers: Mapping[str, str], body: bytes, *, needs_text: bool = False
) -> LLMResponse:
    """The reply in a body that has come to its end.

    Args:
        wire: the format.
        status_code: the HTTP status, a success.
        headers: the headers.
        body: the body, decompressed.
        needs_text: whether texts and tool calls are needed, and not only what is counted.

    Raises:
        StreamedError: the provider reports an error.
        LLMResponseError: the body is no reply.
        LLMConnectionError: it is a stream of events that ends too early.
    """
    document = _object_in(body)
    if document is None:  # events, lines, or an error in another form
        reading = Reading(wire, HttpReply(status_code, headers, b""), is_stream=False)
        reading.feed(body)
        reading.end()
        return reading.finish()
    reply = reply_in_document(wire, document, None, is_for_telemetry=not needs_text)
    return reply if wire.with_headers is None else wire.with_headers(reply, headers)


def _object_in(body: bytes) -> dict[str, Any] | None:
    """The JSON object that a body is, without long arrays where it is large; `None` where it is none."""
    lean = without_long_arrays(body) if len(body) > _LARGE else body
    try:
        text = lean.decode()
        document, end = _decoder.raw_decode(text)  # without the search for white space, which most bodies have none of
        if end != len(text):
            document = _decoder.decode(text)
    except (ValueError, RecursionError):
        return None
    return cast("dict[str, Any]", document) if isinstance(document, dict) else None


def without_long_arrays(body: bytes) -> bytes:
    """The document with long arrays of numbers emptied. What is not JSON stays so.

    No quotation mark stands between the brackets that are cut at. So both are in one string or none is, and the
    document stays as valid as it was.
    """
    pieces: list[bytes] = []
    kept = at = missed = 0
    while missed < _PATIENCE and (end := body.find(b"]", at)) >= 0:
        start = body.rfind(b"[", at, end)
        if start >= 0 and end - start > _LONG and body.find(b'"', start, end) < 0:
            pieces.append(body[kept : start + 1])
            kept, missed = end, 0
        else:
            missed += 1
        at = end + 1
    return b"".join((*pieces, body[kept:])) if pieces else body


class WholeReading:
    """Collects the pieces of a body, which is read at its end.

    Args:
        wire: the format.
        head: the status and the headers; its body is not looked at.
        needs_text: as of `reply_in_body`.
    """

    def __init__(self, wire: WireFormat, head: HttpReply, *, needs_text: bool = False) -> None:
        self._wire = wire
        self._needs_text = needs_text
        self.head = head
        self._pieces: list[bytes] = []
        self._otherwise: Reading | None = None
        """Reads what is no JSON object, as it comes."""
        self._cut: LLMConnectionError | None = None

    @property
    def is_over(self) -> bool:
        """Whether nothing more is to be read."""
        return self._otherwise is not None and self._otherwise.is_over

    @property
    def is_ending(self) -> bool:
        """Whether little more is to come."""
        return self._otherwise is not None and self._otherwise.is_ending

    def feed(self, data: bytes) -> None:
        """Read some bytes."""
        if self._otherwise is None and not self._pieces:
            data = data.lstrip()
            if data and not data.startswith(b"{"):
                self._otherwise = self._new_reading()
        if self._otherwise is not None:
            self._otherwise.feed(data)
        elif data:
            self._pieces.append(data)

    def end(self, cut: LLMConnectionError | None = None) -> None:
        """The bytes have ended, by themselves or because they were cut."""
        self._cut = cut
        if self._otherwise is not None:
            self._otherwise.end(cut)

    def finish(self) -> LLMResponse:
        """The whole reply.

        Raises:
            StreamedError: the provider reports an error.
            LLMResponseError: the body is no reply.
            LLMConnectionError: it was cut.
        """
        if self._otherwise is not None:
            return self._otherwise.finish()
        body = b"".join(self._pieces)
        if self._cut is not None and _object_in(body) is None:
            raise self._cut
        head = self.head
        return reply_in_body(self._wire, head.status_code, head.headers, body, needs_text=self._needs_text)

    def so_far(self) -> LLMResponse:
        """What is known before the end of the body: next to nothing."""
        return (self._otherwise or self._new_reading()).so_far()

    def _new_reading(self) -> Reading:
        return Reading(self._wire, self.head, is_stream=False)
