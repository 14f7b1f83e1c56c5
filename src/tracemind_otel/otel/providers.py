"""Which providers the recorder and the decorators use: the configured ones, else the global ones."""

from __future__ import annotations

from dataclasses import dataclass

from opentelemetry import metrics, trace

from .._version import __version__
from .instruments import SCOPE_NAME, Instruments, MeterInstruments
from .semconv import SCHEMA_URL


@dataclass(frozen=True, kw_only=True, slots=True)
class Providers:
    """A pair of providers; `None` stands for the global one."""

    tracer_provider: trace.TracerProvider | None = None
    """Makes the spans."""
    meter_provider: metrics.MeterProvider | None = None
    """Makes the metrics."""
    instruments: Instruments | None = None
    """Lean instruments of the pipeline behind `meter_provider`, where it is one that `configure()` made."""
    metric_attributes: tuple[str, ...] = ()
    """Names of flow attributes that become attributes of the metrics."""


_configured = Providers()


def configured_providers() -> Providers:
    """What `configure()` set, or global providers."""
    return _configured


def use_providers(providers: Providers) -> None:
    """Make these the ones that the recorder and the decorators use."""
    global _configured
    _configured = providers


def tracer(provider: trace.TracerProvider | None = None) -> trace.Tracer:
    """Our tracer from a provider, else from the configured or global one."""
    return trace.get_tracer(
        SCOPE_NAME, __version__, tracer_provider=provider or _configured.tracer_provider, schema_url=SCHEMA_URL
    )


def meter(provider: metrics.MeterProvider | None = None) -> metrics.Meter:
    """Our meter from a provider, else from the configured or global one."""
    return metrics.get_meter(
        SCOPE_NAME, __version__, meter_provider=provider or _configured.meter_provider, schema_url=SCHEMA_URL
    )


def instruments(provider: metrics.MeterProvider | None = None) -> Instruments:
    """What to write metrics to: a given provider's instruments, else the configured lean ones, else the global ones."""
    if provider in (None, _configured.meter_provider) and _configured.instruments is not None:
        return _configured.instruments
    return MeterInstruments(meter(provider))
