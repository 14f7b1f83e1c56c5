"""Writes docs/backends.md from the table of backends: `python -m tests.backends_page`."""

from __future__ import annotations

from tests.pages import DOCS
from tracemind_otel.otel.backends.words import backends_page

PAGE = DOCS / "backends.md"

if __name__ == "__main__":
    PAGE.write_text(backends_page(), encoding="utf-8")
