"""The stack with base.yaml and overlays in place of otelcol.yaml."""

from __future__ import annotations

import json
import secrets
from pathlib import Path

import pytest

from tests.e2e import otlp_requests as otlp
from tests.e2e.backends import run_stack, wait_for_metric, wait_for_trace
from tests.e2e.collectors import go_program, post

pytestmark = pytest.mark.e2e

OVERLAYS = ("redaction", "tail-sampling", "derived-metrics", "persistent-queue", "monitor")
SETTINGS = {
    "TRACEMIND_COLLECTOR_DECISION_WAIT": "1s",
    "TRACEMIND_COLLECTOR_SAMPLE_PERCENT": "0",
    "TRACEMIND_COLLECTOR_MONITOR_INTERVAL": "1s",
}


def test_the_stack_runs_with_overlays(tmp_path: Path) -> None:
    """With `--overlay` the stack's Collector redacts, samples and derives metrics, and still feeds Jaeger and
    Prometheus; another `up` with other overlays says that they need a `down`."""
    go_program("otelcol")
    options = [word for name in OVERLAYS for word in ("--overlay", name)]
    state, service = ("--state", str(tmp_path)), f"overlays-{secrets.token_hex(4)}"
    up = run_stack("up", "--ports", "auto", "--json", "--mode", "native", *state, *options, env=SETTINGS)
    try:
        assert up.returncode == 0, up.stderr
        known = json.loads(up.stdout)
        failed = otlp.span({**otlp.KEPT, "gen_ai.input.messages": "the prompt"}, error="refused")
        body = otlp.traces([failed], {"service.name": service}).SerializeToString()
        assert post(f"{known['otlp_http']}/v1/traces", body) == 200

        (shown,) = wait_for_trace(known["jaeger_http"], failed.trace_id.hex())
        assert "gen_ai.input.messages" not in shown["attributes"]
        wait_for_metric(known["prometheus"], f'tracemind_derived_llm_calls_total{{job="{service}"}}')
        wait_for_metric(known["prometheus"], f'traces_span_metrics_calls_total{{service_name="{service}"}}')
        assert (tmp_path / "queue").is_dir()

        assert f"overlays{' ' * 10} {', '.join(OVERLAYS)}" in run_stack("status", *state).stdout
        again = run_stack("up", "--mode", "native", *state)
        assert again.returncode == 1
        assert "stop it with `down` to choose none" in again.stderr
    finally:
        run_stack("down", *state)


def test_an_unknown_overlay_is_rejected(tmp_path: Path) -> None:
    """A name that is not an overlay's is rejected before anything is started, with the names that there are."""
    done = run_stack("up", "--state", str(tmp_path), env={"TRACEMIND_STACK_OVERLAYS": "redaction, sampling"})

    assert done.returncode == 1
    assert "sampling is not an overlay; choose from" in done.stderr
    assert "tail-sampling" in done.stderr


def test_an_overlay_without_its_variables_is_rejected(tmp_path: Path) -> None:
    """A destination whose key and address are not set is rejected before anything is started: a Collector would send
    nothing there, and say so in its log only."""
    done = run_stack(
        "up", "--overlay", "dynatrace", "--state", str(tmp_path), env={"DT_API_TOKEN": "", "DT_ENDPOINT": ""}
    )

    assert done.returncode == 1
    assert "the overlay dynatrace needs DT_API_TOKEN and DT_ENDPOINT" in done.stderr
