"""`with tm.flow(...) as run` and `tm.current_flow()`: where the money went, during a flow and after it."""

from __future__ import annotations

import asyncio
import json
import textwrap
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import tracemind_otel as tm
from tests.programs import run
from tests.support import Captured

MODELS = [
    {"provider": "fake", "model": "cheap", "input": 500, "output": 1500},
    {"provider": "fake", "model": "dear", "input": 5000, "output": 15000},
]
CHEAP_USD = 4 * 500e-6 + 4 * 1500e-6
DEAR_USD = 10 * CHEAP_USD
PROMPT = "four words of it"


@pytest.fixture(autouse=True)
def priced() -> None:
    """Two models of the fake provider have prices."""
    tm.set_prices(MODELS)


@pytest.fixture
def configured(capture: Captured) -> Generator[Captured]:
    """`configure()` for the providers of the test."""
    with tm.configure(tracer_provider=capture.tracer_provider, meter_provider=capture.meter_provider):
        yield capture


@tm.step
async def ask(model: str = "cheap") -> None:
    await tm.llm_call(f"fake/{model}", PROMPT)


async def test_a_block_knows_its_sums(configured: Captured) -> None:
    """The figures grow while the block runs, stay afterwards, and are those of the span."""
    with tm.flow("import") as run:
        assert (run.cost_usd, run.llm_calls, run.tokens) == (None, 0, 0)
        await ask()
        assert run.cost_usd == pytest.approx(CHEAP_USD)
        await ask("dear")
    assert run.cost_usd == pytest.approx(CHEAP_USD + DEAR_USD)
    assert (run.input_tokens, run.output_tokens, run.tokens, run.llm_calls, run.retries) == (8, 8, 16, 2, 0)
    recorded = configured.span("invoke_workflow import").attributes or {}
    assert recorded["tracemind.flow.cost_usd"] == run.cost_usd


async def test_a_decorated_function_finds_its_flow(configured: Captured) -> None:
    """`current_flow()` is the run of the innermost flow, in tasks and in threads with `carry_context` too."""

    @tm.flow
    async def outer() -> tm.FlowRun | None:
        await asyncio.gather(ask(), ask(), inner())
        return tm.current_flow()

    @tm.flow("inner")
    async def inner() -> None:
        await ask("dear")
        run = tm.current_flow()
        assert run is not None
        assert (run.name, run.llm_calls) == ("inner", 1)
        with ThreadPoolExecutor() as pool:
            assert pool.submit(tm.carry_context(tm.current_flow)).result() is run
            assert pool.submit(tm.current_flow).result() is None

    assert tm.current_flow() is None
    run = await outer()
    assert run is not None
    assert (run.llm_calls, run.own_totals().llm_calls) == (3, 2)
    assert run.cost_usd == pytest.approx(2 * CHEAP_USD + DEAR_USD)


async def test_sums_by_model_and_by_step(configured: Captured) -> None:
    """Each name has the same figures, the most expensive first, with the steps of nested flows."""
    with tm.flow("whole") as run:
        await ask()
        await tm.llm_call("fake/cheap", PROMPT)
        with tm.flow("part"), tm.step("review"):
            await tm.llm_call("fake/dear", PROMPT)
            await tm.llm_call("no-such-model", PROMPT, client=Unpriced())
    assert list(run.by_model) == ["fake/dear", "fake/cheap", "openai_compatible/no-such-model"]
    assert list(run.by_step) == ["review", "ask", "cheap"]
    review = run.by_step["review"]
    assert review.cost_usd == pytest.approx(DEAR_USD)
    assert (review.llm_calls, review.unpriced_calls, review.tokens, review.retries) == (2, 1, 16, 0)
    assert run.by_model["openai_compatible/no-such-model"].cost_usd is None
    assert sum(part.cost_usd or 0.0 for part in run.by_model.values()) == pytest.approx(run.cost_usd)
    assert (run.unpriced_calls, run.llm_calls) == (1, 4)


async def test_retries_and_failures_count(configured: Captured) -> None:
    """A failed call is a call without cost, and its repeated attempts are retries."""
    client = tm.LLMClientFactory.make("fake")
    failing = [tm.LLMServerError("no", status_code=503, retry_after_s=0.001)] * 2

    class Failing(tm.AsyncLLMClient):
        provider_name = "fake"

        async def complete(self, req: tm.LLMRequest) -> tm.LLMResponse:
            if failing:
                raise failing.pop()
            return await client.complete(req)

    with tm.flow("work") as run:
        await tm.llm_call("cheap", PROMPT, client=Failing())
        with pytest.raises(tm.LLMNotFoundError):
            await tm.llm_call("cheap", PROMPT, client=NotFound())
    assert (run.llm_calls, run.retries, run.by_step["cheap"].retries) == (2, 2, 2)
    assert run.cost_usd == pytest.approx(CHEAP_USD)


class Unpriced(tm.AsyncLLMClient):
    provider_name = "openai_compatible"

    async def complete(self, req: tm.LLMRequest) -> tm.LLMResponse:
        return tm.LLMResponse("hi", tm.LLMUsage(4, 4, 8))


class NotFound(tm.AsyncLLMClient):
    provider_name = "fake"

    async def complete(self, req: tm.LLMRequest) -> tm.LLMResponse:
        raise tm.LLMNotFoundError("no such model", status_code=404)


def test_steps_named_after_data_do_not_fill_the_memory() -> None:
    """A thousand steps have their own sums, further steps share one, and no figure is lost."""
    run = tm.FlowRun("many")
    for number in range(1_010):
        run.add_call(None, retries=0, step=f"document {number}", model="fake/cheap")
    assert len(run.by_step) == 1_001
    assert run.by_step["_other"].llm_calls == 10
    assert sum(part.llm_calls for part in run.by_step.values()) == 1_010


def test_the_trace_can_be_opened(configured: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    """The trace id is that of the spans, and the address leads to the local Jaeger or to the variable's server."""
    with tm.flow("work") as run:
        pass
    context = configured.span("invoke_workflow work").context
    assert context is not None
    assert run.trace_id == f"{context.trace_id:032x}"
    assert run.url == f"http://localhost:16686/trace/{run.trace_id}"
    monkeypatch.setenv("TRACEMIND_TRACE_URL", " https://traces.example/{trace_id}?env=x ")
    assert run.url == f"https://traces.example/{run.trace_id}?env=x"


def test_an_address_without_a_place_for_the_id(
    configured: Captured, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A trace address without a place for the id is logged once, and the address still leads to a trace."""
    monkeypatch.setenv("TRACEMIND_TRACE_URL", "https://traces.example/{id}")
    with tm.flow("work") as run:
        assert run.url == run.url == f"http://localhost:16686/trace/{run.trace_id}"
    assert caplog.text.count("TRACEMIND_TRACE_URL has no {trace_id}") == 1


@pytest.mark.slow
def test_a_flow_without_telemetry(tmp_path: Path) -> None:
    """Without `configure()` a flow has its sums and no trace, and an INFO line says once what to add."""
    program = """\
        import asyncio, json, logging
        logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
        import tracemind_otel as tm

        tm.set_prices([{"provider": "fake", "model": "cheap", "input": 500, "output": 1500}])
        with tm.flow("work") as run:
            tm.llm_call_sync("fake/cheap", "four words of it")
        with tm.flow("again"):
            pass
        print(json.dumps([run.cost_usd, run.trace_id, run.url]))
    """
    done = run("-c", textwrap.dedent(program), directory=tmp_path)
    assert json.loads(done.stdout) == [pytest.approx(CHEAP_USD), None, None]
    assert done.stderr.count("INFO Flows and model calls are not recorded yet. Add tracemind_otel.configure()") == 1


@pytest.mark.slow
def test_a_call_without_configure_says_so(tmp_path: Path) -> None:
    """A call outside any flow logs once what to add, and nothing where it has a user's own recorder."""
    program = """\
        import logging
        logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
        import tracemind_otel as tm

        tm.llm_call_sync("fake/toy-1", "hi", recorder=tm.InMemoryRecorder())
        print("own recorder", flush=True)
        tm.llm_call_sync("fake/toy-1", "hi")
        tm.llm_call_sync("fake/toy-1", "hi")
    """
    done = run("-c", textwrap.dedent(program), directory=tmp_path)
    assert done.stderr.count("Add tracemind_otel.configure() where the program starts") == 1


@pytest.mark.slow
@pytest.mark.parametrize("disabled", ["true", "false"])
def test_nothing_is_said_after_configure(tmp_path: Path, disabled: str) -> None:
    """After `configure()` nothing is logged, not even where OTEL_SDK_DISABLED switches telemetry off."""
    program = """\
        import logging
        logging.basicConfig(level=logging.INFO)
        import tracemind_otel as tm

        with tm.configure(file="trace.jsonl"), tm.flow("work"):
            tm.llm_call_sync("fake/toy-1", "hi")
    """
    environment = {"OTEL_SDK_DISABLED": disabled}
    done = run("-c", textwrap.dedent(program), directory=tmp_path, environment=environment)
    assert done.returncode == 0
    assert "not recorded" not in done.stderr


def test_a_name_may_be_given_without_a_keyword(configured: Captured) -> None:
    """`flow`, `step`, `tool` and `agent` take a name first, and reject two names."""
    decorators: tuple[Any, ...] = (tm.flow, tm.step, tm.tool, tm.agent)
    for decorate in decorators:
        with decorate("work"):
            pass

        decorate("named")(lambda: None)()
        with pytest.raises(TypeError, match="give one name"):
            decorate("one", name="two")
    assert [span.name for span in configured.spans] == [
        *("invoke_workflow work", "invoke_workflow named", "work", "named"),
        *("execute_tool work", "execute_tool named", "invoke_agent work", "invoke_agent named"),
    ]


def test_the_repr_tells_the_sums(configured: Captured) -> None:
    """The repr of a run has its cost."""
    with tm.flow("work") as run:
        assert repr(run) == "FlowRun('work', llm_calls=0, tokens=0, cost=unknown)"
        tm.llm_call_sync("fake/cheap", PROMPT)
    assert repr(run) == f"FlowRun('work', llm_calls=1, tokens=8, cost=${CHEAP_USD:.6g})"
