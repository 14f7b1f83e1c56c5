"""The command line: the whole chain for a fleet on this machine, to try it and to test it.

Two agents, three samplers, Kafka, two ingesters, Cassandra and a query node. All listen on 127.0.0.1; files go to the
cache or the state folder. It needs Go, Java 17 and Maven the first time, and about 2.5 GB of memory.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from collector.stack.cache import cache_dir, state_lock
from collector.stack.console import EXIT_FAILED, SIGNALS, run_command, say

from .chain import Binaries, Chain, prepare
from .layout import AGENTS, NAMES, Layout, choose_ports

NO_BINARIES = Binaries(Path(), Path(), "", Path(), Path())
"""Enough to stop what runs."""


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        prog="python -m collector.gateway",
        description="The chain for a fleet on this machine: agents, samplers, Kafka, ingesters, Cassandra, query.",
        epilog="Exit codes: 0 done, 1 failed (status: not all running), 2 wrong usage, 3 something must be installed.",
    )
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    up = commands.add_parser("up", help="start the chain, wait until it is ready and print the addresses")
    up.set_defaults(run=command_up)
    up.add_argument(
        "--ports",
        choices=("default", "auto"),
        default="default",
        help="default: 4317, 4318 and 16686 or those of the TRACEMIND_*_PORT variables; auto: free ports. "
        "A folder that was used before keeps its ports if they are free",
    )
    up.add_argument("--json", action="store_true", help="print the ports of each program as one JSON object")
    down = commands.add_parser("down", help="stop the chain, those that send first, and keep its data")
    down.set_defaults(run=command_down)
    status = commands.add_parser("status", help="print what is running, and the addresses")
    status.set_defaults(run=command_status)
    build = commands.add_parser("build", help="build and fetch all programs")
    build.set_defaults(run=command_build)
    for command in (up, down, status):
        command.add_argument("--state", type=Path, metavar="DIR", help="folder of logs and data (default: the cache)")
    return top


def command_build(_arguments: argparse.Namespace) -> int:
    binaries = prepare()
    for name, value in vars(binaries).items():
        print(f"{name:<12} {value}")
    return 0


def command_up(arguments: argparse.Namespace) -> int:
    state = state_of(arguments)
    with state_lock(state):
        chain = known_chain(state)
        if chain is not None and all(chain.pid(name) for name in NAMES):
            say("the chain is already running")
        else:
            chain = up(state, chain, auto=arguments.ports == "auto")
    print(json.dumps(chain.layout.ports) if arguments.json else table(chain))
    return 0


def up(state: Path, before: Chain | None, *, auto: bool) -> Chain:
    """Start everything or nothing: an error or an interrupt stops what was started."""
    if before is not None:
        before.stop()  # a killed `up` may have left some
    binaries = prepare()
    known = before.layout if before is not None and before.layout.is_free() else None
    chain = Chain(binaries, known or choose_ports(auto=auto), state)
    chain.layout.write(layout_file(state))
    started = time.monotonic()
    try:
        for name in NAMES:
            say(f"{name} ...")
            chain.start(name)
    except BaseException:
        with SIGNALS.held():
            chain.stop()
        raise
    say(f"ready after {time.monotonic() - started:.1f} s")
    return chain


def command_down(arguments: argparse.Namespace) -> int:
    state = state_of(arguments)
    with state_lock(state), SIGNALS.held():
        chain = known_chain(state)
        stopped = chain.stop() if chain is not None else []
    print(f"stopped {', '.join(stopped)}" if stopped else "nothing was running")
    return 0


def command_status(arguments: argparse.Namespace) -> int:
    chain = known_chain(state_of(arguments))
    pids = {name: chain.pid(name) if chain is not None else None for name in NAMES}
    for name, pid in pids.items():
        print(f"{name:<12} {f'running ({pid})' if pid else 'stopped'}")
    if chain is None or not all(pids.values()):
        return EXIT_FAILED
    print(table(chain))
    return 0


def known_chain(state: Path) -> Chain | None:
    """The chain that `up` started in this folder, running or not."""
    layout = Layout.read(layout_file(state))
    return Chain(NO_BINARIES, layout, state) if layout is not None else None


def layout_file(state: Path) -> Path:
    return state / "chain.json"


def table(chain: Chain) -> str:
    url = chain.layout.url
    rows = {f"{agent}, OTLP": f"{url(agent, 'otlp_http')} (HTTP), {url(agent, 'otlp_grpc')} (gRPC)" for agent in AGENTS}
    rows |= {"Jaeger UI": url("query", "jaeger_http"), "state and logs": str(chain.state)}
    return "\n".join(f"{what:<16} {where}" for what, where in rows.items())


def state_of(arguments: argparse.Namespace) -> Path:
    given: Path | None = arguments.state
    return given.expanduser().resolve() if given else cache_dir() / ".chain"


def main(argv: Sequence[str] | None = None) -> int:
    return run_command("gateway", parser().parse_args(argv))


if __name__ == "__main__":
    sys.exit(main())
