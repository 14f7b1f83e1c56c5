"""What every hook does with a request: recognize it, find its call, and tell the call what became of the attempt."""

from __future__ import annotations

import atexit
import contextvars
import logging
import threading
from collections.abc import Callable, Generator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial

from .._base.fork import in_forked_child
from .._base.once import report_fault
from .._base.waiting import is_on_event_loop, is_on_trio
from ..ai.llm.pricing import load_table, table_is_loaded, until_table_is_loaded
from ..errors import LLMConnectionError, LLMError
from ..flows.budget import current_budget, needs_price
from .grouping import Owner, PendingCalls, current_owner
from .logical_call import LogicalCall
from .recognition import may_be_call, recognized
from .reserving import strings_in
from .tap import Tap, error_of

log = logging.getLogger(__name__)

_REPEATED = frozenset({408, 409, 425, 429})
"""The statuses below 500 that SDKs repeat."""
_MAX_WAIT_S = 70.0
"""Longer than any SDK waits between two attempts: Google's and Cohere's wait up to 60 s."""
_OWN_AGENT = "tracemind-otel/"

_pending: PendingCalls[LogicalCall] = PendingCalls()
_inside: contextvars.ContextVar[bool] = contextvars.ContextVar("tracemind_wire", default=False)
_hosts: Mapping[str, str] = {}
_is_on = False
_estimates_usage = False


def turn_on() -> None:
    """See model calls from now on."""
    global _is_on
    _is_on = True


def name_hosts(hosts: Mapping[str, str]) -> None:
    """Name the provider of further hosts."""
    global _hosts
    _hosts = {name.lower(): provider for name, provider in hosts.items()}


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


def is_seen(path: str) -> bool:
    """Whether a request to that path is looked at."""
    return _is_on and may_be_call(path) and not _inside.get()


@contextmanager
def recorded_already() -> Generator[None]:
    """A block whose requests belong to a call that is recorded by other means."""
    token = _inside.set(True)
    try:
        yield
    finally:
        _inside.reset(token)


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
    host: str, port: int | None, path: str, url: str, body: bytes | None, headers: Mapping[str, str]
) -> Attempt | None:
    """An attempt begins; `None` where the request is no model call, or one of our own clients'.

    Raises:
        BudgetExceededError: a budget denies the call, or has no room for another attempt. The SDK gets it in place of a
            reply; when it tries again, it gets the same.
    """
    if headers.get("user-agent", "").startswith(_OWN_AGENT):
        return None
    owner = current_owner()
    key = url + headers.get("amz-sdk-invocation-id", "")
    is_new = headers.get("x-stainless-retry-count") == "0"
    call = _pending.continued(owner, key, body, is_new=is_new)
    if call is None:
        seen = recognized(host, port, path, body, _hosts)
        if seen is None:
            return None
        call = LogicalCall(seen, host, port)
        if _estimates_usage and seen.is_stream:
            _guarded(call.estimate_usage, body)
        _guarded(call.reserve, body)
    else:
        _guarded(call.begin_attempt)
    if call.denial is not None:
        _pending.wait_for_repetition(owner, call, key, body, _MAX_WAIT_S)
        raise call.denial
    return Attempt(
        call,
        owner,
        key,
        body,
        is_last=_is_last(headers.get("amz-sdk-request", "")),
        repeats_any_error="x-stainless-retry-count" in headers,
    )


def _is_last(told: str) -> bool:
    """Whether botocore says that it repeats no more: `attempt=4; max=4`."""
    fields = {name.strip(): value for name, _, value in (part.partition("=") for part in told.split(";"))}
    return "max" in fields and fields.get("attempt") == fields["max"]


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
        owner: who makes it.
        key: what its attempts have in common.
        body: the body.
        is_last: whether the SDK says that it repeats no more.
        repeats_any_error: whether the SDK repeats a request after an exception of any type, also one that is no
            failure of the connection, such as that of an event loop which was closed.
    """

    def __init__(
        self, call: LogicalCall, owner: Owner, key: str, body: bytes | None, *, is_last: bool, repeats_any_error: bool
    ) -> None:
        self._call = call
        self._owner = owner
        self._key = key
        self._body = body
        self._is_last = is_last
        self._repeats_any_error = repeats_any_error

    @contextmanager
    def active(self) -> Generator[None]:
        """A block in which the request is sent: the span is current, and no other hook looks at it."""
        token = _inside.set(True)
        try:
            with self._current():
                yield
        finally:
            _inside.reset(token)

    def _current(self) -> AbstractContextManager[object]:
        try:
            return self._call.active()
        except Exception:
            report_fault(log, "LogicalCall", "active")
            return nullcontext()

    def raised(self, error: BaseException, ours: LLMError | None) -> None:
        """No reply came."""
        if ours is not None:
            self._fail(ours, is_repeated=True)
        elif isinstance(error, Exception):
            self._fail(
                LLMConnectionError(f"the request failed ({type(error).__name__})"), is_repeated=self._repeats_any_error
            )
        else:
            _guarded(self._call.end_cancelled)

    def rejected(self, status_code: int, headers: Mapping[str, str], body: bytes) -> None:
        """A reply came that is not a success."""
        try:
            error = error_of(status_code, headers, body, strings_in(self._body))
        except Exception:
            report_fault(log, "Attempt", "rejected")
            error = LLMError(f"the server answered HTTP {status_code}", status_code=status_code)
        asked = headers.get("x-should-retry")
        is_repeated = status_code >= 500 or status_code in _REPEATED if asked is None else asked == "true"
        self._fail(error, is_repeated=is_repeated)

    def _fail(self, error: LLMError, *, is_repeated: bool) -> None:
        if self._is_last or not is_repeated:
            self._end(error)
            return
        within_s = max(_MAX_WAIT_S, (error.retry_after_s or 0.0) + 10.0)
        try:
            self._call.fail(error)
            _pending.wait_for_repetition(self._owner, self._call, self._key, self._body, within_s)
            when_done = getattr(self._owner, "add_done_callback", None)  # a task of asyncio has it
            if when_done is not None:
                when_done(_pending.settle_of)
            _sweeper.wake()
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
        return Tap(self._call, status_code, headers, is_decoded=is_decoded, on_cut=on_cut)

    def lost(self) -> None:
        """Our reading failed; the user's reply is as it was."""
        self._end(LLMError("the reply could not be read by tracemind-otel"))


def settle_all() -> None:
    """End every call that waits for a repetition."""
    _pending.settle_where(lambda call: True)


def settle_in(flow: object) -> None:
    """End the pending calls of a flow that ends."""
    _pending.settle_where(lambda call: call.flow is flow)


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
