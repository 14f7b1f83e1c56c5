"""The metrics that a PromQL expression reads, and whether it loses the first samples of a counter."""

from __future__ import annotations

import json
import re
from pathlib import Path

_WORDS = {"and", "or", "unless", "offset", "bool"}
_NOT_A_METRIC = re.compile(
    r'"(?:[^"\\]|\\.)*"'
    r"|\{[^}]*\}"
    r"|\[[^\]]*\]"
    r"|\boffset\s+\w+"
    r"|\b(?:by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)"
)
_NAME = re.compile(r"[A-Za-z_:][\w:]*(?!\s*\(|[\w:])")
_WHOLE = re.compile(
    r"\( \( last_over_time\((?P<metric>\w+)\[(?P<window>\w+)\]\) - "
    r"last_over_time\((?P=metric)\[1h\] offset (?P=window)\) >= 0 unless resets\((?P=metric)\[\w+\]\) > 0 \) "
    r"or \(increase\((?P=metric)\[(?P=window)\]\) and last_over_time\((?P=metric)\[1h\] offset (?P=window)\)\) "
    r"or last_over_time\((?P=metric)\[(?P=window)\]\) \)"
)
"""The form that counts a process of any age."""


def metric_names(expression: str) -> set[str]:
    """The names of the metrics that an expression reads."""
    bare = _NOT_A_METRIC.sub(" ", expression)
    return {name for name in _NAME.findall(bare) if name not in _WORDS}


def loses_first_samples(expression: str) -> bool:
    """Whether it takes the increase of a counter other than in the form that counts a process of any age."""
    rest = _WHOLE.sub("whole", " ".join(expression.split()))
    return re.search(r"\b(?:increase|rate|irate|delta|idelta)\s*\(", rest) is not None


def panels(dashboard: Path) -> dict[str, str]:
    """The expression of each panel of a Grafana dashboard, by the panel's title."""
    found: dict[str, str] = {}
    for panel in json.loads(dashboard.read_text())["panels"]:
        (target,) = panel["targets"]
        found[panel["title"]] = target["expr"]
    return found
