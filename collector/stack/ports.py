"""Choose the ports of the programs: the configured ones, or free ones."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Sequence

from .console import StackError
from .programs import HOST, PORTS, SHOWN_PORTS, Mode, Ports


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    with socket.socket() as probe:  # some systems let two programs bind one port if one of them bound all addresses
        probe.settimeout(1.0)
        return probe.connect_ex((HOST, port)) != 0


def default_ports(mode: Mode) -> Ports:
    ports: Ports = {port.name: configured_port(port.env, port.default) for port in PORTS}
    for port in PORTS:
        if (port.natively if mode == "native" else port.in_docker) and not is_free(ports[port.name]):
            raise StackError(
                f"port {ports[port.name]} ({port.used_for}) is in use by another program; "
                f"choose another with {port.env}=PORT, or pass --ports auto to use free ports"
            )
    return ports


def configured_port(variable: str, default: int) -> int:
    """The port that a variable names."""
    text = os.environ.get(variable, str(default))
    if not text.isdigit() or not 0 < int(text) < 65536:
        raise StackError(f"{variable}={text} is not a port; set a number from 1 to 65535")
    return int(text)


def free_ports() -> Ports:
    """A free port for each use."""
    return dict(zip((port.name for port in PORTS), some_free_ports(len(PORTS)), strict=True))


def some_free_ports(count: int) -> Sequence[int]:
    """Free ports; all are held open until the last is known, so that no two are equal."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind((HOST, 0))
        return [int(each.getsockname()[1]) for each in sockets]


def port_environment(ports: Ports) -> dict[str, str]:
    return {port.env: str(ports[port.name]) for port in PORTS}


def addresses(ports: Ports, mode: Mode) -> dict[str, str]:
    shown = [*SHOWN_PORTS, *(port for port in PORTS if mode == "docker" and port.in_docker and not port.natively)]
    return {**{port.name: url(ports[port.name]) for port in shown}, "mode": mode}


def url(port: int, path: str = "") -> str:
    return f"http://{HOST}:{port}{path}"
