"""The chain of collector/gateway on the real programs: each trace is accounted for while programs are killed.

Two agents, three samplers, Kafka, two ingesters, Cassandra and a query node. `make chain` runs it.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest
from collector.gateway.chain import Chain, prepare
from collector.gateway.layout import AGENTS, NAMES, SAMPLERS, Layout
from collector.stack.console import EXIT_NOTHING_TO_RUN_WITH

from tests.chain.account import Account, Topic, account, metric, reading
from tests.chain.traffic import SPREAD_S, Trace, Traffic, make_trace, pause, sending
from tests.e2e.collectors import go_program
from tests.pages import ROOT
from tests.required import missing

pytestmark = [pytest.mark.chain, pytest.mark.timeout(600, func_only=True)]

PER_SECOND = 40.0
DECISION_WAIT_S = 5.0
BEFORE_S, AFTER_S = 8.0, 6.0
"""How long traces are sent before something happens, and after it is over."""
TICK_S = 1.0
"""Tail sampling decides once a second."""
ON_THE_WAY_S = 2.0
"""From an application to a sampler, with the agent's batch of 0.2 s, on a busy machine."""


COMMAND = (sys.executable, "-m", "collector.gateway")


@pytest.fixture(scope="module")
def chain(
    visibly: Callable[[], AbstractContextManager[None]], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Chain]:
    """The chain as the command starts it, on free ports."""
    state = tmp_path_factory.mktemp("chain")
    settings = {"TRACEMIND_COLLECTOR_DECISION_WAIT": f"{DECISION_WAIT_S:.0f}s"}
    up = [*COMMAND, "up", "--ports", "auto", "--json", "--state", str(state)]
    try:
        with visibly():
            done = subprocess.run(up, cwd=ROOT, env={**os.environ, **settings}, stdout=subprocess.PIPE, check=False)
        if done.returncode == EXIT_NOTHING_TO_RUN_WITH:
            missing("Go, Java 17 or Maven is missing: see above")
        assert done.returncode == 0
        chain = Chain(prepare(), Layout(json.loads(done.stdout)), state, settings)
        yield chain
        chain.stop(*chain.started)  # what a test started again is a child of this process
    finally:
        subprocess.run([*COMMAND, "down", "--state", str(state)], cwd=ROOT, stdout=subprocess.DEVNULL, check=True)


@pytest.fixture(scope="module")
def topic(chain: Chain, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Topic]:
    with reading(chain, go_program("otelcol"), tmp_path_factory.mktemp("reader")) as topic:
        yield topic


@pytest.fixture
def tell(request: pytest.FixtureRequest, visibly: Callable[[], AbstractContextManager[None]]) -> Callable[[str], None]:
    """Prints a figure of this test; `make chain` shows them all."""

    def print_it(text: str) -> None:
        with visibly():
            print(f"\n{request.node.name}: {text}", flush=True)

    return print_it


@contextmanager
def traffic_to(chain: Chain) -> Generator[Traffic]:
    """Traces flow for some seconds before the block, while it runs, and for some seconds after it."""
    with sending([chain.layout.url(agent, "otlp_http") for agent in AGENTS], PER_SECOND) as traffic:
        pause(BEFORE_S)
        yield traffic
        pause(AFTER_S)


def assert_complete(result: Account) -> None:
    """Every trace that the policies keep is whole in Jaeger, once, and no other is there."""
    assert not result.lost, result
    assert not result.partial, result
    assert_consistent(result)


def assert_consistent(result: Account) -> None:
    """What reached Kafka is in Jaeger, each span once, and what the policies drop is nowhere."""
    assert result.kept
    assert result.dropped
    assert not result.wrongly_kept, result
    assert result.lost_after_kafka == 0, result
    assert result.twice_in_jaeger == 0, result


def test_status_names_every_program(chain: Chain) -> None:
    """`status` prints what runs, and where to send and to look."""
    status = [*COMMAND, "status", "--state", str(chain.state)]
    done = subprocess.run(status, cwd=ROOT, capture_output=True, text=True, check=True)

    assert done.stdout.count("running (") == len(NAMES)
    assert chain.layout.url("query", "jaeger_http") in done.stdout
    assert all(chain.layout.url(agent, "otlp_http") in done.stdout for agent in AGENTS)


def test_each_trace_is_kept_whole_or_dropped_by_policy(chain: Chain, topic: Topic, tell: Callable[[str], None]) -> None:
    """Without a fault each trace that a policy keeps is whole in Jaeger, though its halves came to two agents; the
    samplers' own counts are the same; nothing is there twice."""
    before = sum(decided(chain, sampler, kept=True) for sampler in SAMPLERS)
    dropped_before = sum(decided(chain, sampler, kept=False) for sampler in SAMPLERS)
    with traffic_to(chain) as traffic:
        pass
    result = account(chain, topic, traffic.traces)
    tell(str(result))

    assert_complete(result)
    assert result.duplicates == 0
    assert sum(decided(chain, sampler, kept=True) for sampler in SAMPLERS) - before == len(result.kept)
    assert sum(decided(chain, sampler, kept=False) for sampler in SAMPLERS) - dropped_before == len(result.dropped)
    assert all(decided(chain, sampler, kept=True) for sampler in SAMPLERS), "each sampler takes a part"


def decided(chain: Chain, sampler: str, *, kept: bool) -> float:
    name = "otelcol_processor_tail_sampling_global_count_traces_sampled"
    return metric(chain, sampler, name, f'sampled="{str(kept).lower()}"')


def test_a_large_trace_goes_through(chain: Chain, topic: Topic) -> None:
    """A trace with an attribute of 5 MB is in Jaeger, though Kafka's own limit is 1 MB."""
    trace = make_trace("error", spread=False)
    attribute = trace.halves[1][0].attributes.add()
    attribute.key, attribute.value.string_value = "note", "x" * 5_000_000
    Traffic([chain.layout.url(agent, "otlp_http") for agent in AGENTS]).send(trace)

    result = account(chain, topic, [trace])
    assert result.kept == [trace]


def test_a_killed_sampler_loses_only_what_it_held(chain: Chain, topic: Topic, tell: Callable[[str], None]) -> None:
    """A sampler killed under load loses at most the traces that it had not decided: those of one decision's wait at
    its rate. All others wait in the agents for its return."""
    with traffic_to(chain) as traffic:
        held = metric(chain, SAMPLERS[1], "otelcol_processor_tail_sampling_sampling_traces_on_memory")
        chain.kill(SAMPLERS[1])
        killed = time.monotonic()
        pause(3.0)
        chain.start(SAMPLERS[1])
        back = time.monotonic()
    result = account(chain, topic, traffic.traces)
    hit = [*result.lost, *result.partial]
    rate = PER_SECOND / len(SAMPLERS)
    bound = rate * (DECISION_WAIT_S + TICK_S)
    tell(
        f"{result}; away for {back - killed:.1f} s; it held {held:.0f} traces; the bound for lost and partial is "
        f"{rate:.1f} traces/s x ({DECISION_WAIT_S:.0f} s + {TICK_S:.0f} s) = {bound:.0f}"
    )

    assert_consistent(result)
    earliest = killed - DECISION_WAIT_S - TICK_S - ON_THE_WAY_S - SPREAD_S
    assert [trace for trace in hit if not earliest <= trace.began <= killed] == []
    assert len(hit) <= math.ceil(1.5 * bound)


def test_a_killed_ingester_loses_nothing(chain: Chain, topic: Topic, tell: Callable[[str], None]) -> None:
    """An ingester killed under load loses nothing: the other one takes its partitions, from what Cassandra has."""
    with traffic_to(chain) as traffic:
        chain.kill("ingester-1")
        pause(5.0)
        chain.start("ingester-1")
    result = account(chain, topic, traffic.traces)
    tell(str(result))

    assert_complete(result)


def test_a_sampler_that_is_stopped_loses_no_trace(chain: Chain, topic: Topic, tell: Callable[[str], None]) -> None:
    """A sampler stopped with SIGTERM decides what it holds. A trace that had arrived is whole; of one that was under
    way each half is decided alone."""
    with traffic_to(chain) as traffic:
        stopped = time.monotonic()
        chain.stop(SAMPLERS[2])
        gone = time.monotonic()
        chain.start(SAMPLERS[2])
    result = account(chain, topic, traffic.traces)
    hit = [*result.lost, *result.partial]
    tell(f"{result}; stopping took {gone - stopped:.1f} s")

    assert_consistent(result)
    assert [trace for trace in hit if not under_way(trace, stopped, gone)] == []
    assert not result.lost, "its last span, which shows what it is, was decided after the restart"


def under_way(trace: Trace, since: float, until: float) -> bool:
    """Whether a trace may have been split by a sampler that was stopped between these times."""
    return trace.began <= until and trace.ended + ON_THE_WAY_S >= since


def test_a_killed_agent_loses_nothing(chain: Chain, topic: Topic, tell: Callable[[str], None]) -> None:
    """What an agent has accepted is in its queue on disk: killed and started again, it sends all of it."""
    with traffic_to(chain) as traffic:
        chain.kill(AGENTS[0])
        chain.start(AGENTS[0])
    result = account(chain, topic, traffic.traces)
    tell(f"{result}; {traffic.repeated} requests were sent again")

    assert traffic.repeated > 0
    assert_complete(result)


def test_a_killed_kafka_loses_nothing(chain: Chain, topic: Topic, tell: Callable[[str], None]) -> None:
    """While Kafka is away, the samplers keep what they decided in their queues on disk."""
    with traffic_to(chain) as traffic:
        chain.kill("kafka")
        pause(3.0)
        chain.start("kafka")
    result = account(chain, topic, traffic.traces)
    tell(str(result))

    assert_complete(result)


def test_cassandra_away_for_some_seconds_loses_nothing(chain: Chain, topic: Topic, tell: Callable[[str], None]) -> None:
    """While Cassandra is away, spans wait in Kafka. It is stopped: killed, a single node loses its last 100 ms."""
    with traffic_to(chain) as traffic:
        chain.stop("cassandra")
        pause(5.0)
        chain.start("cassandra")
    result = account(chain, topic, traffic.traces)
    tell(str(result))

    assert_complete(result)
