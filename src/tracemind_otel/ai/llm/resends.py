"""How a client says that it sends a request a second time, within one attempt.

A kept connection that broke before a byte of the reply came costs no attempt: the request is sent again on a new one.
Where the first may have reached the provider, the budgets around must have room for it until the second is answered.
"""

from __future__ import annotations

import contextvars
from typing import Protocol

from ..._base.context import Setting, set_here


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


class _NoLedger:
    """Of a call without a budget: there is always room."""

    def hold_again(self) -> bool:
        return True

    def release(self) -> None: ...

    def presume(self) -> None: ...


NO_LEDGER = _NoLedger()
_ledger: contextvars.ContextVar[ResendLedger | None] = contextvars.ContextVar("tracemind_resends", default=None)


def current_ledger() -> ResendLedger:
    """What to tell of a request that is sent a second time."""
    return _ledger.get() or NO_LEDGER


class telling:  # noqa: N801
    """Tells this ledger of what is sent twice within the block; `None` tells nobody new."""

    __slots__ = ("_ledger", "_setting")

    def __init__(self, ledger: ResendLedger | None) -> None:
        self._ledger = ledger
        self._setting: Setting | None = None

    def __enter__(self) -> None:
        if self._ledger is not None:
            self._setting = set_here(_ledger, self._ledger)

    def __exit__(self, *_: object) -> None:
        if self._setting is not None:
            self._setting.undo()
