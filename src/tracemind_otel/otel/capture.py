"""Arguments and results as JSON, if the user asked to have them recorded.

Secrets are removed first, then long values are cut, and the rest is valid JSON. `repr` and `str` of an object are never
called: they could be slow, fail, or tell more than they should.
"""

from __future__ import annotations

import enum
import inspect
import itertools
import json
import logging
import math
import sys
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, cast
from uuid import UUID

from .._base.once import FAULTS, report_fault
from .redaction import REDACTED, is_secret_name, without_secrets

log = logging.getLogger(__name__)

LIMIT = 4096
"""Characters of one attribute."""

_MAX_DEPTH = 8
_MAX_BITS = 1024


Redact = Callable[[dict[str, Any], str], dict[str, Any] | None]
"""A user's function of a part of the content and its role; returns the part to record, or `None`.

Parts have the form of the GenAI conventions: `{"type": "tool_call", "name": ..., "arguments": ...}` for `assistant`,
`{"type": "tool_call_response", "response": ...}` for `tool`. Secrets are removed before, long values are cut after.
"""


def call_json(name: str, arguments: object, redact: Redact | None) -> str | None:
    """The arguments of a call as JSON; `None` if `redact` leaves them out."""
    return _recorded(arguments, "arguments", redact, "assistant", type="tool_call", name=name)


def result_json(result: object, redact: Redact | None) -> str | None:
    """The result of a call as JSON; `None` if `redact` leaves it out."""
    return _recorded(result, "response", redact, "tool", type="tool_call_response")


def _recorded(value: object, field: str, redact: Redact | None, role: str, **part: Any) -> str | None:
    """A value as JSON, after `redact` saw it as a field of a part. If that fails, the value is not recorded."""
    if redact is None:
        return as_json(value)
    part[field] = _plain(value)
    try:
        kept = redact(part, role)
        return as_json(kept[field]) if kept is not None and is_part_with(field, kept) else None
    except Exception:
        report_fault(log, "configure", "redact", is_users=True)
        return None


def is_part_with(field: str, kept: object) -> bool:
    """Whether `redact` returned a part with this field. The log says once if it did not."""
    if isinstance(kept, Mapping) and field in kept:
        return True
    if FAULTS.is_new("redact", "returned"):
        returned = f"a part without {field!r}" if isinstance(kept, Mapping) else type(kept).__name__
        log.warning(
            "configure.redact returned %s, which is not recorded; it must return the part, changed or not, or None",
            returned,
        )
    return False


def _plain(value: object) -> object:
    """A value as plain data without secrets, at nearly any length."""
    try:
        return _Writer(_FULL, _MAX_CHARACTERS).plain(value, 0)
    except _TooLongError:
        return {"truncated": True, "type": _class_name(value)}


def plain(value: object, *, text: int, items: int, nodes: int) -> object:
    """A value as plain data without secrets, long strings and large containers cut.

    Args:
        value: anything.
        text: characters of one string.
        items: items of one container.
        nodes: values in all containers together.
    """
    return _Writer(_Shape(text=text, items=items, nodes=nodes), sys.maxsize).plain(value, 0)


def as_json(value: object, *, limit: int = LIMIT) -> str:
    """A value as JSON.

    Args:
        value: anything; objects other than plain values, dataclasses and models of pydantic are named by class.
        limit: the most characters that the result may have; at least 64.
    """
    for shape in _SHAPES:
        try:
            text = _dumps(_Writer(shape, limit).plain(value, 0))
        except _TooLongError:
            continue
        if len(text) <= limit:
            return text
    return _dumps({"truncated": True, "type": _class_name(value)[: limit - 48]})


def named_arguments(
    signature: inspect.Signature, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> dict[str, object] | None:
    """The arguments of a call by name, without `self` and `cls`; `None` if they do not fit the signature."""
    try:
        bound = signature.bind(*args, **kwargs)
    except TypeError:
        return None
    receiver = {"self", "cls"}.intersection([*signature.parameters][:1])
    return {name: value for name, value in bound.arguments.items() if name not in receiver}


@dataclass(frozen=True, kw_only=True, slots=True)
class _Shape:
    """How much of a value is shown."""

    text: int
    """Characters of one string."""
    items: int
    """Items of one container."""
    nodes: int
    """Values in all containers together."""


_SHAPES = (
    _Shape(text=2000, items=100, nodes=1000),
    _Shape(text=500, items=20, nodes=200),
    _Shape(text=100, items=5, nodes=50),
    _Shape(text=30, items=2, nodes=12),
)


_MAX_CHARACTERS = 1_000_000
_FULL = _Shape(text=_MAX_CHARACTERS, items=10_000, nodes=100_000)
"""For the function of the user, which sees a value before it is cut."""


class _TooLongError(Exception):
    """The value has more characters than fit."""


def _dumps(plain: object) -> str:
    """JSON that any exporter can encode: half a surrogate pair is written as its escape."""
    text = json.dumps(plain, ensure_ascii=False, allow_nan=False)
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


class _Writer:
    """Turns a value into what JSON can hold. It looks at the type alone: `isinstance` asks an object, which may lie."""

    def __init__(self, shape: _Shape, limit: int) -> None:
        self._shape = shape
        self._nodes_left = shape.nodes
        self._characters_left = limit
        self._around: set[int] = set()

    def plain(self, value: object, depth: int) -> object:
        self._nodes_left -= 1
        kind = type(value)
        if value is None or kind is bool:
            return value
        if kind is str:
            return self._text(cast("str", value))
        if depth > _MAX_DEPTH or id(value) in self._around or self._nodes_left < 0:
            return "…"
        self._around.add(id(value))
        try:
            return self._other(value, kind, depth)
        except _TooLongError:
            raise
        except Exception:
            # A property failed, or another thread changed a container.
            return f"<{_class_name(value)}: not shown>"
        finally:
            self._around.discard(id(value))

    def _other(self, value: Any, kind: Any, depth: int) -> object:
        if issubclass(kind, enum.Enum):
            return self.plain(value.value, depth + 1)
        if issubclass(kind, str):
            return self._text(str.__str__(value))
        if issubclass(kind, int | float):
            return _number(value)
        if issubclass(kind, bytes | bytearray):
            return f"<{kind.__name__} of {len(value)}>"
        if issubclass(kind, date | time | datetime):
            return value.isoformat()
        if kind in (Decimal, UUID, timedelta):
            return str(value)
        if issubclass(kind, dict):
            return self._mapping(value.items(), len(value), depth)
        if issubclass(kind, list | tuple | set | frozenset | deque):
            names = getattr(cast("Any", kind), "_fields", None)  # of a named tuple
            if names is None:
                return self._items(value, depth)
            return self._mapping(zip(names, value, strict=False), len(value), depth)
        names = _field_names(kind)
        if names is None:
            return f"<{_class_name(value)}>"
        return self._mapping(((name, _field(value, name, shown)) for name, shown in names), len(names), depth)

    def _mapping(self, items: Iterable[tuple[object, object]], count: int, depth: int) -> dict[str, object]:
        shown: dict[str, object] = {}
        named = [(self._name(key, depth), value) for key, value in itertools.islice(items, self._shape.items)]
        hides_value = any(name.lower() in _NAME_NAMES and _is_secret_text(value) for name, value in named)
        for name, value in named:
            if self._nodes_left <= 0:
                break
            hides = is_secret_name(name) or (hides_value and name.lower() in _VALUE_NAMES)
            shown[self._text(name)] = REDACTED if hides else self.plain(value, depth + 1)
        if len(shown) < count:
            shown["…"] = f"{count - len(shown)} more"
        return shown

    def _name(self, key: object, depth: int) -> str:
        if type(key) is str:
            return key
        return key.decode("latin-1") if type(key) is bytes else _dumps(self.plain(key, depth + 1))

    def _items(self, items: Collection[object], depth: int) -> list[object]:
        """A list. In a pair of a name and a value, as a header may be written, the value may be a secret."""
        hides = len(items) == 2 and _is_secret_text(next(iter(items)))
        shown: list[object] = []
        for item in itertools.islice(items, self._shape.items):
            if self._nodes_left <= 0:
                break
            shown.append(REDACTED if hides and shown else self.plain(item, depth + 1))
        if len(shown) < len(items):
            shown.append(f"… {len(items) - len(shown)} more")
        return shown

    def _text(self, text: str) -> str:
        shown = without_secrets(text, self._shape.text)
        self._characters_left -= len(shown)
        if self._characters_left < 0:
            raise _TooLongError
        return shown


_NAME_NAMES = ("name", "key", "header")
_VALUE_NAMES = ("value", "values")
"""Keys of an object that stands for a header or a variable: of its name, and of its value."""


def _is_secret_text(value: object) -> bool:
    if type(value) is bytes:
        return is_secret_name(value.decode("latin-1"))
    return type(value) is str and is_secret_name(value)


def _number(value: int | float) -> object:
    if isinstance(value, int):
        value = int(value)
        return value if value.bit_length() <= _MAX_BITS else f"<int of {value.bit_length()} bits>"
    value = float(value)
    return value if math.isfinite(value) else str(value)


def _field_names(kind: Any) -> list[tuple[str, bool]] | None:
    """The fields of a dataclass or of a model of pydantic, and whether its `repr` shows them."""
    if is_dataclass(kind):
        return [(field.name, field.repr) for field in fields(kind)]
    model_fields = getattr(kind, "model_fields", None)
    if not isinstance(model_fields, dict):
        return None
    named = cast("dict[str, object]", model_fields)
    return [(name, getattr(field, "repr", True) is not False) for name, field in named.items()]


def _field(value: object, name: str, is_shown: bool) -> object:
    """The value that the object stores, if it stores one: looking up an attribute may run code."""
    if not is_shown:
        return REDACTED
    kept = getattr(value, "__dict__", {})
    return kept[name] if name in kept else getattr(value, name, None)


def _class_name(value: object) -> str:
    kind = type(value)
    return f"{kind.__module__}.{kind.__qualname__}"
