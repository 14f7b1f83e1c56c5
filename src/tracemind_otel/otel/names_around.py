"""The names of the flow and the agent around a model call: the innermost ones, whoever made their spans."""

from __future__ import annotations

from collections.abc import Mapping

from ..flows.agents import current_agent
from ..flows.totals import current_flow
from .genai_spans import attributes_of
from .instruments import is_ours
from .semconv import GEN_AI_AGENT_NAME, GEN_AI_OPERATION_NAME, GEN_AI_WORKFLOW_NAME, INVOKE_AGENT, INVOKE_WORKFLOW

Names = Mapping[str, str | None]
"""The attributes that have the names; `None` inside a flow or an agent that has no name."""

_NAMED_BY: Mapping[object, str] = {INVOKE_WORKFLOW: GEN_AI_WORKFLOW_NAME, INVOKE_AGENT: GEN_AI_AGENT_NAME}
"""The attribute that has the name, by the operation of a flow's or an agent's span."""


def names_around() -> dict[str, str]:
    """The names of our flow and our agent around this code."""
    flow, agent = current_flow(), current_agent()
    names = {} if flow is None else {GEN_AI_WORKFLOW_NAME: flow.name}
    return names if agent is None else {**names, GEN_AI_AGENT_NAME: agent.name}


def names_inside(span: object, around: Names) -> Names:
    """The names for what is inside a span: its own where it is a flow's or an agent's, else those around it.

    An agent that has no name still hides the one around it, to which the calls inside do not belong.
    """
    attributes = attributes_of(span)
    named_by = _named_by(span, attributes)
    if named_by is None:
        return around
    name = attributes.get(named_by)
    return {**around, named_by: name if isinstance(name, str) else None}


def _named_by(span: object, attributes: Mapping[str, object]) -> str | None:
    operation = attributes.get(GEN_AI_OPERATION_NAME)
    if operation is not None:
        return _NAMED_BY.get(operation)
    is_agent = not is_ours(span) and attributes.get("openinference.span.kind") == "AGENT"
    return GEN_AI_AGENT_NAME if is_agent else None
