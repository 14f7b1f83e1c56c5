"""What was gathered, and so what the checks look at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ...errors import ConfigError
from ...flows.shared.state_client import Examined
from ...front.configure import SetUp
from ...otel.export.otlp_variables import Signal
from ..otlp_file import FileSpan
from .receiver import Reply


@dataclass(frozen=True, kw_only=True, slots=True)
class MadeProvider:
    """A provider of the SDK that was made in this process, or was there before."""

    signal: Signal
    """What it records."""
    place: str
    """The file and line that made it."""
    by_configure: bool
    """Whether `configure()` made it."""
    processors: tuple[str, ...] | None = None
    """The classes of its span processors, without ours that send nothing; `None` where they are not known."""
    sampled_share: float | None = None
    """The part of new traces that its sampler keeps, 0 to 1; `None` where it has no sampler."""
    sampler: str = ""
    """The description of its sampler."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AppRun:
    """What the application did."""

    name: str
    """What `--app` said."""
    was_called: bool
    """Whether the function was called; an ASGI or WSGI application is only imported."""
    raised: str | None = None
    """What it raised, by type and place: a message may hold a prompt."""
    has_flushed: bool = True
    """Whether everything that it recorded reached its receivers."""
    has_global_provider: bool = False
    """Whether it set a global tracer provider."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ProviderKeys:
    """A model provider whose key is set."""

    provider: str
    """Its name."""
    variables: tuple[str, ...]
    """The variables that hold its keys."""
    fault: str | None
    """Why no client can be made; `None` where one can."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SpanSource:
    """Spans of a file, or those that the application recorded."""

    name: str
    """The name of the file or of the application."""
    spans: Sequence[FileSpan]
    """The spans, in the order in which they were written."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Evidence:
    """All that was gathered."""

    variables: tuple[str, ...] = ()
    """The variables of OpenTelemetry that are set: by name, and with the value where that is no secret."""
    is_disabled: bool = False
    """Whether a variable switches the SDK off."""
    set_up: SetUp | None = None
    """What `configure()` set up; `None` where it was rejected or never called."""
    service: str = ""
    """The name of the service on the spans."""
    fault: ConfigError | None = None
    """What `configure()` or the application was rejected with."""
    logged: tuple[str, ...] = ()
    """The warnings of telemetry that were logged."""
    export_faults: tuple[str, ...] = ()
    """What exporters logged that `configure()` has not made."""
    providers: tuple[MadeProvider, ...] = ()
    """The providers of the SDK in this process."""
    replies: tuple[Reply, ...] = ()
    """What the receivers answered."""
    state: Examined | None = None
    """The state in which processes share budgets; `None` without one."""
    keys: tuple[ProviderKeys, ...] = ()
    """The model providers whose keys are set."""
    price_table: str = ""
    """The version of the price table."""
    wrong_units: tuple[str, ...] = ()
    """The models whose own prices are in a wrong unit."""
    instrumentations: tuple[str, ...] = ()
    """Active instrumentations of model SDKs."""
    servers: tuple[str, ...] = ()
    """The servers and workers that are loaded, or installed where there is no application."""
    sigterm: str = ""
    """What happens at SIGTERM; empty without an application."""
    app: AppRun | None = None
    """The application that was run; `None` without one."""
    sources: tuple[SpanSource, ...] = ()
    """Spans to look at."""
