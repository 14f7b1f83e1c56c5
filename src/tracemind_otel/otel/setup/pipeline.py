"""Builds what `configure()` finds missing: providers, processors, readers and exporters.

Only `configure()` imports this module, because it needs the SDK.
"""

from __future__ import annotations

import logging
import os
import weakref
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from opentelemetry import _logs as logs
from opentelemetry import metrics, trace
from opentelemetry.sdk.metrics import Counter, Histogram, MeterProvider, ObservableCounter
from opentelemetry.sdk.metrics.export import AggregationTemporality, ConsoleMetricExporter
from opentelemetry.sdk.metrics.view import ExponentialBucketHistogramAggregation
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace.export import ConsoleSpanExporter

from ...errors import ConfigError
from ...flows.totals import AttributeValue
from ..current import Providers
from ..export.delivery_stats import DeliveryStats, MetricsDeliveryStats
from ..sanitize import sanitized_attributes
from .call_spans import CallTracerProvider
from .delivery import WatchedExporter
from .exporters import file_exporter, mended_spans, point_count
from .metric_reader import OwnReader
from .preset_spans import PresetSpans
from .processors import AtFlowEnd, CountingProcessor, FlowIds, FlushAtFlowEnd
from .receivers import metric_exporter, outbox, sums_directory
from .settings import ExportConfig, seconds_in, variable
from .span_prices import SpanPrices
from .spool_processor import AsSent, SpoolProcessor
from .telemetry import Pipeline, is_placeholder

if TYPE_CHECKING:
    from ..backends.lookup import Presets

log = logging.getLogger(__name__)

_OTLP_METRICS = "OTEL_EXPORTER_OTLP_METRICS"
_DELTA: Mapping[str, tuple[type, ...]] = {
    "delta": (Counter, Histogram, ObservableCounter),
    "lowmemory": (Counter, Histogram),
}
"""The instruments that have delta temporality under each preference (OTLP exporter specification)."""


def build(
    joined: Providers,
    config: ExportConfig,
    service_name: str | None,
    attributes: Mapping[str, AttributeValue] | None,
    *,
    has_events: bool = False,
) -> Pipeline:
    """Make what is missing, and make it global. If an argument or a variable is wrong, nothing of it is left.

    If a tracer provider was joined, metrics are not sent to the default address, where perhaps nothing listens.
    """
    pipeline = Pipeline()
    try:
        resource = _resource(service_name, attributes, config)
        if joined.tracer_provider is None:
            _add_traces(pipeline, config, resource)
        if joined.meter_provider is None and "metrics" in config.signals | config.on_console:
            if config.has_endpoint or joined.tracer_provider is None:
                _add_metrics(pipeline, config, resource)
            else:
                log.info("metrics go nowhere: there is a tracer provider but no meter provider, and no endpoint is set")
        if has_events and joined.logger_provider is None:
            _add_events(pipeline, config, resource)
        _warn(pipeline, config)
    except BaseException:
        pipeline.discard()
        raise
    _publish(pipeline)
    _enrich(joined.tracer_provider or pipeline.providers["traces"], config, pipeline.readers)
    return pipeline


def _resource(
    service_name: str | None, attributes: Mapping[str, AttributeValue] | None, config: ExportConfig
) -> Resource:
    named = {} if service_name is None else {SERVICE_NAME: service_name}
    with _rejections_by_sdk("OTEL_RESOURCE_ATTRIBUTES", "OTEL_SERVICE_NAME", "OTEL_EXPERIMENTAL_RESOURCE_DETECTORS"):
        resource = Resource.create({**(attributes or {}), **named})
        told = () if config.presets is None else config.presets.resource
        added = {name: resource.attributes[SERVICE_NAME] for name in told if name not in resource.attributes}
        return Resource(sanitized_attributes({**resource.attributes, **added}), resource.schema_url)


@contextmanager
def _rejections_by_sdk(*variables: str) -> Generator[None]:
    """A block in which the SDK reads variables. What it raises is reported as a wrong value of one of them."""
    try:
        yield
    except ConfigError:
        raise
    except Exception as error:
        named = ", ".join(sorted(name for name in os.environ if name.startswith(variables))) or ", ".join(variables)
        raise ConfigError(f"the OpenTelemetry SDK rejects the value of {named}: {error}") from error


def _warn(pipeline: Pipeline, config: ExportConfig) -> None:
    """Warn of options that have no effect, and of a port that is usual for the other protocol."""
    if "traces" not in pipeline.providers and config.file is not None:
        log.warning(
            "file %s is not written: there is a tracer provider already, and spans go where it sends them. "
            "Call configure() before that provider is set",
            config.file,
        )
    if "traces" not in pipeline.providers and config.presets is not None and (needs := config.presets.export_needs):
        log.warning(
            "preset %s needs more than attributes: there is a tracer provider already, so do it there: %s",
            ", ".join(backend.name for backend in config.presets.backends),
            "; ".join(needs),
        )
    if "traces" in pipeline.providers and os.getenv("OTEL_CONFIG_FILE"):
        log.warning(
            "OTEL_CONFIG_FILE is set, but nothing has applied it, and configure() does not read it. Install "
            "opentelemetry-distro and opentelemetry-configuration, and run the program by opentelemetry-instrument"
        )
    used = config.signals if config.endpoint is not None else config.signals & pipeline.providers.keys()
    for hint in sorted({hint for signal in used if (hint := config.port_hint(signal)) is not None}):
        log.warning("4317 is usually gRPC's port and 4318 HTTP's: %s", hint)


@dataclass(frozen=True, slots=True)
class _Enriched:
    """A provider that has our processors."""

    provider: weakref.ref[Any]
    """The provider. It is not a key of a mapping, because Logfire's cannot be hashed."""
    presets: PresetSpans = field(default_factory=PresetSpans)
    """Adds what presets add; set by each `configure()`."""
    at_flow_end: AtFlowEnd = field(default_factory=AtFlowEnd)
    """Exports the metrics; set by each `configure()`."""


_enriched: list[_Enriched] = []


def _enrich(provider: Any, config: ExportConfig, readers: Sequence[OwnReader]) -> None:
    if not hasattr(provider, "add_span_processor"):
        return
    _enriched[:] = [each for each in _enriched if each.provider() is not None]
    enriched = next((each for each in _enriched if each.provider() is provider), None)
    if enriched is None:
        enriched = _Enriched(weakref.ref(provider))
        _enriched.append(enriched)
        add = provider.add_own_processor if isinstance(provider, CallTracerProvider) else provider.add_span_processor
        for processor in (FlowIds(), enriched.presets, SpanPrices(), enriched.at_flow_end):
            add(processor)
    enriched.at_flow_end.action = partial(_export_soon, readers)
    enriched.presets.add = None
    if config.presets is not None:
        from .preset_attributes import PresetAttributes

        enriched.presets.add = PresetAttributes(config.presets.backends)


def _export_soon(readers: Sequence[OwnReader]) -> None:
    for reader in readers:
        reader.export_soon()


def _publish(pipeline: Pipeline) -> None:
    """Make the providers global where there are none. The API allows this once in a process."""
    if "traces" in pipeline.providers and is_placeholder(trace.get_tracer_provider()):
        trace.set_tracer_provider(pipeline.providers["traces"])
    if "metrics" in pipeline.providers and is_placeholder(metrics.get_meter_provider()):
        metrics.set_meter_provider(pipeline.providers["metrics"])
    if "logs" in pipeline.providers and is_placeholder(logs.get_logger_provider()):
        logs.set_logger_provider(pipeline.providers["logs"])


# --- Traces ---


def _add_traces(pipeline: Pipeline, config: ExportConfig, resource: Resource) -> None:
    with _rejections_by_sdk("OTEL_TRACES_SAMPLER", "OTEL_SPAN_", "OTEL_EVENT_", "OTEL_LINK_", "OTEL_ATTRIBUTE_"):
        pipeline.providers["traces"] = provider = CallTracerProvider(resource)

    def add(make: Callable[[], Any], stats: DeliveryStats) -> CountingProcessor:
        exporter = _watched(pipeline, make, stats, mend=mended_spans)
        with _rejections_by_sdk("OTEL_BSP_"):
            processor = CountingProcessor(exporter, stats)
        provider.add_own_processor(processor)
        return processor

    if "traces" in config.on_console:
        add(ConsoleSpanExporter, DeliveryStats("the console"))
    if config.file is not None:
        # Before the receiver, since the SDK ends one after the other and a receiver may be away.
        # Absolute: a forked child opens it for itself, and may be in another directory by then.
        file = add(partial(file_exporter, os.path.abspath(config.file)), DeliveryStats(config.file))
        provider.add_own_processor(FlushAtFlowEnd(file.force_flush))
    if "traces" in config.signals:
        processor = SpoolProcessor(outbox(config, "traces"), _as_sent(config.presets))
        pipeline.destinations.append(processor)
        provider.add_own_processor(processor)


def _as_sent(presets: Presets | None) -> AsSent | None:
    """How spans differ for the presets' address. No other destination sees what presets add or leave out there."""
    if presets is None:
        return None
    from .preset_attributes import as_sent

    return as_sent(presets)


def _watched(pipeline: Pipeline, *arguments: Any, **options: Any) -> WatchedExporter:
    """An exporter that belongs to the pipeline."""
    exporter = WatchedExporter(*arguments, **options)
    pipeline.destinations.append(exporter)
    return exporter


# --- Events ---


def _add_events(pipeline: Pipeline, config: ExportConfig, resource: Resource) -> None:
    from .event_pipeline import event_provider

    with _rejections_by_sdk("OTEL_LOGRECORD_", "OTEL_ATTRIBUTE_", "OTEL_BLRP_"):
        provider, destinations = event_provider(config, resource)
    pipeline.providers["logs"] = provider
    pipeline.destinations += destinations
    if not {"logs"} & (config.signals | config.on_console):
        log.warning("events with prompts and answers go nowhere: pass an endpoint, or capture_content='SPAN_ONLY'")


# --- Metrics ---


def _temporality(config: ExportConfig) -> str:
    """The preference of the environment, which wins, else what the backend of a preset needs."""
    name = f"{_OTLP_METRICS}_TEMPORALITY_PREFERENCE"
    told, needed = variable(name), None if config.presets is None else config.presets.temporality
    if told and needed is not None and (told in _DELTA) != (needed == "delta"):
        log.warning(
            "%s is %s, but the preset's backend needs %s metrics; unset it, or convert in a Collector",
            name,
            told,
            needed,
        )
    return told or needed or ""


def _add_metrics(pipeline: Pipeline, config: ExportConfig, resource: Resource) -> None:
    interval_s = seconds_in("OTEL_METRIC_EXPORT_INTERVAL", 15_000)
    timeout_s = seconds_in("OTEL_METRIC_EXPORT_TIMEOUT", 30_000)
    if "metrics" in config.on_console:
        console = _watched(pipeline, ConsoleMetricExporter, MetricsDeliveryStats("the console"), count=point_count)
        pipeline.readers.append(OwnReader(console, resource, interval_s, timeout_s))
    is_exponential = variable(f"{_OTLP_METRICS}_DEFAULT_HISTOGRAM_AGGREGATION") == "base2_exponential_bucket_histogram"
    if "metrics" in config.signals:
        preference = _temporality(config)
        delta = dict.fromkeys(_DELTA.get(preference, ()), AggregationTemporality.DELTA)
        exporter = metric_exporter(config, is_delta=bool(delta))
        pipeline.destinations.append(exporter)
        aggregation: dict[type, Any] = {Histogram: ExponentialBucketHistogramAggregation()} if is_exponential else {}
        sums = sums_directory(config)
        reader = OwnReader(exporter, resource, interval_s, timeout_s, delta, aggregation, sums_in=sums)
        pipeline.readers.append(reader)
    with _rejections_by_sdk("OTEL_METRICS_EXEMPLAR_FILTER", "OTEL_METRIC_"):
        pipeline.providers["metrics"] = MeterProvider(pipeline.readers, resource=resource, shutdown_on_exit=False)
    # Two readers would share the sums of our instruments, which begin anew after each export in delta temporality.
    # Other exemplars and exponential histograms only the SDK has.
    has_usual_exemplars = variable("OTEL_METRICS_EXEMPLAR_FILTER") in ("", "trace_based")
    if has_usual_exemplars and not is_exponential and len(pipeline.readers) == 1:
        pipeline.instruments = pipeline.readers[0].instruments
    for reader in pipeline.readers:
        reader.start()
