"""What one call holds of budgets that many processes share."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from typing import Literal

from ..._base.waiting import is_on_event_loop, is_on_trio
from ...errors import BudgetExceededError, BudgetKind
from ..shared.state_client import StateClient, give_up
from ..shared.state_port import NANO, Account, Answer, Reserve, Settle, StateAwayError, Sums, minus, nano_usd
from .limits import BudgetLimits
from .rules import Standing, limit_exceeded, state_is_away
from .spending import Amounts, Estimate, Spending, Use

OnStateAway = Literal["deny", "allow"]
"""How a shared budget treats a call while the state is away."""

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
        wanted = Sums(nano_usd(estimate.cost_usd), estimate.tokens, llm_calls)
        return Reserve(self.account, in_sums, wanted, is_call=bool(llm_calls))

    def spend(self, use: Use, llm_calls: int) -> None:
        """Count what was used without having been held."""
        Lease(self, None, Sums()).settle(use, llm_calls)

    def denial(self, answer: Answer, index: int, estimate: Estimate, llm_calls: int) -> BudgetExceededError:
        """Why the state denied a call."""
        spending = Spending()
        spending.spent, spending.held = _amounts(answer.spent), _amounts(answer.held)
        standing = Standing(self.name, self.limits, spending, None, estimate, llm_calls)
        kind = _KINDS[index]
        return limit_exceeded(standing, kind, self.limits.by_kind[kind])

    def denial_unasked(self, estimate: Estimate, llm_calls: int, why: str) -> BudgetExceededError:
        """Why a call is denied while the state is away."""
        return state_is_away(Standing(self.name, self.limits, Spending(), None, estimate, llm_calls), why)


@dataclass(frozen=True, slots=True)
class Lease:
    """What a shared budget holds for a call."""

    share: Share
    """The account."""
    window: int | None
    """The window in which it is held; `None` where the state was away and holds nothing."""
    held: Sums
    """The amount."""

    def settle(self, use: Use, llm_calls: int) -> None:
        """Count what was used in place of what is held."""
        used = Sums(nano_usd(use.cost_usd), use.tokens, llm_calls)
        order = Settle(self.share.account, self.window, self.held, used)
        self.share.client.settle(order, partial(self._settled, used))

    def _settled(self, used: Sums, answer: Answer) -> None:
        if self.share.on_spent is not None:
            self.share.on_spent(_amounts(minus(answer.spent, used)), _amounts(answer.spent))

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


def asking(shares: Sequence[Share], estimate: Estimate, llm_calls: int) -> Asking:
    """Reserve in every account, or in none.

    Raises:
        BudgetExceededError: an account denies the call.
    """
    leases: list[Lease] = []
    try:
        for share in shares:
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
            return Lease(share, None, Sums())
        raise share.denial_unasked(estimate, llm_calls, str(error)) from None
    if answer.denied_by is not None:
        raise share.denial(answer, answer.denied_by, estimate, llm_calls)
    return Lease(share, answer.window, order.wanted)


def ask_blocking(questions: Asking, *, may_block: bool | None = None) -> list[Lease]:
    """Wait for the answers in this thread.

    An event loop does not wait, and there the state counts as away, unless the code blocks it anyway: `may_block`.
    """
    may_block = not (is_on_event_loop() or is_on_trio()) if may_block is None else may_block
    try:
        question = next(questions)
        while True:
            try:
                answer = _answer(question) if may_block else _no_answer(question)
            except StateAwayError as error:
                question = questions.throw(error)
            else:
                question = questions.send(answer)
    except StopIteration as done:
        leases: list[Lease] = done.value
        return leases


async def ask_async(questions: Asking) -> list[Lease]:
    """Await the answers."""
    try:
        question = next(questions)
        while True:
            try:
                answer = await _awaited(question)
            except StateAwayError as error:
                question = questions.throw(error)
            except BaseException as cause:  # cancelled: what was granted before is taken back
                questions.throw(cause)
                raise
            else:
                question = questions.send(answer)
    except StopIteration as done:
        leases: list[Lease] = done.value
        return leases


def _answer(question: Question) -> Answer:
    timeout_s = question.client.timeout_s
    try:
        return question.answer.result(timeout_s)
    except TimeoutError:
        give_up(question.client, question.order, question.answer)
        raise StateAwayError(f"it did not answer within {timeout_s} s") from None
    except StateAwayError:
        raise
    except BaseException:
        give_up(question.client, question.order, question.answer)
        raise


def _no_answer(question: Question) -> Answer:
    give_up(question.client, question.order, question.answer)
    raise StateAwayError("this call cannot wait for it on its event loop")


async def _awaited(question: Question) -> Answer:
    if is_on_trio():
        return _no_answer(question)
    timeout_s = question.client.timeout_s
    try:
        async with asyncio.timeout(timeout_s):
            return await asyncio.wrap_future(question.answer)
    except TimeoutError:
        give_up(question.client, question.order, question.answer)
        raise StateAwayError(f"it did not answer within {timeout_s} s") from None
    except StateAwayError:
        raise
    except BaseException:
        give_up(question.client, question.order, question.answer)
        raise


def _amounts(sums: Sums) -> Amounts:
    return Amounts(sums.nano_usd / NANO, sums.tokens, sums.llm_calls)
