"""How a client says that its provider is alive, while it has nothing yet to give.

The step bounds the provider's silence. A client gives whole replies and events, but bytes are life too: comments,
pings, blank lines before a document. So it says `beat()` whenever bytes come.
"""

from __future__ import annotations

import contextvars
from collections.abc import Callable

Beat = Callable[[], None]
"""Says that bytes came."""


def _unheard() -> None:
    """Nobody waits."""


_beat: contextvars.ContextVar[Beat] = contextvars.ContextVar("tracemind_beat", default=_unheard)


def current_beat() -> Beat:
    """What to call whenever bytes come. Ask once for a reply, at its beginning; calling it is cheap."""
    return _beat.get()


def listen(beat: Beat) -> contextvars.Token[Beat]:
    """Hear the beats of what begins in this context, until the token is used."""
    return _beat.set(beat)


def stop_listening(token: contextvars.Token[Beat]) -> None:
    """Hear no more."""
    _beat.reset(token)
