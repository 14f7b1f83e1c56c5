"""What was handed to an exporter, what arrived, and what is lost.

The SDK does not tell: a failed batch is dropped, `force_flush` returns True whatever happened, and its
time-outs are not kept. So the exporters and the span processors are watched from outside, and their slow calls
run in threads of their own.
"""

from __future__ import annotations

import logging
import os
import threading
import time
import weakref
from collections.abc import Callable, Iterable
from typing import Any

from ..._base.dropped import end_dropped

_SELDOM_S = 60.0


class DeliveryStats:
    """The spans on their way to one destination. Any thread may write."""

    def __init__(self, destination: str) -> None:
        self._destination = destination
        self._lock = threading.Lock()
        self._accepted = 0
        self._delivered = 0
        self._failed = 0
        if hasattr(os, "register_at_fork"):
            forget = weakref.WeakMethod(self._forget)
            os.register_at_fork(after_in_child=lambda: (method := forget()) and method())

    def _forget(self) -> None:
        """What a parent process had not sent at the fork stays the parent's."""
        self._lock = threading.Lock()
        self._accepted = self._delivered = self._failed = 0

    def accept(self, count: int) -> None:
        """So many are to be delivered."""
        with self._lock:
            self._accepted += count

    def settle(self, count: int, *, delivered: bool) -> None:
        """An export is over."""
        with self._lock:
            if delivered:
                self._delivered += count
            else:
                self._failed += count

    @property
    def failed(self) -> int:
        """How many an export has failed to deliver."""
        return self._failed

    def loss(self) -> str | None:
        """What has not arrived, for a person; `None` when all has. A full queue drops spans without an export."""
        with self._lock:
            missing, accepted = self._accepted - self._delivered, self._accepted
        return f"{missing} of {accepted} spans did not reach {self._destination}" if missing else None


class MetricsDeliveryStats(DeliveryStats):
    """The batches of metrics: sums go on from batch to batch, so one that arrives makes up for those before."""

    def settle(self, count: int, *, delivered: bool) -> None:
        with self._lock:
            self._failed = 0 if delivered else self._failed + count

    def loss(self) -> str | None:
        return f"the last metrics did not reach {self._destination}" if self.failed else None


class _OnceAMinute(logging.Filter):
    """Lets a logger say the same thing once a minute: an exporter whose receiver is down says it at every try."""

    def __init__(self) -> None:
        super().__init__()
        self._said_at: dict[tuple[str, str], float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        key, now = (record.name, str(record.msg)), time.monotonic()
        if now - self._said_at.get(key, float("-inf")) < _SELDOM_S:
            return False
        self._said_at[key] = now
        return True


_once_a_minute = _OnceAMinute()


_parents: list[Any] = []
"""Exporters of the process that this one was forked from: kept, so that nothing closes what is the parent's."""


class WatchedExporter:
    """An exporter of spans or of metrics whose results are written down. Everything else is the exporter's own."""

    def __init__(
        self,
        make: Callable[[], Any],
        ledger: DeliveryStats,
        size: Callable[[Any], int] = len,
        requests: Callable[[Any], Iterable[Any]] = lambda batch: (batch,),
    ) -> None:
        self._make = make
        self._exporter = make()
        self._is_inherited = False
        self.ledger = ledger
        self._size = size
        self._requests = requests
        self._is_shut_down = False
        logging.getLogger(type(self._exporter).__module__).addFilter(_once_a_minute)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._exporter, name)

    def export(self, batch: Any, *args: Any, **kwargs: Any) -> Any:
        """Export in as many requests as it takes, and write down which of them arrived."""
        end_dropped()
        results = [self._export(request, *args, **kwargs) for request in self._requests(batch)]
        return next((result for result in results if result.name != "SUCCESS"), results[-1])

    def _export(self, request: Any, *args: Any, **kwargs: Any) -> Any:
        delivered = False
        try:
            if self._is_inherited:
                _parents.append(self._exporter)
                self._exporter, self._is_inherited = self._make(), False
            result = self._exporter.export(request, *args, **kwargs)
            delivered = result.name == "SUCCESS"
            return result
        finally:
            self.ledger.settle(self._size(request), delivered=delivered)

    def begin_anew(self) -> None:
        """In a forked child: the next export gets an exporter of its own. Two processes cannot share a connection."""
        self._is_inherited = True

    def shutdown(self, *args: Any, **kwargs: Any) -> None:
        """Shut down once, which also cuts short a wait between the exporter's own retries."""
        if not self._is_shut_down:
            self._is_shut_down = True
            if not self._is_inherited:
                self._exporter.shutdown(*args, **kwargs)


class WatchedProcessor:
    """A span processor whose sampled spans are counted on their way in."""

    def __init__(self, processor: Any, ledger: DeliveryStats) -> None:
        self._processor = processor
        self._ledger = ledger
        # Looked up once: this is called for every span.
        self._on_end = processor.on_end

    def __getattr__(self, name: str) -> Any:
        return getattr(self._processor, name)

    def on_end(self, span: Any) -> None:
        """Count a span, then pass it on."""
        if span.context.trace_flags.sampled:
            self._ledger.accept(1)
        self._on_end(span)


class OneShot:
    """A slow call in a thread that was started beforehand: at interpreter exit none can be started any more."""

    def __init__(self, name: str, function: Callable[[], object]) -> None:
        self._function = function
        self._told = threading.Event()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        self._told.wait()
        try:
            self._function()
        finally:
            self._done.set()

    def tell(self) -> None:
        """Let it run, if it does not yet."""
        self._told.set()
        if not self._thread.is_alive():
            # A forked child has none of its parent's threads.
            self._run()

    def wait(self, timeout_s: float) -> bool:
        """Whether it has finished, waiting at most so long."""
        return self._done.wait(max(timeout_s, 0.0))
