"""`view` shows files of this package, of the official exporter, and of other programs."""

from __future__ import annotations

import asyncio
import io
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from opentelemetry.exporter.otlp.json.file.trace_exporter import FileSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from rich.console import Console

import tracemind_otel as tm
from tracemind_otel.ai.llm.pricing import set_prices
from tracemind_otel.ai.llm.providers import FakeLLMClient
from tracemind_otel.cli.otlp_file import FileEvent, FileSpan, OTLPFileError, Scalar, read_spans
from tracemind_otel.cli.trace_tree import format_duration, format_usd, needed_columns, trace_trees
from tracemind_otel.otel import semconv
from tracemind_otel.otel.current import Providers, configured_providers, use_providers

SECOND = 1_000_000_000


def shown(spans: list[FileSpan], *, width: int = 500) -> str:
    """The trees as plain text."""
    console = Console(file=io.StringIO(), width=width, highlight=False, color_system=None)
    for tree in trace_trees(spans):
        console.width = max(width, needed_columns(tree))
        console.print(tree)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def span(span_id: str, parent_id: str = "", **fields: Any) -> FileSpan:
    """A span of one second with few fields."""
    defaults: dict[str, Any] = {"trace_id": "t1", "name": span_id, "start_ns": SECOND, "end_ns": 2 * SECOND}
    return FileSpan(span_id=span_id, parent_id=parent_id, **(defaults | fields))


def call(**attributes: Scalar) -> FileSpan:
    """A model call with these attributes and a model."""
    return span(
        "call", attributes={semconv.GEN_AI_REQUEST_MODEL: "m", semconv.GEN_AI_OPERATION_NAME: "chat"} | attributes
    )


def otlp_line(*spans: dict[str, Any], service: str | None = None) -> str:
    """One line, as an exporter writes it."""
    attributes = [] if service is None else [{"key": "service.name", "value": {"stringValue": service}}]
    return json.dumps(
        {"resourceSpans": [{"resource": {"attributes": attributes}, "scopeSpans": [{"spans": list(spans)}]}]}
    )


# --- files of our own


class Recorded:
    """A real recorder whose spans the official exporter writes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.provider = TracerProvider(shutdown_on_exit=False)
        self.provider.add_span_processor(SimpleSpanProcessor(FileSpanExporter(path)))
        self.recorder = tm.OTelRecorder(tracer_provider=self.provider)

    async def call(self, usage: tm.LLMUsage | None = None, script: tuple[str, ...] = (), **config: Any) -> Any:
        """One call on the fake provider."""
        client = FakeLLMClient(latency_ms=1, usage=usage, script=script)
        return await tm.run_llm_call(
            "f", "s", tm.LLMCallConfig("fake", "toy", prompt="x", **config), self.recorder, client=client
        )

    def spans(self) -> list[FileSpan]:
        """The spans in the file."""
        with self.path.open(encoding="utf-8") as lines:
            return list(read_spans(lines))


@pytest.fixture
def recorded(tmp_path: Path) -> Iterator[Recorded]:
    """A recorder that writes an OTLP JSON-lines file, which the decorators use too."""
    found, before = Recorded(tmp_path / "spans.otlp.jsonl"), configured_providers()
    use_providers(Providers(tracer_provider=found.provider))
    yield found
    use_providers(before)
    found.provider.shutdown()


async def test_a_call_shows_tokens_their_subsets_and_its_cost(recorded: Recorded) -> None:
    """A call's line has its tokens, their parts and its cost."""
    usage = tm.LLMUsage(
        1000, 500, 1500, 0.00045, cache_read_tokens=200, cache_write_tokens=100, reasoning_tokens=64, estimated=True
    )
    await recorded.call(usage)
    text = shown(recorded.spans())
    assert "1,000 in (200 cached, 100 written to cache) / 500 out (64 reasoning) (estimated)  $0.00045" in text


async def test_each_retry_shows_its_number_reason_and_wait(recorded: Recorded) -> None:
    """Each retry has a line with its number, its reason and the wait after it."""
    await recorded.call(script=("429 retry-after=0.02", "connection", "ok"))
    lines = shown(recorded.spans()).splitlines()
    assert lines[2].strip(" │├└─") == "retry 1/3 rate_limit (429), waited 0.02 s"
    assert re.fullmatch(r"retry 2/3 connection \(LLMConnectionError\), waited 0\.\d+ s", lines[3].strip(" │├└─"))
    assert "ERROR" not in "".join(lines)


async def test_a_final_failure_shows_its_type_and_reason(recorded: Recorded) -> None:
    """A failed call shows the same `error.type` as elsewhere, and no cost."""
    await recorded.call(script=("401",))
    text = shown(recorded.spans())
    assert "ERROR 401: HTTP 401: scripted" in text
    assert "price unknown" not in text
    assert "$" not in text


async def test_a_cancelled_call_is_marked(recorded: Recorded) -> None:
    """A cancelled call is shown neither as an error nor as an unpriced success."""
    task = asyncio.create_task(recorded.call(script=("timeout",)))
    for _ in range(5):
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    text = shown(recorded.spans())
    assert "cancelled" in text
    assert "ERROR" not in text
    assert "price unknown" not in text


async def test_a_flow_shows_the_sums_of_its_calls(recorded: Recorded) -> None:
    """A flow's line has the sums of its calls, retries, tokens and cost."""
    set_prices([tm.Price(model="toy", input=Decimal(1), output=Decimal(2))])

    @tm.flow(name="digest")
    async def digest() -> None:
        await recorded.call(tm.LLMUsage(1000, 500, 1500))
        await recorded.call(tm.LLMUsage(10, 5, 15), script=("503 retry-after=0.01",))

    await digest()
    first_span = shown(recorded.spans()).splitlines()[1]
    assert "invoke_workflow digest" in first_span
    assert "2 calls, 1 retry, 1,010 in / 505 out, $0.00202 in all" in first_span


# --- the shape of a tree


def test_children_stand_under_their_parents_by_start() -> None:
    """Spans are shown in the order of their start, whatever their order in the file."""
    text = shown([span("late", "root", start_ns=9), span("early", "root", start_ns=5), span("root", start_ns=1)])
    assert [line.strip(" │├└─").split()[0] for line in text.splitlines()[1:]] == ["root", "early", "late"]


@pytest.mark.parametrize(
    ("kind", "limit", "spent", "said"),
    [
        ("cost_usd", 1.0, 0.85, "budget research: 80 % of $1.00 reached, $0.85 spent"),
        ("tokens", 10_000, 8_100, "budget research: 80 % of 10,000 tokens reached, 8,100 spent"),
        ("llm_calls", 10, 8, "budget research: 80 % of 10 calls reached, 8 spent"),
    ],
)
def test_a_budget_is_told_where_it_ran_low(kind: str, limit: float, spent: float, said: str) -> None:
    """A threshold of a budget is shown between the calls before and after it."""
    values: dict[str, Scalar] = {
        semconv.TRACEMIND_BUDGET_NAME: "research",
        semconv.TRACEMIND_BUDGET_KIND: kind,
        semconv.TRACEMIND_BUDGET_LIMIT: limit,
        semconv.TRACEMIND_BUDGET_SPENT: spent,
        semconv.TRACEMIND_BUDGET_FRACTION: 0.8,
    }
    event = FileEvent(name=semconv.BUDGET_EVENT, time_ns=5, attributes=values)
    calls = [span(name, "flow", start_ns=start) for name, start in (("before", 4), ("after", 6))]
    text = shown([span("flow", start_ns=1, events=(event,)), *calls])
    assert text.index("before") < text.index(said) < text.index("after")


def test_ids_stand_where_they_begin() -> None:
    """Ids are shown on the span that set them, and not on those below."""
    ids: dict[str, Scalar] = {semconv.SESSION_ID: "s-17", semconv.USER_ID: "ada"}
    text = shown([span("flow", attributes=ids), span("step", "flow", attributes=ids)])
    assert text.count("session s-17, user ada") == 1


def test_a_generator_that_was_not_read_to_its_end() -> None:
    """A generator that was not read to its end is marked, so that its short run looks like no fault."""
    assert "closed early" in shown([span("g", attributes={semconv.TRACEMIND_STREAM_CLOSED_EARLY: True})])


def test_a_retry_stands_between_the_attempts_around_it() -> None:
    """With HTTP spans below a call, a retry is shown between its attempts."""
    retry = FileEvent(name=semconv.RETRY_EVENT, time_ns=5)
    attempts = [span("first", "call", start_ns=3), span("second", "call", start_ns=7)]
    text = shown([*attempts, replace(call(), start_ns=1, events=(retry,))])
    assert text.index("first") < text.index("retry ? ") < text.index("second")


def test_a_span_whose_parent_is_not_in_the_file_stays_visible() -> None:
    """A span without its parent, which another service's file has, is shown and marked."""
    assert "lonely  1.00 s  (parent not in this file)" in shown([span("lonely", "elsewhere")])


@pytest.mark.parametrize("spans", [[span("a", "a")], [span("a", "b"), span("b", "a")]])
def test_spans_that_are_their_own_ancestors_are_shown_once(spans: list[FileSpan]) -> None:
    """Spans in a cycle are shown once, and do not hang the viewer."""
    lines = shown(spans).splitlines()
    assert len(lines) == 1 + len(spans)
    assert "parents form a circle" in lines[1]


def test_a_span_that_was_written_twice_is_shown_once() -> None:
    """A span that a Collector sent twice is shown once."""
    assert shown([span("a"), span("a")]).count("1.00 s") == 1


def test_traces_stand_in_the_order_of_their_start_each_with_its_service() -> None:
    """Traces are shown in the order of their start, each with its service."""
    later = span("x", trace_id="t2", start_ns=5, service="billing")
    text = shown([later, span("y", trace_id="t1", start_ns=1, service="shop")])
    assert text.index("shop  trace t1") < text.index("billing  trace t2")


def test_a_span_of_another_service_names_it() -> None:
    """A span of another service in the trace shows that service."""
    text = shown([span("a", service="shop"), span("b", "a", service="billing"), span("c", "a", service="shop")])
    assert [line.split("  ")[-1] for line in text.splitlines() if "[billing]" in line] == ["[billing]"]
    assert "[shop]" not in text


def many_calls(count: int) -> list[FileSpan]:
    """A step with this number of equal calls."""
    figures: dict[str, Scalar] = {
        semconv.GEN_AI_REQUEST_MODEL: "m",
        semconv.GEN_AI_OPERATION_NAME: "chat",
        semconv.GEN_AI_USAGE_INPUT_TOKENS: 10,
        semconv.GEN_AI_USAGE_OUTPUT_TOKENS: 2,
        semconv.TRACEMIND_COST_USD: 0.001,
    }
    return [span("step"), *(span(f"c{n}", "step", name="chat m", attributes=figures) for n in range(count))]


def test_many_equal_calls_are_one_line_with_their_sums() -> None:
    """Fifty equal calls under a step are one line with their sums."""
    text = shown(many_calls(50))
    assert "50 x chat m  50.00 s in all, median 1.00 s  500 in / 100 out  $0.05" in text
    assert text.count("chat m") == 1


def test_a_few_equal_calls_are_shown_one_by_one() -> None:
    """Five equal calls have a line each."""
    assert shown(many_calls(5)).count("chat m") == 5


def test_whatever_is_special_keeps_its_line() -> None:
    """A failed, retried or cancelled call, and one of another session, keep their own line."""
    retry = FileEvent(name=semconv.RETRY_EVENT, time_ns=SECOND, attributes={semconv.TRACEMIND_RETRY_REASON: "timeout"})
    spans = many_calls(20)
    spans[3] = replace(spans[3], is_error=True, status_message="boom")
    spans[7] = replace(spans[7], events=(retry,))
    spans[9] = replace(spans[9], attributes={**spans[9].attributes, semconv.TRACEMIND_CANCELLED: True})
    spans[12] = replace(spans[12], attributes={**spans[12].attributes, semconv.SESSION_ID: "s-1"})
    text = shown(spans)
    assert "16 x chat m" in text
    assert text.count("chat m") == 5
    for said in ("ERROR: boom", "timeout", "cancelled", "session s-1"):
        assert said in text


def test_equal_steps_are_folded_with_what_is_below_them() -> None:
    """Thirty equal steps with a call each are two lines; a step with another call has its own."""
    steps = [span(f"s{n}", "flow", name="summarize") for n in range(30)]
    calls = [
        replace(call(), span_id=f"c{n}", parent_id=f"s{n}", name="chat m" if n != 4 else "chat other")
        for n in range(30)
    ]
    text = shown([span("flow"), *steps, *calls])
    assert [line.strip(" ├└─│").split("  ")[0] for line in text.splitlines()[1:]] == [
        *("flow", "29 x summarize", "29 x chat m", "summarize", "chat other")
    ]


def test_unfolded_every_span_has_its_line() -> None:
    """With `view --unfold` every span has a line."""
    console = Console(file=io.StringIO(), width=200)
    for tree in trace_trees(many_calls(50), fold_from=51):
        console.print(tree)
    assert isinstance(console.file, io.StringIO)
    assert console.file.getvalue().count("chat m") == 50


def test_a_deep_trace_loses_nothing_on_a_narrow_terminal() -> None:
    """Every name is readable, though the indents are wider than the terminal."""
    spans = [span(f"s{i}", f"s{i - 1}" if i else "", name=f"name-{i}", start_ns=i + 1) for i in range(100)]
    text = shown(spans, width=40)
    assert all(f"name-{i}" in text for i in range(100))


# --- what a line says


@pytest.mark.parametrize(
    ("usd", "text"),
    [
        (0, "$0"),
        (0.00045, "$0.00045"),
        (3e-06, "$0.000003"),
        (1.23456e-05, "$0.00001235"),
        (0.1, "$0.10"),
        (0.99999, "$1.00"),
        (1.5, "$1.50"),
        (1234.5, "$1,234.50"),
        (2e-12, "$2e-12"),
        (-0.5, "-$0.50"),
    ],
)
def test_a_cost_is_shown_with_the_digits_that_count(usd: float, text: str) -> None:
    """A small cost never looks like zero, and a large one has few digits."""
    assert format_usd(usd) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.00042, "0.42 ms"), (0.1534, "153 ms"), (0.9996, "1.00 s"), (1.534, "1.53 s"), (125, "2 min 5 s")],
)
def test_a_duration_is_shown_in_a_unit_that_fits(seconds: float, text: str) -> None:
    """Durations are shown in milliseconds, seconds or minutes."""
    assert format_duration(seconds) == text


def test_a_successful_call_without_a_cost_says_that_its_price_is_unknown() -> None:
    """A call of unknown price says so: unknown is neither zero nor left out."""
    assert "call  1.00 s  10 in  price unknown" in shown([call(**{semconv.GEN_AI_USAGE_INPUT_TOKENS: 10})])


@pytest.mark.parametrize("operation", ["invoke_agent", "execute_tool"])
def test_spans_that_only_hold_calls_say_nothing_of_a_price(operation: str) -> None:
    """A span that only holds calls, such as an agent's, shows no unknown price."""
    assert "price" not in shown([call(**{semconv.GEN_AI_OPERATION_NAME: operation})])


@pytest.mark.parametrize("name", [semconv.GEN_AI_USAGE_COST, semconv.GEN_AI_USAGE_COST_AMOUNT])
def test_a_cost_under_the_common_names_counts_too(name: str) -> None:
    """Costs of other libraries are shown under today's name and under the coming one."""
    assert "$0.25" in shown([call(**{name: 0.25})])


def test_a_half_that_was_not_reported_is_not_shown_as_zero() -> None:
    """A call that reported only output shows only output."""
    text = shown([call(**{semconv.GEN_AI_USAGE_OUTPUT_TOKENS: 7})])
    assert "7 out" in text
    assert " in" not in text


def test_figures_that_are_no_figures_are_left_out() -> None:
    """NaN, infinity, strings and huge numbers in a foreign file leave out one figure, not the view."""
    odd: dict[str, Scalar] = {
        semconv.TRACEMIND_COST_USD: float("nan"),
        semconv.GEN_AI_USAGE_INPUT_TOKENS: "many",
        semconv.GEN_AI_USAGE_OUTPUT_TOKENS: 10**400,
    }
    assert "call  1.00 s  price unknown" in shown([call(**odd)])


def test_a_status_that_only_repeats_the_error_type_is_shown_once() -> None:
    """The error of a decorated function reads `ERROR ValueError` once."""
    text = shown(
        [span("step", is_error=True, status_message="ValueError", attributes={semconv.ERROR_TYPE: "ValueError"})]
    )
    assert text.rstrip().endswith("ERROR ValueError")


def test_nothing_in_a_file_steers_the_terminal() -> None:
    """Escape sequences, control characters and markup in a file are shown as text or dropped."""
    name = "\x1b[31mred\x1b[0m \x9b2J\x07[bold]b[/bold] :smile: \u202eltr \ud800 two\nlines"
    text = shown([span("a", name=name, service="[link=x]\x1b]0;t\x07", is_error=True, status_message=name)])
    assert not any(character in text for character in "\x1b\x9b\x07\u202e\ud800")
    assert "[31mred[0m 2J[bold]b[/bold] :smile: ltr  two lines" in text
    assert "[link=x]]0;t" in text
    assert len(text.splitlines()) == 2


def test_a_huge_value_is_shown_in_part() -> None:
    """A very long status is cut."""
    assert len(shown([span("a", is_error=True, status_message="x" * 100_000)])) < 2_000


# --- reading


def test_numbers_may_be_text_or_numbers() -> None:
    """64-bit integers and statuses are read in both of their JSON forms."""
    for start, end, count, code in (("1000000000", "3000000000", "7", 2), (10**9, 3 * 10**9, 7, "STATUS_CODE_ERROR")):
        attributes = [{"key": semconv.GEN_AI_USAGE_INPUT_TOKENS, "value": {"intValue": count}}]
        line = otlp_line(
            {
                "startTimeUnixNano": start,
                "endTimeUnixNano": end,
                "attributes": attributes,
                "status": {"code": code, "message": "no"},
            }
        )
        assert "span without name  2.00 s  7 in  ERROR: no" in shown(list(read_spans([line])))


def test_lines_without_spans_are_passed_over() -> None:
    """Lines of metrics and logs, as a Collector's file exporter writes them, are ignored."""
    lines = ['{"resourceMetrics":[{}]}', "", '{"resourceLogs":[]}', otlp_line({"name": "a"}, service="s"), "42", "[]"]
    assert [(found.name, found.service) for found in read_spans(lines)] == [("a", "s")]


def test_a_parent_of_zeros_is_no_parent() -> None:
    """A span with a parent id of zeros is a root."""
    [found] = read_spans([otlp_line({"spanId": "AB", "parentSpanId": "0" * 16})])
    assert (found.span_id, found.parent_id) == ("ab", "")


def test_a_line_that_is_not_json_is_named() -> None:
    """The error for a damaged file names the line."""
    with pytest.raises(OTLPFileError, match=r"line 2 is not JSON: Expecting value at column 1") as raised:
        list(read_spans(["", "oops", "and again"]))
    assert raised.value.line_number == 2


def test_a_torn_line_in_the_middle_costs_that_line_only() -> None:
    """A line that a crash cut short costs only itself, though a program wrote on after it."""
    torn: list[int] = []
    line = otlp_line({"name": "a"})
    assert len(list(read_spans([line, line[:30], line], on_torn=torn.append))) == 2
    assert torn == [2]


def test_a_torn_last_line_is_reported_and_the_rest_is_read() -> None:
    """A torn last line is reported, and all other lines are read."""
    torn: list[int] = []
    line = otlp_line({"name": "a"})
    assert [found.name for found in read_spans([line, line[:30]], on_torn=torn.append)] == ["a"]
    assert torn == [2]


def test_one_line_is_held_at_a_time() -> None:
    """A file larger than the memory can be read."""
    lines = iter([otlp_line({"name": "a"}), otlp_line({"name": "b"})])
    assert next(read_spans(lines)).name == "a"
    assert len(list(lines)) == 1


_KEYS = st.sampled_from(
    [
        *("resourceSpans", "resource", "scopeSpans", "spans", "traceId", "spanId", "parentSpanId", "name"),
        *("startTimeUnixNano", "endTimeUnixNano", "status", "code", "message", "attributes", "events", "timeUnixNano"),
        *("key", "value", "stringValue", "intValue", "doubleValue", "boolValue"),
    ]
)
_NAMES = sorted(
    value for name, value in vars(semconv).items() if name.startswith(("TRACEMIND_", "GEN_AI_", "ERROR_", "HTTP_"))
)
_LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(_NAMES)
_ANYTHING = st.recursive(
    _LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_KEYS, inner, max_size=5), max_leaves=20
)
_SPANS = st.lists(st.dictionaries(_KEYS, _ANYTHING, max_size=8), max_size=4)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(spans=_SPANS)
def test_whatever_is_json_can_be_viewed(spans: list[dict[str, Any]]) -> None:
    """No JSON document ends the viewer with a traceback, and every span is shown."""
    found = list(read_spans([otlp_line(*spans)]))
    assert len(found) == len(spans)
    shown(found).encode()


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    values=st.dictionaries(st.sampled_from(_NAMES), st.text() | st.booleans() | st.integers() | st.floats(), max_size=6)
)
def test_whatever_an_attribute_holds_can_be_shown(values: dict[str, Scalar]) -> None:
    """A value of any kind in an attribute is shown or left out, on one line for the span."""
    retry = FileEvent(name=semconv.RETRY_EVENT, attributes=values)
    lines = shown([span("a", attributes=values, events=(retry,))], width=10_000).splitlines()
    assert len(lines) == 3
