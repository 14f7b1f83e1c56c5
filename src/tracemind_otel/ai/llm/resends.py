"""How a client reports that it sends a request a second time within one attempt.

A kept connection that broke before a byte of the reply came costs no attempt: the request is sent again on a new one.
Where the first may have reached the provider, the budgets around must have room for it until the second is answered.
"""

from __future__ import annotations

import contextvars
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

from ..._base.context import set_here


class ResendLedger(Protocol):
    """Keeps account of requests that were sent twice."""

    async def hold_again_soon(self) -> bool:
        """Hold what the call is expected to use a second time; returns whether there is room for it."""
        ...

    def release(self) -> None:
        """The second request was answered, so the first was not: free what was held for it."""
        ...

    def presume(self) -> None:
        """The second was not answered either: the first may be billed, so count what was held for it as used."""
        ...


_ledger: contextvars.ContextVar[ResendLedger | None] = contextvars.ContextVar("tracemind_resends", default=None)


def current_ledger() -> ResendLedger | None:
    """The ledger to report a second request to; `None` for a call without a budget."""
    return _ledger.get()


def telling(ledger: ResendLedger | None) -> AbstractContextManager[object]:
    """A block in which requests that are sent twice are reported to this ledger; `None` keeps the one around."""
    return nullcontext() if ledger is None else set_here(_ledger, ledger)
