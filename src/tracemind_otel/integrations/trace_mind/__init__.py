"""The trace-mind runtime (PyPI `trace-mind`, import name `tm`): its runs as traces.

`instrument_flow(flow)` traces one flow by the runtime's public API.
"""

from __future__ import annotations

from .traced_flow import TracedFlow, instrument_flow

__all__ = ["TracedFlow", "instrument_flow"]
