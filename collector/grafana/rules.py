"""The series that Prometheus records for the dashboards: small, without `instance`, exact for short-lived processes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .promql import (
    BUDGET,
    BUDGET_KIND,
    CACHE_OPERATION,
    CALL_LABELS,
    ERROR,
    FLOW,
    JOB,
    REASON,
    STEP,
    TEAM,
    TOKEN_TYPE,
    exact,
    sum_by,
)


@dataclass(frozen=True)
class Rule:
    """One recorded series."""

    name: str
    """Its labels, its metric and its window, as Prometheus recommends."""
    expression: str
    """What Prometheus evaluates."""


@dataclass(frozen=True)
class Labelled:
    """One of several counters that stand for one counter with a label; its series get that label."""

    counter: str
    """The name in Prometheus."""
    label: str
    """The label."""
    value: str
    """The value of the label."""


def _rule(name: str, labels: Sequence[str], *sources: str | Labelled) -> Rule:
    """A rule whose window is at the end of its name. The first source of a series wins, so that none counts twice."""
    window = name.rpartition(":")[2]
    return Rule(name, "\nor\n".join(_part(labels, source, window) for source in sources))


def _part(labels: Sequence[str], source: str | Labelled, window: str) -> str:
    if isinstance(source, str):
        return sum_by(labels, exact(source, window))
    total = sum_by([label for label in labels if label != source.label], exact(source.counter, window))
    return f'label_replace({total}, "{source.label}", "{source.value}", "", "")'


EXPERIMENTAL = "gen_ai_client_inference"
"""The beginning of the names that OTEL_SEMCONV_STABILITY_OPT_IN=gen_ai_latest_experimental gives the metrics."""
DEFAULT = "gen_ai_client_operation"
"""The beginning of the names without that variable."""

RULES = (
    _rule("job_flow_model_team_step:tracemind_llm_cost_usd:1h", (*CALL_LABELS, STEP), "tracemind_llm_cost_USD_total"),
    _rule("job_flow_model_team:tracemind_llm_priced_calls:1h", CALL_LABELS, "tracemind_llm_call_cost_USD_count"),
    _rule("job_flow_model_team:tracemind_llm_unpriced_calls:1h", CALL_LABELS, "tracemind_llm_unpriced_calls_total"),
    _rule(
        "job_flow_model_team:tracemind_llm_presumed_cost_usd:1h", CALL_LABELS, "tracemind_llm_presumed_cost_USD_total"
    ),
    _rule(
        "job_flow_model_team_type:llm_tokens:1h",
        (*CALL_LABELS, TOKEN_TYPE),
        "gen_ai_client_token_usage_sum",
        Labelled(f"{EXPERIMENTAL}_usage_input_tokens_total", TOKEN_TYPE, "input"),
        Labelled(f"{EXPERIMENTAL}_usage_output_tokens_total", TOKEN_TYPE, "output"),
        Labelled("gen_ai_client_embeddings_operation_input_tokens_sum", TOKEN_TYPE, "input"),
    ),
    _rule(
        "job_flow_model_team_operation:llm_cache_tokens:1h",
        (*CALL_LABELS, CACHE_OPERATION),
        "tracemind_llm_cache_tokens_total",
        Labelled(f"{EXPERIMENTAL}_usage_cache_read_input_tokens_total", CACHE_OPERATION, "read"),
        Labelled(f"{EXPERIMENTAL}_usage_cache_write_input_tokens_total", CACHE_OPERATION, "write"),
    ),
    _rule(
        "job_flow_model_team_error:llm_calls:15m",
        (*CALL_LABELS, ERROR),
        f"{DEFAULT}_duration_seconds_count",
        f"{EXPERIMENTAL}_duration_seconds_count",
        "gen_ai_client_embeddings_duration_seconds_count",
    ),
    _rule(
        "job_flow_model_team_reason:tracemind_llm_retries:15m", (*CALL_LABELS, REASON), "tracemind_llm_retries_total"
    ),
    _rule(
        "job_flow_model_team_budget:tracemind_llm_denied_calls:1h",
        (*CALL_LABELS, BUDGET, BUDGET_KIND),
        "tracemind_llm_denied_calls_total",
    ),
    _rule(
        "job_flow_model_team_le:llm_duration_seconds:15m",
        (*CALL_LABELS, "le"),
        f"{DEFAULT}_duration_seconds_bucket",
        f"{EXPERIMENTAL}_duration_seconds_bucket",
    ),
    _rule(
        "job_flow_model_team_le:llm_first_chunk_seconds:15m",
        (*CALL_LABELS, "le"),
        f"{DEFAULT}_time_to_first_chunk_seconds_bucket",
        f"{EXPERIMENTAL}_time_to_first_chunk_seconds_bucket",
    ),
    _rule(
        "job_flow_team_le:gen_ai_workflow_duration_seconds:15m",
        (JOB, FLOW, TEAM, "le"),
        "gen_ai_invoke_workflow_duration_seconds_bucket",
    ),
    _rule("job_budget_kind:tracemind_budget_spent:1h", (JOB, BUDGET, BUDGET_KIND), "tracemind_budget_spent_total"),
    _rule("job_budget_kind:tracemind_budget_spent:1d", (JOB, BUDGET, BUDGET_KIND), "tracemind_budget_spent_total"),
)

HEADER = """\
# What the dashboards of collector/grafana show beside the costs of recording.yml. Written by `python -m
# collector.grafana` from collector/grafana/rules.py: change that file, not this one.

groups:
"""


def rules_file() -> str:
    """The file of the rules, as YAML. Windows of a day are evaluated every five minutes."""
    days = [rule for rule in RULES if rule.name.endswith(":1d")]
    others = [rule for rule in RULES if rule not in days]
    groups = (("tracemind-dashboards", "1m", others), ("tracemind-dashboards-of-a-day", "5m", days))
    return HEADER + "\n".join(_group(*group) for group in groups)


def _group(name: str, interval: str, rules: Sequence[Rule]) -> str:
    lines = [f"  - name: {name}", f"    interval: {interval}", "    rules:"]
    for rule in rules:
        lines += [f"      - record: {rule.name}", "        expr: |"]
        lines += [f"          {line}" for line in rule.expression.splitlines()]
    return "\n".join(lines) + "\n"
