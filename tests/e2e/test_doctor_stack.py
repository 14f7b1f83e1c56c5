"""`doctor` asks the real Collector: fine on its own ports, and wrong where the ports are swapped."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.backends import Stack
from tests.programs import run

pytestmark = pytest.mark.e2e


def examined(directory: Path, endpoint: str, protocol: str) -> dict[str, Any]:
    """The report of `doctor` in this environment."""
    settings = {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, "OTEL_EXPORTER_OTLP_PROTOCOL": protocol}
    done = run("-m", "tracemind_otel", "doctor", "--json", directory=directory, environment=settings)
    report: dict[str, Any] = json.loads(done.stdout)
    assert done.returncode == report["exit_code"]
    return report


def endpoint(address: str) -> str:
    return address if "://" in address else f"http://{address}"


def test_the_collector_is_healthy_over_both_protocols(stack: Stack, tmp_path: Path) -> None:
    """The real Collector takes the empty exports: no finding, and the exit code is 0."""
    for address, protocol in ((stack.otlp_http, "http/protobuf"), (stack.otlp_grpc, "grpc")):
        assert examined(tmp_path, endpoint(address), protocol)["findings"] == []


def test_swapped_ports_of_the_collector_are_found(stack: Stack, tmp_path: Path) -> None:
    """HTTP to the Collector's gRPC port, and gRPC to its HTTP port."""
    for address, protocol in ((stack.otlp_grpc, "http/protobuf"), (stack.otlp_http, "grpc")):
        findings = examined(tmp_path, endpoint(address), protocol)["findings"]
        assert [finding["check"] for finding in findings] == ["wrong-protocol"]
