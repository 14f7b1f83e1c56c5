"""Our model call as a step of the real runtime: in recipes, in flows, and by its registry."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

import tracemind_otel as tm
from tests.servers.fixture import OpenAIServer
from tests.servers.fixture import openai_server as openai_server
from tests.servers.openai_server import Action
from tests.servers.trace_mind import StepsFlow
from tests.servers.trace_mind import trace_mind as trace_mind
from tests.support import Captured, attributes, events
from tracemind_otel.integrations.trace_mind import (
    TraceMindInstrumentor,
    instrument_flow,
    llm_call_step,
    register_llm_call,
)

pytestmark = [pytest.mark.tools, pytest.mark.slow]

RECIPE = """
flow:
  id: answer
  version: "1"
  entry: summarize
  steps:
    - id: summarize
      kind: task
      hooks: {run: tracemind_otel.integrations.trace_mind.llm_call_step}
      config: {provider: fake, model: fake-1, template: "Summarize {{ topic }}"}
    - id: shorten
      kind: task
      hooks: {run: tracemind_otel.integrations.trace_mind.llm_call_step}
      config: {provider: fake, model: fake-1, template: "Shorten, about {{ topic }}: {{ text }}", max_tokens: 50}
    - id: end
      kind: finish
  edges:
    - {from: summarize, to: shorten}
    - {from: shorten, to: end}
"""


class SpecFlow:
    """A flow of a specification."""

    def __init__(self, spec: Any) -> None:
        self.name = spec.name
        self._spec = spec

    def spec(self) -> Any:
        return self._spec


def model_flow(trace_mind: Any, **configs: Mapping[str, Any]) -> Any:
    """A flow of model calls with these configurations."""
    spec = trace_mind.FlowSpec(name="calls")
    for (step, config), following in zip(configs.items(), [*list(configs)[1:], None], strict=True):
        next_steps = () if following is None else (following,)
        spec.add_step(trace_mind.StepDef(step, trace_mind.Operation.TASK, next_steps, config, run=llm_call_step))
    return instrument_flow(SpecFlow(spec))


async def run(trace_mind: Any, flow: Any, **inputs: Any) -> tuple[dict[str, Any], list[Any]]:
    """The final state of a run, and the records that the runtime keeps of it."""
    records = list[Any]()
    engine = trace_mind.FlowRuntime({flow.name: flow}, run_listeners=[records.append], max_concurrency=1)
    result = await asyncio.wait_for(engine.run(flow.name, inputs=inputs), 20)
    await engine.aclose()
    assert result["status"] == "ok", result
    state: dict[str, Any] = result["output"]["state"]
    return state, records


@pytest.mark.parametrize("form", ["yaml", "json"])
def test_a_recipe_file_runs_with_our_client(trace_mind: Any, capture: Captured, tmp_path: Path, form: str) -> None:
    """The runtime's own `run_recipe` runs a file whose steps are ours, each with what the step before answered."""
    import yaml

    path = tmp_path / f"recipe.{form}"
    path.write_text(RECIPE if form == "yaml" else json.dumps(yaml.safe_load(RECIPE)))
    TraceMindInstrumentor().instrument()
    result = trace_mind.run_recipe(path, {"topic": "tides"})
    TraceMindInstrumentor().uninstrument()
    state = result["output"]["state"]
    assert (result["status"], state["status"], state["topic"]) == ("ok", "ok", "tides")
    assert "Shorten, about tides: [fake:fake-1]"[::-1] in state["text"]
    calls = [span for span in capture.spans if span.name == "chat fake-1"]
    assert [attributes(call)["tracemind.step.id"] for call in calls] == ["summarize", "shorten"]
    assert {attributes(call)["tracemind.flow.id"] for call in calls} == {result["run_id"]}
    assert attributes(capture.span("invoke_workflow answer"))["tracemind.flow.llm_calls"] == 2


async def test_the_runs_record_has_its_cost(trace_mind: Any, capture: Captured) -> None:
    """The runtime finds no cost after its own step; after ours its record has the sum over the steps of the run."""
    tm.set_prices([{"provider": "fake", "model": "fake-1", "input": 1.0, "output": 1.0}])
    call = {"provider": "fake", "model": "fake-1", "prompt": "hello"}
    state, (record,) = await run(trace_mind, model_flow(trace_mind, one=call, two=call))
    cost = attributes(capture.span("invoke_workflow calls"))["tracemind.flow.cost_usd"]
    assert record.cost_usd == state["cost_usd"] == pytest.approx(cost)
    assert state["cost_usd"] == pytest.approx(2 * state["usage"]["cost_usd"])
    assert state["total_tokens"] == 2 * state["usage"]["total_tokens"]


@pytest.mark.parametrize(
    ("script", "code", "attempts"),
    [
        ({"status": 429}, "RATE_LIMIT", 2),
        ({"status": 503}, "PROVIDER_ERROR", 2),
        ({"status": 400}, "BAD_REQUEST", 1),
        ({"status": 401}, "BAD_REQUEST", 1),
    ],
)
async def test_errors_have_the_runtimes_codes(
    trace_mind: Any,
    capture: Captured,
    openai_server: OpenAIServer,
    monkeypatch: pytest.MonkeyPatch,
    no_waits: None,
    script: Action,
    code: str,
    attempts: int,
) -> None:
    """A failed call is a payload with one of the runtime's codes; what cannot help is not repeated."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
    monkeypatch.setenv("OPENAI_BASE_URL", openai_server.base_url)
    model = openai_server.script(script, script)
    call = {"provider": "openai", "model": model, "prompt": "hi", "max_retries": 1}
    state, _ = await run(trace_mind, model_flow(trace_mind, one=call))
    assert (state["status"], state["code"]) == ("error", code)
    assert state["reason"]
    assert len(events(capture.span(f"chat {model}"), "tracemind.retry")) == attempts - 1
    assert attributes(capture.span("one"))["error.type"] == code
    assert attributes(capture.span("invoke_workflow calls"))["error.type"] == code


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"provider": "nobody", "model": "m", "prompt": "hi"}, "nobody"),
        ({"provider": "fake", "model": "m"}, "requires either 'prompt' or 'template'"),
        ({"provider": "fake", "prompt": "hi"}, "'model' is missing"),
        ({"provider": "fake", "model": "m", "prompt": "hi", "temprature": 1}, "did you mean 'temperature'?"),
        ({"provider": "fake", "model": "m", "template": "about {{ topic }}"}, "the template names 'topic'"),
        ({"provider": "fake", "model": "m", "template": "hi", "vars": [1]}, "vars is list"),
    ],
)
async def test_a_wrong_configuration_is_a_bad_request(
    trace_mind: Any, capture: Captured, config: dict[str, Any], reason: str
) -> None:
    """A mistake in a recipe is returned with a reason that names it; an unknown provider is no exception."""
    state, _ = await run(trace_mind, model_flow(trace_mind, one=config))
    assert (state["status"], state["code"]) == ("error", "BAD_REQUEST")
    assert reason in state["reason"]


async def test_the_first_failure_is_the_one_that_is_seen(trace_mind: Any, capture: Captured) -> None:
    """A step whose template needs the answer of a failed one passes that failure on, and asks no model."""
    bad = {"provider": "nobody", "model": "m", "prompt": "hi"}
    needs = {"provider": "fake", "model": "fake-1", "template": "Shorten {{ text }}"}
    state, _ = await run(trace_mind, model_flow(trace_mind, one=bad, two=needs))
    assert "nobody" in state["reason"]
    other = {"provider": "fake", "model": "fake-1", "prompt": "Something else"}
    state, _ = await run(trace_mind, model_flow(trace_mind, one=bad, two=other))
    assert (state["status"], "reason" in state, "code" in state) == ("ok", False, False)


async def test_a_budget_denies_the_steps_call(trace_mind: Any, capture: Captured) -> None:
    """A budget around the request holds in the worker; a denied call is a bad request, which is not repeated."""
    call = {"provider": "fake", "model": "fake-1", "prompt": "hello"}
    with tm.flow("capped", max_llm_calls=1):
        state, _ = await run(trace_mind, model_flow(trace_mind, one=call, two=call))
    assert (state["code"], state["error_type"]) == ("BAD_REQUEST", "budget_exceeded")


async def test_a_cancelled_call_does_not_end_the_worker(trace_mind: Any, capture: Captured) -> None:
    """A client that is cancelled from inside gives RUN_CANCELLED, and the runtime's only worker works on."""

    class Cancelled(tm.AsyncLLMClient):
        provider_name = "cancelled"

        def __init__(self, *, api_key: str | None = None, base_url: str | None = None) -> None:
            pass

        async def complete(self, req: tm.LLMRequest) -> tm.LLMResponse:
            raise asyncio.CancelledError

    tm.LLMClientFactory.register("cancelled", Cancelled)
    flow = model_flow(trace_mind, one={"provider": "cancelled", "model": "m", "prompt": "hi"})
    state, _ = await run(trace_mind, flow)
    assert state["code"] == "RUN_CANCELLED"
    assert attributes(capture.span("chat m"))["tracemind.cancelled"] is True


async def test_a_time_out_is_a_run_timeout(trace_mind: Any, capture: Captured, no_waits: None) -> None:
    """A provider that stays silent is repeated and then a RUN_TIMEOUT, which the runtime's own step never says."""

    class Silent(tm.AsyncLLMClient):
        provider_name = "silent"

        def __init__(self, *, api_key: str | None = None, base_url: str | None = None) -> None:
            pass

        async def complete(self, req: tm.LLMRequest) -> tm.LLMResponse:
            await asyncio.Event().wait()
            raise AssertionError

    tm.LLMClientFactory.register("silent", Silent)
    config = {"provider": "silent", "model": "m", "prompt": "hi", "timeout_ms": 20, "max_retries": 1}
    state, _ = await run(trace_mind, model_flow(trace_mind, one=config))
    assert (state["code"], state["retries"]) == ("RUN_TIMEOUT", 1)


async def test_the_registry_has_the_step(trace_mind: Any, capture: Captured) -> None:
    """Registered, it is called by name with parameters, as the runtime's own step would be."""
    register_llm_call()
    register_llm_call()
    result = await trace_mind.call("ai.llm_call", {"provider": "fake", "model": "fake-1", "prompt": "hi"}, step_id="s")
    assert {"status", "provider", "model", "text", "usage"} <= result.keys()
    assert {"prompt_tokens", "completion_tokens", "total_tokens", "cost_usd"} <= result["usage"].keys()
    assert attributes(capture.span("chat fake-1"))["tracemind.step.id"] == "s"


async def test_the_runtimes_own_step_does_not_fit_its_runtime(trace_mind: Any, capture: Captured) -> None:
    """Used in a flow it fails with a TypeError, which the span shows; ours is the step to use."""
    own = __import__("tm.steps.ai_llm_call", fromlist=["run"])
    flow = instrument_flow(StepsFlow(trace_mind, "own", one=own.run))
    engine = trace_mind.FlowRuntime({flow.name: flow})
    result = await engine.run("own")
    await engine.aclose()
    assert result["error_code"] == "TypeError"
    assert attributes(capture.span("invoke_workflow own"))["error.type"] == "TypeError"
