"""An import opens no socket, and loads no SDK, HTTP library or price table."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = (
    "opentelemetry.sdk",
    "opentelemetry.exporter",
    "opentelemetry.proto",
    "aiohttp",
    "genai_prices",
    "grpc",
    "httpx",
    "httpx_aiohttp",
    "pydantic",
    "requests",
    "rich",
)

PROGRAM = """
import sys
happened = []
sys.addaudithook(lambda event, _: happened.append(event) if event.startswith(("socket.", "subprocess.")) else None)
exec(sys.argv[1])
import threading
print(happened, threading.active_count(), [name for name in sys.argv[2:] if name in sys.modules])
"""


def after(program: str, *modules: str) -> str:
    """The sockets, processes, threads and modules of a fresh process after a program."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROGRAM, program, *modules],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return done.stdout.strip()


@pytest.mark.parametrize(
    "program",
    [
        "import tracemind_otel",
        "import tracemind_otel as tm; tm.run_llm_call",
        "import tracemind_otel as tm; tm.flow; tm.step; tm.OTelRecorder",
        "import tracemind_otel as tm; tm.configure",
        "import tracemind_otel as tm; [getattr(tm, name) for name in tm.__all__ if name != 'SpoolSpanProcessor']",
        "import tracemind_otel as tm\n@tm.flow\ndef f(): ...\nf()",
        "import tracemind_otel as tm; tm.LLMClientFactory.make('openai', api_key='k')",
        "from trace_mind.steps.ai_llm_call import LLMCallConfig, run_llm_call",
        "from trace_mind.ai.llm.providers import FakeLLMClient, OpenAILLMClient",
        "import tracemind_otel.cli",
    ],
)
def test_nothing_heavy_is_loaded(program: str) -> None:
    """Importing, decorating and making a client open no socket, start no thread and load no heavy module.

    `SpoolSpanProcessor` is a span processor of the SDK, for programs that have loaded it.
    """
    assert after(program, *HEAVY) == "[] 1 []"


@pytest.mark.parametrize(
    "program",
    ["import tracemind_otel", "import tracemind_otel as tm; tm.run_llm_call; tm.InMemoryRecorder; tm.estimate_cost"],
)
def test_the_step_needs_no_opentelemetry(program: str) -> None:
    """A step with a user's own recorder does not load OpenTelemetry's API."""
    assert after(program, "opentelemetry") == "[] 1 []"


def test_the_import_of_the_facade_loads_nothing_of_ours() -> None:
    """`import tracemind_otel` loads no other module of the package."""
    assert after("import tracemind_otel", "tracemind_otel.errors", "tracemind_otel.ai", "asyncio") == "[] 1 []"


def test_the_audit_sees_a_socket() -> None:
    """The audit of the tests above finds a program that opens a socket."""
    assert after("import socket; socket.socket()", "socket") == "['socket.__new__'] 1 ['socket']"
