"""The table of providers in docs/providers.md says what the registry knows."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import tracemind_otel as tm
from tracemind_otel.ai.llm import providers
from tracemind_otel.ai.llm.providers.presets import PRESETS, Preset
from tracemind_otel.errors import ConfigError

PAGE = (Path(__file__).resolve().parents[1] / "docs" / "providers.md").read_text(encoding="utf-8")
TABLE = PAGE.partition("## Names and keys")[2].partition("\n## ")[0]
ROWS = {
    name: (key, unsupported)
    for names, key, unsupported in re.findall(r"^\| (`[^|]*) \| ([^|]*) \| ([^|]*) \|$", TABLE, re.MULTILINE)
    for name in re.findall(r"`(\w+)`", names)
}
BUILT_IN = frozenset(providers.names())
"""The providers that are registered at import, before any test registers its own."""


def test_every_provider_has_a_row() -> None:
    """The table lists every provider."""
    assert set(ROWS) >= BUILT_IN


@pytest.mark.parametrize("preset", PRESETS, ids=lambda preset: preset.name)
def test_a_row_names_the_variables(preset: Preset) -> None:
    """The variables in the table are those that are read."""
    key, _ = ROWS[preset.name]
    for variable in preset.key_variables or preset.url_variables:
        assert variable in key


@pytest.mark.parametrize("preset", PRESETS, ids=lambda preset: preset.name)
def test_a_row_names_what_is_unsupported(preset: Preset) -> None:
    """The parameters that the table calls unsupported are rejected, and no others."""
    _, unsupported = ROWS[preset.name]
    told = set(re.findall(r"`(\w+)`", unsupported))
    values: dict[str, object] = {"top_k": 5, "seed": 1, "stop": ("x",), "max_tokens": 10, "temperature": 0.1}
    for name, value in values.items():
        request = tm.LLMRequest(preset.name, "m", "p")
        object.__setattr__(request, name, value)
        if name in told:
            with pytest.raises(ConfigError, match=name):
                preset.wire.to_payload(request, False)
        else:
            assert preset.wire.to_payload(request, False)
