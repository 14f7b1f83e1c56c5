"""The body of a successful reply, read in whatever form it came: events, JSON lines or one document.

Servers and the proxies before them answer a stream with a document, a whole call with events, and name either by the
wrong content type. The first bytes tell them apart: no document begins like an event, and no event like a document.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace

from ....errors import LLMConnectionError, LLMResponseError
from ..types import LLMResponse, ReasoningDelta, StreamEvent, TextDelta
from ._assembly import call_delta
from ._error_bodies import is_error, json_object
from ._error_documents import document_in, parsed
from ._http import HttpReply
from ._sse import EventDecoder, JsonLinesDecoder, ServerSentEvent
from ._wire_format import StreamDecoder, StreamedError, WireFormat, parse_together

_BLANK = b"\xef\xbb\xbf \t\r\n"
_FIELDS = (b"data", b"event", b"id", b"retry", b":")
_TELLING = 6
"""Bytes that tell an event from whatever else."""
_MEDIA_TYPE = re.compile(r"[\w.+-]{1,64}/[\w.+-]{1,64}")
_MAX_UNREADABLE = 65536
"""Bytes after which a stream that is none is given up."""


class WholeReading:
    """Reads the reply to a whole call, which ends with its bytes; where it comes as events, at their end mark.

    Args:
        wire: the format.
        head: the status and the headers; its body is not looked at.
    """

    def __init__(self, wire: WireFormat, head: HttpReply) -> None:
        self._wire, self._head = wire, head
        self._body: list[bytes] = []
        self._start = b""
        self._may_be_lines = isinstance(wire.new_decoder(), JsonLinesDecoder)
        self.events: Reading | None = None
        """What reads the reply where it comes as events."""

    @property
    def is_whole(self) -> bool:
        """Whether nothing is missing, though the bytes broke off."""
        if self.events is not None:
            return self.events.is_whole
        try:
            json_object(replace(self._head, body=b"".join(self._body)))
        except LLMResponseError:
            return False
        return True

    def feed(self, data: bytes) -> None:
        """Take the next bytes."""
        if self.events is not None:
            self.events.feed(data)
            return
        self._body.append(data)
        if self._comes_as_events(data):
            self.events = Reading(self._wire, self._head)
            self.events.feed(b"".join(self._body))

    def _comes_as_events(self, data: bytes) -> bool:
        if len(self._start) == _TELLING:
            return self._may_be_lines and b"\n" in data and self._is_lines()
        self._start = (self._start + data).lstrip(_BLANK)[:_TELLING]
        return len(self._start) == _TELLING and (
            decoder_for(self._start, EventDecoder()) is not None or (self._may_be_lines and self._is_lines())
        )

    def _is_lines(self) -> bool:
        """Whether the first line is a document of its own; no line after the second tells otherwise."""
        body = b"".join(self._body).lstrip(_BLANK)
        self._may_be_lines = not body.partition(b"\n")[2].strip(_BLANK)
        return not self._may_be_lines and _has_more_lines(body)

    def so_far(self) -> LLMResponse | None:
        """The reply as far as it came; `None` where it comes as one document."""
        return None if self.events is None else self.events.so_far()

    def finish(self) -> LLMResponse:
        """The reply, once all bytes have come or it is over.

        Raises:
            StreamedError: the body is an error, in spite of its status.
            LLMResponseError: it cannot be read, which another try would not mend.
            LLMConnectionError: it came as events and was cut.
        """
        if self.events is None:
            return whole_reply(self._wire, replace(self._head, body=b"".join(self._body)))
        self.events.end()
        return self.events.finish()


def whole_reply(wire: WireFormat, reply: HttpReply) -> LLMResponse:
    """The reply to a whole call whose bytes have all come; raises as `WholeReading.finish` does."""
    if _is_document(wire, reply.body):
        return _from_document(wire, reply)
    reading = Reading(wire, reply)
    reading.feed(reply.body)
    reading.end()
    return reading.finish()


class Reading:
    """Puts one streamed body together, as its bytes come.

    Args:
        wire: the format.
        head: the status and the headers; its body is not looked at.
    """

    def __init__(self, wire: WireFormat, head: HttpReply) -> None:
        self._wire, self._head = wire, head
        self._reader = wire.new_reader()
        self._decoder: StreamDecoder | None = None
        self._last: ServerSentEvent | None = None
        self._unread: list[bytes] = []
        self._fault: StreamedError | LLMResponseError | None = None
        self._cut: LLMConnectionError | None = None
        self._response: LLMResponse | None = None

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
        if self._decoder is None:
            if not (data := data if self._unread else data.lstrip(_BLANK)):
                return []
            self._unread.append(data)
            data = self._first_bytes()
            if self._decoder is None:
                return []
        return self._take(self._decoder, data)

    def _first_bytes(self) -> bytes:
        """The bytes to decode, once it shows what decodes them."""
        if len(self._unread) > 1 and sum(map(len, self._unread)) > _MAX_UNREADABLE and not self._is_json:
            self._fault = unreadable(self._head, sum(map(len, self._unread)), "the reply is no stream of events")
            return b""
        self._decoder = decoder_for(self._start, self._wire.new_decoder())
        if self._decoder is None:
            return b""
        data, self._unread = b"".join(self._unread), []
        return data

    @property
    def _start(self) -> bytes:
        return b"".join(self._unread[:8])[:8]

    @property
    def _is_json(self) -> bool:
        return self._start.startswith((b"{", b"["))

    def _take(self, decoder: StreamDecoder, data: bytes) -> list[StreamEvent]:
        batch: list[StreamEvent] = []
        feed = self._reader.feed
        try:
            events = decoder.feed(data)
            if len(events) > 1:
                parse_together(events)
            self._last = events[-1] if events else self._last
            for event in events:
                batch += feed(event)
        except (StreamedError, LLMResponseError) as error:
            if not self._reader.has_ended:  # what follows the end is no part of the reply
                self._fault = error
        return batch

    def end(self) -> list[StreamEvent]:
        """What the end of the bytes adds: the last event without its ending, or the events of a document."""
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

    def break_off(self, error: LLMConnectionError) -> list[StreamEvent]:
        """What the end of the bytes adds where the connection broke. That is a fault unless nothing is missing."""
        self._cut = error
        return self.end()

    def _end_of_document(self) -> list[StreamEvent]:
        body = b"".join(self._unread)
        reply = HttpReply(self._head.status_code, self._head.headers, body)
        if not body:
            return []
        try:
            self._response = _from_document(self._wire, reply)
        except (StreamedError, LLMResponseError) as error:
            self._fault = error
            return []
        return list(_events_of(self._response))

    def so_far(self) -> LLMResponse:
        """The reply as far as it has come."""
        said = self._response or (self._fault and self._fault.reply)
        return said or self._reader.response(self._head.request_id)

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
        self._raise_last_words()
        if self._cut is not None and not self.is_whole:
            raise self._cut
        if self._response is None and not self._reader.is_complete:
            raise LLMConnectionError("the stream was cut before its end", request_id=self._head.request_id)
        return self.so_far()

    def _raise_last_words(self) -> None:
        """A stream that ends too early may say why, in a last event that is none of the format's."""
        if self._response is None and self._last is not None and not self._reader.is_complete:
            body = self._wire.errors_of(parsed(self._last.data.decode("utf-8", "replace").strip()))
            if body.message:
                raise StreamedError(body)


def decoder_for(start: bytes, own: StreamDecoder) -> StreamDecoder | None:
    """What decodes a stream that begins so; `None` where it is a document, or nothing that streams."""
    begins_like_event = start != b"" and any(start.startswith(field[: len(start)]) for field in _FIELDS)
    if isinstance(own, EventDecoder):
        return own if begins_like_event else None
    if begins_like_event:
        return EventDecoder()
    is_document = start.startswith((b"{", b"[")) and not isinstance(own, JsonLinesDecoder)
    return None if not start or is_document or start.startswith(b"<") else own


def unreadable(reply: HttpReply, length: int, what: str) -> LLMResponseError:
    """The error for a body that is none of ours: its type and length, never its text."""
    found = _MEDIA_TYPE.match(reply.headers.get("content-type", ""))
    kind = found.group() if found else "no content type"
    return LLMResponseError(f"{what}; {kind}, {length} bytes came", request_id=reply.request_id, retryable=False)


def _is_document(wire: WireFormat, body: bytes) -> bool:
    start = body[:64].lstrip(_BLANK) or body.lstrip(_BLANK)
    if not start.startswith(b"{"):
        return decoder_for(start[:8], EventDecoder()) is None
    return not (isinstance(wire.new_decoder(), JsonLinesDecoder) and _has_more_lines(body))


def _has_more_lines(body: bytes) -> bool:
    """Whether each line is a document of its own: then the first line is one."""
    first, _, rest = body.strip(_BLANK).partition(b"\n")
    return bool(rest) and first.rstrip().endswith(b"}")


def _from_document(wire: WireFormat, reply: HttpReply) -> LLMResponse:
    try:
        document = json_object(reply)
    except LLMResponseError as error:
        if is_error(body := wire.errors_of(document_in(reply.body))):
            raise StreamedError(body) from None
        raise unreadable(reply, len(reply.body), error.message) from None
    if document.get("error") and not document.get("choices"):
        # OpenRouter answers some failures with HTTP 200 and an error body.
        failed = wire.failed_reply
        raise StreamedError(wire.errors_of(document), failed and failed(document, reply.request_id))
    try:
        return wire.from_payload(document, reply.request_id)
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
