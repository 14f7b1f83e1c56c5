"""The same request by each HTTP library: what its caller gets, whatever happens to it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import aiohttp
import httpx
import httpx2
import requests

ATTEMPTS = 3
BODY = b'{"model": "gpt-4o", "messages": [{"role": "user", "content": "How much?"}], "stream": %b}'
HEADERS = {"content-type": "application/json"}
Outcome = tuple[object, ...]
"""A status and a body, or the type and the words of an exception and what had come before it."""


def _request(base: str, *, is_stream: bool) -> dict[str, Any]:
    body = BODY % (b"true" if is_stream else b"false")
    return {"url": f"{base}/v1/chat/completions", "content": body, "headers": HEADERS}


def _sync(library: Any, base: str, *, is_stream: bool) -> list[Outcome]:
    outcomes: list[Outcome] = []
    with library.Client(trust_env=False, verify=False) as client:
        for _ in range(ATTEMPTS):
            came: list[bytes] = []
            try:
                if is_stream:
                    with client.stream("POST", **_request(base, is_stream=True)) as reply:
                        came.extend(reply.iter_raw())
                else:
                    reply = client.post(**_request(base, is_stream=False))
                    came.append(reply.content)
                outcomes.append((reply.status_code, b"".join(came)))
            except Exception as error:
                outcomes.append((type(error), str(error), b"".join(came)))
    return outcomes


async def _async(library: Any, base: str, *, is_stream: bool) -> list[Outcome]:
    outcomes: list[Outcome] = []
    async with library.AsyncClient(trust_env=False, verify=False) as client:
        for _ in range(ATTEMPTS):
            came: list[bytes] = []
            try:
                if is_stream:
                    async with client.stream("POST", **_request(base, is_stream=True)) as reply:
                        await _collect(reply.aiter_raw(), came)
                else:
                    reply = await client.post(**_request(base, is_stream=False))
                    came.append(reply.content)
                outcomes.append((reply.status_code, b"".join(came)))
            except Exception as error:
                outcomes.append((type(error), str(error), b"".join(came)))
    return outcomes


async def _aiohttp(base: str, *, is_stream: bool) -> list[Outcome]:
    outcomes: list[Outcome] = []
    request = _request(base, is_stream=is_stream)
    async with aiohttp.ClientSession() as session:
        for _ in range(ATTEMPTS):
            came: list[bytes] = []
            try:
                async with session.post(request["url"], data=request["content"], headers=HEADERS) as reply:
                    if is_stream:
                        await _collect(reply.content.iter_any(), came)
                    else:
                        came.append(await reply.read())
                outcomes.append((reply.status, b"".join(came)))
            except Exception as error:
                outcomes.append((type(error), str(error), b"".join(came)))
    return outcomes


def by_requests(base: str, *, is_stream: bool) -> list[Outcome]:
    """By requests, which decompresses what it hands on."""
    outcomes: list[Outcome] = []
    sent = _request(base, is_stream=is_stream)
    with requests.Session() as session:
        session.trust_env = False
        for _ in range(ATTEMPTS):
            came: list[bytes] = []
            try:
                reply = session.post(sent["url"], data=sent["content"], headers=HEADERS, stream=is_stream)
                came.extend(reply.iter_content(100))
                outcomes.append((reply.status_code, b"".join(came)))
            except Exception as error:
                outcomes.append((type(error), str(error), b"".join(came)))
    return outcomes


async def _collect(pieces: AsyncIterator[bytes], came: list[bytes]) -> None:
    async for piece in pieces:
        came += [piece]


def by_httpx(base: str, *, is_stream: bool) -> list[Outcome]:
    """By httpx, in a thread."""
    return _sync(httpx, base, is_stream=is_stream)


def by_httpx2(base: str, *, is_stream: bool) -> list[Outcome]:
    """By httpx2, in a task."""
    return asyncio.run(_async(httpx2, base, is_stream=is_stream))


def by_aiohttp(base: str, *, is_stream: bool) -> list[Outcome]:
    """By aiohttp."""
    return asyncio.run(_aiohttp(base, is_stream=is_stream))


LIBRARIES: dict[str, Callable[..., list[Outcome]]] = {
    "httpx": by_httpx,
    "httpx2": by_httpx2,
    "aiohttp": by_aiohttp,
    "requests": by_requests,
}
"""The libraries; each makes three requests from the same task or thread, as an SDK that repeats them."""
