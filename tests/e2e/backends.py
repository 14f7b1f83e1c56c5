"""Ways to ask the running stack: Jaeger for spans, Prometheus for figures.

A test takes the fixture `stack` and asks it: `stack.wait_for_trace(trace_id, spans=3)`,
`stack.wait_for_metric("tracemind_llm_cost_USD_total")`. The functions behind it take plain addresses.
"""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypedDict, TypeVar, cast

ROOT = Path(__file__).resolve().parents[2]
STACK_COMMAND = (sys.executable, "-m", "collector.stack")
TIMEOUT_S = 30.0
POLL_EVERY_S = 0.1

T = TypeVar("T")
Json = dict[str, Any]


class Event(TypedDict):
    name: str
    time_ns: int
    attributes: dict[str, Any]


class Span(TypedDict):
    """One span as Jaeger gives it back, with plain Python values."""

    trace_id: str
    span_id: str
    parent_id: str | None
    name: str
    kind: str  # INTERNAL, SERVER, CLIENT, PRODUCER, CONSUMER or UNSPECIFIED
    status: str  # UNSET, OK or ERROR
    status_message: str
    start_ns: int
    end_ns: int
    attributes: dict[str, Any]
    events: list[Event]
    resource: dict[str, Any]
    scope: str


class Sample(TypedDict):
    labels: dict[str, str]
    value: float


@dataclasses.dataclass(frozen=True)
class Stack:
    """Where the running stack listens: base URLs, all on 127.0.0.1."""

    otlp_grpc: str
    otlp_http: str
    jaeger_http: str
    prometheus: str
    collector_metrics: str
    mode: str
    state: Path
    grafana: str = ""
    """With Docker only."""

    def wait_for_trace(
        self,
        trace_id: str,
        *,
        spans: int = 1,
        until: Callable[[list[Span]], bool] | None = None,
        timeout_s: float = TIMEOUT_S,
    ) -> list[Span]:
        return wait_for_trace(self.jaeger_http, trace_id, spans=spans, until=until, timeout_s=timeout_s)

    def search_traces(
        self, service: str, *, operation: str | None = None, attributes: Mapping[str, str] | None = None
    ) -> dict[str, list[Span]]:
        return search_traces(self.jaeger_http, service, operation=operation, attributes=attributes)

    def prometheus_query(self, promql: str) -> list[Sample]:
        return prometheus_query(self.prometheus, promql)

    def wait_for_metric(
        self,
        promql: str,
        *,
        until: Callable[[list[Sample]], bool] | None = None,
        timeout_s: float = TIMEOUT_S,
    ) -> list[Sample]:
        return wait_for_metric(self.prometheus, promql, until=until, timeout_s=timeout_s)

    def run(self, *arguments: str, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        return run_stack(*arguments, env=env)


def run_stack(*arguments: str, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    command = [*STACK_COMMAND, *arguments]
    full_env = {**os.environ, **env} if env else None
    return subprocess.run(command, capture_output=True, text=True, check=False, env=full_env, cwd=ROOT)


# --- polling


def poll(fetch: Callable[[], T], ready: Callable[[T], bool], timeout_s: float, what: str) -> T:
    """Fetch until the answer satisfies the test; the error has the last answer."""
    deadline = time.monotonic() + timeout_s
    while not ready(answer := fetch()):
        if time.monotonic() > deadline:
            raise AssertionError(f"{what}: not there after {timeout_s:g} s; the last answer was {answer!r}")
        time.sleep(POLL_EVERY_S)
    return answer


NO_PROXY = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def get_json(base: str, path: str, parameters: Mapping[str, str] | None = None) -> Json | None:
    """The JSON at an address, or None where there is none (404)."""
    query = f"?{urllib.parse.urlencode(parameters)}" if parameters else ""
    try:
        with NO_PROXY.open(f"{base}{path}{query}", timeout=10.0) as response:
            return cast("Json", json.load(response))
    except urllib.error.HTTPError as error:
        if error.code == 404:
            return None
        raise AssertionError(f"{base}{path}: HTTP {error.code}: {error.read().decode()}") from error


# --- Jaeger


def wait_for_trace(
    jaeger_http: str,
    trace_id: str | int,
    *,
    spans: int = 1,
    until: Callable[[list[Span]], bool] | None = None,
    timeout_s: float = TIMEOUT_S,
) -> list[Span]:
    """The spans of a trace, oldest first, once there are `spans` of them and `until` is true."""
    hex_id = f"{trace_id:032x}" if isinstance(trace_id, int) else trace_id

    def fetch() -> list[Span]:
        return spans_of(get_json(jaeger_http, f"/api/v3/traces/{hex_id}"))

    def ready(found: list[Span]) -> bool:
        return len(found) >= spans and (until is None or until(found))

    return poll(fetch, ready, timeout_s, f"trace {hex_id} with {spans} spans")


def search_traces(
    jaeger_http: str,
    service: str,
    *,
    operation: str | None = None,
    attributes: Mapping[str, str] | None = None,
    lookback_s: float = 3600.0,
    limit: int = 100,
) -> dict[str, list[Span]]:
    """Traces by service and other fields, by trace id. Jaeger 2.13 and 2.20 spell the parameters differently."""
    now = datetime.now(UTC)
    wanted = {
        ("serviceName", "service_name"): service,
        ("startTimeMin", "start_time_min"): timestamp(now - timedelta(seconds=lookback_s)),
        ("startTimeMax", "start_time_max"): timestamp(now + timedelta(seconds=60)),
        ("searchDepth", "num_traces"): str(limit),
    }
    if operation is not None:
        wanted["operationName", "operation_name"] = operation
    parameters = {f"query.{name}": value for names, value in wanted.items() for name in names}
    if attributes is not None:
        parameters["query.attributes"] = json.dumps(attributes)
    traces: dict[str, list[Span]] = {}
    for span in spans_of(get_json(jaeger_http, "/api/v3/traces", parameters)):
        traces.setdefault(span["trace_id"], []).append(span)
    return traces


def timestamp(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def spans_of(answer: Json | None) -> list[Span]:
    """The spans of an answer of `/api/v3/traces`, flat and oldest first."""
    if answer is None:
        return []
    found = [
        span_of(raw, attributes_of(resource_spans.get("resource", {})), scope_spans.get("scope", {}))
        for resource_spans in answer["result"]["resourceSpans"]
        for scope_spans in resource_spans["scopeSpans"]
        for raw in scope_spans.get("spans", [])  # none where Jaeger has left out what it has twice
    ]
    return sorted(found, key=lambda span: span["start_ns"])


KINDS = ("UNSPECIFIED", "INTERNAL", "SERVER", "CLIENT", "PRODUCER", "CONSUMER")
STATUSES = ("UNSET", "OK", "ERROR")


def span_of(raw: Json, resource: dict[str, Any], scope: Json) -> Span:
    status: Json = raw.get("status", {})
    kind: int = raw.get("kind", 0)
    code: int = status.get("code", 0)
    return Span(
        trace_id=raw["traceId"],
        span_id=raw["spanId"],
        parent_id=raw.get("parentSpanId") or None,
        name=raw["name"],
        kind=KINDS[kind],
        status=STATUSES[code],
        status_message=status.get("message", ""),
        start_ns=int(raw["startTimeUnixNano"]),
        end_ns=int(raw["endTimeUnixNano"]),
        attributes=attributes_of(raw),
        events=[event_of(event) for event in raw.get("events", [])],
        resource=resource,
        scope=scope.get("name", ""),
    )


def event_of(raw: Json) -> Event:
    return Event(name=raw["name"], time_ns=int(raw["timeUnixNano"]), attributes=attributes_of(raw))


def attributes_of(raw: Json) -> dict[str, Any]:
    return {pair["key"]: value_of(pair.get("value", {})) for pair in raw.get("attributes", [])}


def value_of(raw: Json) -> Any:
    """An OTLP any-value as a Python value: {"intValue": "7"} is 7, an arrayValue is a list."""
    for kind, value in raw.items():
        if kind == "intValue":
            return int(value)
        if kind == "doubleValue":
            return float(value)
        if kind == "arrayValue":
            return [value_of(each) for each in value.get("values", [])]
        if kind == "kvlistValue":
            return {pair["key"]: value_of(pair.get("value", {})) for pair in value.get("values", [])}
        return value
    return None


# --- Prometheus


def prometheus_query(prometheus: str, promql: str) -> list[Sample]:
    """An instant query: each series that it finds, with its labels and its value now."""
    answer = get_json(prometheus, "/api/v1/query", {"query": promql})
    assert answer is not None
    assert answer["status"] == "success", answer
    series: Sequence[Json] = answer["data"]["result"]
    return [Sample(labels=each["metric"], value=float(each["value"][1])) for each in series]


def wait_for_metric(
    prometheus: str,
    promql: str,
    *,
    until: Callable[[list[Sample]], bool] | None = None,
    timeout_s: float = TIMEOUT_S,
) -> list[Sample]:
    """The answer to a query, once it is not empty and `until` is true."""

    def ready(samples: list[Sample]) -> bool:
        return bool(samples) and (until is None or until(samples))

    return poll(lambda: prometheus_query(prometheus, promql), ready, timeout_s, promql)
