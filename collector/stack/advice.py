"""What to install when nothing can run the stack."""

from __future__ import annotations

from collections.abc import Sequence

from .console import EXIT_NOTHING_TO_RUN_WITH, StackError
from .golang import needed_go_version, why_no_go

NATIVE = {
    "Debian": "Go from https://go.dev/dl",
    "Ubuntu": "sudo snap install go --classic",
    "macOS": "brew install go prometheus",
    "Fedora": "sudo dnf install golang golang-github-prometheus",
}
"""Go builds the Collector and Jaeger. Where apt-get is, the stack unpacks Prometheus itself."""

DOCKER = {
    "Debian": "sudo apt-get install docker.io docker-cli docker-compose",
    "Ubuntu": "sudo apt-get install docker.io docker-compose-v2",
    "macOS": "brew install --cask docker-desktop, and start it",
    "Fedora": "sudo dnf install moby-engine docker-compose && sudo systemctl enable --now docker",
}

NOTHING_NEEDED = (
    "To look at a file of spans you need none of them: `tracemind-otel view FILE` shows it in the terminal, and "
    "`tracemind-otel view FILE --html PAGE` writes a page for the browser."
)


def nothing_to_run_with(mode: str, missing: Sequence[str]) -> StackError:
    """The error that says what is missing, and how to install it on the usual systems."""
    natively, in_docker = mode != "docker", mode != "native"
    faults: list[str] = []
    remedies: list[str] = []
    ways: list[dict[str, str]] = []
    if natively:
        faults += native_faults(missing)
        remedies.append(native_remedy(missing))
        ways.append(NATIVE)
    if in_docker:
        faults.append("no Docker engine answers")
        remedies.append("Docker with its compose plugin, which downloads images")
        ways.append(DOCKER)
    systems = [f"  {system}: {'; or '.join(way[system] for way in ways)}" for system in DOCKER]
    lines = [f"{listed(faults)}.", f"Install {', or '.join(remedies)}:", *systems, NOTHING_NEEDED]
    return StackError("\n".join(lines), EXIT_NOTHING_TO_RUN_WITH)


def native_faults(missing: Sequence[str]) -> list[str]:
    absent = f"{listed(missing)} {'is' if len(missing) == 1 else 'are'} missing"
    return [absent] if list(missing) == ["prometheus"] else [absent, why_no_go()]


def native_remedy(missing: Sequence[str]) -> str:
    if list(missing) == ["prometheus"]:
        return "Prometheus"
    go = f"Go {needed_go_version()} or newer, which builds for some minutes the first time"
    return f"Prometheus and {go}" if "prometheus" in missing else go


def listed(parts: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(parts[:-1]), parts[-1]]))
