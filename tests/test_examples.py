"""Every program in examples/ runs as a reader would run it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.programs import run
from tests.servers.fixture import OpenAIServer
from tests.servers.fixture import openai_server as openai_server
from tracemind_otel.otlp_file import read_spans

EXAMPLES = Path(__file__).parents[1] / "examples"
QUICKSTART = EXAMPLES / "quickstart.py"


@pytest.mark.parametrize("program", sorted(EXAMPLES.glob("*.py")), ids=lambda program: program.stem)
def test_every_example_runs_with_no_argument_key_or_server(program: Path, tmp_path: Path) -> None:
    """A reader can start any example as it is."""
    done = run(program, directory=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout


def test_the_quickstart_shows_its_cost_and_its_trace(tmp_path: Path) -> None:
    """The quickstart prints what the call cost, and the file that it names holds the flow and its call."""
    done = run(QUICKSTART, directory=tmp_path)
    assert "8 tokens, $0.000003" in done.stdout
    assert done.stdout.rstrip().endswith("python -m tracemind_otel view quickstart.otlp.jsonl")
    with (tmp_path / "quickstart.otlp.jsonl").open(encoding="utf-8") as lines:
        assert {span.name for span in read_spans(lines)} == {"invoke_workflow greet", "chat toy-1"}


def test_the_quickstart_calls_openai_with_a_key(openai_server: OpenAIServer, tmp_path: Path) -> None:
    """The same program calls the real provider when asked to and given a key."""
    environment = {"OPENAI_API_KEY": "sk-test-key", "OPENAI_BASE_URL": openai_server.base_url, "NO_PROXY": "*"}
    done = run(QUICKSTART, "--provider", "openai", directory=tmp_path, environment=environment)
    assert done.returncode == 0, done.stderr
    assert " tokens, $0.0" in done.stdout


def test_the_quickstart_says_what_openai_lacks(tmp_path: Path) -> None:
    """Without a key the real provider's call fails with a reason and an exit code, not with a traceback."""
    done = run(QUICKSTART, "--provider", "openai", directory=tmp_path)
    assert done.returncode == 1
    assert done.stdout.startswith("failed: OPENAI_API_KEY is not set")
    assert "Traceback" not in done.stderr
