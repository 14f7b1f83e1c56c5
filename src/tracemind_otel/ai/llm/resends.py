"""How a client says that it sends a request a second time, within one attempt.

A kept connection that broke before a byte of the reply came costs no attempt: the request is sent again on a new one.
Where the first may have reached the provider, the budgets around must have room for it until the second is answered.
"""

from __future__ import annotations

import contextvars
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

from ..._base.context import set_here


class ResendLedger(Protocol):
    """What keeps account of requests that were sent twice."""

    def hold_again(self) -> bool:
        """Hold what the call is expected to use a second time; returns whether there is room for it."""
        ...

    def release(self) -> None:
        """The second was answered: the first never was, and what was held for it is free."""
        ...

    def presume(self) -> None:
        """The second was not answered either: the first may be billed, and counts as what was held for it."""
        ...


_ledger: contextvars.ContextVar[ResendLedger | None] = contextvars.ContextVar("tracemind_resends", default=None)


def current_ledger() -> ResendLedger | None:
    """What to tell of a request that is sent a second time; `None` for a call without a budget."""
    return _ledger.get()


def telling(ledger: ResendLedger | None) -> AbstractContextManager[object]:
    """A block in which this ledger is told of what is sent twice; `None` tells nobody new."""
    return nullcontext() if ledger is None else set_here(_ledger, ledger)
