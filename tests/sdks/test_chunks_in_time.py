"""Chunks of a stream are handed on as they come, also while a step of ours fails: nothing is held back."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator
from typing import Any, NoReturn

import aiohttp
import httpx
import httpx2
import pytest

import tracemind_otel as tm
from tests.sdks.provider_fixture import ProviderServer
from tests.sdks.provider_fixture import provider_server as provider_server
from tests.sdks.replies import EVERY
from tests.support import Captured, next_call

pytestmark = pytest.mark.slow

BODY = b'{"model": "gpt-4o", "messages": [{"role": "user", "content": "How much?"}], "stream": true}'
COME = b"".join(EVERY["openai"].pieces[:4])
"""What the server sends before it falls silent."""
WITHIN_S = 20.0
"""Longer than any machine takes to hand on some bytes; a reader that gets none fails then."""

Reader = Callable[[str], Awaitable[bytes]]


async def by_client(library: Any, url: str) -> bytes:
    """Read until these bytes have come, and leave."""
    came = b""
    with library.Client(trust_env=False, timeout=WITHIN_S) as client, client.stream("POST", url, content=BODY) as reply:
        for piece in reply.iter_raw():
            came += piece
            if len(came) >= len(COME):
                break
    return came


async def by_async_client(library: Any, url: str) -> bytes:
    """The same without blocking."""
    came = b""
    async with (
        library.AsyncClient(trust_env=False, timeout=WITHIN_S) as client,
        client.stream("POST", url, content=BODY) as reply,
    ):
        async for piece in reply.aiter_raw():
            came += piece
            if len(came) >= len(COME):
                break
    return came


async def by_aiohttp(url: str) -> bytes:
    """The same by aiohttp."""
    came = b""
    timeout = aiohttp.ClientTimeout(sock_read=WITHIN_S)
    async with aiohttp.ClientSession(timeout=timeout) as session, session.post(url, data=BODY) as reply:
        while len(came) < len(COME):
            came += await reply.content.readany()
    return came


READERS: dict[str, Reader] = {
    "httpx": lambda url: by_client(httpx, url),
    "httpx2": lambda url: by_client(httpx2, url),
    "async httpx": lambda url: by_async_client(httpx, url),
    "async httpx2": lambda url: by_async_client(httpx2, url),
    "aiohttp": by_aiohttp,
}
WIRE = "tracemind_otel.wire"
STEPS = (
    None,
    f"{WIRE}.observation.recognized",
    f"{WIRE}.observation.Tap",
    f"{WIRE}.tap.decoder_for",
    f"{WIRE}.tap.Reading.feed",
    f"{WIRE}.lean.Sieve.kept",
    f"{WIRE}.logical_call.LogicalCall.first_chunk",
    f"{WIRE}.logical_call.LogicalCall.next_chunk",
    f"{WIRE}.counted_call.CountedCall.end_answered",
    f"{WIRE}.counted_call.price_reply_soon",
)


def broken(*_: Any, **__: Any) -> NoReturn:
    """In the place of any step."""
    raise RuntimeError("injected")


@pytest.fixture
def seen(capture: Captured, provider_server: ProviderServer) -> Generator[Captured]:
    """Calls to the server are seen, and priced as OpenAI's."""
    with tm.configure(tracer_provider=capture.tracer_provider, meter_provider=capture.meter_provider):
        tm.instrument(hosts={f"127.0.0.1:{provider_server.port}": "openai"})
        try:
            yield capture
        finally:
            tm.uninstrument()


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("step", STEPS)
async def test_nothing_is_held_back(
    step: str | None,
    reader: str,
    seen: Captured,
    provider_server: ProviderServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A server that falls silent in a stream has been heard to the last byte, and the span has its first chunk."""
    base = provider_server.case("openai", {"pieces": 4, "waits": True})
    with monkeypatch.context() as patched:
        if step is not None:
            patched.setattr(step, broken)
        assert await READERS[reader](f"{base}/v1/chat/completions") == COME
    next_call()
    if step is None:
        attributes = seen.span("chat gpt-4o").attributes or {}
        assert attributes["gen_ai.response.time_to_first_chunk"] is not None
