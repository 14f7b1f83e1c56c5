"""A provider as data: where it is, where its key is, and which wire format it speaks."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Unpack

from ....errors import ConfigError
from ._chat_usage import cost_format
from ._client import Sending, WireClient
from ._dialect import server_at
from ._wire_format import WireFormat


@dataclass(frozen=True, kw_only=True, slots=True)
class Preset:
    """A provider behind one of the wire formats."""

    name: str
    """The provider's name for `LLMClientFactory.make`."""
    wire: WireFormat
    """Its format."""
    base_url: str | None
    """Where it is; `None` where only the user can say."""
    key_variables: tuple[str, ...] = ()
    """Environment variables that may hold the key, the first one that is set wins."""
    url_variables: tuple[str, ...] = ()
    """Environment variables that may hold the base URL."""
    needs_key: bool = True
    """Whether it answers nobody without a key."""
    key_header: str = "authorization"
    """The header that carries the key."""
    headers: tuple[tuple[bytes, bytes], ...] = ()
    """More headers of every request."""
    client_class: type[WireClient] = WireClient
    """What makes its requests."""

    @property
    def environment(self) -> tuple[str, ...]:
        """All variables that are read."""
        return self.key_variables + self.url_variables

    def client(
        self,
        api_key: str | None = None,
        base_url: str | None = None,
        *,
        provider_name: str | None = None,
        cost_unit: str | None = None,
        **sending: Unpack[Sending],
    ) -> WireClient:
        """A client for the provider; arguments win over variables, these over what is known here.

        With a `provider_name` it is another's server that speaks the format: that one's prices hold. Without, a server
        that only the user can name is known by its host, or is nobody's.

        Raises:
            ConfigError: there is no base URL, or one that cannot be used.
        """
        url = base_url or _first_set(self.url_variables) or self.base_url
        if url is None:
            wanted = " or ".join(("base_url", *self.url_variables))
            raise ConfigError(f"provider {self.name!r} needs {wanted}: where its server is")
        known = server_at(url)
        whose = provider_name or (known if self.base_url is None else None)
        server = known or whose or self.name
        variables = " or ".join(self.key_variables) or "api_key"
        client = self.client_class(
            self._wire_for(server, cost_unit),
            provider_name=whose or self.name,
            base_url=url,
            key=api_key or _first_set(self.key_variables),
            key_header=self.key_header,
            key_hint=f"{variables} is not set: set it, or pass api_key" if self.needs_key else None,
            headers=self.headers,
            **sending,
        )
        client.reports_cost = self.wire.with_cost is not None and cost_format(server, cost_unit) is not None
        return client

    def _wire_for(self, server: str, cost_unit: str | None) -> WireFormat:
        """The format, as that server counts and names its cost."""
        if self.wire.with_cost is None or (cost_unit is None and server == self.name):
            return self.wire
        return self.wire.with_cost(cost_format(server, cost_unit), server)


def _first_set(variables: tuple[str, ...]) -> str | None:
    return next((value for name in variables if (value := os.getenv(name))), None)
