"""How much of each budget is spent: the daily one of each job, and those that the applications set."""

from __future__ import annotations

from .filters import IN_JOB, JOB_ONLY, also, jaeger_search
from .model import Column, Dashboard, Panel, Query, Row
from .panels import by_label, sums
from .promql import BUDGET, BUDGET_KIND, JOB, sum_by

_DAILY = f"job:tracemind_cost_budget_usd:per_day{IN_JOB}"
_DAY = f"job:tracemind_llm_cost_usd:1d{IN_JOB}"
_NAMES = (JOB, BUDGET, BUDGET_KIND)
_LIMIT = f"max by ({', '.join(_NAMES)}) (last_over_time(tracemind_budget_limit{IN_JOB}[1h]))"
_SPENT_HOUR = f"job_budget_kind:tracemind_budget_spent:1h{IN_JOB}"
_SPENT_DAY = f"job_budget_kind:tracemind_budget_spent:1d{IN_JOB}"
_DENIED = f"job_flow_model_team_budget:tracemind_llm_denied_calls:1h{IN_JOB}"

_PER_DAY = "The daily budget of a job is set in collector/rules/recording.yml; it warns and denies nothing."

_DAILY_ROW = Row(
    "Daily budget of each job",
    (
        Panel(
            "Spent of the daily budget",
            (Query(f"{_DAY} / {_DAILY}", "{{job}}"),),
            f"Cost of the last 24 hours by the daily budget. {_PER_DAY}",
            kind="bars",
            unit="percentunit",
            width=8,
            maximum=1,
            warn_from=1,
        ),
        Panel(
            "Burn rate of the daily budget",
            (
                Query(f"24 * job:tracemind_llm_cost_usd:1h{IN_JOB} / {_DAILY}", "{{job}}, last hour"),
                Query(f"4 * job:tracemind_llm_cost_usd:6h{IN_JOB} / {_DAILY}", "{{job}}, last 6 hours"),
            ),
            "At 1 the budget lasts a day, at 6 four hours. LLMBudgetBurnFast fires above 6 in the last hour, "
            f"LLMBudgetBurnSlow above 2 in the last 6 hours. {_PER_DAY}",
            unit="none",
            width=16,
            warn_from=6,
        ),
    ),
)

_NAMED_ROW = Row(
    "Budgets of the applications",
    (
        Panel(
            "Budgets by name",
            (Query(_LIMIT, "limit"), Query(_SPENT_HOUR, "hour"), Query(_SPENT_DAY, "day")),
            "Budgets of @tm.flow(max_...) and tm.budget(...), in USD, tokens or calls by their kind. The limit holds "
            "for each run of a flow or block, or for a window if the budget is shared. What was spent is the sum of "
            "all runs and processes, and may be above the limit. It includes what lost replies presumably cost. At "
            "50, 80 and 100 % the flow's span has an event.",
            kind="table",
            width=24,
            columns={
                JOB: Column("Job"),
                BUDGET: Column(
                    "Budget",
                    links=(
                        jaeger_search(
                            "Traces in which it came to 50, 80 or 100 %", "Job", tracemind__budget__name="Budget"
                        ),
                    ),
                ),
                BUDGET_KIND: Column("Kind"),
                "limit": Column("Limit"),
                "hour": Column("Spent in the last hour"),
                "day": Column("Spent in the last day"),
            },
        ),
        by_label(
            "Cost of the last hour under a budget, by budget",
            BUDGET,
            sum_by((BUDGET,), also(_SPENT_HOUR, 'tracemind_budget_kind="cost_usd"')),
            "Each point is the sum of the hour before it: do not add points up. Nested budgets contain each other.",
            "currencyUSD",
        ),
        sums(
            "Denied calls of the last hour, by budget",
            BUDGET,
            _DENIED,
            "Each point counts the hour before it. A budget denies a call for which not enough is left.",
        ),
    ),
)

BUDGETS = Dashboard(
    uid="tracemind-budgets",
    title="LLM budgets",
    description="How much of each budget is spent: the daily one of each job, and those that the applications set.",
    variables=JOB_ONLY,
    rows=(_DAILY_ROW, _NAMED_ROW),
    has_jaeger=True,
)
