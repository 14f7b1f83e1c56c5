"""Stands for the body of a response of urllib3, on which botocore and requests are built."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ..errors import LLMConnectionError, LLMTimeoutError
from .tap import Tap


class TappedBody:
    """Stands for the body of one response, and shows the tap what is read, however it is read.

    Args:
        inner: urllib3's response.
        tap: reads along.
    """

    def __init__(self, inner: Any, tap: Tap) -> None:
        self._inner = inner
        self._tap = tap

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def _seen(self, read: Any, *args: Any, **options: Any) -> Any:
        try:
            return read(*args, **options)
        except BaseException as error:
            self._failed(error)
            raise

    def _failed(self, error: BaseException) -> None:
        if not isinstance(error, Exception):
            self._tap.cancel()
        elif isinstance(error, TimeoutError) or "Timeout" in type(error).__name__:
            self._tap.end(LLMTimeoutError("no answer in time"))
        else:
            self._tap.end(LLMConnectionError(f"the connection failed ({type(error).__name__})"))

    def _show(self, data: bytes, *, is_last: bool) -> None:
        if data:
            self._tap.feed(data)
        if is_last:
            self._tap.end()

    def read(self, amt: int | None = None, *args: Any, **options: Any) -> Any:
        """As the response's."""
        data = self._seen(self._inner.read, amt, *args, **options)
        self._show(data, is_last=amt is None or amt < 0 or (not data and amt > 0) or self._is_at_end())
        return data

    def readinto(self, buffer: Any) -> Any:
        """As the response's."""
        count = self._seen(self._inner.readinto, buffer)
        self._show(bytes(memoryview(buffer)[:count]), is_last=(not count and len(buffer) > 0) or self._is_at_end())
        return count

    def readlines(self, *args: Any) -> Any:
        """As the response's."""
        lines = self._seen(self._inner.readlines, *args)
        self._show(b"".join(lines), is_last=not args)
        return lines

    def _is_at_end(self) -> bool:
        """Whether nothing is left of a body whose length was announced."""
        return getattr(self._inner, "length_remaining", None) == 0

    def stream(self, *args: Any, **options: Any) -> Iterator[bytes]:
        """As the response's."""
        try:
            for data in self._inner.stream(*args, **options):
                self._show(data, is_last=False)
                yield data
        except GeneratorExit:
            raise
        except BaseException as error:
            self._failed(error)
            raise
        else:
            self._show(b"", is_last=True)

    def __iter__(self) -> Iterator[bytes]:
        for data in self._inner:
            self._show(data, is_last=False)
            yield data
        self._show(b"", is_last=True)

    def close(self) -> None:
        """Close the body, and end a call that was not read to its end."""
        try:
            self._inner.close()
        finally:
            self._tap.close()

    def __enter__(self) -> TappedBody:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __del__(self) -> None:
        self._tap.abandon()
