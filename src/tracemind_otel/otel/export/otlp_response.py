"""What a receiver's answer says in its body: rejected items, the message of an error, and how long to wait."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, cast

Field = tuple[int, int | bytes]
"""The number of a protobuf field, and its value."""

_VARINT, _FIXED_64, _LENGTH_DELIMITED, _FIXED_32 = 0, 1, 2, 5
_RETRY_INFO = b"type.googleapis.com/google.rpc.RetryInfo"


def partial_success(body: bytes, *, is_json: bool) -> tuple[int, str]:
    """The number of items that the receiver rejected of a request that it took, and its message.

    A body that cannot be read says nothing: the status has said that the request was taken.
    """
    if is_json:
        told = _member(_document(body), "partialSuccess", "partial_success")
        counts = [value for name, value in told.items() if name.startswith("rejected")]
        message = _member_string(told, "errorMessage", "error_message")
        return _count(counts[0] if counts else 0), message
    told_fields = _message(_fields(body), 1)
    rejected = next((value for number, value in told_fields if number == 1 and isinstance(value, int)), 0)
    return _count(rejected if rejected < 2**63 else 0), _string(told_fields, 2)


def error_message(body: bytes, *, is_json: bool) -> str:
    """The message of a `google.rpc.Status`, the body of an OTLP error; empty where there is none."""
    return _member_string(_document(body), "message") if is_json else _string(_fields(body), 2)


def retry_delay_s(retry_info: bytes) -> float | None:
    """The seconds that a `google.rpc.RetryInfo` asks to wait."""
    delays = [_fields(value) for number, value in _fields(retry_info) if number == 1 and isinstance(value, bytes)]
    duration = dict(delays[0]) if delays else {1: None}
    seconds, nanos = duration.get(1, 0), duration.get(2, 0)
    if not isinstance(seconds, int) or not isinstance(nanos, int) or max(seconds, nanos) >= 2**63:
        return None  # there is none, or it is negative
    return seconds + nanos / 1e9


def retry_delay_in_status_s(status: bytes) -> float | None:
    """The same for a `google.rpc.Status` that has a RetryInfo among its details."""
    details = [_fields(value) for number, value in _fields(status) if number == 3 and isinstance(value, bytes)]
    infos = [dict(detail).get(2) for detail in details if (1, _RETRY_INFO) in detail]
    return next((retry_delay_s(info) for info in infos if isinstance(info, bytes)), None)


def _count(value: object) -> int:
    try:
        return max(int(cast("Any", value)), 0)
    except (TypeError, ValueError, OverflowError):
        return 0


# --- JSON ---


def _document(body: bytes) -> object:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def _member(document: object, *names: str) -> dict[str, Any]:
    members = cast("dict[str, Any]", document) if isinstance(document, dict) else {}
    found: object = next((members[name] for name in names if name in members), None)
    return cast("dict[str, Any]", found) if isinstance(found, dict) else {}


def _member_string(document: object, *names: str) -> str:
    members = cast("dict[str, Any]", document) if isinstance(document, dict) else {}
    return next((value for name in names if isinstance(value := members.get(name), str)), "")


# --- Protobuf ---


def _message(fields: list[Field], number: int) -> list[Field]:
    """The fields of an embedded message."""
    return _fields(next((value for n, value in fields if n == number and isinstance(value, bytes)), b""))


def _string(fields: list[Field], number: int) -> str:
    return next(
        (value.decode("utf-8", "replace") for n, value in fields if n == number and isinstance(value, bytes)), ""
    )


def _fields(message: bytes) -> list[Field]:
    """The fields of a message; none if the bytes are no message."""
    try:
        return [*_read_fields(message)]
    except (IndexError, ValueError):
        return []


def _read_fields(message: bytes) -> Iterator[Field]:
    position = 0
    while position < len(message):
        tag, position = _read_varint(message, position)
        number, kind = tag >> 3, tag & 7
        if kind == _VARINT:
            value, position = _read_varint(message, position)
            yield number, value
            continue
        size = {_FIXED_64: 8, _FIXED_32: 4}.get(kind)
        if kind == _LENGTH_DELIMITED:
            size, position = _read_varint(message, position)
        if size is None or position + size > len(message):
            raise ValueError("no protobuf message")
        yield number, message[position : position + size]
        position += size


def _read_varint(message: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
        if shift > 63:
            raise ValueError("no varint")
