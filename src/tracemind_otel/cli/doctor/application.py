"""Runs an application in this process."""

from __future__ import annotations

import asyncio
import functools
import importlib
import inspect
import os
import sys
import traceback
from collections.abc import Callable, Coroutine
from contextlib import redirect_stdout
from dataclasses import dataclass, field, replace
from typing import Any, cast

from opentelemetry import trace

from ...errors import ConfigError
from ...otel.setup.telemetry import active, is_placeholder
from .evidence import AppRun, MadeProvider, SpanSource
from .watch import Watch, below_here, watching

_FLUSH_S = 5.0
"""Seconds that an application's spans get to arrive."""


@dataclass(slots=True)
class Ran:
    """An application that has run."""

    run: AppRun
    """How it ended."""
    fault: ConfigError | None = None
    """What rejected its configuration."""
    providers: tuple[MadeProvider, ...] = ()
    """The providers that it made or found."""
    recorded: SpanSource = field(default_factory=lambda: SpanSource(name="", spans=()))
    """The spans that it recorded."""


def run_application(name: str) -> Ran:
    """Import an application and call it.

    Raises:
        UnusableAppError: `name` leads to no function without arguments.
    """
    with watching() as watch, redirect_stdout(sys.stderr):
        ran = _import_and_call(name)
    has_flushed = _flush(watch)
    has_global = not is_placeholder(trace.get_tracer_provider())
    ran.run = replace(ran.run, has_flushed=has_flushed, has_global_provider=has_global)
    ran.providers = watch.providers()
    ran.recorded = SpanSource(name=name, spans=watch.spans())
    return ran


def _flush(watch: Watch) -> bool:
    """Whether what was recorded reached the receivers of our providers; those of others say so in their logs."""
    watch.flush_others(_FLUSH_S)
    telemetry = active()
    return telemetry is None or telemetry.flush(_FLUSH_S)


# --- The function


class UnusableAppError(ConfigError):
    """`--app` leads to nothing that can be run."""


def _import_and_call(name: str) -> Ran:
    module_name, colon, path = name.partition(":")
    if not (module_name and colon and path):
        raise UnusableAppError(f"--app is {name!r}; it must be module:function, like myservice.main:run")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    imported = _attempted(AppRun(name=name, was_called=False), lambda: _import(name, module_name))
    if imported.run.raised is not None or imported.fault is not None:
        return imported
    function = _function(name, sys.modules[module_name], path)
    if function is None:
        return imported
    return _attempted(AppRun(name=name, was_called=True), lambda: _call(function))


def _import(name: str, module_name: str) -> None:
    try:
        importlib.import_module(module_name)
    except ImportError as error:
        raise UnusableAppError(f"--app {name} cannot be loaded: {error}; run doctor where your program runs") from error


def _function(name: str, module: object, path: str) -> Callable[[], object] | None:
    """The function; `None` for an application of a server, which is only imported."""
    try:
        found = functools.reduce(getattr, path.split("."), cast("Any", module))
    except AttributeError as error:
        raise UnusableAppError(f"--app {name} is not there: {error}") from None
    if not callable(found):
        raise UnusableAppError(f"--app {name} is {type(found).__name__}; it must be a function without arguments")
    try:
        inspect.signature(found).bind()
    except TypeError:
        if inspect.isroutine(found):
            raise UnusableAppError(f"--app {name} takes arguments; name a function without any") from None
        return None
    return cast("Callable[[], object]", found)


def _attempted(run: AppRun, action: Callable[[], object]) -> Ran:
    """How an action ended. The application sees no arguments: those on the command line are doctor's."""
    arguments, sys.argv = sys.argv, [run.name]
    try:
        action()
    except UnusableAppError:
        raise
    except ConfigError as error:
        return Ran(run, error)
    except SystemExit as error:
        return Ran(replace(run, raised=_raised(error)) if error.code else run)
    except Exception as error:
        return Ran(replace(run, raised=_raised(error)))
    finally:
        sys.argv = arguments
    return Ran(run)


def _call(function: Callable[[], object]) -> None:
    result = function()
    if inspect.isawaitable(result):
        asyncio.run(_awaited(result))


def _awaited(awaitable: Any) -> Coroutine[Any, Any, object]:
    async def wait() -> object:
        return await awaitable

    return wait()


def _raised(error: BaseException) -> str:
    """Its type, and the last line of the application's own code that it came through."""
    places = traceback.extract_tb(error.__traceback__)
    own = [place for place in places if not os.path.isabs(below_here(place.filename))]
    place = (own or places)[-1]
    return f"{type(error).__name__} at {below_here(place.filename)}:{place.lineno}"
