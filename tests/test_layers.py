"""Imports point one way: a module may import lower ranks, and its own rank only where that is granted here."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

import pytest

SRC = Path(__file__).resolve().parents[1] / "src"
PACKAGE = "tracemind_otel"
FACADE = ""

RANKS = {
    "_version": 0,
    "errors": 0,
    "ai": 0,
    "ai.llm.types": 0,
    "runtime": 0,
    "runtime.context": 0,
    "runtime.faults": 0,
    "steps": 0,
    "otel": 0,
    "otel.semconv": 0,
    "recipes": 0,
    "ai.llm": 1,
    "ai.llm.client": 1,
    "ai.llm.liveness": 1,
    "ai.llm.own_prices": 1,
    "ai.llm.own_rates": 1,
    "ai.llm.policy": 1,
    "ai.llm.price_table": 1,
    "ai.llm.pricing": 1,
    "ai.llm.resends": 1,
    "ai.llm.scrub": 1,
    "ai.llm.table_usage": 1,
    "ai.llm.tokens": 1,
    "runtime.budget": 1,
    "runtime.flows": 1,
    "runtime.ids": 1,
    "runtime.generators": 1,
    "runtime.kinds": 1,
    "runtime.managers": 1,
    "runtime.recorder": 1,
    "runtime.refusal": 1,
    "runtime.rollup": 1,
    "runtime.returned": 1,
    "runtime.run": 0,
    "runtime.spending": 1,
    "otel.config": 1,
    "ai.llm.providers": 2,
    "ai.llm.providers.*": 2,
    "steps.*": 3,
    "otel.attached": 4,
    "otel.budget": 4,
    "otel.content": 4,
    "otel.decorators": 4,
    "otel.ids": 4,
    "otel.instruments": 4,
    "otel.logs": 4,
    "otel.metrics": 4,
    "otel.propagation": 4,
    "otel.providers": 4,
    "otel.recorder": 4,
    "otel.runs": 4,
    "otel.secrets": 4,
    "otel.aggregation": 5,
    "otel.delivery": 5,
    "otel.enrichment": 5,
    "otel.setup": 5,
    "integrations": 5,
    "integrations.*": 5,
    FACADE: 6,
    "__main__": 6,
    "cli": 6,
    "demo": 6,
    "otlp_file": 6,
    "recipes.*": 6,
    "testing": 6,
    "trace_tree": 6,
}
"""Modules without `tracemind_otel.`; a package that only re-exports has the rank of what it re-exports."""

SIDEWAYS = [
    ("ai.llm", "ai.llm.client"),
    ("ai.llm.pricing", "ai.llm.own_prices"),
    ("ai.llm.own_rates", "ai.llm.own_prices"),
    ("ai.llm.own_rates", "ai.llm.price_table"),
    ("ai.llm.price_table", "ai.llm.table_usage"),
    ("ai.llm.pricing", "ai.llm.own_rates"),
    ("ai.llm.pricing", "ai.llm.price_table"),
    ("ai.llm.pricing", "ai.llm.table_usage"),
    ("ai.llm.providers", "ai.llm.providers.*"),
    ("ai.llm.providers.*", "ai.llm.providers._*"),
    ("ai.llm.providers.presets", "ai.llm.providers.openai"),
    ("ai.llm.providers.azure_openai", "ai.llm.providers.openai"),
    ("ai.llm.providers.azure_openai", "ai.llm.providers.openai_responses"),
    ("ai.llm.providers.vertex", "ai.llm.providers.anthropic"),
    ("ai.llm.providers.vertex", "ai.llm.providers.gemini"),
    ("runtime.budget", "runtime.refusal"),
    ("runtime.budget", "runtime.spending"),
    ("runtime.kinds", "runtime.generators"),
    ("runtime.kinds", "runtime.managers"),
    ("runtime.kinds", "runtime.returned"),
    ("runtime.refusal", "runtime.spending"),
    ("runtime.returned", "runtime.generators"),
    ("runtime.flows", "runtime.budget"),
    ("runtime.flows", "runtime.ids"),
    ("runtime.flows", "runtime.rollup"),
    ("runtime.flows", "runtime.spending"),
    ("steps.ai_llm_call", "steps.*"),
    ("steps.call", "steps.config"),
    ("steps.call", "steps.estimate"),
    ("steps.stream", "steps.*"),
    ("otel.metrics", "otel.instruments"),
    ("otel.providers", "otel.instruments"),
    ("otel.decorators", "otel.budget"),
    ("otel.decorators", "otel.runs"),
    ("otel.content", "otel.secrets"),
    ("otel.ids", "otel.attached"),
    ("otel.logs", "otel.ids"),
    ("otel.propagation", "otel.ids"),
    ("otel.propagation", "otel.instruments"),
    ("otel.recorder", "otel.attached"),
    ("otel.recorder", "otel.ids"),
    ("otel.recorder", "otel.metrics"),
    ("otel.recorder", "otel.providers"),
    ("otel.setup", "otel.aggregation"),
    ("otel.runs", "otel.budget"),
    ("otel.runs", "otel.content"),
    ("otel.runs", "otel.ids"),
    ("otel.runs", "otel.instruments"),
    ("otel.runs", "otel.providers"),
    ("otel.setup", "otel.delivery"),
    ("otel.setup", "otel.enrichment"),
    ("__main__", "cli"),
    ("cli", "demo"),
    ("cli", "otlp_file"),
    ("cli", "trace_tree"),
    ("trace_tree", "otlp_file"),
]
"""Who may import whom within a rank."""

OTEL_API = (
    "opentelemetry.baggage",
    "opentelemetry.context",
    "opentelemetry.environment_variables",
    "opentelemetry.metrics",
    "opentelemetry.propagators",
    "opentelemetry.trace",
    "opentelemetry",
)
OTEL_SDK = ("opentelemetry.sdk", "opentelemetry.exporter")


@dataclass(frozen=True)
class ThirdParty:
    """What the modules of a rank may use of others."""

    at_import: tuple[str, ...] = ()
    in_functions: tuple[str, ...] = ()


THIRD_PARTY = {
    0: ThirdParty(),
    1: ThirdParty(in_functions=("genai_prices",)),
    2: ThirdParty(in_functions=("httpx", "httpx_aiohttp", "aiohttp")),
    3: ThirdParty(),
    4: ThirdParty(at_import=OTEL_API),
    5: ThirdParty(at_import=OTEL_API, in_functions=(*OTEL_SDK, "tm")),
    6: ThirdParty(at_import=("opentelemetry.trace", "rich"), in_functions=(*OTEL_SDK,)),
}


@dataclass(frozen=True)
class Import:
    line: int
    name: str
    is_lazy: bool


def imports_of(source: str, module: str, *, is_package: bool) -> Iterator[Import]:
    """Everything that a module imports, function-level imports too; `if TYPE_CHECKING` aside."""
    package = f"{PACKAGE}.{module}".rstrip(".").split(".")
    package = package if is_package else package[:-1]
    yield from _imports(ast.parse(source).body, package, is_lazy=False)


def _imports(body: list[ast.stmt], package: list[str], *, is_lazy: bool) -> Iterator[Import]:
    for node in body:
        if isinstance(node, ast.Import):
            yield from (Import(node.lineno, alias.name, is_lazy) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            origin = ".".join([*base, *([node.module] if node.module else [])])
            yield from (Import(node.lineno, f"{origin}.{alias.name}", is_lazy) for alias in node.names)
        elif isinstance(node, ast.If) and _is_type_checking(node.test):
            yield from _imports(node.orelse, package, is_lazy=is_lazy)
        else:
            is_function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
            yield from _imports(_statements_in(node), package, is_lazy=is_lazy or is_function)


def _is_type_checking(test: ast.expr) -> bool:
    return ast.unparse(test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")


def _statements_in(node: ast.AST) -> list[ast.stmt]:
    """The statements right below a node, those of handlers and cases included."""
    below = list(ast.iter_child_nodes(node))
    inner = [stmt for child in below if not isinstance(child, ast.stmt) for stmt in _statements_in(child)]
    return [child for child in below if isinstance(child, ast.stmt)] + inner


def rank_of(module: str) -> int | None:
    """A module's rank; an exact entry wins over a pattern."""
    if module in RANKS:
        return RANKS[module]
    return next((rank for name, rank in RANKS.items() if "*" in name and fnmatch(module, name)), None)


def known_module(name: str) -> str | None:
    """The module that an imported name is, or is in; `None` for somebody else's."""
    if name != PACKAGE and not name.startswith(f"{PACKAGE}."):
        return None
    module = name.removeprefix(PACKAGE).removeprefix(".")
    path = SRC / PACKAGE / Path(*module.split("."))
    return module if path.is_dir() or path.with_suffix(".py").is_file() else module.rpartition(".")[0]


def faults(module: str, source: str, *, is_package: bool = False) -> list[str]:
    """What in a module's source breaks the rules."""
    rank = rank_of(module)
    if rank is None:
        return [f"{module} has no rank"]
    return [
        f"{module or 'the façade'}:{found.line}: {fault}"
        for found in imports_of(source, module, is_package=is_package)
        if (fault := _fault(module, rank, found))
    ]


def _fault(module: str, rank: int, found: Import) -> str | None:
    ours = known_module(found.name)
    if ours is None:
        return _third_party_fault(rank, found)
    other = rank_of(ours)
    if other is None:
        return f"{ours} has no rank"
    if other > rank:
        return f"rank {rank} imports {ours} of rank {other}"
    if other == rank and not any(fnmatch(module, a) and fnmatch(ours, b) for a, b in SIDEWAYS):
        return f"rank {rank} imports {ours} of its own rank"
    return None


def _third_party_fault(rank: int, found: Import) -> str | None:
    if found.name.split(".")[0] in {*sys.stdlib_module_names, "__future__"}:
        return None
    rules = THIRD_PARTY[rank]
    allowed = rules.at_import + (rules.in_functions if found.is_lazy else ())
    if any(_is_within(found.name, name) for name in allowed):
        return None
    return f"rank {rank} imports {found.name} {'inside a function' if found.is_lazy else 'at import time'}"


def _is_within(name: str, allowed: str) -> bool:
    """`opentelemetry` alone allows its API and not the SDK below it."""
    if allowed == "opentelemetry":
        return name in OTEL_API
    return name == allowed or name.startswith(f"{allowed}.")


def modules() -> list[Path]:
    return sorted((SRC / PACKAGE).rglob("*.py"))


def module_of(path: Path) -> str:
    parts = path.relative_to(SRC / PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@pytest.mark.parametrize("path", modules(), ids=module_of)
def test_imports_point_one_way(path: Path) -> None:
    """Nobody who uses the step alone gets OpenTelemetry, and nobody who uses its API gets the SDK."""
    assert faults(module_of(path), path.read_text(), is_package=path.stem == "__init__") == []


def test_every_grant_is_needed() -> None:
    """A sideways import that is gone is taken off the list."""
    used = set[tuple[str, str]]()
    for path in modules():
        for found in imports_of(path.read_text(), module_of(path), is_package=path.stem == "__init__"):
            ours = known_module(found.name)
            used |= {(a, b) for a, b in SIDEWAYS if ours and fnmatch(module_of(path), a) and fnmatch(ours, b)}
    assert set(SIDEWAYS) - used == set()


@pytest.mark.parametrize(
    ("module", "source", "fault"),
    [
        ("errors", "import httpx", "rank 0 imports httpx at import time"),
        ("errors", "from .ai.llm.policy import RetryPolicy", "rank 0 imports ai.llm.policy of rank 1"),
        ("ai.llm.types", "from ...errors import LLMError", "rank 0 imports errors of its own rank"),
        ("ai.llm.types", "from . import AsyncLLMClient", "rank 0 imports ai.llm of rank 1"),
        ("ai.llm.pricing", "import genai_prices", "rank 1 imports genai_prices at import time"),
        ("ai.llm.pricing", "def f():\n    import httpx", "rank 1 imports httpx inside a function"),
        ("ai.llm.policy", "from .providers import make", "rank 1 imports ai.llm.providers of rank 2"),
        ("runtime.recorder", "from opentelemetry import trace", "rank 1 imports opentelemetry.trace at import time"),
        ("runtime.recorder", "from .rollup import x", "rank 1 imports runtime.rollup of its own rank"),
        ("ai.llm.providers.openai", "import httpx", "rank 2 imports httpx at import time"),
        ("ai.llm.providers.fake", "from .openai import x", "rank 2 imports ai.llm.providers.openai of its own rank"),
        ("steps.ai_llm_call", "def f():\n    from ..otel.recorder import R", "rank 3 imports otel.recorder of rank 4"),
        (
            "steps.ai_llm_call",
            "def f():\n    import opentelemetry.trace",
            "rank 3 imports opentelemetry.trace inside a function",
        ),
        ("steps.ai_llm_call", "from tracemind_otel import flow", "rank 3 imports  of rank 6"),
        (
            "otel.recorder",
            "def f():\n    import opentelemetry.sdk.trace",
            "rank 4 imports opentelemetry.sdk.trace inside a function",
        ),
        ("otel.recorder", "from opentelemetry import sdk", "rank 4 imports opentelemetry.sdk at import time"),
        ("otel.recorder", "from . import setup", "rank 4 imports otel.setup of rank 5"),
        (
            "otel.setup",
            "from opentelemetry.sdk.trace import TracerProvider",
            "rank 5 imports opentelemetry.sdk.trace.TracerProvider at import time",
        ),
        ("otel.setup", "try:\n    import tm\nexcept ImportError:\n    pass", "rank 5 imports tm at import time"),
        ("otel.setup", "class C:\n    import grpc", "rank 5 imports grpc at import time"),
        ("otel.setup", "def f():\n    from ..cli import main", "rank 5 imports cli of rank 6"),
        ("new_module", "", "new_module has no rank"),
    ],
)
def test_the_check_finds_what_is_forbidden(module: str, source: str, fault: str) -> None:
    """The rules above are not empty: each kind of forbidden import is found, wherever it stands."""
    found = faults(module, source)
    assert len(found) == 1
    assert found[0].endswith(fault)


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("errors", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import httpx"),
        ("ai.llm.pricing", "def f():\n    from genai_prices import data_snapshot"),
        ("ai.llm.providers.openai", "async def f():\n    import httpx\n    import aiohttp"),
        ("ai.llm.providers.anthropic", "from ._http import send\nfrom ..policy import parse_retry_after"),
        ("otel.recorder", "from opentelemetry import context as c\nfrom opentelemetry.trace import Span"),
        ("otel.setup", "def f():\n    from opentelemetry.sdk.trace import TracerProvider"),
        ("integrations.trace_mind", "def f():\n    import tm\n    from ..otel.decorators import flow"),
    ],
)
def test_the_check_leaves_the_rest_alone(module: str, source: str) -> None:
    """What the table allows is allowed, imports for type checkers above all."""
    assert faults(module, source) == []


def test_the_published_paths_are_only_doors() -> None:
    """`trace_mind.*` imports the same path of `tracemind_otel` and nothing else; nothing here imports it."""
    for path in sorted((SRC / "trace_mind").rglob("*.py")):
        parts = path.relative_to(SRC / "trace_mind").with_suffix("").parts
        same = ".".join([PACKAGE, *(parts[:-1] if parts[-1] == "__init__" else parts)])
        froms = [node.module for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ImportFrom)]
        assert set(froms) <= {"__future__", same}
    assert not [path for path in modules() if "trace_mind." in path.read_text().replace("integrations.trace_mind", "")]
