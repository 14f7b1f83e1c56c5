"""Reads the bytes of a reply on their way to their reader, and ends the call with what they say. Never raises."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from .._base.dropped import end_later, ended, opened
from .._base.once import report_fault
from ..ai.llm.providers._compression import decoder_for
from ..ai.llm.providers._error_bodies import error_from_body, status_error
from ..ai.llm.providers._http import HttpReply
from ..ai.llm.providers._reading import Reading
from ..ai.llm.providers._wire_format import StreamedError
from ..ai.llm.types import LLMResponse
from ..errors import LLMConnectionError, LLMError
from .lean_decoders import lean_decoder
from .logical_call import LogicalCall
from .whole_reply import WholeReading

log = logging.getLogger(__name__)


class Said(NamedTuple):
    """What a request says, which no error message may repeat."""

    texts: Sequence[str] = ()
    """The conversation, text by text."""
    secrets: Sequence[str] = ()
    """The keys with which it was sent."""


class Tap:
    """The reader of one reply.

    Args:
        call: the call that the reply belongs to.
        status_code: the HTTP status, a success.
        headers: the headers.
        is_decoded: whether the bytes come decompressed.
        on_cut: told of the fault that cut a whole reply, which SDKs repeat, in place of the call's end.
        said: returns what the request says, which no error message may repeat.
    """

    def __init__(
        self,
        call: LogicalCall,
        status_code: int,
        headers: Mapping[str, str],
        *,
        is_decoded: bool,
        on_cut: Callable[[LLMError], None],
        said: Callable[[], Said] = Said,
    ) -> None:
        self._call = call
        self._said = said
        self._on_cut = on_cut
        self._decoder = decoder_for("" if is_decoded else headers.get("content-encoding", ""))
        """What decompresses the bytes; without one they are not read."""
        wire, self._is_stream = call.seen.wire, call.seen.is_stream
        self._lean = lean_decoder(wire) if self._is_stream and not call.needs_text else None
        head = HttpReply(status_code, headers, b"")
        self._reading = (
            Reading(wire, head, decoder=self._lean)
            if self._is_stream
            else WholeReading(wire, head, needs_text=call.needs_text)
        )
        self._last_s: float | None = None
        self._last_ns = 0
        self._has_ended = False
        opened(self)

    def feed(self, data: bytes) -> None:
        """Read some bytes; the call ends with the format's end mark, or with an error among them."""
        if self._has_ended:
            return
        try:
            self._last_ns = time.time_ns()
            if self._decoder is None:
                self._measure()
                return
            data = self._decoder.decompress(data)
            if self._lean is not None and self._lean.drops(data):
                self._measure()
                return
            events = self._reading.feed(data)
            if self._is_stream and self._brings_a_chunk(has_output=bool(events)):
                self._measure()
            if self._reading.is_over:
                self.end()
        except Exception:
            self._give_up()

    def _brings_a_chunk(self, *, has_output: bool) -> bool:
        """Whether output has come, or the first event of any kind, as `stream_llm_call` counts."""
        if self._lean is not None:
            has_output = has_output or self._lean.sieve.has_output
            if has_output:
                self._lean.sieve.is_open = False  # id and model have come
        return has_output or (self._last_s is None and self._has_begun())

    def _has_begun(self) -> bool:
        return isinstance(self._reading, Reading) and self._reading.has_begun

    def _measure(self) -> None:
        now_s = time.perf_counter()
        if self._lean is not None:
            self._lean.sieve.has_output = False
        if self._last_s is None:
            self._call.first_chunk()
        else:
            self._call.next_chunk(now_s - self._last_s)
        self._last_s = now_s

    def end(self, error: LLMError | None = None, *, ended_ns: int | None = None) -> None:
        """The bytes have ended, by themselves or because of an error."""
        if not self._is_first_end():
            return
        try:
            self._end(error, ended_ns)
        except Exception:
            self._give_up()

    def _end(self, error: LLMError | None, ended_ns: int | None) -> None:
        if error is not None and error.retryable and not self._is_stream:
            self._on_cut(error)
            return
        cut = error if isinstance(error, LLMConnectionError) else None
        if error is not None and cut is None:
            self._call.end_failed(error, response=self._part())
            return
        if self._decoder is None and cut is None:
            self._call.end_answered(None, ended_ns=ended_ns)
            return
        self._reading.end(cut)
        try:
            reply = self._completed(self._reading.finish())
        except StreamedError as fault:
            said = self._said()
            error = error_from_body(self._reading.head, fault.body, secrets=said.secrets, prompt=said.texts)
            self._call.end_failed(error, response=self._part())
        except LLMError as fault:
            self._call.end_failed(fault, response=self._part())
        else:
            self._call.end_answered(reply, ended_ns=ended_ns)

    def _part(self) -> LLMResponse | None:
        """The part of a stream that has come; `None` where nothing has."""
        if not self._is_stream or not self._last_ns or self._decoder is None:
            return None
        if self._lean is not None:
            self._reading.end()  # what was held back
        reply = self._reading.so_far()
        return reply if self._last_s is None else self._completed(reply)

    def _completed(self, reply: LLMResponse) -> LLMResponse:
        """The reply with an estimate of what it does not report, where the user asked for that."""
        return reply if self._call.estimate is None else self._call.estimate.completed(reply)

    def close(self, ended_ns: int | None = None) -> None:
        """The reader has stopped before the end, which counts from the last bytes."""
        if self._has_ended:
            return
        ended_ns = self._last_ns or ended_ns
        if self._reading.is_ending:
            self.end(ended_ns=ended_ns)
            return
        if not self._is_first_end():
            return
        try:
            self._call.end_answered(self._part(), closed_early=True, ended_ns=ended_ns)
        except Exception:
            self._give_up()

    def cancel(self) -> None:
        """The task that reads was cancelled, or the program was interrupted."""
        if not self._is_first_end():
            return
        try:
            self._call.end_cancelled(response=self._part())
        except Exception:
            self._give_up()

    def abandon(self) -> None:
        """The reader is collected; ends the call later, and at the time of the last bytes, if nobody has ended it."""
        if not self._has_ended:
            end_later(self.close)

    def _is_first_end(self) -> bool:
        if self._has_ended:
            return False
        self._has_ended = True
        ended(self)
        return True

    @property
    def name(self) -> str:
        """What a warning calls it."""
        return f"the stream of {self._call.seen.model}"

    def _give_up(self) -> None:
        """A fault of ours ends the call without a reply, and leaves the user's alone."""
        self._is_first_end()
        report_fault(log, "Tap", "read")
        try:
            self._call.end_failed(LLMError("the reply could not be read by tracemind-otel"))
        except Exception:
            report_fault(log, "Tap", "end")


def error_of(status_code: int, headers: Mapping[str, str], body: bytes, said: Said) -> LLMError:
    """The typed error for a status that is not a success, without what the request said."""
    return status_error(HttpReply(status_code, headers, body), secrets=said.secrets, prompt=said.texts)
