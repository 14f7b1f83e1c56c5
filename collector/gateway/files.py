"""The files of Kafka and Cassandra with the ports and folders of one chain."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from collector.stack.programs import HOST

from .maven import CASSANDRA, KAFKA


def with_values(text: str, separator: str, values: Mapping[str, str]) -> str:
    """A file of keys and values, with other values for these keys; each must be there."""
    for key, value in values.items():
        line = re.compile(rf"^(\s*(?:- )?{re.escape(key)}{separator}).*$", re.MULTILINE)
        text, count = line.subn(lambda found, value=value: found.group(1) + value, text)  # type: ignore[misc]
        if count != 1:
            raise ValueError(f"the key {key!r} is there {count} times, not once")
    return text


def write_kafka(state: Path, broker: int, controller: int) -> Path:
    """Write server.properties for a broker on these ports; returns its path."""
    path = state / "server.properties"
    values = {
        "controller.quorum.voters": f"1@{HOST}:{controller}",
        "listeners": f"PLAINTEXT://{HOST}:{broker},CONTROLLER://{HOST}:{controller}",
        "advertised.listeners": f"PLAINTEXT://{HOST}:{broker}",
        "log.dirs": str(state / "data"),
    }
    path.write_text(with_values((KAFKA.folder / "server.properties").read_text(), "=", values))
    return path


def write_cassandra(state: Path, native: int, storage: int) -> Path:
    """Write cassandra.yaml for a node on these ports; returns its path."""
    path = state / "cassandra.yaml"
    folders = ("commitlog", "saved_caches", "hints", "cdc_raw")
    values = {
        "seeds": f'"{HOST}:{storage}"',
        "storage_port": str(storage),
        "native_transport_port": str(native),
        **{f"{name}_directory": str(state / name) for name in folders},
    }
    text = with_values((CASSANDRA.folder / "cassandra.yaml").read_text(), ": ", values)
    path.write_text(text.replace("  - /var/lib/cassandra/data", f"  - {state / 'data'}"))
    return path
