"""Sends what waits in processes that end without `atexit`, by a hook in the tool that ends them.

No tool is imported here. A hook is set when `configure()` runs and right after each fork, if its tool is loaded by
then. That is early enough: a tool that ends its children by `os._exit` is loaded before it forks them, and in a spawned
child before any code of the application. A server that is loaded after `configure()` leaves the signal handler.
"""

from __future__ import annotations

import asyncio
import functools
import importlib
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

from ..._base.fork import in_forked_child
from .delivery import OneShot

Action = Callable[[], object]

log = logging.getLogger(__name__)


def hook_tools(deliver: Action) -> None:
    """Make every loaded tool call `deliver` before it ends a process."""
    importlib.import_module("multiprocessing.util")  # billiard's children use it too
    for name, hook in _HOOKS.items():
        module = sys.modules.get(name)
        if module is not None and name not in _hooked:
            _hooked.add(name)
            try:
                hook(module, deliver)
            except AttributeError as error:
                log.warning("%s: %s. Call flush() before it ends a process, or its last spans are lost", name, error)


_hooked: set[str] = set()
"""The tools that have their hook. A forked child inherits both."""


def _hook_finalizers(util: Any, deliver: Action) -> None:
    """Children of `multiprocessing` and of `billiard` drop inherited finalizers as they begin, and then get ours."""

    def finalize(_: object = None) -> None:
        util.Finalize(None, deliver, exitpriority=0)

    util.register_after_fork(deliver, finalize)
    modules = [sys.modules.get(f"{library}.process") for library in ("multiprocessing", "billiard")]
    if any(module.current_process().name != "MainProcess" for module in modules if module is not None):
        finalize()


def _deliver_after(owner: Any, name: str, deliver: Action, is_last: Callable[[Any], bool]) -> None:
    """Call `deliver` at the end of a method, if it is the last that runs in the process."""
    method = getattr(owner, name)

    @functools.wraps(method)
    def method_and_deliver(self: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return method(self, *args, **kwargs)
        finally:
            if is_last(self):
                deliver()

    setattr(owner, name, method_and_deliver)


def _hook_billiard_pool(pool: Any, deliver: Action) -> None:
    """A worker of `billiard.Pool` runs no finalizers. Celery's workers, a subclass, have a signal."""
    _deliver_after(pool.Worker, "workloop", deliver, lambda worker: type(worker) is pool.Worker)


def _hook_celery(signals: Any, deliver: Action) -> None:
    """The signal comes at every end of a child of the prefork pool, also by `--max-tasks-per-child`."""

    def at_shutdown(**_: object) -> None:
        deliver()

    signals.worker_process_shutdown.connect(at_shutdown, weak=False)


def _hook_rq(worker: Any, deliver: Action) -> None:
    """A work horse runs one job and ends after one of these methods."""
    for name in ("handle_job_success", "handle_job_failure", "handle_job_retry"):
        if hasattr(worker.Worker, name):
            _deliver_after(worker.Worker, name, deliver, lambda worker: worker.is_horse)


def _hook_uvicorn(server: Any, deliver: Action) -> None:
    """After its shutdown it raises the signal again, and the handler before its own ends the process."""
    shutdown = server.Server.shutdown

    @functools.wraps(shutdown)
    async def shutdown_and_deliver(self: Any, *args: Any, **kwargs: Any) -> None:
        try:
            await shutdown(self, *args, **kwargs)
        finally:
            await asyncio.to_thread(deliver)

    server.Server.shutdown = shutdown_and_deliver


_HOOKS: dict[str, Callable[[Any, Action], None]] = {
    "multiprocessing.util": _hook_finalizers,
    "billiard.pool": _hook_billiard_pool,
    "celery.signals": _hook_celery,
    "rq.worker": _hook_rq,
    "uvicorn.server": _hook_uvicorn,
}


def run_before_sigterm(shut_down: Action, flush: Action, timeout_s: float) -> None:
    """Shut down before SIGTERM ends the process or a forked child; only the main thread can set this up.

    Where something else handles the signal already, that handler stays. Process 1 of a container is not ended by a
    SIGTERM that nobody handles: the kernel drops the signal. Such a process works on, so it only flushes.
    """
    in_main_thread = threading.current_thread() is threading.main_thread()
    if not in_main_thread or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        return

    def make_shot() -> OneShot:
        # A thread of its own: the code that a signal interrupts may hold any lock.
        action = functools.partial(_flush_process_1, flush) if os.getpid() == 1 else shut_down
        return OneShot("tracemind-sigterm", action)

    shot = make_shot()

    def begin_anew() -> None:
        nonlocal shot
        shot = make_shot()

    def end(signum: int, frame: FrameType | None) -> None:
        shot.start()
        if os.getpid() != 1:
            shot.wait(timeout_s)
            signal.signal(signum, signal.SIG_DFL)
            os.kill(os.getpid(), signum)

    in_forked_child(begin_anew)
    signal.signal(signal.SIGTERM, end)


_STILL_THERE_S = 2.0
"""Seconds after SIGTERM and the flush in which a program ends that handles the signal in its own way."""


def _flush_process_1(flush: Action) -> None:
    """Send what waits before the container is killed, and say why it will be."""
    flush()
    time.sleep(_STILL_THERE_S)
    log.warning(
        "SIGTERM did not end this program, because it is process 1 of its container: it is killed after the grace "
        "period. Handle the signal by sys.exit(), or start the program by an init process such as tini"
    )
