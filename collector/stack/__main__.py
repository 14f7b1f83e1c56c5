"""Builds, starts and stops the local stack: the OpenTelemetry Collector, Jaeger and Prometheus.

Natively where Go is (or the programs were built before), otherwise with Docker. Needs nothing but Python.
What it makes lies in the cache folder or in the state folder; what it starts listens on 127.0.0.1.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from .commands import AUTO_SCRAPE_INTERVAL, command_build, command_down, command_logs, command_status, command_up
from .console import EXIT_INTERRUPTED, SIGNALS, Interrupted, StackError, say
from .programs import PORTS, PROGRAM_NAMES


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        description="The local stack of tracemind-otel: OpenTelemetry Collector, Jaeger and Prometheus.",
        epilog="Ports: " + ", ".join(f"{port.env} ({port.default})" for port in PORTS) + ". "
        "Cache: TRACEMIND_STACK_CACHE, else $XDG_CACHE_HOME/tracemind-otel, else ~/.cache/tracemind-otel. "
        "Exit codes: 0 done, 1 failed (status: not running), 2 wrong usage, 3 no Go and no Docker.",
    )
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    build = commands.add_parser("build", help="build the Collector and Jaeger with Go, and fetch Prometheus")
    build.set_defaults(run=command_build)
    add_up(commands.add_parser("up", help="start the stack, wait until it is ready and print the addresses"))
    down = commands.add_parser("down", help="end what `up` started, and nothing else")
    down.set_defaults(run=command_down)
    status = commands.add_parser("status", help="say what is running, and where")
    status.set_defaults(run=command_status)
    logs = commands.add_parser("logs", help="print the log of one program")
    logs.add_argument("program", choices=PROGRAM_NAMES)
    logs.set_defaults(run=command_logs)
    for command in (down, status, logs):
        add_state(command)
    return top


def add_up(up_parser: argparse.ArgumentParser) -> None:
    up_parser.add_argument(
        "--ports",
        choices=("default", "auto"),
        default="default",
        help="default: the usual ones, or those of the TRACEMIND_*_PORT variables; auto: any that are free",
    )
    up_parser.add_argument("--json", action="store_true", help="print the addresses as one JSON object")
    up_parser.add_argument(
        "--mode",
        choices=("auto", "native", "docker"),
        default="auto",
        help="auto: natively where Go or a finished build is there, otherwise by Docker",
    )
    up_parser.add_argument(
        "--scrape-interval",
        type=duration,
        metavar="DURATION",
        help="how often Prometheus reads the Collector, for example 1s (default: as in prometheus.yml; "
        f"{AUTO_SCRAPE_INTERVAL} with --ports auto)",
    )
    add_state(up_parser)
    up_parser.set_defaults(run=command_up)


def duration(text: str) -> str:
    if not re.fullmatch(r"[1-9]\d*(ms|s|m|h)", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a duration such as 500ms, 5s or 1m")
    return text


def add_state(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--state",
        type=Path,
        metavar="DIR",
        help="where logs, process numbers and data lie (default: in the cache)",
    )


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parser().parse_args(argv)
    SIGNALS.install()
    try:
        code: int = arguments.run(arguments)
    except StackError as error:
        say(f"stack: {error}")
        return error.exit_code
    except Interrupted:
        say("stack: interrupted, nothing is left running")
        return EXIT_INTERRUPTED
    return code


if __name__ == "__main__":
    sys.exit(main())
