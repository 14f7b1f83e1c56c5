"""A model provider with faults from a seed, and a ledger of what it bills.

It answers like OpenAI's Chat Completions, whole and streamed. An attempt is billed when the model has run, whether or
not its reply arrives. Run as a program it prints its port and ends when its standard input closes.

- `GET /_ledger`: what was billed in USD, how much of that for replies that were never sent whole, and the attempts
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
from dataclasses import asdict, dataclass, field
from typing import Any

from aiohttp import web

from benchmarks.processes import serve_application

MODEL = "gpt-4o-mini"
INPUT_USD, OUTPUT_USD = 0.15e-6, 0.60e-6
"""What a token costs, as in the price table."""
FAULTS = {"429": 0.03, "503": 0.02, "reset": 0.008, "cut": 0.008, "slow": 0.01}
"""How often each fault happens; all other requests are answered at once."""
SLOW_S = 0.5


@dataclass
class Ledger:
    """What was billed."""

    billed_usd: float = 0.0
    unseen_usd: float = 0.0
    """The part whose replies were cut or never sent."""
    attempts: dict[str, int] = field(default_factory=dict[str, int])
    """The number of attempts, by what happened to them."""


class Provider:
    """Answers requests, badly now and then."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self.ledger = Ledger()

    async def complete(self, request: web.Request) -> web.StreamResponse:
        """One attempt."""
        payload = await request.json()
        fault = self._fault()
        self.ledger.attempts[fault] = self.ledger.attempts.get(fault, 0) + 1
        if fault in ("429", "503"):
            headers = {"retry-after": "0.2"} if fault == "429" else {}
            body = {"error": {"message": "try again", "type": "server_error", "code": None}}
            return web.json_response(body, status=int(fault), headers=headers)
        usage = _usage(payload)
        cost_usd = usage["prompt_tokens"] * INPUT_USD + usage["completion_tokens"] * OUTPUT_USD
        self.ledger.billed_usd += cost_usd
        if fault in ("reset", "cut"):
            self.ledger.unseen_usd += cost_usd
        if fault == "slow":
            await asyncio.sleep(SLOW_S)
        answer = self._stream if payload.get("stream") else self._reply
        try:
            return await answer(request, usage, fault)
        except ConnectionResetError:  # the application was killed
            return web.Response()

    def _fault(self) -> str:
        drawn = self._random.random()
        for fault, share in FAULTS.items():
            drawn -= share
            if drawn < 0:
                return fault
        return "none"

    async def _reply(self, request: web.Request, usage: dict[str, int], fault: str) -> web.StreamResponse:
        message = {"role": "assistant", "content": "word " * usage["completion_tokens"]}
        choices = [{"index": 0, "message": message, "finish_reason": "stop"}]
        body = json.dumps({**_head("chat.completion"), "choices": choices, "usage": usage}).encode()
        headers = {"content-type": "application/json", "content-length": str(len(body))}
        response = web.StreamResponse(headers=headers)
        if fault == "reset":
            return _broken(request, response)
        await response.prepare(request)
        await response.write(body[: len(body) // 2] if fault == "cut" else body)
        return _broken(request, response) if fault == "cut" else response

    async def _stream(self, request: web.Request, usage: dict[str, int], fault: str) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        if fault == "reset":
            return _broken(request, response)
        await response.prepare(request)
        for number in range(usage["completion_tokens"]):
            if fault == "cut" and number == usage["completion_tokens"] // 2:
                return _broken(request, response)
            await response.write(_chunk(choices=[{"index": 0, "delta": {"content": "word "}, "finish_reason": None}]))
        await response.write(_chunk(choices=[{"index": 0, "delta": {}, "finish_reason": "stop"}]))
        await response.write(_chunk(choices=[], usage=usage) + b"data: [DONE]\n\n")
        return response

    async def tell(self, request: web.Request) -> web.Response:
        """The ledger."""
        return web.json_response(asdict(self.ledger))


def _usage(payload: dict[str, Any]) -> dict[str, int]:
    """Tokens as the estimate of this package counts them, so that what is presumed can be compared exactly."""
    characters = sum(len(message["content"]) for message in payload["messages"])
    prompt, completion = -(-characters // 4), payload.get("max_completion_tokens") or payload["max_tokens"]
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


def _head(kind: str) -> dict[str, Any]:
    return {"id": "chatcmpl-chaos", "object": kind, "created": 1764000000, "model": MODEL}


def _chunk(**fields: Any) -> bytes:
    return b"data: " + json.dumps({**_head("chat.completion.chunk"), **fields}).encode() + b"\n\n"


def _broken(request: web.Request, response: web.StreamResponse) -> web.StreamResponse:
    """Break the connection off."""
    if request.transport is not None:
        request.transport.abort()
    return response


async def _serve(seed: int) -> None:
    provider = Provider(seed)
    application = web.Application(client_max_size=2**24)
    application.router.add_post("/v1/chat/completions", provider.complete)
    application.router.add_get("/_ledger", provider.tell)
    await serve_application(application)


if __name__ == "__main__":
    asyncio.run(_serve(int(sys.argv[1])))
