"""What each panel of the dashboards must show of the scripted fleet."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import pairwise

from tests.dashboards import Expression, Known, every_expression, faults_of_answer
from tests.e2e.backends import poll, prometheus_query
from tests.e2e.fleet import JOBS, Truth
from tracemind_otel.otel import semconv

JOB, FLOW, MODEL, TEAM = "job", "gen_ai_workflow_name", "gen_ai_request_model", "team"
STEP, ERROR, REASON = "tracemind_step_id", "error_type", "tracemind_retry_reason"
BUDGET = "tracemind_budget_name"
KIND = "tracemind_budget_kind"
NO_NAMES = {FLOW: "outside of flows", TEAM: "without a team"}
DAILY_BUDGET_USD = 100.0

Rule = Callable[[Truth], Known | None]
"""What is known of a panel; `None` if it must show nothing of these facts."""


def _known(labels: tuple[str, ...], sums: Mapping[tuple[str, ...], float]) -> Known | None:
    return Known(labels, sums) if sums else None


def by(measure: str, *labels: str, **where: str) -> Rule:
    """The sum of a measure by labels, with the panel's names for series without a label."""

    def rule(truth: Truth) -> Known | None:
        sums = truth.where(**where).sums(measure, *labels)
        return _known(labels, {_shown(labels, key): value for key, value in sums.items()})

    return rule


def _shown(labels: tuple[str, ...], key: tuple[str, ...]) -> tuple[str, ...]:
    return (key[0] or NO_NAMES.get(labels[0], ""),) if len(labels) == 1 else key


def total(measure: str, **where: str) -> Rule:
    """The sum of a measure; 0 without any."""
    return lambda truth: Known((), {(): truth.where(**where).sum(measure)})


def total_or_nothing(measure: str) -> Rule:
    """The sum of a measure; nothing without any."""
    return lambda truth: Known((), {(): truth.sum(measure)}) if truth.values(measure) else None


def ratio(above: Callable[[Truth], float], below: Callable[[Truth], float]) -> Rule:
    """One sum by another."""
    return lambda truth: Known((), {(): above(truth) / below(truth)}) if below(truth) else None


def of_measure(measure: str, **where: str) -> Callable[[Truth], float]:
    """The sum of a measure."""
    return lambda truth: truth.where(**where).sum(measure)


def failed(truth: Truth) -> Truth:
    """The facts of calls that failed."""
    return Truth(tuple(fact for fact in truth.facts if fact.labels.get(ERROR)))


def of_failed(rule: Rule) -> Rule:
    """A rule for the calls that failed."""
    return lambda truth: rule(failed(truth))


def share_by(
    label: str, above: Callable[[Truth], Truth], measure: str, below: Callable[[Truth], Truth], of: str
) -> Rule:
    """The share of one sum in another, for each value of a label that has some of the first."""

    def rule(truth: Truth) -> Known | None:
        parts, wholes = above(truth).sums(measure, label), below(truth).sums(of, label)
        return _known((label,), {key: part / wholes[key] for key, part in parts.items()})

    return rule


def within_bucket(measure: str, boundaries: tuple[float, ...], *labels: str) -> Rule:
    """Between the ends of the buckets of the smallest and of the largest value, as a quantile of a histogram is.

    Seconds are taken around a call and may be too large; `least_...` is what it waited at least.
    """

    def rule(truth: Truth) -> Known | None:
        lows: dict[tuple[str, ...], float] = {}
        highs: dict[tuple[str, ...], float] = {}
        for key in truth.sums(measure, *labels):
            facts = truth.where(**dict(zip(labels, key, strict=True)))
            values = facts.values(measure)
            least = facts.values(f"least_{measure}") if measure.endswith("seconds") else values
            lows[key] = _bucket(min(least, default=0.0), boundaries)[0]
            highs[key] = _bucket(max(values), boundaries)[1]
        return Known(labels, lows, highs) if lows else None

    return rule


def _bucket(value: float, boundaries: tuple[float, ...]) -> tuple[float, float]:
    """The ends of the bucket of a value; Prometheus takes the last boundary for all above it."""
    buckets = pairwise((0.0, *boundaries))
    return next((ends for ends in buckets if value <= ends[1]), (boundaries[-1], boundaries[-1]))


_SECONDS = tuple(semconv.DURATION_BOUNDARIES_S)
_FLOW_SECONDS = tuple(float(each) for each in semconv.WORKFLOW_DURATION_BOUNDARIES_S)
_USD = tuple(semconv.COST_BOUNDARIES_USD)


def _everything(truth: Truth) -> Truth:
    return truth


def _input(truth: Truth) -> Truth:
    return truth.where(gen_ai_token_type="input")


def _read(truth: Truth) -> Truth:
    return truth.where(tracemind_cache_operation="read")


def _of_budget(kind: str) -> Rule:
    return by("budget_spent", BUDGET, **{KIND: kind})


def _burn(factor: float) -> Rule:
    def rule(truth: Truth) -> Known | None:
        costs = truth.sums("cost_usd", JOB)
        return _known((JOB,), {key: factor * usd / DAILY_BUDGET_USD for key, usd in costs.items()})

    return rule


def _limits(truth: Truth) -> Known | None:
    keys = truth.sums("budget_limit", JOB, BUDGET, KIND)
    limits = {
        key: truth.where(**dict(zip((JOB, BUDGET, KIND), key, strict=True))).values("budget_limit")[0] for key in keys
    }
    return _known((JOB, BUDGET, KIND), limits)


SPEND: Mapping[tuple[str, str], Rule] = {
    ("Cost of the last day", "A"): total_or_nothing("cost_usd"),
    ("Cost of the last hour", "A"): total_or_nothing("cost_usd"),
    ("Mean cost of a call, last hour", "A"): ratio(of_measure("cost_usd"), of_measure("priced_calls")),
    ("Calls without a price, last hour", "A"): total("unpriced_calls"),
    ("Presumed cost of lost replies, last hour", "A"): total("presumed_usd"),
    ("Share of input read from a cache, last hour", "A"): ratio(
        of_measure("cache_tokens", tracemind_cache_operation="read"), of_measure("tokens", gen_ai_token_type="input")
    ),
    ("Cost of the last hour, by team", "A"): by("cost_usd", TEAM),
    ("Cost of the last hour, by flow", "A"): by("cost_usd", FLOW),
    ("Cost of the last hour, by model", "A"): by("cost_usd", MODEL),
    ("Cost of the last hour, by job", "A"): by("cost_usd", JOB),
    ("Cost of the last hour, by step", "A"): by("cost_usd", STEP),
    ("Cost of one call, 95th percentile, with traces", "A"): within_bucket("cost_usd", _USD),
    ("Most expensive flows of the last day", "A"): by("cost_usd", JOB, FLOW),
    ("Most expensive flows of the last day", "B"): by("cost_usd", JOB, FLOW),
    ("Most expensive flows of the last day", "C"): by("priced_calls", JOB, FLOW),
    ("Tokens of the last hour, by type", "A"): by("tokens", "gen_ai_token_type"),
    ("Tokens of the last hour, by model", "A"): by("tokens", MODEL),
    ("Cache tokens of the last hour, by operation", "A"): by("cache_tokens", "tracemind_cache_operation"),
    ("Share of input read from a cache, by model", "A"): share_by(MODEL, _read, "cache_tokens", _input, "tokens"),
}

LATENCY: Mapping[tuple[str, str], Rule] = {
    ("Calls", "A"): total_or_nothing("calls"),
    ("Median duration of a call", "A"): within_bucket("seconds", _SECONDS),
    ("95th percentile of a call", "A"): within_bucket("seconds", _SECONDS),
    ("Streams", "A"): lambda truth: _known((), _count(truth, "first_chunk_seconds")),
    ("Median time to the first chunk", "A"): within_bucket("first_chunk_seconds", _SECONDS),
    ("95th percentile of the first chunk", "A"): within_bucket("first_chunk_seconds", _SECONDS),
    **{("Duration of calls", letter): within_bucket("seconds", _SECONDS) for letter in "ABC"},
    ("Duration of calls, 95th percentile, by model", "A"): within_bucket("seconds", _SECONDS, MODEL),
    **{("Time to the first chunk", letter): within_bucket("first_chunk_seconds", _SECONDS) for letter in "ABC"},
    ("Time to the first chunk, 95th percentile, by model", "A"): within_bucket("first_chunk_seconds", _SECONDS, MODEL),
    ("Duration of flows, 95th percentile, by flow", "A"): within_bucket("flow_seconds", _FLOW_SECONDS, FLOW),
    ("Duration of calls, 95th percentile, with traces", "A"): within_bucket("seconds", _SECONDS),
}


def _count(truth: Truth, measure: str) -> dict[tuple[str, ...], float]:
    values = truth.values(measure)
    return {(): len(values)} if values else {}


RELIABILITY: Mapping[tuple[str, str], Rule] = {
    ("Share of failed calls, last 15 minutes", "A"): ratio(
        lambda truth: failed(truth).sum("calls"), of_measure("calls")
    ),
    ("Failed calls, last 15 minutes", "A"): lambda truth: Known((), {(): failed(truth).sum("calls")}),
    ("Retries, last 15 minutes", "A"): total("retries"),
    ("Retries for each call, last 15 minutes", "A"): ratio(of_measure("retries"), of_measure("calls")),
    ("Calls that a budget denied, last hour", "A"): total("denied"),
    ("Failed calls of the last 15 minutes, by error", "A"): of_failed(by("calls", ERROR)),
    ("Share of failed calls, by model", "A"): share_by(MODEL, failed, "calls", _everything, "calls"),
    ("Failed calls of the last 15 minutes, by flow", "A"): of_failed(by("calls", FLOW)),
    ("Retries of the last 15 minutes, by reason", "A"): by("retries", REASON),
    ("Retries of the last 15 minutes, by model", "A"): by("retries", MODEL),
    ("Denied calls of the last hour, by budget", "A"): by("denied", BUDGET),
    ("Calls of the last hour without a price, by model", "A"): by("unpriced_calls", MODEL),
}

BUDGETS: Mapping[tuple[str, str], Rule] = {
    ("Spent of the daily budget", "A"): _burn(1),
    ("Burn rate of the daily budget", "A"): _burn(24),
    ("Burn rate of the daily budget", "B"): _burn(4),
    ("Budgets by name", "A"): _limits,
    ("Budgets by name", "B"): by("budget_spent", JOB, BUDGET, KIND),
    ("Budgets by name", "C"): by("budget_spent", JOB, BUDGET, KIND),
    ("Cost of the last hour under a budget, by budget", "A"): _of_budget("cost_usd"),
    ("Denied calls of the last hour, by budget", "A"): by("denied", BUDGET),
}

TRUTH: Mapping[tuple[str, str, str], Rule] = {
    (dashboard, panel, reference): rule
    for dashboard, rules in (
        ("spend", SPEND),
        ("latency", LATENCY),
        ("reliability", RELIABILITY),
        ("budgets", BUDGETS),
    )
    for (panel, reference), rule in rules.items()
}
"""What is known of each expression about the fleet's calls, by dashboard, panel and letter."""


def wait_until_true(prometheus: str, expression: Expression, known: Known, values: Mapping[str, str]) -> None:
    """Wait until the answer is what is known: the last scrape or evaluation may be on its way."""
    query = expression.query(values)
    poll(
        lambda: faults_of_answer(expression, prometheus_query(prometheus, query), known),
        lambda faults: not faults,
        30.0,
        str(expression),
    )


def wait_for_every_panel(prometheus: str, truth: Truth) -> None:
    """Wait until every panel about calls shows what is true of the fleet."""
    for expression in every_expression():
        rule = TRUTH.get((expression.dashboard, expression.panel, expression.reference))
        known = rule(truth) if rule else None
        if known:
            wait_until_true(prometheus, expression, known, {"job": JOBS})
