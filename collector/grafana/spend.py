"""Who spends how much, on what, and on how many tokens."""

from __future__ import annotations

from .filters import CALLS, IN_CALLS, also, dashboard, jaeger_search
from .model import Column, Dashboard, Panel, Query, Row
from .panels import stat, sums
from .promql import CACHE_OPERATION, FLOW, JOB, MODEL, STEP, TEAM, TOKEN_TYPE, exact, or_zero, quantile, sum_by

_HOUR = f"job_flow_model_team:tracemind_llm_cost_usd:1h{IN_CALLS}"
_DAY = f"job_flow_model_team:tracemind_llm_cost_usd:1d{IN_CALLS}"
_STEPS = f"job_flow_model_team_step:tracemind_llm_cost_usd:1h{IN_CALLS}"
_PRICED = f"job_flow_model_team:tracemind_llm_priced_calls:1h{IN_CALLS}"
_UNPRICED = f"job_flow_model_team:tracemind_llm_unpriced_calls:1h{IN_CALLS}"
_PRESUMED = f"job_flow_model_team:tracemind_llm_presumed_cost_usd:1h{IN_CALLS}"
_INPUT = also(f"job_flow_model_team_type:llm_tokens:1h{IN_CALLS}", 'gen_ai_token_type="input"')
_USED = also(f"job_flow_model_team_type:llm_tokens:1h{IN_CALLS}", 'gen_ai_token_type=~"input|output"')
_CACHE = f"job_flow_model_team_operation:llm_cache_tokens:1h{IN_CALLS}"
_READ = also(f"job_flow_model_team_operation:llm_cache_tokens:1h{IN_CALLS}", 'tracemind_cache_operation="read"')
_CALL_COST = exact("tracemind_llm_call_cost_USD_bucket", "15m", IN_CALLS)
_TOP = f"topk(10, {sum_by((JOB, FLOW), _DAY)})"
_OF_TOP = f"and on ({JOB}, {FLOW}) {_TOP}"

_EACH_POINT = "Each point is the sum of the hour before it: do not add points up."
_REPLIES = "What replies cost, by the price list or by the provider. Not in it: calls without a price, lost replies."

_FIGURES = Row(
    "Cost",
    (
        stat("Cost of the last day", f"sum({_DAY})", f"{_REPLIES} Renewed every 5 minutes.", unit="currencyUSD"),
        stat("Cost of the last hour", f"sum({_HOUR})", _REPLIES, unit="currencyUSD"),
        stat(
            "Mean cost of a call, last hour",
            f"sum({_HOUR}) / (sum({_PRICED}) > 0)",
            "Cost by the number of calls with a known price. Failed calls have none.",
            unit="currencyUSD",
        ),
        stat(
            "Calls without a price, last hour",
            or_zero(f"sum({_UNPRICED})"),
            "They are in no cost. Give their model a price with tm.set_prices().",
            warn_from=1,
        ),
        stat(
            "Presumed cost of lost replies, last hour",
            or_zero(f"sum({_PRESUMED})"),
            "What attempts probably cost whose reply was lost, for example by a time-out. It is an estimate and in no "
            "other figure.",
            unit="currencyUSD",
        ),
        stat(
            "Share of input read from a cache, last hour",
            f"(sum({_READ}) or vector(0)) / (sum({_INPUT}) > 0)",
            "Cached input tokens by all input tokens. A model whose provider reports no cache counts as 0.",
            unit="percentunit",
        ),
    ),
)

_BY = Row(
    "Cost of the last hour",
    (
        sums(
            "Cost of the last hour, by team",
            TEAM,
            _HOUR,
            f'{_EACH_POINT} The label needs metric_attributes=["team"] and @tm.flow(attributes={{"team": ...}}).',
            "currencyUSD",
        ),
        sums("Cost of the last hour, by flow", FLOW, _HOUR, f"{_EACH_POINT} By the innermost flow.", "currencyUSD"),
        sums("Cost of the last hour, by model", MODEL, _HOUR, f"{_EACH_POINT} By the requested model.", "currencyUSD"),
        sums("Cost of the last hour, by job", JOB, _HOUR, f"{_EACH_POINT} A job is a service.name.", "currencyUSD"),
        sums(
            "Cost of the last hour, by step",
            STEP,
            _STEPS,
            f'{_EACH_POINT} The label needs metric_attributes=["step"]. A call outside of steps has its model as step.',
            "currencyUSD",
        ),
        Panel(
            "Cost of one call, 95th percentile, with traces",
            (Query(quantile(0.95, _CALL_COST), "95 of 100 calls cost less", has_exemplars=True),),
            "The line is an estimate from buckets, of the 15 minutes before each point. Each mark is one call at its "
            "exact cost: click on it to open its trace in Jaeger. Not every call has a mark: of the calls of an export "
            "that are in one bucket, the last has.",
            unit="currencyUSD",
        ),
    ),
)

_FLOWS = Row(
    "Most expensive flows",
    (
        Panel(
            "Most expensive flows of the last day",
            (
                Query(_TOP, "day"),
                Query(f"{sum_by((JOB, FLOW), _HOUR)} {_OF_TOP}", "hour"),
                Query(f"{sum_by((JOB, FLOW), _PRICED)} {_OF_TOP}", "calls"),
            ),
            "The ten flows that cost most in the last day. A flow has the cost of its own calls, without that of flows "
            "inside it. The day is renewed every 5 minutes.",
            kind="table",
            width=24,
            columns={
                JOB: Column("Job"),
                FLOW: Column(
                    "Flow",
                    links=(
                        jaeger_search("Its traces in Jaeger", "Job", gen_ai__workflow__name="Flow"),
                        dashboard("Its latency", "tracemind-latency", (("job", "Job"), ("flow", "Flow"))),
                        dashboard("Its failures", "tracemind-reliability", (("job", "Job"), ("flow", "Flow"))),
                    ),
                ),
                "day": Column("Cost of the last day", "currencyUSD"),
                "hour": Column("Cost of the last hour", "currencyUSD"),
                "calls": Column("Priced calls of the last hour", "short"),
            },
        ),
    ),
)

_TOKENS = Row(
    "Tokens",
    (
        sums(
            "Tokens of the last hour, by type",
            TOKEN_TYPE,
            _USED,
            f"{_EACH_POINT} Input includes cached tokens, output includes reasoning. Only what providers reported.",
        ),
        sums("Tokens of the last hour, by model", MODEL, _USED, f"{_EACH_POINT} Input and output."),
        sums(
            "Cache tokens of the last hour, by operation",
            CACHE_OPERATION,
            _CACHE,
            f"{_EACH_POINT} Input tokens that were read from a cache, and written to one. They are part of the input.",
        ),
        Panel(
            "Share of input read from a cache, by model",
            (
                Query(
                    f"{sum_by((MODEL,), _READ)} / ({sum_by((MODEL,), _INPUT)} > 0)",
                    f"{{{{{MODEL}}}}}",
                ),
            ),
            "Of the hour before each point. Models whose provider reports no cache are not shown.",
            unit="percentunit",
            maximum=1,
        ),
    ),
)

SPEND = Dashboard(
    uid="tracemind-spend",
    title="LLM spend",
    description="Who spends how much, on what, and on how many tokens.",
    variables=CALLS,
    rows=(_FIGURES, _BY, _FLOWS, _TOKENS),
    has_jaeger=True,
)
