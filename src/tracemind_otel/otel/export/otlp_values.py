"""Encodes attribute values, attributes, resources and instrumentation scopes as OTLP.

The same few keys and values occur in every span, so their bytes are kept. What is kept is bounded in number and in
length, because keys and values come from users too: a key with many values, such as an id or a prompt, keeps none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar, cast

from .protobuf import (
    MAX_INT64,
    MIN_INT64,
    as_string,
    fixed64_tag,
    length_tag,
    optional_string,
    pack_double,
    prefixed,
    utf8,
    varint,
    varint_tag,
)

if TYPE_CHECKING:
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.util.instrumentation import InstrumentationScope

T = TypeVar("T")

Attributes = Mapping[str, Any]

MAX_DEPTH = 24
"""The deepest nesting of arrays and maps; protobuf's own parsers reject a message with more than 100 levels."""
_MAX_KEYS = 512
"""Keys whose bytes are kept."""
_MAX_VALUES = 32
"""Values of a key whose bytes are kept; a key with more keeps none."""
_MAX_LENGTH = 48
"""Characters of a key or a value whose bytes are kept."""
_MAX_SOURCES = 64
"""Resources, and scopes, whose bytes are kept: a process has a few."""

_KEY = length_tag(1)
_VALUE = length_tag(2)
_STRING = length_tag(1)
_BOOL = varint_tag(2)
_INT = varint_tag(3)
_DOUBLE = fixed64_tag(4)
_ARRAY = length_tag(5)
_MAP = length_tag(6)
_BYTES = length_tag(7)
_ITEM = length_tag(1)
_TRUE = _BOOL + b"\x01"
_FALSE = _BOOL + b"\x00"
_CUT = _STRING + prefixed(utf8("…"))
_DOUBLE_VALUE = _VALUE + b"\x09" + _DOUBLE


# --- Values ---


def any_value(value: object, depth: int = MAX_DEPTH) -> bytes:
    """An AnyValue, without tag and length. What OTLP cannot hold becomes a string.

    Args:
        value: what the SDK allows: a string, a bool, a number, bytes, an array or a map of these, or `None`.
        depth: how many arrays and maps may still be inside each other; what is deeper is cut off.
    """
    encode = _ENCODERS.get(type(value)) or _encoder_of(value)
    return encode(value, depth)


def _none(_value: None, _depth: int) -> bytes:
    return b""


def _string(value: object, _depth: int) -> bytes:
    return _STRING + prefixed(utf8(value))


def _bool(value: bool, _depth: int) -> bytes:
    return _TRUE if value else _FALSE


def _int(value: int, depth: int) -> bytes:
    return _INT + varint(value) if MIN_INT64 <= value <= MAX_INT64 else _string(as_string(value), depth)


def _double(value: float, _depth: int) -> bytes:
    return _DOUBLE + pack_double(value)


def _bytes(value: bytes, _depth: int) -> bytes:
    return _BYTES + prefixed(value)


def _array(value: Sequence[object], depth: int) -> bytes:
    if not depth:
        return _CUT
    return _ARRAY + prefixed(b"".join([_ITEM + prefixed(any_value(item, depth - 1)) for item in value]))


def _map(value: Mapping[object, object], depth: int) -> bytes:
    if not depth:
        return _CUT
    pairs = [_ITEM + _pair(utf8(key), any_value(item, depth - 1)) for key, item in value.items()]
    return _MAP + prefixed(b"".join(pairs))


_ENCODERS: dict[type, Callable[[Any, int], bytes]] = {
    str: _string,
    bool: _bool,
    int: _int,
    float: _double,
    bytes: _bytes,
    tuple: _array,
    list: _array,
    dict: _map,
    type(None): _none,
}


def _encoder_of(value: object) -> Callable[[Any, int], bytes]:
    """The encoder of a subclass, such as an enum that is a string; of any other class, that of strings."""
    for base in (str, int, float, bytes):
        if isinstance(value, base):
            return _ENCODERS[base]
    if isinstance(value, Sequence):
        return _array
    return _map if isinstance(value, Mapping) else _string


def _pair(key: bytes, value: bytes) -> bytes:
    """A KeyValue after its length, as it follows its tag."""
    return prefixed(_KEY + prefixed(key) + _VALUE + prefixed(value))


# --- Attributes ---


class _Key:
    """An attribute's key, with the bytes of the values that it had before."""

    __slots__ = ("double_head", "encoded", "is_varied", "kept")

    def __init__(self, key: object) -> None:
        self.encoded = _KEY + prefixed(utf8(key))
        self.double_head = varint(len(self.encoded) + len(_DOUBLE_VALUE) + 8) + self.encoded + _DOUBLE_VALUE
        self.kept: dict[object, bytes] = {}
        self.is_varied = False

    def pair(self, value: object) -> bytes:
        """The key with a value, as a KeyValue after its length."""
        return prefixed(self.encoded + _VALUE + prefixed(any_value(value)))

    def kept_pair(self, value: object) -> bytes:
        """The same, kept for the next time unless the key has many values."""
        pair = self.pair(value)
        if not self.is_varied:
            if len(self.kept) < _MAX_VALUES:
                self.kept[value] = pair
            else:
                self.is_varied = True
                self.kept = {}
        return pair


_keys: dict[str, _Key] = {}


def _new_key(name: object) -> _Key:
    key = _Key(name)
    if isinstance(name, str) and len(name) <= _MAX_LENGTH:
        if len(_keys) >= _MAX_KEYS:
            _keys.clear()
        _keys[name] = key
    return key


def attributes_fields(tag: bytes, attributes: Attributes | None) -> bytes:
    """Attributes as the repeated field of this tag."""
    if not attributes:
        return b""
    fields = [b""]  # so that joining puts the tag before each of the others
    add = fields.append
    for name, value in _plain(attributes).items():
        key = _keys.get(name) or _new_key(name)
        if type(value) is float:
            add(key.double_head + pack_double(value))
        elif type(value) is int or (type(value) is str and len(value) <= _MAX_LENGTH) or _is_one_name(value):
            add(key.kept.get(value) or key.kept_pair(value))
        else:
            add(key.pair(value))
    return tag.join(fields)


def _is_one_name(value: object) -> bool:
    """Whether it is an array of one short string, as finish reasons are. Numbers are left out: (1,) equals (True,)."""
    if type(value) is not tuple or len(cast("tuple[object, ...]", value)) != 1:
        return False
    [name] = cast("tuple[object]", value)
    return type(name) is str and len(name) <= _MAX_LENGTH


def _plain(attributes: Any) -> dict[str, object]:
    """A copy as a plain dict: the mappings of the SDK are slow to iterate and take a lock."""
    try:
        copy: dict[str, object] = attributes.copy()
    except AttributeError:
        return dict(attributes)
    return copy


# --- Resources and scopes ---

_RESOURCE = length_tag(1)
_RESOURCE_ATTRIBUTES = length_tag(1)
_SCOPE = length_tag(1)
_SCOPE_NAME = length_tag(1)
_SCOPE_VERSION = length_tag(2)
_SCOPE_ATTRIBUTES = length_tag(3)
_SCHEMA_URL = length_tag(3)
_NO_SCOPE = _SCOPE + prefixed(b"")

_resources: dict[int, tuple[Resource, bytes]] = {}
_scopes: dict[int, tuple[InstrumentationScope, bytes]] = {}
"""By identity, because hashing a resource costs more than encoding a span; the object is held, so that no
other one gets its id."""


def resource_fields(resource: Resource) -> bytes:
    """The fields `resource` and `schema_url` of ResourceSpans, ResourceMetrics and ResourceLogs."""
    kept = _resources.get(id(resource))
    return kept[1] if kept else _keep(_resources, resource, _encoded_resource(resource))


def scope_fields(scope: InstrumentationScope | None) -> bytes:
    """The fields `scope` and `schema_url` of ScopeSpans, ScopeMetrics and ScopeLogs."""
    if scope is None:
        return _NO_SCOPE
    kept = _scopes.get(id(scope))
    return kept[1] if kept else _keep(_scopes, scope, _encoded_scope(scope))


def _keep(kept: dict[int, tuple[T, bytes]], source: T, encoded: bytes) -> bytes:
    if len(kept) >= _MAX_SOURCES:
        kept.clear()
    kept[id(source)] = (source, encoded)
    return encoded


def _encoded_resource(resource: Resource) -> bytes:
    attributes = attributes_fields(_RESOURCE_ATTRIBUTES, resource.attributes)
    return _RESOURCE + prefixed(attributes) + optional_string(_SCHEMA_URL, resource.schema_url)


def _encoded_scope(scope: InstrumentationScope) -> bytes:
    name = optional_string(_SCOPE_NAME, scope.name) + optional_string(_SCOPE_VERSION, scope.version)
    attributes = attributes_fields(_SCOPE_ATTRIBUTES, scope.attributes)
    return _SCOPE + prefixed(name + attributes) + optional_string(_SCHEMA_URL, scope.schema_url)
