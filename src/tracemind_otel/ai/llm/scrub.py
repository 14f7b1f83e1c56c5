"""Keep keys and prompts out of error messages: a server may repeat in an error what it was sent."""

from __future__ import annotations

import re
from collections.abc import Iterable

_WITHHELD = "(the message is withheld: it repeats the prompt)"
_REDACTED = "[redacted]"
_SHOWN = 500
"""Characters of a message that are shown, so that a page of HTML does not fill a span."""
_RUN = 24
"""Characters of the prompt in a row that count as a repetition."""
_LEAST = 6
"""Characters of the shortest prompt that is looked for: one like `hi` occurs in unrelated messages."""
_LEAST_UNSPACED = 3
"""The same in scripts where a character is a syllable or a word."""
_CERTAINLY_LONG = 1000
"""Characters of a prompt that is not normalized for a message too short to hold a run of it."""
_LEAST_SECRET = 8
"""Characters of a secret that is removed anywhere; a shorter one, a local `ollama` say, only as a whole word."""
_BLOCK = _RUN // 2
"""Any run of that length holds a whole block of this length that begins at a multiple of it."""
_ESCAPED_CHARACTER = re.compile(r"\\+(?:u([0-9a-fA-F]{4})|x([0-9a-fA-F]{2})|U([0-9a-fA-F]{8}))")
_IGNORED = re.compile(r"\\+[nrtbf]|[\s\\]+")
_UNSPACED = re.compile(
    r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\U00020000-\U0003ffff]"
)
"""Thai, Lao, Burmese, Khmer, Japanese, Chinese and Korean: no space parts their words, or endings stick to them."""


def scrub(message: str, *, secrets: Iterable[str | None] = (), prompt: str | Iterable[str] = ()) -> str:
    """An error message without the secrets, withheld whole where it repeats a part of the prompt.

    Args:
        message: the message, as a server or a client gave it.
        secrets: strings to replace, keys for instance; those of fewer than eight characters only as whole words.
        prompt: what was sent: one text, or each by itself. Any 24 characters of one in a row are a repetition; of a
            shorter one, the whole in words.
    """
    for secret in filter(None, secrets):
        message = _without(secret, message)
    shown = message if len(message) <= _SHOWN else message[:_SHOWN] + "..."
    texts = (prompt,) if isinstance(prompt, str) else prompt
    return _WITHHELD if any(_repeats(message[:_SHOWN], text) for text in texts) else shown


def scrub_token(
    token: str | None, *, secrets: Iterable[str | None] = (), prompt: str | Iterable[str] = ()
) -> str | None:
    """A code, a type or an id from a server; `None` if it repeats a secret or the prompt."""
    return token if token is not None and scrub(token, secrets=secrets, prompt=prompt) == token else None


def _without(secret: str, message: str) -> str:
    if len(secret) >= _LEAST_SECRET:
        return message.replace(secret, _REDACTED)
    word = f"{_edge(secret[0], before=True)}{re.escape(secret)}{_edge(secret[-1], before=False)}"
    return re.sub(word, _REDACTED, message)


def _repeats(message: str, prompt: str) -> bool:
    said = _plain(message)
    if len(said) < _RUN and len(prompt) > _CERTAINLY_LONG:
        return False
    sent = _plain(prompt)
    if len(sent) < (_LEAST_UNSPACED if _UNSPACED.search(sent) else _LEAST):
        return False
    if len(prompt) < _RUN:
        return sent in said and _says_whole(message, sent)
    if len(sent) < _RUN:
        return sent in said
    blocks = range(0, len(said) - _BLOCK + 1, _BLOCK)
    return any(said[start : start + _BLOCK] in sent and _shares_a_run(said, sent, start) for start in blocks)


def _says_whole(message: str, sent: str) -> bool:
    """Whether a short prompt stands in the message in whole words."""
    words = " *".join(map(re.escape, sent))
    pattern = f"{_edge(sent[0], before=True)}{words}{_edge(sent[-1], before=False)}"
    return re.search(pattern, _plain(message, parted_by=" ")) is not None


def _edge(character: str, *, before: bool) -> str:
    """What must hold beside the first or the last character of a word."""
    if not character.isalnum() or _UNSPACED.match(character):
        return ""
    return r"(?<![^\W_])" if before else r"(?![^\W_])"


def _shares_a_run(said: str, sent: str, block: int) -> bool:
    """Whether a run that holds this block stands in both."""
    first, last = max(0, block + _BLOCK - _RUN), min(block, len(said) - _RUN)
    return any(said[start : start + _RUN] in sent for start in range(first, last + 1))


def _plain(text: str, parted_by: str = "") -> str:
    """Without white space and escapes, so that a prompt quoted as JSON or as a Python string is found too."""
    unescaped = _ESCAPED_CHARACTER.sub(
        lambda match: chr(min(int(match[1] or match[2] or match[3], 16), 0x10FFFF)), text
    )
    joined = unescaped.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return _IGNORED.sub(parted_by, joined).casefold()
