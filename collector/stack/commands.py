"""The commands of `python -m collector.stack`."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

from .advice import nothing_to_run_with
from .cache import default_state, state_lock
from .console import EXIT_FAILED, SIGNALS, StackError, output_of, say
from .docker import compose, docker_answers, images, stop_docker, up_docker
from .golang import Go, find_go
from .native import Binaries, Found, check_storage, complete, find_all, up_native
from .overlays import check_variables, chosen_overlays, collector_files, overlay_environment
from .ports import addresses
from .processes import PidFile, stop_processes
from .programs import (
    DEFAULT_STORAGE,
    PORTS,
    PROGRAM_NAMES,
    STORAGE_VARIABLE,
    Mode,
    Ports,
    Source,
    UpOptions,
    jaeger_files,
    storages,
)

AUTO_SCRAPE_INTERVAL = "1s"


def choose_mode(wanted: str, found: Found, go: Go | None) -> Mode:
    missing = found.missing(go)
    if wanted in ("auto", "native") and not missing:
        return "native"
    if wanted in ("auto", "docker") and docker_answers():
        return "docker"
    raise nothing_to_run_with(wanted, missing)


def known_addresses(state: Path) -> dict[str, str] | None:
    """The addresses of the last `up`, if everything that it started still runs."""
    known = read_strings(state / "stack.json")
    return known if known and all(pid for _, pid in process_states(state, known["mode"])) else None


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
    (state / "programs.json").unlink(missing_ok=True)
    return stopped


def command_build(_arguments: argparse.Namespace) -> int:
    go = find_go()
    binaries = complete(find_all(go, collector_files(()), jaeger_files(DEFAULT_STORAGE)), go)
    for name, source in sources(binaries).items():
        say(f"{name}: {source}")
        print(f"{name:<11} {source.path}")
    return 0


def sources(binaries: Binaries) -> dict[str, Source]:
    return {name: getattr(binaries, name) for name in PROGRAM_NAMES}


def command_up(arguments: argparse.Namespace) -> int:
    options = up_options(arguments)
    with state_lock(options.state):
        known = known_addresses(options.state)
        if known is not None:
            check_same_choice(options)
            say("the stack is already running")
        else:
            known = up(options)
    print(json.dumps(known) if arguments.json else table(known, options.state))
    return 0


def up_options(arguments: argparse.Namespace) -> UpOptions:
    auto = arguments.ports == "auto"
    interval: str | None = arguments.scrape_interval or (AUTO_SCRAPE_INTERVAL if auto else None)
    overlays = chosen_overlays(arguments.overlay)
    return UpOptions(state_of(arguments), auto, arguments.mode, interval, storage_of(arguments), overlays)


def storage_of(arguments: argparse.Namespace) -> str:
    wanted: str = arguments.storage or os.environ.get(STORAGE_VARIABLE) or DEFAULT_STORAGE
    if wanted not in storages():
        raise StackError(f"{STORAGE_VARIABLE}={wanted} is not a storage; choose one of {', '.join(storages())}")
    return wanted


def check_same_choice(options: UpOptions) -> None:
    """Reject another storage or other overlays than those of the running stack, which `up` does not change."""
    known = known_programs(options.state)
    for name, wanted in chosen(options).items():
        running = known.get(name, wanted)
        if running != wanted:
            message = f"the stack runs with the {name} {running or 'none'}"
            raise StackError(f"{message}; stop it with `down` to choose {wanted or 'none'}")


def chosen(options: UpOptions) -> dict[str, str]:
    return {"storage": options.storage, "overlays": ", ".join(options.overlays)}


def up(options: UpOptions) -> dict[str, str]:
    """Start everything or nothing: an error or an interrupt stops what was started."""
    stop_all(options.state)  # a killed `up` may have left some
    os.environ.update(overlay_environment(options.overlays, options.state))  # for programs that run or check the files
    check_variables(options.overlays)
    go = find_go()
    found = (
        find_all(go, collector_files(options.overlays), options.jaeger_files)
        if options.mode != "docker"
        else Found(None, None, None)
    )
    mode = choose_mode(options.mode, found, go)
    started = time.monotonic()
    try:
        ports, programs = start_native(options, found, go) if mode == "native" else (up_docker(options), images())
        for name, description in programs.items():
            say(f"{name}: {description}")
        (options.state / "programs.json").write_text(json.dumps({**programs, **chosen(options)}) + "\n")
        known = addresses(ports, mode)
        (options.state / "stack.json").write_text(json.dumps(known) + "\n")
    except BaseException:
        with SIGNALS.held():
            stop_all(options.state)
        raise
    say(f"ready after {time.monotonic() - started:.1f} s")
    return known


def start_native(options: UpOptions, found: Found, go: Go | None) -> tuple[Ports, dict[str, str]]:
    """Build what is missing, and start the programs; returns where each came from."""
    binaries = complete(found, go)
    check_storage(binaries.jaeger, options)
    return up_native(options, binaries), {name: str(source) for name, source in sources(binaries).items()}


def known_programs(state: Path) -> dict[str, str]:
    """Version and origin of each program of the last `up`, Jaeger's storage and the overlays."""
    return read_strings(state / "programs.json")


def read_strings(path: Path) -> dict[str, str]:
    """What `up` wrote into a file; nothing if there is none."""
    try:
        written: dict[str, str] = json.loads(path.read_text())
    except (FileNotFoundError, ValueError):
        return {}
    return written


def table(known: Mapping[str, str], state: Path) -> str:
    rows = {port.used_for: known[port.name] for port in PORTS if port.name in known}
    programs = known_programs(state)
    rows |= {"runs by": known["mode"], "Jaeger's storage": programs.get("storage", DEFAULT_STORAGE)}
    rows |= {"overlays": programs["overlays"]} if programs.get("overlays") else {}
    return "\n".join(f"{name:<18} {value}" for name, value in (rows | {"state and logs": str(state)}).items())


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
    programs = known_programs(state)
    for name, running_as in process_states(state, mode):
        what = f"running ({running_as}), {programs.get(name, 'unknown version')}" if running_as else "stopped"
        print(f"{name:<18} {what}")
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
