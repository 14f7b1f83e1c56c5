"""A value that an exporter cannot encode, or a backend cannot store, is lost alone, whoever made the provider."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

import tracemind_otel as tm
from tests.servers.otlp_sink import Sink
from tests.servers.otlp_sink import sink as sink
from tests.support import Captured

HOSTILE = {"surrogate": "a\ud800b", "nul": "a\0b", "long": "x" * 70_000, "emoji": "\U0001f600" * 20_000}


@pytest.mark.parametrize("kind", HOSTILE)
async def test_a_hostile_value_costs_no_span_of_a_joined_provider(sink: Sink, kind: str) -> None:
    """All 500 other spans arrive, though a model, a flow's name and an attribute hold the value."""
    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(f"{sink.url}/v1/traces")))
    telemetry = tm.configure(tracer_provider=provider)
    hostile = HOSTILE[kind]
    cfg = tm.LLMCallConfig("fake", f"m-{hostile}", prompt="Hello")
    with tm.flow(name=f"f-{hostile}", attributes={"team": hostile, "teams": [hostile]}):
        await tm.run_llm_call("", f"s-{hostile}", cfg, telemetry.recorder)
    for _ in range(500):
        with tm.step(name="other"):
            pass
    provider.shutdown()
    telemetry.shutdown()

    assert len(sink.spans()) == 502
    names = {span.name for span in sink.spans()}
    assert all(len(name.encode()) <= 65_536 and "\0" not in name for name in names)


FAULTY: Mapping[str, object] = {
    "an object": object(),
    "a dict": {"a": 1},
    "bytes": b"x",
    "a mixed list": ["a", 1],
    "a list of lists": [["a"]],
    "nothing": None,
    "a coroutine function": test_a_hostile_value_costs_no_span_of_a_joined_provider,
}


@pytest.mark.parametrize("kind", FAULTY)
@pytest.mark.parametrize("decorator", [tm.flow, tm.agent, tm.tool, tm.step])
def test_a_value_that_no_attribute_has_is_rejected_at_decoration(decorator: Callable[..., Any], kind: str) -> None:
    """A ConfigError at decoration names the attribute and the allowed types."""
    with pytest.raises(tm.ConfigError, match=r"attributes\['team'\] is .*(must be|pass a plain function)"):
        decorator(name="work", attributes={"team": FAULTY[kind]})


async def test_attributes_may_be_lists_and_functions_of_the_arguments(capture: Captured) -> None:
    """Lists and functions of the arguments are on the flow's span; on metrics, a list is joined with commas."""

    def team_and_size(team: str, size: int) -> str:
        return f"{team}-{size}"

    @tm.flow(attributes={"team": team_and_size, "areas": ["eu", "us"]})
    async def work(team: str, size: int = 3) -> None:
        await tm.run_llm_call("", "s", tm.LLMCallConfig("fake", "toy-1", prompt="Hello"), recorder)

    recorder = tm.OTelRecorder(
        tracer_provider=capture.tracer_provider,
        meter_provider=capture.meter_provider,
        metric_attributes=["team", "areas"],
    )
    await work("red")

    attributes = capture.span("invoke_workflow work").attributes or {}
    assert (attributes["team"], attributes["areas"]) == ("red-3", ("eu", "us"))
    labels = capture.points("tracemind.llm.retries")[0].attributes or {}
    assert (labels["team"], labels["areas"]) == ("red-3", "eu,us")


@pytest.mark.parametrize("answer", [ZeroDivisionError("prompt"), object(), {"a": 1}])
def test_a_function_that_gives_no_attribute_costs_that_attribute(
    capture: Captured, caplog: pytest.LogCaptureFixture, answer: object
) -> None:
    """The call succeeds without the attribute; the log says so once, and does not show the value."""

    def team() -> object:
        if isinstance(answer, Exception):
            raise answer
        return answer

    work = tm.flow(name=f"odd {answer!r:.10}", attributes={"team": team, "good": "yes"})(lambda: 7)
    with caplog.at_level(logging.WARNING):
        assert [work(), work()] == [7, 7]

    assert [dict(span.attributes or {}).get("good") for span in capture.spans] == ["yes", "yes"]
    assert all("team" not in (span.attributes or {}) for span in capture.spans)
    assert len([record for record in caplog.records if "team" in record.getMessage()]) == 1
    assert "prompt" not in caplog.text


def test_what_a_cache_offers_stays_reachable(capture: Captured) -> None:
    """A decorated cache keeps `cache_info`, `cache_clear`, its name, docstring and signature."""

    @tm.tool
    @functools.lru_cache(maxsize=8)
    def double(number: int) -> int:
        """Twice the number."""
        return 2 * number

    assert [double(2), double(2)] == [4, 4]
    cached: Any = double
    assert cached.cache_info().hits == 1
    cached.cache_clear()
    assert cached.cache_info().currsize == 0
    assert (double.__name__, double.__doc__) == ("double", "Twice the number.")
    assert [span.name for span in capture.spans] == ["execute_tool double"] * 2


def test_a_cached_method_is_a_method_still(capture: Captured) -> None:
    """A decorated cached method gets its instance, and its cache is reached through class and instance."""

    class Service:
        @tm.tool
        @functools.cache  # noqa: B019  the service lives as long as the test
        def own(self) -> Service:
            return self

    service = Service()
    bound: Any = service.own
    assert service.own() is service
    assert bound.cache_info().misses == 1


def test_an_attribute_of_a_proxy_is_asked_for_when_it_is_used(capture: Captured) -> None:
    """Decorating a lazy object reads only the attributes that every function has."""
    asked: list[str] = []

    class Lazy:
        def __call__(self) -> int:
            return 1

        @property
        def delay(self) -> Callable[[], str]:
            asked.append("delay")
            return lambda: "sent"

    work: Any = tm.tool(name="lazy")(Lazy())
    assert (work(), asked) == (1, [])
    assert (work.delay(), asked) == ("sent", ["delay"])


def test_redact_sees_captured_content_before_it_is_recorded(capture: Captured) -> None:
    """The result of `redact` is recorded; with `None` or an exception nothing is, and secrets are removed before."""
    seen: list[tuple[dict[str, Any], str]] = []

    def redact(part: dict[str, Any], role: str) -> dict[str, Any] | None:
        seen.append((part, role))
        if role == "tool":
            return None
        return {**part, "arguments": {"word": "***"}}

    telemetry = tm.configure(
        tracer_provider=capture.tracer_provider, meter_provider=capture.meter_provider, redact=redact
    )

    @tm.tool(capture_arguments=True, capture_result=True)
    def look_up(word: str, api_key: str) -> str:
        return word

    look_up("Ada", "k-1")
    telemetry.shutdown()

    attributes = capture.span("execute_tool look_up").attributes or {}
    assert attributes["gen_ai.tool.call.arguments"] == '{"word": "***"}'
    assert "gen_ai.tool.call.result" not in attributes
    part, role = seen[0]
    assert (part["type"], part["name"], role) == ("tool_call", "look_up", "assistant")
    assert part["arguments"] == {"word": "Ada", "api_key": "[redacted]"}
    assert seen[1] == ({"type": "tool_call_response", "response": "Ada"}, "tool")


def test_a_redact_that_fails_lets_nothing_out(capture: Captured, caplog: pytest.LogCaptureFixture) -> None:
    """When `redact` raises, the call succeeds, and neither span nor log has the content."""

    def redact(part: dict[str, Any], role: str) -> dict[str, Any]:
        raise ValueError(str(part))

    telemetry = tm.configure(
        tracer_provider=capture.tracer_provider, meter_provider=capture.meter_provider, redact=redact
    )

    @tm.tool(capture_arguments=True)
    def work(word: str) -> str:
        return word

    assert work("Ada") == "Ada"
    telemetry.shutdown()

    assert "gen_ai.tool.call.arguments" not in (capture.span("execute_tool work").attributes or {})
    assert "Ada" not in caplog.text
    with pytest.raises(tm.ConfigError, match="redact is str; it must be a function"):
        tm.configure(redact="all")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
