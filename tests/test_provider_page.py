"""The example provider on the page docs/providers.md is short and correct."""

from __future__ import annotations

import ast
import re
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support import Captured, attributes, events
from tracemind_otel import (
    AsyncLLMClient,
    ConfigError,
    LLMCallConfig,
    LLMClientFactory,
    LLMConnectionError,
    LLMStream,
    TextDelta,
    llm_call,
    run_llm_call,
    stream_llm_call,
)
from tracemind_otel.ai.llm import providers
from tracemind_otel.ai.llm.providers.presets import PRESETS

PAGE = (Path(__file__).parents[1] / "docs" / "providers.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
CODE = next(block for block in BLOCKS if "class AcmeClient" in block)
DONE = '{"done": true, "tokens_in": 3, "tokens_out": 2}\n'
OK = httpx.Response(200, json={"answer": "Hello there", "tokens_in": 3, "tokens_out": 2})
BUILT_IN = frozenset(providers.names())
"""The providers that are registered at import, before any test registers its own."""
MakeClient = Callable[[str | None, str | None, httpx.AsyncBaseTransport], AsyncLLMClient]


def page_class() -> MakeClient:
    """The class of the provider on the page, without running the page's `main`."""
    made: MakeClient = defined_in(CODE)["AcmeClient"]
    return made


def defined_in(code: str) -> dict[str, Any]:
    """What a block imports and defines, without running what else it does."""
    tree = ast.parse(code)
    definitions = ast.Import | ast.ImportFrom | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    tree.body = [node for node in tree.body if isinstance(node, definitions)]
    names: dict[str, Any] = {}
    exec(compile(tree, "docs/providers.md", "exec"), names)
    return names


def client_for(*replies: httpx.Response | Exception) -> AsyncLLMClient:
    """The page's client, whose server gives these replies in turn."""
    coming = iter(replies)

    def answer(_: httpx.Request) -> httpx.Response:
        reply = next(coming)
        if isinstance(reply, Exception):
            raise reply
        return reply

    return page_class()("key", None, httpx.MockTransport(answer))


def stream_of(capture: Captured, *replies: httpx.Response) -> LLMStream:
    config = LLMCallConfig("acme", "a-1", prompt="Say hello.")
    return stream_llm_call("f", "s", config, capture.recorder(), client=client_for(*replies))


def test_a_provider_takes_under_sixty_lines() -> None:
    """The class and its imports, with whole replies and streams, take under sixty lines."""
    tree = ast.parse(CODE)
    needed = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom | ast.ClassDef)]
    assert sum((node.end_lineno or 0) - node.lineno + 1 for node in needed) < 60
    (made,) = (node for node in tree.body if isinstance(node, ast.ClassDef))
    methods = {node.name for node in made.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
    assert {"complete", "stream"} <= methods


@pytest.mark.parametrize("first", [httpx.Response(503), httpx.Response(429), httpx.ConnectError("x")], ids=str)
async def test_its_faults_are_repeated_by_the_rules(
    capture: Captured, no_waits: None, first: httpx.Response | Exception
) -> None:
    """A retryable failure is retried and is an event of the span; the call then succeeds."""
    config = LLMCallConfig("acme", "a-1", prompt="Say hello.")
    result = await run_llm_call("f", "s", config, capture.recorder(), client=client_for(first, OK))
    assert (result["status"], result["text"], result["retries"]) == ("ok", "Hello there", 1)
    assert len(events(capture.span("chat a-1"), "tracemind.retry")) == 1


async def test_its_other_faults_are_not(capture: Captured) -> None:
    """A wrong key ends the call at once."""
    config = LLMCallConfig("acme", "a-1", prompt="Say hello.")
    result = await run_llm_call("f", "s", config, capture.recorder(), client=client_for(httpx.Response(401)))
    assert (result["status"], result["status_code"], result["retries"]) == ("error", 401, 0)


async def test_its_stream_has_one_span(capture: Captured) -> None:
    """A stream's span has its tokens and its provider."""
    stream = stream_of(capture, httpx.Response(200, text='{"piece": "Hello "}\n{"piece": "there"}\n' + DONE))
    assert [event.text async for event in stream if isinstance(event, TextDelta)] == ["Hello ", "there"]
    found = attributes(capture.span("chat a-1"))
    assert (found["gen_ai.provider.name"], found["gen_ai.usage.output_tokens"]) == ("acme", 2)


async def test_its_cut_stream_is_no_success(capture: Captured) -> None:
    """A stream without its end raises a connection error."""
    stream = stream_of(capture, httpx.Response(200, text='{"piece": "Hello "}\n'))
    assert await anext(stream) == TextDelta("Hello ")
    with pytest.raises(LLMConnectionError):
        await anext(stream)
    assert attributes(capture.span("chat a-1"))["error.type"] == "LLMConnectionError"


class Body(httpx.AsyncByteStream):
    """A body that never ends, and records that it was closed."""

    is_closed = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while True:
            yield b'{"piece": "and so on "}\n'

    async def aclose(self) -> None:
        self.is_closed = True


async def test_its_connection_is_closed_when_the_reader_stops(capture: Captured) -> None:
    """A reader that stops closes the connection, as the page promises."""
    body = Body()
    async with stream_of(capture, httpx.Response(200, stream=body)) as stream:
        await anext(stream)
        assert not body.is_closed
    assert body.is_closed
    assert attributes(capture.span("chat a-1"))["tracemind.stream.closed_early"] is True


def test_the_page_names_what_there_is() -> None:
    """The entry-point group and the presets on the page exist in the code."""
    assert providers.ENTRY_POINT_GROUP in PAGE
    assert {"groq", "vllm"} <= {preset.name for preset in PRESETS}
    assert "openai_compatible" in LLMClientFactory.names()


def test_every_provider_says_what_it_reports() -> None:
    """The page says for each provider which parts of the usage it reports."""
    table = PAGE.partition("## What each provider reports")[2]
    named = {
        name
        for row in table.splitlines()
        if row.startswith("| `")
        for name in re.findall(r"`(\w+)`", row.split("|")[1])
    }
    assert named == BUILT_IN


async def test_an_unsupported_parameter_is_rejected() -> None:
    """The example raises for a parameter that it does not send, as the page asks of every client."""
    with pytest.raises(ConfigError, match="top_k"):
        await llm_call("m", "Hello", client=client_for(OK), top_k=3)
