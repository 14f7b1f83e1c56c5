"""What the chain of collector/gateway needs: bytes of a span in each store, memory of a trace that is held, CPU.

    python -m benchmarks.chain

It starts the whole chain, keeps every trace, and sends traces of four model calls without content. CPU is what the
processes used from the first span until the last one was in Cassandra, so it does not depend on the rate.
"""

from __future__ import annotations

import gzip
import itertools
import os
import platform
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from collector.gateway.chain import Chain, prepare
from collector.gateway.layout import AGENTS, INGESTERS, NAMES, SAMPLERS, choose_ports
from collector.stack.processes import wait_until
from tests.chain.account import metric, spans_in_jaeger
from tests.chain.traffic import SPANS, Trace, make_trace
from tests.e2e import otlp_requests as otlp
from tests.e2e.collectors import post

TRACES = 6_000
TRACES_A_REQUEST = 64
CHECKED_EVERY = 25
HELD_FOR_S = 60
LIMIT_S = 400.0
STAGES: Mapping[str, Sequence[str]] = {
    "agents": AGENTS,
    "samplers": SAMPLERS,
    "Kafka": ("kafka",),
    "ingesters": INGESTERS,
    "Cassandra": ("cassandra",),
}
SETTINGS = {"TRACEMIND_COLLECTOR_DECISION_WAIT": f"{HELD_FOR_S}s", "TRACEMIND_COLLECTOR_SAMPLE_PERCENT": "100"}


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="chain-") as folder:
        chain = Chain(prepare(), choose_ports(auto=True), Path(folder), SETTINGS)
        try:
            chain.start(*NAMES)
            measure(chain)
        finally:
            chain.stop()


def measure(chain: Chain) -> None:
    print(f"{time.strftime('%Y-%m-%d')}, {os.cpu_count()} cores ({platform.machine()}), load {os.getloadavg()[0]:.1f}")
    traces = [make_trace("plain", spread=False) for _ in range(TRACES)]
    spans = TRACES * SPANS
    idle = memory(chain)
    used, began = cpu(chain), time.monotonic()
    wire, compressed = send(chain, traces)
    wait(lambda: received(chain) >= spans, "the samplers have all spans")
    held, full = sum(metric(chain, name, HELD) for name in SAMPLERS), memory(chain)
    wait(lambda: all_there(chain, traces[::CHECKED_EVERY]), "Jaeger has all traces")
    threading.Event().wait(5.0)  # the index rows of the last spans
    seconds = time.monotonic() - began

    print(f"{TRACES} traces of {SPANS} spans in {seconds:.0f} s; {held:.0f} held at the same time")
    print(f"on the wire: {wire / spans:.0f} bytes a span, {compressed / spans:.0f} with gzip")
    print(f"in Kafka: {size(chain.folder('kafka') / 'data', 'otlp_spans-*/*.log') / spans:.0f} bytes a span")
    for what in ("rss", "heap"):
        grown = sum(full[name][what] - idle[name][what] for name in SAMPLERS)
        print(f"a trace held by a sampler: {grown / held / 1024:.1f} KiB of {what}")
    for stage, names in STAGES.items():
        seconds_used = sum(cpu(chain)[name] - used[name] for name in names)
        peak = sum(resident(chain, name) for name in names) / 2**20 / len(names)
        print(f"{stage}: {seconds_used / spans * 1000:.2f} CPU seconds for 1,000 spans; {peak:.0f} MiB each")
    chain.stop("query", *INGESTERS, "cassandra")  # Cassandra writes its tables when it ends
    tables = chain.folder("cassandra") / "data" / "jaeger"
    print(f"in Cassandra: {size(tables, '*/*.db') / spans:.0f} bytes a span")
    for table in sorted(tables.iterdir()):
        if (share := size(table, "*.db") / spans) >= 1:
            print(f"  {table.name.partition('-')[0]}: {share:.0f}")


HELD = "otelcol_processor_tail_sampling_sampling_traces_on_memory"


def send(chain: Chain, traces: Sequence[Trace]) -> tuple[int, int]:
    """Send traces to the agents in turn, in requests as large as the SDK's; returns the bytes, plain and as gzip."""
    agents = itertools.cycle(chain.layout.url(agent, "otlp_http") + "/v1/traces" for agent in AGENTS)
    plain = compressed = 0
    for start in range(0, len(traces), TRACES_A_REQUEST):
        spans = [span for trace in traces[start : start + TRACES_A_REQUEST] for half in trace.halves for span in half]
        body = otlp.traces(spans).SerializeToString()
        plain += len(body)
        compressed += len(gzip.compress(body))
        if post(next(agents), body) != 200:
            raise SystemExit("an agent rejected a request")
    return plain, compressed


def received(chain: Chain) -> float:
    return sum(metric(chain, name, "otelcol_receiver_accepted_spans") for name in SAMPLERS)


def all_there(chain: Chain, traces: Iterable[Trace]) -> bool:
    return all(spans_in_jaeger(chain, trace).keys() == trace.span_ids for trace in traces)


def wait(condition: Callable[[], bool], what: str) -> None:
    if not wait_until(condition, LIMIT_S):
        raise SystemExit(f"not within {LIMIT_S:.0f} s: {what}")


def cpu(chain: Chain) -> dict[str, float]:
    """CPU seconds of each program since its start."""
    return {name: sum(map(int, stat(chain, name)[11:13])) / os.sysconf("SC_CLK_TCK") for name in NAMES}


def stat(chain: Chain, name: str) -> list[str]:
    return Path(f"/proc/{chain.pid(name)}/stat").read_text().rpartition(")")[2].split()


def resident(chain: Chain, name: str) -> int:
    return int(stat(chain, name)[21]) * os.sysconf("SC_PAGE_SIZE")


def memory(chain: Chain) -> dict[str, dict[str, float]]:
    """Bytes of each sampler: resident, and in use on its heap."""
    return {
        name: {
            "rss": float(resident(chain, name)),
            "heap": metric(chain, name, "otelcol_process_runtime_heap_alloc_bytes"),
        }
        for name in SAMPLERS
    }


def size(folder: Path, pattern: str) -> int:
    return sum(path.stat().st_size for path in folder.glob(pattern))


if __name__ == "__main__":
    main()
