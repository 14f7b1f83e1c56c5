"""Whole replies of SDKs: a large body is read without its numbers, and says the same."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from tests.wire.conforming import ANTHROPIC, COHERE, GEMINI, OLLAMA, OPENAI, RESPONSES, Conforming
from tracemind_otel.ai.llm.providers import anthropic, cohere, embeddings, gemini, ollama, openai_responses
from tracemind_otel.ai.llm.providers.openai import chat_wire
from tracemind_otel.ai.llm.types import LLMResponse
from tracemind_otel.errors import LLMResponseError
from tracemind_otel.wire.whole_reply import reply_in_body, without_long_arrays

Wire = Any
"""A wire format."""
HEAD: tuple[int, Mapping[str, str]] = (200, {})
"""Status and headers."""
NUMBERS = [number / 1_000 for number in range(-1_000, 1_000)]
TEXTS = ["plain", 'brackets [1, 2] and "quotes" ][', f"a long list in a text: {NUMBERS}", "\\", '\\"[', "[" * 600 + "]"]

CHATS: dict[str, tuple[Conforming, Wire]] = {
    "chat": (OPENAI, chat_wire()),
    "responses": (RESPONSES, openai_responses.responses_wire()),
    "messages": (ANTHROPIC, anthropic.MESSAGES),
    "gemini": (GEMINI, gemini.WIRE),
    "cohere": (COHERE, cohere.PRESET.wire),
    "ollama": (OLLAMA, ollama.PRESET.wire),
}
EMBEDDINGS: dict[str, tuple[Wire, Mapping[str, Any]]] = {
    "openai": (
        embeddings.OPENAI,
        {
            "object": "list",
            "data": [{"object": "embedding", "index": index, "embedding": NUMBERS} for index in range(40)],
            "model": "text-embedding-3-small",
            "usage": {"prompt_tokens": 70, "total_tokens": 70},
        },
    ),
    "cohere": (
        embeddings.COHERE,
        {
            "id": "embed-1",
            "embeddings": {"float": [NUMBERS] * 40, "int8": [[1] * 2_000] * 40},
            "texts": TEXTS,
            "meta": {"api_version": {"version": "2"}, "billed_units": {"input_tokens": 70}},
        },
    ),
    "ollama": (
        embeddings.OLLAMA,
        {"model": "all-minilm", "embeddings": [NUMBERS] * 40, "total_duration": 1, "prompt_eval_count": 70},
    ),
    "gemini": (
        embeddings.GEMINI,
        {"embeddings": [{"values": NUMBERS}] * 40, "usageMetadata": {"promptTokenCount": 70}},
    ),
    "titan": (embeddings.TITAN, {"embedding": NUMBERS * 40, "inputTextTokenCount": 70}),
}
DUMPS: dict[str, Callable[[object], str]] = {
    "wide": json.dumps,
    "narrow": lambda document: json.dumps(document, separators=(",", ":"), ensure_ascii=False),
    "indented": lambda document: json.dumps(document, indent=1),
}


def said(reply: LLMResponse) -> tuple[object, ...]:
    """What a span says of a reply."""
    return (
        reply.response_id,
        reply.response_model,
        reply.finish_reasons,
        reply.service_tier,
        dict(reply.price_conditions),
        reply.usage,
        reply.reported_cost,
    )


@pytest.mark.parametrize("dumps", DUMPS)
@pytest.mark.parametrize("name", EMBEDDINGS)
def test_large_embeddings(name: str, dumps: str) -> None:
    """Model and tokens are those of the whole document, of which little is decoded."""
    wire, document = EMBEDDINGS[name]
    body = DUMPS[dumps](document).encode()
    assert len(without_long_arrays(body)) < len(body) / 20
    reply = reply_in_body(wire, *HEAD, body)
    assert said(reply) == said(wire.from_payload(document, None))
    assert reply.usage.prompt_tokens == 70


@pytest.mark.parametrize("name", CHATS)
def test_large_chats(name: str) -> None:
    """A reply of half a megabyte, with lists of numbers in it and in its texts, has the figures of the small one."""
    case, wire = CHATS[name]
    document = {"first": NUMBERS, "texts": TEXTS * 20, **case.whole, "last": [[NUMBERS, TEXTS], NUMBERS]}
    reply = reply_in_body(wire, *HEAD, json.dumps(document).encode())
    assert said(reply) == said(wire.from_payload(case.whole, None))


@pytest.mark.parametrize("text", TEXTS)
def test_what_is_cut_out(text: str) -> None:
    """The document stays JSON: only arrays of numbers lose their items, in texts too."""
    document = {"a": [NUMBERS, text, [text, NUMBERS]], "b": {"c": text, "d": NUMBERS}, "e": [[[1, 2]]], "f": 7}
    lean = json.loads(without_long_arrays(json.dumps(document).encode()))
    assert (lean["a"][0], lean["a"][2][1], lean["b"]["d"], lean["e"], lean["f"]) == ([], [], [], [[[1, 2]]], 7)
    if len(text) < 500:
        assert lean["b"]["c"] == text


def test_a_body_that_is_cut() -> None:
    """It is no reply, however much of it has come."""
    wire, document = EMBEDDINGS["openai"]
    body = json.dumps(document).encode()
    for end in (len(body) - 1, len(body) // 2, 300_000):
        with pytest.raises(LLMResponseError):
            reply_in_body(wire, *HEAD, body[:end])


def test_embeddings_never_hold_up_a_loop() -> None:
    """36 MB take a small part of the time that decoding them takes."""
    row = json.dumps({"object": "embedding", "embedding": NUMBERS}).encode()
    usage = b'"model": "m", "usage": {"prompt_tokens": 7}'
    body = b'{"data": [' + b", ".join([row] * 2_400) + b"], " + usage + b"}"
    started_s = time.perf_counter()
    json.loads(body)
    decoded_s = time.perf_counter()
    assert reply_in_body(embeddings.OPENAI, *HEAD, body).usage.prompt_tokens == 7
    assert time.perf_counter() - decoded_s < (decoded_s - started_s) / 4
