"""The variables of the dashboards, which have the same names and meanings in each."""

from __future__ import annotations

from collections.abc import Iterable

from .model import Link, Variable
from .promql import FLOW, JOB, MODEL, STEP, TEAM

_CALLS = "job_flow_model_team_error:llm_calls:15m"

IN_JOB = '{job=~"$job"}'
"""Of the chosen jobs."""
IN_CALLS = '{job=~"$job", gen_ai_workflow_name=~"$flow", gen_ai_request_model=~"$model", team=~"$team"}'
"""Of the chosen jobs, flows, models and teams."""
IN_FLOWS = '{job=~"$job", gen_ai_workflow_name=~"$flow", team=~"$team"}'
"""Of the chosen jobs, flows and teams, where a series has no model."""

JOB_ONLY = (Variable("job", JOB, "Job", _CALLS),)
CALLS = (
    *JOB_ONLY,
    Variable("flow", FLOW, "Flow", _CALLS, IN_JOB),
    Variable("model", MODEL, "Model", _CALLS, IN_JOB),
    Variable("team", TEAM, "Team", _CALLS, IN_JOB),
)
NO_NAMES = {FLOW: "outside of flows", TEAM: "without a team", MODEL: "without a model", STEP: "without a step"}
"""What stands in a legend for series without the label."""


def also(matchers: str, *more: str) -> str:
    """The same matchers and others."""
    return matchers[:-1] + "".join(f", {each}" for each in more) + "}"


def jaeger_search(title: str, job: str, **tags: str) -> Link:
    """A search on Jaeger's page. Values are those of columns, or fixed ones.

    Args:
        title: what the menu shows.
        job: the heading of the column with the job.
        tags: attributes with double underscores for dots, and the heading of the column with the value.
    """
    pairs = ",".join(f"%22{name.replace('__', '.')}%22:%22{cell(heading)}%22" for name, heading in tags.items())
    return Link(title, f"${{jaeger}}/search?service={cell(job)}&tags=%7B{pairs}%7D&lookback=2d&start=0&end=0")


def dashboard(title: str, uid: str, values: Iterable[tuple[str, str]]) -> Link:
    """Another dashboard for the same time, filtered by variables that have the values of columns."""
    filters = "".join(f"&var-{variable}={cell(heading)}" for variable, heading in values)
    return Link(title, f"/d/{uid}?${{__url_time_range}}&${{datasource:queryparam}}{filters}")


def cell(heading: str) -> str:
    """The value in another column of the row."""
    return f"${{__data.fields.{heading}:percentencode}}"
