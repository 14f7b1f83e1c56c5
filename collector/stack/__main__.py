"""The command line: build, start and stop the OpenTelemetry Collector, Jaeger and Prometheus on this machine.

Programs on the PATH are used if they can run the files of collector/, otherwise they are built with Go; without Go, the
stack runs in Docker. Only Python is needed. Files go to the cache or state folder; the programs listen on 127.0.0.1.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from .commands import AUTO_SCRAPE_INTERVAL, command_build, command_down, command_logs, command_status, command_up
from .console import run_command
from .installed import BUILD
from .overlays import OVERLAYS_VARIABLE, overlay_names
from .programs import DEFAULT_STORAGE, PORTS, PROGRAM_NAMES, REQUIREMENTS, STORAGE_VARIABLE, storages


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        description="The local stack of tracemind-otel: OpenTelemetry Collector, Jaeger and Prometheus.",
        epilog=f"Ports: {', '.join(f'{port.env} ({port.default})' for port in PORTS)}. "
        f"Programs: {', '.join(each.variable for each in REQUIREMENTS.values())}: the path of a program, or "
        f"`{BUILD}` to leave out the PATH. "
        "Cache: TRACEMIND_STACK_CACHE, else $XDG_CACHE_HOME/tracemind-otel, else ~/.cache/tracemind-otel. "
        "Exit codes: 0 done, 1 failed (status: not running), 2 wrong usage, 3 nothing to run the programs with.",
    )
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    build = commands.add_parser("build", help="build with Go, or fetch, each program that is not installed")
    build.set_defaults(run=command_build)
    add_up(commands.add_parser("up", help="start the stack, wait until it is ready and print the addresses"))
    down = commands.add_parser("down", help="stop what `up` started, and nothing else")
    down.set_defaults(run=command_down)
    status = commands.add_parser("status", help="print what is running, and its addresses")
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
        help="default: the usual ports, or those of the TRACEMIND_*_PORT variables; auto: free ports",
    )
    up_parser.add_argument("--json", action="store_true", help="print the addresses as one JSON object")
    up_parser.add_argument(
        "--mode",
        choices=("auto", "native", "docker"),
        default="auto",
        help="auto: native if the programs are installed or can be built, otherwise docker",
    )
    up_parser.add_argument(
        "--storage",
        choices=storages(),
        help=f"where Jaeger keeps traces: a file of collector/jaeger (default: {STORAGE_VARIABLE}, "
        f"otherwise {DEFAULT_STORAGE})",
    )
    up_parser.add_argument(
        "--overlay",
        action="append",
        choices=overlay_names(),
        help="a file of collector/overlays for the Collector, which then runs base.yaml with it in place of "
        f"otelcol.yaml; may be repeated (default: {OVERLAYS_VARIABLE}, names with commas between)",
    )
    up_parser.add_argument(
        "--scrape-interval",
        type=duration,
        metavar="DURATION",
        help="interval between Prometheus's scrapes, such as 1s (default: as in prometheus.yml; "
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
        help="folder of logs, process ids and data (default: in the cache)",
    )


def main(argv: Sequence[str] | None = None) -> int:
    return run_command("stack", parser().parse_args(argv))


if __name__ == "__main__":
    sys.exit(main())
