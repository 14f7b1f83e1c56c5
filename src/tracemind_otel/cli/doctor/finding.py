"""What a check returns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Severity = Literal["error", "warning"]
"""An error loses spans, cost or calls, and makes the exit code 1. A warning is worth a look."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong."""

    check: str
    """A stable name for scripts, such as `unreachable`."""
    severity: Severity
    """How much it matters."""
    what: str
    """What is the case, and where. It never holds the value of a key or of a header."""
    fix: str
    """What to do about it."""
