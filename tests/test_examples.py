"""Every program in examples/ runs as a reader would run it."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.programs import clean_environment, run
from tests.servers.fixture import OpenAIServer
from tests.servers.fixture import openai_server as openai_server
from tracemind_otel.cli.otlp_file import FileSpan, read_spans

EXAMPLES = Path(__file__).parents[1] / "examples"
QUICKSTART = EXAMPLES / "quickstart.py"
WITH_MORE = {"celery_claude", "langchain_flow", "trace_mind_flow"}
"""Examples that need more than the development environment has: tests in `tests/tools` run them."""
PROGRAMS = sorted(path for path in EXAMPLES.glob("*.py") if path.stem not in WITH_MORE)


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.stem)
def test_every_example_runs_with_no_argument_key_or_server(program: Path, tmp_path: Path) -> None:
    """A reader can start any example as it is."""
    done = run(program, directory=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout


def test_the_quickstart_shows_its_cost_and_its_trace(tmp_path: Path) -> None:
    """The quickstart prints what the call cost, and the file that it names holds the flow and its call."""
    done = run(QUICKSTART, directory=tmp_path)
    assert "8 tokens, $0.000003" in done.stdout
    assert done.stdout.rstrip().endswith("python -m tracemind_otel view quickstart.otlp.jsonl")
    with (tmp_path / "quickstart.otlp.jsonl").open(encoding="utf-8") as lines:
        assert {span.name for span in read_spans(lines)} == {"invoke_workflow greet", "chat toy-1"}


def test_the_quickstart_calls_openai_with_a_key(openai_server: OpenAIServer, tmp_path: Path) -> None:
    """The same program calls the real provider when asked to and given a key."""
    environment = {"OPENAI_API_KEY": "sk-test-key", "OPENAI_BASE_URL": openai_server.base_url, "NO_PROXY": "*"}
    done = run(QUICKSTART, "--provider", "openai", directory=tmp_path, environment=environment)
    assert done.returncode == 0, done.stderr
    assert " tokens, $0.0" in done.stdout


def test_the_quickstart_says_what_openai_lacks(tmp_path: Path) -> None:
    """Without a key the real provider's call fails with a reason and an exit code, not with a traceback."""
    done = run(QUICKSTART, "--provider", "openai", directory=tmp_path)
    assert done.returncode == 1
    assert done.stdout.startswith("failed: OPENAI_API_KEY is not set")
    assert "Traceback" not in done.stderr


def spans_in(path: Path) -> list[FileSpan]:
    with path.open(encoding="utf-8") as lines:
        return list(read_spans(lines))


def named(spans: list[FileSpan], name: str) -> FileSpan:
    (found,) = [span for span in spans if span.name == name]
    return found


def test_the_async_flow_stays_within_its_budget(tmp_path: Path) -> None:
    """Two sessions share a budget of six calls; the seventh is denied, and each flow has the sums of its own."""
    done = run(EXAMPLES / "async_flow.py", directory=tmp_path)
    assert "(over budget)" in done.stdout
    assert re.search(r"^6 calls, \d+ tokens, \$0\.0000\d\d; the seventh call was not sent$", done.stdout, re.MULTILINE)
    spans = spans_in(tmp_path / "async_flow.otlp.jsonl")
    flows = [span for span in spans if span.name == "invoke_workflow report"]
    assert sorted(str(flow.attributes["session.id"]) for flow in flows) == ["session-1", "session-2"]
    assert sum(int(flow.attributes["tracemind.flow.llm_calls"]) for flow in flows) == 6
    names = Counter(span.name for span in spans)
    assert names["execute_tool retrieve"] == names["invoke_agent research"] == 2
    assert (names["summarise"], names["chat toy-1"]) == (5, 7)
    for span in spans:
        flow = next(flow for flow in flows if flow.trace_id == span.trace_id)
        assert span.attributes["session.id"] == flow.attributes["session.id"]
    assert "Summarise" not in (tmp_path / "async_flow.otlp.jsonl").read_text(encoding="utf-8")


def test_the_sync_script_keeps_its_threads_in_the_flow(tmp_path: Path) -> None:
    """Steps in worker threads hang below the block, and each log line names the session and the trace."""
    done = run(EXAMPLES / "sync_script.py", directory=tmp_path)
    spans = spans_in(tmp_path / "sync_script.otlp.jsonl")
    flow = named(spans, "invoke_workflow nightly")
    assert flow.attributes["tracemind.flow.llm_calls"] == 4
    assert [span.parent_id for span in spans if span.name == "classify"] == [flow.span_id] * 4
    assert {span.attributes["session.id"] for span in spans} == {"night-1123"}
    lines = [line for line in done.stdout.splitlines() if line.startswith("nightly session=night-1123")]
    assert len(lines) == 4
    assert all(f"trace={flow.trace_id}" in line for line in lines)


def test_the_endpoint_streams_inside_one_flow(tmp_path: Path) -> None:
    """The answer comes through a real server, and the flow of the request lasts until its last word."""
    done = run(EXAMPLES / "fastapi_stream.py", directory=tmp_path)
    assert done.stdout.startswith("A stream ends with its last word, or with its reader. A stream")
    spans = spans_in(tmp_path / "fastapi_stream.otlp.jsonl")
    flow, call = named(spans, "invoke_workflow answer"), named(spans, "chat toy-1")
    assert (call.parent_id, call.attributes["session.id"]) == (flow.span_id, "s-1")
    assert flow.start_ns <= call.start_ns <= call.end_ns <= flow.end_ns
    assert flow.attributes["tracemind.flow.output_tokens"] == call.attributes["gen_ai.usage.output_tokens"]


@pytest.fixture
def endpoint(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The endpoint in a process of its own, and where it serves."""
    command = [sys.executable, str(EXAMPLES / "fastapi_stream.py"), "--serve"]
    server = subprocess.Popen(command, cwd=tmp_path, env=clean_environment(), stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    url = re.search(r"http://[^/]+", server.stdout.readline())
    assert url is not None
    yield server, url[0]
    server.kill()
    server.communicate()


def test_a_reader_who_leaves_ends_flow_and_call_once(
    endpoint: tuple[subprocess.Popen[str], str], tmp_path: Path
) -> None:
    """Whoever disconnects in the middle of an answer leaves no span open, and is no error."""
    server, url = endpoint
    question = {"question": "why?", "session": "s-9"}
    with httpx.stream("POST", f"{url}/ask", json=question, trust_env=False) as reply:
        assert next(reply.iter_text())
    server.send_signal(signal.SIGINT)
    assert server.wait(timeout=30) == 0
    spans = spans_in(tmp_path / "fastapi_stream.otlp.jsonl")
    for name in ("invoke_workflow answer", "chat toy-1"):
        span = named(spans, name)
        marks = {"tracemind.cancelled", "tracemind.stream.closed_early"} & span.attributes.keys()
        assert (span.attributes["session.id"], span.attributes.get("error.type"), len(marks)) == ("s-9", None, 1)


def test_the_worker_continues_the_trace_of_its_job(tmp_path: Path) -> None:
    """Two processes, one trace, one session; the prompt is in neither the headers nor the spans."""
    done = run(EXAMPLES / "worker.py", directory=tmp_path)
    (headers,) = re.findall(r"^handed over: (.*)$", done.stdout, re.MULTILINE)
    assert json.loads(headers).keys() == {"traceparent", "baggage"}
    spans = spans_in(tmp_path / "worker.otlp.jsonl")
    accepted, confirmed = named(spans, "invoke_workflow accept"), named(spans, "invoke_workflow confirm")
    assert (confirmed.trace_id, confirmed.parent_id) == (accepted.trace_id, accepted.span_id)
    assert (accepted.service, confirmed.service) == ("shop", "worker")
    assert {(span.attributes["session.id"], span.attributes["user.id"]) for span in spans} == {("s-1", "ada")}
    assert "two lamps" not in headers + (tmp_path / "worker.otlp.jsonl").read_text(encoding="utf-8")


def test_a_service_has_its_cost_per_endpoint_in_three_lines(tmp_path: Path) -> None:
    """The added lines are marked in the example, and `view --by endpoint` has a row for each endpoint."""
    source = (EXAMPLES / "fastapi_costs.py").read_text(encoding="utf-8").splitlines()
    added = [line for line in source if line.endswith("  # +")]
    assert added == [line for line in source if "tm." in line or "tracemind_otel as" in line]
    assert len(added) == 3
    assert run(EXAMPLES / "fastapi_costs.py", directory=tmp_path).returncode == 0
    table = run(
        "-m", "tracemind_otel", "view", "fastapi_costs.otlp.jsonl", "--by", "endpoint", "--json", directory=tmp_path
    )
    rows = {row["name"]: row for row in json.loads(table.stdout)["rows"]}
    assert {name: row["calls"] for name, row in rows.items()} == {"POST /answers/{topic}": 4, "POST /summaries": 1}
    assert rows["POST /answers/{topic}"]["cost_usd"] > rows["POST /summaries"]["cost_usd"] > 0
    flows = [span for span in spans_in(tmp_path / "fastapi_costs.otlp.jsonl") if span.name == "invoke_workflow answer"]
    assert [flow.attributes["tracemind.flow.llm_calls"] for flow in flows] == [2, 2]


def test_the_platform_prints_its_costs_and_queries(tmp_path: Path) -> None:
    """Without an endpoint the example says what the flows cost, and which queries to ask."""
    done = run(EXAMPLES / "platform_costs.py", directory=tmp_path)
    assert re.search(r"^search: \$0\.0\d+$", done.stdout, re.MULTILINE)
    assert "cost by team: sum by (team) (tracemind_llm_cost_USD_total)" in done.stdout
    assert "budget of 'digest' is spent" in done.stdout
