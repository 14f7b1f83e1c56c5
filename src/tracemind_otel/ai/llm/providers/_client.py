"""The client of every HTTP provider: a wire format over one shared way to send."""

from __future__ import annotations

import asyncio
import json
import warnings
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, TypedDict, Unpack, cast

from ....errors import LLMAuthenticationError, LLMError, LLMTimeoutError
from ..client import AsyncLLMClient
from ..liveness import Patience, ProviderSilentError, is_heard
from ..types import Finish, LLMRequest, LLMResponse, StreamEvent, StreamOpened
from ._error_bodies import error_from_body, status_error
from ._http import JSON_HEADERS, Headers, base_url_of, key_of, library_of
from ._loop import PerLoop
from ._pool import HttpPool, given_sender, new_pools
from ._reading import Reading
from ._wire_format import StreamedError, WireFormat

if TYPE_CHECKING:
    import httpx

    from ._sending import GivenClientSender, HttpStream

_DEFAULT_PORTS = {"http": 80, "https": 443}
_JSON = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))
_ASCII_JSON = json.JSONEncoder(separators=(",", ":"))
_CONVENTIONAL_NAMES = {
    "aws": "aws.bedrock",
    "azure": "azure.ai.openai",
    "azure_openai": "azure.ai.openai",
    "azure_openai_responses": "azure.ai.openai",
    "bedrock": "aws.bedrock",
    "gemini": "gcp.gemini",
    "google": "gcp.gemini",
    "mistral": "mistral_ai",
    "moonshot": "moonshot_ai",
    "moonshotai": "moonshot_ai",
    "ollama_v1": "ollama",
    "openai_responses": "openai",
    "vertex": "gcp.vertex_ai",
    "vertex_ai": "gcp.vertex_ai",
    "watsonx": "ibm.watsonx.ai",
    "x-ai": "x_ai",
    "xai": "x_ai",
}
"""`gen_ai.provider.name` where OpenTelemetry's conventions list another value than the provider's name (2026-11)."""


class Sending(TypedDict, total=False):
    """How a client sends: the options that every HTTP client of this package takes."""

    timeout_s: float | None
    """Seconds without a byte in one `complete`; `None` leaves the time to the caller, as the step does."""
    http_client: httpx.AsyncClient | None
    """An httpx client to send with; you close it yourself."""
    pools: PerLoop[HttpPool] | None
    """Where pooled connections live; the default is a pool of the client's own, closed by `aclose`."""


class WireClient(AsyncLLMClient):
    """Speaks one wire format with one server.

    Args:
        wire: the format.
        provider_name: the provider's name.
        base_url: the server.
        key: the key, or `None` for a server that needs none.
        key_header: the header that carries the key; `authorization` carries it as `Bearer`.
        key_hint: what to do about a missing key; `None` where none is needed.
        headers: more headers of every request.
        **sending: how it sends.

    Raises:
        ConfigError: the key or the base URL cannot be used; the message names the field.
    """

    _own_pools: PerLoop[HttpPool] | None = None

    def __init__(
        self,
        wire: WireFormat,
        *,
        provider_name: str,
        base_url: str,
        key: str | None = None,
        key_header: str = "authorization",
        key_hint: str | None = None,
        headers: Headers = (),
        **sending: Unpack[Sending],
    ) -> None:
        self._wire = wire
        self.provider_name = provider_name
        self.telemetry_name = telemetry_name_of(provider_name)
        self.operation = wire.operation
        self.default_max_tokens = wire.default_max_tokens
        self.reports_cost = wire.reports_cost
        self._key = key_of("api_key", key)
        self._key_hint = key_hint
        self.base_url, parts = base_url_of("base_url", base_url)
        self._origin = f"{parts.scheme}://{parts.netloc.lower()}"
        self.server_address = parts.hostname
        self.server_port = parts.port or _DEFAULT_PORTS[parts.scheme]
        self._timeout_s = sending.get("timeout_s")
        scheme = "Bearer " if key_header == "authorization" else ""
        key_headers = () if self._key is None else ((key_header, f"{scheme}{self._key}"),)
        self._headers = (*JSON_HEADERS, *key_headers, *headers)
        self._http_client = sending.get("http_client")
        if self._http_client is not None:
            library_of(self._http_client)
        self._given: GivenClientSender | None = None
        pools = sending.get("pools")
        if pools is None:
            pools = self._own_pools = new_pools()
        self._pools = pools

    async def complete(self, req: LLMRequest) -> LLMResponse:
        if self._timeout_s is None:
            return await self._complete(req)
        patience = Patience(self._timeout_s)
        try:
            with patience.listening(), patience:
                return await self._complete(req)
        except ProviderSilentError as error:
            raise LLMTimeoutError(f"no whole answer within {self._timeout_s:g} s of its last byte") from error
        finally:
            patience.stop()

    async def _complete(self, req: LLMRequest) -> LLMResponse:
        opened = await self._open(req, is_stream=False)
        reading = Reading(self._wire, opened.head, is_stream=False)
        try:
            await opened.read(reading)
            response = reading.finish()
        except BaseException as error:
            await opened.aclose()
            self._raise_typed(error, reading, req)
            raise
        await opened.finish()
        return response

    async def stream(self, req: LLMRequest) -> AsyncGenerator[Sequence[StreamEvent]]:
        opened = await self._open_stream(req)
        reading = Reading(self._wire, opened.head)
        batch: Sequence[StreamEvent] = ()
        try:
            if is_heard():
                opening = StreamOpened(reading.so_far, opened.shortcut(reading))
                yield cast("Sequence[StreamEvent]", (opening,))  # to a step only
            async with aclosing(opened.events(reading)) as batches:
                async for batch in batches:
                    if reading.has_ended:
                        break
                    yield batch
                else:
                    batch = ()
            response = reading.finish()
        except BaseException as error:
            await opened.aclose()
            self._raise_typed(error, reading, req)
            raise
        await opened.finish()
        yield (*batch, Finish(response))

    def _raise_typed(self, error: BaseException, reading: Reading, req: LLMRequest) -> None:
        """Raise an error that came inside a success as a typed one; keep the part of the reply that came before it."""
        if isinstance(error, StreamedError):
            fault = error_from_body(reading.head, error.body, secrets=(self._secret(),), prompt=req.texts)
            fault.reply = error.reply or reading.events_so_far()
            raise fault from None
        if isinstance(error, LLMError):
            error.reply = error.reply or reading.events_so_far()

    async def _open(self, req: LLMRequest, *, is_stream: bool) -> HttpStream:
        """Send the request and return when its reply begins; raises the error that a status tells."""
        if self._key is None and self._key_hint is not None:
            raise LLMAuthenticationError(self._key_hint)
        body = _encoded(self._wire.to_payload(req, is_stream))
        url = f"{self.base_url}{self._wire.path(req, is_stream)}"
        if self._http_client is not None and self._given is None:
            self._given = await asyncio.to_thread(given_sender, self._http_client)
        sender = self._given or await self._pools.get().sender(self._origin)
        opened = await sender.open(url, await self._headers_for(url, body), body)
        if 200 <= opened.head.status_code < 300:
            return opened
        try:
            reply = await opened.error()
        finally:
            await opened.aclose()
        raise status_error(reply, secrets=(self._secret(),), prompt=req.texts, read=self._wire.errors_of)

    async def _open_stream(self, req: LLMRequest) -> HttpStream:
        return await self._open(req, is_stream=True)

    async def _headers_for(self, url: str, body: bytes) -> Headers:
        """The headers of one request; a subclass adds those that it makes anew each time."""
        return self._headers

    def _secret(self) -> str | None:
        """The key or token that was sent last, which no error may repeat."""
        return self._key

    async def aclose(self) -> None:
        """Close this client's own connections; those of the shared pool are closed when their loop ends."""
        if self._own_pools is not None:
            await self._own_pools.aclose()

    def __del__(self) -> None:
        if self._own_pools is not None and not self._own_pools.is_empty:
            warnings.warn(f"unclosed {type(self).__name__}: call aclose()", ResourceWarning, source=self, stacklevel=1)


def telemetry_name_of(provider_name: str) -> str:
    """The conventions' value for a provider; a name that they do not list is its own."""
    return _CONVENTIONAL_NAMES.get(provider_name.lower(), provider_name)


def _encoded(payload: Mapping[str, Any]) -> bytes:
    """The body of a request. Half an emoji, where a string was cut, has no UTF-8, but an escape in JSON."""
    try:
        return _JSON.encode(payload).encode()
    except UnicodeEncodeError:
        return _ASCII_JSON.encode(payload).encode()
