"""What several test modules need."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import HistogramDataPoint, InMemoryMetricReader, NumberDataPoint
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from tracemind_otel import OTelRecorder, step
from tracemind_otel.otel.current import Providers, configured_providers, use_providers

Point = NumberDataPoint | HistogramDataPoint


@dataclass
class Captured:
    """Spans and metrics of one test, in memory."""

    exporter: InMemorySpanExporter = field(default_factory=InMemorySpanExporter)
    reader: InMemoryMetricReader = field(default_factory=InMemoryMetricReader)

    def __post_init__(self) -> None:
        self.tracer_provider = TracerProvider(shutdown_on_exit=False)
        self.tracer_provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.meter_provider = MeterProvider([self.reader], shutdown_on_exit=False)

    def recorder(self, **options: Any) -> OTelRecorder:
        """A recorder that writes here."""
        return OTelRecorder(tracer_provider=self.tracer_provider, meter_provider=self.meter_provider, **options)

    @property
    def spans(self) -> list[ReadableSpan]:
        """The spans that have ended, in that order."""
        return list(self.exporter.get_finished_spans())

    def span(self, name: str) -> ReadableSpan:
        """The one span of that name."""
        found = [span for span in self.spans if span.name == name]
        assert len(found) == 1, f"{len(found)} spans named {name!r} among {[span.name for span in self.spans]}"
        return found[0]

    def points(self, metric: str) -> list[Point]:
        """The data points of one metric; none when it was never recorded."""
        data = self.reader.get_metrics_data()
        if data is None:
            return []
        return [
            point
            for resource in data.resource_metrics
            for scope in resource.scope_metrics
            for found in scope.metrics
            if found.name == metric
            for point in found.data.data_points
            if isinstance(point, NumberDataPoint | HistogramDataPoint)
        ]

    def total(self, metric: str) -> float:
        """The sum of a counter, or of a histogram, over all attributes."""
        return sum(p.value if isinstance(p, NumberDataPoint) else p.sum for p in self.points(metric))

    def close(self) -> None:
        """Shut the providers down."""
        self.tracer_provider.shutdown()
        self.meter_provider.shutdown()


@contextmanager
def captured() -> Generator[Captured]:
    """Catch what recorders and decorators write, in memory."""
    capture, before = Captured(), configured_providers()
    use_providers(Providers(tracer_provider=capture.tracer_provider, meter_provider=capture.meter_provider))
    try:
        yield capture
    finally:
        use_providers(before)
        capture.close()


def attributes(span: ReadableSpan) -> Mapping[str, Any]:
    """A span's attributes."""
    return span.attributes or {}


def events(span: ReadableSpan, name: str) -> list[Mapping[str, Any]]:
    """The attributes of a span's events of one name, in order."""
    return [event.attributes or {} for event in span.events if event.name == name]


NEXT_CALL = "the next call"


def next_call() -> None:
    """A call like any other; what was closed or dropped before has ended when it begins."""
    step(name=NEXT_CALL)(lambda: None)()
