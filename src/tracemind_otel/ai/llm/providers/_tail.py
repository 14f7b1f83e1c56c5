"""What comes behind a finish reason: usage, an end mark, or a connection that stays open and says nothing more.

A finish reason is no end. The usage of most formats follows it, some servers send one with every chunk (Gemini's older
models, and proxies that translate), and some have no end mark at all. So what follows is awaited, but not for long.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator

from ..liveness import DeadlinePassedError, Patience, ProviderSilentError, patience_left_s
from ..types import StreamEvent
from ._reading import Reading

_WHOLE_S = 2.0
"""Seconds of silence that end a reply to which nothing is missing."""
_UNCOUNTED_S = 4.0
"""Seconds of silence that end a reply whose usage may still come."""
_MOST_SILENCES = 2
"""The time for comments and pings, in such silences."""


async def tail(chunks: AsyncGenerator[bytes], reading: Reading) -> AsyncGenerator[list[StreamEvent]]:
    """What still comes of a reply that has its finish reason, until its end or until the server has nothing to say."""
    patience = _patience_with(reading)
    try:
        while not reading.is_over:
            batch = reading.feed(await patience.wait(lambda: anext(chunks)))
            if batch:
                yield batch
                patience.stop()
                patience = _patience_with(reading)
    except (StopAsyncIteration, ProviderSilentError, DeadlinePassedError):
        yield reading.end()
    finally:
        patience.stop()


def _patience_with(reading: Reading) -> Patience:
    """For a part of what the caller waits for at most, so that a whole reply never ends in the caller's time-out."""
    silence_s = min(_WHOLE_S if reading.is_whole else _UNCOUNTED_S, patience_left_s() / 2)
    return Patience(silence_s, silence_s * _MOST_SILENCES)
