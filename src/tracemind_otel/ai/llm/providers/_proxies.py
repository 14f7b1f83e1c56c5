"""Which proxy a request takes, by the environment's variables, as curl and requests read them."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from urllib.parse import urlsplit

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_SEPARATORS = re.compile(r"[,\s]+")
_WITH_PORT = re.compile(r"(\[[^\]]*\]|[^:\[\]]+):(\d+)")
_DEFAULT_PORTS = {"http": 80, "https": 443}


def proxy_for(url: str, proxies: Mapping[str, str]) -> str | None:
    """The URL of the proxy for requests to `url`, among those of `urllib.request.getproxies`; `None` for none."""
    parts = urlsplit(url)
    proxy = (proxies.get(parts.scheme) or proxies.get("all") or "").strip()
    port = parts.port or _DEFAULT_PORTS.get(parts.scheme)
    if not proxy or is_exempt(parts.hostname or "", port, proxies.get("no")):
        return None
    return proxy if "://" in proxy else f"http://{proxy}"


def is_exempt(host: str, port: int | None, no_proxy: str | None) -> bool:
    """Whether `NO_PROXY` names the host: by `*`, its name or a domain above it, its address or a network around it."""
    entries = [entry for entry in _SEPARATORS.split((no_proxy or "").lower()) if entry]
    name = host.lower().strip("[]").rstrip(".")
    return any(_names(entry, name, port) for entry in entries)


def _names(entry: str, name: str, port: int | None) -> bool:
    if entry == "*":
        return True
    with_port = _WITH_PORT.fullmatch(entry)
    if with_port is not None:
        entry = with_port[1]
        if int(with_port[2]) != port:
            return False
    address = _address(name)
    return _is_below(name, entry) if address is None else _is_within(address, entry)


def _is_below(name: str, entry: str) -> bool:
    domain = entry.removeprefix("*").strip(".")
    return bool(domain) and (name == domain or name.endswith(f".{domain}"))


def _is_within(address: _Address, entry: str) -> bool:
    """An address alone is a network of one."""
    try:
        network = ipaddress.ip_network(entry.replace("[", "").replace("]", ""), strict=False)
    except ValueError:
        return False
    return address in network


def _address(name: str) -> _Address | None:
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return None
    return (address.ipv4_mapped or address) if isinstance(address, ipaddress.IPv6Address) else address
