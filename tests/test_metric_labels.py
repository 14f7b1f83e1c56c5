"""The labels by which users group: their own, retries by reason, denied calls, budgets, kinds of cost and of tokens."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import pytest

import tracemind_otel as tm
from tests.support import Captured, captured

MODEL = {"provider": "fake", "model": "m", "input": 2, "output": 8, "cache_read": 1}
COUNTED = (
    "tracemind.llm.cost",
    "tracemind.llm.call.cost",
    "tracemind.llm.retries",
    "gen_ai.client.operation.duration",
    "gen_ai.client.token.usage",
)


@pytest.fixture(autouse=True)
def priced() -> None:
    """The model has a price, and another one for cached input."""
    tm.set_prices([MODEL])


class Client(tm.AsyncLLMClient):
    """A client that raises or returns the given outcomes in turn."""

    provider_name = "fake"

    def __init__(self, *outcomes: tm.LLMError | tm.LLMUsage) -> None:
        self._outcomes = list(outcomes)

    async def complete(self, req: tm.LLMRequest) -> tm.LLMResponse:
        outcome = self._outcomes.pop(0)
        if isinstance(outcome, tm.LLMError):
            raise outcome
        return tm.LLMResponse("hi", outcome)


USAGE = tm.LLMUsage(1_000, 100, 1_100, cache_read_tokens=600, cache_write_tokens=50)


def configured(capture: Captured, **options: Any) -> tm.Telemetry:
    return tm.configure(tracer_provider=capture.tracer_provider, meter_provider=capture.meter_provider, **options)


async def call(*outcomes: tm.LLMError | tm.LLMUsage, **options: Any) -> None:
    await tm.llm_call("m", "hi", client=Client(*(outcomes or (USAGE,))), **options)


def labels(capture: Captured, metric: str, name: str) -> Sequence[object]:
    return [(point.attributes or {}).get(name) for point in capture.points(metric)]


def values(capture: Captured, metric: str, *names: str) -> dict[tuple[object, ...], float]:
    """The value of each point of a counter or a gauge, by some of its attributes."""
    return {
        tuple((point.attributes or {}).get(name) for name in names): getattr(point, "value")  # noqa: B009
        for point in capture.points(metric)
    }


# --- Labels ---


async def test_ids_and_the_step_are_labels_where_they_are_named(capture: Captured) -> None:
    """Named ids and the step are labels of each metric of a call, and ids also of the flow's."""
    flow = tm.flow("work", session_id="s-1", attributes={"team": "search"})
    named = ["user.id", "session.id", "step", "team"]
    with configured(capture, metric_attributes=named), tm.using_attributes(user_id="u-1"), flow:
        await call(step="summarize")
    expected = {"user.id": "u-1", "session.id": "s-1", "tracemind.step.id": "summarize", "team": "search"}
    for metric in COUNTED:
        for point in capture.points(metric):
            assert expected.items() <= (point.attributes or {}).items(), metric
    (duration,) = capture.points("gen_ai.invoke_workflow.duration")
    del expected["tracemind.step.id"]
    assert expected.items() <= (duration.attributes or {}).items()


async def test_no_id_is_a_label_unasked(capture: Captured) -> None:
    """By default no id is a label, since each would be a time series."""
    with configured(capture), tm.flow("work", user_id="u-1", session_id="s-1", attributes={"team": "search"}):
        await call(step="summarize")
    for metric in COUNTED:
        for point in capture.points(metric):
            assert not {"user.id", "session.id", "tracemind.step.id", "team"} & (point.attributes or {}).keys()


async def test_an_attribute_by_a_function_is_a_label(capture: Captured) -> None:
    """`attributes={"team": callable}` is computed from the arguments of each run."""

    @tm.flow(attributes={"team": str})
    async def work(team: str) -> None:
        await call()

    with configured(capture, metric_attributes=["team"]):
        await work("search")
        await work("ads")
    assert sorted(map(str, labels(capture, "tracemind.llm.cost", "team"))) == ["ads", "search"]


async def test_a_recorder_of_its_own_labels(capture: Captured) -> None:
    """`OTelRecorder(metric_attributes=...)` takes the same names."""
    recorder = capture.recorder(metric_attributes=["step", "user.id"])
    with tm.using_attributes(user_id="u-1"):
        await call(step="summarize", recorder=recorder)
    (point,) = capture.points("tracemind.llm.cost")
    assert {"tracemind.step.id": "summarize", "user.id": "u-1"}.items() <= (point.attributes or {}).items()


async def test_distinct_values_are_bounded(capture: Captured, caplog: pytest.LogCaptureFixture) -> None:
    """Beyond the limit new values become `_other`; known values stay, no sum is lost, and the log says so once."""
    with configured(capture, metric_attributes=["user.id", "step"], metric_attribute_limit=3):
        for user in (1, 2, 3, 4, 5, 1):
            with tm.using_attributes(user_id=f"u-{user}"):
                await call(step="one")
    assert sorted(map(str, labels(capture, "tracemind.llm.cost", "user.id"))) == ["_other", "u-1", "u-2", "u-3"]
    assert set(labels(capture, "tracemind.llm.cost", "tracemind.step.id")) == {"one"}
    once = (600 * 1 + 400 * 2 + 100 * 8) / 1e6
    assert capture.total("tracemind.llm.cost") == pytest.approx(6 * once)
    assert caplog.text.count("metric attribute user.id has more than 3 values") == 1


def test_a_thousand_values_by_default(capture: Captured) -> None:
    """By default a label has a thousand values at most."""
    with configured(capture, metric_attributes=["user.id"]):
        for user in range(1_002):
            with tm.using_attributes(user_id=f"u-{user}"), tm.flow("work"):
                pass
    found = set(labels(capture, "gen_ai.invoke_workflow.duration", "user.id"))
    assert len(found) == 1_001
    assert "_other" in found


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"metric_attributes": "team"}, "metric_attributes is 'team'; it must be a list of names"),
        (
            {"metric_attributes": ["team", ""]},
            "metric_attributes has ''; a name must be a string without spaces, not empty",
        ),
        ({"metric_attributes": ["x y"]}, "metric_attributes has 'x y'; a name must be a string without spaces"),
        ({"metric_attributes": [7]}, "metric_attributes has 7; a name must be a string"),
        ({"metric_attribute_limit": 0}, "metric_attribute_limit is 0; it must be a whole number from 1 on"),
        ({"service_name": ""}, "service_name is ''; it must be a string that is not empty"),
        ({"service_name": 5}, "service_name is 5"),
        ({"metric_attribute_limit": "9"}, "metric_attribute_limit is '9'"),
    ],
)
def test_wrong_options_are_named(capture: Captured, options: dict[str, Any], message: str) -> None:
    """A wrong value is rejected with a ConfigError, and nothing is configured."""
    with pytest.raises(tm.ConfigError, match=message):
        configured(capture, **options)


# --- Retries and denials ---


async def test_retries_by_reason(capture: Captured) -> None:
    """Each failed attempt counts under its reason and error, whether the call succeeds or fails."""
    attempts = (
        tm.LLMRateLimitError("slow", status_code=429, retry_after_s=0.001),
        tm.LLMServerError("no", status_code=503, retry_after_s=0.001),
        USAGE,
    )
    with configured(capture):
        await call(*attempts)
        await call()
    found = values(capture, "tracemind.llm.retries", "tracemind.retry.reason", "error.type")
    assert found == {("rate_limit", "429"): 1, ("server_error", "503"): 1, (None, None): 0}


async def test_a_denied_call_is_no_failure_of_the_model(capture: Captured) -> None:
    """A denied call counts under its budget's name, and has neither a duration nor a retry."""
    with configured(capture), tm.flow("work", max_llm_calls=1):
        await call()
        with pytest.raises(tm.BudgetExceededError):
            await call()
    denied = values(capture, "tracemind.llm.denied_calls", "tracemind.budget.name", "tracemind.budget.kind")
    assert denied == {("work", "llm_calls"): 1}
    (duration,) = capture.points("gen_ai.client.operation.duration")
    assert getattr(duration, "count") == 1  # noqa: B009
    assert "error.type" not in (duration.attributes or {})


# --- Budgets ---


async def test_budgets_are_measured(capture: Captured) -> None:
    """Each kind of limit is measured, with what was spent under each name."""
    with configured(capture):
        for _ in range(2):
            with tm.flow("work", max_cost_usd=0.5, max_llm_calls=10):
                await call()
        with tm.budget(max_tokens=5_000, name="night"):
            await call()
    names = ("tracemind.budget.name", "tracemind.budget.kind")
    assert values(capture, "tracemind.budget.limit", *names) == {
        ("work", "cost_usd"): 0.5,
        ("work", "llm_calls"): 10,
        ("night", "tokens"): 5_000,
    }
    once = (600 * 1 + 400 * 2 + 100 * 8) / 1e6
    assert values(capture, "tracemind.budget.spent", *names) == {
        ("work", "cost_usd"): pytest.approx(2 * once),
        ("work", "llm_calls"): 2,
        ("night", "tokens"): 1_100,
    }


async def test_budgets_follow_configure(caplog: pytest.LogCaptureFixture) -> None:
    """A second `configure()` gets the figures of the budgets that begin after it."""
    for _ in range(2):
        with captured() as capture, tm.flow("work", max_llm_calls=10):
            await call()
        assert sum(values(capture, "tracemind.budget.spent", "tracemind.budget.name").values()) == 1
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


# --- Kinds of cost and of tokens ---


async def test_cost_by_kind_adds_up(capture: Captured) -> None:
    """On request, input, cached input, output and fees are separate, and add up to the cost."""
    tm.set_prices([MODEL | {"requests": 10}])
    with configured(capture, cost_by_kind=True):
        await call()
    found = values(capture, "tracemind.llm.cost", "tracemind.cost.kind")
    assert found == {
        ("input",): pytest.approx(400 * 2e-6),
        ("cached",): pytest.approx(600 * 1e-6),
        ("output",): pytest.approx(100 * 8e-6),
        ("fee",): pytest.approx(0.01),
    }
    (whole,) = capture.points("tracemind.llm.call.cost")
    assert sum(found.values()) == pytest.approx(getattr(whole, "sum"), rel=1e-9)  # noqa: B009


async def test_cost_by_kind_of_a_reply_that_names_its_cost(capture: Captured) -> None:
    """A cost of unknown parts has the kind `whole`, so that the sum is still the cost."""
    with configured(capture, cost_by_kind=True):
        await call(tm.LLMUsage(1_000, 100, 1_100, cost_usd=0.25))
    assert values(capture, "tracemind.llm.cost", "tracemind.cost.kind") == {("whole",): 0.25}


async def test_cost_by_the_table_has_its_cached_part(capture: Captured) -> None:
    """The span of a model in the table has the cost of its cached tokens, and the counter agrees."""

    class OpenAI(Client):
        provider_name = "openai"

    usage = tm.LLMUsage(1_000, 100, 1_100, cache_read_tokens=600)
    with configured(capture, cost_by_kind=True):
        reply = await tm.llm_call("gpt-4o-mini", "hi", client=OpenAI(usage))
    assert reply.usage.cached_cost_usd == pytest.approx(600 * 0.075e-6)
    assert reply.usage.input_cost_usd == pytest.approx(600 * 0.075e-6 + 400 * 0.15e-6)
    (span,) = capture.spans
    assert (span.attributes or {})["tracemind.cost.cached_usd"] == reply.usage.cached_cost_usd
    found = values(capture, "tracemind.llm.cost", "tracemind.cost.kind")
    assert sum(found.values()) == pytest.approx(reply.cost_usd, rel=1e-12)
    assert found[("cached",)] == reply.usage.cached_cost_usd


async def test_cost_without_kinds(capture: Captured) -> None:
    """By default a model's cost is one series, so that existing sums stay right."""
    with configured(capture):
        await call()
    assert labels(capture, "tracemind.llm.cost", "tracemind.cost.kind") == [None]


async def test_cached_tokens_are_measured_beside_the_others(capture: Captured) -> None:
    """Cached tokens have their own counter, and the token histogram's input includes them."""
    with configured(capture):
        await call()
    assert values(capture, "tracemind.llm.cache.tokens", "tracemind.cache.operation") == {
        ("read",): 600,
        ("write",): 50,
    }
    tokens = capture.points("gen_ai.client.token.usage")
    assert {str((point.attributes or {})["gen_ai.token.type"]) for point in tokens} == {"input", "output"}
    assert sum(getattr(point, "sum") for point in tokens) == 1_100  # noqa: B009
