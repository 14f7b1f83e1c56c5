"""How long calls and flows take, and how long a reader waits for the first chunk."""

from __future__ import annotations

from .filters import CALLS, IN_CALLS, IN_FLOWS, also
from .model import Dashboard, Panel, Query, Row
from .panels import by_label, label_named, quantiles, stat
from .promql import FLOW, MODEL, exact, quantile

_CALL = f"job_flow_model_team_le:llm_duration_seconds:15m{IN_CALLS}"
_FIRST = f"job_flow_model_team_le:llm_first_chunk_seconds:15m{IN_CALLS}"
_STREAMS = also(_FIRST, 'le="+Inf"')
_FLOW = f"job_flow_team_le:gen_ai_workflow_duration_seconds:15m{IN_FLOWS}"
_RAW = exact("gen_ai_client_operation_duration_seconds_bucket", "15m", IN_CALLS)
_CALLS = f"job_flow_model_team_error:llm_calls:15m{IN_CALLS}"

_ESTIMATE = "Of the 15 minutes before each point, estimated from buckets: at most twice or half the value."
_CALL_MEANS = "A call lasts from its start to its end, with all attempts and the waits between them. Failed calls too."
_FIRST_MEANS = "From the start of a streamed call to its first chunk. Calls that are not streamed are not in it."

_SHARES = (("50 of 100", 0.5), ("95 of 100", 0.95), ("99 of 100", 0.99))

_FIGURES = Row(
    "Last 15 minutes",
    (
        stat("Calls", f"sum({_CALLS})", "Calls that ended, failed ones too. Not those that a budget denied."),
        stat("Median duration of a call", quantile(0.5, _CALL), _CALL_MEANS, unit="s"),
        stat("95th percentile of a call", quantile(0.95, _CALL), _CALL_MEANS, unit="s"),
        stat("Streams", f"sum({_STREAMS})", "Calls with a first chunk."),
        stat("Median time to the first chunk", quantile(0.5, _FIRST), _FIRST_MEANS, unit="s"),
        stat("95th percentile of the first chunk", quantile(0.95, _FIRST), _FIRST_MEANS, unit="s"),
    ),
)

_CALL_ROW = Row(
    "Calls",
    (
        quantiles(
            "Duration of calls",
            [(f"{legend} are faster", quantile(share, _CALL)) for legend, share in _SHARES],
            f"{_CALL_MEANS} {_ESTIMATE}",
        ),
        by_label(
            "Duration of calls, 95th percentile, by model",
            MODEL,
            label_named(quantile(0.95, _CALL, (MODEL,)), MODEL),
            f"{_CALL_MEANS} {_ESTIMATE}",
            "s",
        ),
        quantiles(
            "Time to the first chunk",
            [(f"{legend} are faster", quantile(share, _FIRST)) for legend, share in _SHARES],
            f"{_FIRST_MEANS} {_ESTIMATE}",
        ),
        by_label(
            "Time to the first chunk, 95th percentile, by model",
            MODEL,
            label_named(quantile(0.95, _FIRST, (MODEL,)), MODEL),
            f"{_FIRST_MEANS} {_ESTIMATE}",
            "s",
        ),
    ),
)

_FLOW_ROW = Row(
    "Flows and traces",
    (
        by_label(
            "Duration of flows, 95th percentile, by flow",
            FLOW,
            quantile(0.95, _FLOW, (FLOW,)),
            f"From the start of a flow's function to its end. {_ESTIMATE} Not filtered by model.",
            "s",
        ),
        Panel(
            "Duration of calls, 95th percentile, with traces",
            (Query(quantile(0.95, _RAW), "95 of 100 are faster", has_exemplars=True),),
            f"{_ESTIMATE} Each mark is one call at its exact duration: click on it to open its trace in Jaeger. Not "
            "for the newest metric names alone (OTEL_SEMCONV_STABILITY_OPT_IN=gen_ai_latest_experimental).",
            unit="s",
        ),
    ),
)

LATENCY = Dashboard(
    uid="tracemind-latency",
    title="LLM latency",
    description="How long calls and flows take, and how long a reader waits for the first chunk.",
    variables=CALLS,
    rows=(_FIGURES, _CALL_ROW, _FLOW_ROW),
)
