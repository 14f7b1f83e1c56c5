"""Faults on purpose, and then the accounts.

The application makes calls at a steady rate while the provider answers with 429 and 5xx, breaks connections and cuts
replies, the real Collector is killed twice, stopped, and made to answer 503 and 429. With a spool on disk the
application is killed half-way and started again; `full-disk` is a disk of two megabytes, without the kill. Afterwards
each span, each cost and the provider's bill are compared.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Literal, get_args

from .accounts import Accounts, settle
from .world import Application, Collector, ask, server, small_disk

Spool = Literal["memory", "disk", "full-disk"]

LONG_S, SHORT_S = 90.0, 20.0


def run(
    *, folder: Path, seconds: float, rate: float, seed: int, spool: Spool, say: Callable[[str], object]
) -> Accounts:
    """One run; the ledgers and the logs stay in the folder."""
    with ExitStack() as stack:
        provider_url = stack.enter_context(server("provider", str(seed)))
        sink_url = stack.enter_context(server("sink"))
        collector = Collector(folder, sink_url)
        stack.callback(collector.kill)
        collector.start()
        directory = None if spool == "memory" else folder / "spool"
        if directory is not None and spool == "full-disk":
            stack.enter_context(small_disk(directory))
        application = Application(folder, provider_url, collector.url, rate, directory)
        application.start(seconds)
        faults = threading.Thread(target=_faults, args=(collector, sink_url, seconds, say))
        faults.start()
        if spool == "disk":
            time.sleep(seconds / 2)
            say("the application is killed and started again")
            application.kill()
            application.start(seconds / 2)
        faults.join()
        code = application.wait()
        say(f"the application has ended with {code}")
        return settle(folder, ask(f"{sink_url}/_accounts"), ask(f"{provider_url}/_ledger"))


def _faults(collector: Collector, sink_url: str, seconds: float, say: Callable[[str], object]) -> None:
    """What happens to the Collector, in parts of the run's time."""

    def restart(away_s: float) -> None:
        collector.kill()
        time.sleep(away_s)
        collector.start()

    def refuse(status: str, for_s: float) -> None:
        ask(f"{sink_url}/_mode/{status}", "PUT")
        time.sleep(for_s)
        ask(f"{sink_url}/_mode/ok", "PUT")

    started = time.monotonic()
    plan: list[tuple[float, str, Callable[[], None]]] = [
        (0.10, "the Collector is killed and started again", lambda: restart(seconds * 0.01)),
        (0.20, "the Collector is killed and started again", lambda: restart(seconds * 0.01)),
        (0.30, "the Collector is away for a third of the time", lambda: restart(seconds / 3)),
        (0.68, "the Collector answers 503", lambda: refuse("503", seconds * 0.11)),
        (0.80, "the Collector answers 429", lambda: refuse("429", seconds * 0.11)),
    ]
    for share, words, act in plan:
        time.sleep(max(started + share * seconds - time.monotonic(), 0.0))
        say(words)
        act()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=LONG_S, help=f"seconds of calls (default {LONG_S:g})")
    parser.add_argument("--rate", type=float, default=300.0, help="calls a second (default 300)")
    parser.add_argument("--seed", type=int, default=7, help="of the provider's faults (default 7)")
    parser.add_argument("--spool", choices=get_args(Spool), default="disk", help="where spans wait (default disk)")
    options = parser.parse_args()
    started = time.monotonic()
    folder = Path(tempfile.mkdtemp(prefix="tracemind-chaos-"))
    print(f"ledgers and logs: {folder}", flush=True)
    accounts = run(
        folder=folder,
        seconds=options.seconds,
        rate=options.rate,
        seed=options.seed,
        spool=options.spool,
        say=lambda words: print(f"{time.monotonic() - started:6.1f} s  {words}", flush=True),
    )
    print(json.dumps(asdict(accounts), indent=2))


if __name__ == "__main__":
    main()
