"""The server of `provider_server.py` in its own process, and what its ledger says."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import urllib.request
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Any

import genai_prices
import pytest

from tests.sdks.provider_server import Action, Ledger
from tests.sdks.replies import EVERY
from tests.servers.fixture import REPOSITORY

_PRICES_OF = {"openai_responses": "openai", "azure_openai": "azure", "gemini": "google", "bedrock": "aws"}
"""The providers whose names in the library of prices are others."""


class ProviderServer:
    """The tests' end of the server."""

    def __init__(self, port: int) -> None:
        self.port = port
        self._numbers = itertools.count(1)
        # The machine's proxy is none of the tests' business.
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def case(self, provider: str, *script: Action, reply_id: str = "") -> str:
        """Set up the attempts of one test; returns its base URL.

        Args:
            provider: what the server answers, by its name in `replies.EVERY`.
            script: what it does with each request.
            reply_id: the id of the replies; the default is the same for all.
        """
        name = f"case-{next(self._numbers)}"
        self._ask("PUT", f"_case/{name}", {"provider": provider, "script": list(script), "reply_id": reply_id})
        return f"http://127.0.0.1:{self.port}/{name}"

    def ledger(self, base_url: str) -> Ledger:
        """What came for a case and what was answered."""
        return Ledger(**self._ask("GET", f"_ledger/{base_url.rpartition('/')[2]}"))

    def _ask(self, method: str, path: str, document: object = None) -> Any:
        data = json.dumps(document).encode() if method == "PUT" else None
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}/{path}", data, method=method)
        with self._opener.open(request, timeout=30) as reply:
            return json.load(reply)


def usd(ledger: Ledger) -> float | None:
    """What the provider charges for what it has answered, by the library of prices alone; `None` without a price."""
    provider = EVERY[ledger.provider]
    if provider.name == "ollama":
        return None
    read, reasoned = provider.usage[3:]
    # Cohere bills fewer tokens than it counts, and says how many.
    billed: dict[str, int] = provider.whole["usage"]["billed_units"] if provider.name == "cohere" else {}
    usage = genai_prices.Usage(
        input_tokens=billed.get("input_tokens", provider.usage[0]),
        cache_read_tokens=read or 0,
        output_tokens=provider.usage[1],
        output_reasoning_tokens=reasoned or 0,
    )
    price = genai_prices.calc_price(usage, provider.model, provider_id=_PRICES_OF.get(provider.name, provider.name))
    return ledger.billed * float(price.total_price)


@contextmanager
def running_server() -> Generator[ProviderServer]:
    """Start the server; it ends with the block, and at the latest with this process."""
    with subprocess.Popen(
        [sys.executable, "-m", "tests.sdks.provider_server"],
        cwd=REPOSITORY,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        yield ProviderServer(json.loads(process.stdout.readline())["port"])
        process.communicate()


@pytest.fixture(scope="session")
def provider_server() -> Iterator[ProviderServer]:
    """A server that answers as the providers do, in a process of its own."""
    with running_server() as server:
        yield server
