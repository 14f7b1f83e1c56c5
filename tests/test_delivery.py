"""What `configure()` is given, and what receivers answer: no input hurts the process, and no loss is silent."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import tracemind_otel as tm
from tests.programs import run
from tests.servers.fixture import Finished
from tests.servers.grpc_sink import grpc_listening
from tests.servers.otlp_sink import Sink
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
    """An exporter that is not made is no exception at start: the log says once what is left out."""
    done = program(tmp_path, SEND, sink.url, OTEL_METRICS_EXPORTER=names)
    assert (done.returncode, done.stdout) == (0, "True True\n")
    said = [line for line in done.stderr.splitlines() if "OTEL_METRICS_EXPORTER" in line]
    assert len(said) == ("prometheus" in names)
    assert all("names prometheus" in line for line in said)
    assert sink.paths == paths


def test_exporter_with_a_protocol(tmp_path: Path) -> None:
    """`otlp_proto_grpc` is the SDK's name for OTLP over gRPC."""
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
    """A header that cannot be sent is a `ConfigError` that names the field and not the value."""
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
    """A variable that holds no headers is named, and the secret in it reaches neither the error nor a log."""
    done = program(tmp_path, SEND, sink.url, OTEL_EXPORTER_OTLP_HEADERS=value, OTEL_EXPORTER_OTLP_PROTOCOL=protocol)
    assert done.stderr.rstrip().splitlines()[-1].startswith("tracemind_otel.errors.ConfigError: OTEL_EXPORTER_OTLP_HEA")
    assert SECRET not in done.stderr
    assert sink.posts == []


def test_white_space_around_is_no_part(tmp_path: Path, sink: Sink) -> None:
    """A file with a secret ends in a line break: white space around a header or an endpoint is stripped."""
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
    """The same holds for the variables."""
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
    """An endpoint that no request can be sent to is a `ConfigError` without the value, as argument and as variable."""
    with pytest.raises(tm.ConfigError, match="endpoint") as caught:
        tm.configure(endpoint=endpoint)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    assert SECRET not in str(caught.value)
    if isinstance(endpoint, str) and "?" not in endpoint:
        monkeypatch.setitem(os.environ, "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", endpoint)
        with pytest.raises(tm.ConfigError, match="OTEL_EXPORTER_OTLP_METRICS_ENDPOINT") as caught:
            tm.configure()
        assert SECRET not in str(caught.value)


def test_endpoint_of_grpc(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """gRPC would log a user name and a password, so they are refused; an address without a scheme is gRPC's own."""
    with pytest.raises(tm.ConfigError, match="header") as caught:
        tm.configure(endpoint=f"http://user:{SECRET}@host:4317", protocol="grpc")
    assert SECRET not in str(caught.value)
    monkeypatch.setitem(os.environ, "OTEL_EXPORTER_OTLP_ENDPOINT", "127.0.0.1:4318")
    monkeypatch.setitem(os.environ, "OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
    tm.configure().shutdown()
    assert "port 4318 speaks HTTP" in caplog.text


@pytest.mark.parametrize("where", ["argument", "variable"])
def test_port_of_grpc(tmp_path: Path, where: str) -> None:
    """HTTP to port 4317 says that 4317 speaks gRPC: at the start, and again with what was lost."""
    url = "http://127.0.0.1:4317"
    body = f"telemetry = tm.configure({'endpoint=sys.argv[1]' if where == 'argument' else ''})\nwork()"
    done = program(tmp_path, body, url, **({"OTEL_EXPORTER_OTLP_ENDPOINT": url} if where == "variable" else {}))
    said = [line for line in done.stderr.splitlines() if "port 4317 speaks gRPC" in line]
    assert len(said) == 2, done.stderr
    assert "lost: 1 of 1 spans" in said[1]


# --- Answers ---


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308, 401, 403, 404, 413, 200])
def test_answer_that_is_no_success(tmp_path: Path, sink: Sink, status: int) -> None:
    """A redirect, a refusal or a page of HTML has not taken the data: `flush` is False, and the loss is said once."""
    sink.status = status
    sink.answer = b"<!doctype html><title>Sign in</title>"
    sink.answer_headers = {
        "content-type": "text/html; charset=utf-8",
        "location": f"{sink.url}/v1/traces?token={SECRET}",
    }
    done = program(tmp_path, SEND, sink.url)
    assert (done.returncode, done.stdout) == (0, "False False\n")
    assert sum("tracemind-otel: lost: 1 of 1 spans" in line for line in done.stderr.splitlines()) == 1
    assert sum("Failed to export spans" in line for line in done.stderr.splitlines()) == 1
    assert SECRET not in done.stderr


@pytest.mark.parametrize("kind", ["text/html", "text/plain", "application/octet-stream"])
def test_page_of_html(tmp_path: Path, sink: Sink, kind: str) -> None:
    """A page is one by its type or by its beginning; an empty answer, JSON or protobuf is a success."""
    sink.answer, sink.answer_headers = b"\n<HTML><body>OK", {"content-type": kind}
    assert program(tmp_path, SEND, sink.url).stdout == "False False\n"
    sink.answer, sink.answer_headers = b"{}", {"content-type": "application/json"}
    assert program(tmp_path, SEND, sink.url).stdout == "True True\n"


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
    """gRPC takes 4 MiB in one request: a batch is cut by its encoded bytes, so 512 spans with their values arrive."""
    with grpc_listening() as grpc_sink:
        done = program(tmp_path, BIG, grpc_sink.url, "grpc", OTEL_METRICS_EXPORTER="none")
        assert done.stdout == "True True\n", done.stderr
        assert len({span.span_id for span in grpc_sink.spans()}) == 512
        assert len(grpc_sink.requests) > 1
        assert all(request.ByteSize() < 4 * 2**20 for request in grpc_sink.requests)


# --- Standard error ---


@pytest.mark.parametrize("ending", ["sys.stderr.close()", "sys.stderr = None"])
@pytest.mark.parametrize("last", ["telemetry.shutdown()", ""])
def test_standard_error_that_is_closed(tmp_path: Path, sink: Sink, ending: str, last: str) -> None:
    """A closed or missing standard error is no exception in the application, and no other exit code."""
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
    """A lone surrogate in one span is replaced, and costs no span of the batch; nor do NUL and long strings."""
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
