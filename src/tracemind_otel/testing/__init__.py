"""Tools for the tests of an application: what it recorded, in memory, and a pytest plugin.

`captured` needs no test framework. The plugin has the fixtures `llm_spans` and `fake_llm`, the marker `llm_budget` and
the options `--llm-cost-report` and `--llm-cost-baseline`. Names are loaded on first use: pytest imports this package
in every run of an environment that has it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .capturing import Captured, captured
    from .recorded_spans import EventDict, LLMSpans, MetricDict, SpanDict
    from .scripted_provider import FakeLLM

__all__ = ["Captured", "EventDict", "FakeLLM", "LLMSpans", "MetricDict", "SpanDict", "captured"]

_MODULE_OF = {
    "Captured": "capturing",
    "EventDict": "recorded_spans",
    "FakeLLM": "scripted_provider",
    "LLMSpans": "recorded_spans",
    "MetricDict": "recorded_spans",
    "SpanDict": "recorded_spans",
    "captured": "capturing",
}


def __getattr__(name: str) -> object:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_MODULE_OF[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
