"""`doctor` looks at spans: what they show of prices, flows, samplers and second instrumentations."""

from __future__ import annotations

import random
import time
from typing import Any

import pytest

from tracemind_otel.cli.doctor.evidence import Evidence, SpanSource
from tracemind_otel.cli.doctor.examination import findings_of
from tracemind_otel.cli.doctor.finding import Finding
from tracemind_otel.cli.otlp_file import FileSpan

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


def span(number: int, parent: int = 0, *, trace: str = TRACE, start_ns: int = 10**18, **attributes: Any) -> FileSpan:
    """A span; attributes by their names, with `__` for dots."""
    return FileSpan(
        trace_id=trace,
        span_id=f"{number:016x}",
        parent_id=f"{parent:016x}" if parent else "",
        name=f"span {number}",
        start_ns=start_ns,
        end_ns=start_ns + 10**9,
        attributes={name.replace("__", "."): value for name, value in attributes.items() if value is not None},
    )


def flow(number: int, parent: int = 0, *, calls: int | None = None, **attributes: Any) -> FileSpan:
    """A flow, with the number of model calls that it counted."""
    return span(
        number,
        parent,
        gen_ai__operation__name="invoke_workflow",
        gen_ai__workflow__name="answer",
        tracemind__flow__llm_calls=calls,
        **attributes,
    )


def call(
    number: int, parent: int = 0, *, tokens: int | None = 1000, cost: float | None = 0.001, **more: Any
) -> FileSpan:
    """A model call of ours, or of another library with `tracemind__step__type=None`."""
    attributes: dict[str, Any] = {
        "gen_ai__operation__name": "chat",
        "gen_ai__provider__name": "openai",
        "gen_ai__request__model": "gpt-4o-mini",
        "gen_ai__usage__input_tokens": tokens,
        "gen_ai__usage__output_tokens": tokens,
        "tracemind__step__type": "ai.llm_call",
        "tracemind__flow__id": "f-1",
        "tracemind__cost_usd": cost,
    }
    return span(number, parent, **(attributes | more))


def found(*spans: FileSpan) -> list[Finding]:
    """What is found in a file of these spans; each finding has a fix."""
    findings = findings_of(Evidence(sources=(SpanSource(name="spans.jsonl", spans=spans),)))
    assert all(finding.fix for finding in findings)
    return findings


def checks(*spans: FileSpan) -> list[str]:
    """The names of the checks that found something."""
    return [finding.check for finding in found(*spans)]


def test_a_priced_call_in_a_flow_is_fine() -> None:
    """Also one that failed, one that was cancelled and one that was free."""
    failed = call(4, 1, tokens=None, cost=None, error__type="timeout")
    cancelled = call(5, 1, tokens=None, cost=None, tracemind__cancelled=True)
    free = call(6, 1, cost=0.0)
    assert found(flow(1, calls=5), call(2, 1), call(3, 1), failed, cancelled, free) == []


def test_a_file_without_spans_is_found() -> None:
    """An empty file is what a program leaves that recorded nothing."""
    assert checks() == ["no-spans"]


# --- Prices


def test_unpriced_models_are_counted_by_name() -> None:
    """The most frequent first, with their providers; an error, since sums are too low."""
    other: dict[str, Any] = {"cost": None, "gen_ai__request__model": "own-1"}
    [finding] = found(flow(1), call(2, 1, cost=None), call(3, 1, **other), call(4, 1, **other))
    assert (finding.check, finding.severity) == ("unpriced-model", "error")
    assert "openai/own-1 (2), openai/gpt-4o-mini (1)" in finding.what


def test_the_model_that_answered_is_named() -> None:
    """A price is looked for by the model of the reply first, so that is the name to add a price for."""
    [finding] = found(flow(1), call(2, 1, cost=None, gen_ai__response__model="gpt-4o-mini-2024"))
    assert "openai/gpt-4o-mini-2024 (1)" in finding.what


def test_an_unknown_host_is_told_from_an_unknown_model() -> None:
    """The model has a price and its host is nobody's: the fix names the host, because no price is missing."""
    at_gateway: dict[str, Any] = {
        "cost": None,
        "tracemind__step__type": "sdk.llm_call",
        "server__address": "gateway.acme.example",
        "server__port": 8000,
    }
    known = call(2, 1, **at_gateway)
    unknown = call(3, 1, gen_ai__request__model="own-1", **at_gateway)
    by_host, by_model = found(flow(1), known, unknown)
    assert (by_host.check, by_model.check) == ("unpriced-model", "unpriced-model")
    assert by_host.what.endswith("whose prices hold there: openai/gpt-4o-mini at gateway.acme.example:8000 (1)")
    assert "configure(hosts={'gateway.acme.example:8000': 'openai'})" in by_host.fix
    assert by_model.what.endswith("calls have no cost: openai/own-1 (1)")


def test_a_reply_without_tokens_needs_no_price() -> None:
    """No price helps a reply that reports no tokens: it is a warning of its own."""
    assert checks(flow(1), call(2, 1, tokens=None, cost=None)) == ["no-usage"]


def test_calls_of_other_libraries_need_no_cost() -> None:
    """The spans of another instrumentation have no cost, and our prices would not give them one."""
    assert found(call(1, cost=None, tracemind__step__type=None)) == []


def own_price(per_thousand_tokens_usd: float, **more: Any) -> FileSpan:
    """A call of 1,000 tokens each way at an own price."""
    halves = dict.fromkeys(("tracemind__cost__input_usd", "tracemind__cost__output_usd"), per_thousand_tokens_usd)
    attributes: dict[str, Any] = {"tracemind__cost__source": "override", **halves, **more}
    return call(2, 1, cost=2 * per_thousand_tokens_usd, **attributes)


@pytest.mark.parametrize(
    ("usd", "is_found"),
    [(0.00015, False), (0.00015 / 1000, True), (0.00015 / 10, False), (0.0, False)],
    ids=["the table's", "per thousand", "a discount", "free"],
)
def test_prices_per_thousand_show_in_the_cost(usd: float, is_found: bool) -> None:
    """A cost under a hundredth of the table's price comes from prices per thousand tokens."""
    assert checks(flow(1), own_price(usd)) == (["prices-per-thousand"] if is_found else [])


def test_a_small_cost_that_the_server_names_is_no_price_of_yours() -> None:
    """Only own prices can be in a wrong unit; a gateway may be that cheap."""
    assert checks(flow(1), own_price(1e-7, tracemind__cost__source="provider")) == []


def test_estimated_tokens_are_said() -> None:
    """The cost of a stream that was cut off rests on an estimate."""
    assert checks(flow(1), call(2, 1, tracemind__usage__estimated=True)) == ["estimated-cost"]


# --- Flows


def test_a_call_in_no_flow_is_found() -> None:
    """A root, or below a span that is no flow; not where the parent is in another file."""
    assert checks(call(1)) == ["no-flow"]
    assert checks(span(1), call(2, 1)) == ["no-flow"]
    assert checks(call(1, parent=99)) == []


def test_an_agent_is_a_flow_too() -> None:
    """An agent has sums, as a flow has."""
    assert checks(span(1, gen_ai__operation__name="invoke_agent"), call(2, 1)) == []


def test_a_flow_that_lacks_spans_is_found() -> None:
    """The flow counted three calls; the spans of two are there, one of them below an inner flow."""
    [finding] = found(flow(1, calls=3), call(2, 1), flow(3, 1, calls=1), call(4, 3))
    assert finding.check == "missing-spans"
    assert "counted 3 and has 2" in finding.what


def test_spans_in_a_circle_come_to_an_end() -> None:
    """A file may hold anything; a span that is its own ancestor has no flow around it."""
    assert checks(call(1, 2), span(2, 1)) == []


# --- Second instrumentations, samplers, clocks


def test_a_call_with_two_spans_is_found() -> None:
    """A span of another library inside ours for the same call, or around it."""
    inner = call(3, 2, tracemind__step__type=None)
    assert checks(flow(1, calls=1), call(2, 1), inner) == ["doubled-spans"]
    outer = call(2, 1, tracemind__step__type=None)
    assert checks(flow(1, calls=1), outer, call(3, 2)) == ["doubled-spans"]


def traces(count: int, share: float) -> list[FileSpan]:
    """Flows in traces with random ids, of which a sampler by trace id has kept a part."""
    chance = random.Random(7)
    upper = [chance.getrandbits(64) for _ in range(count)]
    lower = [int(chance.random() * share * 2**64) for _ in range(count)]
    return [flow(1, trace=f"{high:016x}{low:016x}") for high, low in zip(upper, lower, strict=True)]


@pytest.mark.parametrize(("count", "share"), [(10, 0.1), (30, 0.5), (1000, 0.9)])
def test_a_sampler_shows_in_the_ids(count: int, share: float) -> None:
    """A ratio sampler keeps the traces whose ids are small, so that no id is large: the share can be read off."""
    [finding] = found(*traces(count, share))
    assert finding.check == "sampled"
    assert any(f"about {percent}%" in finding.what for percent in range(int(share * 85), int(share * 100) + 1))


@pytest.mark.parametrize(("count", "share"), [(1, 0.01), (5, 0.5), (1000, 1.0)])
def test_chance_is_no_sampler(count: int, share: float) -> None:
    """A few traces prove nothing, and many that reach over the whole range are all there."""
    assert found(*traces(count, share)) == []


@pytest.mark.parametrize("prefix", ["0" * 16, "67ab3c1f" + "0" * 8])
def test_ids_that_are_not_random_prove_nothing(prefix: str) -> None:
    """Numbered ids of a test, and ids that begin with the time, as X-Ray's do."""
    assert found(*[flow(1, trace=f"{prefix}{number:016x}") for number in range(100)]) == []


def test_spans_from_the_future_are_found() -> None:
    """A machine whose clock is ahead by an hour."""
    assert checks(flow(1, start_ns=time.time_ns() + 3600 * 10**9)) == ["clock"]


def test_a_finding_is_made_once() -> None:
    """A price in a wrong unit that shows in two files is one price to correct."""
    sources = [SpanSource(name=name, spans=(flow(1), own_price(1e-7))) for name in ("a", "b")]
    assert len(findings_of(Evidence(sources=tuple(sources)))) == 1
