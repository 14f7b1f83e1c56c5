"""Decompresses the body of a reply, piece by piece as it comes."""

from __future__ import annotations

import importlib
import logging
import zlib
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from ...._base.once import Once

log = logging.getLogger(__name__)

_GZIP_OR_ZLIB = 47
"""`wbits` for either, told apart by their headers."""
_RAW = -15
"""`wbits` for data without a header, which some servers send as deflate."""


class UndecodableError(Exception):
    """A body is not compressed as its headers say."""


_UNREADABLE = Once()
"""Encodings that were logged as not readable."""


class Decoder(Protocol):
    """Decompresses a body as it comes."""

    def decompress(self, data: bytes, /) -> bytes:
        """The bytes that are complete now."""
        ...


class _Plain:
    def decompress(self, data: bytes, /) -> bytes:
        return data


class _Members:
    """Decompresses members that follow one another, as gzip and Zstandard have them.

    Args:
        new: makes the decoder of one member.
    """

    def __init__(self, new: Callable[[], Any]) -> None:
        self._new = new
        self._member = new()

    def decompress(self, data: bytes, /) -> bytes:
        found: bytes = self._member.decompress(data)
        while self._member.eof and (rest := self._member.unused_data):
            self._member = self._new()
            found += self._member.decompress(rest)
        return found


class _Deflate:
    """Decompresses deflate, which comes with zlib's header or without."""

    def __init__(self) -> None:
        self._decoder = zlib.decompressobj(_GZIP_OR_ZLIB)
        self._begun = b""
        """The first bytes, as long as they may be no header."""
        self._is_known = False

    def decompress(self, data: bytes, /) -> bytes:
        try:
            found = self._decoder.decompress(data)
        except zlib.error:
            if self._is_known:
                raise
            self._is_known, self._decoder = True, zlib.decompressobj(_RAW)
            return self._decoder.decompress(self._begun + data)
        self._begun, self._is_known = self._begun + data, self._is_known or bool(found)
        if self._is_known:
            self._begun = b""
        return found


class _Brotli:
    def __init__(self, library: Any) -> None:
        decoder = library.Decompressor()
        self.decompress: Callable[[bytes], bytes] = getattr(decoder, "decompress", None) or decoder.process


class _Chain:
    """Undoes several encodings, the last one first."""

    def __init__(self, decoders: Sequence[Decoder]) -> None:
        self._decoders = decoders

    def decompress(self, data: bytes, /) -> bytes:
        for decoder in self._decoders:
            data = decoder.decompress(data)
        return data


def decoder_for(encoding: str) -> Decoder | None:
    """The decoder for the value of a `content-encoding` header; `None` where one is unknown or its library is missing.

    The log says so once for each encoding.
    """
    if not encoding:
        return _Plain()
    names = [name.strip().lower() for name in encoding.split(",")]
    decoders = [decoder for name in reversed(names) if (decoder := _decoder_of(name)) is not None]
    if len(decoders) == len(names):
        return decoders[0] if len(decoders) == 1 else _Chain(decoders)
    if _UNREADABLE.is_new(encoding):
        log.warning(
            "replies that are compressed with %s have no tokens and no cost: tracemind-otel cannot decompress them. %s",
            encoding,
            "Install brotli or zstandard, or ask the server for gzip (the header Accept-Encoding)",
        )
    return None


def _decoder_of(encoding: str) -> Decoder | None:
    match encoding:
        case "" | "identity":
            return _Plain()
        case "gzip" | "x-gzip":
            return _Members(lambda: zlib.decompressobj(_GZIP_OR_ZLIB))
        case "deflate":
            return _Deflate()
        case "br":
            library = _installed("brotli") or _installed("brotlicffi")
            return None if library is None else _Brotli(library)
        case "zstd":
            library = _installed("zstandard")
            return None if library is None else _Members(lambda: library.ZstdDecompressor().decompressobj())
        case _:
            return None


def _installed(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        return None
