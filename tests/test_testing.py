"""`tracemind_otel.testing`: what the tests of an application see."""

from __future__ import annotations

from pathlib import Path

import pytest

import tracemind_otel as tm
from tests.programs import run
from tracemind_otel.ai.llm.providers import FakeLLMClient
from tracemind_otel.ai.llm.types import LLMUsage
from tracemind_otel.testing import captured


@tm.flow(name="answer")
async def answer() -> None:
    client = FakeLLMClient(0, script=["503"], usage=LLMUsage(10, 5, 15, 0.25))
    config = tm.LLMCallConfig("fake", "toy-1", prompt="Hi", max_retries=1)
    await tm.run_llm_call("", "reply", config, tm.OTelRecorder(), client=client)


async def test_a_block_is_captured() -> None:
    """Spans come as plain data in the order of their start, and nothing in them differs from run to run."""
    seen = list[list[dict[str, object]]]()
    for _ in range(2):
        with captured() as telemetry:
            await answer()
        seen.append(telemetry.as_dicts())
        assert telemetry.total("tracemind.llm.cost") == 0.25
    assert [(span["name"], span["parent"]) for span in seen[0]] == [
        ("invoke_workflow answer", None),
        ("chat toy-1", "invoke_workflow answer"),
        ("attempt 1", "chat toy-1"),
        ("attempt 2", "chat toy-1"),
    ]
    assert [span["status"] for span in seen[0]] == [span["status"] for span in seen[1]]
    assert [span["attributes"] for span in seen[0]] != []


async def test_what_is_outside_is_not_captured() -> None:
    """Blocks may stand in one another, and each has what was recorded in itself alone."""
    with captured() as outer:
        with captured() as inner:
            await answer()
        tm.step(name="outside")(lambda: None)()
    assert [span.name for span in outer.spans] == ["outside"]
    assert inner.span("chat toy-1").status.is_ok
    with pytest.raises(AssertionError, match="0 spans named 'missing'"):
        inner.span("missing")


@pytest.mark.slow
def test_it_needs_no_test_framework(tmp_path: Path) -> None:
    """Importing it loads neither pytest nor the SDK."""
    source = "import sys, tracemind_otel.testing; print({'pytest', 'opentelemetry.sdk'} & set(sys.modules))"
    assert run("-c", source, directory=tmp_path).stdout == "set()\n"
