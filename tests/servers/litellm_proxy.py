"""LiteLLM's proxy, a third-party gateway, installed with pip into the project's cache."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.servers import installs
from tests.servers.fixture import closed_port

REQUIREMENT = "litellm[proxy]>=1.108,<1.109"
KEY = "sk-nightly"
TEXT = "Hello from Oslo, where all is well."
CALL = {"id": "call_1", "type": "function", "function": {"name": "look", "arguments": '{"at": "Oslo"}'}}
MOCKED: dict[str, dict[str, Any]] = {
    "gpt-4o-mini": {"mock_response": TEXT},
    "unpriced": {"model": "openai/nobody-knows-it", "mock_response": TEXT},
    "tools": {"mock_response": "", "mock_tool_calls": [CALL]},
    "too-fast": {"mock_response": "litellm.RateLimitError"},
    "too-long": {"mock_response": "litellm.ContextWindowExceededError"},
    "broken": {"mock_response": "litellm.InternalServerError"},
}
"""The models that LiteLLM answers for by itself, and how each differs from a plain one."""
_PRICE = {
    "input_cost_per_token": 1e-6,
    "cache_read_input_token_cost": 1e-7,
    "output_cost_per_token": 2e-6,
}
_AUTHENTICATION = f'''
from fastapi import HTTPException
from litellm.proxy._types import UserAPIKeyAuth

async def check(request, api_key):
    if api_key != "{KEY}":
        raise HTTPException(401, "this key is not known here")
    return UserAPIKeyAuth(api_key=api_key)
'''


@dataclass(frozen=True)
class Upstreams:
    """The servers behind the proxy."""

    scripted: str
    """The base URL of `openai_server.py`, which answers for every model named `scripted-*`."""
    aimock: str
    """The root URL of aimock, which answers for the models `aimock` and `aimock-claude`."""


def python() -> Path:
    """The Python that has the proxy, installed the first time."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    return installs.installed(f"litellm-1.108-python-{version}", "bin/python", _install)


def _install(folder: Path) -> None:
    installs.run_step("LiteLLM: making its environment", [sys.executable, "-m", "venv", folder], folder)
    pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--disable-pip-version-check"]
    installs.run_step(f"{REQUIREMENT}: installing", [*pip, REQUIREMENT], folder)


@contextmanager
def running(folder: Path, upstreams: Upstreams) -> Generator[str]:
    """The root URL of a proxy with all these models.

    Args:
        folder: for its configuration and its log.
        upstreams: what stands behind it.
    """
    (folder / "config.yaml").write_text(json.dumps(_configuration(upstreams)), encoding="utf-8")
    (folder / "nightly_auth.py").write_text(_AUTHENTICATION, encoding="utf-8")
    port = closed_port()
    program = "from litellm.proxy.proxy_cli import run_server; run_server()"
    options = ["--config", "config.yaml", "--host", "127.0.0.1", "--port", str(port)]
    environment = {**os.environ, "LITELLM_LOCAL_MODEL_COST_MAP": "True"}  # it asks nobody for prices
    log = folder / "log"
    with (
        log.open("wb") as sink,
        subprocess.Popen(
            [python(), "-c", program, *options], cwd=folder, env=environment, stdout=sink, stderr=sink
        ) as process,
    ):
        try:
            url = f"http://127.0.0.1:{port}"
            installs.wait_until_ready(process, lambda: urllib.request.urlopen(f"{url}/health/liveliness").close(), log)
            yield url
        finally:
            installs.stop(process)


def _configuration(upstreams: Upstreams) -> dict[str, Any]:
    plain = {"model": "openai/gpt-4o-mini", "api_key": "none"}
    models = {name: plain | options for name, options in MOCKED.items()}
    models["scripted-*"] = {"model": "hosted_vllm/scripted-*", "api_base": upstreams.scripted, "api_key": "k", **_PRICE}
    models["aimock"] = plain | {"api_base": f"{upstreams.aimock}/v1"}
    models["aimock-claude"] = plain | {"model": "anthropic/claude-sonnet-4-5", "api_base": upstreams.aimock}
    return {
        "model_list": [{"model_name": name, "litellm_params": options} for name, options in models.items()],
        "general_settings": {"master_key": KEY, "custom_auth": "nightly_auth.check"},
        "litellm_settings": {"num_retries": 0, "telemetry": False},
    }
