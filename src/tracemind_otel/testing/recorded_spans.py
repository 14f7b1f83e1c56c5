"""The spans and metrics of one test as plain data: the fixture `llm_spans`."""

from __future__ import annotations

import json
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypedDict, cast, overload

import pytest
from opentelemetry.context import Context

from .._base.dropped import end_dropped
from ..otel import semconv
from ..otel.current import Providers, meter, overlaid
from ..otel.instruments import Attributes, Counter, Histogram, Instruments
from .capturing import Captured

if TYPE_CHECKING:
    from opentelemetry.sdk.metrics.export import Metric
    from opentelemetry.sdk.trace import ReadableSpan

    from .span_watch import SpanRelay, SpanWatch

PlainValue = str | bool | int | float | list[str] | list[bool] | list[int] | list[float]
"""A value of an attribute."""


class EventDict(TypedDict):
    """An event of a span."""

    name: str
    attributes: dict[str, PlainValue]


class SpanDict(TypedDict):
    """A span, without what differs from run to run."""

    name: str
    id: str
    """`s1` for the first span of the test, and so on."""
    parent: str | None
    """The id of the parent; `None` for a root, `outside` for a parent that is no span of the test."""
    trace: str
    """`t1` for the first trace of the test, and so on."""
    kind: str
    start: int
    """The tick of the test's clock, which each start and each end of a span moves by one."""
    end: int | None
    """The tick of the end; `None` for a span that has not ended."""
    status: str
    """`UNSET`, `OK` or `ERROR`."""
    attributes: dict[str, PlainValue]
    events: list[EventDict]


class PointDict(TypedDict):
    """A data point of a metric."""

    attributes: dict[str, PlainValue]
    count: int
    """The number of measurements of a histogram; 1 for a counter."""
    sum: float
    """The sum; 0.0 for a duration, since no time passes on the test's clock."""


class MetricDict(TypedDict):
    """A metric."""

    name: str
    unit: str
    points: list[PointDict]


_MEASURED = {
    semconv.TRACEMIND_RETRY_DELAY_S,
    semconv.GEN_AI_RESPONSE_TIME_TO_FIRST_CHUNK,
}
"""Attributes that hold a duration, which is 0.0 on the test's clock."""


class LLMSpans(Sequence[SpanDict]):
    """The spans of a test, in the order of their start, and its metrics. It shows what was recorded so far.

    Ids are short, and the clock counts the starts and ends of spans: two runs compare equal where they did the same.
    Nothing is taken away from what a `configure()` of the test set up.
    """

    def __init__(self) -> None:
        from .span_watch import SpanWatch

        self.captured = Captured()
        """The same as the SDK's spans and data points, with real ids and times."""
        self._watch = SpanWatch()
        self._relays: list[tuple[SpanRelay, SpanWatch | None]] = []
        self._instruments: Instruments = meter(self.captured.meter_provider)

    # --- Spans ---

    @overload
    def __getitem__(self, index: int) -> SpanDict: ...
    @overload
    def __getitem__(self, index: slice) -> list[SpanDict]: ...
    def __getitem__(self, index: int | slice) -> SpanDict | list[SpanDict]:
        return self.spans[index]

    def __len__(self) -> int:
        return len(self._watch.started)

    def __iter__(self) -> Iterator[SpanDict]:
        return iter(self.spans)

    def __repr__(self) -> str:
        return f"LLMSpans({self.names})"

    @property
    def spans(self) -> list[SpanDict]:
        """The spans, in the order of their start."""
        ids: dict[int, str] = {}
        traces: dict[int, str] = {}
        shown: list[SpanDict] = []
        for span_id, (start, span) in list(self._watch.started.items()):
            ids[span_id] = f"s{len(ids) + 1}"
            context = span.context
            trace_id = 0 if context is None else context.trace_id
            traces.setdefault(trace_id, f"t{len(traces) + 1}")
            parent = None if span.parent is None else ids.get(span.parent.span_id, "outside")
            end, span = self._watch.ended.get(span_id, (None, span))
            shown.append(_span_dict(span, ids[span_id], parent, traces[trace_id], start, end))
        return shown

    @property
    def names(self) -> list[str]:
        """The names of the spans, in the order of their start."""
        return [span["name"] for span in self.spans]

    def span(self, name: str) -> SpanDict:
        """The one span of that name.

        Raises:
            AssertionError: there is none, or there are several.
        """
        found = [span for span in self.spans if span["name"] == name]
        if len(found) != 1:
            raise AssertionError(f"{len(found)} spans are named {name!r}; the names are {self.names}")
        return found[0]

    def unended(self) -> list[str]:
        """The names of the spans that have not ended."""
        end_dropped()
        return [span.name for span in self._watch.unended()]

    # --- Metrics ---

    @property
    def metrics(self) -> list[MetricDict]:
        """The metrics, sorted by name; their points by attributes."""
        data = self.captured.reader.get_metrics_data()
        found = [] if data is None else [m for r in data.resource_metrics for s in r.scope_metrics for m in s.metrics]
        return [
            {"name": metric.name, "unit": metric.unit or "", "points": _points(metric)}
            for metric in sorted(found, key=lambda metric: metric.name)
        ]

    def total(self, metric: str) -> float:
        """The sum of a metric over all attributes; 0.0 for one that was never recorded."""
        return sum(point["sum"] for each in self.metrics if each["name"] == metric for point in each["points"])

    def as_dict(self) -> dict[str, Any]:
        """Spans and metrics, for a snapshot."""
        return {"spans": self.spans, "metrics": self.metrics}

    def as_json(self) -> str:
        """`as_dict` as indented JSON, the same for the same run."""
        return json.dumps(self.as_dict(), indent=1, ensure_ascii=False) + "\n"

    # --- Recording ---

    @contextmanager
    def recording(self) -> Generator[None]:
        """Record here what recorders and decorators write, whatever `configure()` sets meanwhile."""
        try:
            with overlaid(self._joined):
                yield
        finally:
            for relay, before in reversed(self._relays):
                relay.watch = before
            self.captured.close()

    def _joined(self, providers: Providers) -> Providers:
        from .span_watch import relay_of

        tracer_provider = providers.tracer_provider or self.captured.tracer_provider
        relay = relay_of(tracer_provider)
        if relay is not None:
            self._relays.append((relay, relay.watch))
            relay.watch = self._watch
        return replace(
            providers,
            tracer_provider=tracer_provider,
            meter_provider=providers.meter_provider or self.captured.meter_provider,
            instruments=self._joined_instruments(providers),
        )

    def _joined_instruments(self, providers: Providers) -> Instruments:
        theirs: Instruments | None = providers.instruments
        if theirs is None and providers.meter_provider is not None:
            theirs = meter(providers.meter_provider)
        return self._instruments if theirs is None else _BothInstruments(theirs, self._instruments)


class _BothInstruments:
    """Instruments that write to two places."""

    def __init__(self, *places: Instruments) -> None:
        self._places = places

    def create_counter(self, name: str, unit: str = "", description: str = "") -> Counter:
        return _BothCounters([place.create_counter(name, unit, description) for place in self._places])

    def create_histogram(
        self,
        name: str,
        unit: str = "",
        description: str = "",
        *,
        explicit_bucket_boundaries_advisory: Sequence[float],
    ) -> Histogram:
        boundaries = explicit_bucket_boundaries_advisory
        return _BothHistograms(
            [
                place.create_histogram(name, unit, description, explicit_bucket_boundaries_advisory=boundaries)
                for place in self._places
            ]
        )


class _BothCounters:
    def __init__(self, counters: Sequence[Counter]) -> None:
        self._counters = counters

    def add(self, amount: int | float, attributes: Attributes, context: Context) -> None:
        for counter in self._counters:
            counter.add(amount, attributes, context)


class _BothHistograms:
    def __init__(self, histograms: Sequence[Histogram]) -> None:
        self._histograms = histograms

    def record(self, amount: int | float, attributes: Attributes, context: Context) -> None:
        for histogram in self._histograms:
            histogram.record(amount, attributes, context)


def _span_dict(
    span: ReadableSpan, short_id: str, parent: str | None, trace: str, start: int, end: int | None
) -> SpanDict:
    return {
        "name": span.name,
        "id": short_id,
        "parent": parent,
        "trace": trace,
        "kind": span.kind.name,
        "start": start,
        "end": end,
        "status": span.status.status_code.name,
        "attributes": _plain(span.attributes),
        "events": [{"name": event.name, "attributes": _plain(event.attributes)} for event in span.events],
    }


def _points(metric: Metric) -> list[PointDict]:
    from opentelemetry.sdk.metrics.export import HistogramDataPoint, NumberDataPoint

    points: list[PointDict] = []
    for point in metric.data.data_points:
        attributes = _plain(point.attributes)
        if isinstance(point, NumberDataPoint):
            points.append({"attributes": attributes, "count": 1, "sum": point.value})
        elif isinstance(point, HistogramDataPoint):
            total = 0.0 if metric.unit == "s" else point.sum
            points.append({"attributes": attributes, "count": point.count, "sum": total})
    return sorted(points, key=lambda point: json.dumps(point["attributes"]))


def _plain(attributes: Mapping[str, Any] | None) -> dict[str, PlainValue]:
    """Attributes by name, without measured times and without the places of an exception, which differ by machine."""
    return {
        name: 0.0 if name in _MEASURED else _plain_value(value)
        for name, value in sorted((attributes or {}).items())
        if name != semconv.EXCEPTION_STACKTRACE
    }


def _plain_value(value: object) -> PlainValue:
    return cast("PlainValue", list(cast("tuple[str, ...]", value)) if isinstance(value, tuple) else value)


class _EndsAreChecked:
    """Fails a test that has passed although one of its spans has not ended."""

    def __init__(self, item: pytest.Item, spans: LLMSpans) -> None:
        self._item, self._spans = item, spans
        self.has_passed = False

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Generator[None]:
        if item is not self._item:
            return (yield)
        around = self._spans.unended()  # of fixtures that end after the test
        result = yield
        _fail_for([name for name in self._spans.unended() if name not in around])
        self.has_passed = True
        return result


def _fail_for(names: Sequence[str]) -> None:
    if names:
        spans = "1 span" if len(names) == 1 else f"{len(names)} spans"
        pytest.fail(
            f"{spans} of the test never ended: {', '.join(names)}. Read the stream or generator to its end, or close "
            "it, for instance with `async with`; await the tasks that the test has started",
            pytrace=False,
        )


@contextmanager
def recorded_spans(item: pytest.Item, plugins: pytest.PytestPluginManager) -> Generator[LLMSpans]:
    """The spans of a test, which fails where one of them never ends."""
    spans = LLMSpans()
    check = _EndsAreChecked(item, spans)
    plugins.register(check)
    try:
        with spans.recording():
            yield spans
            unended = spans.unended()
    finally:
        plugins.unregister(check)
    if check.has_passed:
        _fail_for(unended)
