"""Which calls fail, what is retried and why, and what was not sent at all."""

from __future__ import annotations

from .filters import CALLS, IN_CALLS, also
from .model import Column, Dashboard, Panel, Query, Row
from .panels import label_named, stat, sums
from .promql import BUDGET, ERROR, FLOW, MODEL, REASON, or_zero, sum_by

_CALLS = f"job_flow_model_team_error:llm_calls:15m{IN_CALLS}"
_FAILED = also(f"job_flow_model_team_error:llm_calls:15m{IN_CALLS}", 'error_type!=""')
_RETRIES = also(f"job_flow_model_team_reason:tracemind_llm_retries:15m{IN_CALLS}", 'tracemind_retry_reason!=""')
_DENIED = f"job_flow_model_team_budget:tracemind_llm_denied_calls:1h{IN_CALLS}"
_UNPRICED = f"job_flow_model_team:tracemind_llm_unpriced_calls:1h{IN_CALLS}"
_ALERTS = 'ALERTS{alertstate="firing", job=~"$job"}'

_QUARTER = "Each point counts the 15 minutes before it: do not add points up."
_HOUR = "Each point counts the hour before it: do not add points up."
_NO_DENIED = "A call counts once, after its last attempt. Calls that a budget denied are not failures and not in it."

_FIGURES = Row(
    "Now",
    (
        stat(
            "Share of failed calls, last 15 minutes",
            f"(sum({_FAILED}) or vector(0)) / (sum({_CALLS}) > 0)",
            _NO_DENIED,
            unit="percentunit",
            warn_from=0.1,
        ),
        stat("Failed calls, last 15 minutes", or_zero(f"sum({_FAILED})"), _NO_DENIED),
        stat(
            "Retries, last 15 minutes",
            or_zero(f"sum({_RETRIES})"),
            "Attempts that failed and were repeated. A call that succeeds after a retry is not a failed call.",
        ),
        stat(
            "Retries for each call, last 15 minutes",
            f"(sum({_RETRIES}) or vector(0)) / (sum({_CALLS}) > 0)",
            "From 0.5 for one reason on, the alert LLMRetryStorm fires.",
            unit="none",
            warn_from=0.5,
        ),
        stat(
            "Calls that a budget denied, last hour",
            or_zero(f"sum({_DENIED})"),
            "They were not sent and cost nothing.",
        ),
        stat(
            "Alerts that fire",
            or_zero(f"count({_ALERTS})"),
            "Of the chosen jobs; with all jobs, those of the Collector too. Filtered by job only.",
            warn_from=1,
        ),
    ),
)

_FAILURES = Row(
    "Failures",
    (
        sums(
            "Failed calls of the last 15 minutes, by error",
            ERROR,
            _FAILED,
            f"{_QUARTER} {_NO_DENIED} The error is the provider's code, else the HTTP status, else the exception.",
        ),
        Panel(
            "Share of failed calls, by model",
            (
                Query(
                    label_named(f"{sum_by((MODEL,), _FAILED)} / {sum_by((MODEL,), _CALLS)}", MODEL),
                    f"{{{{{MODEL}}}}}",
                ),
            ),
            f"Of the 15 minutes before each point. {_NO_DENIED} Models without a failure are not shown.",
            unit="percentunit",
            maximum=1,
        ),
        sums("Failed calls of the last 15 minutes, by flow", FLOW, _FAILED, f"{_QUARTER} {_NO_DENIED}"),
        Panel(
            "Firing alerts",
            (Query(_ALERTS, "alerts"),),
            "The alerts of collector/rules/alerts.yml that fire now. Filtered by job only.",
            kind="table",
            columns={
                "alertname": Column("Alert"),
                "severity": Column("Severity"),
                "job": Column("Job"),
                MODEL: Column("Model"),
                REASON: Column("Retry reason"),
                "exporter": Column("Exporter"),
            },
        ),
    ),
)

_RETRY_ROW = Row(
    "Retries, and calls that were not sent or have no price",
    (
        sums(
            "Retries of the last 15 minutes, by reason",
            REASON,
            _RETRIES,
            f"{_QUARTER} rate_limit: send less, or ask for a higher limit. timeout, connection: replies may be lost.",
        ),
        sums("Retries of the last 15 minutes, by model", MODEL, _RETRIES, _QUARTER),
        sums("Denied calls of the last hour, by budget", BUDGET, _DENIED, f"{_HOUR} Calls that were not sent."),
        sums(
            "Calls of the last hour without a price, by model",
            MODEL,
            _UNPRICED,
            f"{_HOUR} They succeeded and are in no cost. Give the model a price with tm.set_prices().",
        ),
    ),
)

RELIABILITY = Dashboard(
    uid="tracemind-reliability",
    title="LLM reliability",
    description="Which calls fail, what is retried and why, what was not sent at all, and which alerts fire.",
    variables=CALLS,
    rows=(_FIGURES, _FAILURES, _RETRY_ROW),
)
