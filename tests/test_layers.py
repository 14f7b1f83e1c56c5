"""Imports point one way, and every module has a name of its own."""

from __future__ import annotations

import ast
import itertools
import shutil
import subprocess
import sys
import traceback
from collections import Counter
from pathlib import Path

import httpx
import pytest

import tracemind_otel as tm

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "tracemind_otel"

PUBLISHED = {"steps/ai_llm_call.py", "runtime/recorder.py", "recipes/llm_call_example.py"}
"""Published paths, which only export what lives elsewhere."""

_SET_UP = (
    "aggregation",
    "call_spans",
    "event_pipeline",
    "exporters",
    "metric_reader",
    "pipeline",
    "preset_attributes",
    "preset_spans",
    "processors",
    "series",
    "span_prices",
    "spool_processor",
)
LOADED_BY_CONFIGURE = {f"otel/setup/{name}.py" for name in _SET_UP} | {"testing/span_watch.py"}
"""Modules that need the SDK, which `configure()` or a fixture imports when it is called."""

SDK_USERS = ("otel/setup/", "cli/", "integrations/", "wire/", "testing/")
"""Where the SDK and the exporters may be imported; elsewhere than above inside functions."""

LINT = "from importlinter.cli import lint_imports as lint; sys.exit(lint('pyproject.toml', no_cache=True))"


REPLY = {
    "id": "r-1",
    "model": "gpt-4o-mini",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
}


def lint_imports(tree: Path) -> subprocess.CompletedProcess[str]:
    """Check the contracts of `pyproject.toml` on a tree, in a process of its own."""
    return subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(tree / 'src')!r}); {LINT}"],
        cwd=tree,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def test_imports_point_one_way() -> None:
    """A call alone loads no OpenTelemetry, and no package imports one above it."""
    done = lint_imports(ROOT)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("module", "line", "contract"),
    [
        ("flows/totals.py", "from ..call import config", "Packages import only what is below them"),
        ("call/run.py", "from opentelemetry import trace", "A call needs no OpenTelemetry"),
        ("ai/llm/types.py", "from . import retry", "Providers stand above prices and retries"),
        ("otel/recorder.py", "from .setup import settings", "Set-up stands above the adapter"),
        ("ai/llm/scrub.py", "def f() -> None:\n    from .providers import openai", "Providers stand above"),
        ("ai/llm/pricing/__init__.py", "import httpx", "HTTP libraries are the providers' business"),
        ("call/config.py", "from . import run", "No package has a cycle among its modules"),
    ],
)
def test_a_planted_import_is_found(tmp_path: Path, module: str, line: str, contract: str) -> None:
    """One wrong import, inside a function too, breaks the contract that forbids it."""
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    shutil.copytree(ROOT / "src", tmp_path / "src", ignore=shutil.ignore_patterns("__pycache__"))
    path = tmp_path / "src" / "tracemind_otel" / module
    path.write_text(f"{path.read_text()}\n{line}\n")
    done = lint_imports(tmp_path)
    assert done.returncode != 0
    assert any(contract in row and row.endswith("BROKEN") for row in done.stdout.splitlines()), done.stdout


def sdk_imports(source: str) -> list[str]:
    """Every import of the SDK or an exporter outside `if TYPE_CHECKING`; those outside functions are marked."""
    found = list[str]()

    def visit(node: ast.AST, *, is_lazy: bool) -> None:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            return
        if isinstance(node, ast.Import | ast.ImportFrom):
            origin = node.module or "" if isinstance(node, ast.ImportFrom) else ""
            names = [f"{origin}.{alias.name}".strip(".") for alias in node.names]
            heavy = [name for name in names if name.startswith(("opentelemetry.sdk", "opentelemetry.exporter"))]
            found.extend(name if is_lazy else f"{name} at import time" for name in heavy)
        is_function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        for child in ast.iter_child_nodes(node):
            visit(child, is_lazy=is_lazy or is_function)

    visit(ast.parse(source), is_lazy=False)
    return found


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_the_sdk_is_imported_where_it_is_set_up(path: Path) -> None:
    """The adapter needs only OpenTelemetry's API; `configure()` loads the SDK when it is called."""
    found, name = sdk_imports(path.read_text()), str(path.relative_to(PACKAGE))
    assert name in LOADED_BY_CONFIGURE or [each for each in found if each.endswith("at import time")] == []
    assert found == [] or name.startswith(SDK_USERS)


def test_a_planted_sdk_import_is_found() -> None:
    """A wrong import of the SDK fails the test above."""
    assert sdk_imports("import opentelemetry.sdk.trace") == ["opentelemetry.sdk.trace at import time"]
    assert sdk_imports("def f():\n    from opentelemetry import sdk") == ["opentelemetry.sdk"]


def test_no_module_name_occurs_twice() -> None:
    """No two modules or packages share a name, so that a name is enough to find one."""
    files = [path for path in modules() if str(path.relative_to(PACKAGE)) not in PUBLISHED]
    names = [path.parent.name if path.stem == "__init__" else path.stem for path in files]
    assert [name for name, count in Counter(names).items() if count > 1] == []


def test_no_package_hides_a_name_of_the_facade() -> None:
    """Importing a subpackage hides no function of the façade."""
    packages = {path.stem if path.is_file() else path.name for path in PACKAGE.iterdir()}
    assert packages & set(tm.__all__) == set()


async def test_the_way_of_a_call_is_short() -> None:
    """Between the caller and HTTP a call passes at most six modules, and climbs back at most once."""
    way = list[str]()

    def answer(request: httpx.Request) -> httpx.Response:
        stack = [frame.filename for frame in traceback.extract_stack() if str(PACKAGE) in frame.filename]
        way.extend(module for module, _ in itertools.groupby(stack))
        return httpx.Response(200, json=REPLY)

    http_client = httpx.AsyncClient(transport=httpx.MockTransport(answer))
    client = tm.LLMClientFactory.make("openai", api_key="k", http_client=http_client)
    config = tm.LLMCallConfig("openai", "gpt-4o-mini", prompt="hi")
    result = await tm.run_llm_call("f", "s", config, tm.Recorder(), client=client)
    assert result["status"] == "ok"
    assert len(set(way)) <= 6
    assert len(way) - len(set(way)) <= 1
