"""base.yaml and its overlays on the real Collector, with a recording OTLP receiver as the destination."""

from __future__ import annotations

import itertools
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from collector.stack.processes import wait_until

from tests.e2e import otlp_requests as otlp
from tests.e2e.collectors import OVERLAYS, WAIT_S, collecting, collector_program, validate
from tests.servers.otlp_sink import Sink, plain
from tests.servers.otlp_sink import sink as sink

pytestmark = pytest.mark.e2e

NAMES = sorted(path.stem for path in OVERLAYS.glob("*.yaml"))


@pytest.fixture(scope="module")
def program() -> Path:
    return collector_program()


# --- validation


def test_every_combination_of_two_overlays_and_all_of_them_are_valid(program: Path, tmp_path: Path) -> None:
    """The Collector accepts base.yaml alone, with each overlay, with each two, and with all."""
    combinations = [(), *((name,) for name in NAMES), *itertools.combinations(NAMES, 2), tuple(NAMES)]

    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(lambda names: validate(program, names, tmp_path), combinations))

    failed = {names: done.stderr for names, done in zip(combinations, results, strict=True) if done.returncode != 0}
    assert failed == {}
    assert not [done.stderr for done in results if "deprecated" in done.stderr]


def to_sink(sink: Sink, **more: str) -> dict[str, str]:
    """The settings of the overlay `otlp` for this receiver."""
    return {"TRACEMIND_APM_ENDPOINT": sink.url, "TRACEMIND_APM_AUTHORIZATION": "Bearer apm", **more}


def await_spans(sink: Sink, count: int) -> None:
    assert wait_until(lambda: len(sink.spans()) >= count, WAIT_S), f"{len(sink.spans())} of {count} spans came"


# --- redaction

SECRETS = (
    "sk-proj-abcdefghijklmnop1234",
    "sk-ant-api03-ABCDEFGHIJKLMNOP",
    "AIzaSyA-1234567890abcdefghijklmnopqrst",
    "AKIAIOSFODNN7EXAMPLE",
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.SflKxwRJSMeKKF2QT4",
    "ghp_abcdefghijklmnopqrstuvwxyz0123456789",
    "gsk_abcdefghijklmnopqrstuvwx",
    "Bearer abc.def-ghi_jkl",
    "hunter2hunter2",
)
CONTENT = (
    "gen_ai.input.messages",
    "gen_ai.output.messages",
    "gen_ai.system_instructions",
    "gen_ai.tool.definitions",
    "gen_ai.tool.call.arguments",
    "gen_ai.tool.call.result",
    "tracemind.function.arguments",
    "tracemind.function.result",
    "gen_ai.prompt",
    "gen_ai.prompt.0.content",
    "gen_ai.completion.0.content",
    "gen_ai.prompt.variable.name",
    "input.value",
    "output.value",
    "llm.input_messages.0.message.content",
    "traceloop.entity.input",
    "mlflow.spanInputs",
)
KEPT: dict[str, otlp.Value] = {
    "gen_ai.operation.name": "chat",
    "gen_ai.request.model": "gpt-5",
    "gen_ai.request.max_tokens": 4096,
    "gen_ai.usage.input_tokens": 1234567890123456,
    "gen_ai.usage.output_tokens": 7,
    "gen_ai.usage.cache_read.input_tokens": 3,
    "gen_ai.usage.cost": 0.0125,
    "gen_ai.token.type": "input",
    "llm.token_count.prompt": 5,
    "gen_ai.prompt.name": "greeting",
    "gen_ai.prompt.version": "3",
    "gen_ai.response.id": "chatcmpl-9x8y7z6w5v4u3t2s1r",
    "tracemind.flow.id": "0197f3c2-7d3e-7cc0-98c4-dc0c0c07398f",
    "server.address": "api.openai.com",
}


def test_content_and_keys_are_gone_before_any_destination(program: Path, tmp_path: Path, sink: Sink) -> None:
    """Prompts and answers are removed from attributes and events of spans and from events; key-shaped values are masked
    wherever a string can stand; every count of tokens stays as it was."""
    prompt = "the patient's diagnosis"
    hidden: dict[str, otlp.Value] = dict.fromkeys(CONTENT, prompt)
    leaks: dict[str, otlp.Value] = {f"note.{i}": f"with {secret}!" for i, secret in enumerate(SECRETS[:-1])}
    leaks |= {
        "password.note": f"api_key='{SECRETS[-1]}'",
        "http.url": f"https://me:{SECRETS[-1]}@host/",
        "list": ["plain", SECRETS[0]],
    }
    sent = otlp.span(
        {**KEPT, **hidden, **leaks},
        name=f"chat {SECRETS[0]}",
        events={"tracemind.retry": {**hidden, **leaks, "tracemind.retry.attempt": 1}},
        error=f"refused: {SECRETS[1]}",
    )
    with collecting(program, tmp_path, "redaction", "otlp", settings=to_sink(sink)) as collector:
        assert collector.send("/v1/traces", otlp.traces([sent], {"deployment.key": SECRETS[3]})) == 200
        event = otlp.logs("gen_ai.client.inference.operation.details", {**KEPT, **hidden, **leaks}, prompt)
        assert collector.send("/v1/logs", event) == 200
        assert collector.send("/v1/metrics", otlp.metrics(1.5, 1, {"team": SECRETS[0]})) == 200
        await_spans(sink, 1)
        assert wait_until(lambda: {"/v1/logs", "/v1/metrics"} <= sink.paths, WAIT_S)

    everything = b"".join(post.body for post in sink.posts).decode("utf-8", "replace")
    assert prompt not in everything
    assert [secret for secret in SECRETS if secret in everything] == []
    (arrived,), (record,) = sink.spans(), sink.events()
    for found in (plain(arrived.attributes), plain(record.attributes)):
        assert {key: found.get(key) for key in KEPT} == KEPT
    assert set(plain(arrived.attributes)) == {*KEPT, *leaks}
    assert plain(arrived.events[0].attributes)["tracemind.retry.attempt"] == 1
    assert (arrived.name, arrived.status.message) == ("chat ****", "refused: ****")


def test_without_the_overlay_content_arrives(program: Path, tmp_path: Path, sink: Sink) -> None:
    """base.yaml alone changes nothing: redaction is the overlay's work."""
    values: dict[str, otlp.Value] = {**KEPT, **dict.fromkeys(CONTENT, SECRETS[0])}
    with collecting(program, tmp_path, "otlp", settings=to_sink(sink)) as collector:
        assert collector.send("/v1/traces", otlp.traces([otlp.span(values)])) == 200
        await_spans(sink, 1)

    assert plain(sink.spans()[0].attributes) == values
    assert sink.posts[0].headers["authorization"] == "Bearer apm"
