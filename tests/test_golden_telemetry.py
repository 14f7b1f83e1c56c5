"""The whole telemetry stays as dashboards read it: every kind of span, event and metric is in a golden file."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).parent


def test_the_telemetry_is_what_it_was() -> None:
    """Names, attributes, parents, events, sums and units equal the golden file, which `tests/golden.py` renews."""
    command = [sys.executable, str(TESTS / "golden.py")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=True)
    golden = json.loads((TESTS / "data" / "golden_telemetry.json").read_text())
    assert json.loads(done.stdout) == golden
