"""Which names the telemetry has: what `OTEL_SEMCONV_STABILITY_OPT_IN` asks for."""

from __future__ import annotations

import os
from typing import Literal

MetricNames = Literal["legacy", "latest", "both"]
"""Which names of the GenAI metrics are sent."""

OPT_IN_VARIABLE = "OTEL_SEMCONV_STABILITY_OPT_IN"

_LATEST = "gen_ai_latest_experimental"
_COST = "gen_ai_cost"


def latest_cost_names() -> bool:
    """Whether the cost gets the names that the conventions are about to adopt."""
    return _COST in _opted_in()


def metric_names() -> MetricNames:
    """Which metric names the variable asks for; values for other conventions are ignored."""
    values = _opted_in()
    if f"{_LATEST}/dup" in values:
        return "both"
    return "latest" if _LATEST in values else "legacy"


def _opted_in() -> set[str]:
    return {value.strip() for value in os.getenv(OPT_IN_VARIABLE, "").split(",")}
