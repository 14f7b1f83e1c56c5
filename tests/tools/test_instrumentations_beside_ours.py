"""Other instrumentations beside ours: whatever spans they make, a call is counted once, with its cost and attempts."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import pytest

from tests.sdks.provider_fixture import ProviderServer, usd
from tests.sdks.provider_fixture import provider_server as provider_server
from tests.sdks.provider_server import Action
from tests.servers import sdk_environments
from tests.servers.fixture import REPOSITORY
from tests.tools.instrumented_calls import MARK

pytestmark = [pytest.mark.tools, pytest.mark.slow]

FAILING: list[Action] = [{"status": 429}, {"status": 500}, {}]
OWN_SCOPE = "tracemind_otel"
ANTHROPIC_SCOPE = "com.anthropic.sdk.python"
WAYS = ("", "_async", "_stream", "_stream_async")
CHAT, RESPONSES = ([f"{name}{way}" for way in WAYS] for name in ("openai_chat", "openai_responses"))
GOOGLE = ["google_generate", "google_generate_async", "google_stream", "google_stream_async"]
MISTRAL = ["mistral_chat", "mistral_chat_async", "mistral_stream", "mistral_stream_async"]
CLAUDE = [
    *("anthropic_messages", "anthropic_messages_async", "anthropic_stream", "anthropic_stream_async"),
    *("anthropic_stream_helper", "anthropic_stream_helper_async"),
]
FORMATS = {
    "openai_chat": "openai",
    "pydantic_ai_openai": "openai",
    "openai_responses": "openai_responses",
    "anthropic": "anthropic",
    "pydantic_ai_anthropic": "anthropic",
    "google": "gemini",
    "mistral": "mistral",
}
"""What the server answers, by the beginning of the call's name."""


@dataclass(frozen=True)
class Beside:
    """Instrumentations that are active, and what a call then looks like."""

    environment: str
    """Where they are installed."""
    makers: str
    """Who is active."""
    calls: list[str]
    """The calls."""
    provider: str
    """The provider of the server."""
    home: str
    """The scope of the span that has the cost."""
    measured_by: str = OWN_SCOPE
    """The scope of the one duration."""
    variables: tuple[tuple[str, str], ...] = ()
    """Environment variables of the process."""
    has_second_span: bool = False
    """Whether the log names a second span beside."""


GENAI = "opentelemetry.instrumentation.genai"
LLMETRY = "opentelemetry.instrumentation"
NO_CLAUDE = (("ANTHROPIC_OPEN_TELEMETRY", "false"),)
BESIDE = {
    "official, OpenAI": Beside("official", "genai", CHAT + RESPONSES, "openai", f"{GENAI}.openai", f"{GENAI}.openai"),
    "official, Anthropic": Beside("official", "genai", CLAUDE, "anthropic", ANTHROPIC_SCOPE, f"{GENAI}.anthropic"),
    "official, Google": Beside(
        "official", "genai", GOOGLE, "gemini", f"{LLMETRY}.google_genai", f"{LLMETRY}.google_genai"
    ),
    "OpenInference, OpenAI": Beside(
        "official", "openinference", CHAT + RESPONSES, "openai", "openinference.instrumentation.openai"
    ),
    "OpenInference, Anthropic": Beside(
        "official", "openinference", CLAUDE, "anthropic", ANTHROPIC_SCOPE, has_second_span=True
    ),
    "Anthropic's own": Beside("official", "none", CLAUDE, "anthropic", ANTHROPIC_SCOPE),
    "Anthropic's own, off": Beside("official", "none", CLAUDE, "anthropic", OWN_SCOPE, variables=NO_CLAUDE),
    "Mistral's own": Beside(
        "official",
        "none",
        MISTRAL,
        "mistral",
        "mistralai_sdk_tracer",
        variables=(("MISTRAL_SDK_TELEMETRY", "global"),),
    ),
    "pydantic-ai, OpenAI": Beside(
        "official",
        "pydantic_ai",
        [f"pydantic_ai_openai{way}" for way in ("", "_async", "_stream_async")],
        "openai",
        "pydantic-ai",
    ),
    "pydantic-ai, Anthropic": Beside(
        "official",
        "pydantic_ai",
        [f"pydantic_ai_anthropic{way}" for way in ("", "_async", "_stream_async")],
        "anthropic",
        ANTHROPIC_SCOPE,
    ),
    "OpenLLMetry, OpenAI": Beside(
        "openllmetry", "openllmetry", CHAT, "openai", f"{LLMETRY}.openai.v1", f"{LLMETRY}.openai.v1"
    ),
    "OpenLLMetry, Responses": Beside(
        "openllmetry", "openllmetry", RESPONSES, "openai", OWN_SCOPE, has_second_span=True
    ),
    "OpenLLMetry, Anthropic": Beside(
        "openllmetry", "openllmetry", CLAUDE, "anthropic", ANTHROPIC_SCOPE, f"{LLMETRY}.anthropic", has_second_span=True
    ),
    "Logfire, OpenAI": Beside("logfire", "logfire", CHAT + RESPONSES, "openai", "logfire.openai"),
    "OpenLIT, Anthropic": Beside(
        "openlit", "openlit", CLAUDE[:5], "anthropic", "openlit.instrumentation.anthropic", "openlit.otel.metrics"
    ),
    "OpenLIT, OpenAI": Beside(
        "openlit", "openlit", CHAT, "openai", "openlit.instrumentation.openai", "openlit.otel.metrics"
    ),
}


def format_of(call: str) -> str:
    return next(answer for beginning, answer in FORMATS.items() if call.startswith(beginning))


@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", BESIDE)
def test_a_call_is_counted_once_beside(
    name: str, provider_server: ProviderServer, visibly: Callable[[], AbstractContextManager[None]]
) -> None:
    """One call in flow and metrics, the server's cost on one span with both retries, and one duration."""
    beside = BESIDE[name]
    with visibly():
        python = sdk_environments.python("instrumentations", beside.environment)
    calls = [
        (call, provider_server.case(format_of(call), *FAILING, reply_id=f"reply {name} {call}"))
        for call in beside.calls
    ]
    asked: dict[str, Any] = {
        "makers": [beside.makers],
        "hosts": {f"127.0.0.1:{provider_server.port}": beside.provider},
        "is_seen": True,
        "calls": calls,
    }
    ended = subprocess.run(
        [python, "-m", "tests.tools.instrumented_calls"],
        input=json.dumps(asked),
        capture_output=True,
        text=True,
        timeout=300,
        cwd=REPOSITORY,
        env={"PYTHONPATH": f"{REPOSITORY / 'src'}:{REPOSITORY}", "PATH": "", "NO_PROXY": "*", **dict(beside.variables)},
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    found = [json.loads(line.removeprefix(MARK)) for line in ended.stdout.splitlines() if line.startswith(MARK)]
    assert [each["name"] for each in found] == beside.calls
    for each, (_, base) in zip(found, calls, strict=True):
        _is_counted_once(each, beside, usd(provider_server.ledger(base)))
    logged = "\n".join(line for each in found for line in each["log"] if "a model call has two spans" in line)
    assert bool(logged) is beside.has_second_span
    assert len(logged.splitlines()) <= 1


def _is_counted_once(found: dict[str, Any], beside: Beside, cost: float | None) -> None:
    call = found["name"]
    assert (found["error"], found["calls"], found["retries"], found["tokens"]) == (None, 1, 2, 52), call
    assert found["cost"] == pytest.approx(cost, rel=1e-9), call
    (priced,) = (span for span in found["spans"] if _has_cost(span))
    assert priced["scope"] == beside.home, call
    assert priced["attributes"]["tracemind.cost_usd"] == pytest.approx(cost, rel=1e-9), call
    retries = [event for span in found["spans"] for event in span["events"] if event[0] == "tracemind.retry"]
    assert [event[1]["tracemind.retry.reason"] for event in retries] == ["rate_limit", "server_error"], call
    durations = [point for point in found["points"] if point["name"] == "gen_ai.client.operation.duration"]
    assert [(point["scope"], point["count"]) for point in durations] == [(beside.measured_by, 1)], call
    costs = [point["sum"] for point in found["points"] if point["name"] == "tracemind.llm.cost"]
    assert costs == [pytest.approx(cost, rel=1e-9)], call


def _has_cost(span: dict[str, Any]) -> bool:
    """The sums of flows and steps are no cost of a call."""
    return "tracemind.cost_usd" in span["attributes"] and span["name"] not in ("ask", "invoke_workflow work")
