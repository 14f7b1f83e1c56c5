"""What a block of code recorded, in memory, for the tests of an application.

    from tracemind_otel.testing import captured

    with captured() as telemetry:
        answer("a question")
    assert telemetry.span("chat gpt-4o-mini").attributes["gen_ai.usage.input_tokens"] == 12
    assert telemetry.total("tracemind.llm.cost") == 0.25

No thread, no socket and no test framework is involved.
"""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ..otel.current import Providers, configured_providers, use_providers
from ..otel.recorder import OTelRecorder

if TYPE_CHECKING:
    from opentelemetry.sdk.metrics.export import HistogramDataPoint, NumberDataPoint
    from opentelemetry.sdk.trace import ReadableSpan

__all__ = ["Captured", "captured"]

_SDK_DISABLED = "OTEL_SDK_DISABLED"


class Captured:
    """Spans and metrics in memory."""

    def __init__(self) -> None:
        from opentelemetry.sdk.metrics import MeterProvider
        from opentelemetry.sdk.metrics.export import InMemoryMetricReader
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import SimpleSpanProcessor
        from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
        from opentelemetry.sdk.trace.sampling import ALWAYS_ON

        self.exporter = InMemorySpanExporter()
        self.reader = InMemoryMetricReader()
        with _sdk_enabled():
            self.tracer_provider = TracerProvider(ALWAYS_ON, shutdown_on_exit=False)
            self.meter_provider = MeterProvider([self.reader], shutdown_on_exit=False)
        self.tracer_provider.add_span_processor(SimpleSpanProcessor(self.exporter))

    def recorder(self, **options: Any) -> OTelRecorder:
        """A recorder that writes here, whatever `configure()` has set."""
        return OTelRecorder(tracer_provider=self.tracer_provider, meter_provider=self.meter_provider, **options)

    @property
    def spans(self) -> list[ReadableSpan]:
        """The spans that have ended, in that order."""
        return list(self.exporter.get_finished_spans())

    def span(self, name: str) -> ReadableSpan:
        """The one span of that name.

        Raises:
            AssertionError: there is none, or there are several.
        """
        found = [span for span in self.spans if span.name == name]
        if len(found) != 1:
            raise AssertionError(f"{len(found)} spans named {name!r} among {[span.name for span in self.spans]}")
        return found[0]

    def as_dicts(self) -> list[dict[str, Any]]:
        """The spans as plain data, in the order of their start, without what differs from run to run: ids and times."""
        spans = sorted(self.spans, key=lambda span: (span.start_time or 0, -(span.end_time or 0)))
        names = {span.context.span_id: span.name for span in spans if span.context}
        return [
            {
                "name": span.name,
                "parent": names.get(span.parent.span_id) if span.parent else None,
                "status": span.status.status_code.name,
                "attributes": dict(sorted((span.attributes or {}).items())),
                "events": [
                    {"name": event.name, "attributes": dict(sorted((event.attributes or {}).items()))}
                    for event in span.events
                ],
            }
            for span in spans
        ]

    def points(self, metric: str) -> list[NumberDataPoint | HistogramDataPoint]:
        """The data points of one metric; none when it was never recorded."""
        from opentelemetry.sdk.metrics.export import HistogramDataPoint, NumberDataPoint

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
        from opentelemetry.sdk.metrics.export import NumberDataPoint

        return sum(p.value if isinstance(p, NumberDataPoint) else p.sum for p in self.points(metric))

    def close(self) -> None:
        """Shut the providers down."""
        self.tracer_provider.shutdown()
        self.meter_provider.shutdown()


@contextmanager
def captured() -> Generator[Captured]:
    """Catch what recorders and decorators write in the block, in place of what `configure()` has set."""
    capture, before = Captured(), configured_providers()
    use_providers(Providers(tracer_provider=capture.tracer_provider, meter_provider=capture.meter_provider))
    try:
        yield capture
    finally:
        use_providers(before)
        capture.close()


@contextmanager
def _sdk_enabled() -> Generator[None]:
    """Let the SDK make providers that record where `OTEL_SDK_DISABLED` keeps tests from sending."""
    value = os.environ.pop(_SDK_DISABLED, None)
    try:
        yield
    finally:
        if value is not None:
            os.environ[_SDK_DISABLED] = value
