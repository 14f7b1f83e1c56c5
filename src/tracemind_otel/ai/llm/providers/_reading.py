"""The body of a successful reply, read in any of its forms: events, JSON lines or one document.

Servers and proxies may answer a stream with a document, a whole call with events, and give either a wrong content type.
The first bytes tell them apart: no document begins like an event, and no event like a document.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, cast

from ....errors import LLMConnectionError, LLMResponseError
from ..types import LLMResponse, ReasoningDelta, StreamEvent, TextDelta
from ._assembly import call_delta
from ._error_bodies import is_error
from ._error_documents import document_in, parsed
from ._http import HttpReply
from ._sse import EventDecoder, JsonLinesDecoder, ServerSentEvent
from ._wire_format import StreamDecoder, StreamedError, WireFormat, parse_together

_BLANK = b"\xef\xbb\xbf \t\r\n"
_FIELDS = (b"data", b"event", b"id", b"retry", b":")
_JSON = (b"{", b"[")
_TELLING = 6
"""Bytes by which an event is recognized."""
_MEDIA_TYPE = re.compile(r"[\w.+-]{1,64}/[\w.+-]{1,64}")
_MAX_UNREADABLE = 65536
"""Bytes after which a body that is neither events nor JSON is given up."""


class Reading:
    """Puts one reply together as its bytes come: events, JSON lines, or one document that is read at its end.

    Args:
        wire: the format.
        head: the status and the headers; its body is not looked at.
        is_stream: whether a stream was asked for. A reply that was not comes in the format's own framing only where
            its first line is a document of its own.
        decoder: cuts the stream into events, in place of the format's own decoder.
    """

    def __init__(
        self, wire: WireFormat, head: HttpReply, *, is_stream: bool = True, decoder: StreamDecoder | None = None
    ) -> None:
        self._wire = wire
        self.head = head
        self._is_stream = is_stream
        self._reader = wire.new_reader()
        self._own_decoder = decoder or wire.new_decoder()
        self._may_be_lines = not is_stream and isinstance(self._own_decoder, JsonLinesDecoder)
        self._decoder: StreamDecoder | None = None
        self._unread = bytearray()
        """The bytes that came before the decoder was known; all bytes of a document."""
        self._last: ServerSentEvent | None = None
        self._fault: StreamedError | LLMResponseError | None = None
        self._cut: LLMConnectionError | None = None
        self._response: LLMResponse | None = None

    @property
    def has_begun(self) -> bool:
        """Whether an event came."""
        return self._last is not None

    @property
    def has_ended(self) -> bool:
        """Whether the end mark came."""
        return self._reader.has_ended

    @property
    def is_ending(self) -> bool:
        """Whether little more is to come: the finish reason is there, or it is over."""
        return self._fault is not None or self._reader.is_complete

    @property
    def is_over(self) -> bool:
        """Whether nothing more is to be read: the end mark came, or a fault."""
        return self._fault is not None or self._reader.has_ended

    @property
    def is_whole(self) -> bool:
        """Whether nothing is missing, though the bytes broke off: a document, or an end that its usage came with."""
        if self._response is not None:
            return True
        return self._fault is None and self._reader.is_complete and self._reader.response(None).usage.is_whole

    def feed(self, data: bytes) -> list[StreamEvent]:
        """What these bytes add. A fault among them is kept for `finish`, so that what came before it is not lost."""
        batch: list[StreamEvent] = []
        if self._decoder is None:
            self._unread += data if self._unread else data.lstrip(_BLANK)
            self._decoder = self._decoder_for(len(data))
            if self._decoder is None:
                return batch
            data = bytes(self._unread)
        feed = self._reader.feed
        try:
            events = self._decoder.feed(data)
            if len(events) > 1:
                parse_together(events)
            self._last = events[-1] if events else self._last
            for event in events:
                batch += feed(event)
        except (StreamedError, LLMResponseError) as error:
            if not self._reader.has_ended:  # what follows the end is no part of the reply
                self._fault = error
        return batch

    def _decoder_for(self, new: int) -> StreamDecoder | None:
        """What decodes the reply, once its bytes show it, of which so many are new; `None` for a document."""
        start, length = bytes(self._unread[:_TELLING]), len(self._unread)
        is_telling = bool(start) if self._is_stream else len(start) == _TELLING
        if is_telling and length - new < _TELLING and (found := self._decoder_for_start(start)):
            return found
        if self._may_be_lines and b"\n" in self._unread[-new - 1 :] and self._comes_as_lines():
            return self._own_decoder
        if length > _MAX_UNREADABLE and not start.startswith(_JSON):
            self._fault = _unreadable(self.head, length, "the reply is neither JSON nor a stream of events")
        return None

    def _decoder_for_start(self, start: bytes) -> StreamDecoder | None:
        own = self._own_decoder
        if start.startswith(_JSON):
            return own if self._is_stream and isinstance(own, JsonLinesDecoder) else None
        is_of_events = isinstance(own, EventDecoder)
        if any(start.startswith(field[: len(start)]) for field in _FIELDS):
            return own if is_of_events else EventDecoder()
        return None if is_of_events or not self._is_stream or start.startswith(b"<") else own

    def _comes_as_lines(self) -> bool:
        """Whether the first line is a document of its own, which shows once something follows it."""
        first, _, rest = self._unread.partition(b"\n")
        self._may_be_lines = not rest.strip(_BLANK)
        return not self._may_be_lines and first.rstrip().endswith(b"}")

    def end(self, cut: LLMConnectionError | None = None) -> list[StreamEvent]:
        """What the end of the bytes adds: the last event without its ending, or the events of a document.

        Where a cut ended them, `finish` raises it unless nothing is missing.
        """
        self._cut = cut
        if self.is_over:
            return []
        if self._decoder is None:
            return self._end_of_document()
        batch: list[StreamEvent] = []
        try:
            for event in self._decoder.end():
                self._last = event
                batch += self._reader.feed(event)
        except LLMResponseError:
            return batch  # half an event: `finish` finds the stream cut
        except StreamedError as error:
            self._fault = error
        return batch

    def _end_of_document(self) -> list[StreamEvent]:
        body = bytes(self._unread)
        is_cut = self._cut is not None and parsed(body.decode("utf-8", "replace")) is None
        if is_cut or (self._is_stream and not body):
            return []  # `finish` says that the reply was cut
        try:
            self._response = _from_document(self._wire, HttpReply(self.head.status_code, self.head.headers, body))
        except (StreamedError, LLMResponseError) as error:
            self._fault = error
            return []
        return list(_events_of(self._response)) if self._is_stream else []

    def so_far(self) -> LLMResponse:
        """The part of the reply that has come, completed from its headers."""
        said = self._response or (self._fault and self._fault.reply) or self._reader.response(self.head.request_id)
        return said if self._wire.with_headers is None else self._wire.with_headers(said, self.head.headers)

    def events_so_far(self) -> LLMResponse | None:
        """The same for a reply of events; `None` for a document, or where nothing came."""
        return None if self._decoder is None else self.so_far()

    def finish(self) -> LLMResponse:
        """The whole reply.

        Raises:
            StreamedError: the provider reported an error.
            LLMResponseError: something came that cannot be read.
            LLMConnectionError: the stream was cut.
        """
        if self._fault is not None:
            if isinstance(self._fault, LLMResponseError):
                self._fault.retryable = False
            raise self._fault
        is_cut = self._response is None and not self._reader.is_complete
        if is_cut and self._last is not None:
            # A stream that ends too early may say why in a last event of another form.
            body = self._wire.errors_of(parsed(self._last.data.decode("utf-8", "replace").strip()))
            if body.message:
                raise StreamedError(body)
        if self._cut is not None and not self.is_whole:
            raise self._cut
        if is_cut:
            raise LLMConnectionError("the stream was cut before its end", request_id=self.head.request_id)
        return self.so_far()


def _unreadable(reply: HttpReply, length: int, what: str) -> LLMResponseError:
    """The error for a body that cannot be read, with its type and length, and never its content."""
    found = _MEDIA_TYPE.match(reply.headers.get("content-type", ""))
    kind = found.group() if found else "no content type"
    return LLMResponseError(f"{what}; {kind}, {length} bytes came", request_id=reply.request_id, retryable=False)


def _from_document(wire: WireFormat, reply: HttpReply) -> LLMResponse:
    try:
        document: Any = json.loads(reply.body)
        what = "is not a JSON object"
    except (ValueError, RecursionError):  # not chained: the decoder's error holds the whole body
        document, what = None, "is not JSON" if reply.body.strip() else "is empty"
    if not isinstance(document, dict):
        if is_error(body := wire.errors_of(document_in(reply.body))):
            raise StreamedError(body)
        raise _unreadable(reply, len(reply.body), f"the body of the reply {what} (HTTP {reply.status_code})")
    return reply_in_document(wire, cast("dict[str, Any]", document), reply.request_id)


def reply_in_document(
    wire: WireFormat, document: dict[str, Any], request_id: str | None, *, is_for_telemetry: bool = False
) -> LLMResponse:
    """The reply that a whole document is; what telemetry does not record may be left out if it is for that alone.

    Raises:
        StreamedError: it is an error.
        LLMResponseError: it is no reply.
    """
    if document.get("error") and not document.get("choices"):
        # OpenRouter answers some failures with HTTP 200 and an error body.
        failed = wire.failed_reply
        raise StreamedError(wire.errors_of(document), failed and failed(document, request_id))
    try:
        read = (wire.figures_of if is_for_telemetry else None) or wire.from_payload
        return read(document, request_id)
    except LLMResponseError as error:
        if (body := wire.errors_of(document)).message:
            # Words alone do not say whose fault it is. It came whole, and is not asked for again.
            is_telling = is_error(body) or body.type is not None
            raise StreamedError(body if is_telling else replace(body, implied_status=400)) from None
        error.retryable = False  # it came whole, and would come so again
        raise


def _events_of(response: LLMResponse) -> Iterator[StreamEvent]:
    """The deltas that a whole reply would have been streamed as."""
    if response.reasoning:
        yield ReasoningDelta(response.reasoning)
    if response.text:
        yield TextDelta(response.text)
    for index, call in enumerate(response.tool_calls):
        yield call_delta(index, call)
