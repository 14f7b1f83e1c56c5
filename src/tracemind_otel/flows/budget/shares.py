"""What one call holds of budgets that many processes share."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

from ..._base.waiting import is_on_event_loop, is_on_trio
from ...errors import BudgetExceededError, BudgetKind
from ..shared.state_client import StateClient, give_up
from ..shared.state_port import NANO, Account, Answer, Reserve, Settle, StateAwayError, Sums, bounded, minus
from .limits import BudgetLimits, strictest
from .rules import Standing, limit_exceeded, state_is_away
from .spending import Amounts, Estimate, Spending, Use

OnStateAway = Literal["deny", "allow"]
"""How a shared budget treats a call while the state is away."""

_NOTHING = Sums()
_KINDS: tuple[BudgetKind, ...] = ("cost_usd", "tokens", "llm_calls")
"""In the order of `Sums`."""


@dataclass(frozen=True, slots=True)
class Share:
    """The account of a budget in the shared state."""

    client: StateClient
    """What talks to the state."""
    account: Account
    """The account."""
    limits: BudgetLimits
    """The account's limits, as this process knows them."""
    on_state_away: OnStateAway
    """Whether a call is denied or sent while the state is away."""
    on_spent: Callable[[Amounts, Amounts], None] | None = None
    """Called in the state's thread with what was spent by all before and after an amount of this process."""

    @property
    def name(self) -> str:
        """The budget and its key, for messages."""
        return f"{self.account.name}/{self.account.key}" if self.account.key else self.account.name

    def order(self, estimate: Estimate, llm_calls: int) -> Reserve:
        """What to ask the state for."""
        limits = self.limits
        in_sums = (
            None if limits.max_cost_usd is None else round(limits.max_cost_usd * NANO),
            limits.max_tokens,
            limits.max_llm_calls,
        )
        wanted = bounded(estimate.cost_usd, estimate.tokens, llm_calls)
        return Reserve(self.account, in_sums, wanted, is_call=bool(llm_calls))

    def spend(self, use: Use, llm_calls: int, *, window: int | None = None, held: Sums = _NOTHING) -> None:
        """Count what was used, in place of what is held in a window."""
        used = bounded(use.cost_usd, use.tokens, llm_calls)
        self.client.settle(Settle(self.account, window, held, used), partial(self._spent, used))

    def _spent(self, used: Sums, answer: Answer) -> None:
        if self.on_spent is not None:
            self.on_spent(_amounts(minus(answer.spent, used)), _amounts(answer.spent))

    def denial(self, answer: Answer, index: int, estimate: Estimate, llm_calls: int) -> BudgetExceededError:
        """Why the state denied a call."""
        spending = Spending()
        spending.spent, spending.held = _amounts(answer.spent), _amounts(answer.held)
        standing = Standing(self.name, self.limits, spending, None, estimate, llm_calls)
        kind = _KINDS[index]
        limit = self.limits.by_kind[kind]
        ever_fits = standing.wanted[kind] <= limit
        return limit_exceeded(standing, kind, limit, retry_after_s=answer.ends_in_s if ever_fits else None)

    def denial_unasked(self, estimate: Estimate, llm_calls: int, why: str) -> BudgetExceededError:
        """Why a call is denied while the state is away."""
        return state_is_away(Standing(self.name, self.limits, Spending(), None, estimate, llm_calls), why)


def each_account_once(shares: Sequence[tuple[Share, Estimate]]) -> list[tuple[Share, Estimate]]:
    """The accounts of the budgets around a call, the innermost first.

    Where a block is inside another of the same account, as in a flow that calls itself, a call counts once there. The
    lower limits hold, and the larger reservation.
    """
    if len(shares) < 2:
        return list(shares)
    found: dict[Account, tuple[Share, Estimate]] = {}
    for share, estimate in shares:
        inner = found.get(share.account)
        found[share.account] = (share, estimate) if inner is None else _merged(inner, (share, estimate))
    return list(found.values())


def _merged(inner: tuple[Share, Estimate], outer: tuple[Share, Estimate]) -> tuple[Share, Estimate]:
    (share, estimate), (around, larger) = inner, outer
    is_allowed = share.on_state_away == around.on_state_away == "allow"
    merged = replace(
        share, limits=strictest(share.limits, around.limits), on_state_away="allow" if is_allowed else "deny"
    )
    return merged, estimate.at_least_as(larger)


@dataclass(frozen=True, slots=True)
class Lease:
    """What a shared budget holds for a call."""

    share: Share
    """The account."""
    window: int | None
    """The window in which it is held; `None` where the state was away and holds nothing."""
    held: Sums
    """The amount."""
    estimate: Estimate
    """What the call was expected to use."""

    def settle(self, use: Use, llm_calls: int) -> None:
        """Count what was used in place of what is held."""
        self.share.spend(use, llm_calls, window=self.window, held=self.held)

    def release(self) -> None:
        """Take back what is held."""
        if any(self.held):
            self.share.client.settle(Settle(self.share.account, self.window, self.held, Sums()))


@dataclass(frozen=True, slots=True)
class Question:
    """A reservation that was asked of a state."""

    client: StateClient
    """What talks to the state."""
    order: Reserve
    """The reservation."""
    answer: Future[Answer]
    """Its answer, later."""


Asking = Generator[Question, Answer, list[Lease]]
"""Asks one account after the other; a driver waits for each answer, and sends it or throws `StateAwayError`."""


def asking(shares: Sequence[tuple[Share, Estimate]], llm_calls: int) -> Asking:
    """Reserve in every account what it reserves for a call, or nothing in any.

    Raises:
        BudgetExceededError: an account denies the call.
    """
    leases: list[Lease] = []
    try:
        for share, estimate in shares:
            leases += [(yield from _asking_one(share, estimate, llm_calls))]
    except BaseException:
        for lease in leases:
            lease.release()
        raise
    return leases


def _asking_one(share: Share, estimate: Estimate, llm_calls: int) -> Generator[Question, Answer, Lease]:
    order = share.order(estimate, llm_calls)
    try:
        answer = yield Question(share.client, order, share.client.ask(order))
    except StateAwayError as error:
        if share.on_state_away == "allow":
            return Lease(share, None, _NOTHING, estimate)
        raise share.denial_unasked(estimate, llm_calls, str(error)) from None
    if answer.denied_by is not None:
        raise share.denial(answer, answer.denied_by, estimate, llm_calls)
    return Lease(share, answer.window, order.wanted, estimate)


def ask_blocking(questions: Asking, *, may_block: bool | None = None) -> list[Lease]:
    """Wait for the answers in this thread.

    An event loop does not wait, and there the state counts as away, unless the code blocks it anyway: `may_block`.
    """
    may_block = not (is_on_event_loop() or is_on_trio()) if may_block is None else may_block
    wait = _answer if may_block else _no_answer
    began = time.monotonic()
    try:
        question = next(questions)
        while True:
            try:
                answer = wait(question, _left_s(question, began))
            except BaseException as error:  # interrupted: what was granted before is taken back
                question = questions.throw(error)
            else:
                question = questions.send(answer)
    except StopIteration as done:
        leases: list[Lease] = done.value
        return leases


async def ask_async(questions: Asking) -> list[Lease]:
    """Await the answers."""
    began = time.monotonic()
    try:
        question = next(questions)
        while True:
            try:
                answer = await _awaited(question, _left_s(question, began))
            except BaseException as error:  # cancelled: what was granted before is taken back
                question = questions.throw(error)
            else:
                question = questions.send(answer)
    except StopIteration as done:
        leases: list[Lease] = done.value
        return leases


def _left_s(question: Question, began: float) -> float:
    """How long a call still waits: the time-out is for all its accounts together."""
    return max(began + question.client.timeout_s - time.monotonic(), 0.0)


def _answer(question: Question, left_s: float) -> Answer:
    try:
        return question.answer.result(left_s)
    except TimeoutError:
        give_up(question.client, question.order, question.answer)
        raise question.client.note_late() from None
    except StateAwayError:
        raise
    except BaseException:
        give_up(question.client, question.order, question.answer)
        raise


def _no_answer(question: Question, left_s: float) -> Answer:
    if question.answer.done():
        return question.answer.result()
    give_up(question.client, question.order, question.answer)
    raise StateAwayError("a call that is not awaited must not block the event loop; use `async with` or `async def`")


async def _awaited(question: Question, left_s: float) -> Answer:
    answer = question.answer
    try:
        is_answered = answer.done() or await (_done_on_trio if is_on_trio() else _done)(answer, left_s)
    except BaseException:
        give_up(question.client, question.order, answer)
        raise
    if not is_answered:
        give_up(question.client, question.order, answer)
        raise question.client.note_late()
    return answer.result()


async def _done(answer: Future[Answer], timeout_s: float) -> bool:
    """Whether it is answered in time.

    Not by `asyncio.timeout`, which in Python 3.11 fails in a task that has outlived a cancellation.
    """
    waiting = asyncio.wrap_future(answer)
    try:
        await asyncio.wait([waiting], timeout=timeout_s)
    finally:
        if not waiting.cancel() and not waiting.cancelled():
            waiting.exception()  # asyncio logs one that nobody looks at
    return answer.done() and not answer.cancelled()


async def _done_on_trio(answer: Future[Answer], timeout_s: float) -> bool:
    trio: Any = sys.modules["trio"]
    done, loop = trio.Event(), trio.lowlevel.current_trio_token()

    def tell(_: object) -> None:
        try:
            loop.run_sync_soon(done.set)
        except trio.RunFinishedError:  # nobody waits any more
            return

    answer.add_done_callback(tell)
    with trio.move_on_after(timeout_s):
        await done.wait()
    return answer.done()


def _amounts(sums: Sums) -> Amounts:
    return Amounts(sums.nano_usd / NANO, sums.tokens, sums.llm_calls)
