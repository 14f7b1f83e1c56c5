"""redaction.yaml on the real Collector: no content and no key reaches a destination."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import pytest
from collector.stack.processes import wait_until
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue, KeyValueList
from opentelemetry.proto.metrics.v1.metrics_pb2 import Exemplar
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.e2e import otlp_requests as otlp
from tests.e2e.collectors import WAIT_S, await_spans, collecting, go_program, to_sink
from tests.programs import REPOSITORY
from tests.servers.otlp_sink import Sink, plain
from tests.servers.otlp_sink import sink as sink

pytestmark = pytest.mark.e2e

SECRETS: Mapping[str, str] = {
    # model providers
    "OpenAI": "sk-proj-abcdefghijklmnop1234",
    "OpenAI, older": "sk-abcdefghijklmnopqrstT3BlbkFJabcdefghijklmnopqrst",
    "Anthropic": "sk-ant-api03-ABCDEFGHIJKLMNOP-_x",
    "OpenRouter": "sk-or-v1-0123456789abcdef0123456789abcdef",
    "DeepSeek": "sk-0123456789abcdef0123456789abcdef",
    "Gemini": "AIzaSyA-1234567890abcdefghijklmnopqrst",
    "Gemini, newer": "AQ.Ab8RN6abcdefghijklmnopqrstuvwxyz",
    "Google OAuth": "ya29.a0AfH6SMBabcdefghijklmnop",
    "Bedrock": "ABSKQmVkcm9ja0FQSUtleS1hYmNkZWZnaGlqa2xtbm9wcXJzdHV2",
    "Bedrock, short term": "bedrock-api-key-YmVkcm9jay5hbWF6b25hd3MuY29tLz9B",
    "AWS": "AKIAIOSFODNN7EXAMPLE",
    "AWS, temporary": "ASIAIOSFODNN7EXAMPLE",
    "Groq": "gsk_abcdefghijklmnopqrstuvwx",
    "Hugging Face": "hf_abcdefghijklmnopqrstuvwxyzABCDEFGH",
    "xAI": "xai-abcdefghijklmnopqrstuvwxyz",
    "Perplexity": "pplx-abcdefghijklmnopqrstuvwxyz1234",
    "NVIDIA": "nvapi-abcdefghijklmnopqrstuvwxyz",
    "Replicate": "r8_abcdefghijklmnopqrstuvwxyz",
    "Fireworks": "fw_3ZabcDEFGhijKLmno",
    "Cerebras": "csk-abcdefghijklmnopqrstuvwxyz",
    "Together": "tgp_v1_abcdefghijklmnopqrstuvwxyz",
    "Voyage": "pa-abcdefghijklmnopqrstuvwxyz0123456789ABCDEFG",
    "Jina": "jina_abcdefghijklmnopqrstuvwxyz0123456789",
    "ElevenLabs": "sk_0123456789abcdef0123456789abcdef",
    "Databricks": "dapi0123456789abcdef0123456789abcdef",
    # tools of agents
    "GitHub": "ghp_abcdefghijklmnopqrstuvwxyz0123456789",
    "GitHub, fine-grained": "github_pat_11ABCDEFG0abcdefghijkl_mnopqrstuvwxyz",
    "GitLab": "glpat-abcdefghijklmnopqrst",
    "Slack": "xoxb-1234567890-abcdefghijklmn",
    "Slack app": "xapp-1-A0123-1234567-abcdefabcdef0123456789",
    "Notion": "ntn_abcdefghijklmnopqrstuvwxyz0123456789",
    "Atlassian": "ATATT3xFfGF0abcdefghijklmnop",
    "Tavily": "tvly-abcdefghijklmnopqrstuvwxyz",
    "Pinecone": "pcsk_abcdefghijklmnopqrstuvwxyz",
    "Stripe": "sk_live_abcdefghijklmnopqrst",
    "SendGrid": "SG.abcdefghijklmnopqrstuv.abcdefghijklmnopqrstuvwxyzABCD",
    "Telegram": "123456789:AAabcdefghijklmnopqrstuvwxyz0123456",
    "PyPI": "pypi-AgEIcHlwaS5vcmcCJGFiY2RlZmdoaWpr",
    # backends
    "Langfuse": "sk-lf-12345678-1234-1234-1234-123456789012",
    "LangSmith": "lsv2_pt_abcdefabcdef0123456789abcdef_0123456789",
    "Grafana": "glc_eyJvIjoiMTIzNDU2IiwibiI6ImFiYyJ9",
    "Honeycomb": "hcaik_01hqk4k20cjeh63wca8vva5stw",
    "Dynatrace": "dt0c01.ABCDEFGHIJKLMNOPQRSTUVWX.ABCDEFGHIJKLMNOPQRSTUVWXYZ",
    "New Relic": "abcdef0123456789abcdef0123456789FFFFNRAL",
    # of any origin
    "JSON Web Token": "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.SflKxwRJSMeKKF2QT4",
    "private key": "-----BEGIN RSA PRIVATE KEY-----\nMIIEabc\nabc+/=\n-----END RSA PRIVATE KEY-----",
}
"""Keys that their shape gives away."""
HIDDEN = "hunter2hunter2"
NAMED: Mapping[str, str] = {
    "bearer": f"Bearer {HIDDEN}",
    "basic": "Basic aHVudGVyMjpodW50ZXIy",
    "basic, padded": "Basic aHVudGVyMg==",
    "header": f"Authorization: Basic {HIDDEN}",
    "header in JSON": f'{{"x-api-key": "{HIDDEN}"}}',
    "header in JSON in JSON": f'{{"headers": "{{\\"authorization\\": \\"ApiKey {HIDDEN}\\"}}"}}',
    "header of Gemini": f"x-goog-api-key: {HIDDEN}",
    "header of Datadog": f"DD-API-KEY={HIDDEN}",
    "cookie": f"Cookie: theme=dark; session={HIDDEN}",
    "setting": f"OPENAI_API_KEY={HIDDEN}",
    "setting in quotes": f"aws_secret_access_key = '{HIDDEN}'",
    "Azure": f"AccountName=a;AccountKey={HIDDEN};EndpointSuffix=b",
    "password": f"password={HIDDEN}",
    "name in one word": f'{{"openaiApiKey": "{HIDDEN}", "dbPassword": "{HIDDEN}"}}',
    "Python": f"{{'client_secret': '{HIDDEN}'}}",
    "tokens": f'{{"access_token":"{HIDDEN}","refresh_token":"{HIDDEN}","token":"{HIDDEN}"}}',
    "query": f"https://generativelanguage.googleapis.com/v1/models?key={HIDDEN}",
    "signature": f"https://x.blob.core.windows.net/c?sv=2026&sig={HIDDEN}",
    "user and password": f"postgresql://me:{HIDDEN}@db:5432/x",
    "password alone": f"redis://:{HIDDEN}@cache:6379/0",
    "user alone": f"https://{HIDDEN}@github.com/x.git",
}
"""Secrets that the words before them give away."""
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
PROMPT = "the patient's diagnosis"
KEY = SECRETS["OpenAI"]
WITH_CONTENT: Mapping[str, otlp.Value] = dict.fromkeys(CONTENT, PROMPT)


@pytest.fixture(scope="module")
def program() -> Path:
    return go_program("otelcol")


def everything(sink: Sink) -> str:
    """All that a destination got, as text."""
    return b"".join(post.body for post in sink.posts).decode("utf-8", "replace")


def test_each_kind_of_key_is_masked(program: Path, tmp_path: Path, sink: Sink) -> None:
    """Keys of model providers, of tools and of backends are masked, and what follows a name such as `password`; the
    rest of the string stays."""
    values: dict[str, otlp.Value] = {name: f"with {secret} and more" for name, secret in {**SECRETS, **NAMED}.items()}
    with collecting(program, tmp_path, "redaction", "otlp", settings=to_sink(sink)) as collector:
        assert collector.send("/v1/traces", otlp.traces([otlp.span({**otlp.KEPT, **values})])) == 200
        await_spans(sink, 1)

    found = plain(sink.spans()[0].attributes)
    assert {name: found[name] for name in SECRETS} == dict.fromkeys(SECRETS, "with **** and more")
    shown = {name: found[name] for name in NAMED}
    assert {name: text for name, text in shown.items() if "****" not in text or re.search("hunter2|aHVu", text)} == {}
    assert {key: found.get(key) for key in otlp.KEPT} == otlp.KEPT


def test_content_and_keys_are_gone_wherever_they_stand(program: Path, tmp_path: Path, sink: Sink) -> None:
    """Content is removed, and keys are masked, in attributes of resources, scopes, spans, events, logs and points of
    metrics, in the body of a log, and in names and messages; counts of tokens stay."""
    leaks: dict[str, otlp.Value] = {"leak": f"with {KEY}!", "list": ["plain", KEY]}
    sent = otlp.span(
        {**otlp.KEPT, **WITH_CONTENT, **leaks},
        name=f"chat {KEY}",
        events={f"asked {KEY}": {**WITH_CONTENT, **leaks, "tracemind.retry.attempt": 1}},
        error=f"refused: {KEY}",
    )
    sent.attributes.append(KeyValue(key="map", value=nested({"headers": {"x-api-key": HIDDEN}, "list": {"a": KEY}})))
    request = otlp.traces([sent], {"deployment.key": KEY})
    request.resource_spans[0].scope_spans[0].scope.attributes.extend(otlp.attributes({"scope": KEY}))
    record = otlp.logs("gen_ai.client.inference.operation.details", {**otlp.KEPT, **WITH_CONTENT, **leaks}, PROMPT)
    foreign = otlp.logs(f"sent {KEY}", {})
    foreign.resource_logs[0].scope_logs[0].log_records[0].body.CopyFrom(
        nested({"request": {"authorization": f"Bearer {HIDDEN}", "key": KEY}, "model": "gpt-5"})
    )
    with collecting(program, tmp_path, "redaction", "otlp", settings=to_sink(sink)) as collector:
        assert collector.send("/v1/traces", request) == 200
        for logs in (record, foreign):
            assert collector.send("/v1/logs", logs) == 200
        assert collector.send("/v1/metrics", otlp.metrics(1.5, 1, {"team": KEY, "input.value": PROMPT})) == 200
        await_spans(sink, 1)
        assert wait_until(lambda: {"/v1/logs", "/v1/metrics"} <= sink.paths and len(sink.events()) == 2, WAIT_S)

    assert [word for word in (PROMPT, KEY, HIDDEN) if word in everything(sink)] == []
    (arrived,), (event, other) = sink.spans(), sink.events()
    for found in (plain(arrived.attributes), plain(event.attributes)):
        assert {key: found.get(key) for key in otlp.KEPT} == otlp.KEPT
    assert set(plain(arrived.attributes)) == {*otlp.KEPT, *leaks, "map"}
    assert set(plain(event.attributes)) == {*otlp.KEPT, *leaks}
    assert set(plain(arrived.events[0].attributes)) == {*leaks, "tracemind.retry.attempt"}
    assert (arrived.name, arrived.status.message, arrived.events[0].name) == (
        "chat ****",
        "refused: ****",
        "asked ****",
    )
    assert (event.event_name, other.event_name) == ("gen_ai.client.inference.operation.details", "sent ****")
    assert "gpt-5" in str(other.body)


ORDINARY: dict[str, otlp.Value] = {
    "model": "ft:gpt-4o-mini:acme:support-bot:9fK2",
    "url": "https://api.openai.com/v1/chat/completions?api-version=2026-01-01&stream=true",
    "url with @": "https://medium.com/@someone/a-post",
    "e-mail": "me@example.com",
    "error": "Error code: 401 - Incorrect API key provided. You can find your API key at https://platform.openai.com",
    "rate": "Rate limit reached: limit 30000, used 29000, tokens: 1500, max_tokens=4096",
    "trace": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    "path": "/srv/app/pa-tools/hf_hub/sk-learn/tokenizer.json",
    "sentence": "The bearer of the secret asks for a token, a password and basic arithmetic: 12345678",
    "time": "2026-11-26T07:07:00.000000Z",
}
"""Values with words and signs of secrets, and without one."""


def test_what_is_no_secret_passes_unchanged(program: Path, tmp_path: Path, sink: Sink) -> None:
    """All that the SDK writes without content passes as it is, and so do ordinary strings that resemble secrets."""
    golden = json.loads((REPOSITORY / "tests" / "data" / "golden_telemetry.json").read_text())
    sent = [otlp.span({**span["attributes"]}, name=span["name"]) for span in golden["spans"]]
    sent.append(otlp.span(ORDINARY))
    with collecting(program, tmp_path, "redaction", "otlp", settings=to_sink(sink)) as collector:
        assert collector.send("/v1/traces", otlp.traces(sent)) == 200
        await_spans(sink, len(sent))

    arrived = {span.span_id: span for span in sink.spans()}
    for span in sent:
        found = arrived[span.span_id]
        expected = {key: value for key, value in plain(span.attributes).items() if key not in WITH_CONTENT}
        assert (found.name, plain(found.attributes)) == (span.name, expected)


def test_links_and_exemplars_keep_their_attributes(program: Path, tmp_path: Path, sink: Sink) -> None:
    """The limit that the README states: no processor of this Collector reaches attributes of links and exemplars. The
    SDK writes none of the two. When this fails, redact them too."""
    linked = otlp.span(otlp.KEPT)
    linked.links.append(Span.Link(trace_id=bytes(16), span_id=bytes(8), attributes=otlp.attributes({"note": KEY})))
    metrics = otlp.metrics(1.5, 1)
    point = metrics.resource_metrics[0].scope_metrics[0].metrics[1].histogram.data_points[0]
    point.exemplars.append(
        Exemplar(as_double=1, time_unix_nano=time.time_ns(), filtered_attributes=otlp.attributes({"note": KEY}))
    )
    with collecting(program, tmp_path, "redaction", "otlp", settings=to_sink(sink)) as collector:
        assert collector.send("/v1/traces", otlp.traces([linked])) == 200
        assert collector.send("/v1/metrics", metrics) == 200
        assert wait_until(lambda: {"/v1/traces", "/v1/metrics"} <= sink.paths, WAIT_S)

    assert {post.path for post in sink.posts if KEY.encode() in post.body} == {"/v1/traces", "/v1/metrics"}


def test_without_the_overlay_content_arrives(program: Path, tmp_path: Path, sink: Sink) -> None:
    """base.yaml alone changes nothing: redaction is the overlay's work."""
    values: dict[str, otlp.Value] = {**otlp.KEPT, **WITH_CONTENT, "note": KEY}
    with collecting(program, tmp_path, "otlp", settings=to_sink(sink)) as collector:
        assert collector.send("/v1/traces", otlp.traces([otlp.span(values)])) == 200
        await_spans(sink, 1)

    assert plain(sink.spans()[0].attributes) == values
    assert sink.posts[0].headers["authorization"] == "Bearer apm"


def nested(values: Mapping[str, Any]) -> AnyValue:
    """A map as an OTLP value."""
    items = [
        KeyValue(
            key=key, value=nested(cast("dict[str, Any]", value)) if isinstance(value, dict) else otlp.any_value(value)
        )
        for key, value in values.items()
    ]
    return AnyValue(kvlist_value=KeyValueList(values=items))
