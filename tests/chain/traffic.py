"""Traces whose fate is known before they are sent, and the applications that send them to the two agents."""

from __future__ import annotations

import random
import secrets
import threading
import time
import urllib.error
from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal, get_args

from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.e2e import otlp_requests as otlp
from tests.e2e.collectors import post

Kind = Literal["error", "retry", "slow", "expensive", "plain"]
KINDS: Sequence[Kind] = get_args(Kind)
SPANS = 4
SPREAD_S = 1.0
"""How long after the first half of a trace its second half ends, in a trace that is spread."""
SHARE_PERCENT = 10.0

OFFSET, PRIME, MASK = 0xCBF29CE484222325, 0x100000001B3, (1 << 64) - 1


def in_the_share(trace_id: bytes, percent: float = SHARE_PERCENT) -> bool:
    """Whether tail sampling's `probabilistic` policy keeps a trace: a hash of its id, so the same in each sampler."""
    value = OFFSET
    for byte in b"default-hash-seed" + trace_id:
        value = ((value ^ byte) * PRIME) & MASK
    return value <= int(percent / 100 * MASK)


@dataclass
class Trace:
    """One trace of a flow with model calls, which two services take part in."""

    trace_id: bytes
    kind: Kind
    spread: bool
    """Whether its halves are sent some time apart, as those of a long flow are."""
    halves: Sequence[Sequence[Span]] = field(repr=False)
    began: float = 0.0
    """The time on the monotonic clock at which the first half was about to be sent."""
    ended: float = 0.0
    """The time at which the second half was accepted."""

    @property
    def span_ids(self) -> frozenset[bytes]:
        return frozenset(span.span_id for half in self.halves for span in half)

    @property
    def is_kept(self) -> bool:
        """Whether the policies keep it: by what happened in it, or by the share."""
        return self.kind != "plain" or in_the_share(self.trace_id)


def make_trace(kind: Kind, *, spread: bool) -> Trace:
    """A trace of four spans; only the last one shows what kind it is."""
    trace_id = secrets.token_bytes(16)
    spans = [model_call(trace_id) for _ in range(SPANS - 1)]
    last = model_call(trace_id, kind)
    for span in [*spans[1:], last]:
        span.parent_span_id = spans[0].span_id
    return Trace(trace_id, kind, spread, (spans[:2], [*spans[2:], last]))


def model_call(trace_id: bytes, kind: Kind = "plain") -> Span:
    """A span with the attributes that the SDK writes for a model call without content."""
    span = otlp.span(
        {
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": "openai",
            "gen_ai.request.model": "gpt-4o-mini",
            "gen_ai.response.model": "gpt-4o-mini-2024-07-18",
            "gen_ai.response.id": f"chatcmpl-{secrets.token_hex(12)}",
            "gen_ai.response.finish_reasons": ["stop"],
            "gen_ai.request.max_tokens": 512,
            "gen_ai.request.temperature": 0.2,
            "gen_ai.usage.input_tokens": random.randint(100, 4000),
            "gen_ai.usage.output_tokens": random.randint(10, 500),
            "gen_ai.usage.cost": 0.25 if kind == "expensive" else 0.0004,
            "server.address": "api.openai.com",
            "server.port": 443,
            "gen_ai.workflow.name": "chain",
            "tracemind.flow.id": secrets.token_hex(16),
            "tracemind.retry.count": 1 if kind == "retry" else 0,
        },
        error="the provider answered 500" if kind == "error" else None,
        events={"tracemind.retry": {"tracemind.retry.attempt": 1}} if kind == "retry" else None,
        seconds=12.0 if kind == "slow" else 0.5,
    )
    span.trace_id = trace_id
    return span


def kinds() -> Generator[Kind]:
    """Four of ten traces are of a kind that is always kept."""
    while True:
        yield from ("plain", "error", "plain", "retry", "plain", "slow", "plain", "expensive", "plain", "plain")


@dataclass
class Traffic:
    """What the applications have sent so far."""

    agents: Sequence[str]
    """The OTLP addresses of the agents; each half of a trace goes to another one."""
    traces: list[Trace] = field(default_factory=list[Trace])
    repeated: int = 0
    """Requests that were sent again because an agent did not answer with success."""
    _stop: threading.Event = field(default_factory=threading.Event)

    def send(self, trace: Trace) -> None:
        """Send both halves, each until its agent has accepted it, as an SDK with a spool does."""
        trace.began = time.monotonic()
        first = secrets.randbelow(len(self.agents))
        for number, half in enumerate(trace.halves):
            if number and trace.spread:
                time.sleep(SPREAD_S)
            service = f"service-{number}"
            body = otlp.traces(half, {"service.name": service}).SerializeToString()
            agent = self.agents[(first + number) % len(self.agents)]
            while not accepted(agent, body):
                self.repeated += 1
                time.sleep(0.2)
        trace.ended = time.monotonic()

    def run(self, per_second: float) -> None:
        """Send traces at this rate until it is stopped."""
        with ThreadPoolExecutor(200) as pool:
            due = time.monotonic()
            for number, kind in enumerate(kinds()):
                due += 1 / per_second
                if self._stop.wait(max(0.0, due - time.monotonic())):
                    return
                trace = make_trace(kind, spread=number % 20 < 10)
                self.traces.append(trace)
                pool.submit(self.send, trace)

    def stop(self) -> None:
        self._stop.set()


def pause(seconds: float) -> None:
    """Let the traffic flow for some seconds."""
    time.sleep(seconds)


def accepted(agent: str, body: bytes) -> bool:
    try:
        return post(agent + "/v1/traces", body) == 200
    except (urllib.error.URLError, OSError):
        return False


@contextmanager
def sending(agents: Sequence[str], per_second: float) -> Generator[Traffic]:
    """Traces are sent while the block runs; after it all of them are accepted."""
    traffic = Traffic(agents)
    thread = threading.Thread(target=traffic.run, args=(per_second,))
    thread.start()
    try:
        yield traffic
    finally:
        traffic.stop()
        thread.join()
