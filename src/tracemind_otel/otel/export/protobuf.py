"""The wire format of protobuf: tags, varints and fields with a length. Pure functions from values to bytes."""

from __future__ import annotations

MAX_UINT64 = 2**64 - 1


def _encoded_varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


_SMALL_VARINTS = tuple(map(_encoded_varint, range(4096)))
"""Most lengths and counts are small."""


def varint(value: int) -> bytes:
    """An unsigned integer. A negative one is written in 64 bits, as protobuf writes `int64`."""
    if 0 <= value < 4096:
        return _SMALL_VARINTS[value]
    return _encoded_varint(value & MAX_UINT64)


def length_tag(field: int) -> bytes:
    """The tag of a field that begins with its length: a string, bytes or a message."""
    return varint(field << 3 | 2)


def length_delimited(tag: bytes, value: bytes) -> bytes:
    """A string, bytes or a message as a field."""
    return tag + varint(len(value)) + value
