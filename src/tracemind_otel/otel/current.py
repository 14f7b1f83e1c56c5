"""Which providers the recorder and the decorators use: the configured ones, else the global ones."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from opentelemetry import _logs as logs
from opentelemetry import metrics, trace
from opentelemetry.environment_variables import OTEL_PYTHON_METER_PROVIDER, OTEL_PYTHON_TRACER_PROVIDER

from .._base.dropped import end_dropped_at_exit
from .._base.once import Once
from .._version import __version__
from .capture import Redact
from .content import NO_CONTENT, ContentOptions
from .instruments import SCOPE_NAME, Instruments
from .labels import NO_LABELS, MetricLabels
from .metrics import metrics_schema_url
from .semconv import SCHEMA_URL

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Providers:
    """The providers in use; `None` stands for the global one."""

    tracer_provider: trace.TracerProvider | None = None
    """The provider of spans."""
    meter_provider: metrics.MeterProvider | None = None
    """The provider of metrics."""
    instruments: Instruments | None = None
    """Own instruments of a `meter_provider` that `configure()` made."""
    redact: Redact | None = None
    """A user's function that sees captured content before it is recorded."""
    labels: MetricLabels = NO_LABELS
    """Attributes of metrics that the user named."""
    has_cost_by_kind: bool = False
    """Whether the cost counter tells input, cached input, output and fees apart."""
    has_cost_histogram: bool = False
    """Whether the cost is also in a histogram that some backends read."""
    needs_todays_metrics: bool = False
    """Whether a backend reads metrics by today's names, so that the newest ones alone would not do."""
    has_token_types: bool = False
    """Whether the token metric has cached and reasoning tokens as types."""
    content: ContentOptions = NO_CONTENT
    """What is recorded of prompts and answers."""
    logger_provider: logs.LoggerProvider | None = None
    """The provider of the events that carry content."""
    sees_sdk_calls: bool = False
    """Whether the model calls of other SDKs are seen too, so that counts of calls are complete."""
    has_workflow_calls: bool = False
    """Whether flows have the counts of calls that the conventions are about to adopt."""
    has_attempt_spans: bool = True
    """Whether the attempts of a retried call are spans below it."""


# Asking the API whether it has a provider costs more than making a placeholder's span, and so more than a decorator
# may. These variables are private: should they go, decorated functions get slower and go on being right.
_trace_api: Any = trace
_metrics_api: Any = getattr(metrics, "_internal", metrics)
_API_TELLS = (
    hasattr(_trace_api, "_TRACER_PROVIDER")
    and hasattr(_metrics_api, "_METER_PROVIDER")
    and not {OTEL_PYTHON_TRACER_PROVIDER, OTEL_PYTHON_METER_PROVIDER} & os.environ.keys()
)

_configured = Providers()
_is_configured = False
_was_configured = False
_HINTS = Once()
_overlay: Callable[[Providers], Providers] | None = None


def configured_providers() -> Providers:
    """The providers that `configure()` set, or the global ones."""
    return _configured


def is_content_captured() -> bool:
    """Whether prompts and answers are recorded."""
    return _configured.content.is_captured


def nothing_is_recorded() -> bool:
    """Whether no provider was ever set, so that every span and instrument would be a placeholder."""
    return (
        _API_TELLS
        and not _is_configured
        and _trace_api._TRACER_PROVIDER is None
        and _metrics_api._METER_PROVIDER is None
    )


def hint_at_configure() -> None:
    """Say once that nothing is recorded, where nobody has asked for anything."""
    if not _was_configured and nothing_is_recorded() and _HINTS.is_new("configure"):
        log.info(
            "Flows and model calls are not recorded yet. Add tracemind_otel.configure() where the program starts; "
            "configure(file='trace.jsonl') needs no server"
        )


@contextmanager
def overlaid(overlay: Callable[[Providers], Providers]) -> Generator[None]:
    """Let a function see, and add to, the providers in use and any that `configure()` sets meanwhile: for tests."""
    global _overlay, _was_configured
    outer, before, latest, was_configured = _overlay, _configured, _configured, _was_configured
    under: list[tuple[Providers, Providers]] = []

    def remembering(providers: Providers) -> Providers:
        # What is put back may be what the overlay has made.
        nonlocal latest
        latest = next((lower for made, lower in under if made is providers), providers)
        under.append((overlay(latest), latest))
        return under[-1][0]

    _overlay = remembering
    use_providers(before)
    try:
        yield
    finally:
        _overlay = None
        use_providers(latest)
        _overlay = outer
        _was_configured = was_configured or latest is not before


def use_providers(providers: Providers) -> None:
    """Set the providers of the recorder and the decorators."""
    global _configured, _is_configured, _was_configured
    _was_configured = True
    _configured = providers = providers if _overlay is None else _overlay(providers)
    _is_configured = (providers.tracer_provider, providers.meter_provider) != (None, None)


def tracer(provider: trace.TracerProvider | None = None) -> trace.Tracer:
    """Our tracer from a provider, else from the configured or global one."""
    end_dropped_at_exit()
    return trace.get_tracer(
        SCOPE_NAME, __version__, tracer_provider=provider or _configured.tracer_provider, schema_url=SCHEMA_URL
    )


def meter(provider: metrics.MeterProvider | None = None) -> metrics.Meter:
    """Our meter from a provider, else from the configured or global one."""
    return metrics.get_meter(
        SCOPE_NAME,
        __version__,
        meter_provider=provider or _configured.meter_provider,
        schema_url=metrics_schema_url(needs_todays=_configured.needs_todays_metrics),
    )


def instruments(provider: metrics.MeterProvider | None = None) -> Instruments:
    """The instruments of a given provider, else the configured ones, else the global ones."""
    if provider in (None, _configured.meter_provider) and _configured.instruments is not None:
        return _configured.instruments
    return meter(provider)
