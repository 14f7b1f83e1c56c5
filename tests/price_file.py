"""Writes the packaged price table from the installed `genai-prices`: `python -m tests.price_file`."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

from tracemind_otel.ai.llm import pricing
from tracemind_otel.ai.llm.pricing.installed import installed_table
from tracemind_otel.ai.llm.pricing.table_file import PACKAGED, packaged_form

FILE = Path(pricing.__file__).with_name(PACKAGED)


def licence() -> str:
    """The library's licence, which copies of its data must include."""
    files = metadata.files("genai-prices") or []
    return next(file.read_text() for file in files if file.name == "LICENSE")


def expected() -> bytes:
    """The packaged table of the installed version."""
    return packaged_form(installed_table(metadata.version("genai-prices"), licence()))


if __name__ == "__main__":
    FILE.write_bytes(expected())
