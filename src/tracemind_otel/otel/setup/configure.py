"""`configure()`: join the OpenTelemetry that is there, or set it up. The SDK is imported inside functions."""

from __future__ import annotations

import asyncio
import atexit
import functools
import importlib
import logging
import os
import sys
import time
import weakref
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, cast

from opentelemetry import metrics, trace

from ..._base.dropped import end_dropped
from ..._base.fork import in_forked_child
from ...ai.llm.pricing import PriceSource, load_prices, set_prices
from ...errors import ConfigError
from ...flows.totals import AttributeValue
from ...recording.port import Recorder
from ..current import Providers, meter, use_providers
from ..recorder import OTelRecorder
from .aggregation import OwnInstruments
from .delivery import DeliveryStats, MetricsDeliveryStats, OneShot, WatchedExporter, WatchedProcessor
from .enrichment import enrich
from .exits import LastWords, hook_tools
from .exporters import file_exporter, in_requests, metric_exporter, span_exporter
from .settings import ExportConfig, Signal, export_config, histograms_are_delta, lean_instruments_fit, sdk_is_disabled

if TYPE_CHECKING:
    from opentelemetry.sdk.metrics.export import MetricExporter, MetricReader, MetricsData
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import SpanProcessor
    from opentelemetry.sdk.trace.export import SpanExporter

log = logging.getLogger(__name__)

_INTERRUPTED_WAIT_S = 0.5
"""Seconds an export gets to return after its waits were cut short."""
_EXIT_TIMEOUT_S = 3.0
"""Seconds the end of the process waits for the last export."""


@dataclass(kw_only=True, slots=True)
class _Pipeline:
    """What `configure()` made: nothing of it belongs to anybody else, so all of it may be shut down."""

    tracer_provider: trace.TracerProvider | None = None
    meter_provider: metrics.MeterProvider | None = None
    instruments: OwnInstruments | None = None
    exporters: list[WatchedExporter] = field(default_factory=list[WatchedExporter])
    readers: list[MetricReader] = field(default_factory=list["MetricReader"])

    @property
    def ledgers(self) -> list[DeliveryStats]:
        return [exporter.ledger for exporter in self.exporters]

    def with_histograms(self, data: MetricsData) -> Iterator[MetricsData]:
        yield data if self.instruments is None else self.instruments.add_histograms(data)

    def discard(self) -> None:
        """Stop what was made before a mistake was found: its threads, its connections and its files."""
        readers = self.readers if self.meter_provider is None else []
        parts: list[Any] = [*self.providers, *readers, *self.exporters]
        for part in parts:
            part.shutdown()

    @property
    def providers(self) -> list[Any]:
        return [provider for provider in (self.tracer_provider, self.meter_provider) if provider is not None]


class Telemetry:
    """What `configure()` returns. A context manager, sync and async, that shuts down at its end.

    In a coroutine use `async with`, `aflush` and `ashutdown`: the others wait in the calling thread.
    """

    recorder: Recorder
    """The recorder to give to `run_llm_call`."""
    tracer_provider: trace.TracerProvider
    """Makes the spans: the one that was joined, or one that was made here."""
    meter_provider: metrics.MeterProvider
    """Makes the metrics, likewise."""

    def __init__(self, *, providers: Providers, pipeline: _Pipeline) -> None:
        self.tracer_provider = providers.tracer_provider or trace.get_tracer_provider()
        self.meter_provider = providers.meter_provider or metrics.get_meter_provider()
        use_providers(providers)
        self.recorder = OTelRecorder()
        self._pipeline = pipeline
        self._is_shut_down = False
        self._prepare_shutdown()
        self._reported: list[str] = []
        atexit.register(self._at_exit)

    def _prepare_shutdown(self) -> None:
        self._shutdowns = [OneShot("tracemind-shutdown", provider.shutdown) for provider in self._pipeline.providers]

    def _begin_anew(self) -> None:
        """In a forked child: threads and connections are its parent's, and stay there."""
        self._reported = []
        for exporter in self._pipeline.exporters:
            exporter.begin_anew()
        self._prepare_shutdown()

    def flush(self, timeout_s: float = 5.0) -> bool:
        """Send what is queued now, waiting at most `timeout_s` seconds.

        Returns:
            Whether all of it arrived. A provider that was joined is flushed by its owner, not here.
        """
        failed_before = self._failed()
        flushes = [OneShot("tracemind-flush", provider.force_flush) for provider in self._pipeline.providers]
        return _run_all(flushes, timeout_s) and self._failed() <= failed_before

    def shutdown(self, timeout_s: float = _EXIT_TIMEOUT_S) -> bool:
        """Send what is queued and stop, waiting about `timeout_s` seconds at most; says on stderr what was lost.

        What was joined is left alone. Shutting down twice is harmless.

        Returns:
            Whether everything arrived.
        """
        if not self._is_shut_down:
            self._is_shut_down = True
            atexit.unregister(self._at_exit)
            _forget(self)
            self._stop(timeout_s)
            self._report_losses()
        return not self._losses()

    def _stop(self, timeout_s: float) -> None:
        if not _run_all(self._shutdowns, timeout_s):
            for exporter in self._pipeline.exporters:
                exporter.shutdown()
            _run_all(self._shutdowns, _INTERRUPTED_WAIT_S)

    def _failed(self) -> int:
        return sum(ledger.failed for ledger in self._pipeline.ledgers)

    def _losses(self) -> list[str]:
        return [loss for ledger in self._pipeline.ledgers if (loss := ledger.loss())]

    def _report_losses(self) -> None:
        losses = self._losses()
        if losses and losses != self._reported:
            self._reported = losses
            # Closed or missing, there is nobody to tell; the return value still says it.
            with suppress(AttributeError, OSError, ValueError):
                sys.stderr.write(f"tracemind-otel: lost: {'; '.join(losses)}. Is a Collector running there?\n")

    def _at_exit(self) -> None:
        # Whoever has waited in vain a moment ago does not wait for long again.
        self.shutdown(_INTERRUPTED_WAIT_S if self._reported else _EXIT_TIMEOUT_S)

    async def aflush(self, timeout_s: float = 5.0) -> bool:
        """`flush`, without blocking the event loop."""
        return await asyncio.to_thread(self.flush, timeout_s)

    async def ashutdown(self, timeout_s: float = _EXIT_TIMEOUT_S) -> bool:
        """`shutdown`, without blocking the event loop."""
        return await asyncio.to_thread(self.shutdown, timeout_s)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.shutdown()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.ashutdown()


class SharedTelemetry(Telemetry):
    """The handle of a second `configure()`. What the first one made is not for this one to shut down."""

    def __init__(self, owner: Telemetry) -> None:
        self._owner = owner
        self.recorder = owner.recorder
        self.tracer_provider, self.meter_provider = owner.tracer_provider, owner.meter_provider

    def flush(self, timeout_s: float = 5.0) -> bool:
        return self._owner.flush(timeout_s)

    def shutdown(self, timeout_s: float = _EXIT_TIMEOUT_S) -> bool:
        """Flush; the set-up goes on until its owner shuts it down."""
        return self._owner.flush(timeout_s)


def _living() -> list[Telemetry]:
    """What may have something to send in this process."""
    return [*_inherited, *([] if _active is None else [_active])]


def _deliver() -> None:
    """Send what is queued before a tool ends this process; what has not arrived is said."""
    living = _living()
    flushes = [OneShot("tracemind-flush", each.force_flush) for one in living for each in one._pipeline.providers]
    _run_all(flushes, _EXIT_TIMEOUT_S)
    for telemetry in living:
        telemetry._report_losses()


def _shut_down() -> None:
    for telemetry in _living():
        telemetry.shutdown()


def _begin_anew() -> None:
    """In a forked child: it sends by what its parent has configured, and may configure something itself."""
    global _active
    if _active is not None:
        _inherited.append(_active)
        _active = None
    for telemetry in _inherited:
        telemetry._begin_anew()
    if _inherited:
        _last_words.begin_anew()
        hook_tools(_deliver)


in_forked_child(_begin_anew)


def _run_all(calls: Sequence[OneShot], timeout_s: float) -> bool:
    """Whether all of them finish in that time, side by side."""
    end_dropped()
    deadline = time.monotonic() + timeout_s
    for call in calls:
        call.tell()
    return all(call.wait(deadline - time.monotonic()) for call in calls)


_active: Telemetry | None = None
_inherited: list[Telemetry] = []
"""Configured by the processes from which this one was forked."""
_last_words = LastWords(_shut_down, _EXIT_TIMEOUT_S + _INTERRUPTED_WAIT_S)
_made_here: weakref.WeakSet[Any] = weakref.WeakSet()


def configure(
    *,
    service_name: str | None = None,
    endpoint: str | None = None,
    protocol: str | None = None,
    headers: Mapping[str, str] | None = None,
    file: str | os.PathLike[str] | None = None,
    resource: Mapping[str, AttributeValue] | None = None,
    tracer_provider: trace.TracerProvider | None = None,
    meter_provider: metrics.MeterProvider | None = None,
    metric_attributes: Sequence[str] = (),
    prices: PriceSource | None = None,
    prices_over_reply: bool = False,
) -> Telemetry:
    """Join the OpenTelemetry set-up of this process, or make one from the arguments and the `OTEL_*` variables.

    A provider that is passed, or that is the global one already, is used as it is and never replaced. Otherwise
    one is made, and made the global one. Importing the SDK takes 0.2 to 0.3 s: call this once, at the start.

    Args:
        service_name: `service.name`; the default is `OTEL_SERVICE_NAME`.
        endpoint: base URL of an OTLP receiver, like `http://localhost:4318`, to which `/v1/traces` and
            `/v1/metrics` are added for HTTP; `http://` means without TLS for gRPC too. The default is
            `OTEL_EXPORTER_OTLP_ENDPOINT`, else the exporter's own, on this machine.
        protocol: `http/protobuf` (default) or `grpc`; the default is `OTEL_EXPORTER_OTLP_PROTOCOL`.
        headers: headers of each export, for authentication; the default is `OTEL_EXPORTER_OTLP_HEADERS`.
        file: a file to which the spans are appended as OTLP JSON lines. Given alone, nothing goes to the network.
        resource: attributes of the resource, besides those of `OTEL_RESOURCE_ATTRIBUTES`.
        tracer_provider: a provider to join.
        meter_provider: a provider to join.
        metric_attributes: names of flow attributes that become attributes of the metrics.
        prices: your own prices, which win over the table: a TOML file or rows (`tracemind_otel.ai.llm.pricing`).
        prices_over_reply: let `prices` win over a cost that the reply itself names.

    Returns:
        A handle with `recorder`, `flush`, `shutdown`. It is shut down at exit by itself. A second call before
        `shutdown` returns a handle of the same set-up, whose `shutdown` only flushes, and logs what it ignored.

    Raises:
        ConfigError: an argument or an environment variable has a value that is not allowed.
    """
    global _active
    asked_for = dict(locals())
    if _active is not None:
        _warn_of_ignored(asked_for)
        return SharedTelemetry(_active)
    # Whoever configures will call: better imported here than on the event loop, by the first call.
    importlib.import_module("tracemind_otel.steps.ai_llm_call")
    _refuse_wrong_kinds(resource=resource, metric_attributes=metric_attributes)
    config = export_config(endpoint=endpoint, protocol=protocol, headers=headers, file=file)
    own_prices = None if prices is None else load_prices(prices)
    joined = Providers(
        tracer_provider=tracer_provider or _existing(trace.get_tracer_provider()),
        meter_provider=meter_provider or _existing(metrics.get_meter_provider()),
    )
    pipeline = _Pipeline() if sdk_is_disabled() else _built(joined, config, service_name, resource)
    # Only now that nothing can go wrong any more: a mistake leaves nothing behind.
    if own_prices is not None:
        set_prices(own_prices, over_reply=prices_over_reply)
    enrich(joined.tracer_provider or pipeline.tracer_provider)
    _active = Telemetry(
        providers=Providers(
            tracer_provider=joined.tracer_provider or pipeline.tracer_provider,
            meter_provider=joined.meter_provider or pipeline.meter_provider,
            instruments=pipeline.instruments,
            metric_attributes=tuple(metric_attributes),
        ),
        pipeline=pipeline,
    )
    if pipeline.providers:
        hook_tools(_deliver)
        _last_words.handle_sigterm()
    return _active


def _built(
    joined: Providers,
    config: ExportConfig,
    service_name: str | None,
    resource: Mapping[str, AttributeValue] | None,
) -> _Pipeline:
    """What is missing, made and published; after a mistake nothing of it is left."""
    pipeline = _Pipeline()
    try:
        _build(pipeline, joined, config, _resource(service_name, resource))
        _warn_of_wrong_port(config, pipeline)
    except BaseException:
        pipeline.discard()
        raise
    _publish(pipeline)
    return pipeline


def _warn_of_ignored(asked_for: Mapping[str, object]) -> None:
    """By name: a value may be a secret."""
    options = [name for name, value in asked_for.items() if value not in (None, (), False)]
    ignored = f"{', '.join(options)} of this call had no effect" if options else "this call changed nothing"
    log.warning("configure() was called before: %s. Shut the first one down to configure anew", ignored)


def _refuse_wrong_kinds(*, resource: object, metric_attributes: object) -> None:
    if resource is not None and not isinstance(resource, Mapping):
        raise ConfigError(f"resource is {type(resource).__name__}; it must be a mapping of attributes")
    if isinstance(metric_attributes, str) or not isinstance(metric_attributes, Sequence):
        raise ConfigError(f"metric_attributes is {metric_attributes!r}; it must be a list of names")


def _forget(telemetry: Telemetry) -> None:
    global _active
    if telemetry in _inherited:
        _inherited.remove(telemetry)
    if _active in (None, telemetry):
        _active = None
        use_providers(Providers())


def _existing(provider: Any) -> Any:
    """The provider, unless it is the API's placeholder or one that an earlier `configure()` made and shut down."""
    return None if _is_placeholder(provider) or provider in _made_here else provider


def _is_placeholder(provider: object) -> bool:
    return type(provider).__module__.startswith(("opentelemetry.trace", "opentelemetry.metrics"))


def _warn_of_wrong_port(config: ExportConfig, pipeline: _Pipeline) -> None:
    made: dict[Signal, object] = {"traces": pipeline.tracer_provider, "metrics": pipeline.meter_provider}
    used: list[Signal] = [
        signal for signal in config.signals if config.endpoint is not None or made[signal] is not None
    ]
    for hint in sorted({hint for signal in used if (hint := config.port_hint(signal)) is not None}):
        log.warning("4317 is usually gRPC's port and 4318 HTTP's: %s", hint)


def _resource(service_name: str | None, attributes: Mapping[str, AttributeValue] | None) -> Resource:
    from opentelemetry.sdk.resources import SERVICE_NAME, Resource

    named = {} if service_name is None else {SERVICE_NAME: service_name}
    with _sdk_refusals("OTEL_RESOURCE_ATTRIBUTES", "OTEL_SERVICE_NAME", "OTEL_EXPERIMENTAL_RESOURCE_DETECTORS"):
        return Resource.create({**(attributes or {}), **named})


@contextmanager
def _sdk_refusals(*variables: str) -> Generator[None]:
    """A block in which the SDK reads variables: what it refuses is a mistake in one of them."""
    try:
        yield
    except ConfigError:
        raise
    except Exception as error:
        named = ", ".join(sorted(name for name in os.environ if name.startswith(variables))) or ", ".join(variables)
        raise ConfigError(f"the OpenTelemetry SDK refuses the value of {named}: {error}") from error


def _build(pipeline: _Pipeline, joined: Providers, config: ExportConfig, resource: Resource) -> None:
    """Make what is missing. Somebody who made a tracer provider alone gets no metrics sent to a guessed address."""
    if joined.tracer_provider is None:
        _build_traces(pipeline, config, resource)
    elif config.file is not None:
        log.warning(
            "file %s is not written: there is a tracer provider already, and spans go where it sends them", config.file
        )
    if joined.meter_provider is not None or "metrics" not in config.signals | config.on_console:
        return
    if config.has_endpoint or joined.tracer_provider is None:
        _build_metrics(pipeline, config, resource)
    else:
        log.info("metrics go nowhere: there is a tracer provider but no meter provider, and no endpoint is set")


def _build_traces(pipeline: _Pipeline, config: ExportConfig, resource: Resource) -> None:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import ConsoleSpanExporter

    with _sdk_refusals("OTEL_TRACES_SAMPLER", "OTEL_SPAN_", "OTEL_EVENT_", "OTEL_LINK_", "OTEL_ATTRIBUTE_"):
        pipeline.tracer_provider = provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    if "traces" in config.on_console:
        provider.add_span_processor(
            _processor(pipeline, WatchedExporter(ConsoleSpanExporter, DeliveryStats("the console")))
        )
    if config.file is not None:
        # Before the receiver, since the SDK ends one after the other and a receiver may be away.
        # Absolute: a forked child opens it for itself, and may be in another directory by then.
        make = functools.partial(file_exporter, os.path.abspath(config.file))
        provider.add_span_processor(_processor(pipeline, WatchedExporter(make, DeliveryStats(config.file))))
    if "traces" in config.signals:
        send, stats = functools.partial(span_exporter, config), DeliveryStats(config.destination("traces"))
        provider.add_span_processor(_processor(pipeline, _watched(send, stats, requests=in_requests)))


def _processor(pipeline: _Pipeline, exporter: WatchedExporter) -> SpanProcessor:
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    pipeline.exporters.append(exporter)
    with _sdk_refusals("OTEL_BSP_"):
        return cast(
            "SpanProcessor", WatchedProcessor(BatchSpanProcessor(cast("SpanExporter", exporter)), exporter.ledger)
        )


def _build_metrics(pipeline: _Pipeline, config: ExportConfig, resource: Resource) -> None:
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import ConsoleMetricExporter

    with _sdk_refusals("OTEL_METRICS_EXEMPLAR_FILTER", "OTEL_METRIC_"):
        MeterProvider(
            resource=resource, shutdown_on_exit=False
        )  # a trial: a reader of no provider stops with a warning
    if "metrics" in config.on_console:
        _add_reader(pipeline, ConsoleMetricExporter, MetricsDeliveryStats("the console"))
    if "metrics" in config.signals:
        _add_reader(
            pipeline, functools.partial(metric_exporter, config), MetricsDeliveryStats(config.destination("metrics"))
        )
    pipeline.meter_provider = provider = MeterProvider(pipeline.readers, resource=resource, shutdown_on_exit=False)
    # Two readers would share the sums that ours begin anew after each reading.
    if lean_instruments_fit() and len(pipeline.readers) == 1:
        pipeline.instruments = OwnInstruments(meter(provider), delta=histograms_are_delta())


def _one(_: object) -> int:
    return 1


def _add_reader(pipeline: _Pipeline, make: Callable[[], MetricExporter], ledger: MetricsDeliveryStats) -> None:
    from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader

    exporter = _watched(make, ledger, size=_one, requests=pipeline.with_histograms)
    pipeline.exporters.append(exporter)
    with _sdk_refusals("OTEL_METRIC_EXPORT_"):
        pipeline.readers.append(PeriodicExportingMetricReader(cast("MetricExporter", exporter)))


def _watched(make: Callable[[], Any], ledger: DeliveryStats, **options: Any) -> WatchedExporter:
    with _sdk_refusals("OTEL_EXPORTER_OTLP_", "OTEL_PYTHON_EXPORTER_OTLP_"):
        return WatchedExporter(make, ledger, **options)


def _publish(pipeline: _Pipeline) -> None:
    """Make what was made the global providers, where there are none: they can be set once in a process."""
    _made_here.update(pipeline.providers)
    if pipeline.tracer_provider is not None and _is_placeholder(trace.get_tracer_provider()):
        trace.set_tracer_provider(pipeline.tracer_provider)
    if pipeline.meter_provider is not None and _is_placeholder(metrics.get_meter_provider()):
        metrics.set_meter_provider(pipeline.meter_provider)
