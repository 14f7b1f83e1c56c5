"""W3C headers carry the trace and its ids from one process to another, and nothing else."""

from __future__ import annotations

import http.client
import io
import json
import logging
import multiprocessing
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from opentelemetry import baggage, trace
from opentelemetry import context as otel_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from starlette.datastructures import Headers as StarletteHeaders

import tracemind_otel as tm
from tests.programs import run
from tests.support import Captured, attributes
from tracemind_otel.cli.otlp_file import FileSpan, read_spans
from tracemind_otel.errors import ConfigError
from tracemind_otel.flows.correlation import MAX_LENGTH, NO_CORRELATION, current_correlation

TRACE_ID, SPAN_ID = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
TRACEPARENT = f"00-{TRACE_ID}-{SPAN_ID}-01"
IDS = {"session.id": "s-1", "user.id": "ada", "tracemind.flow.id": "f-1", "tracemind.tags": ("a", "b,c")}

CHILD = """
import asyncio, json, os
import tracemind_otel as tm

@tm.flow(name="child")
async def child(recorder):
    config = tm.LLMCallConfig("fake", "toy-1", prompt="the child's prompt")
    return await tm.run_llm_call("", "step", config, recorder)

with tm.configure(file="child.otlp.jsonl") as telemetry, tm.continue_trace(json.loads(os.environ["JOB_HEADERS"])):
    asyncio.run(child(telemetry.recorder))
"""


FORKED = """
import asyncio, json, multiprocessing
from concurrent.futures import ProcessPoolExecutor
from opentelemetry import baggage
import tracemind_otel as tm
from tracemind_otel.ai.llm.providers import FakeLLMClient

def job(headers):
    config = tm.LLMCallConfig("fake", "toy-1", prompt="hi")
    with tm.continue_trace(headers):
        call = tm.run_llm_call("", "call", config, tm.Recorder(), client=FakeLLMClient(0))
        return asyncio.run(call)["status"], tm.inject_context(), dict(baggage.get_all())

@tm.flow(max_llm_calls=1, user_id="ada", tags=["first"])
def one(pool):
    with tm.step(name="submits"), tm.using_attributes(session_id="s", baggage=True):
        headers = tm.inject_context()
        return headers, pool.submit(job, headers).result()

@tm.flow
def two(pool):
    headers = tm.inject_context()
    assert pool.submit(tm.inject_context).result() == {}  # what does not continue a trace is in none
    return headers, pool.submit(job, headers).result()

with tm.configure(file="forked.otlp.jsonl"):
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("fork")) as pool:
        print(json.dumps([one(pool), one(pool), two(pool)]))
"""


def ids_around() -> tm.using_attributes:
    return tm.using_attributes(session_id="s-1", user_id="ada", flow_id="f-1", tags=["a", "b,c"])


def hand_over() -> dict[str, str]:
    """The headers of a flow that also has a prompt, a key and attributes."""

    @tm.flow(name="parent", attributes={"team": "a secret project"}, capture_arguments=True)
    def parent(prompt: str, api_key: str) -> dict[str, str]:
        return tm.inject_context()

    with ids_around():
        return parent("the parent's prompt", api_key="sk-0123456789abcdef")


def found_ids(span: Mapping[str, Any]) -> dict[str, Any]:
    return {name: span[name] for name in IDS if name in span}


def trace_and_parent(capture: Captured, name: str) -> tuple[str, str]:
    """The trace id and the parent id of a span."""
    span = capture.span(name)
    assert span.context is not None
    assert span.parent is not None
    return f"{span.context.trace_id:032x}", f"{span.parent.span_id:016x}"


def of_parent(capture: Captured) -> tuple[str, str]:
    context = capture.span("invoke_workflow parent").context
    assert context is not None
    return f"{context.trace_id:032x}", f"{context.span_id:016x}"


def read(path: Path) -> list[FileSpan]:
    with path.open(encoding="utf-8") as lines:
        return list(read_spans(lines))


# --- There ---


def test_what_is_handed_over(capture: Captured) -> None:
    """Headers have the trace and the ids, and no prompt, key or attribute of a flow."""
    headers = hand_over()
    assert set(headers) == {"traceparent", "baggage"}
    assert headers["traceparent"] == "00-{}-{}-01".format(*of_parent(capture)) or headers["traceparent"].endswith("-03")
    assert headers["baggage"] == (
        "tracemind.flow.id=f-1,session.id=s-1,user.id=ada,tracemind.tags=%5B%22a%22%2C%22b%2Cc%22%5D"
    )


def test_into_headers_that_exist(capture: Captured) -> None:
    """Headers are added to a given mapping, which is returned."""
    headers = {"content-type": "application/json"}
    with ids_around():
        assert tm.inject_context(headers) is headers
    assert set(headers) == {"content-type", "baggage"}


def test_nothing_around_nothing_handed_over() -> None:
    """Without a span and ids there are no headers."""
    assert tm.inject_context() == {}


def test_the_applications_own_baggage_goes_along() -> None:
    """The application's own baggage is sent too."""
    token = otel_context.attach(baggage.set_baggage("tenant", "t-1"))
    assert tm.inject_context() == {"baggage": "tenant=t-1"}
    otel_context.detach(token)


# --- And back again ---


def test_a_trace_is_continued(capture: Captured) -> None:
    """Spans in the block are children of the remote span and have its ids; afterwards the context is as before."""
    headers = hand_over()
    with tm.continue_trace(headers):
        tm.step(name="child")(lambda: None)()
    assert trace_and_parent(capture, "child") == of_parent(capture)
    assert found_ids(attributes(capture.span("child"))) == IDS
    assert current_correlation() is NO_CORRELATION


@pytest.mark.parametrize("name", ["traceparent", "Traceparent", "TRACEPARENT"])
def test_header_names_in_any_case(capture: Captured, name: str) -> None:
    """Header names are read in any case, as in HTTP."""
    with tm.continue_trace({name: TRACEPARENT}):
        tm.step(name="child")(lambda: None)()
    assert trace_and_parent(capture, "child") == (TRACE_ID, SPAN_ID)


def test_a_servers_span_stays_the_parent(capture: Captured) -> None:
    """Where an instrumentation has continued the trace already, only the ids are taken."""
    tracer = capture.tracer_provider.get_tracer("a server's instrumentation")
    with ids_around():
        headers = tm.inject_context({"traceparent": TRACEPARENT})
    read = TraceContextTextMapPropagator().extract(headers)
    with tracer.start_as_current_span("POST", context=read), tm.continue_trace(headers):
        tm.step(name="child")(lambda: None)()
    server = capture.span("POST").context
    assert server is not None
    assert trace_and_parent(capture, "child") == (f"{server.trace_id:032x}", f"{server.span_id:016x}")
    assert found_ids(attributes(capture.span("child"))) == IDS


def test_another_trace_is_left(capture: Captured) -> None:
    """Inside another trace's span, such as a worker's, the trace is that of the headers."""
    tracer = capture.tracer_provider.get_tracer("a worker's loop")
    with tracer.start_as_current_span("poll"), tm.continue_trace({"traceparent": TRACEPARENT}):
        tm.step(name="child")(lambda: None)()
    assert trace_and_parent(capture, "child") == (TRACE_ID, SPAN_ID)


def test_ids_go_no_further_unless_asked() -> None:
    """Continuing a trace sends no ids to other servers, unless `baggage=True` is set."""
    with ids_around():
        headers = tm.inject_context()
    with tm.continue_trace(headers):
        assert dict(baggage.get_all()) == {}
        assert tm.inject_context() == headers
    with tm.continue_trace(headers, baggage=True):
        assert baggage.get_baggage("user.id") == "ada"
        with tm.continue_trace({"baggage": "user.id=bob"}):
            assert baggage.get_baggage("user.id") == "bob"


def test_ids_come_before_what_may_not_fit() -> None:
    """In a full header the ids stay, some tags are kept, and the rest is left out."""
    token = otel_context.attach(otel_context.Context())
    for number in range(179):
        otel_context.attach(baggage.set_baggage(f"own-{number}", "x" * 40))
    with tm.using_attributes(session_id="s-1", tags=["ä" * 200 + str(number) for number in range(60)]):
        headers = tm.inject_context()
    otel_context.detach(token)
    with tm.continue_trace(headers):
        ids = current_correlation()
    assert ids.session_id == "s-1"
    assert 2 <= len(ids.tags) < 60


async def test_in_a_coroutine(capture: Captured) -> None:
    """`async with` continues a trace too."""
    async with tm.continue_trace({"traceparent": TRACEPARENT}):
        tm.step(name="child")(lambda: None)()
    assert trace_and_parent(capture, "child") == (TRACE_ID, SPAN_ID)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"traceparent": "garbage"},
        {"traceparent": f"00-{'0' * 32}-{SPAN_ID}-01"},
        {"baggage": "%%%=,,;=;"},
        {"baggage": f"session.id={'x' * (MAX_LENGTH + 1)}"},
        {"baggage": "session.id=line%0Abreak"},
        {"baggage": "session.id="},
        {"baggage": "tracemind.tags=no-json"},
        {"baggage": "tracemind.tags=%7B%22a%22%3A1%7D"},
        {"baggage": "tracemind.tags=%5B1%5D"},
        {"baggage": "tracemind.tags=" + "%5B" * 1_300},
        {"baggage": "=" * 10_000},
        {"traceparent": 5, "baggage": None, 7: "x"},
        {"baggage": "no entry\nFAKE LOG LINE xxx"},
        {"baggage": "xxx" * 10_000},
    ],
    ids=range(15),
)
def test_headers_that_cannot_be_read(
    capture: Captured, caplog: pytest.LogCaptureFixture, headers: dict[Any, Any]
) -> None:
    """Invalid headers from anybody are ignored, and their content is in no log."""
    caplog.set_level(logging.DEBUG)
    with tm.continue_trace(headers):
        tm.step(name="child")(lambda: None)()
    span = capture.span("child")
    assert (span.parent, found_ids(attributes(span))) == (None, {})
    assert "xxx" not in caplog.text
    assert "line\nbreak" not in caplog.text


def test_one_bad_id_does_not_cost_the_others(capture: Captured) -> None:
    """An invalid id is left out alone."""
    with tm.continue_trace({"baggage": "session.id=a%00b,user.id=ada,tenant=t"}):
        tm.step(name="child")(lambda: None)()
        assert tm.inject_context()["baggage"] in ("tenant=t,user.id=ada", "user.id=ada,tenant=t")
    assert found_ids(attributes(capture.span("child"))) == {"user.id": "ada"}


def test_headers_of_the_wrong_kind() -> None:
    """Headers of the wrong type are rejected at once."""
    with pytest.raises(tm.ConfigError, match="headers is str; it must be a mapping"):
        tm.continue_trace("traceparent: 00")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


# --- In real threads and processes ---


def test_a_thread_pool_continues(capture: Captured) -> None:
    """Headers continue a trace in a thread pool."""

    def work(headers: dict[str, str]) -> None:
        with tm.continue_trace(headers):
            tm.step(name="child")(lambda: None)()

    with ThreadPoolExecutor(1) as pool:
        pool.submit(work, hand_over()).result()
    assert trace_and_parent(capture, "child") == of_parent(capture)
    assert found_ids(attributes(capture.span("child"))) == IDS


def test_a_child_process_continues(capture: Captured, tmp_path: Path) -> None:
    """A program that gets the headers in a variable continues the trace and its ids."""
    headers = hand_over()
    done = run("-c", CHILD, directory=tmp_path, environment={"JOB_HEADERS": json.dumps(headers)})
    assert (done.returncode, done.stderr) == (0, "")
    spans = {span.name: span for span in read(tmp_path / "child.otlp.jsonl")}
    flow, call = spans["invoke_workflow child"], spans["chat toy-1"]
    assert (flow.trace_id, flow.parent_id) == of_parent(capture)
    assert call.parent_id == flow.span_id
    for span in (flow, call):
        assert {name: span.attributes[name] for name in IDS if name != "tracemind.tags"} == {
            name: value for name, value in IDS.items() if name != "tracemind.tags"
        }
    everything = json.dumps(headers) + (tmp_path / "child.otlp.jsonl").read_text(encoding="utf-8")
    for secret in ("prompt", "sk-0123456789abcdef", "a secret project"):
        assert secret not in everything


def job(headers: dict[str, str]) -> tuple[dict[str, str], str | None]:
    """What is active in a worker of a pool."""
    with tm.continue_trace(headers):
        return tm.inject_context(), current_correlation().session_id


def test_a_process_pool_continues(capture: Captured) -> None:
    """A worker process continues the trace with its ids."""
    headers = hand_over()
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        handed_on, session = pool.submit(job, headers).result(timeout=60)
    assert (handed_on, session) == (headers, "s-1")


@pytest.mark.soak
@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="this system does not fork")
def test_a_forked_worker_is_in_no_flow_but_that_of_its_job(tmp_path: Path) -> None:
    """A worker that was forked inside a flow keeps none of its trace, ids, baggage and budget for later jobs."""
    done = run("-W", "ignore::DeprecationWarning", "-c", FORKED, directory=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    for handed_over, (status, handed_on, on_the_way) in json.loads(done.stdout):
        assert (status, handed_on, on_the_way) == ("ok", handed_over, {})


WORKERS = """
import multiprocessing, sys
from concurrent.futures import ProcessPoolExecutor
import tracemind_otel as tm

def start():
    tm.configure(file="worker.otlp.jsonl")

@tm.flow(name="job")
def job(headers):
    with tm.continue_trace(headers), tm.step(name="work"):
        return 7

def main():
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("fork"), initializer=INITIALIZER) as pool:
        with tm.flow(name="parent"):
            assert pool.submit(job, tm.inject_context()).result() == 7

PARENT
"""


@pytest.mark.soak
@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="this system does not fork")
@pytest.mark.parametrize(
    ("initializer", "parent", "found"),
    [
        ("start", "main()", {"worker.otlp.jsonl": ["work", "invoke_workflow job"]}),
        (
            "None",
            "with tm.configure(file='parent.otlp.jsonl'): main()",
            {"parent.otlp.jsonl": ["invoke_workflow job", "invoke_workflow parent", "work"]},
        ),
        (
            "start",
            "with tm.configure(file='parent.otlp.jsonl'): main()",
            {"parent.otlp.jsonl": ["invoke_workflow parent"], "worker.otlp.jsonl": ["invoke_workflow job", "work"]},
        ),
    ],
    ids=["configured there", "configured here", "configured in both"],
)
def test_a_forked_worker_sends_its_last_spans(
    tmp_path: Path, initializer: str, parent: str, found: dict[str, list[str]]
) -> None:
    """A worker that ends without `atexit` delivers all its spans, wherever `configure()` was called."""
    program = WORKERS.replace("INITIALIZER", initializer).replace("PARENT", parent)
    done = run("-W", "ignore::DeprecationWarning", "-c", program, directory=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    for file, names in found.items():
        assert sorted(span.name for span in read(tmp_path / file)) == sorted(names)


def test_headers_as_brokers_hand_them_over(capture: Captured) -> None:
    """Headers may be bytes, as brokers give them."""
    headers = {name.encode(): value.encode() for name, value in hand_over().items()}
    with tm.continue_trace(headers):
        tm.step(name="child")(lambda: None)()
    assert trace_and_parent(capture, "child") == of_parent(capture)
    assert found_ids(attributes(capture.span("child"))) == IDS


def test_an_id_of_somebody_else_in_the_baggage(capture: Captured) -> None:
    """The application's own baggage entries of these names stay, and do not send the ids along."""
    token = otel_context.attach(baggage.set_baggage("user.id", "theirs"))
    with tm.using_attributes(session_id="s-1"):
        assert dict(baggage.get_all()) == {"user.id": "theirs"}
        assert tm.inject_context()["baggage"] == "session.id=s-1,user.id=theirs"
    otel_context.detach(token)


TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = f"00-{TRACE}-b7ad6b7169203331-01"


@pytest.mark.parametrize(
    "headers",
    [
        StarletteHeaders({"traceparent": PARENT}),
        http.client.parse_headers(io.BytesIO(f"Traceparent: {PARENT}\r\n\r\n".encode())),
        (("user-agent", "grpc"), ("traceparent", PARENT)),
        [("traceparent", PARENT.encode()), ("key", None)],
        [(b"traceparent", PARENT.encode())],
        {"traceparent": [PARENT]},
    ],
    ids=["starlette", "http.client", "grpc", "kafka", "asgi", "lists"],
)
def test_headers_as_frameworks_have_them(headers: Any) -> None:
    """The headers of a framework's request or a broker's message are accepted as they are."""
    with tm.continue_trace(headers):
        assert f"{trace.get_current_span().get_span_context().trace_id:032x}" == TRACE


def test_no_headers_continue_nothing() -> None:
    """`None` continues nothing, as in a Celery task that was called without headers."""
    with tm.continue_trace(None):
        assert trace.get_current_span() is trace.INVALID_SPAN


@pytest.mark.parametrize("headers", ["traceparent", 7, [1, 2]])
def test_what_is_no_headers(headers: Any) -> None:
    """Any other type is rejected, and the message names it."""
    with pytest.raises(ConfigError, match="it must be a mapping of names to values, or pairs of them"):
        tm.continue_trace(headers)


def test_a_property_is_no_part_of_a_value() -> None:
    """A baggage property after a semicolon is not part of the id."""
    with tm.continue_trace({"baggage": "session.id=s-1;secure;ttl=3,user.id=ada"}):
        assert (current_correlation().session_id, current_correlation().user_id) == ("s-1", "ada")
