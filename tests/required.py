"""What a test does without a program that it needs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NoReturn

import pytest
from collector.stack.console import StackError
from collector.stack.golang import build_program, find_built, find_go
from collector.stack.programs import GoProgram
from collector.stack.prometheus import fetch_prometheus, find_prometheus


def is_required() -> bool:
    """Whether every program must be there, as in CI: TRACEMIND_E2E_REQUIRED is 1."""
    return os.environ.get("TRACEMIND_E2E_REQUIRED") == "1"


def missing(reason: str) -> NoReturn:
    """Skip the test for want of a program; where all are required, fail it."""
    if is_required():
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


def built(program: GoProgram) -> Path:
    """A program in Go, built the first time."""
    go = find_go()
    try:
        return find_built(program, go) or build_program(program, go)
    except StackError as error:
        missing(str(error))


def prometheus_program() -> Path:
    """The Prometheus of this machine, or Debian's, fetched the first time."""
    try:
        return find_prometheus() or fetch_prometheus()
    except StackError as error:
        missing(str(error))
