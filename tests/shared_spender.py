"""A process that spends a shared budget, for test_shared_budgets.py: `STATE BASE_URL SCRIPT CALLS LEASE_S LIMIT`.

It makes so many calls at once, again and again, until the budget denies one, and prints a JSON line. With `max_tokens`
each call limits its output; with `reserve` none does, and the budget declares what each reserves.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys

import tracemind_otel as tm
from tracemind_otel.flows.shared.states import state_at, use_state

NAME = "team-a"
LIMIT_USD = 0.03
MAX_TOKENS = 40
RESERVE_USD = 0.00003
"""What a call may cost that does not limit its output: 40 tokens of output, and some of input."""


async def spend(script: str, calls: int, limit: str) -> dict[str, int]:
    """Call until a call is denied."""
    max_tokens, reserve_usd = (MAX_TOKENS, None) if limit == "max_tokens" else (None, RESERVE_USD)
    ends = {"answered": 0, "denied": 0, "failed": 0, "unasked": 0}

    async def one() -> None:
        try:
            await tm.llm_call("openai/gpt-4o-mini", script, max_tokens=max_tokens, max_retries=0)
            ends["answered"] += 1
        except tm.BudgetExceededError as error:
            ends["denied"] += 1
            if "cannot be asked" in str(error):
                ends["unasked"] += 1
        except tm.LLMError:
            ends["failed"] += 1

    while not ends["denied"]:
        with tm.budget(name=NAME, max_cost_usd=LIMIT_USD, per="365d", reserve_cost_usd=reserve_usd):
            await asyncio.gather(*(one() for _ in range(calls)))
    return ends


def main() -> None:
    """Spend, and print what became of the calls."""
    state, base_url, script, calls, lease_s, limit = sys.argv[1:]
    os.environ |= {"OPENAI_BASE_URL": base_url, "OPENAI_API_KEY": "sk-none"}
    use_state(state_at(state, timeout_s=30, lease_s=float(lease_s)))
    print(json.dumps(asyncio.run(spend(script, int(calls), limit))), flush=True)


if __name__ == "__main__":
    main()
