"""The span of a call by an SDK has what the span of our own call of it has; each difference is stated here."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import closing, contextmanager
from typing import Any, cast

import anthropic
import cohere
import ollama
import openai
import pytest
from google import genai
from google.genai import types
from mistralai.client import Mistral
from opentelemetry.trace import SpanKind

import tracemind_otel as tm
from tests.sdks.held_server import EVENTS, LINES, HeldServer, Reply
from tests.sdks.held_server import held_server as held_server
from tests.sdks.replies import EVERY
from tests.support import Captured, attributes

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::DeprecationWarning")]

PROMPT: Any = [{"role": "user", "content": "How much?"}]
SAMPLING: dict[str, Any] = {"temperature": 0.5, "top_p": 0.9, "max_tokens": 100}
OTHERS_BY_NATURE = {"tracemind.step.type", "gen_ai.response.time_to_first_chunk"}
"""Attributes whose names are the same and whose values are not: the kind of step, and a measured time."""


def _anthropic(base: str, is_stream: bool) -> None:
    body = {"temperature": 0.5, "top_p": 0.9}
    with anthropic.Anthropic(api_key="k", base_url=base) as client:
        reply: Any = client.messages.create(
            model=EVERY["anthropic"].model, messages=PROMPT, stream=is_stream, max_tokens=100, extra_body=body
        )
        list(reply if is_stream else ())


def _openai(base: str, is_stream: bool) -> None:
    more: dict[str, Any] = {"stream_options": {"include_usage": True}} if is_stream else {}
    with openai.OpenAI(api_key="k", base_url=f"{base}/v1") as client:
        reply: Any = client.chat.completions.create(
            model=EVERY["openai"].model, messages=PROMPT, stream=is_stream, **SAMPLING, **more
        )
        list(reply if is_stream else ())


def _gemini(base: str, is_stream: bool) -> None:
    config = types.GenerateContentConfig(temperature=0.5, top_p=0.9, max_output_tokens=100)
    options: dict[str, Any] = {"model": EVERY["gemini"].model, "contents": "How much?", "config": config}
    made: Any = genai.Client(api_key="k", http_options=types.HttpOptions(base_url=base))
    with made as client:
        if is_stream:
            list(client.models.generate_content_stream(**options))
        else:
            client.models.generate_content(**options)


def _cohere(base: str, is_stream: bool) -> None:
    options: dict[str, Any] = {"temperature": 0.5, "p": 0.9, "max_tokens": 100}
    with cohere.ClientV2("k", base_url=base) as client:
        ask: Any = client.chat_stream if is_stream else client.chat
        reply = ask(model=EVERY["cohere"].model, messages=PROMPT, **options)
        list(reply if is_stream else ())


def _ollama(base: str, is_stream: bool) -> None:
    options = {"temperature": 0.5, "top_p": 0.9, "num_predict": 100}
    client: Any = ollama.Client(base)
    reply = client.chat(model=EVERY["ollama"].model, messages=PROMPT, stream=is_stream, options=options)
    list(reply if is_stream else ())


def _mistral(base: str, is_stream: bool) -> None:
    with Mistral(api_key="k", server_url=base) as client:
        ask: Any = client.chat.stream if is_stream else client.chat.complete
        reply = ask(model=EVERY["mistral"].model, messages=PROMPT, **SAMPLING)
        list(reply if is_stream else ())


SDKS: dict[str, Callable[[str, bool], None]] = {
    "openai": _openai,
    "anthropic": _anthropic,
    "gemini": _gemini,
    "cohere": _cohere,
    "ollama": _ollama,
    "mistral": _mistral,
}


@pytest.fixture
def configured(capture: Captured, monkeypatch: pytest.MonkeyPatch) -> Generator[Captured]:
    """Spans and metrics go into memory; what a test has instrumented is put back."""
    monkeypatch.setenv("ANTHROPIC_OPEN_TELEMETRY", "false")
    with tm.configure(tracer_provider=capture.tracer_provider, meter_provider=capture.meter_provider, instrument=False):
        yield capture
        tm.uninstrument()


@contextmanager
def surroundings() -> Generator[None]:
    """A session, a user, a tag, a flow and a step around a call."""
    with tm.using_attributes(session_id="s-1", user_id="u-1", tags=["a"]), tm.flow("work"), tm.step("ask"):
        yield


def own_call(name: str, base: str, is_stream: bool) -> None:
    base_url = f"{base}/v1" if name in ("openai", "mistral") else f"{base}/v1beta" if name == "gemini" else base
    client = tm.LLMClientFactory.make(name, api_key="k", base_url=base_url)
    model = f"{name}/{EVERY[name].model}"
    if not is_stream:
        tm.llm_call_sync(model, "How much?", client=client, **SAMPLING)
        return
    with closing(cast("Any", tm.llm_stream_sync(model, "How much?", client=client, **SAMPLING))) as stream:
        list(stream)


@pytest.mark.parametrize("is_stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("name", SDKS)
def test_a_call_by_an_sdk_says_what_our_own_says(
    name: str, is_stream: bool, configured: Captured, held_server: HeldServer
) -> None:
    """Ids, tags, parameters as sent, server, tokens, cost: the same names with the same values."""
    reply = EVERY[name]
    pieces = tuple(filter(None, (*reply.pieces, reply.mark)))
    kind = LINES if name == "ollama" else EVENTS
    held_server.answer(Reply(pieces=pieces, content_type=kind) if is_stream else Reply.of(reply.whole))
    with surroundings():
        own_call(name, held_server.base, is_stream)
    tm.instrument(hosts={held_server.host: name})
    with surroundings():
        SDKS[name](held_server.base, is_stream)
    ours, theirs = (
        {key: value for key, value in attributes(span).items() if key not in OTHERS_BY_NATURE}
        for span in configured.spans
        if span.kind is SpanKind.CLIENT
    )
    assert theirs == ours
    named = [attributes(span).keys() for span in configured.spans if span.kind is SpanKind.CLIENT]
    assert named[0] == named[1]
    assert {"session.id", "user.id", "server.address", "server.port"} <= theirs.keys()
