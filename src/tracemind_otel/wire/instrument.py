"""`instrument()`: see the model calls that other SDKs make."""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import logging
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import TypeGuard, cast

from .._base.once import report_fault
from ..ai.llm.providers._hosts import name_hosts
from ..errors import ConfigError
from ..flows.totals import before_flow_ends
from . import aiohttp_hook, botocore_hook, httpx_hook, observation, requests_hook
from .instances import Hook

log = logging.getLogger(__name__)

GEVENT = (
    "gevent has replaced the threads of this process, and the calls of its greenlets cannot be told apart; "
    "wrap them in tm.llm_call_span instead"
)
"""Why calls are not seen there, and what to do."""

HOOKS: Mapping[str, Hook] = {
    "httpx": httpx_hook.HOOK,
    "httpx2": httpx_hook.HOOK,
    "aiohttp": aiohttp_hook.HOOK,
    "requests": requests_hook.HOOK,
    "botocore.httpsession": botocore_hook.HOOK,
}
"""The libraries, by the module that is patched."""
_left_out: set[str] = set()
"""The libraries that the user does not want to be seen."""


def instrument(
    *,
    httpx: bool | None = None,
    aiohttp: bool | None = None,
    requests: bool | None = None,
    botocore: bool | None = None,
    hosts: Mapping[str, str] | None = None,
    estimate_missing_usage: bool | None = None,
) -> None:
    """See the model calls of every SDK that sends them with httpx, httpx2, requests, aiohttp or botocore.

    Each is one span by the same contract as our own calls, with its attempts as events; its tokens and cost are in the
    sums of the flow around it. A library is patched when somebody imports it, and never imported for it. A client that
    was made before is seen too. `configure()` calls this; calling it again renews what is passed.

    Args:
        httpx: whether to see what is sent with httpx and with its successor httpx2; the default is `True`.
        aiohttp: the same for aiohttp.
        requests: the same for requests.
        botocore: the same for AWS's SDK.
        hosts: the provider of each of your own hosts, as `host` or `host:port`, by whose prices its calls are priced:
            `{"gateway.acme.example": "openai"}`. Calls to unknown hosts have no price of the table. The default is
            `TRACEMIND_HOSTS`, as `gateway.acme.example=openai,127.0.0.1:8000=mistral`.
        estimate_missing_usage: estimate the tokens of streams that report none, four characters a token, and mark
            them with `tracemind.usage.estimated`. The text of such a stream is kept until its end. The default is
            `TRACEMIND_ESTIMATE_MISSING_USAGE` (`true` or `false`), else `False`: no tokens and no cost.

    Raises:
        ConfigError: an argument or its variable has a value that is not allowed.
    """
    if is_gevent():
        raise ConfigError(f"instrument(): {GEVENT}")
    asked_for = {
        **dict.fromkeys(("httpx", "httpx2"), httpx),
        "aiohttp": aiohttp,
        "requests": requests,
        "botocore.httpsession": botocore,
    }
    known, is_asked = named_hosts(hosts), is_estimate_asked(estimate_missing_usage)
    if hosts is not None or not is_instrumented():
        name_hosts(known)
    if estimate_missing_usage is not None or not is_instrumented():
        observation.estimate_usage(is_asked=is_asked)
    observation.turn_on()
    before_flow_ends(observation.settle_in)
    for name, is_wanted in asked_for.items():
        if is_wanted is not None:
            (_left_out.discard if is_wanted else _left_out.add)(name)
    for name, hook in HOOKS.items():
        if name in sys.modules:
            _run(hook.unpatch if name in _left_out else hook.patch, sys.modules[name])
    sys.meta_path[:] = [finder for finder in sys.meta_path if not isinstance(finder, _Finder)]
    sys.meta_path.insert(0, _Finder(HOOKS.keys() - _left_out))


def is_gevent() -> bool:
    """Whether gevent has replaced the threads of this process, whose greenlets' calls cannot be told apart."""
    patched = getattr(sys.modules.get("gevent.monkey"), "is_module_patched", None)
    return patched is not None and bool(patched("threading"))


def is_instrumented() -> bool:
    """Whether the calls of SDKs are seen."""
    return observation.is_on()


def settle_calls() -> None:
    """End the calls that wait for a repetition."""
    observation.settle_all()


def named_hosts(hosts: Mapping[str, str] | None) -> Mapping[str, str]:
    """The provider of each host, by the argument, else by `TRACEMIND_HOSTS`.

    Raises:
        ConfigError: `hosts` is not a mapping of strings to strings, or `TRACEMIND_HOSTS` is not of that form.
    """
    known: object = _hosts_in(os.getenv("TRACEMIND_HOSTS", "")) if hosts is None else hosts
    if not _is_of_strings(known):
        raise ConfigError("hosts must be a mapping of host or host:port to a provider's name")
    for name in known:
        if not name or "/" in name or "@" in name or _has_space(name):
            raise ConfigError(f"hosts names {name!r}; it must be a host or host:port, such as gateway.acme.example")
        if not known[name] or _has_space(known[name]):
            raise ConfigError(
                f"hosts gives {name!r} the provider {known[name]!r}; it must be a name without spaces, such as openai"
            )
    return known


def _has_space(name: str) -> bool:
    return any(character.isspace() for character in name)


def is_estimate_asked(argument: bool | None) -> bool:
    """Whether missing usage is estimated, by the argument, else by `TRACEMIND_ESTIMATE_MISSING_USAGE`.

    Raises:
        ConfigError: the argument is no bool, or the variable neither `true` nor `false`.
    """
    given = cast("object", argument)
    if given is None:
        value = os.getenv("TRACEMIND_ESTIMATE_MISSING_USAGE", "").strip().lower()
        if value not in ("", "true", "false"):
            raise ConfigError(f"TRACEMIND_ESTIMATE_MISSING_USAGE is {value!r}; it must be true or false")
        return value == "true"
    if not isinstance(given, bool):
        raise ConfigError(f"estimate_missing_usage is {type(given).__name__}; it must be True or False")
    return given


def _hosts_in(text: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for entry in filter(None, (part.strip() for part in text.split(","))):
        host, _, provider = (part.strip() for part in entry.partition("="))
        if not host or not provider:
            raise ConfigError(f"TRACEMIND_HOSTS must be host=provider entries with commas between; {entry!r} is none")
        found[host] = provider
    return found


def _is_of_strings(value: object) -> TypeGuard[Mapping[str, str]]:
    if not isinstance(value, Mapping):
        return False
    items = cast("Mapping[object, object]", value).items()
    return all(isinstance(name, str) and isinstance(provider, str) for name, provider in items)


def uninstrument() -> None:
    """See them no more. A stream that is being read is still recorded."""
    sys.meta_path[:] = [finder for finder in sys.meta_path if not isinstance(finder, _Finder)]
    _left_out.clear()
    observation.turn_off()
    for name, hook in HOOKS.items():
        if name in sys.modules:
            _run(hook.unpatch, sys.modules[name])


def _run(change: Callable[[ModuleType], None], library: ModuleType) -> None:
    try:
        change(library)
    except Exception:
        report_fault(log, library.__name__, change.__name__)


class _Finder(importlib.abc.MetaPathFinder):
    """Patches libraries as soon as they have been imported.

    Args:
        names: the modules to patch.
    """

    def __init__(self, names: set[str]) -> None:
        self._names = names

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name not in self._names:
            return None
        spec = None
        for finder in sys.meta_path:
            if not isinstance(finder, _Finder) and (spec := finder.find_spec(name, path, target)) is not None:
                break
        if spec is not None and spec.loader is not None:
            spec.loader = _PatchingLoader(spec.loader, HOOKS[name].patch)
        return spec


class _PatchingLoader(importlib.abc.Loader):
    def __init__(self, loader: importlib.abc.Loader, patch: Callable[[ModuleType], None]) -> None:
        self._loader = loader
        self._patch = patch

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self._loader.exec_module(module)
        _run(self._patch, module)

    def __getattr__(self, name: str) -> object:
        return getattr(self._loader, name)
