"""What pytest finds by the entry point `pytest11`: it loads the plugin, unless `-p` or a conftest has loaded it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest


def pytest_addoption(pluginmanager: pytest.PytestPluginManager) -> None:
    """Load the plugin, whose own options come with it. pytest refuses to have one module under two names."""
    pluginmanager.import_plugin("tracemind_otel.testing.plugin")
