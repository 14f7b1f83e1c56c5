"""What every hook does with a request: recognize it, find its call, and tell the call what became of the attempt."""

from __future__ import annotations

import atexit
import contextvars
import logging
import threading
from collections.abc import Callable, Generator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from .._base.fork import in_forked_child
from .._base.once import report_fault
from .._base.owner import Owner, current_owner
from .._base.waiting import is_on_event_loop, is_on_trio
from ..ai.llm.pricing import load_table, table_is_loaded, until_table_is_loaded
from ..ai.llm.providers._error_bodies import error_from_body
from ..ai.llm.providers._hosts import hosts_named_by_user
from ..ai.llm.providers._http import OWN_AGENT, HttpReply
from ..ai.llm.providers._wire_format import StreamedError
from ..errors import BudgetExceededError, LLMConnectionError, LLMError
from ..flows.budget import current_budget, needs_price
from ..otel.current import is_content_captured
from ..otel.redaction import is_secret_name
from .around import SeenInside
from .grouping import PendingCalls
from .logical_call import LogicalCall
from .recognition import may_be_call, recognized
from .reserving import texts_in
from .tap import Said, Tap, error_of
from .usage_estimate import expected_in
from .whole_reply import reply_in_body

log = logging.getLogger(__name__)

_REPEATED = frozenset({408, 409, 425, 429})
"""The statuses below 500 that SDKs repeat."""
_MAX_WAIT_S = 70.0
"""Longer than any SDK waits between two attempts: Google's and Cohere's wait up to 60 s."""
_STAINLESS_WAIT_S = 20.0
"""Longer than SDKs made by Stainless wait, which name the attempt in a header: up to 10 s, or as `Retry-After` says."""

_pending: PendingCalls[LogicalCall] = PendingCalls()
_sending: contextvars.ContextVar[Attempt | bool] = contextvars.ContextVar("tracemind_wire", default=False)
"""The attempt whose request is being sent; `True` where a request belongs to a call that is recorded by other means."""
_is_on = False
_estimates_usage = False


def turn_on() -> None:
    """See model calls from now on."""
    global _is_on
    _is_on = True


def estimate_usage(*, is_asked: bool) -> None:
    """Set whether the tokens of streams without usage are estimated."""
    global _estimates_usage
    _estimates_usage = is_asked


def is_on() -> bool:
    """Whether model calls are seen."""
    return _is_on


def turn_off() -> None:
    """Let every request pass, also where a hook cannot be removed. Streams that are open are read to their end."""
    global _is_on
    _is_on = False
    settle_all()


def is_seen(path: str, *, always: bool = False) -> bool:
    """Whether a request to that path is looked at; `always` for a client that was wrapped by itself."""
    return (_is_on or always) and may_be_call(path) and not _sending.get()


def current_attempt() -> Attempt | None:
    """The attempt whose request is being sent, for the hooks below the client."""
    attempt = _sending.get()
    return None if isinstance(attempt, bool) else attempt


@contextmanager
def recorded_already() -> Generator[None]:
    """A block whose requests belong to a call that is recorded by other means."""
    token = _sending.set(True)
    try:
        yield
    finally:
        _sending.reset(token)


def needs_prices_first() -> bool:
    """Whether a budget in USD must know a price before a call is sent, and the table is not loaded yet."""
    if not _is_on or table_is_loaded():
        return False
    budget = current_budget()
    return budget is not None and needs_price(budget)


async def until_priceable() -> None:
    """Wait for the price table, so that a call is counted when its caller goes on: only in the first call of a process.

    It loads while the first request is under way. Never blocks the event loop.
    """
    try:
        if not table_is_loaded() and (is_on_event_loop() or is_on_trio()):
            await until_table_is_loaded()
    except Exception:
        report_fault(log, "observation", "until_priceable")


def make_priceable() -> None:
    """The same for a call that blocks its thread anyway, and the event loop where one runs there."""
    if not table_is_loaded() and is_on_event_loop():
        load_table()


def begin(
    host: str,
    port: int | None,
    path: str,
    url: object,
    body: bytes | None,
    headers: Mapping[str, str],
    hosts: Mapping[str, str] | None = None,
) -> Attempt | None:
    """An attempt begins; `None` where the request is no model call, or one of our own clients'.

    Args:
        host: the server's name.
        port: its port; `None` for that of the scheme.
        path: the path, without the query.
        url: the URL; made a string only where attempts are compared.
        body: the body; `None` where it cannot be seen.
        headers: the headers; looked at as little as may be, since httpx reads all of them for one.
        hosts: the provider of further hosts; by default those of `name_hosts`.

    Raises:
        BudgetExceededError: a budget denies the call, or has no room for another attempt. The SDK gets it in place of a
            reply; when it tries again, it gets the same.
    """
    if headers.get("user-agent", "") == OWN_AGENT:
        return None
    sent = Sent(current_owner(), url, body, headers)
    call = _continued(sent) if _pending.has(sent.owner) else None
    if call is not None:
        _guarded(call.begin_attempt)
    elif (seen := recognized(host, port, path, body, hosts_named_by_user() if hosts is None else hosts)) is None:
        return None
    else:
        call = LogicalCall(seen, host, port, body if is_content_captured() else None)
        call.expected = partial(expected_in, seen, body)
        if _estimates_usage and seen.is_stream:
            _guarded(call.estimate_usage, body)
        _guarded(call.reserve, body)
    if call.denial is not None:
        _guarded(_keep, call, sent, _MAX_WAIT_S)
        raise call.denial
    return Attempt(call, sent)


def _continued(sent: Sent) -> LogicalCall | None:
    """The call that a request repeats; any other of the same owner has ended."""
    try:
        is_new = sent.headers.get("x-stainless-retry-count") == "0"
        return _pending.continued(sent.owner, sent.key, sent.body, is_new=is_new)
    except Exception:
        report_fault(log, "PendingCalls", "continued")
        _guarded(_pending.settle_of, sent.owner)
        return None


@dataclass(slots=True)  # not frozen: one is made for each attempt, and frozen ones take three times as long
class Sent:
    """What was sent; what attempts of one call have in common is only worked out after one has failed."""

    owner: Owner
    """Who makes the request."""
    url: object
    """The URL."""
    body: bytes | None
    """The body, where it can be seen."""
    headers: Mapping[str, str]
    """The headers."""

    def said(self) -> Said:
        """What it says, with the values of the headers and of the query that hold keys."""
        try:
            held = [str(value).rpartition(" ")[2] for name, value in self.headers.items() if is_secret_name(str(name))]
            query = [value for name, value in parse_qsl(urlsplit(str(self.url)).query) if name == "key"]
            return Said(texts_in(self.body), (*held, *query))
        except Exception:
            report_fault(log, "Sent", "said")
            return Said()

    @property
    def key(self) -> str:
        """The URL, and the id that AWS's SDK gives to all attempts of a call."""
        return f"{self.url}{self.headers.get('amz-sdk-invocation-id', '')}"

    @property
    def is_last(self) -> bool:
        """Whether botocore says that it repeats no more: `attempt=4; max=4`."""
        told = self.headers.get("amz-sdk-request", "")
        fields = {name.strip(): value for name, _, value in (part.partition("=") for part in told.split(";"))}
        return "max" in fields and fields.get("attempt") == fields["max"]

    @property
    def repeats_any_error(self) -> bool:
        """Whether the SDK repeats a request after an exception of any type.

        Also after one that is no failure of the connection, such as that of an event loop which was closed.
        """
        return "x-stainless-retry-count" in self.headers


def _keep(call: LogicalCall, sent: Sent, within_s: float) -> None:
    """Keep a call until its repetition, for so many seconds."""
    _pending.wait_for_repetition(sent.owner, call, sent.key, sent.body, within_s)
    owner: Any = sent.owner
    if hasattr(owner, "add_done_callback"):  # a task of asyncio has it
        owner.remove_done_callback(_pending.settle_of)  # one is enough, however many attempts of the task fail
        owner.add_done_callback(_pending.settle_of)
    _sweeper.wake()


def _guarded(step: Callable[..., object], *arguments: object) -> None:
    """Take a step without which the call goes on, and its span with it."""
    try:
        step(*arguments)
    except Exception:
        report_fault(log, "LogicalCall", step.__name__)


class Attempt:
    """One request of a call. No method raises a fault of ours.

    Args:
        call: the call.
        sent: the request.
    """

    def __init__(self, call: LogicalCall, sent: Sent) -> None:
        self._call = call
        self._sent = sent
        self._failed_inside: LLMError | None = None

    def active(self) -> AbstractContextManager[object]:
        """A block in which the request is sent: the span is current, and no other hook looks at it."""
        return _Active(self, self._call)

    def ask_blocking(self) -> None:
        """Ask the shared budgets whether the request may be sent, in a thread that the request will block anyway.

        Raises:
            BudgetExceededError: a budget denies the call.
        """
        if self._call.is_unasked:
            with self._asking():
                self._call.ask_blocking()

    async def ask_soon(self) -> None:
        """The same without blocking the thread."""
        if self._call.is_unasked:
            with self._asking():
                await self._call.ask_soon()

    @contextmanager
    def _asking(self) -> Generator[None]:
        """Ends the call where it is denied or cancelled meanwhile; with a fault of ours it goes on."""
        try:
            yield
        except BudgetExceededError as error:
            _guarded(self._call.deny_attempt, error)
            _guarded(_keep, self._call, self._sent, _MAX_WAIT_S)
            raise
        except Exception:
            report_fault(log, "Attempt", "ask")
        except BaseException:
            _guarded(self._call.cancel_attempt)
            raise
        _guarded(self._call.admit_attempt)

    def sent_by_transport(self) -> None:
        """The transport sends the request: for the first time, or again by itself, which is a retry of the call.

        Raises:
            BudgetExceededError: no budget is left for another one.
        """
        self._failed_inside = None
        _guarded(self._call.begin_attempt)
        if self._call.denial is not None:
            raise self._call.denial

    def failed_in_transport(self, error: LLMError) -> None:
        """What the transport sent failed; it may send it again, or hand the failure on."""
        self._failed_inside = error
        _guarded(self._call.fail, error)

    def raised(self, error: BaseException, ours: LLMError | None) -> None:
        """No reply came. A transport that gives up raises what it likes, so what failed inside it tells more."""
        failure = ours or self._failed_inside
        if self._call.denial is not None:
            _guarded(_keep, self._call, self._sent, _MAX_WAIT_S)
        elif failure is not None and isinstance(error, Exception):
            self._fail(failure, is_repeated=True)
        elif isinstance(error, Exception):
            unknown = LLMConnectionError(f"the request failed ({type(error).__name__})")
            self._fail(unknown, is_repeated=self._sent.repeats_any_error)
        else:
            _guarded(self._call.end_cancelled)

    def rejected(self, status_code: int, headers: Mapping[str, str], body: bytes) -> None:
        """A reply came that is not a success."""
        try:
            error = error_of(status_code, headers, body, self._sent.said())
        except Exception:
            report_fault(log, "Attempt", "rejected")
            error = LLMError(f"the server answered HTTP {status_code}", status_code=status_code)
        asked = headers.get("x-should-retry")
        is_repeated = is_usually_repeated(status_code) if asked is None else asked == "true"
        self._fail(error, is_repeated=is_repeated)

    def _fail(self, error: LLMError, *, is_repeated: bool) -> None:
        sent = self._sent
        if not is_repeated or sent.is_last:
            self._end(error)
            return
        usual_s = _STAINLESS_WAIT_S if sent.repeats_any_error else _MAX_WAIT_S
        within_s = max(usual_s, (error.retry_after_s or 0.0) + 10.0)
        try:
            self._call.fail(error)
            _keep(self._call, sent, within_s)
        except Exception:
            report_fault(log, "Attempt", "fail")
            self._end(error)

    def _end(self, error: LLMError) -> None:
        _guarded(self._call.end_failed, error)

    def answered(
        self, status_code: int, headers: Mapping[str, str], *, is_decoded: bool, is_repeated: bool = True
    ) -> Tap:
        """A reply comes; returns what reads it. `is_repeated`: whether SDKs ask again when a whole reply is cut."""
        on_cut = partial(self._fail, is_repeated=is_repeated)
        return Tap(self._call, status_code, headers, is_decoded=is_decoded, on_cut=on_cut, said=self._sent.said)

    def answered_whole(self, status_code: int, headers: Mapping[str, str], body: bytes) -> None:
        """A reply came whole, and decompressed."""
        if self._call.seen.is_stream:
            tap = self.answered(status_code, headers, is_decoded=True)
            tap.feed(body)
            tap.end()
            return
        try:
            wire, needs_text = self._call.seen.wire, self._call.needs_text
            self._call.end_answered(reply_in_body(wire, status_code, headers, body, needs_text=needs_text))
        except StreamedError as fault:
            said, head = self._sent.said(), HttpReply(status_code, headers, b"")
            self._end(error_from_body(head, fault.body, secrets=said.secrets, prompt=said.texts))
        except LLMError as fault:
            self._end(fault)

    def lost(self) -> None:
        """Our reading failed; the user's reply is as it was."""
        self._end(LLMError("the reply could not be read by tracemind-otel"))


def is_usually_repeated(status_code: int) -> bool:
    """Whether SDKs repeat a request that was answered so."""
    return status_code >= 500 or status_code in _REPEATED


class _Active(AbstractContextManager[object]):
    """Makes the span of a call current, as far as that can be done, and lets other hooks pass requests through."""

    __slots__ = ("_attempt", "_call", "_current", "_token")

    def __init__(self, attempt: Attempt, call: LogicalCall) -> None:
        self._attempt = attempt
        self._call = call
        self._current: AbstractContextManager[object] | None = None

    def __enter__(self) -> None:
        self._token = _sending.set(self._attempt)
        try:
            current = self._call.active()
            current.__enter__()
            self._current = current
        except Exception:
            report_fault(log, "LogicalCall", "active")

    def __exit__(self, *exc_info: Any) -> None:
        try:
            if self._current is not None:
                self._current.__exit__(*exc_info)
        except Exception:
            report_fault(log, "LogicalCall", "active")
        finally:
            _sending.reset(self._token)


def settle_all() -> None:
    """End every call that waits for a repetition."""
    _pending.settle_where(lambda call: True)


def settle_in(flow: object) -> None:
    """End the pending calls of a flow that ends."""
    _pending.settle_where(lambda call: call.flow is flow)


def settle_inside(seen: SeenInside) -> None:
    """End the pending calls inside a call of ours that ends: what comes after it is another call."""
    _pending.settle_where(lambda call: call.inside is seen)


class _Sweeper:
    """A thread that ends calls whose repetition never came; it runs while there are any."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def wake(self) -> None:
        """Make sure that the thread runs, and that the exit of the process ends what is pending.

        What is registered last runs first: after the first failure a provider that was set up has its own exit already.
        """
        global _exits
        if not _exits:
            _exits = True
            atexit.register(settle_all)
        with self._lock:
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, name="tracemind-wire", daemon=True)
                try:
                    self._thread.start()
                except RuntimeError:  # the interpreter ends
                    settle_all()

    def _run(self) -> None:
        pause = threading.Event()
        while True:
            wait_s = _pending.settle_overdue()
            if wait_s is None:
                with self._lock:
                    if not len(_pending):
                        self._thread = None
                        return
                continue
            pause.wait(min(wait_s, 1.0) + 0.01)


_exits = False
_sweeper = _Sweeper()


def _begin_anew() -> None:
    global _sweeper
    _pending.begin_anew()
    _sweeper = _Sweeper()


in_forked_child(_begin_anew)
