"""Re-exports `tracemind_otel.recipes.llm_call_example`, and runs it as a module."""

from __future__ import annotations

import asyncio

from tracemind_otel.recipes.llm_call_example import PrintRecorder, main

__all__ = ["PrintRecorder", "main"]

if __name__ == "__main__":
    asyncio.run(main())
