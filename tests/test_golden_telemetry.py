"""The telemetry as a whole stays what dashboards read: every kind of span, event and metric, against a golden file."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).parent


def test_the_telemetry_is_what_it_was() -> None:
    """Names, attributes, parents, events, sums and units are those of the golden file; `tests/golden.py` renews it."""
    command = [sys.executable, str(TESTS / "golden.py")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=True)
    golden = json.loads((TESTS / "data" / "golden_telemetry.json").read_text())
    assert json.loads(done.stdout) == golden
