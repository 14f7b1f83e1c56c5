"""The command line: `tracemind-otel demo` and `view`."""

from __future__ import annotations

from .main import main

__all__ = ["main"]
