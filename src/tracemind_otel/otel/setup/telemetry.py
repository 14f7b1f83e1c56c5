"""What `configure()` returns, and its life: flush, shut-down, forks, the end of the process."""

from __future__ import annotations

import asyncio
import atexit
import copy
import logging
import time
import weakref
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from opentelemetry import metrics, trace

from ..._base.dropped import end_dropped
from ..._base.fork import in_forked_child
from ...flows.shared.states import flush_state
from ...recording.port import Recorder
from ..current import Providers, use_providers
from ..export.otlp_variables import Signal
from ..instruments import Instruments
from ..recorder import OTelRecorder
from .delivery import Destination, OneShot, undelivered, write_to_stderr
from .exits import hook_tools, run_before_sigterm

if TYPE_CHECKING:
    from .metric_reader import OwnReader

log = logging.getLogger(__name__)

_INTERRUPTED_WAIT_S = 0.3
"""Seconds that an export may still take after its waits were cut short."""
_STUCK_S = 1.2
"""Seconds without an arrival after which a shut-down gives the receiver up."""
_EXIT_TIMEOUT_S = 10.0
"""Seconds that the end of the process waits for a receiver that takes one request after the other."""


@dataclass(kw_only=True, slots=True)
class Pipeline:
    """What `configure()` made, and so may shut down."""

    providers: dict[Signal, Any] = field(default_factory=dict[Signal, Any])
    """The providers of the SDK; none for a signal whose provider was joined."""
    instruments: Instruments | None = None
    """Our own instruments; `None` where the SDK's are used."""
    destinations: list[Destination] = field(default_factory=list["Destination"])
    """The receivers and files to which the signals go."""
    readers: list[OwnReader] = field(default_factory=list["OwnReader"])
    """The readers that collect and export the metrics."""

    def flushes(self) -> list[Callable[[int], object]]:
        """The functions that send what waits. A meter provider does not say whether its readers succeeded."""
        parts = [provider for signal, provider in self.providers.items() if signal != "metrics"]
        return [part.force_flush for part in (*parts, *self.readers)]

    def discard(self) -> None:
        """Stop what was made before a mistake was found: its threads, its connections and its files."""
        for destination in self.destinations:
            destination.interrupt()
        for provider in self.providers.values():
            provider.shutdown()

    def begin_anew(self) -> None:
        """In a forked child: threads, connections and sums are the parent's, and stay there."""
        parts: list[Destination | OwnReader] = [*self.destinations, *self.readers]
        for part in parts:
            part.begin_anew()


class Telemetry(AbstractContextManager["Telemetry"], AbstractAsyncContextManager["Telemetry"]):
    """What `configure()` returns. A context manager, sync and async, that shuts down at its end.

    In a coroutine use `async with`, `aflush` and `ashutdown`: the others wait in the calling thread.
    """

    recorder: Recorder
    """The recorder that model calls use if they are given none."""
    tracer_provider: trace.TracerProvider
    """The provider of spans, joined or made here."""
    meter_provider: metrics.MeterProvider
    """The provider of metrics, joined or made here."""
    is_inherited: bool
    """Whether this process was forked from the one that configured it."""

    def __init__(
        self,
        *,
        providers: Providers,
        pipeline: Pipeline,
        settle: Callable[[], object] | None = None,
        before_shutdown: Callable[[], object] | None = None,
    ) -> None:
        self.tracer_provider = providers.tracer_provider or trace.get_tracer_provider()
        self.meter_provider = providers.meter_provider or metrics.get_meter_provider()
        use_providers(providers)
        self.recorder = OTelRecorder()
        self._pipeline = pipeline
        self._settle, self._before_shutdown = settle, before_shutdown
        self._made = [*pipeline.providers.values()]
        self._is_shared = self._is_shut_down = self.is_inherited = False
        self._prepare()
        # What is registered last runs first. `weakref` registers its own exit function with the first `finalize`, and
        # that one closes the connections which the last export uses.
        weakref.finalize(self, lambda: None)
        atexit.register(self._at_exit)

    def _prepare(self) -> None:
        """Start the threads that will shut down: at interpreter exit none can be started any more."""
        self._reported: list[str] = []
        self._shutdowns = [OneShot("tracemind-shutdown", provider.shutdown) for provider in self._made]

    @property
    def has_made_something(self) -> bool:
        """Whether a provider was made here, so that there is something to send."""
        return bool(self._made)

    def shared(self) -> Telemetry:
        """The handle for a second `configure()`: its `shutdown` only flushes."""
        handle = copy.copy(self)
        handle._is_shared = True
        return handle

    def settle(self) -> None:
        """End the calls that wait for their next attempt, because the process is about to end."""
        if self._settle is not None:
            self._settle()

    def begin_anew(self) -> None:
        """In a forked child: it sends its own spans and metrics, as its parent has configured."""
        self.is_inherited = True
        self._pipeline.begin_anew()
        self._prepare()

    def flush(self, timeout_s: float = 5.0) -> bool:
        """Send what waits now, waiting at most `timeout_s` seconds.

        Returns:
            Whether all of it arrived, at the receivers and in the state of shared budgets. A provider that was joined
            is flushed by its owner, not here.
        """
        failed_before = self._failed()
        timeout_millis = int(timeout_s * 1000)
        flushes = [OneShot("tracemind-flush", partial(flush, timeout_millis)) for flush in self._pipeline.flushes()]
        has_settled = flush_state(timeout_s)
        return _run_all(flushes, timeout_s) and self._failed() <= failed_before and has_settled

    def shutdown(self, timeout_s: float | None = None) -> bool:
        """Send what waits and stop; say on stderr what was lost, or waits on disk for the next process.

        Args:
            timeout_s: seconds to wait, about. By default a receiver that takes nothing is given up after 1.5 seconds,
                and one that is slow after 10.

        Providers that were joined go on. A second call shuts down nothing again; it waits for the rest of the first.

        Returns:
            Whether everything arrived.
        """
        if self._is_shared:
            return self.flush(_EXIT_TIMEOUT_S if timeout_s is None else timeout_s)
        if not self._is_shut_down:
            self._is_shut_down = True
            atexit.unregister(self._at_exit)
            if self._before_shutdown is not None:
                self._before_shutdown()
            flush_state()
            _forget(self)
        finished = self._wait_while_it_sends() if timeout_s is None else _run_all(self._shutdowns, timeout_s)
        finished = finished or self._interrupt()
        self.report_losses()
        return finished and not self._undelivered()

    def _wait_while_it_sends(self) -> bool:
        """Wait until everything has arrived, nothing arrives any more, or the time is over."""
        deadline, arrived, before = time.monotonic() + _EXIT_TIMEOUT_S, self._arrived(), -1
        finished = False
        while not finished and arrived > before and (remaining_s := deadline - time.monotonic()) > 0:
            finished = _run_all(self._shutdowns, min(remaining_s, _STUCK_S))
            before, arrived = arrived, self._arrived()
        return finished

    def _interrupt(self) -> bool:
        """Cut short the waits between an exporter's retries; returns whether everything finishes then."""
        for destination in self._pipeline.destinations:
            destination.interrupt()
        return _run_all(self._shutdowns, _INTERRUPTED_WAIT_S)

    def _failed(self) -> int:
        return sum(destination.stats.failed for destination in self._pipeline.destinations)

    def _arrived(self) -> int:
        return sum(destination.stats.delivered for destination in self._pipeline.destinations)

    def _undelivered(self) -> list[str]:
        return undelivered(destination.stats for destination in self._pipeline.destinations)

    def report_losses(self) -> None:
        """Say on stderr what was lost, or waits on disk, unless that was said before."""
        lines = self._undelivered()
        if lines != self._reported:
            self._reported = lines
            write_to_stderr(lines)

    def _at_exit(self) -> None:
        # A wait failed a moment ago, so the next is short.
        self.shutdown(_INTERRUPTED_WAIT_S if self._reported else None)

    async def aflush(self, timeout_s: float = 5.0) -> bool:
        """`flush`, without blocking the event loop."""
        return await asyncio.to_thread(self.flush, timeout_s)

    async def ashutdown(self, timeout_s: float | None = None) -> bool:
        """`shutdown`, without blocking the event loop."""
        return await asyncio.to_thread(self.shutdown, timeout_s)

    def __exit__(self, *error: object) -> None:
        self.shutdown()

    async def __aexit__(self, *error: object) -> None:
        await self.ashutdown()


def _run_all(calls: Sequence[OneShot], timeout_s: float) -> bool:
    """Run the calls side by side; returns whether all of them finish in that time."""
    end_dropped()
    deadline = time.monotonic() + timeout_s
    for call in calls:
        call.start()
    return all(call.wait(deadline - time.monotonic()) for call in calls)


def is_placeholder(provider: object) -> bool:
    """Whether a provider is the API's own, which records nothing."""
    return type(provider).__module__.startswith(("opentelemetry.trace", "opentelemetry.metrics", "opentelemetry._logs"))


# --- In this process ---

_set_ups: list[Telemetry] = []
"""Those that send in this process: inherited from the processes from which it was forked, then its own."""


def active() -> Telemetry | None:
    """The set-up that this process has configured and not shut down."""
    return next((telemetry for telemetry in _set_ups if not telemetry.is_inherited), None)


def activate(telemetry: Telemetry) -> None:
    """Make this the set-up of the process; it sends what waits before the process ends, however it ends."""
    _set_ups.append(telemetry)
    if telemetry.has_made_something:
        hook_tools(_deliver)
        run_before_sigterm(_shut_down, _flush, _EXIT_TIMEOUT_S + _INTERRUPTED_WAIT_S)


def _forget(telemetry: Telemetry) -> None:
    if telemetry in _set_ups:
        _set_ups.remove(telemetry)
    if active() is None:
        use_providers(Providers())


def _deliver() -> None:
    """Send what waits before a tool ends this process, and report what was lost."""
    for telemetry in [*_set_ups]:
        telemetry.settle()
        telemetry.flush(_EXIT_TIMEOUT_S)
        telemetry.report_losses()


def _flush() -> None:
    for telemetry in [*_set_ups]:
        telemetry.flush(_EXIT_TIMEOUT_S)


def _shut_down() -> None:
    for telemetry in [*_set_ups]:
        telemetry.shutdown()


def _begin_anew() -> None:
    """In a forked child: the parent's set-ups send here too, and the child may configure one of its own."""
    for telemetry in _set_ups:
        telemetry.begin_anew()
    if _set_ups:
        hook_tools(_deliver)


in_forked_child(_begin_anew)
