"""The compact price table finds and prices what `genai-prices` does, for any installed version of its data."""

from __future__ import annotations

import random
import re
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from decimal import Decimal
from importlib import metadata
from pathlib import Path
from typing import Any

import genai_prices
import pytest
from genai_prices import data_snapshot
from genai_prices.types import ClauseEquals, ModelInfo, ModelPrice
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import price_file
from tests.support import UseSnapshot
from tracemind_otel.ai.llm.pricing import table_file
from tracemind_otel.ai.llm.pricing.compact_table import CompactTable
from tracemind_otel.ai.llm.pricing.installed import installed_table
from tracemind_otel.ai.llm.pricing.library_table import LibraryTable
from tracemind_otel.ai.llm.pricing.price_table import PriceTable
from tracemind_otel.ai.llm.pricing.tables import Model
from tracemind_otel.ai.llm.usage import LLMUsage

NOON = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
SNAPSHOT = data_snapshot.get_snapshot()
LIBRARY, COMPACT = LibraryTable(SNAPSHOT), CompactTable(list(installed_table(genai_prices.__version__)))
PROVIDERS = [provider.id for provider in SNAPSHOT.providers]


def strings_of(clauses: object) -> list[str]:
    """The strings that clauses of the library compare names with."""
    return re.findall(r"(?:equals|starts_with|contains|ends_with|regex)='((?:[^'\\]|\\.)*)'", repr(clauses))


NAMES = sorted(
    {
        name
        for provider in SNAPSHOT.providers
        for model in provider.models
        for name in (model.id, *strings_of(model.match))
    }
)
"""Every string by which a model is found."""
ALIASES = [
    *(name for provider in SNAPSHOT.providers for name in strings_of((provider.provider_match, provider.model_match))),
    *PROVIDERS,
    "litellm",
    "LiteLLM",
    "",
    " OpenAI ",
    "my-openai-gateway",
    "huggingface_novita_x",
]
"""Names of providers, and others that contain them."""


def told(model: Model | None) -> tuple[Any, ...] | None:
    """What a table says of a model."""
    if model is None:
        return None
    return model.id, model.is_priced, model.conditions, model.is_priced and model.rates(NOON, {})


def assert_found_alike(provider: str | None, name: str) -> None:
    assert told(COMPACT.find(provider, name)) == told(LIBRARY.find(provider, name)), (provider, name)


def written_otherwise(name: str) -> list[str]:
    """A name as gateways and releases write it."""
    forms = [name, name.upper(), name[:-1], f"x{name}", f"{name}-latest", f"openai/{name}", f"litellm/{name}"]
    return forms + [f"{name}{end}" for end in ("-20251211", "-2025-12-11", "-20251399", "-20250230:free", "@20251211")]


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_every_name_finds_the_model_that_the_library_finds(seed: int) -> None:
    """Names and provider names, also as gateways write them, find the same model with the same prices, or none."""
    draw = random.Random(seed)
    owner = {model.id: provider.id for provider in SNAPSHOT.providers for model in provider.models}
    for name in NAMES:
        for provider in (owner.get(name), draw.choice(ALIASES), None):
            assert_found_alike(provider, draw.choice(written_otherwise(name)))
            assert_found_alike(provider, name)


PIECES = st.one_of(
    st.sampled_from(NAMES), st.sampled_from(["/", "-", ":", "20251211", "İ", "ß", " "]), st.text(max_size=4)
)


@settings(max_examples=400, deadline=None)
@given(st.one_of(st.none(), st.sampled_from(ALIASES), st.text(max_size=12)), st.lists(PIECES, max_size=4).map("".join))
def test_any_name_finds_the_model_that_the_library_finds(provider: str | None, name: str) -> None:
    """No name, however odd, finds another model than in the library."""
    assert_found_alike(provider, name)


def test_the_packaged_table_is_that_of_the_installed_version() -> None:
    """The file in the package has the data of the library that the tests run with."""
    assert price_file.FILE.read_bytes() == price_file.expected(), "run python -m tests.price_file"


# --- Which table is used ---


@pytest.fixture
def no_library(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hides that the tests have imported the library."""
    monkeypatch.delitem(sys.modules, "genai_prices.data_snapshot")


def cost_of_a_million(table: PriceTable, model: str = "gpt-4o-mini") -> tuple[float | None, str | None]:
    """The cost of a million input tokens, and the name of the table."""
    usage = LLMUsage(1_000_000, 0, 1_000_000)
    table.match("openai", model)
    cost = table.cost("openai", model, usage, NOON, {})
    return (None, None) if cost is None else (cost.cost_usd, cost.cost_table)


PROGRAM = """
import sys
from tracemind_otel import estimate_cost
from tracemind_otel.ai.llm.pricing import find_price
from tracemind_otel.ai.llm.usage import LLMUsage
import asyncio, datetime
usage = LLMUsage(1_000_000, 0, 1_000_000)
cost = asyncio.run(find_price("openai", ["gpt-4o-mini"], usage, at=datetime.datetime.now(datetime.UTC)))
print(cost.cost_usd, cost.cost_table, "genai_prices" in sys.modules)
"""


def in_a_fresh_process(*paths: Path) -> str:
    """The cost of a million input tokens, the name of the table, and whether the library was imported."""
    program = f"import sys; sys.path[:0] = {list(map(str, paths))}\n{PROGRAM}"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.slow
def test_a_price_is_found_without_importing_the_library() -> None:
    """The import of `genai-prices` takes longer than everything else in the first call, so it is not needed."""
    assert in_a_fresh_process() == f"0.15 {genai_prices.__version__} False"


MEMORY = """
import tracemalloc
from tracemind_otel.ai.llm import pricing
tracemalloc.start()
pricing.load_table()
print(tracemalloc.get_traced_memory()[1])
"""


@pytest.mark.slow
def test_the_table_takes_little_memory() -> None:
    """Loading it takes less than 8 MiB, also at its peak."""
    done = subprocess.run([sys.executable, "-c", MEMORY], capture_output=True, text=True, timeout=60, check=True)
    assert int(done.stdout) < 8 * 2**20


@pytest.fixture
def other_version(tmp_path: Path) -> Path:
    """A folder with a later version of the library, in which a million input tokens of the model cost 0.77 USD."""
    installed = Path(genai_prices.__file__).parent
    shutil.copytree(installed, tmp_path / "genai_prices", ignore=shutil.ignore_patterns("__pycache__"))
    distribution = metadata.distribution("genai-prices")
    folder = tmp_path / "genai_prices-0.2.99.dist-info"
    folder.mkdir()
    text = (distribution.read_text("METADATA") or "").replace(f"\nVersion: {distribution.version}", "\nVersion: 0.2.99")
    (folder / "METADATA").write_text(text)
    data = tmp_path / "genai_prices" / "data.py"
    model = re.compile(r"(id='gpt-4o-mini',.*?input_mtok=)Decimal\('0.15'\)", re.DOTALL)
    text, count = model.subn(r"\1Decimal('0.77')", data.read_text())
    assert count
    data.write_text(text)
    return tmp_path


@pytest.mark.slow
def test_the_prices_are_those_of_the_version_that_is_installed(other_version: Path) -> None:
    """After an upgrade of `genai-prices` its data is used, and still without importing it."""
    assert in_a_fresh_process(other_version) == "0.77 0.2.99 False"


@pytest.mark.slow
@pytest.mark.slow
@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("id='gpt-4o-mini',", "id='gpt-4o-mini', future=1,"),
        ("ClauseEquals(equals='gpt-4o-mini')", "ClauseNew(equals='gpt-4o-mini')"),
        ("Decimal('0.77')", "Decimal('0.77'), output_smells_mtok=Decimal('1')"),
    ],
    ids=["a new argument", "a new clause", "a new unit"],
)
def test_what_only_the_library_understands_is_priced_by_the_library(other_version: Path, old: str, new: str) -> None:
    """Data that the compact table may not hold in full is never guessed at."""
    data, types = (other_version / "genai_prices" / name for name in ("data.py", "types.py"))
    variants = "    price_variants: list[PriceVariant] | None = None\n"
    source = types.read_text()
    assert variants in source
    types.write_text(
        source.replace(variants, f"{variants}    future: int = 0\n")
        + "\nclass ClauseNew(ClauseEquals):\n    pass\n\n__all__ += ('ClauseNew',)\n"
    )
    text = data.read_text()
    assert old in text
    data.write_text(text.replace(old, new))
    assert in_a_fresh_process(other_version) == "0.77 0.2.99 True"


@pytest.mark.slow
def test_a_new_series_of_the_library_is_priced_by_the_library(other_version: Path) -> None:
    """A new series may compute prices in a new way, even where its data looks the same."""
    metadata_file = other_version / "genai_prices-0.2.99.dist-info" / "METADATA"
    metadata_file.write_text(metadata_file.read_text().replace("Version: 0.2.99", "Version: 0.3.0"))
    assert in_a_fresh_process(other_version) == "0.77 0.3.0 True"


@pytest.mark.parametrize("how", ["empty", "cut", "changed"])
def test_a_broken_packaged_table_is_replaced_by_the_installed_data(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A damaged file gives no wrong price and no missing one."""
    whole = price_file.expected()
    half = len(whole) // 2
    broken = {"empty": b"", "cut": whole[:half], "changed": whole[:half] + b"9" + whole[half + 1 :]}[how]

    def read(package: str, resource: str) -> bytes:
        return broken

    monkeypatch.setattr("pkgutil.get_data", read)
    table = table_file.compact_table()
    assert table is not None
    assert table.version == genai_prices.__version__
    assert told(table.find("openai", "gpt-4o-mini")) == told(LIBRARY.find("openai", "gpt-4o-mini"))


def test_an_absent_packaged_table_is_replaced_by_the_installed_data(monkeypatch: pytest.MonkeyPatch) -> None:
    """Packagers that leave data files out lose no price."""
    monkeypatch.setattr(table_file, "PACKAGED", "no-such-file")
    table = table_file.compact_table()
    assert table is not None
    assert told(table.find("openai", "gpt-4o-mini")) == told(LIBRARY.find("openai", "gpt-4o-mini"))


@pytest.mark.usefixtures("no_library")
def test_a_snapshot_that_the_program_sets_later_is_used_from_the_next_call_on(
    use_snapshot: UseSnapshot, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Prices that the program gets through the library win, also when it imports the library after the first call."""
    table = PriceTable()
    assert cost_of_a_million(table) == (0.15, genai_prices.__version__)
    assert table.unmatched("openai", ["gpt-4o-mini"]) == []

    monkeypatch.setitem(sys.modules, "genai_prices.data_snapshot", data_snapshot)
    use_snapshot(with_price_of_two())
    assert not table.is_loaded  # so that nobody reads the library's data on an event loop
    assert table.unmatched("openai", ["gpt-4o-mini"]) == ["gpt-4o-mini"]
    assert cost_of_a_million(table) == (2.0, "2026-11-20")

    use_snapshot(SNAPSHOT)
    assert table.is_loaded
    assert cost_of_a_million(table) == (0.15, genai_prices.__version__)


def with_price_of_two() -> data_snapshot.DataSnapshot:
    """A fetched snapshot in which a million input tokens of one model cost 2 USD."""
    provider, _ = SNAPSHOT.find_provider_model("gpt-4o-mini", None, "openai", None)
    price = ModelPrice(input_mtok=Decimal(2), output_mtok=Decimal(3))
    model = ModelInfo(id="gpt-4o-mini", match=ClauseEquals("gpt-4o-mini"), prices=price)
    openai = type(provider)(id="openai", name="OpenAI", api_pattern=provider.api_pattern, models=[model])
    return data_snapshot.DataSnapshot([openai], from_auto_update=True, timestamp=datetime(2026, 11, 20, 3, 4))
