"""Expressions that count processes of any age, and the labels that they share."""

from __future__ import annotations

from collections.abc import Iterable

JOB, FLOW, MODEL, TEAM = "job", "gen_ai_workflow_name", "gen_ai_request_model", "team"
STEP, ERROR, REASON = "tracemind_step_id", "error_type", "tracemind_retry_reason"
TOKEN_TYPE, CACHE_OPERATION = "gen_ai_token_type", "tracemind_cache_operation"
BUDGET, BUDGET_KIND = "tracemind_budget_name", "tracemind_budget_kind"
CALL_LABELS = (JOB, FLOW, MODEL, TEAM)
"""The labels by which every series of model calls can be filtered."""

_AND_FIVE_MINUTES = {"15m": "20m", "1h": "65m", "1d": "1445m"}


def exact(counter: str, window: str, matchers: str = "") -> str:
    """What a counter gained in a window, by processes of any age; `increase()` would lose their first samples.

    Args:
        counter: a counter, or a bucket or sum of a histogram.
        window: 15m, 1h or 1d.
        matchers: such as `{job="a"}`.
    """
    series = counter + matchers
    return (
        f"(\n"
        f"    (\n"
        f"      last_over_time({series}[{window}]) - last_over_time({series}[1h] offset {window}) >= 0\n"
        f"      unless resets({series}[{_AND_FIVE_MINUTES[window]}]) > 0\n"
        f"    )\n"
        f"  or (increase({series}[{window}]) >= 0 and resets({series}[{_AND_FIVE_MINUTES[window]}]) > 0 "
        f"and last_over_time({series}[1h] offset {window}))\n"
        f"  or last_over_time({series}[{window}]) >= 0\n"
        f")"
    )


def sum_by(labels: Iterable[str], expression: str) -> str:
    """The sum by some labels."""
    return f"sum by ({', '.join(labels)}) {_in_parentheses(expression)}"


def or_zero(expression: str) -> str:
    """The value, or 0 if there is none."""
    return f"{expression} or vector(0)"


def named(expression: str, label: str, name: str) -> str:
    """The same series, with a name for the one without the label, since a legend shows no empty value."""
    return f'label_replace({expression}, "{label}", "{name}", "{label}", "")'


def quantile(share: float, buckets: str, by: Iterable[str] = ()) -> str:
    """A quantile of a histogram, by some labels."""
    return f"histogram_quantile({share}, {sum_by(('le', *by), buckets)})"


def _in_parentheses(expression: str) -> str:
    return expression if expression.startswith("(\n") else f"({expression})"
