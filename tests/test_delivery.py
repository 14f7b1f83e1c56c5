"""No setting of `configure()` and no receiver's answer hurts the process, and every loss is reported."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsPartialSuccess,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTracePartialSuccess,
    ExportTraceServiceResponse,
)

import tracemind_otel as tm
from tests.programs import Finished, clean_environment, run
from tests.servers.grpc_sink import grpc_listening
from tests.servers.otlp_sink import Sink, plain
from tests.servers.otlp_sink import sink as sink

SECRET = "Zq81LmmT0x9vB3"

FLOW = """
import logging, sys
import tracemind_otel as tm
logging.basicConfig(level=logging.DEBUG)

@tm.flow
def work():
    pass
"""


def program(directory: Path, body: str, *arguments: str, **environment: str) -> Finished:
    """Run a program in a process of its own."""
    return run("-c", FLOW + body, *arguments, directory=directory, environment=environment)


SEND = """
telemetry = tm.configure(endpoint=sys.argv[1])
work()
print(telemetry.flush(), telemetry.shutdown())
"""


# --- Exporters that the environment names ---


@pytest.mark.parametrize("names", ["console", "otlp,console", " Console , otlp "])
def test_exporter_console(tmp_path: Path, sink: Sink, names: str) -> None:
    """`console` prints spans and metrics on standard output, as the SDK would, alone or beside `otlp`."""
    done = program(tmp_path, SEND, sink.url, OTEL_TRACES_EXPORTER=names, OTEL_METRICS_EXPORTER=names)
    assert done.returncode == 0, done.stderr
    assert '"name": "invoke_workflow work"' in done.stdout
    assert "gen_ai.invoke_workflow.duration" in done.stdout
    assert "True True" in done.stdout
    assert sink.paths == ({"/v1/traces", "/v1/metrics"} if "otlp" in names else set())


@pytest.mark.parametrize(
    ("names", "paths"),
    [("prometheus", {"/v1/traces"}), ("otlp,prometheus", {"/v1/traces", "/v1/metrics"}), ("none", {"/v1/traces"})],
)
def test_exporter_that_is_left_out(tmp_path: Path, sink: Sink, names: str, paths: set[str]) -> None:
    """An unsupported exporter raises nothing at start: the log says once that it is left out."""
    done = program(tmp_path, SEND, sink.url, OTEL_METRICS_EXPORTER=names)
    assert (done.returncode, done.stdout) == (0, "True True\n")
    said = [line for line in done.stderr.splitlines() if "OTEL_METRICS_EXPORTER" in line]
    assert len(said) == ("prometheus" in names)
    assert all("names prometheus" in line for line in said)
    assert sink.paths == paths


def test_exporter_with_a_protocol(tmp_path: Path) -> None:
    """`otlp_proto_grpc`, the SDK's name for OTLP over gRPC, works."""
    with grpc_listening() as grpc_sink:
        done = program(
            tmp_path, SEND, grpc_sink.url, OTEL_TRACES_EXPORTER="otlp_proto_grpc", OTEL_METRICS_EXPORTER="none"
        )
    assert done.stdout == "True True\n"
    assert [span.name for span in grpc_sink.spans()] == ["invoke_workflow work"]


# --- Headers and endpoints ---


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
@pytest.mark.parametrize(
    "headers",
    [
        {"api-key": f"{SECRET}\nX-Evil: 1"},
        {"api-key": f"{SECRET}\x00"},
        {"api-key": f"{SECRET}é"},
        {"api-key": f"{SECRET}Ж"},
        {"api-key": 4711},
        {"api-key": None},
        {"api-key": SECRET.encode()},
        {f"{SECRET} {SECRET}": "x"},
        {f"{SECRET}\n": "x", 5: "x"},
        [("api-key", SECRET)],
        f"api-key={SECRET}",
    ],
)
def test_header_that_cannot_be_sent(headers: object, protocol: str) -> None:
    """An invalid header is rejected with a ConfigError that names the field and not the value."""
    with pytest.raises(tm.ConfigError, match="headers") as caught:
        tm.configure(endpoint="http://127.0.0.1:9", protocol=protocol, headers=headers)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    assert SECRET not in str(caught.value)
    assert "4711" not in str(caught.value)


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
@pytest.mark.parametrize(
    "value",
    [
        f"api-key={SECRET}\nX: 1",
        f"api-key={SECRET}%0AX",
        f"api-key={SECRET}Ж",
        f'k="{SECRET}"',
        SECRET,
        f"a b={SECRET}",
    ],
)
def test_headers_of_the_environment_that_cannot_be_sent(tmp_path: Path, sink: Sink, value: str, protocol: str) -> None:
    """The error for invalid headers names the variable, and neither it nor a log has the secret."""
    done = program(tmp_path, SEND, sink.url, OTEL_EXPORTER_OTLP_HEADERS=value, OTEL_EXPORTER_OTLP_PROTOCOL=protocol)
    assert done.stderr.rstrip().splitlines()[-1].startswith("tracemind_otel.errors.ConfigError: OTEL_EXPORTER_OTLP_HEA")
    assert SECRET not in done.stderr
    assert sink.posts == []


def test_white_space_around_is_no_part(tmp_path: Path, sink: Sink) -> None:
    """White space around a header or an endpoint is stripped, since secret files end with a newline."""
    body = """
telemetry = tm.configure(endpoint=f" {sys.argv[1]}\\r\\n", headers={" X-Key ": "secret\\n"})
work()
print(telemetry.shutdown())
"""
    done = program(tmp_path, body, sink.url, OTEL_EXPORTER_OTLP_HEADERS="x-other=two words \n, X-Third=a%20b\n")
    assert done.stdout == "True\n", done.stderr
    assert [post.headers[name] for post in sink.posts[:1] for name in ("x-key", "x-other", "x-third")] == [
        "secret",
        "two words",
        "a b",
    ]


@pytest.mark.parametrize("name", ["OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"])
def test_white_space_around_an_endpoint_of_the_environment(tmp_path: Path, sink: Sink, name: str) -> None:
    """White space around an endpoint in a variable is stripped."""
    url = sink.url + ("/v1/traces" if "TRACES" in name else "/")
    body = "telemetry = tm.configure()\nwork()\nprint(telemetry.shutdown())"
    done = program(tmp_path, body, OTEL_METRICS_EXPORTER="none", **{name: f" {url}\n"})
    assert done.stdout == "True\n", done.stderr
    assert sink.paths == {"/v1/traces"}


@pytest.mark.parametrize(
    "endpoint",
    [
        f"http://{SECRET}\n.example:4318",
        f"http://{SECRET}.ж.example",
        f"http://{SECRET} :4318",
        f"http://host:{SECRET}",
        "http://host:99999",
        f"http://[{SECRET}/",
        f"http://host/?key={SECRET}",
        4318,
        b"http://host",
    ],
)
def test_endpoint_that_is_none(endpoint: object, monkeypatch: pytest.MonkeyPatch) -> None:
    """An invalid endpoint, as argument or variable, is rejected with a ConfigError without the value."""
    with pytest.raises(tm.ConfigError, match="endpoint") as caught:
        tm.configure(endpoint=endpoint)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    assert SECRET not in str(caught.value)
    if isinstance(endpoint, str) and "?" not in endpoint:
        monkeypatch.setitem(os.environ, "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", endpoint)
        with pytest.raises(tm.ConfigError, match="OTEL_EXPORTER_OTLP_METRICS_ENDPOINT") as caught:
            tm.configure()
        assert SECRET not in str(caught.value)


def test_endpoint_of_grpc(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """A gRPC endpoint with a password is rejected, since gRPC would log it; one without a scheme is allowed."""
    with pytest.raises(tm.ConfigError, match="header") as caught:
        tm.configure(endpoint=f"http://user:{SECRET}@host:4317", protocol="grpc")
    assert SECRET not in str(caught.value)
    monkeypatch.setitem(os.environ, "OTEL_EXPORTER_OTLP_ENDPOINT", "127.0.0.1:4318")
    monkeypatch.setitem(os.environ, "OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
    tm.configure().shutdown()
    assert "port 4318 speaks HTTP" in caplog.text


@pytest.mark.parametrize("where", ["argument", "variable"])
def test_port_of_grpc(tmp_path: Path, where: str) -> None:
    """The log says at the start that port 4317 speaks gRPC, and again when spans are lost."""
    url = "http://127.0.0.1:4317"
    body = f"telemetry = tm.configure({'endpoint=sys.argv[1]' if where == 'argument' else ''})\nwork()"
    done = program(tmp_path, body, url, **({"OTEL_EXPORTER_OTLP_ENDPOINT": url} if where == "variable" else {}))
    said = [line for line in done.stderr.splitlines() if "port 4317 speaks gRPC" in line]
    assert "pass protocol='grpc'" in said[0], done.stderr
    assert "lost: 1 of 1 spans" in said[-1], done.stderr


# --- Answers ---


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308, 401, 403, 404, 413, 200])
def test_answer_that_is_no_success(tmp_path: Path, sink: Sink, status: int) -> None:
    """After a redirect, an error status or a page of HTML, `flush` returns False, and the loss is logged once."""
    sink.status = status
    sink.answer = b"<!doctype html><title>Sign in</title>"
    sink.answer_headers = {
        "content-type": "text/html; charset=utf-8",
        "location": f"{sink.url}/v1/traces?token={SECRET}",
    }
    done = program(tmp_path, SEND, sink.url)
    assert (done.returncode, done.stdout) == (0, "False False\n")
    assert sum("tracemind-otel: lost: 1 of 1 spans" in line for line in done.stderr.splitlines()) == 1
    assert sum("refused 1 spans, which are lost" in line for line in done.stderr.splitlines()) == 1
    assert SECRET not in done.stderr


@pytest.mark.parametrize("kind", ["text/html", "text/plain", "application/octet-stream"])
def test_page_of_html(tmp_path: Path, sink: Sink, kind: str) -> None:
    """A page of HTML is known by its type or first bytes; an empty answer, JSON and protobuf are successes."""
    sink.answer, sink.answer_headers = b"\n<HTML><body>OK", {"content-type": kind}
    assert program(tmp_path, SEND, sink.url).stdout == "False False\n"
    sink.answer, sink.answer_headers = b"{}", {"content-type": "application/json"}
    assert program(tmp_path, SEND, sink.url).stdout == "True True\n"


def partial_success(path: str, rejected: int, message: str) -> bytes:
    """The answer of a receiver that rejects a part of a request."""
    if path == "/v1/traces":
        spans = ExportTracePartialSuccess(rejected_spans=rejected, error_message=message)
        return bytes(ExportTraceServiceResponse(partial_success=spans).SerializeToString())
    points = ExportMetricsPartialSuccess(rejected_data_points=rejected, error_message=message)
    return bytes(ExportMetricsServiceResponse(partial_success=points).SerializeToString())


@pytest.mark.parametrize(("path", "what"), [("/v1/traces", "1 spans"), ("/v1/metrics", "1 metric points")])
def test_receiver_that_rejects_a_part(tmp_path: Path, sink: Sink, path: str, what: str) -> None:
    """An answer of 200 may say that a part was rejected: that is lost, `flush` is False, and the reason is logged once.

    Spans that were rejected stay lost. Sums go on, so a later batch of metrics makes up for one that was rejected.
    """
    sink.answers = {path: partial_success(path, 1, f"label x is\ntoo long, key {SECRET}")}
    body = """
telemetry = tm.configure(endpoint=sys.argv[1], headers={"api-key": sys.argv[2]})
work()
print(telemetry.flush())
work()
print(telemetry.flush(), telemetry.shutdown())
"""
    done = program(tmp_path, body, sink.url, SECRET)
    assert (done.returncode, done.stdout) == (0, "False\nFalse False\n"), done.stderr
    [said] = [line for line in done.stderr.splitlines() if " rejected " in line]
    assert f"{sink.url}{path} rejected {what}: label x is too long, key [redacted]" in said
    assert SECRET not in done.stderr
    lost = "2 of 2 spans" if path == "/v1/traces" else "1 of 1 metric points"
    assert sum(f"tracemind-otel: lost: {lost} did not reach" in line for line in done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("answer", "kind", "delivered"),
    [
        (b'{"partialSuccess": {"rejectedSpans": "1", "errorMessage": "no"}}', "application/json", False),
        (b'{"partialSuccess": {}, "new": 1}', "application/json; charset=utf-8", True),
        (partial_success("/v1/traces", 0, ""), "application/x-protobuf", True),
        (b"\xff not protobuf", "application/x-protobuf", True),
        (b"[1, 2", "application/json", True),
    ],
)
def test_answer_in_json_or_without_meaning(
    tmp_path: Path, sink: Sink, answer: bytes, kind: str, delivered: bool
) -> None:
    """A rejection in JSON is read too; an unreadable answer of 200 is a success."""
    sink.answers, sink.answer_headers = {"/v1/traces": answer}, {"content-type": kind}
    done = program(tmp_path, SEND, sink.url, OTEL_METRICS_EXPORTER="none")
    assert done.stdout == f"{delivered} {delivered}\n", done.stderr


def test_warning_of_a_receiver(tmp_path: Path, sink: Sink) -> None:
    """A warning without a rejection is logged, and nothing is lost."""
    sink.answers = {"/v1/traces": partial_success("/v1/traces", 0, "use the new endpoint")}
    done = program(tmp_path, SEND, sink.url, OTEL_METRICS_EXPORTER="none")
    assert done.stdout == "True True\n"
    assert "use the new endpoint" in done.stderr


# --- Shutting down ---


def test_shutdown_that_is_called_again(tmp_path: Path, sink: Sink) -> None:
    """A second shutdown after a time-out runs nothing twice: it waits for the first."""
    released = threading.Event()
    sink.hold = lambda post: released.wait(60) if post.path == "/v1/traces" else None
    body = """
telemetry = tm.configure(endpoint=sys.argv[1])
work()
print(telemetry.shutdown(0.2), flush=True)
sys.stdin.readline()
print(telemetry.shutdown(30), telemetry.shutdown(), flush=True)
"""
    with subprocess.Popen(
        [sys.executable, "-W", "error", "-c", FLOW + body, sink.url],
        env=clean_environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        first = process.stdout.readline()
        released.set()
        rest, errors = process.communicate("\n", timeout=60)
    assert (process.returncode, first, rest) == (0, "False\n", "True True\n"), errors
    assert "shutdown" not in errors
    assert [post.path for post in sink.posts].count("/v1/traces") == 1
    # The end of the flow exports them too.
    assert 1 <= [post.path for post in sink.posts].count("/v1/metrics") <= 2


# --- Sizes ---


BIG = """
@tm.step(capture_arguments=True, capture_result=True)
def copy(text):
    return text

telemetry = tm.configure(endpoint=sys.argv[1], protocol=sys.argv[2], service_name="s")
for number in range(512):
    copy(f"{number}" + "長い 文" * 2000)
print(telemetry.flush(60), telemetry.shutdown())
"""


def test_grpc_limit(tmp_path: Path) -> None:
    """Batches are cut by encoded bytes for gRPC's limit of 4 MiB, so 512 spans with captured values arrive."""
    with grpc_listening() as grpc_sink:
        done = program(tmp_path, BIG, grpc_sink.url, "grpc", OTEL_METRICS_EXPORTER="none")
        assert done.stdout == "True True\n", done.stderr
        assert len({span.span_id for span in grpc_sink.spans()}) == 512
        assert len(grpc_sink.requests) > 1
        assert all(request.ByteSize() < 4 * 2**20 for request in grpc_sink.requests)


LARGE_POINTS = """
telemetry = tm.configure(endpoint=sys.argv[1], protocol="grpc", metric_attributes=["text"])
counter = telemetry.meter_provider.get_meter("theirs").create_counter("theirs")
for number in range(150):
    counter.add(number, {"text": f"{number}" + "長い 文" * 6000})
work()
print(telemetry.flush(60), telemetry.shutdown())
"""


def test_grpc_limit_of_metrics(tmp_path: Path) -> None:
    """Metrics are cut by bytes too: no data point of 9 MB is lost, and none arrives twice."""
    with grpc_listening() as grpc_sink:
        done = program(tmp_path, LARGE_POINTS, grpc_sink.url, OTEL_TRACES_EXPORTER="none")
    assert done.stdout == "True True\n", done.stderr
    flushed = [request for request in grpc_sink.metrics if request.ByteSize() > 100_000]
    assert len(flushed) > 1
    assert all(request.ByteSize() < 4 * 2**20 for request in flushed)
    scopes = [scope for request in flushed for part in request.resource_metrics for scope in part.scope_metrics]
    metrics = [metric for scope in scopes for metric in scope.metrics]
    values = [point.as_int for metric in metrics if metric.name == "theirs" for point in metric.sum.data_points]
    assert sorted(values[:150]) == list(range(150))
    assert "gen_ai.invoke_workflow.duration" in {metric.name for metric in metrics}


# --- Standard error ---


@pytest.mark.parametrize("ending", ["sys.stderr.close()", "sys.stderr = None"])
@pytest.mark.parametrize("last", ["telemetry.shutdown()", ""])
def test_standard_error_that_is_closed(tmp_path: Path, sink: Sink, ending: str, last: str) -> None:
    """A closed or missing stderr raises nothing in the application and changes no exit code."""
    sink.status = 403
    body = f"""
logging.getLogger().handlers.clear()
telemetry = tm.configure(endpoint=sys.argv[1])
work()
{ending}
{last}
print("done", flush=True)
"""
    done = program(tmp_path, body, sink.url)
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr
    assert sink.paths == {"/v1/traces", "/v1/metrics"}


def test_a_string_that_is_no_utf_8_costs_no_span(tmp_path: Path, sink: Sink) -> None:
    """A lone surrogate is replaced and costs no span of the batch; nor do NUL and long strings."""
    done = run(
        "-c",
        """
import sys, tracemind_otel as tm
telemetry = tm.configure(endpoint=sys.argv[1])
for name, value in (("bad\\ud800", "x"), ("nul", "a\\0b"), ("long", "y" * 200_000), ("odd", "z\\udfff"), ("good", "x")):
    tm.flow(name=name, attributes={"value": value})(lambda: None)()
assert telemetry.flush()
""",
        sink.url,
        directory=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    names = {span.name for span in sink.spans()}
    assert len(names) == 5
    assert {"invoke_workflow good", "invoke_workflow odd", "invoke_workflow nul"} <= names


def test_an_attribute_that_is_no_utf_8_costs_no_metric(tmp_path: Path, sink: Sink) -> None:
    """A value that OTLP cannot carry is lost alone, in the package's metrics, the application's and the resource."""
    done = program(
        tmp_path,
        r"""
telemetry = tm.configure(endpoint=sys.argv[1], metric_attributes=["team"], resource={"zone": "a\ud800"})
tm.flow(name="mine", attributes={"team": "b\ud800"})(lambda: None)()
theirs = telemetry.meter_provider.get_meter("theirs").create_counter("theirs")
theirs.add(1, {"surrogate\udfff": "c\ud800", "large": 2**70, "deep": {"list": ["d\ud800"]}, "nul": "\0", "good": "e"})
theirs.add(2, {"good": "f"})
attributes = {"large": -2**70, "deep": {"a": "\ud800"}}
telemetry.tracer_provider.get_tracer("theirs").start_span("s", attributes=attributes).end()
print(telemetry.flush(), telemetry.shutdown())
""",
        sink.url,
    )
    assert done.stdout == "True True\n", done.stderr
    metrics = sink.metrics()
    assert "gen_ai.invoke_workflow.duration" in metrics
    points = {point.as_int: plain(point.attributes) for point in metrics["theirs"].sum.data_points}
    assert (points[1]["large"], points[1]["good"]) == (str(2**70), "e")
    assert points[2] == {"good": "f"}
    [large] = [plain(span.attributes)["large"] for span in sink.spans() if span.name == "s"]
    assert large == str(-(2**70))


def test_a_string_that_is_no_utf_8_costs_no_line_of_a_file(tmp_path: Path) -> None:
    """A lone surrogate costs no line in the file of spans."""
    done = program(
        tmp_path,
        r"""
telemetry = tm.configure(file="spans.jsonl")
for name in ("good", "bad\ud800"):
    tm.step(name=name)(lambda: None)()
telemetry.tracer_provider.get_tracer("theirs").start_span("s", attributes={"a": "b\ud800", "c": 2**70}).end()
print(telemetry.flush(), telemetry.shutdown())
""",
    )
    assert done.stdout == "True True\n", done.stderr
    written = (tmp_path / "spans.jsonl").read_text()
    assert all(f'"name":"{name}' in written.replace('": ', '":') for name in ("good", "bad", "s"))
