"""What an attempt presumably cost whose reply was lost: the provider may have billed it, and no usage came.

The input is counted by a rule of thumb, as for a budget. Nobody knows the output. `max_tokens` is a limit that most
replies do not reach, so it is no expectation. The mean output of the replies that came to the same step from the same
model is one. Before any has come, only the input counts, and the figure is a lower bound.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

from ..ai.llm.pricing import price_at_hand
from ..ai.llm.types import LLMResponse, LLMUsage
from ..errors import LLMClientError, LLMError
from ..recording.port import StepEnd

_MAX_KEPT = 1000
"""Pairs of step and model whose replies are remembered: a step may be named after its data."""


class UsualOutput:
    """The mean output of the replies that came, for each step and model."""

    def __init__(self) -> None:
        self._sums: dict[tuple[str, str], tuple[int, int]] = {}
        """Replies and their output tokens. Of two threads that add at once, one may be forgotten: it is a mean."""

    def note(self, step: str, model: str, usage: LLMUsage | None) -> None:
        """Remember the output of a whole reply, if the provider reported it."""
        if usage is None or usage.estimated or not usage.is_whole:
            return
        key = (step, model)
        if key in self._sums or len(self._sums) < _MAX_KEPT:
            replies, tokens = self._sums.get(key, (0, 0))
            self._sums[key] = (replies + 1, tokens + (usage.completion_tokens or 0))

    def mean(self, step: str, model: str) -> int:
        """The mean in tokens; 0 if no reply has come."""
        replies, tokens = self._sums.get((step, model), (0, 0))
        return round(tokens / replies) if replies else 0

    def forget(self) -> None:
        """Begin anew."""
        self._sums.clear()


NOTHING_REPORTED = LLMUsage(None, None, None)
usual_output = UsualOutput()
"""That of this process."""


def is_lost(error: LLMError) -> bool:
    """Whether an attempt may have been billed without a reply.

    An exception outside our error tree does not say whether anything was sent.
    """
    return error.may_be_billed and not isinstance(error, LLMClientError)


def lacks_reply(end: StepEnd) -> bool:
    """Whether a call ended without a reply that can be priced, though the provider may have made one."""
    usage = end.usage
    if usage is not None and (usage.is_whole or usage.cost_usd is not None):
        return False
    return end.cancelled or end.closed_early or (end.error is not None and is_lost(end.error))


def presumed_cost(
    provider: str, model: str, expected: LLMUsage, *, step: str, part: LLMResponse | None = None
) -> float | None:
    """USD that a lost reply presumably cost; `None` if the price is unknown, or if the model is free.

    Nobody waits for it: before the price table is loaded it is unknown to an event loop.

    Args:
        provider: the provider whose prices apply.
        model: the model that was asked for.
        expected: the input by a rule of thumb, and the most output that the request allows; 0 for no limit.
        step: the id of the step.
        part: the part of the reply that came; what it reports takes precedence.
    """
    reported = NOTHING_REPORTED if part is None else part.usage.sanitized()
    known = reported if reported.is_known else NOTHING_REPORTED
    prompt = expected.prompt_tokens if known.prompt_tokens is None else known.prompt_tokens
    output = known.completion_tokens
    if output is None:
        usual, limit = usual_output.mean(step, f"{provider}/{model}"), expected.completion_tokens
        output = min(usual, limit) if limit else usual
    total = (prompt or 0) + output
    usage = replace(known, prompt_tokens=prompt or 0, completion_tokens=output, total_tokens=total, estimated=True)
    models = (part.response_model, model) if part is not None and part.response_model else (model,)
    cost = price_at_hand(provider, models, usage, at=datetime.now(UTC))
    return None if cost is None else cost.cost_usd or None
