"""The published recipe, in its first and its present form."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.programs import run
from tests.servers.fixture import OpenAIServer
from tests.servers.fixture import openai_server as openai_server

RECIPE_V1 = Path(__file__).parent / "data" / "recipe_v1.py.txt"
MODULES = ("tracemind_otel.recipes.llm_call_example", "trace_mind.recipes.llm_call_example")


def test_the_recipe_of_the_first_version_runs_unchanged(tmp_path: Path) -> None:
    """A user's old copy of the recipe runs unchanged; without a key, its second call says so."""
    program = tmp_path / "llm_call_example.py"
    program.write_text(RECIPE_V1.read_text(encoding="utf-8"), encoding="utf-8")
    done = run(program, directory=tmp_path)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [" ".join(line.split()[:4]) for line in lines] == [
        "START: flow.demo step.1 {'type':",
        "END: flow.demo step.1 success",
        "START: flow.demo step.2 {'type':",
        "END: flow.demo step.2 error",
    ]
    assert "!dniMecarT ,olleH" in lines[1]
    assert "OPENAI_API_KEY is not set" in lines[3]


@pytest.mark.smoke
@pytest.mark.parametrize("module", MODULES)
def test_the_recipe_skips_openai_without_a_key(module: str, tmp_path: Path) -> None:
    """Under either name the recipe runs without a key, and says what it skipped and why."""
    done = run("-m", module, directory=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    start, end, skipped = done.stdout.splitlines()
    assert start.startswith("START: flow.demo step.1 {'type': 'ai.llm_call', 'provider': 'fake'")
    assert end.startswith("END: flow.demo step.1 success {'status': 'ok'")
    assert skipped == "SKIPPED: flow.demo step.2: OPENAI_API_KEY is not set; set it to call OpenAI"


def test_the_recipe_calls_openai_with_a_key(openai_server: OpenAIServer, tmp_path: Path) -> None:
    """With a key the second call goes to `OPENAI_BASE_URL` where that is set, and has a cost."""
    environment = {"OPENAI_API_KEY": "sk-test-key", "OPENAI_BASE_URL": openai_server.base_url, "NO_PROXY": "*"}
    done = run("-m", MODULES[0], directory=tmp_path, environment=environment)
    assert done.returncode == 0, done.stderr
    end = done.stdout.splitlines()[-1]
    assert end.startswith("END: flow.demo step.2 success {'status': 'ok'")
    assert "'cost_source': 'local'" in end
    assert "sk-test-key" not in done.stdout + done.stderr
