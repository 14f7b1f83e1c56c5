"""Objects of frozen dataclasses, made in half the time where every call makes one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

T = TypeVar("T")


def of_fields(cls: type[T], some: Mapping[str, Any], **others: Any) -> T:
    """An object of a frozen dataclass without slots that has these fields, and its class's defaults for the rest.

    The generated `__init__` of such a class sets each field by a function call. This checks nothing, so it must be
    given every field that has no default or a default factory.
    """
    made = object.__new__(cls)
    vars(made).update(some, **others)
    return made
