"""The trace-mind runtime (PyPI `trace-mind`, import name `tm`): its runs as traces.

`instrument_flow(flow)` traces one flow by the runtime's public API, and `TraceMindInstrumentor().instrument()` every
flow of a program. `llm_call_step` is our `ai.llm_call` as a step of its flows and recipes.
"""

from __future__ import annotations

from .model_step import llm_call_step, register_llm_call
from .runtime_instrumentor import TraceMindInstrumentor
from .stored_runs import import_runs
from .traced_flow import TracedFlow, instrument_flow

__all__ = [
    "TraceMindInstrumentor",
    "TracedFlow",
    "import_runs",
    "instrument_flow",
    "llm_call_step",
    "register_llm_call",
]
