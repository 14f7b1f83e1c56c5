"""What follows a finish reason: usage, an end mark, or nothing on a connection that stays open.

A finish reason is not the end. In most formats the usage follows it, some servers send one with every chunk (Gemini's
older models, and proxies that translate), and some send no end mark. So the rest is awaited, but not for long.
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
"""Time for comments and pings alone, in multiples of the silence."""


async def tail(chunks: AsyncGenerator[bytes], reading: Reading) -> AsyncGenerator[list[StreamEvent]]:
    """What still comes of a reply that has its finish reason, until its end or until the server is silent."""
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
    """At most half of the caller's time-out, so that a complete reply never ends in it."""
    silence_s = min(_WHOLE_S if reading.is_whole else _UNCOUNTED_S, patience_left_s() / 2)
    return Patience(silence_s, silence_s * _MOST_SILENCES)
