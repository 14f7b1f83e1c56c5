"""The body of a reply over aiohttp. A connection that breaks takes nothing away of what had come."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any, cast

from ._exchange import current_exchange

if TYPE_CHECKING:
    import aiohttp


class Body:
    """aiohttp's body, iterated so that bytes a slow reader has not read yet come before the error, and not after it.

    Every other attribute is aiohttp's.
    """

    def __init__(self, content: aiohttp.StreamReader) -> None:
        self._content = content
        self._size = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._content, name)

    def iter_chunked(self, size: int) -> Body:
        """The bytes as they come, in pieces of at most this size."""
        self._size = size
        return self

    def __aiter__(self) -> Body:
        return self

    async def __anext__(self) -> bytes:
        content = self._content
        if content.exception() is not None:
            data = _buffered(content)
        else:
            data = await content.read(self._size)
        if not data:
            raise StopAsyncIteration
        return data


def _buffered(content: aiohttp.StreamReader) -> bytes:
    """What is left in the buffer of a body that was cut; raises the reason where nothing is."""
    error = cast("BaseException", content.exception())
    content.set_exception(cast("Any", None))
    try:
        data = content.read_nowait()
    finally:
        content.set_exception(error)
    if not data:
        raise error
    return data


@lru_cache(maxsize=1)
def response_class() -> type[aiohttp.ClientResponse]:
    """aiohttp's response, with such a body."""
    import aiohttp

    class Response(aiohttp.ClientResponse):
        async def start(self, connection: Any) -> aiohttp.ClientResponse:
            await super().start(connection)
            if (exchange := current_exchange()) is not None:
                exchange.has_all_come = self.content.is_eof
            self.content = cast("aiohttp.StreamReader", Body(self.content))
            return self

    return Response
