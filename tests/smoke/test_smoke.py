"""What must work after the wheel is installed; uses only the installed package, the standard library and pytest."""

from __future__ import annotations

import asyncio
import importlib
import os
import re
import subprocess
import sys
from importlib.metadata import entry_points, version
from importlib.resources import files
from pathlib import Path

import pytest

import tracemind_otel as tm

pytestmark = pytest.mark.smoke

PUBLISHED = {
    "ai.llm": ("AsyncLLMClient", "LLMRequest", "LLMResponse", "LLMUsage"),
    "ai.llm.client": ("AsyncLLMClient",),
    "ai.llm.pricing": ("estimate_cost",),
    "ai.llm.providers": ("FakeLLMClient", "OpenAILLMClient"),
    "ai.llm.types": ("LLMRequest", "LLMResponse", "LLMUsage"),
    "runtime.recorder": ("Recorder",),
    "steps.ai_llm_call": ("LLMCallConfig", "LLMClientFactory", "apply_vars", "run_llm_call"),
}


def environment() -> dict[str, str]:
    """The machine's variables, without any of telemetry."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "TRACEMIND_"))}


def test_a_fake_call_is_recorded() -> None:
    """A call runs offline, and a recorder gets it."""
    recorder = tm.InMemoryRecorder()
    cfg = tm.LLMCallConfig("fake", "toy-1", template="What is {a}+{{ b }}?", vars={"a": 2, "b": 2})
    result = asyncio.run(tm.run_llm_call("flow", "step", cfg, recorder))
    assert (result["status"], result["text"]) == ("ok", "[fake:toy-1] ?2+2 si tahW")
    (step,) = recorder.steps
    assert step.end is not None
    assert (step.start.flow_id, step.start.step_id, step.end.status) == ("flow", "step", "success")
    assert step.end.payload == result


def test_a_price_is_known() -> None:
    """The dependencies include the price table."""
    cost = tm.estimate_cost("openai", "gpt-4o-mini", 1_000, 500)
    assert cost == pytest.approx(0.00045)


@pytest.mark.parametrize(
    "command", [[sys.executable, "-m", "tracemind_otel"], [str(Path(sys.executable).parent / "tracemind-otel")]]
)
def test_the_demo_prints_a_priced_tree(command: list[str], tmp_path: Path) -> None:
    """`demo` runs without any set-up, and prints the flow, its steps, each retry with its reason, and the cost."""
    done = subprocess.run(
        [*command, "demo", "--file", str(tmp_path / "spans.otlp.jsonl")],
        env=environment() | {"PYTHONIOENCODING": "utf-8"},
        cwd=tmp_path,
        capture_output=True,
        encoding="utf-8",
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "invoke_workflow answer_ticket" in done.stdout
    assert len(re.findall(r"chat demo-small", done.stdout)) == 3
    assert "$0.00045" in done.stdout
    assert "rate_limit" in done.stdout


@pytest.mark.parametrize("root", ["tracemind_otel", "trace_mind"])
@pytest.mark.parametrize("path", PUBLISHED)
def test_published_paths(root: str, path: str) -> None:
    """The paths of the first version can be imported, under both roots."""
    module = importlib.import_module(f"{root}.{path}")
    assert [name for name in PUBLISHED[path] if not hasattr(module, name)] == []


@pytest.mark.parametrize("package", ["tracemind_otel", "trace_mind"])
def test_types_are_shipped(package: str) -> None:
    """Type checkers find the installed package's types."""
    assert files(package).joinpath("py.typed").is_file()


def test_the_version() -> None:
    """The package and its distribution have the same version."""
    assert tm.__version__ == version("tracemind-otel")


SUITE = """
import asyncio
import sys

import pytest

import tracemind_otel as tm


def test_nothing_is_loaded():
    assert not [name for name in sys.modules if name.startswith("opentelemetry")]


@pytest.mark.llm_budget(calls=1)
def test_the_fixtures(fake_llm, llm_spans):
    fake_llm.reply("Paris")
    assert asyncio.run(tm.llm_call("openai/gpt-4o-mini", "Hello")).text == "Paris"
    assert llm_spans.names == ["chat gpt-4o-mini"]
"""


def _is_from_a_source_tree() -> bool:
    """Whether the package is run from where it is written, by a path and not by its metadata."""
    has_entry_point = bool(entry_points(group="pytest11", name="tracemind_otel"))
    return not has_entry_point and "site-packages" not in Path(tm.__file__).parts


@pytest.mark.skipif(_is_from_a_source_tree(), reason="the entry point is not installed")
def test_pytest_finds_the_plugin(tmp_path: Path) -> None:
    """Its entry point brings fixtures, marker and options, and loads no OpenTelemetry before one is used."""
    (tmp_path / "test_it.py").write_text(SUITE)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:asyncio", "--strict-markers"]

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*command, *arguments], cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False
        )

    done = run("--llm-cost-report", "-k", "fixtures")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "openai/gpt-4o-mini" in done.stdout
    assert run().returncode == 0
    assert run("-p", "no:tracemind_otel", "-k", "nothing").returncode != 0
