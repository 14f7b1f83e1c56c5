"""How long a reservation takes in a shared state: `python benchmarks/shared_budget.py STATE_URL [COUNT]`.

It reserves and settles one call after the other from an event loop, through the thread of the state, and prints
milliseconds. It says nothing unless the machine is idle: a busy one gives the thread its turn late.
"""

from __future__ import annotations

import asyncio
import sys
import time

from tracemind_otel.flows.shared.state_port import Account, Reserve, Settle, Sums
from tracemind_otel.flows.shared.states import state_at

ACCOUNT = Account("benchmark", "", 86_400)


async def reservations_ms(url: str, count: int) -> list[float]:
    """The time of each reservation, sorted."""
    client = state_at(url, timeout_s=5)
    if client is None:
        raise SystemExit("pass the URL of a state")
    took: list[float] = []
    for _ in range(count):
        order = Reserve(ACCOUNT, (10**15, None, None), Sums(5, 10, 1), is_call=True)
        began = time.perf_counter()
        answer = await asyncio.wrap_future(client.ask(order))
        took.append((time.perf_counter() - began) * 1e3)
        client.settle(Settle(ACCOUNT, answer.window, order.wanted, Sums(4, 9, 1)))
        await asyncio.sleep(0.001)
    client.close()
    return sorted(took)


def main() -> None:
    """Measure, and print."""
    url, count = sys.argv[1], int((sys.argv[2:] or ["3000"])[0])
    took = asyncio.run(reservations_ms(url, count))
    shown = {name: took[int(len(took) * part)] for name, part in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99))}
    print(url.partition(":")[0], *(f"{name} {value:.3f} ms" for name, value in shown.items()), f"max {took[-1]:.3f} ms")


if __name__ == "__main__":
    main()
