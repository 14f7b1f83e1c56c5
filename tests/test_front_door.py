"""`llm_call`, `llm_stream` and their synchronous twins."""

from __future__ import annotations

import os
import threading
from collections.abc import AsyncGenerator, Generator, Sequence
from typing import Any

import pytest

import tracemind_otel as tm
from tests.programs import run_program
from tests.servers.fixture import OpenAIServer
from tests.servers.fixture import openai_server as openai_server
from tests.support import Captured
from tracemind_otel.ai.llm.providers import FakeLLMClient, OpenAILLMClient


@pytest.fixture(autouse=True)
def priced() -> None:
    """The fake model has a price."""
    tm.set_prices([{"provider": "fake", "model": "toy-1", "input": 500, "output": 1500}])


@pytest.fixture
def configured(capture: Captured) -> Generator[Captured]:
    """`configure()` for the providers of the test."""
    with tm.configure(tracer_provider=capture.tracer_provider, meter_provider=capture.meter_provider):
        yield capture


async def test_a_call_needs_a_model_and_a_prompt(configured: Captured) -> None:
    """A call with a model and a prompt gives text, tokens and cost, and one span without a recorder."""
    reply = await tm.llm_call("fake/toy-1", "Say hi to {{ name }}", vars={"name": "Ada"})

    assert reply.text == "[fake:toy-1] adA ot ih yaS"
    assert (reply.input_tokens, reply.output_tokens) == (4, 4)
    assert reply.cost_usd == pytest.approx(0.008)
    assert (reply.provider, reply.model, reply.retries, reply.cost_source) == ("fake", "toy-1", 0, "override")
    assert configured.span("chat toy-1").attributes is not None


async def test_the_result_is_that_of_the_step(configured: Captured) -> None:
    """`as_dict` is the result of `run_llm_call`, and the typed usage has the same figures."""
    reply = await tm.llm_call("fake/toy-1", "Hello")
    plain = await tm.run_llm_call("", "toy-1", tm.LLMCallConfig("fake", "toy-1", prompt="Hello"))

    ours = reply.as_dict()
    for one in (ours, plain):
        one.pop("response_id", None)
        one.pop("request_id", None)
    assert ours == plain
    assert reply.usage.as_dict() == plain["usage"]


async def test_the_repr_shows_text_tokens_and_cost() -> None:
    """The repr is short, and cuts the text."""
    reply = await tm.llm_call("fake/toy-1", "word " * 100)

    assert "fake/toy-1" in repr(reply)
    assert "tokens=100 + 100" in repr(reply)
    assert "cost=$0.2" in repr(reply)
    assert len(repr(reply)) < 200


async def test_a_failure_is_raised_with_its_result(configured: Captured) -> None:
    """The typed error has the result of `run_llm_call`."""
    with pytest.raises(tm.LLMRateLimitError) as caught:
        await tm.llm_call("fake/toy-1", "Hello", client=FakeLLMClient(script=["429"]), max_retries=0)

    result = caught.value.result
    assert result is not None
    assert (result["status"], result["error_type"], result["status_code"]) == ("error", "429", 429)


async def test_a_call_over_http(configured: Captured, openai_server: OpenAIServer) -> None:
    """Role dicts, options and system text reach a real server, and the client decides the provider."""
    model = openai_server.script({})
    async with OpenAILLMClient(api_key="k", base_url=openai_server.base_url) as client:
        reply = await tm.llm_call(
            model,
            messages=[{"role": "user", "content": "2+2?"}, {"role": "assistant", "content": "4"}],
            prompt="sure?",
            system="Be brief.",
            temperature=0.5,
            client=client,
        )

    assert (reply.provider, reply.model) == ("openai", model)
    body = openai_server.requests(model)[0].body
    assert [message["role"] for message in body["messages"]] == ["system", "user", "assistant", "user"]
    assert body["temperature"] == 0.5


@pytest.mark.parametrize(
    ("model", "options", "expected"),
    [
        ("fake/toy-1", {}, ("fake", "toy-1")),
        ("toy-1", {"provider": "fake"}, ("fake", "toy-1")),
        ("meta/llama-3", {"provider": "fake"}, ("fake", "meta/llama-3")),
        ("fake/meta/llama-3", {}, ("fake", "meta/llama-3")),
        ("toy-1", {"client": FakeLLMClient()}, ("fake", "toy-1")),
        ("fake/toy-1", {"client": FakeLLMClient()}, ("fake", "toy-1")),
        ("meta/llama-3", {"client": FakeLLMClient()}, ("fake", "meta/llama-3")),
    ],
)
async def test_the_model_names_its_provider(model: str, options: Any, expected: tuple[str, str]) -> None:
    """The provider comes from the model's prefix, `provider=` or the client."""
    reply = await tm.llm_call(model, "Hello", **options)

    assert (reply.provider, reply.model) == expected


async def test_the_step_is_the_one_around(configured: Captured) -> None:
    """The step's name is `step=`, else that of the enclosing `@step`, else the model."""

    @tm.step(name="summarise")
    async def summarise() -> None:
        await tm.llm_call("fake/toy-1", "Hello")
        await tm.llm_call("fake/toy-1", "Hello", step="own")

    await summarise()
    await tm.llm_call("fake/toy-1", "Hello")

    calls = [span for span in configured.spans if span.name == "chat toy-1"]
    assert [(span.attributes or {})["tracemind.step.id"] for span in calls] == ["summarise", "own", "toy-1"]


async def test_the_step_around_is_known_without_providers() -> None:
    """A user's own recorder gets the enclosing step's name too."""
    recorder = tm.InMemoryRecorder()
    with tm.step(name="quiet"):
        await tm.llm_call("fake/toy-1", "Hello", recorder=recorder)

    assert recorder.steps[0].start.step_id == "quiet"


WRONG: Sequence[tuple[str, dict[str, Any], type[Exception], str]] = [
    ("gpt-4o", {}, tm.UnknownProviderError, r"model 'gpt-4o' names no provider; write 'provider/model'"),
    ("nope/x", {}, tm.UnknownProviderError, r"nope"),
    (
        "fake/",
        {},
        tm.ConfigError,
        r"model 'fake/' names no provider; write 'provider/model', 'fake/MODEL' for instance",
    ),
    ("fake:toy-1", {}, tm.ConfigError, r"names no provider; write 'provider/model', 'fake/toy-1' for instance"),
    ("/toy-1", {}, tm.ConfigError, r"names no provider; write 'provider/model', 'openai/toy-1' for instance"),
    ("", {}, tm.ConfigError, r"names no provider; write 'provider/model', 'openai/gpt-4o-mini' for instance"),
    ("fake/toy-1", {"client": "openai"}, tm.ConfigError, r"llm_call: client is str; it must be an AsyncLLMClient"),
    ("fake/toy-1", {"step": 5}, tm.ConfigError, r"llm_call: step is int; it must be a string"),
    (
        "fake/toy-1",
        {"messages": [{"role": "user", "content": 5}]},
        tm.ConfigError,
        r"messages\[0\]\['content'\] is int; it must be a string or a list of parts",
    ),
    ("fake/toy-1", {"temprature": 1}, TypeError, r"no option 'temprature'; did you mean 'temperature'"),
    ("fake/toy-1", {"temperature": "hot"}, tm.ConfigError, r"temperature is 'hot'; it must be a number"),
    ("fake/toy-1", {"messages": "Hello"}, tm.ConfigError, r"messages is str; it must be a list"),
    ("fake/toy-1", {"messages": [3]}, tm.ConfigError, r"messages\[0\] is int; it must be a dict"),
    ("fake/toy-1", {"messages": [{"role": "king"}]}, tm.ConfigError, r"messages\[0\]\['role'\] is 'king'; it must be"),
    ("fake/toy-1", {"messages": [{"role": "user"}]}, tm.ConfigError, r"messages\[0\] has no 'content'"),
    (
        "fake/toy-1",
        {"messages": [{"role": "user", "content": [{"type": "input_audio"}]}]},
        tm.ConfigError,
        r"messages\[0\]\['content'\]\[0\] has the keys 'type'; it must have text",
    ),
]


@pytest.mark.parametrize(("model", "options", "error", "message"), WRONG)
async def test_a_mistake_is_named(model: str, options: Any, error: type[Exception], message: str) -> None:
    """The ConfigError names the argument, the index, the key and the allowed values, and nothing is sent."""
    with pytest.raises(error, match=message):
        await tm.llm_call(model, "Hello", **options)


async def test_a_conversation_in_place_of_the_prompt_is_told_where_it_goes() -> None:
    """A list of messages is what other libraries take there; the error names the argument for it."""
    conversation: Any = [{"role": "user", "content": "Hello"}]
    with pytest.raises(tm.ConfigError, match="prompt is list; it must be a string or absent; a conversation goes into"):
        await tm.llm_call("fake/toy-1", conversation)


async def test_a_stream_gives_text_and_a_result(configured: Captured) -> None:
    """A stream gives events or text while it runs, and the whole reply with its cost at its end."""
    async with tm.llm_stream("fake/toy-1", "one two three") as stream:
        assert stream.result is None
        text = "".join([piece async for piece in stream.text_deltas()])

    assert stream.result is not None
    assert stream.result.text == text == "[fake:toy-1] eerht owt eno"
    assert stream.result.cost_usd == pytest.approx(0.006)


async def test_a_stream_that_fails_has_its_result() -> None:
    """The error of a stream has the text so far, and the stream has no `LLMResult`."""
    stream = tm.llm_stream("fake/toy-1", "Hello", client=FakeLLMClient(script=["400"]))
    with pytest.raises(tm.LLMRequestError) as caught:
        await anext(stream)

    assert caught.value.result is not None
    assert caught.value.result["status"] == "error"
    assert stream.result is None


def test_without_await(configured: Captured) -> None:
    """The synchronous twins give the same results, below their caller's flow and span."""
    with tm.flow(name="script"):
        reply = tm.llm_call_sync("fake/toy-1", "Hello")
        with tm.llm_stream_sync("fake/toy-1", "a b") as stream:
            pieces = list(stream.text_deltas())

    assert reply.text == "[fake:toy-1] olleH"
    assert stream.result is not None
    assert "".join(pieces) == stream.result.text
    flow = configured.span("invoke_workflow script")
    assert (flow.attributes or {})["tracemind.flow.llm_calls"] == 2
    calls = [span for span in configured.spans if span.name == "chat toy-1"]
    assert {span.parent.span_id for span in calls if span.parent} == {flow.context.span_id if flow.context else 0}


async def test_without_await_in_a_running_loop() -> None:
    """In a running loop, as in a notebook, a twin blocks the loop and returns."""
    assert tm.llm_call_sync("fake/toy-1", "Hello").text == "[fake:toy-1] olleH"


def test_a_budget_holds_in_the_twin() -> None:
    """A call of a twin that would exceed the budget is denied, and raises the error."""
    with tm.flow(name="poor", max_llm_calls=1):
        tm.llm_call_sync("fake/toy-1", "Hello")
        with pytest.raises(tm.BudgetExceededError):
            tm.llm_call_sync("fake/toy-1", "Hello")


def test_many_threads_share_the_loop() -> None:
    """Calls of several threads run at the same time."""
    texts: list[str] = []
    threads = [
        threading.Thread(target=lambda: texts.append(tm.llm_call_sync("fake/toy-1", "Hello").text)) for _ in range(20)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert texts == ["[fake:toy-1] olleH"] * 20


class _Nested(tm.AsyncLLMClient):
    provider_name = "nested"

    async def complete(self, req: tm.LLMRequest) -> tm.LLMResponse:
        tm.llm_call_sync("fake/toy-1", "Hello")
        raise AssertionError("unreachable")

    async def stream(self, req: tm.LLMRequest) -> AsyncGenerator[Sequence[Any]]:
        raise NotImplementedError
        yield ()


def test_a_twin_within_a_twin_says_so() -> None:
    """A twin inside a twin, which would wait for itself, raises an error."""
    with pytest.raises(tm.LLMClientError, match="would wait for itself"):
        tm.llm_call_sync("m", "Hello", client=_Nested())


INTERRUPTED = """
import os, signal, sys, threading
import tracemind_otel as tm
from tracemind_otel.ai.llm.providers import FakeLLMClient

recorder = tm.InMemoryRecorder()
client = FakeLLMClient(script=["timeout"])
threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
try:
    tm.llm_call_sync("fake/toy-1", "Hello", client=client, recorder=recorder, timeout_ms=60_000)
except KeyboardInterrupt:
    print(recorder.steps[0].end.cancelled)
"""


@pytest.mark.slow
def test_an_interrupt_cancels_the_call() -> None:
    """Ctrl-C ends the call as cancelled before the exception is raised."""
    done = run_program(INTERRUPTED)

    assert (done.returncode, done.stdout.strip()) == (0, "True"), done.stderr


FORKED = """
import os
import tracemind_otel as tm

print(tm.llm_call_sync("fake/toy-1", "parent").text, flush=True)
child = os.fork()
if child == 0:
    print(tm.llm_call_sync("fake/toy-1", "child").text, flush=True)
    os._exit(0)
os.waitpid(child, 0)
print(tm.llm_call_sync("fake/toy-1", "again").text, flush=True)
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_has_a_loop_of_its_own() -> None:
    """The twin works before a fork, and after it in child and parent."""
    done = run_program(FORKED)

    texts = ["[fake:toy-1] tnerap", "[fake:toy-1] dlihc", "[fake:toy-1] niaga"]
    assert done.stdout.splitlines() == texts, done.stderr


def test_a_call_that_nobody_awaits_says_so() -> None:
    """Python warns of a call that is not awaited."""
    with pytest.warns(RuntimeWarning, match="llm_call' was never awaited"):
        tm.llm_call("fake/toy-1", "Hello")  # type: ignore[unused-coroutine]  # pyright: ignore[reportUnusedCoroutine]
