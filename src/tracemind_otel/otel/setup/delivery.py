"""Counts what is written to a file or to the console, and reports at the end what did not arrive anywhere.

The SDK's `force_flush` always returns True and ignores its time-out. So its exporters are watched from
outside, and slow calls run in threads of their own.
"""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any, Protocol

from ..._base.dropped import end_dropped
from ..._base.once import Seldom, report_fault
from ..export.delivery_stats import DeliveryStats

log = logging.getLogger(__name__)

_SELDOM = Seldom()


def _once_a_minute(record: logging.LogRecord) -> bool:
    """A log filter. An exporter whose file cannot be written repeats the same message for every batch."""
    return _SELDOM.is_due(record.name, str(record.msg))


_parents: list[Any] = []
"""Exporters of the process from which this one was forked, kept so that nothing closes the parent's files."""


class WatchedExporter:
    """An exporter of the SDK whose results are counted: to a file, or to the console.

    Args:
        make: makes the exporter; a forked child calls it again.
        stats: counts what arrives.
        count: the number of items in a batch.
        mend: a batch as the exporter gets it.
    """

    def __init__(
        self,
        make: Callable[[], Any],
        stats: DeliveryStats,
        *,
        count: Callable[[Any], int] = len,
        mend: Callable[[Any], Any] | None = None,
    ) -> None:
        self._make = make
        self._exporter = make()
        self.stats = stats
        self._count = count
        self._mend = mend
        self._is_shut_down = False
        logging.getLogger(type(self._exporter).__module__).addFilter(_once_a_minute)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._exporter, name)

    def export(self, batch: Any, *args: Any, **kwargs: Any) -> Any:
        """Export a batch, and count it."""
        end_dropped()
        size = self._count(batch)
        self.stats.begin_export(size)
        delivered = False
        try:
            if self._exporter is None:
                self._exporter = self._make()
            result = self._exporter.export(batch if self._mend is None else self._mend(batch), *args, **kwargs)
            delivered = result.name == "SUCCESS"
            return result
        finally:
            self.stats.settle(size, delivered=delivered)

    def force_flush(self, timeout_millis: float = 10_000) -> bool:
        """Send what the exporter holds back."""
        return self._exporter is None or bool(self._exporter.force_flush(int(timeout_millis)))

    def begin_anew(self) -> None:
        """In a forked child: the next export opens the file anew, and the parent's stays open."""
        _parents.append(self._exporter)
        self._exporter = None
        self.stats.begin_anew()

    def interrupt(self) -> None:
        """Close the file."""
        self.shutdown()

    def shutdown(self, *args: Any, **kwargs: Any) -> None:
        """Shut down once."""
        if self._exporter is not None and not self._is_shut_down:
            self._is_shut_down = True
            self._exporter.shutdown(*args, **kwargs)


class Destination(Protocol):
    """What sends to one place, and ends with the pipeline."""

    @property
    def stats(self) -> DeliveryStats:
        """What arrived and what did not."""
        ...

    def begin_anew(self) -> None:
        """In a forked child: what was not sent at the fork is the parent's."""
        ...

    def interrupt(self) -> None:
        """Cut short a shut-down that waits for the receiver."""
        ...


def undelivered(stats: Iterable[DeliveryStats]) -> list[str]:
    """What was lost, what may or may not have arrived, and what waits on disk for the next process, a line of each."""
    each = [*stats]
    lines = [
        ("lost", [one.lost() for one in each], "Is a Collector running there?"),
        ("unknown", [one.doubtful() for one in each], "The receiver did not confirm them."),
        ("kept", [one.kept() for one in each], "The next process with this spool sends them."),
    ]
    told = [(title, "; ".join(filter(None, clauses)), hint) for title, clauses, hint in lines]
    return [f"tracemind-otel: {title}: {clauses}. {hint}" for title, clauses, hint in told if clauses]


def write_to_stderr(lines: Iterable[str]) -> None:
    """Write lines. If stderr is closed or missing, only the return value of a shut-down says it."""
    with suppress(AttributeError, OSError, ValueError):
        sys.stderr.write("".join(f"{line}\n" for line in lines))


class OneShot:
    """A slow call that runs once, in a thread that is started early: at interpreter exit none can be started.

    It fails if it raises or returns False.
    """

    def __init__(self, name: str, function: Callable[[], object]) -> None:
        self._function = function
        self._started = threading.Event()
        self._done = threading.Event()
        self._failed = False
        threading.Thread(target=self._run, name=name, daemon=True).start()

    def _run(self) -> None:
        self._started.wait()
        try:
            self._failed = self._function() is False
        except Exception:
            self._failed = True
            report_fault(log, threading.current_thread().name, "run")
        finally:
            self._done.set()

    def start(self) -> None:
        """Have the thread run it. A second call does nothing."""
        self._started.set()

    def wait(self, timeout_s: float) -> bool:
        """Wait at most so many seconds; returns whether it has finished and did not fail."""
        return self._done.wait(max(timeout_s, 0.0)) and not self._failed
