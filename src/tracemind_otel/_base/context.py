"""Context variables: set them for a block, and carry them into another thread."""

from __future__ import annotations

import abc
import contextvars
import functools
import sys
import types
from collections.abc import Awaitable, Callable, Generator, Iterable
from contextlib import AbstractContextManager, ExitStack
from typing import Any, Generic, ParamSpec, TypeVar

from .dropped import keep_variables

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")


class Setting:
    """A context variable that was set, to be put back: by `undo`, or at the end of a `with` block."""

    __slots__ = ("_token", "_value")

    def __init__(self, token: contextvars.Token[Any], value: object) -> None:
        self._token = token
        self._value = value

    def __enter__(self) -> None:
        """Begin a block at whose end it is undone."""

    def __exit__(self, *_: object) -> None:
        self.undo()

    def undo(self) -> None:
        """Put the variable back to what it was before."""
        if not self.undo_here():
            self._undo_in_copy()

    def undo_here(self) -> bool:
        """Put the variable back if it was set in this context; returns whether it was, and was not put back before.

        A value that another library has set since is replaced. In a finalizer it stays: the interrupted code set it.
        """
        var = self._token.var
        if isinstance(sys.exception(), GeneratorExit):
            if var.get(None) is not self._value:
                return False
            keep_variables()
        try:
            var.reset(self._token)
        except (ValueError, RuntimeError):
            return False
        return True

    def _undo_in_copy(self) -> None:
        """Put the variable back in a copy of that context; a task has one, and `asgiref` copies contexts both ways."""
        var, before = self._token.var, self._token.old_value
        if var.get(None) is not self._value:
            return
        if before is contextvars.Token.MISSING:
            before = contextvars.Context().run(var.get)  # its default
        var.set(before)


def set_here(var: contextvars.ContextVar[T], value: T) -> Setting:
    """Set a variable until the setting is undone."""
    return Setting(var.set(value), value)


_surrounding: list[contextvars.ContextVar[Any]] = []


def surrounding_variable(name: str, *, default: T) -> contextvars.ContextVar[T]:
    """A context variable that says what surrounds the code, so that work handed to another task may take it along."""
    var: contextvars.ContextVar[T] = contextvars.ContextVar(name, default=default)
    _surrounding.append(var)
    return var


def surrounding_values() -> tuple[tuple[contextvars.ContextVar[Any], Any], ...]:
    """These variables, each with its value here."""
    return tuple([(var, var.get()) for var in _surrounding])


class Block(abc.ABC, Generic[T]):
    """A context manager for `with` and `async with`; neither waits."""

    __slots__ = ()

    @abc.abstractmethod
    def _enter(self) -> T:
        """Begin a block; returns the value for `as`."""

    @abc.abstractmethod
    def _leave(self, exc: BaseException | None) -> None:
        """End a block that this exception leaves."""

    def __enter__(self) -> T:
        return self._enter()

    def __exit__(self, *exc_info: Any) -> None:
        self._leave(exc_info[1])

    async def __aenter__(self) -> T:
        return self._enter()

    async def __aexit__(self, *exc_info: Any) -> None:
        self._leave(exc_info[1])


class Entries:
    """Settings of one object that several `with` blocks may use at once, each in its own task or thread."""

    __slots__ = ("_entries",)

    def __init__(self) -> None:
        self._entries: list[tuple[Setting, ...]] = []

    def add(self, *settings: Setting) -> None:
        """Add the settings of a block that was entered."""
        self._entries.append(settings)

    def leave(self) -> None:
        """Undo the settings of the block that is left: the last one that was entered in this context, else the last."""
        if not self._entries:
            return
        entry = next((entry for entry in reversed(self._entries) if entry[0].undo_here()), self._entries[-1])
        for setting in entry:
            setting.undo()
        self._entries.remove(entry)


class OwnContext:
    """A copy of the current context, for work that takes turns with other code.

    The context managers that `blocks` make are entered now; what they set holds in every turn.
    """

    def __init__(self, *blocks: Callable[[], AbstractContextManager[object]]) -> None:
        self._context = contextvars.copy_context()
        self._entered = ExitStack()
        self._context.run(self._enter, blocks)

    def _enter(self, blocks: Iterable[Callable[[], AbstractContextManager[object]]]) -> None:
        for block in blocks:
            self._entered.enter_context(block())

    def run(self, turn: Awaitable[T]) -> Awaitable[T]:
        """One turn of the work."""
        return inside(self._context, turn.__await__())

    def leave(self) -> None:
        """Leave the context managers."""
        self._context.run(self._entered.close)


@types.coroutine
def inside(context: contextvars.Context, turn: Generator[Any, Any, T]) -> Generator[Any, Any, T]:
    """Await what an `__await__` returned, but run every step of it in another context."""
    run, proceed, value = context.run, turn.__next__, None
    try:
        waited = run(proceed)
        while True:
            try:
                value = yield waited
            except BaseException as error:
                if not hasattr(turn, "throw"):
                    raise  # a plain iterator, as an awaitable of a third party may give
                waited = run(turn.throw, error)
            else:
                waited = run(proceed) if value is None else run(turn.send, value)
    except StopIteration as end:
        result: T = end.value
        return result
    finally:
        del turn, proceed, value  # they may hold an exception whose traceback refers to this frame


def carry_context(function: Callable[P, R]) -> Callable[P, R]:
    """Bind a function to the current context, for a thread or an executor that would lose it.

    What the function calls finds the flow, its span and every other context variable. The function may be called
    many times, and from several threads at once.

    Example:
        >>> from concurrent.futures import ThreadPoolExecutor
        >>> with ThreadPoolExecutor() as pool:
        ...     pool.submit(carry_context(print), "in the caller's flow").result()
        in the caller's flow
    """
    context = contextvars.copy_context()

    @functools.wraps(function)
    def in_context(*args: P.args, **kwargs: P.kwargs) -> R:
        return context.copy().run(function, *args, **kwargs)

    return in_context
