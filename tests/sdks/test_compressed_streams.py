"""Compressed streams: the caller gets the bytes that were sent, and the span the tokens that are in them."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import AsyncIterator, Callable, Generator
from typing import Any

import aiohttp
import httpx
import httpx2
import pytest

import tracemind_otel as tm
from tests.sdks.provider_fixture import ProviderServer, usd
from tests.sdks.provider_fixture import provider_server as provider_server
from tests.sdks.provider_server import Action, compressed
from tests.sdks.replies import EVERY
from tests.support import Captured, attributes, next_call

pytestmark = pytest.mark.slow

BODY = b'{"model": "gpt-4o", "messages": [{"role": "user", "content": "How much?"}], "stream": true}'
LIBRARY_OF = {"br": "brotli", "zstd": "zstandard"}
ENCODINGS = ("gzip", "deflate", "raw deflate", "gzip, deflate", "br", "zstd")


@pytest.fixture
def seen(capture: Captured, provider_server: ProviderServer) -> Generator[Captured]:
    """Calls to the server are seen, and priced as OpenAI's."""
    with tm.configure(tracer_provider=capture.tracer_provider, meter_provider=capture.meter_provider):
        tm.instrument(hosts={f"127.0.0.1:{provider_server.port}": "openai"})
        try:
            yield capture
        finally:
            tm.uninstrument()


def needs_library_of(encoding: str) -> None:
    name = LIBRARY_OF.get(encoding)
    if name is not None and importlib.util.find_spec(name) is None:
        pytest.skip(f"{name} is not installed")


def action_of(encoding: Any, size: int = 100) -> Action:
    return {"encoding": encoding, "size": size}


def sync_raw(library: Any, url: str) -> bytes:
    with library.Client(trust_env=False) as client, client.stream("POST", url, content=BODY) as reply:
        return b"".join(reply.iter_raw())


def sync_decoded(library: Any, url: str) -> bytes:
    with library.Client(trust_env=False) as client, client.stream("POST", url, content=BODY) as reply:
        return b"".join(reply.iter_bytes())


async def async_decoded(library: Any, url: str) -> bytes:
    async with library.AsyncClient(trust_env=False) as client, client.stream("POST", url, content=BODY) as reply:
        return b"".join([piece async for piece in reply.aiter_bytes()])


@pytest.mark.parametrize("library", [httpx, httpx2])
@pytest.mark.parametrize("encoding", ENCODINGS)
async def test_httpx(library: Any, encoding: str, seen: Captured, provider_server: ProviderServer) -> None:
    """Read raw or decompressed, synchronously or not: the bytes are those without us, and the cost is the ledger's."""
    needs_library_of(encoding)
    base = provider_server.case("openai", action_of(encoding))
    url = f"{base}/v1/chat/completions"

    async def read() -> list[bytes]:
        return [sync_raw(library, url), sync_decoded(library, url), await async_decoded(library, url)]

    came = await read()
    assert len(seen.spans) == 3
    tm.uninstrument()
    assert came == await read()
    assert came[0] == compressed(EVERY["openai"].stream, action_of(encoding))
    costs = [attributes(span)["tracemind.cost_usd"] for span in seen.spans]
    assert costs == pytest.approx([(usd(provider_server.ledger(base)) or 0) / 6] * 3, rel=1e-9)


@pytest.mark.parametrize("size", [1, 2, 3, 7])
@pytest.mark.parametrize("encoding", [*ENCODINGS, "gzip members"])
def test_tiny_pieces(encoding: str, size: int, seen: Captured, provider_server: ProviderServer) -> None:
    """A stream whose compressed bytes come a few at a time has the tokens of one that comes at once."""
    needs_library_of(encoding)
    base = provider_server.case("openai", action_of(encoding, size))
    sync_raw(httpx, f"{base}/v1/chat/completions")
    found = attributes(seen.span("chat gpt-4o"))
    assert found["tracemind.cost_usd"] == pytest.approx(usd(provider_server.ledger(base)), rel=1e-9)
    assert found["gen_ai.response.time_to_first_chunk"] > 0


async def _lines(content: aiohttp.StreamReader) -> AsyncIterator[bytes]:
    async for line in content:
        yield line


async def _any(content: aiohttp.StreamReader) -> AsyncIterator[bytes]:
    async for piece in content.iter_any():
        yield piece


@pytest.mark.parametrize("read", [_lines, _any])
@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br"])
async def test_aiohttp(
    encoding: str,
    read: Callable[[aiohttp.StreamReader], AsyncIterator[bytes]],
    seen: Captured,
    provider_server: ProviderServer,
) -> None:
    """aiohttp hands out decompressed bytes; the cost is that of the ledger."""
    needs_library_of(encoding)
    base = provider_server.case("openai", action_of(encoding, 5))
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{base}/v1/chat/completions", data=BODY, headers={"accept-encoding": encoding}) as reply,
    ):
        came = b"".join([piece async for piece in read(reply.content)])
    assert came == EVERY["openai"].stream
    found = attributes(seen.span("chat gpt-4o"))
    assert found["tracemind.cost_usd"] == pytest.approx(usd(provider_server.ledger(base)), rel=1e-9)


@pytest.mark.parametrize("encoding", ["compress", "br", "zstd"])
def test_without_the_library(
    encoding: str,
    seen: Captured,
    provider_server: ProviderServer,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """What cannot be decompressed ends without tokens, and is no error; the log says once what to install."""
    needs_library_of(encoding)
    for name in ("brotli", "brotlicffi", "zstandard"):
        monkeypatch.setitem(sys.modules, name, None)
    base = provider_server.case("openai", action_of(encoding))
    with tm.flow("work") as run:
        for _ in range(3):
            sync_raw(httpx, f"{base}/v1/chat/completions")
    next_call()
    found = [attributes(span) for span in seen.spans if span.name == "chat gpt-4o"]
    assert len(found) == 3
    assert all(each["gen_ai.response.time_to_first_chunk"] > 0 for each in found)
    assert not any("gen_ai.usage.input_tokens" in each or "error.type" in each for each in found)
    assert (run.llm_calls, run.cost_usd) == (3, None)
    warnings = [record.getMessage() for record in caplog.records if encoding in record.getMessage()]
    assert len(warnings) == 1
    assert "Install brotli or zstandard" in warnings[0]
