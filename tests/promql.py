"""The metrics and labels that a PromQL expression reads, and whether it loses the first samples of a counter."""

from __future__ import annotations

import re

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
    r"\( \( last_over_time\((?P<metric>\w+(?:\{[^}]*\})?)\[(?P<window>\w+)\]\) - "
    r"last_over_time\((?P=metric)\[1h\] offset (?P=window)\) >= 0 unless resets\((?P=metric)\[\w+\]\) > 0 \) "
    r"or \(increase\((?P=metric)\[(?P=window)\]\) >= 0 and resets\((?P=metric)\[\w+\]\) > 0 "
    r"and last_over_time\((?P=metric)\[1h\] offset (?P=window)\)\) "
    r"or last_over_time\((?P=metric)\[(?P=window)\]\) >= 0 \)"
)
"""The form that counts a process of any age."""


def metric_names(expression: str) -> set[str]:
    """The names of the metrics that an expression reads."""
    bare = _NOT_A_METRIC.sub(" ", expression)
    return {name for name in _NAME.findall(bare) if name not in _WORDS}


def label_names(expression: str) -> set[str]:
    """The names of the labels by which an expression filters, groups or matches."""
    matched = re.findall(r"([A-Za-z_]\w*)\s*(?:=~|!~|!=|=)\s*\"", expression)
    lists = re.findall(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\(([^)]*)\)", expression)
    replaced = re.findall(r'label_replace\(.*?, "(\w+)", "[^"]*", "(\w*)", "[^"]*"\)', " ".join(expression.split()))
    listed = [name.strip() for names in lists for name in names.split(",")]
    return {name for name in (*matched, *listed, *(each for pair in replaced for each in pair)) if name}


def loses_first_samples(expression: str) -> bool:
    """Whether it takes the increase of a counter other than in the form that counts a process of any age."""
    rest = _WHOLE.sub("whole", " ".join(expression.split()))
    return re.search(r"\b(?:increase|rate|irate|delta|idelta)\s*\(", rest) is not None
