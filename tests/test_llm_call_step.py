"""The step: results, retries, deadlines, cancellation, and what a recorder gets."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any

import pytest
from opentelemetry import trace

from tests.support import Captured, attributes, calls, events
from tracemind_otel.ai.llm import AsyncLLMClient, LLMRequest, LLMResponse, LLMUsage
from tracemind_otel.ai.llm.pricing import price_table
from tracemind_otel.ai.llm.providers import FakeLLMClient
from tracemind_otel.errors import ConfigError, LLMError, LLMRateLimitError, LLMServerError, UnknownProviderError
from tracemind_otel.runtime.recorder import (
    CompositeRecorder,
    InMemoryRecorder,
    RecordedStep,
    Recorder,
    StepEnd,
    StepHandle,
    StepRetry,
    StepStart,
)
from tracemind_otel.steps.ai_llm_call import LLMCallConfig, LLMClientFactory, run_llm_call

CFG = LLMCallConfig("fake", "toy-1", "What is 2+2?")
Outcome = LLMResponse | BaseException | Callable[[], Awaitable[LLMResponse]]


class Scripted(AsyncLLMClient):
    """A third-party client that returns or raises the given outcomes in turn; the last one repeats."""

    provider_name = "fake"

    def __init__(self, *outcomes: Outcome) -> None:
        self._outcomes = list(outcomes)
        self.requests = list[LLMRequest]()
        self.closed = False

    async def complete(self, req: LLMRequest) -> LLMResponse:
        self.requests.append(req)
        outcome = self._outcomes.pop(0) if len(self._outcomes) > 1 else self._outcomes[0]
        if isinstance(outcome, BaseException):
            raise outcome
        if isinstance(outcome, LLMResponse):
            return outcome
        return await outcome()

    async def aclose(self) -> None:
        self.closed = True


OK = LLMResponse("four", LLMUsage(3, 1, 4), {"echo": True})


async def never() -> LLMResponse:
    await asyncio.Event().wait()
    raise AssertionError


def overloaded(retry_after_s: float | None = 0.001) -> LLMError:
    return LLMServerError("HTTP 503: overloaded", status_code=503, retry_after_s=retry_after_s)


async def run(
    *outcomes: Outcome, recorder: Recorder | None = None, **options: Any
) -> tuple[dict[str, Any], RecordedStep, Scripted]:
    """Run the step on a scripted client; the result, what was recorded, and the client."""
    memory, client = InMemoryRecorder(), Scripted(*outcomes)
    cfg = LLMCallConfig.from_mapping({"provider": "fake", "model": "toy-1", "prompt": "What is 2+2?", **options})
    everyone = memory if recorder is None else CompositeRecorder(memory, recorder)
    result = await run_llm_call("flow", "step", cfg, everyone, client=client)
    assert json.loads(json.dumps(result, allow_nan=False)) == result, "a result is plain JSON"
    assert len(memory.steps) == 1
    return result, memory.steps[0], client


# --- Results ---


async def test_success() -> None:
    """A success has the published keys, the tokens, the cost and the provider's other facts."""
    reply = LLMResponse(
        "four",
        LLMUsage(3, 1, 4, cache_read_tokens=2, cache_write_tokens=0, reasoning_tokens=1),
        {"private": object()},
        finish_reasons=("stop",),
        response_id="r-1",
        response_model="toy-1-0601",
        request_id="req-1",
    )
    result, _, _ = await run(reply)
    priced = reply.usage.with_cost(0.0, "local")
    assert result["usage"]["prompt_tokens"] == 3
    assert result["usage"]["web_searches"] is None
    assert result == {
        "status": "ok",
        "text": "four",
        "usage": priced.as_dict(),
        "provider": "fake",
        "model": "toy-1",
        "retries": 0,
        "response_id": "r-1",
        "response_model": "toy-1-0601",
        "finish_reasons": ["stop"],
        "finish_reason": None,
        "reasoning": None,
        "refusal": None,
        "tool_calls": [],
        "service_tier": None,
        "request_id": "req-1",
    }


async def test_failure() -> None:
    """A failure is returned with its reason and everything needed to act on it; nothing is raised."""
    error = LLMRateLimitError(
        "HTTP 429: slow down", status_code=429, code="rpm", request_id="req-1", retry_after_s=61.0
    )
    result, _, client = await run(error)
    assert result == {
        "status": "error",
        "reason": "HTTP 429: slow down",
        "error_type": "rpm",
        "provider": "fake",
        "model": "toy-1",
        "retries": 0,
        "status_code": 429,
        "code": "rpm",
        "request_id": "req-1",
        "retry_after_s": 61.0,
        "retryable": True,
    }
    assert len(client.requests) == 1


async def test_what_the_client_is_asked() -> None:
    """The request has the filled-in prompt and the given parameters."""
    _, _, client = await run(
        OK, prompt="no", template="{{ a }}+{b}", vars={"a": 2, "b": 2}, temperature=0.2, top_p=0.9, extra={"seed": 7}
    )
    assert client.requests == [LLMRequest("fake", "toy-1", "2+2", 0.2, 0.9, {"seed": 7})]


async def test_a_given_client_stays_open() -> None:
    """The step does not close a client that the caller passed."""
    _, _, client = await run(OK)
    assert not client.closed


async def test_the_default_client_is_the_providers() -> None:
    """Without a client the step uses the provider's, and a plain `Recorder` is enough."""
    result = await run_llm_call("f", "s", CFG, Recorder())
    assert (result["status"], result["text"]) == ("ok", "[fake:toy-1] ?2+2 si tahW")


@pytest.mark.parametrize("options", [{}, {"prompt": ""}, {"template": ""}, {"prompt": "", "template": ""}])
async def test_no_prompt_is_the_callers_mistake(options: dict[str, Any]) -> None:
    """A call without prompt and template raises a `ValueError`, and records nothing."""
    recorder = InMemoryRecorder()
    with pytest.raises(ConfigError, match="requires either 'prompt' or 'template'") as caught:
        await run_llm_call("f", "s", LLMCallConfig("fake", "toy-1", **options), recorder)
    assert isinstance(caught.value, ValueError)
    assert recorder.steps == []


async def test_an_unknown_provider_is_the_callers_mistake() -> None:
    """The error lists the known providers, and suggests the one that was meant."""
    recorder = InMemoryRecorder()
    with pytest.raises(UnknownProviderError, match=r"'opnai'; did you mean 'openai'\? Known are .*fake") as caught:
        await run_llm_call("f", "s", LLMCallConfig("opnai", "m", "p"), recorder)
    assert isinstance(caught.value, ValueError)
    assert recorder.steps == []


async def test_a_registered_provider() -> None:
    """A user registers a provider by name, and all calls of one event loop share its client."""
    made = list[Scripted]()

    def factory(*, api_key: str | None = None, base_url: str | None = None) -> AsyncLLMClient:
        made.append(Scripted(OK))
        return made[-1]

    LLMClientFactory.register("House", factory)
    for _ in range(2):
        result = await run_llm_call("f", "s", LLMCallConfig("house", "m", "p"), Recorder())
        assert result["text"] == "four"
    assert len(made) == 1


# --- Retries ---


async def test_max_retries_two_means_three_attempts() -> None:
    """By default a failing call has three attempts, and each retry is reported before it."""
    result, step, client = await run(overloaded())
    assert len(client.requests) == 3
    assert (result["status"], result["retries"], result["error_type"]) == ("error", 2, "503")
    assert step.retries == [
        StepRetry(
            attempt=n,
            max_attempts=3,
            delay_s=0.001,
            reason="server_error",
            error_type="503",
            status_code=503,
        )
        for n in (1, 2)
    ]


async def test_a_call_that_recovers() -> None:
    """A call that succeeds after two failures is a success with two retries."""
    result, step, client = await run(overloaded(), overloaded(), OK)
    assert (result["status"], result["retries"], len(client.requests)) == ("ok", 2, 3)
    assert step.end is not None
    assert (step.end.status, step.end.error, step.end.retries) == ("success", None, 2)


@pytest.mark.parametrize(("max_retries", "attempts"), [(0, 1), (1, 2), (4, 5)])
async def test_max_retries(max_retries: int, attempts: int) -> None:
    """There is one attempt more than `max_retries`."""
    _, step, client = await run(overloaded(), max_retries=max_retries)
    assert (len(client.requests), len(step.retries)) == (attempts, max_retries)


async def test_each_attempt_sends_the_same() -> None:
    """Each attempt sends the same request."""
    _, _, client = await run(overloaded(), OK)
    assert client.requests[0] is client.requests[1]


async def test_the_retry_is_told_before_the_wait() -> None:
    """The retry and its reason are recorded before the wait."""
    recorder, waiting = InMemoryRecorder(), asyncio.Event()

    class Telling(Recorder):
        def begin_step(self, start: StepStart) -> StepHandle:
            return TellingHandle()

    class TellingHandle(StepHandle):
        def retry(self, retry: StepRetry) -> None:
            waiting.set()

    client = Scripted(overloaded(30.0), OK)
    call = asyncio.create_task(run_llm_call("f", "s", CFG, CompositeRecorder(recorder, Telling()), client=client))
    await waiting.wait()
    assert [retry.delay_s for retry in recorder.steps[0].retries] == [30.0]
    assert recorder.steps[0].end is None
    await cancel(call)


@pytest.mark.parametrize(
    ("error", "error_type", "reason", "retries"),
    [
        (RuntimeError("boom"), "RuntimeError", "RuntimeError: boom", 0),
        (KeyError("boom"), "KeyError", "KeyError: 'boom'", 0),
        (ValueError(), "ValueError", "ValueError", 0),
        (TimeoutError("too slow"), "timeout", "TimeoutError: too slow", 1),
        (TimeoutError(), "timeout", "TimeoutError", 1),
        (ConnectionResetError("gone"), "LLMConnectionError", "ConnectionResetError: gone", 1),
        (BrokenPipeError(), "LLMConnectionError", "BrokenPipeError", 1),
        (OSError("disk"), "OSError", "OSError: disk", 0),
    ],
)
@pytest.mark.usefixtures("no_waits")
async def test_exceptions_of_a_foreign_client(error: Exception, error_type: str, reason: str, retries: int) -> None:
    """A third-party client's time-outs and broken connections are retried, and other exceptions are not."""
    result, _, client = await run(error, max_retries=1)
    assert (result["status"], result["error_type"], result["reason"]) == ("error", error_type, reason)
    assert (result["retries"], len(client.requests)) == (retries, retries + 1)


@pytest.mark.parametrize("reply", [None, "four", {"text": "four"}, LLMResponse("four", None)])  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
async def test_a_client_that_returns_nonsense(reply: Any) -> None:
    """A client that breaks its contract makes the call fail, and raises nothing in the flow."""

    async def nonsense() -> Any:
        return reply

    result, step, _ = await run(nonsense)
    assert result["status"] == "error"
    assert step.end is not None
    assert (step.end.status, step.end.cancelled) == ("error", False)


# --- Time ---


async def test_a_timeout_of_an_attempt() -> None:
    """An attempt that takes too long is a time-out, and is retried."""
    result, step, client = await run(never, max_retries=1, timeout_ms=10)
    assert (result["status"], result["error_type"], result["reason"]) == ("error", "timeout", "timeout after 0.01s")
    assert (len(client.requests), [retry.reason for retry in step.retries]) == (2, ["timeout"])


async def test_a_clients_own_timeout_is_not_ours() -> None:
    """A `TimeoutError` of the client keeps its own message."""
    result, _, _ = await run(TimeoutError("pool is full"), max_retries=0)
    assert result["reason"] == "TimeoutError: pool is full"


async def test_the_deadline_ends_an_attempt() -> None:
    """The call ends at its deadline, during an attempt too, and is not retried."""
    result, step, client = await run(never, deadline_ms=20)
    assert (result["reason"], result["error_type"]) == ("deadline of 20 ms exceeded", "timeout")
    assert (len(client.requests), step.retries) == (1, [])


async def test_the_deadline_is_for_all_attempts() -> None:
    """All attempts share the deadline."""
    result, _, client = await run(overloaded(), never, deadline_ms=30)
    assert (result["reason"], len(client.requests)) == ("deadline of 30 ms exceeded", 2)


@pytest.mark.parametrize(("retry_after_s", "options"), [(10.0, {"deadline_ms": 5000}), (60.5, {})])
async def test_a_wait_that_would_be_too_long_ends_the_call(retry_after_s: float, options: dict[str, Any]) -> None:
    """A delay that a server asks for ends the call if it is over a minute or past the deadline."""
    result, step, client = await run(overloaded(retry_after_s), **options)
    assert (result["status"], result["retry_after_s"], result["retryable"]) == ("error", retry_after_s, True)
    assert (len(client.requests), step.retries) == (1, [])


# --- Cancellation and worse ---


async def cancel(call: asyncio.Task[Any]) -> None:
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call


def assert_recorded_as_cancelled(recorder: InMemoryRecorder, *, retries: int = 0) -> StepEnd:
    end = recorder.steps[0].end
    assert end is not None
    assert (end.status, end.cancelled, end.error, end.retries) == ("error", True, None, retries)
    cancelled = {"status": "error", "reason": "cancelled", "cancelled": True}
    assert end.payload.items() >= {**cancelled, "provider": "fake", "model": "toy-1", "retries": retries}.items()
    return end


async def test_cancelled_during_an_attempt() -> None:
    """A cancellation reaches the caller, and the call is recorded as cancelled."""
    recorder, attempting = InMemoryRecorder(), asyncio.Event()

    async def hang() -> LLMResponse:
        attempting.set()
        return await never()

    call = asyncio.create_task(run_llm_call("f", "s", CFG, recorder, client=Scripted(hang)))
    await attempting.wait()
    await cancel(call)
    assert_recorded_as_cancelled(recorder)


async def test_cancelled_during_a_wait() -> None:
    """A cancellation between two attempts is recorded, and the announced retry counts."""
    recorder, failed = InMemoryRecorder(), asyncio.Event()

    async def fail() -> LLMResponse:
        failed.set()
        raise overloaded(30.0)

    call = asyncio.create_task(run_llm_call("f", "s", CFG, recorder, client=Scripted(fail)))
    await failed.wait()
    await asyncio.sleep(0)
    await cancel(call)
    assert_recorded_as_cancelled(recorder, retries=1)


async def test_cancelled_while_it_is_priced(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reply that arrived before the cancellation is recorded with its tokens, which were paid for."""
    loop, pricing_now, may_go_on = asyncio.get_running_loop(), asyncio.Event(), threading.Event()

    def slow(*_: object) -> None:
        loop.call_soon_threadsafe(pricing_now.set)
        may_go_on.wait(30)

    monkeypatch.setattr(price_table.PriceTable, "match", slow)
    client, recorder = Scripted(OK), InMemoryRecorder()
    client.provider_name = "openai"
    call = asyncio.create_task(run_llm_call("f", "s", CFG, recorder, client=client))
    await pricing_now.wait()
    await cancel(call)
    may_go_on.set()
    end = assert_recorded_as_cancelled(recorder)
    assert end.response is OK
    assert end.payload["usage"]["total_tokens"] == OK.usage.total_tokens


async def test_a_timeout_around_the_step_is_a_cancellation() -> None:
    """`asyncio.timeout` works around the step as around any coroutine."""
    recorder = InMemoryRecorder()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await run_llm_call("f", "s", CFG, recorder, client=Scripted(never))
    assert_recorded_as_cancelled(recorder)


class Stop(BaseException):
    """Like Ctrl-C, not an `Exception`."""


async def test_an_interrupt_ends_the_record() -> None:
    """Ctrl-C is neither swallowed nor retried, and leaves no open span."""
    recorder, client = InMemoryRecorder(), Scripted(Stop())
    with pytest.raises(Stop):
        await run_llm_call("f", "s", CFG, recorder, client=client)
    assert len(client.requests) == 1
    assert_recorded_as_cancelled(recorder)


# --- What must not come out ---


async def test_a_prompt_in_an_exception_stays_inside(caplog: pytest.LogCaptureFixture, capture: Captured) -> None:
    """A client's error that repeats the prompt shows it in no result, span or log."""
    caplog.set_level(logging.DEBUG)
    secret = "my patient is Ada Lovelace, born in 1815"
    for error in (RuntimeError(f"cannot parse {secret!r}"), LLMServerError(f"bad: {secret}", retry_after_s=0.001)):
        result, step, _ = await run(error, prompt=secret, recorder=capture.recorder())
        shown = [json.dumps(result), repr(step.end), repr(step.retries), caplog.text]
        shown += [span.to_json() for span in capture.spans]
        assert not [text for text in shown if "Ada" in text]


# --- Recorders ---


class OfTheFirstVersion(Recorder):
    """Overrides only start and end, as in the published recipe."""

    def __init__(self) -> None:
        self.calls = list[tuple[Any, ...]]()

    def record_step_start(self, flow_id: str, step_id: str, payload: dict[str, Any] | None = None) -> None:
        self.calls.append(("start", flow_id, step_id, payload))

    def record_step_end(self, flow_id: str, step_id: str, status: str, payload: dict[str, Any] | None = None) -> None:
        self.calls.append(("end", flow_id, step_id, status, payload))


@pytest.mark.parametrize(("last", "status"), [(OK, "success"), (RuntimeError("boom"), "error")])
async def test_a_recorder_of_the_first_version(last: Outcome, status: str) -> None:
    """A recorder of the first version gets one start and one end, and the end's dict is the result."""
    recorder = OfTheFirstVersion()
    result = await run_llm_call("flow", "step", CFG, recorder, client=Scripted(overloaded(), last))
    start = {"type": "ai.llm_call", "provider": "fake", "model": "toy-1", "attempt": 0}
    assert recorder.calls == [("start", "flow", "step", start), ("end", "flow", "step", status, result)]
    assert json.loads(json.dumps(recorder.calls[1][4])) == result


async def test_changing_what_a_recorder_got_leaves_the_result_alone() -> None:
    """A recorder that changes its payload does not change the caller's result."""

    class Changing(OfTheFirstVersion):
        def record_step_end(
            self, flow_id: str, step_id: str, status: str, payload: dict[str, Any] | None = None
        ) -> None:
            assert payload is not None
            payload["text"] = "changed"

    result = await run_llm_call("f", "s", CFG, Changing(), client=Scripted(OK))
    assert result["text"] == "four"


class Broken(Recorder):
    """Raises in every method."""

    def record_step_start(self, flow_id: str, step_id: str, payload: dict[str, Any] | None = None) -> None:
        raise OSError("no disk")

    def record_step_end(self, flow_id: str, step_id: str, status: str, payload: dict[str, Any] | None = None) -> None:
        raise OSError("no disk")


class BrokenHandle(StepHandle):
    def active(self) -> AbstractContextManager[object]:
        raise OSError("no disk")

    def retry(self, retry: StepRetry) -> None:
        raise OSError("no disk")

    def end(self, end: StepEnd) -> None:
        raise OSError("no disk")


class BrokenLater(Recorder):
    def begin_step(self, start: StepStart) -> StepHandle:
        return BrokenHandle()


@pytest.mark.parametrize("recorder", [Broken(), BrokenLater()])
async def test_a_broken_recorder_breaks_no_call(recorder: Recorder, caplog: pytest.LogCaptureFixture) -> None:
    """The call succeeds, and the log has each fault's traceback once, not once for each call."""
    for _ in range(3):
        result = await run_llm_call("f", "s", CFG, recorder, client=Scripted(overloaded(), OK))
        assert (result["status"], result["text"], result["retries"]) == ("ok", "four", 1)
    traces = [record for record in caplog.records if record.exc_info]
    assert len(traces) == (1 if isinstance(recorder, Broken) else 3)
    assert "no disk" in caplog.text


async def test_a_broken_recorder_beside_a_good_one(capture: Captured) -> None:
    """The other recorders of a composite get everything, the span included."""
    memory = InMemoryRecorder()
    recorder = CompositeRecorder(Broken(), BrokenLater(), capture.recorder(), memory)
    await run_llm_call("f", "s", CFG, recorder, client=Scripted(overloaded(), OK))
    assert len(memory.steps[0].retries) == 1
    assert memory.steps[0].end is not None
    assert len(events(capture.span("chat toy-1"), "tracemind.retry")) == 1


class Numbered(AsyncLLMClient):
    """Answers the prompt `n` with n tokens after n % 3 failures, and marks the current span."""

    provider_name = "fake"

    def __init__(self) -> None:
        self._failures: dict[int, Iterator[int]] = {}

    async def complete(self, req: LLMRequest) -> LLMResponse:
        n = int(req.prompt)
        trace.get_current_span().set_attribute("test.n", n)
        await asyncio.sleep(0)
        if next(self._failures.setdefault(n, iter([1] * (n % 3))), None) is not None:
            raise overloaded()
        await asyncio.sleep(0)
        assert attributes(trace.get_current_span())["test.n"] == n  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        return LLMResponse(str(n), LLMUsage(n, 2 * n, 3 * n), response_id=f"r-{n}")


async def test_a_thousand_calls_at_once_with_the_same_ids(capture: Captured) -> None:
    """Calls with the same ids each have their own span, tokens, reply and retries."""
    client, recorder = Numbered(), capture.recorder()
    results = await asyncio.gather(
        *(
            run_llm_call("flow", "step", LLMCallConfig("fake", "toy-1", str(n)), recorder, client=client)
            for n in range(1, 1001)
        )
    )
    assert [(result["text"], result["retries"]) for result in results] == [(str(n), n % 3) for n in range(1, 1001)]
    spans: Mapping[int, Mapping[str, Any]] = {attributes(s)["test.n"]: attributes(s) for s in calls(capture.spans)}
    assert (len(calls(capture.spans)), sorted(spans)) == (1000, list(range(1, 1001)))
    for n, found in spans.items():
        assert found["gen_ai.response.id"] == f"r-{n}"
        assert (found["gen_ai.usage.input_tokens"], found["gen_ai.usage.output_tokens"]) == (n, 2 * n)
        assert found["tracemind.retry.count"] == n % 3
    for span in calls(capture.spans):
        assert len(events(span, "tracemind.retry")) == attributes(span)["tracemind.retry.count"]


async def test_several_loops_one_after_the_other() -> None:
    """Each `asyncio.run` of a program gets a fresh client."""

    def in_a_loop_of_its_own() -> object:
        return asyncio.run(run_llm_call("f", "s", CFG, Recorder()))["status"]

    assert [await asyncio.to_thread(in_a_loop_of_its_own) for _ in range(2)] == ["ok", "ok"]


def test_a_client_outside_a_loop_is_the_callers() -> None:
    """Outside an event loop each `make` gives a new client."""
    assert isinstance(LLMClientFactory.make("fake"), FakeLLMClient)
    assert LLMClientFactory.make("fake") is not LLMClientFactory.make("fake")
    assert {"fake", "local", "openai"} <= set(LLMClientFactory.names())
