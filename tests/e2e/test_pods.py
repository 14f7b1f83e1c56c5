"""The pods of examples/kubernetes as processes: applications and real Collectors, ended in the order of Kubernetes."""

from __future__ import annotations

import signal
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest
from collector.stack.processes import wait_until

from tests.e2e import otlp_requests as otlp
from tests.e2e.collectors import Collector, collecting, go_program
from tests.ended import APP, CONFIGURED, WORK, assert_arrived, serving
from tests.manifests import SECRET, Container, containers
from tests.programs import run
from tests.servers.grpc_sink import grpc_listening
from tests.servers.otlp_sink import Sink, plain
from tests.servers.otlp_sink import sink as sink

pytestmark = pytest.mark.e2e

COLLECTORS = {str(each): each for each in containers() if each.is_collector}
AGENT, GATEWAY, SIDECAR = (
    COLLECTORS[name]
    for name in ("DaemonSet-otelcol-agent-otelcol", "StatefulSet-otelcol-gateway-otelcol", "CronJob-nightly-otelcol")
)
CALL: dict[str, otlp.Value] = {
    "gen_ai.operation.name": "chat",
    "gen_ai.input.messages": "a prompt",
    "gen_ai.usage.input_tokens": 7,
}


@contextmanager
def running(container: Container, state: Path, **settings: str) -> Generator[Collector]:
    """The Collector of a manifest, with its files and variables; it gets SIGTERM at the end."""
    _, *overlays = (name.removesuffix(".yaml") for name in container.config_files())
    state.mkdir()
    queue = {"TRACEMIND_COLLECTOR_QUEUE_DIR": str(state / "queue")}
    with collecting(
        go_program("otelcol"), state, *overlays, settings=container.environment() | queue | settings
    ) as collector:
        yield collector


def test_a_service_and_then_its_sidecar_end_and_nothing_is_lost(tmp_path: Path, sink: Sink) -> None:
    """Kubernetes ends the workers of a service first and its sidecar after them: both send what they hold."""
    (tmp_path / "service.py").write_text(APP.replace("CONFIGURED", CONFIGURED))
    with running(SIDECAR, tmp_path / "sidecar", TRACEMIND_APM_ENDPOINT=sink.url) as sidecar:
        command = ["-m", "uvicorn", "service:app", "--port", "0", "--workers", "2"]
        with serving(tmp_path, *command, SINK=sidecar.otlp_http) as server:
            asked = [server.ask() for _ in range(20)]
            _, log = server.stop(signal.SIGTERM)
        assert "lost" not in log

    assert sidecar.process.returncode == 0
    assert_arrived(sink, len(asked))


def test_a_job_and_then_its_sidecar_end_and_nothing_is_lost(tmp_path: Path, sink: Sink) -> None:
    """A job that ends by itself sends to its sidecar, which ends after it and sends the rest."""
    job = f"{WORK}\n{CONFIGURED}\nfor _ in range(20):\n    asyncio.run(answer())"
    with running(SIDECAR, tmp_path / "sidecar", TRACEMIND_APM_ENDPOINT=sink.url) as sidecar:
        done = run("-c", job, directory=tmp_path, environment={"SINK": sidecar.otlp_http})

    assert (done.returncode, done.stderr, sidecar.process.returncode) == (0, "", 0)
    assert_arrived(sink, 20)


def test_what_an_agent_takes_arrives_behind_the_gateway(tmp_path: Path) -> None:
    """A span passes the agent, which removes its prompt, and the gateway, which asks the agent for its token."""
    with (
        grpc_listening() as jaeger,
        running(
            GATEWAY, tmp_path / "gateway", TRACEMIND_JAEGER_OTLP_ENDPOINT=jaeger.url.removeprefix("http://")
        ) as gateway,
        running(AGENT, tmp_path / "agent", TRACEMIND_APM_ENDPOINT=gateway.otlp_http) as agent,
    ):
        assert gateway.send("/v1/traces", otlp.traces([otlp.span(CALL)])) == 401
        assert agent.send("/v1/traces", otlp.traces([otlp.span(CALL)])) == 200
        assert wait_until(lambda: len(jaeger.spans()) == 1, 20)

    (span,) = jaeger.spans()
    assert plain(span.attributes) == {name: value for name, value in CALL.items() if "messages" not in name}


@pytest.mark.parametrize("is_killed", [False, True], ids=["stopped", "killed"])
def test_an_agent_that_ends_while_the_gateway_is_away_loses_nothing(
    tmp_path: Path, sink: Sink, is_killed: bool
) -> None:
    """The container of an agent starts anew beside its queue and sends what is in it, also where the log of the one
    before says `Dropping data` at its stop."""
    queue = {"TRACEMIND_COLLECTOR_QUEUE_DIR": str(tmp_path / "queue")}
    with running(AGENT, tmp_path / "before", **queue, TRACEMIND_APM_ENDPOINT="http://127.0.0.1:9") as agent:
        assert agent.send("/v1/traces", otlp.traces([otlp.span(CALL)])) == 200
        if is_killed:
            agent.kill()
    with running(AGENT, tmp_path / "after", **queue, TRACEMIND_APM_ENDPOINT=sink.url):
        assert wait_until(lambda: len(sink.spans()) == 1, 20)

    assert sink.posts[0].headers["authorization"] == f"Bearer {SECRET}"
    assert is_killed or "Dropping data" in (tmp_path / "before" / "collector.log").read_text()
