"""The public names, paths and signatures are as promised, and the façade is lazy."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import inspect
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import tracemind_otel as tm
from tracemind_otel.ai.llm import AsyncLLMClient, LLMRequest, LLMResponse, LLMUsage
from tracemind_otel.runtime.recorder import StepHandle
from tracemind_otel.steps.ai_llm_call import LLMClientFactory

PUBLISHED = {
    "ai.llm": ("AsyncLLMClient", "LLMRequest", "LLMResponse", "LLMUsage"),
    "ai.llm.client": ("AsyncLLMClient", "LLMRequest", "LLMResponse", "LLMUsage"),
    "ai.llm.types": ("LLMRequest", "LLMResponse", "LLMUsage"),
    "ai.llm.providers": ("FakeLLMClient", "OpenAILLMClient"),
    "ai.llm.providers.fake": ("FakeLLMClient",),
    "ai.llm.providers.openai": ("OpenAILLMClient",),
    "ai.llm.pricing": ("estimate_cost",),
    "steps.ai_llm_call": ("LLMCallConfig", "LLMClientFactory", "apply_vars", "run_llm_call"),
    "runtime.recorder": ("Recorder",),
}

FACADE = {
    *("AsyncLLMClient", "CompositeRecorder", "InMemoryRecorder", "LLMCallConfig", "LLMClientFactory", "LLMRequest"),
    *("LLMResponse", "LLMUsage", "OTelRecorder", "Price", "Recorder", "Telemetry", "__version__", "apply_vars"),
    *("carry_context", "configure", "estimate_cost", "flow", "run_llm_call", "set_prices", "step"),
    *("BudgetExceededError", "LogContextFilter", "agent", "budget", "continue_trace", "inject_context", "tool"),
    *("stream_llm_call", "using_attributes"),
}

SIGNATURES: list[tuple[Any, str]] = [
    (tm.estimate_cost, "(provider, model, prompt_toks, completion_toks)"),
    (tm.apply_vars, "(template, vars)"),
    (tm.run_llm_call, "(flow_id, step_id, cfg, recorder=None, *, client=None)"),
    (tm.carry_context, "(function)"),
    (tm.flow, "(function=None, /, **options)"),
    (tm.step, "(function=None, /, **options)"),
    (tm.tool, "(function=None, /, **options)"),
    (tm.agent, "(function=None, /, **options)"),
    (LLMClientFactory.make, "(provider, *, api_key=None, base_url=None, **options)"),
    (LLMClientFactory.register, "(name, factory)"),
    (AsyncLLMClient.complete, "(self, req)"),
    (AsyncLLMClient.aclose, "(self)"),
    (tm.Recorder.record_step_start, "(self, flow_id, step_id, payload=None)"),
    (tm.Recorder.record_step_retry, "(self, flow_id, step_id, payload=None)"),
    (tm.Recorder.record_step_end, "(self, flow_id, step_id, status, payload=None)"),
    (tm.Recorder.begin_step, "(self, start)"),
    (StepHandle.active, "(self)"),
    (StepHandle.retry, "(self, retry)"),
    (StepHandle.first_chunk, "(self)"),
    (StepHandle.end, "(self, end)"),
    (tm.OTelRecorder, "(*, tracer_provider=None, meter_provider=None, metric_attributes=None)"),
    (tm.CompositeRecorder, "(*recorders)"),
    (tm.InMemoryRecorder, "()"),
    (tm.Telemetry.flush, "(self, timeout_s=5.0)"),
    (tm.Telemetry.shutdown, "(self, timeout_s=None)"),
]

FIELDS: list[tuple[type[Any], str]] = [
    (LLMRequest, "provider model prompt temperature=None top_p=None extra={}"),
    (LLMResponse, "text usage raw={}"),
    (LLMUsage, "prompt_tokens=0 completion_tokens=0 total_tokens=0 cost_usd=None"),
    (
        tm.LLMCallConfig,
        "provider model prompt=None template=None vars=None timeout_ms=30000 max_retries=2 temperature=None top_p=None "
        "extra=None",
    ),
]

RECIPE = """
import asyncio
from trace_mind.steps.ai_llm_call import LLMCallConfig, run_llm_call
from trace_mind.runtime.recorder import Recorder

class PrintRecorder(Recorder):
    def record_step_start(self, flow_id, step_id, payload=None):
        print("START:", flow_id, step_id, payload)
    def record_step_end(self, flow_id, step_id, status, payload=None):
        print("END:", flow_id, step_id, status, payload)

async def main():
    rec = PrintRecorder()

    # Fake/offline
    cfg_fake = LLMCallConfig(
        provider="fake",
        model="toy-1",
        template="Hello, {{name}}! What is 2+2?",
        vars={"name": "TraceMind"},
        timeout_ms=1000,
        max_retries=1,
    )
    await run_llm_call("flow.demo", "step.1", cfg_fake, rec)

    # Real provider (OpenAI)
    cfg_real = LLMCallConfig(
        provider="openai",
        model="gpt-4o-mini",
        prompt="Give me one line on why async IO matters.",
        temperature=0.2,
        timeout_ms=15000,
        max_retries=2,
    )
    await run_llm_call("flow.demo", "step.2", cfg_real, rec)

if __name__ == "__main__":
    asyncio.run(main())
"""
"""The recipe of the first version, unchanged."""


def shape(function: Any) -> str:
    """A signature without its types."""
    signature = inspect.signature(function)
    bare = [p.replace(annotation=inspect.Parameter.empty) for p in signature.parameters.values()]
    return str(signature.replace(parameters=bare, return_annotation=inspect.Signature.empty))


def field_shape(field: dataclasses.Field[Any]) -> str:
    if field.default_factory is not dataclasses.MISSING:
        return f"{field.name}={field.default_factory()}"
    return field.name if field.default is dataclasses.MISSING else f"{field.name}={field.default}"


# --- The façade ---


def test_all_is_sorted() -> None:
    """`__all__` is sorted and has no name twice."""
    assert tm.__all__ == sorted(set(tm.__all__))


def modules_for_type_checkers() -> dict[str, str]:
    """The module that each name comes from, by the façade's imports under `TYPE_CHECKING`."""
    tree = ast.parse(Path(tm.__file__).read_text())
    block = next(node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
    imports = [node for node in block.body if isinstance(node, ast.ImportFrom)]
    return {alias.name: f"{tm.__name__}.{node.module}" for node in imports for alias in node.names}


def test_every_name_resolves() -> None:
    """A program gets each published name from the module that a type checker takes it from; `dir` lists them all."""
    modules = modules_for_type_checkers()
    for name in tm.__all__:
        assert getattr(tm, name) is getattr(importlib.import_module(modules[name]), name)
    assert set(modules) == set(tm.__all__) <= set(dir(tm))


def test_the_names_of_the_design_are_there() -> None:
    """Every name that the documentation uses as `tm.X` exists."""
    assert set(tm.__all__) >= FACADE


def test_every_error_is_there() -> None:
    """Every error class is on the façade."""
    errors = importlib.import_module("tracemind_otel.errors")
    own = {name for name, value in vars(errors).items() if isinstance(value, type) and issubclass(value, Exception)}
    assert own <= set(tm.__all__)


def test_an_unknown_name_is_an_attribute_error() -> None:
    """A misspelled name raises an `AttributeError`, as with any module."""
    with pytest.raises(AttributeError, match=r"module 'tracemind_otel' has no attribute 'no_such_name'"):
        _ = tm.no_such_name  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType, reportUnknownVariableType]


def test_the_version_is_the_distributions() -> None:
    """`tm.__version__` is what pip shows."""
    from importlib.metadata import version

    assert tm.__version__ == version("tracemind-otel")


# --- Paths and signatures ---


@pytest.mark.parametrize("path", PUBLISHED)
def test_published_paths(path: str) -> None:
    """Each published name is under `tracemind_otel` and, as the same object, under `trace_mind`."""
    ours, published = importlib.import_module(f"tracemind_otel.{path}"), importlib.import_module(f"trace_mind.{path}")
    for name in PUBLISHED[path]:
        assert getattr(ours, name) is getattr(published, name)
        assert name in published.__all__


@pytest.mark.parametrize(("function", "expected"), SIGNATURES, ids=lambda value: getattr(value, "__qualname__", ""))
def test_signatures(function: Any, expected: str) -> None:
    """Earlier calls stay valid: parameters keep their names, order, kinds and defaults."""
    assert shape(function) == expected


@pytest.mark.parametrize(("data", "expected"), FIELDS, ids=lambda value: getattr(value, "__name__", ""))
def test_fields(data: type[Any], expected: str) -> None:
    """Published fields keep names, order and defaults; newer ones are keyword-only and have a default."""
    fields = dataclasses.fields(data)
    assert [field_shape(field) for field in fields if not field.kw_only] == expected.split()
    assert [field.name for field in fields if field.kw_only and "=" not in field_shape(field)] == []


def test_the_options_of_configure() -> None:
    """All options are keyword-only, and all that the design names exist."""
    parameters = inspect.signature(tm.configure).parameters
    assert {parameter.kind for parameter in parameters.values()} == {inspect.Parameter.KEYWORD_ONLY}
    assert set(parameters) >= {
        *("service_name", "endpoint", "protocol", "headers", "file", "resource", "tracer_provider", "meter_provider"),
        *("metric_attributes", "prices"),
    }


@pytest.mark.slow
def test_the_published_recipe_runs_unchanged(tmp_path: Path) -> None:
    """The first version's recipe runs as printed; without a key its second call is an error that says so."""
    recipe = tmp_path / "llm_call_example.py"
    recipe.write_text(RECIPE)
    done = subprocess.run(
        [sys.executable, "-W", "error", str(recipe)], capture_output=True, text=True, timeout=60, check=False
    )
    lines = done.stdout.splitlines()
    assert done.returncode == 0
    assert [line.split(" {")[0] for line in lines] == [
        "START: flow.demo step.1",
        "END: flow.demo step.1 success",
        "START: flow.demo step.2",
        "END: flow.demo step.2 error",
    ]
    assert "'text': '[fake:toy-1] ?2+2 si tahW !dniMecarT ,olleH'" in lines[1]
    assert "OPENAI_API_KEY is not set" in lines[3]
