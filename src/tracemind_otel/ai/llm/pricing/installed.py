"""The data of the installed `genai-prices` as plain rows, read without the library.

The library's data is a Python module that calls constructors, which it imports from `.types`. Importing it through the
library costs ten times as much as the data alone, because of pydantic and an HTTP client. Here importlib executes the
same file as a module of ours, whose `.types` are constructors of plain rows. Python caches the compiled file as for any
import.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from importlib import util
from pathlib import Path
from types import ModuleType
from typing import Any

from . import library_constructors
from .table_usage import field_of_unit

__all__ = ("UnsupportedDataError", "installed_table")


class UnsupportedDataError(Exception):
    """The library's data has something that only the library can price."""


def installed_table(version: str, notice: str = "") -> Iterator[str]:
    """The lines of the compact form of the installed data: a header, then the models of each provider.

    Args:
        version: the version of the installed `genai-prices`.
        notice: a note to readers of the header, such as a licence.

    Raises:
        UnsupportedDataError: only the library can price this data.
    """
    units: Mapping[str, Mapping[str, Any]] = _executed("data_units").unit_data
    providers: list[list[Any]] = _executed("data").providers
    rows = {unit["price_key"]: [key, unit["per"], unit["dimensions"]] for key, unit in units.items()}
    known = {key for key, (name, *_) in rows.items() if name == "requests" or field_of_unit(name)}
    if unknown := _keys_used(providers) - known:
        raise UnsupportedDataError(f"the data of genai-prices has new units: {', '.join(sorted(unknown))}")
    header = {
        "notice": notice,
        "version": version,
        "units": rows,
        "providers": [provider[:4] for provider in providers],
    }
    yield _line(header)
    for provider in providers:
        yield _line(provider[4])


def _keys_used(providers: list[list[Any]]) -> set[str]:
    models = [model for provider in providers for model in provider[4]]
    return {key for *_, dated, variants in models for row in (*dated, *variants) for key in row[-1]}


def _line(value: object) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=True)


def _executed(name: str) -> ModuleType:
    """A module of the library that only holds data, executed in this package."""
    library = util.find_spec("genai_prices")
    if library is None or not library.submodule_search_locations:
        raise UnsupportedDataError("genai-prices is not a package of files")
    path = Path(library.submodule_search_locations[0], f"{name}.py")
    spec = util.spec_from_file_location(f"{__name__}.{name}", path)
    if spec is None or spec.loader is None or not path.is_file():
        raise UnsupportedDataError(f"genai-prices has no {path.name}")
    module = util.module_from_spec(spec)
    sys.modules[f"{__name__}.types"] = library_constructors
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise UnsupportedDataError(f"{path.name} of genai-prices has a new form: {error!r}") from error
    return module
