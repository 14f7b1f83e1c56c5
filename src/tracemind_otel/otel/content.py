"""Arguments and results as JSON, where somebody asked to have them recorded.

What looks like a secret is taken out first, then what is too long is cut, and what is left is valid JSON. No `repr`
or `str` of an object is ever called: it could be slow, fail, or tell more than it should.
"""

from __future__ import annotations

import enum
import inspect
import itertools
import json
import math
import re
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, cast
from uuid import UUID

LIMIT = 4096
"""Characters of one attribute."""

_REDACTED = "[redacted]"
_MAX_DEPTH = 8
_MAX_BITS = 1024
_MARGIN = 512
"""Characters that are searched for secrets beyond those that are kept: a key that is cut in two is still one."""

_SECRET_NAME = re.compile(
    r"(?:^|_)(?:api_?key|access_?key|private_?key|secret(?:_?key)?|token|pass(?:word|wd|phrase)|pwd|authorization|auth"
    r"|cookies?|credentials?|bearer)$"
)
_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|-")
_SECRET_TEXT = re.compile(
    r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)"
    r"|\bey[JK][\w-]{8,}(?:\.[\w-]*)*"
    r"|\b(?:Bearer|Basic)\s+[\w.~+/=-]{8,}"
    r"|\b(?:sk|pk|rk|gsk|xai|pplx|hf|ghp|gho|ghs|ghu|github_pat|glpat|xox[abprs]|AKIA|ASIA|AIza)[-_]?[\w-]{12,}",
    re.DOTALL,
)


def as_json(value: object, *, limit: int = LIMIT) -> str:
    """A value as JSON of at most `limit` characters, whatever it is.

    Args:
        value: anything; objects other than plain values, dataclasses and models of pydantic are named by class.
        limit: characters, 64 at least.
    """
    for shape in _SHAPES:
        text = _dumps(_Writer(shape).plain(value, 0))
        if len(text) <= limit:
            return text
    return _dumps({"truncated": True, "type": _class_name(value)[: limit - 48]})


def arguments_json(
    signature: inspect.Signature, args: tuple[Any, ...], kwargs: dict[str, Any], *, limit: int = LIMIT
) -> str | None:
    """The arguments of a call by name, without `self` and `cls`; `None` where they do not fit the signature."""
    try:
        bound = signature.bind(*args, **kwargs)
    except TypeError:
        return None
    first = next(iter(signature.parameters), None)
    return as_json(
        {name: value for name, value in bound.arguments.items() if (name, first) not in _RECEIVERS}, limit=limit
    )


_RECEIVERS = {("self", "self"), ("cls", "cls")}


@dataclass(frozen=True, kw_only=True, slots=True)
class _Shape:
    """How much of a value is shown."""

    text: int
    """Characters of a text."""
    items: int
    """Items of a container."""
    nodes: int
    """Values in all."""


_SHAPES = (
    _Shape(text=2000, items=100, nodes=1000),
    _Shape(text=500, items=20, nodes=200),
    _Shape(text=100, items=5, nodes=50),
    _Shape(text=30, items=2, nodes=12),
)


def _dumps(plain: object) -> str:
    return json.dumps(plain, ensure_ascii=False, allow_nan=False)


class _Writer:
    """Turns a value into what JSON can hold, in a shape."""

    def __init__(self, shape: _Shape) -> None:
        self._shape = shape
        self._nodes_left = shape.nodes
        self._around: set[int] = set()

    def plain(self, value: object, depth: int) -> object:
        self._nodes_left -= 1
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, str):
            return self._text(value)
        if depth > _MAX_DEPTH or id(value) in self._around or self._nodes_left < 0:
            return "…"
        self._around.add(id(value))
        try:
            return self._other(value, depth)
        except Exception:
            # A property, or a container that another thread changes: the attribute is not worth the call.
            return f"<{_class_name(value)}: not shown>"
        finally:
            self._around.discard(id(value))

    def _other(self, value: object, depth: int) -> object:
        if isinstance(value, enum.Enum):
            return self.plain(value.value, depth + 1)
        if isinstance(value, int | float):
            return _number(value)
        if isinstance(value, bytes | bytearray):
            return f"<{type(value).__name__} of {len(value)}>"
        if isinstance(value, date | time | datetime):
            return value.isoformat()
        if type(value) in (Decimal, UUID, timedelta):
            return str(value)
        if isinstance(value, dict):
            mapping = cast("dict[object, object]", value)
            return self._mapping(mapping.items(), len(mapping), depth)
        if isinstance(value, list | tuple | set | frozenset | deque):
            return self._items(cast("list[object]", value), depth)
        names = _field_names(value)
        if names is None:
            return f"<{_class_name(value)}>"
        return self._mapping(((name, getattr(value, name, None)) for name in names), len(names), depth)

    def _mapping(self, items: Iterable[tuple[object, object]], count: int, depth: int) -> dict[str, object]:
        shown: dict[str, object] = {}
        for key, value in itertools.islice(items, self._shape.items):
            if self._nodes_left <= 0:
                break
            name = key if isinstance(key, str) else _dumps(self.plain(key, depth + 1))
            shown[self._text(name)] = _REDACTED if _is_secret(name) else self.plain(value, depth + 1)
        if len(shown) < count:
            shown["…"] = f"{count - len(shown)} more"
        return shown

    def _items(self, items: list[object], depth: int) -> list[object]:
        shown = [self.plain(item, depth + 1) for item in self._while_room(items)]
        if len(shown) < len(items):
            shown.append(f"… {len(items) - len(shown)} more")
        return shown

    def _while_room(self, items: Iterable[object]) -> Iterator[object]:
        for item in itertools.islice(items, self._shape.items):
            if self._nodes_left <= 0:
                return
            yield item

    def _text(self, text: str) -> str:
        kept = self._shape.text
        redacted = _SECRET_TEXT.sub(_REDACTED, text[: kept + _MARGIN])
        return redacted if len(text) <= kept else redacted[:kept] + "…"


def _number(value: int | float) -> object:
    if isinstance(value, int):
        value = int(value)
        return value if value.bit_length() <= _MAX_BITS else f"<int of {value.bit_length()} bits>"
    value = float(value)
    return value if math.isfinite(value) else str(value)


def _is_secret(name: str) -> bool:
    return _SECRET_NAME.search(_HUMP.sub("_", name[:_MARGIN]).lower()) is not None


def _field_names(value: object) -> list[str] | None:
    """The fields of a dataclass or of a model of pydantic."""
    if is_dataclass(value) and not isinstance(value, type):
        return [field.name for field in fields(value)]
    model_fields = getattr(type(value), "model_fields", None)
    return list(cast("Mapping[str, object]", model_fields)) if isinstance(model_fields, dict) else None


def _class_name(value: object) -> str:
    kind = type(value)
    return f"{kind.__module__}.{kind.__qualname__}"
