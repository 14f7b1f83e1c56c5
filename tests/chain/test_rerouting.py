"""What agents do when the list of samplers changes: a DNS name with several addresses, as a headless service has."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

import pytest
from collector.gateway.chain import BASE, GATEWAY, OTELCOL_GATEWAY, OVERLAYS, configs
from collector.stack.ports import free_ports, port_environment
from collector.stack.processes import answers, wait_until
from collector.stack.programs import HOST, Ports

from tests.chain.traffic import Trace, pause, sending
from tests.required import built
from tests.servers.otlp_sink import Sink, listening

pytestmark = [
    pytest.mark.chain,
    pytest.mark.skipif(sys.platform != "linux", reason="needs a name with several addresses for one process"),
]

DECISION_WAIT_S = 20.0
"""Longer than the halves of a trace are apart when one of them waited for the list to change."""
ADDRESSES = ("127.0.0.2", "127.0.0.3", "127.0.0.4")
NAME = "samplers.test"
LIST_CHANGES_S = 12.0
"""The resolver asks every 5 s, and Go reads /etc/hosts at most every 5 s."""
OWN_HOSTS = ("unshare", "--map-root-user", "--mount", "sh", "-c", 'mount --bind "$0" /etc/hosts && exec "$@"')
"""Runs a program that sees another file as /etc/hosts."""


@pytest.fixture(scope="module")
def otelcol(visibly: Callable[[], AbstractContextManager[None]]) -> Path:
    with visibly():
        return built(OTELCOL_GATEWAY)


@contextmanager
def running(command: Sequence[str], variables: Mapping[str, str], log: Path, health: str) -> Generator[int]:
    """A Collector that is ready; gives its process id, and stops it at the end unless it is gone."""
    environment = {"PATH": os.environ["PATH"], "TRACEMIND_COLLECTOR_QUEUE": "file_storage/queue", **variables}
    with log.open("wb") as output, subprocess.Popen(command, env=environment, stdout=output, stderr=output) as process:
        try:
            assert wait_until(lambda: process.poll() is not None or answers(health), 60.0), log.read_text()
            assert process.poll() is None, log.read_text()
            yield process.pid
        finally:
            process.terminate()


def write_hosts(path: Path, addresses: Sequence[str]) -> None:
    """Write the same file anew: the agent has it mounted."""
    path.write_text("127.0.0.1 localhost\n" + "".join(f"{address} {NAME}\n" for address in addresses))


@pytest.fixture
def hosts(tmp_path: Path) -> Path:
    """The agent's own /etc/hosts, which names all samplers."""
    path = tmp_path / "hosts"
    write_hosts(path, ADDRESSES)
    if subprocess.run([*OWN_HOSTS, str(path), "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("needs a mount namespace of its own (unshare)")
    return path


def sampler(otelcol: Path, folder: Path, address: str, ports: Ports, sink: Sink) -> AbstractContextManager[int]:
    """A sampler at an address, which sends to a receiver of the test."""
    files = (BASE, OVERLAYS / "tail-sampling.yaml", OVERLAYS / "persistent-queue.yaml", OVERLAYS / "otlp.yaml")
    variables = {
        **port_environment(ports),
        "TRACEMIND_LISTEN_HOST": address,
        "TRACEMIND_APM_ENDPOINT": sink.url,
        "TRACEMIND_COLLECTOR_DECISION_WAIT": f"{DECISION_WAIT_S:.0f}s",
        "TRACEMIND_COLLECTOR_QUEUE_DIR": str(folder / address),
    }
    health = f"http://{address}:{ports['collector_health']}"
    return running([str(otelcol), *configs(files)], variables, folder / f"{address}.log", health)


def agent(otelcol: Path, folder: Path, hosts: Path, own: Ports, sampler_port: int) -> AbstractContextManager[int]:
    """An agent that asks for the addresses of the samplers by their name."""
    files = (BASE, OVERLAYS / "persistent-queue.yaml", GATEWAY / "agent.yaml", GATEWAY / "samplers-dns.yaml")
    variables = {
        **port_environment(own),
        "TRACEMIND_COLLECTOR_QUEUE_DIR": str(folder / "agent"),
        "TRACEMIND_SAMPLERS_HOSTNAME": NAME,
        "TRACEMIND_SAMPLERS_PORT": str(sampler_port),
        "TRACEMIND_SAMPLER_RETRY_FOR": "2s",
    }
    command = [*OWN_HOSTS, str(hosts), str(otelcol), *configs(files)]
    return running(command, variables, folder / "agent.log", f"http://{HOST}:{own['collector_health']}")


def test_traces_of_a_dead_sampler_go_to_the_others(
    otelcol: Path,
    hosts: Path,
    tmp_path: Path,
    request: pytest.FixtureRequest,
    visibly: Callable[[], AbstractContextManager[None]],
) -> None:
    """When a sampler is killed and leaves the list, the agent sends what was for it to the others: every trace that
    began after its end is whole, and of the earlier ones no more than its third, which it held, is hit."""
    ports, own = free_ports(), free_ports()
    with listening() as sink, ExitStack() as stack:
        pids = [stack.enter_context(sampler(otelcol, tmp_path, address, ports, sink)) for address in ADDRESSES]
        stack.enter_context(agent(otelcol, tmp_path, hosts, own, ports["otlp_grpc"]))
        with sending([f"http://{HOST}:{own['otlp_http']}"], 40.0) as traffic:
            pause(6.0)
            os.kill(pids[1], signal.SIGKILL)
            killed = time.monotonic()
            write_hosts(hosts, [ADDRESSES[0], ADDRESSES[2]])
            pause(LIST_CHANGES_S)
        expected = [trace for trace in traffic.traces if trace.is_kept]
        after = [trace for trace in expected if trace.began > killed]

        def arrived() -> bool:
            there = spans_in(sink)
            return all(is_whole(trace, there) for trace in after)

        assert wait_until(arrived, 60.0), (tmp_path / "agent.log").read_text()[-3000:]
    there = spans_in(sink)
    hit = [trace for trace in expected if not is_whole(trace, there)]
    with visibly():
        print(
            f"\n{request.node.name}: {len(expected)} traces to be kept, {len(after)} of them after the kill, "
            f"{len(hit)} lost or partial, {sum(there.values()) - len(there)} spans twice"
        )
    assert after
    assert len(hit) <= 0.5 * (len(expected) - len(after))


def spans_in(sink: Sink) -> Counter[bytes]:
    return Counter(span.span_id for span in sink.spans())


def is_whole(trace: Trace, there: Counter[bytes]) -> bool:
    return trace.span_ids <= there.keys()
