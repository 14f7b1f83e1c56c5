"""Re-exports `tracemind_otel.ai.llm.pricing`."""

from __future__ import annotations

from tracemind_otel.ai.llm.pricing import estimate_cost

__all__ = ["estimate_cost"]
