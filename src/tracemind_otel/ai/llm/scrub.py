"""Keep keys and prompts out of error texts: a server may repeat in its error what it was sent."""

from __future__ import annotations

import re
from collections.abc import Iterable

_WITHHELD = "(the message is withheld: it repeats the prompt)"
_REDACTED = "[redacted]"
_WINDOW = 24
_MAX_MESSAGE = 500
_IGNORED = re.compile(r"[\s\\]+")


def scrub(message: str, *, secrets: Iterable[str] = (), prompt: str = "") -> str:
    """An error message without the secrets, withheld whole where it repeats a part of the prompt.

    Args:
        message: the text, as a server or a client gave it.
        secrets: strings that are replaced wherever they occur, keys for instance.
        prompt: what was sent; any 24 characters of it in a row count as a repetition.
    """
    for secret in secrets:
        if secret:
            message = message.replace(secret, _REDACTED)
    if _repeats(message, prompt):
        return _WITHHELD
    return message if len(message) <= _MAX_MESSAGE else message[:_MAX_MESSAGE] + "..."


def _repeats(message: str, prompt: str) -> bool:
    said, sent = _plain(message), _plain(prompt)
    if len(sent) < _WINDOW:
        return bool(sent) and sent in said
    return any(said[start : start + _WINDOW] in sent for start in range(len(said) - _WINDOW + 1))


def _plain(text: str) -> str:
    """Without white space and escapes, so that a prompt quoted as JSON is found too."""
    return _IGNORED.sub("", text).casefold()
