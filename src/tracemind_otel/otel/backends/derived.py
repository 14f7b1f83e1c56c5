"""The values that presets add, each derived from a span's own attributes. Pure."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, cast

from ...ai.llm.types import LLMUsage
from ...flows.totals import AttributeValue
from .. import semconv
from ..genai_spans import is_model_call
from ..genai_usage import told_call

SpanType = Literal["flow", "agent", "tool", "step", "call"]
"""What a span is, whoever made it."""

_TYPES: Mapping[object, SpanType] = {
    semconv.INVOKE_WORKFLOW: "flow",
    semconv.INVOKE_AGENT: "agent",
    semconv.EXECUTE_TOOL: "tool",
}
_TYPES_OF_OTHERS: Mapping[str, Mapping[object, SpanType]] = {
    "openinference.span.kind": {"AGENT": "agent", "TOOL": "tool"},
    "traceloop.span.kind": {"workflow": "flow", "agent": "agent", "tool": "tool", "task": "step"},
}
"""By the attributes of OpenInference and OpenLLMetry. A chain of OpenInference may be anything, so it is left alone."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SpanFacts:
    """What a preset knows of a span that is about to end."""

    type: SpanType
    """What the span is."""
    attributes: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """Its attributes."""
    started_ns: int = 0
    """Its start, in nanoseconds since the epoch."""
    workflow: str | None = None
    """The name of the flow around it."""
    agent: str | None = None
    """The name of the agent around it."""


@dataclass(frozen=True, slots=True)
class Value:
    """A value that a preset adds."""

    says: str
    """How the documentation names it."""
    of: Callable[[SpanFacts], AttributeValue | None]
    """Computes it; `None` where the span does not have what it takes, and then nothing is added."""


def span_type(attributes: Mapping[str, Any], *, is_ours: bool) -> SpanType | None:
    """What a span with these attributes is; `None` for one that no preset touches.

    Args:
        attributes: the attributes of the span.
        is_ours: whether this package made it, so that a span without an operation is a step or an attempt.
    """
    found = _TYPES.get(attributes.get(semconv.GEN_AI_OPERATION_NAME))
    if found is not None:
        return found
    if is_model_call(attributes):
        return "call"
    for name, types in _TYPES_OF_OTHERS.items():
        if (told := types.get(attributes.get(name))) is not None:
            return told
    is_step = is_ours and not {semconv.GEN_AI_OPERATION_NAME, semconv.TRACEMIND_RETRY_ATTEMPT} & attributes.keys()
    return "step" if is_step else None


# --- Simple values ---


def fixed(value: AttributeValue) -> Value:
    """Always the same value."""
    return Value(f"`{value}`", lambda facts: value)


def copied(*names: str) -> Value:
    """The first of these attributes that the span has."""
    return Value(f"`{names[0]}`", lambda facts: _first(facts.attributes, names))


def _first(attributes: Mapping[str, Any], names: tuple[str, ...]) -> Any:
    return next((attributes[name] for name in names if name in attributes), None)


# --- Tokens ---


def _usage(facts: SpanFacts) -> LLMUsage | None:
    response = told_call(facts.attributes).response
    return None if response is None else response.usage


def _count(says: str, field_name: str) -> Value:
    return Value(says, lambda facts: getattr(_usage(facts), field_name, None))


INPUT_TOKENS = _count("the input tokens, cached ones included", "prompt_tokens")
OUTPUT_TOKENS = _count("the output tokens, reasoning included", "completion_tokens")
CACHE_READ_TOKENS = _count("the input tokens read from a cache", "cache_read_tokens")
CACHE_WRITE_TOKENS = _count("the input tokens written to a cache", "cache_write_tokens")
REASONING_TOKENS = _count("the output tokens of reasoning", "reasoning_tokens")


def _exclusive_counts(facts: SpanFacts) -> str | None:
    usage = _usage(facts)
    if usage is None or usage.prompt_tokens is None or usage.completion_tokens is None:
        return None
    read, written = usage.cache_read_tokens or 0, usage.cache_write_tokens or 0
    reasoning = usage.reasoning_tokens or 0
    parts = {
        "input": usage.prompt_tokens - read - written,
        "input_cache_read": read,
        "input_cache_creation": written,
        "output": usage.completion_tokens - reasoning,
        "output_reasoning": reasoning,
    }
    kept = {name: count for name, count in parts.items() if count or name in ("input", "output")}
    return _as_json({**kept, "total": usage.prompt_tokens + usage.completion_tokens})


EXCLUSIVE_TOKENS = Value("JSON of the tokens by part, none counted twice", _exclusive_counts)


# --- Cost ---

_COST_NAMES = (semconv.TRACEMIND_COST_USD, semconv.GEN_AI_USAGE_COST, semconv.GEN_AI_USAGE_COST_AMOUNT)


def _number(facts: SpanFacts, *names: str) -> float | None:
    found = _first(facts.attributes, names)
    return float(found) if isinstance(found, int | float) and not isinstance(found, bool) else None


def _cost_parts(facts: SpanFacts) -> dict[str, float] | None:
    """The total with the parts that are known; fees belong to the total alone."""
    total = _number(facts, *_COST_NAMES)
    if total is None:
        return None
    parts = {
        "input": _number(facts, semconv.TRACEMIND_COST_INPUT_USD),
        "output": _number(facts, semconv.TRACEMIND_COST_OUTPUT_USD),
    }
    return {**{name: usd for name, usd in parts.items() if usd is not None}, "total": total}


def _cost_json(suffix: str) -> Callable[[SpanFacts], str | None]:
    def of(facts: SpanFacts) -> str | None:
        parts = _cost_parts(facts)
        return None if parts is None else _as_json({f"{name}{suffix}": usd for name, usd in parts.items()})

    return of


FLOW_COST = copied(semconv.TRACEMIND_FLOW_COST_USD)
FLOW_INPUT_TOKENS = copied(semconv.TRACEMIND_FLOW_INPUT_TOKENS)
FLOW_OUTPUT_TOKENS = copied(semconv.TRACEMIND_FLOW_OUTPUT_TOKENS)
COST = Value("the cost in USD", lambda facts: _number(facts, *_COST_NAMES))
INPUT_COST = Value("the input's part of the cost", lambda facts: _number(facts, semconv.TRACEMIND_COST_INPUT_USD))
OUTPUT_COST = Value("the output's part of the cost", lambda facts: _number(facts, semconv.TRACEMIND_COST_OUTPUT_USD))
COST_JSON = Value("JSON of the cost: input, output, total", _cost_json("_cost"))
COST_DETAILS = Value("JSON of the cost: input, output, total", _cost_json(""))


# --- Names, ids and times ---


def _openinference_kind(facts: SpanFacts) -> str:
    return "EMBEDDING" if facts.attributes.get(semconv.GEN_AI_OPERATION_NAME) == "embeddings" else "LLM"


OPENINFERENCE_KIND = Value("`LLM`, of embeddings `EMBEDDING`", _openinference_kind)
MODEL = copied(semconv.GEN_AI_RESPONSE_MODEL, *semconv.TOLD_MODEL)
PROVIDER = copied(*semconv.TOLD_PROVIDER)
CONVERSATION = Value(
    f"`{semconv.SESSION_ID}` if the call has no conversation",
    lambda facts: _first(facts.attributes, (semconv.SESSION_ID,)),
)
THREAD = copied(semconv.GEN_AI_CONVERSATION_ID, semconv.SESSION_ID)
USER = copied(semconv.USER_ID)
WORKFLOW = Value("the name of the flow around it", lambda facts: facts.workflow)
AGENT = Value("the name of the agent around it", lambda facts: facts.agent)


def _first_chunk_at(facts: SpanFacts) -> str | None:
    seconds = _number(facts, semconv.GEN_AI_RESPONSE_TIME_TO_FIRST_CHUNK)
    if seconds is None or not facts.started_ns:
        return None
    at = datetime.fromtimestamp(facts.started_ns / 1e9, UTC) + timedelta(seconds=seconds)
    return _as_json(at.isoformat(timespec="milliseconds").replace("+00:00", "Z"))


FIRST_CHUNK_AT = Value("the time of a stream's first chunk", _first_chunk_at)


# --- Content, where it was captured ---


def _text_of_last(facts: SpanFacts, name: str) -> str | None:
    """The text of the last message; its JSON where it has no text, as a call of a tool has none."""
    messages = _objects(_parsed(facts.attributes.get(name)))
    if not messages:
        return None
    parts = _objects(messages[-1].get("parts"))
    texts = [text for part in parts if isinstance(text := part.get("content"), str)]
    return "\n".join(texts) or (_as_json(parts) if parts else None)


def _parsed(value: object) -> object:
    try:
        return json.loads(value) if isinstance(value, str) else None
    except ValueError:
        return None


def _objects(value: object) -> list[Mapping[str, Any]]:
    items = cast("Sequence[object]", value) if isinstance(value, list) else ()
    return [cast("Mapping[str, Any]", item) for item in items if isinstance(item, dict)]


CONTENT = copied(semconv.GEN_AI_OUTPUT_MESSAGES, semconv.GEN_AI_INPUT_MESSAGES)
LAST_INPUT = Value("the last message of the input", lambda f: _text_of_last(f, semconv.GEN_AI_INPUT_MESSAGES))
ANSWER = Value("the answer", lambda f: _text_of_last(f, semconv.GEN_AI_OUTPUT_MESSAGES))


def _answer_form(facts: SpanFacts) -> str | None:
    answer = ANSWER.of(facts)
    if answer is None:
        return None
    return _JSON_FORM if isinstance(answer, str) and answer.startswith("[{") else "text/plain"


_JSON_FORM = "application/json"
ANSWER_FORM = Value("the media type of the answer", _answer_form)
ARGUMENTS = copied(semconv.GEN_AI_TOOL_CALL_ARGUMENTS, semconv.TRACEMIND_FUNCTION_ARGUMENTS)
RESULT = copied(semconv.GEN_AI_TOOL_CALL_RESULT, semconv.TRACEMIND_FUNCTION_RESULT)
RESULT_FORM = Value(
    f"`{_JSON_FORM}` if there is a result", lambda facts: None if RESULT.of(facts) is None else _JSON_FORM
)


def _as_json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
