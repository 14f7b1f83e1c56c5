"""Time-outs by silence: how long to wait for a provider that sends nothing.

A client returns whole replies and events, but comments, pings and blank lines also show that the provider is alive. So
a client calls its beat whenever bytes come, and only silence uses up the time-out.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
from collections.abc import Callable

from ..._base.context import Setting, set_here
from ..._base.waiting import Wait

Beat = Callable[[], None]
"""Called when bytes have come."""


class ProviderSilentError(TimeoutError):
    """No byte came for too long."""


class DeadlinePassedError(TimeoutError):
    """The time for all waits together is over."""


class Patience(Wait):
    """Bounds the silence in every wait of one call, and the time of the whole, with one timer.

    A beat only stores its time. When the timer fires, it reads that time and is set again if a beat came since. The
    time between two waits does not count as silence. Waits follow one another, in the same task or in several. A wait
    ends with a `ProviderSilentError` if no beat came for too long, with a `DeadlinePassedError` if the whole is over.
    Bytes that come inside its `listening()` block are its beats.

    Args:
        silence_s: seconds without a beat that a wait lasts at most.
        whole_s: seconds from now for all waits together; `None` for no such limit.
    """

    def __init__(self, silence_s: float, whole_s: float | None = None) -> None:
        loop = asyncio.get_running_loop()
        super().__init__(loop)
        self._now, self._call_at, self._call_soon = loop.time, loop.call_at, loop.call_soon
        self._silence_s = silence_s
        self._ends_at = None if whole_s is None else self._now() + whole_s
        self._last_beat = 0.0
        self._timer: asyncio.Handle | None = None
        self.outer: Patience | None = None
        """The `Patience` around this one, which also gets the beats."""
        self.is_unsent = False
        """Whether a connection is still awaited, so that nothing can have been sent."""
        self.lost_requests = 0
        """Requests that were probably read by the provider, and sent again because their connection broke."""

    def listening(self) -> Setting:
        """A block in which readers of bytes call this one's beat, and through it the beat of the one around."""
        self.outer = _listener.get()
        return set_here(_listener, self)

    def __enter__(self) -> None:
        Wait.__enter__(self)  # `super()` takes as long as all the rest in Python 3.11
        self._last_beat = self._now()
        if self._timer is None:
            self._timer = self._call_at(self._due, self._look)

    def beat(self) -> None:
        """Note that bytes came."""
        self._last_beat = self._now()
        if self.outer is not None:
            self.outer.beat()

    def left_s(self) -> float:
        """Seconds until this, or one around it, gives up if nothing comes."""
        left_s = self._due - self._now()
        return left_s if self.outer is None else min(left_s, self.outer.left_s())

    def stop(self) -> None:
        """Cancel the timer: there are no more waits."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    @property
    def _due(self) -> float:
        silent_at = self._last_beat + self._silence_s
        return silent_at if self._ends_at is None else min(silent_at, self._ends_at)

    def _look(self, *, is_last: bool = False) -> None:
        """End the wait once it is due. After a blocked loop, bytes may be unread: their reader runs before the last."""
        self._timer = None
        if self._waiting is None:
            return
        if self._now() < self._due:
            self._timer = self._call_at(self._due, self._look)
        elif is_last:
            self.end(DeadlinePassedError() if self._due == self._ends_at else ProviderSilentError())
        else:
            self._timer = self._call_soon(functools.partial(self._look, is_last=True))


_listener: contextvars.ContextVar[Patience | None] = contextvars.ContextVar("tracemind_listener", default=None)


def current_beat() -> Beat:
    """The function to call whenever bytes come. Get it once for each reply; calling it is cheap."""
    listener = _listener.get()
    return (lambda: None) if listener is None else listener.beat


def note_unsent(*, is_unsent: bool) -> None:
    """Note that a connection for the request is awaited, or that it is there now."""
    listener = _listener.get()
    while listener is not None:
        listener.is_unsent = is_unsent
        listener = listener.outer


def note_lost_request() -> None:
    """Note that a request is sent again, though the provider has probably read it."""
    listener = _listener.get()
    while listener is not None:
        listener.lost_requests += 1
        listener = listener.outer


def is_heard() -> bool:
    """Whether a step listens, which also takes `StreamOpened`."""
    return _listener.get() is not None


def patience_left_s() -> float:
    """Seconds until the listener gives up if nothing comes; infinite without a listener."""
    listener = _listener.get()
    return float("inf") if listener is None else listener.left_s()
