"""Imports in a thread of our own, which a fork must not interrupt."""

from __future__ import annotations

import importlib
import threading
from typing import Any

from ..._base.fork import hold_over_fork

_importing = threading.RLock()

# A child that is forked in the middle of an import waits for the rest of it for ever.
hold_over_fork(_importing, timeout_s=10.0)


def late_import(*names: str) -> Any:
    """Import modules; returns the first."""
    with _importing:
        first, *_ = [importlib.import_module(name) for name in names]
        return first
