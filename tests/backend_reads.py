"""What each backend reads of a span, written down by hand from their sources and documentation, not from our rows.

The contract tests hold both against it: what presets put on spans, and what the rows say of them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Literal

Shows = Literal[
    "model", "input", "output", "cache_read", "cache_write", "reasoning", "cost", "session", "user", "answer"
]
Kind = Literal["flow", "agent", "tool", "step", "call"]

_REQUEST, _RESPONSE = "gen_ai.request.model", "gen_ai.response.model"
_BOTH = f"{_REQUEST} {_RESPONSE}"
_INPUT, _OUTPUT = "gen_ai.usage.input_tokens", "gen_ai.usage.output_tokens"
_READ = "gen_ai.usage.cache_read.input_tokens"
_OLD_WRITE, _NEW_WRITE = "gen_ai.usage.cache_creation.input_tokens", "gen_ai.usage.cache_write.input_tokens"
_REASONING = "gen_ai.usage.reasoning.output_tokens"
_COST = "gen_ai.usage.cost"
_CONVERSATION, _SESSION, _USER = "gen_ai.conversation.id", "session.id", "user.id"
_ANSWER = "gen_ai.output.messages"
_LANGFUSE = "langfuse.observation"
_OI = "llm.token_count"

READS: Mapping[str, Mapping[Shows, str]] = {
    "jaeger": {
        "model": _BOTH, "input": _INPUT, "output": _OUTPUT, "cache_read": _READ, "cache_write": _OLD_WRITE,
        "reasoning": _REASONING, "cost": _COST, "session": _CONVERSATION, "answer": _ANSWER,
    },
    "phoenix": {
        "model": f"llm.model_name {_REQUEST}", "input": f"{_OI}.prompt {_INPUT}",
        "output": f"{_OI}.completion {_OUTPUT}", "cache_read": f"{_OI}.prompt_details.cache_read {_READ}",
        "cache_write": f"{_OI}.prompt_details.cache_write {_OLD_WRITE}",
        "reasoning": f"{_OI}.completion_details.reasoning", "session": f"{_SESSION} {_CONVERSATION}", "user": _USER,
        "answer": f"output.value {_ANSWER}",
    },
    "mlflow": {
        "model": f"llm.model_name {_RESPONSE} {_REQUEST}", "input": f"{_OI}.prompt {_INPUT}",
        "output": f"{_OI}.completion {_OUTPUT}", "cache_read": f"{_OI}.prompt_details.cache_read {_READ}",
        "cache_write": f"{_OI}.prompt_details.cache_write {_NEW_WRITE} {_OLD_WRITE}",
        "cost": "mlflow.llm.cost#total_cost", "session": f"{_SESSION} {_CONVERSATION}", "user": _USER,
        "answer": f"output.value {_ANSWER}",
    },
    "langfuse": {
        "model": f"{_LANGFUSE}.model.name {_RESPONSE} {_REQUEST}",
        "cache_read": f"{_LANGFUSE}.usage_details#input_cache_read",
        "cache_write": f"{_LANGFUSE}.usage_details#input_cache_creation",
        "reasoning": f"{_LANGFUSE}.usage_details#output_reasoning",
        "cost": f"{_LANGFUSE}.cost_details#total {_COST}", "session": f"{_SESSION} {_CONVERSATION}", "user": _USER,
        "answer": _ANSWER,
    },
    "opik": {
        "model": _BOTH, "input": _INPUT, "output": _OUTPUT, "cache_read": _READ, "cache_write": _NEW_WRITE,
        "reasoning": _REASONING, "cost": _COST, "session": f"thread_id {_CONVERSATION}", "answer": _ANSWER,
    },
    "weave": {
        "model": _BOTH, "input": _INPUT, "output": _OUTPUT, "cache_read": _READ, "cache_write": _OLD_WRITE,
        "reasoning": "gen_ai.usage.reasoning_tokens", "session": _CONVERSATION, "answer": _ANSWER,
    },
    "laminar": {
        "model": _BOTH, "input": _INPUT, "output": _OUTPUT, "cache_read": _READ, "cache_write": _OLD_WRITE,
        "cost": _COST, "session": "lmnr.association.properties.session_id",
        "user": "lmnr.association.properties.user_id", "answer": _ANSWER,
    },
    "langsmith": {
        "model": _BOTH, "input": _INPUT, "output": _OUTPUT, "cache_read": _READ, "cache_write": _OLD_WRITE,
        "session": "langsmith.trace.session_id", "user": "langsmith.metadata.user_id", "answer": _ANSWER,
    },
    "signoz": {
        "model": _REQUEST, "input": _INPUT, "output": _OUTPUT, "cache_read": _READ, "cache_write": _OLD_WRITE,
        "session": _CONVERSATION, "answer": _ANSWER,
    },
    "openobserve": {
        "model": _BOTH, "input": _INPUT, "output": _OUTPUT, "cache_read": _READ, "cache_write": _OLD_WRITE,
        "cost": _COST, "session": f"{_SESSION} {_CONVERSATION}", "user": _USER, "answer": _ANSWER,
    },
    "openlit": {
        "model": _REQUEST, "input": _INPUT, "output": _OUTPUT, "cache_read": _READ, "cache_write": _OLD_WRITE,
        "cost": _COST,
    },
    "datadog": {
        "model": _REQUEST, "input": _INPUT, "output": _OUTPUT, "cache_read": _READ, "cache_write": _OLD_WRITE,
        "session": _CONVERSATION, "answer": _ANSWER,
    },
    "grafana": {
        "model": _REQUEST, "input": _INPUT, "output": _OUTPUT, "cache_write": _NEW_WRITE, "session": _CONVERSATION,
        "user": _USER, "answer": _ANSWER,
    },
    "honeycomb": {
        "model": _BOTH, "input": _INPUT, "output": _OUTPUT, "cache_read": _READ, "cache_write": _NEW_WRITE,
        "reasoning": _REASONING, "cost": _COST, "session": _CONVERSATION, "user": _USER, "answer": _ANSWER,
    },
    "dynatrace": {"model": _REQUEST, "input": _INPUT, "output": _OUTPUT, "answer": _ANSWER},
    "newrelic": {"model": _BOTH, "input": _INPUT, "output": _OUTPUT},
    "elastic": {"model": _REQUEST, "input": _INPUT, "output": _OUTPUT, "answer": _ANSWER},
    "azure": {
        "model": _REQUEST, "input": _INPUT, "output": _OUTPUT, "cache_read": _READ, "cache_write": _NEW_WRITE,
        "reasoning": _REASONING, "session": _SESSION, "answer": _ANSWER,
    },
    "aws": {"model": _REQUEST, "input": _INPUT, "output": _OUTPUT, "session": _SESSION, "answer": _ANSWER},
    "splunk": {"model": _REQUEST, "session": _CONVERSATION, "user": _USER},
    "sentry": {
        "model": _BOTH, "input": _INPUT, "output": _OUTPUT,
        "cache_read": f"gen_ai.usage.input_tokens.cached {_READ}",
        "cache_write": f"gen_ai.usage.input_tokens.cache_write {_NEW_WRITE}",
        "reasoning": f"gen_ai.usage.output_tokens.reasoning {_REASONING}",
        "cost": "gen_ai.cost.total_tokens", "session": _CONVERSATION, "answer": _ANSWER,
    },
}  # fmt: skip
"""Attributes, the first of which counts; `name#key` is a key of an attribute's JSON. What is missing is not read."""

_OPERATION = "gen_ai.operation.name"
_BY_OPERATION: Mapping[Kind, str] = {
    "agent": f"{_OPERATION}=invoke_agent",
    "tool": f"{_OPERATION}=execute_tool",
    "call": f"{_OPERATION}=chat",
}
_AND_WORKFLOWS: Mapping[Kind, str] = {**_BY_OPERATION, "flow": f"{_OPERATION}=invoke_workflow"}
KINDS: Mapping[str, Mapping[Kind, str]] = {
    "jaeger": _AND_WORKFLOWS,
    "phoenix": {
        "flow": "openinference.span.kind=CHAIN",
        "agent": "openinference.span.kind=AGENT",
        "tool": "openinference.span.kind=TOOL",
        "step": "openinference.span.kind=CHAIN",
        "call": "openinference.span.kind=LLM",
    },
    "mlflow": {**_BY_OPERATION, "flow": 'mlflow.spanType="CHAIN"', "step": 'mlflow.spanType="CHAIN"'},
    "langfuse": {
        **_BY_OPERATION,
        "flow": f"{_LANGFUSE}.type=chain",
        "tool": f"{_LANGFUSE}.type=tool",
        "step": f"{_LANGFUSE}.type=span",
    },
    "opik": {"call": f"{_REQUEST}=*"},
    "weave": _BY_OPERATION,
    "laminar": {
        **_BY_OPERATION,
        "flow": "lmnr.span.type=DEFAULT",
        "tool": "lmnr.span.type=TOOL",
        "step": "lmnr.span.type=DEFAULT",
    },
    "langsmith": {
        "flow": "langsmith.span.kind=chain",
        "agent": "langsmith.span.kind=chain",
        "tool": "langsmith.span.kind=tool",
        "step": "langsmith.span.kind=chain",
        "call": "langsmith.span.kind=llm",
    },
    "signoz": {"call": f"{_REQUEST}=*", "agent": "gen_ai.agent.name=clerk", "tool": "gen_ai.tool.name=look_up"},
    "openobserve": _AND_WORKFLOWS,
    "openlit": _BY_OPERATION,
    "datadog": _BY_OPERATION,
    "grafana": _BY_OPERATION,
    "honeycomb": _AND_WORKFLOWS,
    "dynatrace": _AND_WORKFLOWS,
    "newrelic": _BY_OPERATION,
    "elastic": {},
    "azure": {"call": "gen_ai.system=openai"},
    "aws": _AND_WORKFLOWS,
    "splunk": _AND_WORKFLOWS,
    "sentry": _BY_OPERATION,
}
"""`attribute=value` by which it knows what a span is; what is missing is a span of no special kind."""

KINDS_BY_OPERATION_TOO = ("phoenix", "mlflow", "langfuse", "laminar", "langsmith")
"""The backends that know agents, tools and calls by `gen_ai.operation.name` where their own attribute is missing."""

TOOL_NAMES: Mapping[str, str] = {
    **dict.fromkeys(
        (
            "jaeger", "langfuse", "weave", "signoz", "openobserve", "datadog", "grafana", "honeycomb", "dynatrace",
            "azure", "aws", "splunk", "sentry",
        ),
        "gen_ai.tool.name",
    ),
    "phoenix": "tool.name gen_ai.tool.name",
}  # fmt: skip
"""Where the name of a tool is read; the others show the span's own name."""

ALSO: Mapping[str, Mapping[str, object]] = {
    "azure": {"gen_ai.system": "openai"},
    "laminar": {"gen_ai.system": "openai"},
    "honeycomb": {"gen_ai.workflow.name": "shop", "gen_ai.agent.name": "clerk"},
    "splunk": {"gen_ai.workflow.name": "shop", "gen_ai.agent.name": "clerk"},
}
"""What else a call in an agent must have, so that the backend takes it for what it is."""


def read(preset: str, field: Shows, attributes: Mapping[str, Any]) -> object:
    """What the backend shows of a span; `None` for nothing."""
    return first(READS[preset].get(field, ""), attributes)


def first(names: str, attributes: Mapping[str, Any]) -> object:
    """The first of these that a span has."""
    for path in names.split():
        name, _, key = path.partition("#")
        found = attributes.get(name)
        value = json.loads(found).get(key) if key and found is not None else found
        if value is not None:
            return value
    return None
