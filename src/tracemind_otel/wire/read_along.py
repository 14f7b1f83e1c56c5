"""A stream that a function returned, read along while its consumer reads it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from typing import Any, cast

from ..otel.wrapping.body import Body
from .spanned_call import CallRun


def comes_later(value: object) -> bool:
    """Whether what a function returned is a stream, or the context manager of one: it is read after the call."""
    if isinstance(value, Iterator | AsyncIterator):
        return True
    return isinstance(value, AbstractContextManager | AbstractAsyncContextManager)


class ReadAlong:
    """Stands for a stream: it hands out the same, has the same attributes, and is an instance of the same class.

    Args:
        stream: the stream, or the context manager of one.
        body: ends the span.
        run: reads the pieces.
    """

    __slots__ = ("__weakref__", "_body", "_run", "_stream")

    def __init__(self, stream: Any, body: Body, run: CallRun) -> None:
        self._stream, self._body, self._run = stream, body, run

    @property  # type: ignore[misc]
    def __class__(self) -> type[Any]:  # pyright: ignore[reportIncompatibleMethodOverride]
        return type(cast("object", self._stream))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def __repr__(self) -> str:
        return repr(self._stream)

    def __iter__(self) -> ReadAlong:
        return self

    def __next__(self) -> Any:
        self._run.enter()
        try:
            piece = next(self._stream)
        except BaseException as error:
            self._ended(error)
            raise
        self._run.leave()
        self._run.item(piece)
        return piece

    def __aiter__(self) -> ReadAlong:
        return self

    async def __anext__(self) -> Any:
        self._run.enter()
        try:
            piece = await anext(self._stream)
        except BaseException as error:
            self._ended(error)
            raise
        self._run.leave()
        self._run.item(piece)
        return piece

    def _ended(self, error: BaseException) -> None:
        self._run.leave()
        self._body.end(None if isinstance(error, StopIteration | StopAsyncIteration) else error)

    def __enter__(self) -> Any:
        return self._entered(self._stream.__enter__())

    def __exit__(self, *exc_info: Any) -> Any:
        try:
            return self._stream.__exit__(*exc_info)
        finally:
            self._body.end(GeneratorExit())

    async def __aenter__(self) -> Any:
        return self._entered(await self._stream.__aenter__())

    async def __aexit__(self, *exc_info: Any) -> Any:
        try:
            return await self._stream.__aexit__(*exc_info)
        finally:
            self._body.end(GeneratorExit())

    def _entered(self, stream: Any) -> Any:
        return self if stream is self._stream else ReadAlong(stream, self._body, self._run)

    def close(self) -> Any:
        """Close the stream, and end the span unless the stream was read to its end."""
        try:
            return self._stream.close()
        finally:
            self._body.end(GeneratorExit())

    async def aclose(self) -> None:
        """Close the stream, and end the span unless the stream was read to its end."""
        try:
            await self._stream.aclose()
        finally:
            self._body.end(GeneratorExit())
