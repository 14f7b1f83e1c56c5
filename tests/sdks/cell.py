"""A cell of the matrix: one way to call a model through an SDK."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

Ask = Callable[[str], Any] | Callable[[str], Coroutine[Any, Any, Any]]


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A way to call a model, which returns all that the caller got, as plain data."""

    id: str
    """The name of the test."""
    ask: Ask
    """Makes the call against a base URL."""
    format: str
    """The name in `replies.EVERY` of the server's replies."""
    provider: str
    """The provider that the host is declared to be."""
    is_stream: bool = False
    """Whether a stream is asked for."""
    repeats: bool = True
    """Whether the SDK repeats failed attempts, by itself or by its documented option."""


class Cells(list[Cell]):
    """The cells of one SDK: its functions are added by this decorator."""

    def __call__(self, format: str, provider: str = "", **options: Any) -> Callable[[Ask], Ask]:
        """Add a way to call a model."""

        def add(ask: Ask) -> Ask:
            self.append(Cell(id=ask.__name__, ask=ask, format=format, provider=provider or format, **options))
            return ask

        return add


PROMPT: Any = [{"role": "user", "content": "How much?"}]


def plain(value: Any) -> Any:
    """A model of pydantic as plain data."""
    return value.model_dump(warnings=False)
