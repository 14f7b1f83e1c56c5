"""Who runs here: the task of asyncio or trio, else the thread."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Hashable

Owner = Hashable


def current_owner() -> Owner:
    """Who makes the request: the running task of asyncio or trio, else the thread."""
    try:
        task: object = asyncio.current_task()
    except RuntimeError:
        task = _trio_task()
    return threading.current_thread() if task is None else task


def _trio_task() -> object:
    trio = sys.modules.get("trio")
    try:
        return None if trio is None else trio.lowlevel.current_task()
    except RuntimeError:
        return None
