"""The commands of `python -m collector.stack`."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

from .cache import default_state, file_lock
from .console import EXIT_FAILED, EXIT_NOTHING_TO_RUN_WITH, SIGNALS, StackError, output_of, say
from .docker import compose, docker_answers, stop_docker, up_docker
from .golang import Go, find_go, needed_go_version
from .native import build_all, natively_possible, up_native
from .ports import addresses
from .processes import PidFile, stop_processes
from .programs import PROGRAM_NAMES, SHOWN_PORTS, Mode, UpOptions

AUTO_SCRAPE_INTERVAL = "1s"


def choose_mode(wanted: str, go: Go | None) -> Mode:
    if wanted in ("auto", "native") and natively_possible(go):
        return "native"
    if wanted in ("auto", "docker") and docker_answers():
        return "docker"
    go_remedy = f"Go {needed_go_version()} or newer"
    what, remedy = {
        "native": ("Go was not found", f"{go_remedy}, and Prometheus if there is no apt-get"),
        "docker": ("no Docker engine answers", "Docker with its compose plugin, and start it"),
        "auto": ("Go was not found and no Docker engine answers", f"{go_remedy}, or Docker with its compose plugin"),
    }[wanted]
    raise StackError(f"{what}; install {remedy}", EXIT_NOTHING_TO_RUN_WITH)


def known_addresses(state: Path) -> dict[str, str] | None:
    """The addresses of the last `up`, if everything that it started still runs."""
    try:
        known: dict[str, str] = json.loads((state / "stack.json").read_text())
    except (FileNotFoundError, ValueError):
        return None
    return known if all(pid for _, pid in process_states(state, known["mode"])) else None


def process_states(state: Path, mode: str) -> list[tuple[str, str | None]]:
    """Each program's name, and its process or container id if it runs."""
    if mode == "native":
        pids = {name: PidFile(state / f"{name}.pid").running_pid() for name in PROGRAM_NAMES}
        return [(name, str(pid) if pid is not None else None) for name, pid in pids.items()]
    running = ("ps", "-q", "--status", "running")
    return [(name, output_of(compose(state, *running, name)) or None) for name in PROGRAM_NAMES]


def stop_all(state: Path) -> list[str]:
    stopped = stop_processes(state) + stop_docker(state)
    (state / "stack.json").unlink(missing_ok=True)
    return stopped


def state_lock(state: Path) -> contextlib.AbstractContextManager[None]:
    return file_lock(state / ".lock", "another command on the same state folder")


def command_build(_arguments: argparse.Namespace) -> int:
    binaries = build_all(find_go())
    for name, path in dataclasses.asdict(binaries).items():
        print(f"{name:<11} {path}")
    return 0


def command_up(arguments: argparse.Namespace) -> int:
    options = up_options(arguments)
    with state_lock(options.state):
        known = known_addresses(options.state)
        if known is not None:
            say("the stack is already running")
        else:
            known = up(options)
    print(json.dumps(known) if arguments.json else table(known, options.state))
    return 0


def up_options(arguments: argparse.Namespace) -> UpOptions:
    auto = arguments.ports == "auto"
    interval: str | None = arguments.scrape_interval or (AUTO_SCRAPE_INTERVAL if auto else None)
    return UpOptions(state_of(arguments), auto, arguments.mode, interval)


def up(options: UpOptions) -> dict[str, str]:
    """Start everything or nothing: an error or an interrupt stops what was started."""
    stop_all(options.state)  # a killed `up` may have left some
    go = find_go()
    mode = choose_mode(options.mode, go)
    started = time.monotonic()
    try:
        ports = up_native(options, go) if mode == "native" else up_docker(options)
        known = addresses(ports, mode)
        (options.state / "stack.json").write_text(json.dumps(known) + "\n")
    except BaseException:
        with SIGNALS.held():
            stop_all(options.state)
        raise
    say(f"ready after {time.monotonic() - started:.1f} s")
    return known


def table(known: Mapping[str, str], state: Path) -> str:
    rows = [f"{port.used_for:<18} {known[port.name]}" for port in SHOWN_PORTS]
    return "\n".join([*rows, f"{'runs by':<18} {known['mode']}", f"{'state and logs':<18} {state}"])


def command_down(arguments: argparse.Namespace) -> int:
    state = state_of(arguments)
    with state_lock(state), SIGNALS.held():
        stopped = stop_all(state)
    print(f"stopped {', '.join(stopped)}" if stopped else "nothing was running")
    return 0


def command_status(arguments: argparse.Namespace) -> int:
    state = state_of(arguments)
    known = known_addresses(state)
    mode = "docker" if (state / "docker").exists() else "native"
    for name, running_as in process_states(state, mode):
        print(f"{name:<18} {f'running ({running_as})' if running_as else 'stopped'}")
    if known is not None:
        print(table(known, state))
    return 0 if known is not None else EXIT_FAILED


def command_logs(arguments: argparse.Namespace) -> int:
    state = state_of(arguments)
    if (state / "docker").exists():
        return subprocess.run(compose(state, "logs", "--no-color", arguments.program), check=False).returncode
    try:
        print((state / f"{arguments.program}.log").read_text(errors="replace"), end="")
    except FileNotFoundError:
        raise StackError(
            f"{arguments.program} has no log in {state}; start it with `up`, or pass its --state"
        ) from None
    return 0


def state_of(arguments: argparse.Namespace) -> Path:
    given: Path | None = arguments.state
    return given.expanduser().resolve() if given else default_state()
