"""Backends by the names of their presets: those of the table, and those that other packages add."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from itertools import pairwise
from typing import Literal

from ...errors import ConfigError
from .. import semconv
from .backend import Added, Backend
from .rows import BACKENDS

log = logging.getLogger(__name__)

GROUP = "tracemind_otel.presets"
"""The group of entry points by which a package adds a backend; each is a `Backend`."""
VARIABLE = "TRACEMIND_PRESET"


@dataclass(frozen=True, slots=True)
class Presets:
    """The presets that were asked for: their telemetry goes to one address."""

    backends: tuple[Backend, ...] = ()
    """Their backends, none twice."""

    @property
    def temporality(self) -> Literal["delta", "cumulative"] | None:
        """The temporality that the metrics need; `None` where no backend minds."""
        return next((backend.temporality for backend in self.backends if backend.temporality), None)

    @property
    def leaves_out(self) -> tuple[str, ...]:
        """Beginnings of names that no backend wants: what one leaves out, another may show."""
        if not self.backends:
            return ()
        first, *others = self.backends
        return tuple(name for name in first.leaves_out if all(name in other.leaves_out for other in others))

    @property
    def adds_when_sent(self) -> tuple[Added, ...]:
        """What spans get only as they are sent. Another backend of the same address would count it twice."""
        return self.backends[0].adds_when_sent if len(self.backends) == 1 else ()

    @property
    def names_reasons(self) -> bool:
        """Whether attempts are sent under names that say why they failed, which harms no other backend."""
        return any(backend.names_reasons for backend in self.backends)

    @property
    def headers(self) -> Mapping[str, str]:
        """Headers that the backends need and that are no secret."""
        return {name: value for backend in self.backends for name, value in backend.own_headers}

    @property
    def export_needs(self) -> tuple[str, ...]:
        """What `configure()` does for the backends where it sends the spans itself, in words."""
        return (
            *(f"send the header {name}: {value}" for name, value in self.headers.items()),
            *(f"set {name} of the resource to the service's name" for name in self.resource),
            *(f"drop the attributes {name}*" for name in self.leaves_out),
        )

    @property
    def resource(self) -> tuple[str, ...]:
        """Attributes of the resource that get the name of the service."""
        return tuple(name for backend in self.backends for name in backend.resource)

    @property
    def takes_metrics(self) -> bool:
        """Whether metrics go to the same address as traces."""
        return not self.backends or any(backend.takes_metrics for backend in self.backends)

    @property
    def has_cost_histogram(self) -> bool:
        """Whether a backend reads the cost from a histogram."""
        return self._reads_metrics({semconv.METRIC_USAGE_COST})

    @property
    def needs_todays_metrics(self) -> bool:
        """Whether a backend reads metrics by names that the newest conventions no longer have."""
        return self._reads_metrics({semconv.METRIC_TOKEN_USAGE, semconv.METRIC_OPERATION_DURATION})

    def _reads_metrics(self, names: set[str]) -> bool:
        return any(not names.isdisjoint(backend.metrics) for backend in self.backends)

    @property
    def has_token_types(self) -> bool:
        """Whether a backend reads cached and reasoning tokens as types of the token metric."""
        return any(backend.has_token_types for backend in self.backends)


NO_PRESETS = Presets()


def chosen_presets(argument: object) -> Presets:
    """The presets of the argument `preset`, else of `TRACEMIND_PRESET`.

    Raises:
        ConfigError: a name is unknown, or two presets need what one export cannot be.
    """
    where = "preset" if argument is not None else VARIABLE
    value = os.getenv(VARIABLE, "") if argument is None else argument
    if not isinstance(value, str):
        raise ConfigError(f"preset is {type(value).__name__}; it must be a name, or several separated by commas")
    names = dict.fromkeys(name.strip().lower() for name in value.split(",") if name.strip())
    if not names:
        if argument is not None:
            raise ConfigError(f"preset is empty; {_known()}")
        return NO_PRESETS
    presets = Presets(tuple(backend_named(name, where) for name in names))
    _check_together(presets.backends)
    return presets


def backend_named(name: str, where: str = "preset") -> Backend:
    """The backend of a preset.

    Args:
        name: the preset's name, which may have options, as in `azure+users`.
        where: the argument or the variable that names it, for the message.

    Raises:
        ConfigError: there is none of that name, it has no such option, or the package that adds it cannot be loaded.
    """
    plain, *options = name.split("+")
    backend = _backend(plain, where)
    for option in options:
        if option not in backend.options:
            has = f"its options are {', '.join(backend.options)}" if backend.options else "it has no options"
            raise ConfigError(f"{where} names {name!r}, but {plain} has no option {option!r}; {has}")
        backend = backend.with_option(option)
    return backend


def _backend(name: str, where: str) -> Backend:
    found = BACKENDS.get(name)
    if found is not None:
        return found
    added = next((entry for entry in _added() if entry.name == name), None)
    if added is None:
        raise ConfigError(f"{where} names {name!r}, which is no preset; {_known()}")
    return _loaded(added, where)


def _added() -> Iterable[EntryPoint]:
    return entry_points(group=GROUP)


def _loaded(entry: EntryPoint, where: str) -> Backend:
    try:
        loaded = entry.load()
    except Exception as error:
        raise ConfigError(
            f"{where} names {entry.name!r}, which {entry.value} adds, but loading it failed: {type(error).__name__}"
        ) from error
    if not isinstance(loaded, Backend):
        raise ConfigError(f"{where} names {entry.name!r}, but {entry.value} is {type(loaded).__name__}, not a Backend")
    return loaded


def _known() -> str:
    return f"known are {', '.join(sorted({*BACKENDS, *(entry.name for entry in _added())}))}"


def _check_together(backends: Sequence[Backend]) -> None:
    choosy = [backend for backend in backends if backend.temporality is not None]
    for one, other in pairwise(choosy):
        if one.temporality != other.temporality:
            raise ConfigError(
                f"preset names {one.name}, which needs {one.temporality} metrics, and {other.name}, which needs "
                f"{other.temporality} ones, but one export has one temporality; leave one out, and convert for it in a "
                "Collector (cumulativetodelta, deltatocumulative)"
            )
    if len(backends) > 1:
        _say_what_is_not_added(backends)
    left_out = {name for backend in backends for name in backend.leaves_out}
    if left_out - set(Presets(tuple(backends)).leaves_out):
        log.warning(
            "Presets %s: %s are sent, because one address gets all and not every backend is better off without them. "
            "Where that matters, drop them in a Collector's pipeline",
            ", ".join(backend.name for backend in backends),
            ", ".join(f"{name}*" for name in sorted(left_out)),
        )


def _say_what_is_not_added(backends: Sequence[Backend]) -> None:
    for backend in backends:
        if backend.adds_when_sent:
            log.info(
                "Preset %s: flows are sent without %s, because one address gets all and the other backends would add "
                "them to the calls below. Send to %s alone to see them",
                backend.name,
                ", ".join(added.name for added in backend.adds_when_sent),
                backend.title,
            )
