"""What runs in a process right after it was forked."""

from __future__ import annotations

import os
from collections.abc import Callable


def in_forked_child(action: Callable[[], object]) -> None:
    """Run this in every process that is forked from this one, right after the fork.

    A worker of a pool is forked in the middle of whatever flow was the first to need it: what holds here must not go on
    holding there for ever.
    """
    register = getattr(os, "register_at_fork", None)
    if register is not None:  # not on Windows
        register(after_in_child=action)
