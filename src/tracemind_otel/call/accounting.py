"""The cost of a call: its price, its part of the flow's sums, and what it holds of the budgets."""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime

from .._base.once import report_fault
from ..ai.llm.pricing import find_price, price_reply, price_reply_now
from ..ai.llm.types import LLMResponse, LLMUsage
from ..flows.agents import current_agent
from ..flows.budget import Budget, Estimate, Reservation, current_budget, is_shared, needs_price, reserve_soon
from ..flows.totals import current_flow
from ..recording.port import StepEnd
from .config import CallTarget
from .estimate import cautious_usage, expected_usage
from .lost_replies import presumed_cost, usual_output
from .result import is_response

log = logging.getLogger(__name__)


class CallAccount:
    """The account of one call; the sums of its flow are also by `step_id`."""

    def __init__(self, target: CallTarget, step_id: str) -> None:
        self._target = target
        self._step_id = step_id
        self._flow = current_flow()
        self._agent = current_agent()
        self._budget = current_budget()
        self.reservation: Reservation | None = None
        self.presumed_usd: float | None = None
        """USD that lost replies presumably cost; `None` where none was lost, or where the price is unknown."""

    async def reserve(self, within_s: float | None) -> None:
        """Hold what the call is expected to use, if there is a budget around it.

        Raises:
            BudgetExceededError: the budget has less left; the call must not be sent.
            TimeoutError: the price was not found within `within_s` seconds.
        """
        if self._budget is not None:
            estimate = await self._estimate(self._budget, within_s)
            self.reservation = await reserve_soon(self._budget, estimate)

    async def _estimate(self, budget: Budget, within_s: float | None) -> Estimate:
        target = self._target
        expect = cautious_usage if is_shared(budget) else expected_usage
        usage = expect(target.request, target.client.default_max_tokens)
        return Estimate(
            model=target.priced_name,
            tokens=usage.total_tokens or 0,
            cost_usd=await self._expected_cost(usage, within_s) if needs_price(budget) else None,
            reports_cost=target.client.reports_cost,
            is_bounded=bool(usage.completion_tokens),
        )

    async def _expected_cost(self, usage: LLMUsage, within_s: float | None) -> float | None:
        target = self._target
        try:
            async with asyncio.timeout(within_s):
                priced = await find_price(target.provider_name, (target.request.model,), usage, at=datetime.now(UTC))
                return None if priced is None else priced.cost_usd
        except TimeoutError:
            raise
        except Exception:
            log.exception("the price table failed for %s; its budgets treat the price as unknown", target.name)
            return None

    async def priced(self, response: LLMResponse) -> LLMUsage:
        """The usage with its cost: the reply's own, else by the model that answered, else by the one asked for."""
        return await price_reply(self._target.provider_name, self._models(response), response, at=datetime.now(UTC))

    def priced_now(self, response: LLMResponse) -> LLMUsage:
        """The same without awaiting, by prices that were found before."""
        return price_reply_now(self._target.provider_name, self._models(response), response, at=datetime.now(UTC))

    def _models(self, response: LLMResponse) -> tuple[str, ...]:
        asked_for = self._target.cfg.model
        return (response.response_model, asked_for) if response.response_model else (asked_for,)

    async def until_priced(self) -> None:
        """Find the price of the model, so that `presume` need not load the table; never raises a fault of ours."""
        target = self._target
        await self._expected_cost(expected_usage(target.request, target.client.default_max_tokens), None)

    def presume(self, part: object = None) -> float | None:
        """What the reply that was just lost presumably cost; the call's sum has it too.

        Args:
            part: the part of the reply that came.
        """
        target = self._target
        try:
            reply = part if is_response(part) else None
            expected = expected_usage(target.request, target.client.default_max_tokens)
            names = target.provider_name, target.request.model
            cost_usd = presumed_cost(*names, expected, step=self._step_id, part=reply)
        except Exception:
            report_fault(log, "CallAccount", "presume")
            return None
        if cost_usd is not None:
            self.presumed_usd = (self.presumed_usd or 0.0) + cost_usd
        return cost_usd

    def close(self, end: StepEnd, *, was_sent: bool, assume_billed: bool) -> None:
        """Add the call to the flow, and settle its reservation; a call that was not sent counts nowhere.

        With `assume_billed`, an attempt of unknown usage counts as what was held for it.
        """
        try:
            if end.error is None:
                usual_output.note(self._step_id, self._target.priced_name, end.usage)
            if self._agent is not None and was_sent:
                self._agent.count_inference()
            if self._flow is not None and was_sent:
                self._flow.add_call(
                    end.usage,
                    retries=end.retries,
                    step=self._step_id,
                    model=self._target.priced_name,
                    presumed_cost_usd=self.presumed_usd,
                )
        finally:
            if self.reservation is not None and was_sent:
                self.reservation.settle(end.usage, assume_billed=assume_billed)
            elif self.reservation is not None:
                self.reservation.release(llm_calls=1)
