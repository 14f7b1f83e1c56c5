"""One module has every name of the telemetry, and each name is in use."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import pytest

from tracemind_otel.ai.llm.types import LLMUsage
from tracemind_otel.otel import semconv

SRC = Path(__file__).resolve().parents[1] / "src"
OWNER = SRC / "tracemind_otel" / "otel" / "semconv.py"
ROWS = SRC / "tracemind_otel" / "otel" / "backends" / "rows.py"
"""Names the attributes of backends, which the conventions have given up or never had."""
OWNED = re.compile(
    r"\b(gen_ai\.|tracemind\.(flow|step|retry|cost|llm|usage|response|cancelled|budget|tags|function|stream)|(session|user)\.id)"
)

ATTRIBUTES = {
    "gen_ai.operation.name",
    "gen_ai.provider.name",
    "gen_ai.request.model",
    "gen_ai.request.frequency_penalty",
    "gen_ai.request.max_tokens",
    "gen_ai.request.presence_penalty",
    "gen_ai.request.reasoning.level",
    "gen_ai.request.seed",
    "gen_ai.request.stop_sequences",
    "gen_ai.request.temperature",
    "gen_ai.request.top_k",
    "gen_ai.request.top_p",
    "gen_ai.response.finish_reasons",
    "gen_ai.response.id",
    "gen_ai.response.model",
    "gen_ai.response.time_to_first_chunk",
    "gen_ai.token.modality",
    "gen_ai.usage.cache_read.input_tokens",
    "gen_ai.usage.cache_write.input_tokens",
    "gen_ai.usage.input_tokens",
    "gen_ai.usage.output_tokens",
    "gen_ai.usage.reasoning.output_tokens",
    "gen_ai.workflow.name",
    "gen_ai.agent.name",
    "gen_ai.conversation.id",
    "gen_ai.output.type",
    "gen_ai.request.stream",
    "gen_ai.prompt.name",
    "gen_ai.prompt.version",
    "gen_ai.tool.call.id",
    "gen_ai.input.messages",
    "gen_ai.output.messages",
    "gen_ai.system_instructions",
    "gen_ai.tool.definitions",
    "gen_ai.tool.call.arguments",
    "gen_ai.tool.call.result",
    "gen_ai.tool.name",
    "gen_ai.tool.type",
}
"""Attributes of semantic-conventions-genai (registry.yaml, November 2026) that we may use."""
METRICS = {
    "gen_ai.client.embeddings.duration",
    "gen_ai.client.embeddings.operation.input_tokens",
    "gen_ai.client.inference.duration",
    "gen_ai.client.inference.operation.input_tokens",
    "gen_ai.client.inference.operation.output_tokens",
    "gen_ai.client.inference.time_per_output_chunk",
    "gen_ai.client.inference.time_to_first_chunk",
    "gen_ai.client.inference.usage.cache_read.input_tokens",
    "gen_ai.client.inference.usage.cache_write.input_tokens",
    "gen_ai.client.inference.usage.input_tokens",
    "gen_ai.client.inference.usage.output_tokens",
    "gen_ai.client.inference.usage.reasoning.output_tokens",
    "gen_ai.execute_tool.duration",
    "gen_ai.invoke_agent.duration",
    "gen_ai.invoke_agent.inference_calls",
    "gen_ai.invoke_agent.tool_calls",
    "gen_ai.invoke_workflow.duration",
}
"""Metrics of the same (metrics.yaml, token-metrics.yaml)."""
EVENTS = {"gen_ai.client.inference.operation.details"}
"""Events of the same (events.yaml)."""
NOT_OF_THE_NEWEST = {
    "gen_ai.client.operation.time_per_output_chunk": "what dashboards read today for streams",
    "gen_ai.client.operation.time_to_first_chunk": "what dashboards read today for streams",
    "gen_ai.client.operation.duration": "what dashboards read today for model calls",
    "gen_ai.client.token.usage": "what dashboards read today",
    "gen_ai.token.type": "the attribute of that histogram",
    "gen_ai.invoke_workflow.inference_calls": "open proposal #523; only by opt-in",
    "gen_ai.invoke_workflow.tool_calls": "open proposal #523; only by opt-in",
    "gen_ai.token.semantics": "says that cached tokens are part of the input; only by preset",
    "gen_ai.usage.cost": "no convention yet; what Langfuse, OpenLIT and Grafana read",
    "gen_ai.client.operation.cost": "about to be adopted; only by opt-in",
    "gen_ai.usage.cost.amount": "about to be adopted; only by opt-in",
    "gen_ai.usage.cost.currency": "about to be adopted; only by opt-in",
    "gen_ai.usage.cost.source": "about to be adopted; only by opt-in",
}


def names() -> dict[str, str]:
    """The constants of the module that are names."""
    return {
        constant: value
        for constant, value in vars(semconv).items()
        if constant.isupper() and not constant.startswith("_") and isinstance(value, str)
    }


def literals(path: Path) -> Iterator[str]:
    """The strings in a module's code, those of f-strings included, and documentation excluded."""
    tree = ast.parse(path.read_text())
    documentation = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documentation:
            yield node.value


def sources() -> list[Path]:
    return [path for path in sorted(SRC.rglob("*.py")) if path not in (OWNER, ROWS)]


def test_the_names_stand_in_one_place() -> None:
    """Renaming an attribute changes one line, since no other module spells it out."""
    found = {str(path.relative_to(SRC)): [text for text in literals(path) if OWNED.search(text)] for path in sources()}
    assert {path: texts for path, texts in found.items() if texts} == {}


def test_the_rows_of_backends_name_no_attribute_that_is_ours() -> None:
    """The table of backends spells out names of others only; those of the conventions and ours are constants."""
    ours = {*names().values(), *semconv.USAGE_NAMES.values(), *semconv.RESPONSE_CONDITION_NAMES.values()}
    spelled = {text for text in literals(ROWS) if OWNED.search(text)}
    assert spelled & ours == set()
    assert spelled >= {"gen_ai.system", "gen_ai.usage.cache_creation.input_tokens"}


def test_the_search_finds_what_it_looks_for(tmp_path: Path) -> None:
    """The test above finds a name in code and f-strings, and ignores documentation."""
    path = tmp_path / "module.py"
    path.write_text(
        '"""gen_ai.a"""\nX = "gen_ai.b"\ndef f():\n    """tracemind.flow.c"""\n    return f"{X} gen_ai.d"\n'
    )
    assert [text for text in literals(path) if OWNED.search(text)] == ["gen_ai.b", " gen_ai.d"]


def test_names_are_unique() -> None:
    """No two constants are the same attribute or the same metric."""
    found = [(constant.startswith("METRIC_"), name) for constant, name in names().items()]
    assert [name for name, count in Counter(found).items() if count > 1] == []


@pytest.mark.parametrize("name", sorted(value for value in names().values() if value.startswith("gen_ai.")))
def test_a_gen_ai_name_is_a_convention(name: str) -> None:
    """Each `gen_ai.*` is in the newest conventions, or is one of the few that dashboards need."""
    assert name in ATTRIBUTES | METRICS | EVENTS | set(NOT_OF_THE_NEWEST)


@pytest.mark.parametrize(("constant", "name"), sorted(names().items()))
def test_a_name_belongs_to_somebody(constant: str, name: str) -> None:
    """Names are the conventions' or the package's, in lower case with dots, and constants are named after them."""
    if constant.startswith(("METRIC_", "GEN_AI_", "TRACEMIND_")):
        assert re.fullmatch(r"(gen_ai|tracemind)(\.[a-z_0-9]+)+", name)
    if constant.startswith(("GEN_AI_", "TRACEMIND_")):
        assert constant == name.replace(".", "_").upper()


def test_each_reported_part_of_usage_has_a_name() -> None:
    """Every count of `LLMUsage` is on the span, so that a stored call can be priced again."""
    named_elsewhere = {"prompt_tokens", "completion_tokens", "total_tokens", "cache_read_tokens", "cache_write_tokens"}
    figures = {field.name for field in fields(LLMUsage) if "cost" not in field.name and field.name != "fees_usd"}
    assert set(semconv.USAGE_NAMES) == figures - named_elsewhere - {"reasoning_tokens", "estimated"}


@pytest.mark.parametrize(("key", "name"), semconv.USAGE_NAMES.items())
def test_parts_of_usage_are_named_by_one_rule(key: str, name: str) -> None:
    """An attribute follows from the price table's key: part, then side, for tokens; else the key itself."""
    if not key.endswith("_tokens"):
        assert name == f"tracemind.usage.{key}"
        return
    words = key.removesuffix("_tokens").split("_")
    side = next((word for word in words if word in ("input", "output")), "input")  # a cache holds input
    part = "_".join(word for word in words if word != side)
    assert name == f"tracemind.usage.{part}.{side}_tokens"


def test_boundaries_grow() -> None:
    """The buckets of every histogram rise strictly."""
    for constant, value in vars(semconv).items():
        if "_BOUNDARIES" in constant:
            assert list(value) == sorted(set(value))
