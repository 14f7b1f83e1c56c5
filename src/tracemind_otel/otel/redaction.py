"""Finds secrets by their name, or by their own form inside a string.

Names are those of HTTP headers, settings and query parameters; forms are those that the providers give their keys.
A doubtful value is removed: one removed too much is a nuisance, one left in is a leak.
"""

from __future__ import annotations

import re

from .hinted_pattern import HintedPattern

REDACTED = "[redacted]"

_MARGIN = 512
"""Characters that are searched beyond the shown ones, because a key may be cut in two."""

_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_NO_WORD = re.compile(r"[^a-z0-9]+")

_NAME = re.compile(
    r"(?:password|passwd)s?(?=\d|_|$)"
    r"|(?:^|_)(?:"
    r"(?:passphrase|passcode|pwd|secret|credential|cookie|authorization|auth|jwt|bearer)s?(?=\d|_|$)"
    r"|(?:api|access|account|auth|client|encryption|private|secret|signing|subscription)_?keys?(?=\d|_|$)"
    r"|(?:access|api|auth|bearer|client|id|refresh|session)_?tokens?(?=\d|_|$)"
    r"|(?:app|client|shared)_?secrets?(?=\d|_|$)"
    r"|(?:pass|token)\d*$)"
)
"""A name as words joined by `_`. Plain `tokens` is not one: it counts them."""

_AT = r"(?:(?<![A-Za-z0-9])|(?<=%[0-9A-Fa-f]{2})|(?<=\\[nrt]))"
"""Where a word begins, in a URL or an escaped text as well."""
_RANDOM = r"(?=(?:[^\W\d]|-)*+\d|(?:[^\Wa-z]|-)*+[a-z](?:[^\WA-Z]|-)*+[A-Z])"
"""What follows has a digit, or small letters before capitals, as keys have and words have not."""

_PREFIXES = (
    *("sk", "pk", "rk", "gsk", "csk", "xai", "pplx", "hf", "nvapi", "r8", "fw", "tgp_v1"),
    *("gho", "ghp", "ghr", "ghs", "ghu", "github_pat", "glpat"),
    *("xoxa", "xoxb", "xoxe", "xoxp", "xoxr", "xoxs", "xapp", "npm", "lsv2_pt", "lsv2_sk", "GOCSPX", "ya29"),
)
"""What the keys of providers begin with, before a joint and a random part."""

_KEY = re.compile(
    r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)"
    rf"|{_AT}ey[JK][\w-]{{8,}}(?:\.[\w-]*)*"
    rf"|{_AT}(?i:bearer|basic)(?:\s|%20)+"
    r"(?=[^\s\"'0-9=]*+[0-9=]|[^\s\"'a-z]*+[a-z][^\s\"'A-Z]*+[A-Z])[\w.~+/=-]{8,}"
    rf"|{_AT}(?:{'|'.join(_PREFIXES)})[-_.]{_RANDOM}[\w-]{{12,}}"
    rf"|{_AT}AIza[\w-]{{20,}}"
    rf"|{_AT}A[KS]IA[0-9A-Z]{{12,}}"
    r"|(?<=://)[^\s/:@\"']*:[^\s/@\"']+(?=@)",
    re.DOTALL,
)
_HEADER = re.compile(
    r"((?<![\w\"'-])(?:proxy-)?(?:authorization|(?:set-)?cookie)\s*[:=]\s*)[^\r\n]+"
    r"|((?<=[\"'])(?:proxy-)?(?:authorization|(?:set-)?cookie)\s*:\s*)[^\r\n\"']+",
    re.IGNORECASE,
)
"""A header, whose value is the rest of its line, or of its quotes."""

_WORDS = (
    r"(?:api|access|account|auth|private|secret|signing|subscription)[ ._-]?keys?"
    r"|(?:access|api|auth|bearer|client|id|refresh|session|user)[._-]?token|client[ ._-]?secrets?"
    r"|(?:password|passwd|passphrase|passcode|pwd|secret|credential)s?"
)
_IS = r"\s*(?::=|==|=>|[:=])\s*"
_BEFORE_QUOTE = r"(?:(?:\[\s*|\w{1,32}\(|[A-Za-z]{1,2})(?=\\?[\"']))?"
"""The beginning of a list or a call, or the prefix of a literal."""
_VALUE = (
    r"(?!\[redacted\])(?:"
    r"\"\"\"[\s\S]*?(?:\"\"\"|\Z)|'\'\'[\s\S]*?(?:'\'\'|\Z)"
    r"|\\\"(?:[^\"\\\r\n]|\\(?!\"))*+(?:\\\"|(?=[\"\r\n])|\Z)"
    r"|\"(?:\\.|[^\"\\\r\n])*+(?:\"|(?=[\r\n])|\\?\Z)"
    r"|'(?:\\.|[^'\\\r\n])*+(?:'|(?=[\r\n])|\\?\Z)"
    r"|[^\s\"'&,;})\]]+)"
)
_NAMED = re.compile(
    rf"((?P<quote>\\?[\"'])[\w.-]{{0,64}}?(?:{_WORDS}|authorization|cookie)\d*(?P=quote)\]?{_IS}{_BEFORE_QUOTE}"
    rf"|(?<![\w.\\\"'-])[\w.-]{{0,64}}?(?:{_WORDS}|(?<![A-Za-z])token(?=\s*=))\d*{_IS}{_BEFORE_QUOTE}"
    r"|[?&]key=)" + _VALUE,
    re.IGNORECASE,
)
"""A name, quoted or not, and its value: in queries, settings, program code and JSON, even JSON inside a string."""


_HEADERS = HintedPattern(_HEADER, ("authorization", "cookie"), reach=len("proxy-"))
_NAMED_VALUES = HintedPattern(
    _NAMED,
    (
        *("key", "token", "secret", "password", "passwd", "passphrase", "passcode", "pwd", "credential"),
        *("authorization", "cookie"),
    ),
    reach=2 + 64 + len("subscription-"),
)
_KEYS = HintedPattern(
    _KEY,
    (
        *("-----begin ", "eyj", "eyk", "bearer", "basic", "aiza", "akia", "asia", "://"),
        *(f"{prefix}{joint}" for prefix in map(str.lower, _PREFIXES) for joint in "-_."),
    ),
    reach=0,
    lead=len("://"),
)


PATTERNS = (_HEADERS, _NAMED_VALUES, _KEYS)
"""What is looked for in a string."""


def is_secret_name(name: str) -> bool:
    """Whether this is the name of a secret: `api_key`, `X-API-Key`, `dbPassword` and the like."""
    words = _NO_WORD.sub("_", _HUMP.sub("_", name[:_MARGIN]).lower()).strip("_")
    return _NAME.search(words) is not None


def without_secrets(text: str, length: int) -> str:
    """A string without secrets, then cut to a length.

    Args:
        text: the string; only a little more than the length is searched.
        length: characters; a longer string ends in `…`, which is not counted.
    """
    window = text[: length + _MARGIN]
    redacted = _HEADERS.sub(lambda found: (found[1] or found[2]) + REDACTED, window)
    redacted = _NAMED_VALUES.sub(lambda found: found[1] + REDACTED, _KEYS.sub(lambda found: REDACTED, redacted))
    if len(window) == len(text):
        return redacted if len(redacted) <= length else redacted[:length] + "…"
    # Half a key may stand unseen at the end of the window, and what was removed before has moved it nearer.
    return redacted[: max(0, min(length, len(redacted) - _MARGIN))] + "…"
