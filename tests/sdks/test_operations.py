"""Requests of every kind that SDKs send: each model call is its operation with tokens and cost, all others are left."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import AsyncIterator, Callable, Generator
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import anthropic
import cohere
import genai_prices
import httpx
import ollama
import openai
import pytest
from google import genai
from google.genai import types
from mistralai.client import Mistral

import tracemind_otel as tm
from tests.sdks.held_server import EVENTS, LINES, HeldServer, Reply
from tests.sdks.held_server import held_server as held_server
from tests.support import Captured, attributes

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::DeprecationWarning")]

PROMPT: Any = [{"role": "user", "content": "How much?"}]
CHAT = {
    "id": "chat-1",
    "object": "chat.completion",
    "created": 1,
    "model": "gpt-4o",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "42"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 40, "completion_tokens": 12, "total_tokens": 52},
}


@pytest.fixture
def configured(capture: Captured, monkeypatch: pytest.MonkeyPatch) -> Generator[Captured]:
    """Spans and metrics go into memory; what a test has instrumented is put back."""
    monkeypatch.setenv("ANTHROPIC_OPEN_TELEMETRY", "false")
    with tm.configure(tracer_provider=capture.tracer_provider, meter_provider=capture.meter_provider, instrument=False):
        yield capture
        tm.uninstrument()


@dataclass(frozen=True, kw_only=True)
class Call:
    """A model call that is no chat, or whose request differs from the usual."""

    ask: Callable[[str], Any]
    """Makes the call against a base URL."""
    provider: str
    """The provider of the host."""
    reply: Reply
    operation: str
    model: str
    tokens: tuple[int, int]
    """Input and output."""
    usage: dict[str, int] = field(default_factory=dict[str, int])
    """What the library of prices needs to know beside the tokens."""
    priced_as: tuple[str, str] | None = None
    """The provider and the model in the library of prices; `None` where it has none."""


CALLS: dict[str, Call] = {}


def call(reply: Reply | object, **options: Any) -> Callable[[Callable[[str], Any]], Callable[[str], Any]]:
    """Add a call."""

    def add(ask: Callable[[str], Any]) -> Callable[[str], Any]:
        given = reply if isinstance(reply, Reply) else Reply.of(reply)
        CALLS[ask.__name__] = Call(ask=ask, reply=given, **options)
        return ask

    return add


def events(*documents: object, done: bool = True) -> Reply:
    pieces = [f"data: {json.dumps(each)}\n\n".encode() for each in documents]
    return Reply(pieces=(*pieces, *([b"data: [DONE]\n\n"] if done else [])), content_type=EVENTS)


def _openai(base: str) -> openai.OpenAI:
    return openai.OpenAI(api_key="k", base_url=f"{base}/v1")


def _azure(base: str) -> openai.AzureOpenAI:
    return openai.AzureOpenAI(api_key="k", azure_endpoint=base, api_version="2024-10-21")


def _mistral(base: str) -> Mistral:
    return Mistral(api_key="k", server_url=base)


def _google(base: str) -> Any:
    return genai.Client(api_key="k", http_options=types.HttpOptions(base_url=base))


# --- Embeddings

_VECTORS = {"object": "list", "data": [{"object": "embedding", "index": 0, "embedding": [0.5, 0.25]}]}
_EMBEDDED = {**_VECTORS, "model": "text-embedding-3-small", "usage": {"prompt_tokens": 7, "total_tokens": 7}}
_EMBEDDING: dict[str, Any] = {"operation": "embeddings", "tokens": (7, 0)}
_OPENAI_EMBEDDING: dict[str, Any] = {**_EMBEDDING, "model": "text-embedding-3-small", "provider": "openai"}


@call(_EMBEDDED, **_OPENAI_EMBEDDING, priced_as=("openai", "text-embedding-3-small"))
def openai_embeddings(base: str) -> Any:
    with _openai(base) as client:
        client.embeddings.create(model="text-embedding-3-small", input="How much?", encoding_format="float")


@call(_EMBEDDED, **_OPENAI_EMBEDDING, priced_as=("openai", "text-embedding-3-small"))
async def openai_embeddings_async(base: str) -> Any:
    async with openai.AsyncOpenAI(api_key="k", base_url=f"{base}/v1") as client:
        await client.embeddings.create(model="text-embedding-3-small", input=["How", "much?"], encoding_format="float")


@call(
    _EMBEDDED,
    **{**_OPENAI_EMBEDDING, "provider": "azure_openai"},
    priced_as=("azure", "text-embedding-3-small"),
)
def azure_embeddings(base: str) -> Any:
    with _azure(base) as client:
        client.embeddings.create(model="text-embedding-3-small", input="How much?", encoding_format="float")


@call(
    {**_EMBEDDED, "id": "e-1", "model": "mistral-embed"},
    **_EMBEDDING,
    model="mistral-embed",
    provider="mistral",
    priced_as=("mistral", "mistral-embed"),
)
def mistral_embeddings(base: str) -> Any:
    with _mistral(base) as client:
        client.embeddings.create(model="mistral-embed", inputs=["How much?"])


_COHERE = {
    "id": "e-1",
    "texts": ["How much?"],
    "embeddings": {"float": [[0.5, 0.25]]},
    "meta": {"api_version": {"version": "2"}, "billed_units": {"input_tokens": 7}},
    "response_type": "embeddings_by_type",
}
_COHERE_EMBEDDING: dict[str, Any] = {
    **_EMBEDDING,
    "model": "embed-v4.0",
    "provider": "cohere",
    "priced_as": ("cohere", "embed-v4.0"),
}


@call(_COHERE, **_COHERE_EMBEDDING)
def cohere_embed(base: str) -> Any:
    with cohere.ClientV2("k", base_url=base) as client:
        client.embed(model="embed-v4.0", texts=["How much?"], input_type="search_query", embedding_types=["float"])


@call(_COHERE, **_COHERE_EMBEDDING)
async def cohere_embed_async(base: str) -> Any:
    async with cohere.AsyncClientV2("k", base_url=base) as client:
        await client.embed(
            model="embed-v4.0", texts=["How much?"], input_type="search_query", embedding_types=["float"]
        )


@call({**_COHERE, "embeddings": [[0.5, 0.25]], "response_type": "embeddings_floats"}, **_COHERE_EMBEDDING)
def cohere_v1_embed(base: str) -> Any:
    """Without batches, which it would ask for in threads that do not know the flow."""
    with cohere.Client("k", base_url=base) as client:
        client.embed(model="embed-v4.0", texts=["How much?"], input_type="search_query", batching=False)


@call(
    {"model": "nomic-embed-text", "embeddings": [[0.5]], "prompt_eval_count": 7},
    **_EMBEDDING,
    model="nomic-embed-text",
    provider="ollama",
)
def ollama_embed(base: str) -> Any:
    ollama.Client(base).embed(model="nomic-embed-text", input="How much?")


_GEMINI_EMBEDDED = {
    "embeddings": [{"values": [0.5]}],
    "usageMetadata": {
        "promptTokenCount": 7,
        "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 4}, {"modality": "IMAGE", "tokenCount": 3}],
    },
}
_GEMINI_EMBEDDING: dict[str, Any] = {
    **_EMBEDDING,
    "model": "gemini-embedding-2",
    "provider": "gemini",
    "usage": {"input_image_tokens": 3, "input_text_tokens": 4},
    "priced_as": ("google", "gemini-embedding-2"),
}


@call(_GEMINI_EMBEDDED, **_GEMINI_EMBEDDING)
def google_embed(base: str) -> Any:
    with _google(base) as client:
        client.models.embed_content(model="gemini-embedding-2", contents=["How much?"])


@call(_GEMINI_EMBEDDED, **_GEMINI_EMBEDDING)
async def google_embed_async(base: str) -> Any:
    async with _google(base).aio as client:
        await client.models.embed_content(model="gemini-embedding-2", contents=["How much?"])


@call(
    {
        "predictions": [
            {"embeddings": {"values": [0.5], "statistics": {"token_count": count, "truncated": False}}}
            for count in (3.0, 4.0)
        ]
    },
    **_EMBEDDING,
    model="gemini-embedding-001",
    provider="vertex",
    priced_as=("google", "gemini-embedding-001"),
)
def vertex_embed(base: str) -> Any:
    path = "/v1/projects/p/locations/us-central1/publishers/google/models/gemini-embedding-001:predict"
    post(base + path, {"instances": [{"content": "How"}, {"content": "much?"}]})


# --- Text completions

_TEXT = {
    "id": "cmpl-1",
    "object": "text_completion",
    "created": 1,
    "model": "gpt-3.5-turbo-instruct",
    "choices": [{"index": 0, "text": "42", "finish_reason": "stop", "logprobs": None}],
    "usage": {"prompt_tokens": 40, "completion_tokens": 12, "total_tokens": 52},
}
_TEXT_PIECE: dict[str, Any] = {
    **_TEXT,
    "choices": [{"index": 0, "text": "4", "finish_reason": None, "logprobs": None}],
    "usage": None,
}
_COMPLETION: dict[str, Any] = {"operation": "text_completion", "tokens": (40, 12)}
_INSTRUCT: dict[str, Any] = {
    **_COMPLETION,
    "model": "gpt-3.5-turbo-instruct",
    "provider": "openai",
    "priced_as": ("openai", "gpt-3.5-turbo-instruct"),
}


@call(_TEXT, **_INSTRUCT)
def openai_completions(base: str) -> Any:
    with _openai(base) as client:
        client.completions.create(model="gpt-3.5-turbo-instruct", prompt="How much?", temperature=0.5)


@call(
    events(*[_TEXT_PIECE] * 9, {**_TEXT, "usage": None}, {**_TEXT, "choices": []}),
    **_INSTRUCT,
)
def openai_completions_stream(base: str) -> Any:
    options: dict[str, Any] = {"stream_options": {"include_usage": True}}
    with _openai(base) as client:
        chunks = client.completions.create(model="gpt-3.5-turbo-instruct", prompt="How?", stream=True, **options)
        assert "".join(chunk.choices[0].text or "" for chunk in chunks if chunk.choices) == "4" * 9 + "42"


@call(
    {**CHAT, "model": "codestral-latest"},
    **_COMPLETION,
    model="codestral-latest",
    provider="mistral",
    priced_as=("mistral", "codestral-latest"),
)
def mistral_fim(base: str) -> Any:
    with _mistral(base) as client:
        client.fim.complete(model="codestral-latest", prompt="def f(", suffix="return a")


_GENERATED = {
    "model": "qwen3:8b",
    "created_at": "2026-11-26T00:00:00Z",
    "response": "42",
    "done": True,
    "done_reason": "stop",
    "prompt_eval_count": 40,
    "eval_count": 12,
}
_GENERATION: dict[str, Any] = {**_COMPLETION, "model": "qwen3:8b", "provider": "ollama"}


@call(_GENERATED, **_GENERATION)
def ollama_generate(base: str) -> Any:
    ollama.Client(base).generate(model="qwen3:8b", prompt="How much?")


@call(
    Reply(
        pieces=(
            *[json.dumps({"model": "qwen3:8b", "response": "4", "done": False}).encode() + b"\n"] * 9,
            json.dumps({**_GENERATED, "response": ""}).encode() + b"\n",
        ),
        content_type=LINES,
    ),
    **_GENERATION,
)
async def ollama_generate_stream(base: str) -> Any:
    parts = [part async for part in await ollama.AsyncClient(base).generate("qwen3:8b", "How much?", stream=True)]
    assert "".join(part.response or "" for part in parts) == "4" * 9


# --- Images

_IMAGES_USAGE = {
    "input_tokens": 40,
    "input_tokens_details": {"image_tokens": 0, "text_tokens": 40},
    "output_tokens": 1056,
    "total_tokens": 1096,
}
_IMAGE: dict[str, Any] = {
    "operation": "generate_content",
    "tokens": (40, 1056),
    "usage": {"output_image_tokens": 1056},
    "model": "gpt-image-1.5",
    "provider": "openai",
    "priced_as": ("openai", "gpt-image-1.5"),
}


@call({"created": 1, "data": [{"b64_json": "aGk="}], "usage": _IMAGES_USAGE}, **_IMAGE)
def openai_images(base: str) -> Any:
    with _openai(base) as client:
        client.images.generate(model="gpt-image-1.5", prompt="A cat")


@call(
    events(
        {"type": "image_generation.partial_image", "b64_json": "aGk=", "partial_image_index": 0},
        {"type": "image_generation.completed", "b64_json": "aGk=", "usage": _IMAGES_USAGE},
        done=False,
    ),
    **_IMAGE,
)
def openai_images_stream(base: str) -> Any:
    with _openai(base) as client:
        for _ in client.images.generate(model="gpt-image-1.5", prompt="A cat", stream=True, partial_images=1):
            pass


# --- Chats by other paths

_CHATTED: dict[str, Any] = {"operation": "chat", "tokens": (40, 12)}


@call({**CHAT, "model": "mistral-large-latest"}, **_CHATTED, model="", provider="mistral",
      priced_as=("mistral", "mistral-large-latest"))  # fmt: skip
def mistral_agent(base: str) -> Any:
    """The agent has the model, which the request does not name."""
    with _mistral(base) as client:
        client.agents.complete(agent_id="ag-1", messages=PROMPT)


@call(CHAT, **_CHATTED, model="gpt-4o", provider="azure_openai", priced_as=("azure", "gpt-4o"))
def azure_deployment(base: str) -> Any:
    """The path names the deployment, the body no model."""
    post(f"{base}/openai/deployments/gpt-4o/chat/completions?api-version=2024-10-21", {"messages": PROMPT})


_RESPONSE: dict[str, Any] = {
    "id": "resp-1",
    "object": "response",
    "created_at": 1,
    "model": "gpt-5",
    "status": "completed",
    "output": [],
    "parallel_tool_calls": True,
    "tool_choice": "auto",
    "tools": [],
    "usage": {
        "input_tokens": 40,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": 12,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": 52,
    },
}


@call(_RESPONSE, **_CHATTED, model="gpt-5", provider="azure_openai", priced_as=("azure", "gpt-5"))
def azure_responses(base: str) -> Any:
    with _azure(base) as client:
        client.responses.create(model="gpt-5", input="How much?")


def _chunked() -> Generator[bytes]:
    yield json.dumps({"model": "gpt-4o", "messages": PROMPT}).encode()


@call(CHAT, **_CHATTED, model="", provider="openai", priced_as=("openai", "gpt-4o"))
def body_from_an_iterator(base: str) -> Any:
    """What is sent piece by piece is not looked at: the model is that of the reply."""
    with httpx.Client(trust_env=False) as client:
        client.post(f"{base}/v1/chat/completions", content=_chunked())


@call(CHAT, **_CHATTED, model="", provider="openai", priced_as=("openai", "gpt-4o"))
async def body_from_an_iterator_by_aiohttp(base: str) -> Any:
    async def pieces() -> AsyncIterator[bytes]:
        for piece in _chunked():
            yield piece

    url = f"{base}/v1/chat/completions"
    async with aiohttp.ClientSession() as session, session.post(url, data=pieces()) as response:
        await response.read()


@call(CHAT, **_CHATTED, model="", provider="openai", priced_as=("openai", "gpt-4o"))
def body_of_several_parts(base: str) -> Any:
    with httpx.Client(trust_env=False) as client:
        client.post(f"{base}/v1/chat/completions", files={"file": b"bytes"}, data={"model": "gpt-4o"})


def post(url: str, document: object) -> None:
    with httpx.Client(trust_env=False) as client:
        client.post(url, json=document)


def made(ask: Callable[[str], Any], base: str) -> None:
    result = ask(base)
    if asyncio.iscoroutine(result):
        asyncio.run(result)


@pytest.mark.parametrize("name", CALLS)
def test_a_call_is_its_operation(name: str, configured: Captured, held_server: HeldServer) -> None:
    """One span by its operation's name, with the provider's tokens and its price, counted once."""
    case = CALLS[name]
    held_server.answer(case.reply)
    tm.instrument(hosts={held_server.host: case.provider})
    with tm.flow("work") as run:
        made(case.ask, held_server.base)
    (span,) = [each for each in configured.spans if each.name != "invoke_workflow work"]
    found = attributes(span)
    assert span.name == f"{case.operation} {case.model}".strip()
    assert found["gen_ai.operation.name"] == case.operation
    assert found.get("gen_ai.request.model", "") == case.model
    assert found.get("gen_ai.output.type") == ("image" if "image" in case.model else None)
    assert (found["gen_ai.usage.input_tokens"], found["gen_ai.usage.output_tokens"]) == case.tokens
    assert "error.type" not in found
    assert run.llm_calls == 1
    assert run.tokens == sum(case.tokens)
    cost = None
    if case.priced_as is not None:
        provider, model = case.priced_as
        usage = genai_prices.Usage(input_tokens=case.tokens[0], output_tokens=case.tokens[1], **case.usage)
        price = genai_prices.calc_price(usage, model, provider_id=provider)
        cost = pytest.approx(float(price.total_price), rel=1e-9)
    assert found.get("tracemind.cost_usd") == run.cost_usd == cost


def test_an_iterator_is_sent_as_it_is(configured: Captured, held_server: HeldServer) -> None:
    """A body that is no bytes is not read before it is sent."""
    tm.instrument(hosts={held_server.host: "openai"})
    held_server.answer(Reply.of(CHAT))
    body_from_an_iterator(held_server.base)
    assert held_server.requests[0].body == b"".join(_chunked())


def test_sums_by_model_name_the_model_that_answered(configured: Captured, held_server: HeldServer) -> None:
    """Where the request names none."""
    tm.instrument(hosts={held_server.host: "openai"})
    held_server.answer(Reply.of(CHAT))
    with tm.flow("work") as run:
        body_from_an_iterator(held_server.base)
    assert list(run.by_model) == ["openai/gpt-4o"]


def test_embeddings_without_usage_have_no_cost(configured: Captured, held_server: HeldServer) -> None:
    """Unknown is not zero: older models of Gemini report no tokens."""
    tm.instrument(hosts={held_server.host: "gemini"})
    held_server.answer(Reply.of({"embeddings": [{"values": [0.5]}]}))
    google_embed(held_server.base)
    (span,) = configured.spans
    assert not {"gen_ai.usage.input_tokens", "tracemind.cost_usd"} & attributes(span).keys()


def test_images_of_several_streamed_events_have_no_usage(configured: Captured, held_server: HeldServer) -> None:
    """It is not documented whether each event counts one image or all."""
    tm.instrument(hosts={held_server.host: "openai"})
    completed = {"type": "image_generation.completed", "b64_json": "aGk=", "usage": _IMAGES_USAGE}
    held_server.answer(events(completed, completed, done=False))
    openai_images_stream(held_server.base)
    (span,) = configured.spans
    assert not {"gen_ai.usage.input_tokens", "tracemind.cost_usd", "error.type"} & attributes(span).keys()


# --- What is left alone


def _anthropic(base: str) -> anthropic.Anthropic:
    return anthropic.Anthropic(api_key="k", base_url=base)


def with_google(base: str, use: Callable[[Any], Any]) -> None:
    with _google(base) as client:
        use(client)


def _sound() -> io.BytesIO:
    sound = io.BytesIO(b"RIFF")
    sound.name = "a.wav"
    return sound


_MESSAGE: Any = {"model": "claude-sonnet-4-6", "max_tokens": 9, "messages": PROMPT}
LEFT_ALONE: dict[str, tuple[str, Callable[[str], Any]]] = {
    "token counts of Anthropic": (
        "anthropic",
        lambda base: _anthropic(base).messages.count_tokens(model="claude-sonnet-4-6", messages=PROMPT),
    ),
    "batches of Anthropic": (
        "anthropic",
        lambda base: _anthropic(base).messages.batches.create(requests=[{"custom_id": "1", "params": _MESSAGE}]),
    ),
    "models of OpenAI": ("openai", lambda base: _openai(base).models.list()),
    "moderation": ("openai", lambda base: _openai(base).moderations.create(input="How much?")),
    "speech": (
        "openai",
        lambda base: _openai(base).audio.speech.create(model="tts-1", voice="alloy", input="How much?"),
    ),
    "transcription": (
        "openai",
        lambda base: _openai(base).audio.transcriptions.create(model="gpt-4o-transcribe", file=_sound()),
    ),
    "edited images": (
        "openai",
        lambda base: _openai(base).images.edit(model="gpt-image-1", image=_sound(), prompt="A cat"),
    ),
    "files": ("openai", lambda base: _openai(base).files.create(file=_sound(), purpose="batch")),
    "a response that is polled": ("openai", lambda base: _openai(base).responses.retrieve("resp-1")),
    "a response that is cancelled": ("openai", lambda base: _openai(base).responses.cancel("resp-1")),
    "token counts of OpenAI": ("openai", lambda base: _openai(base).responses.input_tokens.count(input="How?")),
    "stored completions": ("openai", lambda base: _openai(base).chat.completions.list()),
    "rerank": (
        "cohere",
        lambda base: cohere.ClientV2("k", base_url=base).rerank(model="rerank-v3.5", query="q", documents=["d"]),
    ),
    "details of Ollama's model": ("ollama", lambda base: post(f"{base}/api/show", {"model": "qwen3:8b"})),
    "models of Ollama": ("ollama", lambda base: httpx.get(f"{base}/api/tags", trust_env=False)),
    "token counts of Gemini": (
        "gemini",
        lambda base: with_google(base, lambda client: client.models.count_tokens(model="m", contents="How much?")),
    ),
    "models of Gemini": ("gemini", lambda base: with_google(base, lambda client: list(client.models.list()))),
    "images on Vertex": (
        "vertex",
        lambda base: post(
            f"{base}/v1/projects/p/locations/l/publishers/google/models/imagen-4.0:predict", {"instances": []}
        ),
    ),
    "token counts on Vertex": (
        "vertex",
        lambda base: post(
            f"{base}/v1/projects/p/locations/l/publishers/anthropic/models/count-tokens:rawPredict", _MESSAGE
        ),
    ),
    # Other services have paths with the same ends.
    "answers to a survey": ("", lambda base: post(f"{base}/surveys/3/responses", {"answers": [1]})),
    "text messages": ("", lambda base: post(f"{base}/v1/messages", {"to": "+41", "text": "Hello"})),
    "a chat of one's own": ("", lambda base: post(f"{base}/api/chat", {"messages": PROMPT})),
    "course completions": ("", lambda base: post(f"{base}/courses/3/completions", {"user": 5})),
    "a form with several parts": (
        "",
        lambda base: httpx.post(f"{base}/surveys/3/responses", files={"file": b"x"}, trust_env=False),
    ),
}


@pytest.mark.parametrize("name", LEFT_ALONE)
def test_any_other_request_is_left_alone(name: str, configured: Captured, held_server: HeldServer) -> None:
    """It makes no span, and counts as no call."""
    provider, ask = LEFT_ALONE[name]
    tm.instrument(hosts={held_server.host: provider} if provider else {})
    held_server.answer(
        Reply.of({"object": "list", "data": [], "results": [], "id": "1", "model": "m", "totalTokens": 1})
    )
    with tm.flow("work") as run:
        ask(held_server.base)
    assert len(held_server.requests) == 1
    assert [span.name for span in configured.spans] == ["invoke_workflow work"]
    assert run.llm_calls == 0


def test_a_response_in_the_background(configured: Captured, held_server: HeldServer) -> None:
    """To ask for it is a call without usage, which is no failure; to poll for it is none."""
    tm.instrument(hosts={held_server.host: "openai"})
    held_server.answer(Reply.of({**_RESPONSE, "status": "queued", "usage": None}), Reply.of(_RESPONSE))
    with _openai(held_server.base) as client, tm.flow("work") as run:
        queued = client.responses.create(model="gpt-5", input="How much?", background=True)
        assert client.responses.retrieve(queued.id).status == "completed"
    found = attributes(configured.span("chat gpt-5"))
    assert found["gen_ai.response.id"] == "resp-1"
    assert not {"error.type", "gen_ai.usage.input_tokens", "gen_ai.response.finish_reasons"} & found.keys()
    assert (run.llm_calls, run.cost_usd) == (1, None)


@pytest.mark.parametrize(
    ("path", "document"),
    [
        ("/v1/chat/completions", {"messages": PROMPT}),
        ("/v1/completions", {"prompt": "How much?"}),
        ("/v1/embeddings", {"input": "How much?"}),
        ("/api/embeddings", {"model": "m", "input": "How much?"}),
        ("/v1/messages", _MESSAGE),
        ("/v1/responses", {"prompt": {"id": "pmpt_1"}}),
        ("/v1/responses", {"model": "gpt-5", "input": "How much?"}),
    ],
)
def test_a_server_of_ones_own_is_told_by_what_is_asked(
    path: str, document: object, configured: Captured, held_server: HeldServer
) -> None:
    """A gateway or a local server has a host that nobody knows, and may need no model."""
    tm.instrument()
    post(held_server.base + path, document)
    assert len(configured.spans) == 1
