"""The environment that has the tools."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from tests.servers import tool_environment


@pytest.fixture(scope="session")
def python(visibly: Callable[[], AbstractContextManager[None]]) -> Path:
    """The Python that has them."""
    with visibly():
        return tool_environment.python()
