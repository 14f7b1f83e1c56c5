"""Where the compact table comes from: the packaged file, if it is that of the installed `genai-prices`, else its data.

The packaged file has the data of the version that was the newest at release. A user may have installed another one,
whose data is then read from the library's own file. Nothing is written anywhere.
"""

from __future__ import annotations

import logging
import pkgutil
import zlib
from collections.abc import Iterable
from importlib import metadata

from .compact_table import CompactTable

log = logging.getLogger(__name__)

PACKAGED = "genai_prices.jsonl"
"""The packaged file; `python -m tests.price_file` makes it."""


def compact_table() -> CompactTable | None:
    """The compact table of the installed version; `None` if only the library itself can price its data."""
    version, packaged = metadata.version("genai-prices"), _packaged_table()
    if packaged is not None and packaged.version == version:
        return packaged
    if packaged is not None and _series(packaged.version) != _series(version):
        log.debug("genai-prices %s may compute prices in a new way; the library itself is used", version)
        return None
    from .installed import UnsupportedDataError, installed_table

    try:
        return CompactTable(list(installed_table(version)))
    except UnsupportedDataError as error:
        log.debug("the library itself is used for prices: %s", error)
        return None


def _series(version: str) -> list[str]:
    """The first two numbers of a version, which change when the library changes what its data means."""
    return version.split(".")[:2]


def _packaged_table() -> CompactTable | None:
    try:
        content = pkgutil.get_data(__name__.rpartition(".")[0], PACKAGED) or b""
        checksum, _, table = content.partition(b"\n")
        return CompactTable(table.splitlines()) if checksum == _checksum(table) else None
    except OSError as error:
        log.debug("the packaged price table cannot be read: %s", error)
        return None


def packaged_form(lines: Iterable[str]) -> bytes:
    """The content of the packaged file."""
    table = "\n".join(lines).encode("ascii") + b"\n"
    return _checksum(table) + b"\n" + table


def _checksum(table: bytes) -> bytes:
    return b"%08x" % zlib.crc32(table)
