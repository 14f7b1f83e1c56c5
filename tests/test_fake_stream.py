"""The fake provider streams pieces, gaps and failures on demand."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

import pytest

from tracemind_otel.ai.llm import LLMRequest, LLMUsage
from tracemind_otel.ai.llm.providers import FakeLLMClient
from tracemind_otel.ai.llm.types import Finish, StreamEvent, TextDelta
from tracemind_otel.errors import (
    ConfigError,
    LLMConnectionError,
    LLMError,
    LLMRateLimitError,
    LLMResponseError,
    LLMServerError,
)

REQUEST = LLMRequest("fake", "toy-1", "What is 2+2?")


async def read(client: FakeLLMClient) -> list[StreamEvent]:
    return [event async for batch in client.stream(REQUEST) for event in batch]


def pieces(found: Sequence[StreamEvent]) -> list[str]:
    return [event.text for event in found if isinstance(event, TextDelta)]


async def test_words_are_the_pieces() -> None:
    """By default a stream gives the echo word by word, and the words make up the whole reply."""
    found = await read(FakeLLMClient(0))
    assert pieces(found) == ["[fake:toy-1] ", "?2+2 ", "si ", "tahW"]
    last = found[-1]
    assert isinstance(last, Finish)
    assert last.response == await FakeLLMClient(0).complete(REQUEST)
    assert "".join(pieces(found)) == last.response.text


async def test_given_pieces() -> None:
    """Given pieces come unchanged, one in each batch, and make up the reply's text."""
    usage = LLMUsage(1000, 500, 1500)
    batches = [batch async for batch in FakeLLMClient(0, chunks=["a", "", "b\n"], usage=usage).stream(REQUEST)]
    assert [len(batch) for batch in batches] == [1, 1, 1, 1]
    last = batches[-1][0]
    assert isinstance(last, Finish)
    assert (last.response.text, last.response.usage) == ("ab\n", usage)


async def test_no_pieces_at_all() -> None:
    """An empty reply is a single Finish."""
    assert len(await read(FakeLLMClient(0, chunks=[]))) == 1


async def test_gaps_come_between_the_pieces() -> None:
    """The latency comes before the first piece, and the gap before each later one."""
    client = FakeLLMClient(10, chunks=["a", "b", "c"], chunk_gap_ms=20)
    began = time.perf_counter()
    times = [time.perf_counter() - began async for _ in client.stream(REQUEST)]
    assert times[0] >= 0.009
    assert times[1] - times[0] >= 0.018
    assert times[2] - times[1] >= 0.018


@pytest.mark.parametrize(
    ("entry", "error_class", "count"),
    [
        ("cut after=2", LLMConnectionError, 2),
        ("cut", LLMConnectionError, 0),
        ("connection after=1", LLMConnectionError, 1),
        ("invalid after=3", LLMResponseError, 3),
        ("503 after=1", LLMServerError, 1),
        ("429 retry-after=0.5", LLMRateLimitError, 0),
        ("cut after=99", LLMConnectionError, 3),
    ],
)
async def test_scripted_failures(entry: str, error_class: type[LLMError], count: int) -> None:
    """A scripted attempt delivers its number of pieces and fails, and the next attempt succeeds."""
    client = FakeLLMClient(0, script=[entry], chunks=["a", "b", "c"])
    came: list[StreamEvent] = []

    async def collect() -> None:
        async for batch in client.stream(REQUEST):
            came.extend(batch)

    with pytest.raises(error_class):
        await collect()
    assert pieces(came) == ["a", "b", "c"][:count]
    assert not any(isinstance(event, Finish) for event in came)
    assert isinstance((await read(client))[-1], Finish)


@pytest.mark.parametrize("after", [0, 2])
async def test_a_scripted_timeout_never_goes_on(after: int) -> None:
    """After its pieces, a scripted time-out waits until the caller's own time-out ends it."""
    stream = FakeLLMClient(0, script=[f"timeout after={after}"], chunks=["a", "b", "c"]).stream(REQUEST)
    for _ in range(after):
        await anext(stream)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(anext(stream), 0.02)


async def test_whole_replies_and_streams_share_the_script() -> None:
    """The script counts attempts of whole replies and streams together."""
    client = FakeLLMClient(0, script=["ok", "503"])
    await client.complete(REQUEST)
    with pytest.raises(LLMServerError):
        await read(client)


@pytest.mark.parametrize("entry", ["cut after=two", "cut after="])
def test_an_entry_that_cannot_be_read(entry: str) -> None:
    """An entry that is no number is rejected at once."""
    with pytest.raises(ConfigError, match="is not a number"):
        FakeLLMClient(script=[entry])
