"""The measurements of one instrument with one set of attributes, as a sum or as a distribution.

Only `configure()` imports this module, because it needs the SDK.
"""

from __future__ import annotations

from math import inf

from opentelemetry.sdk.metrics import Exemplar
from opentelemetry.sdk.metrics.export import HistogramDataPoint, NumberDataPoint
from opentelemetry.trace import SpanContext

from ..export.kept_sums import Slot
from ..instruments import Attributes


class Total:
    """The sum of the measurements with one set of attributes."""

    __slots__ = ("attributes", "is_idle", "slot", "started_ns", "value")

    def __init__(self, attributes: Attributes, started_ns: int) -> None:
        self.attributes = attributes
        self.restart(started_ns)

    def restart(self, started_ns: int) -> None:
        """Begin an interval."""
        self.started_ns = started_ns
        self.is_idle = True
        self.slot: Slot | None = None
        self.value: int | float = 0

    def point(self, time_ns: int) -> NumberDataPoint:
        return NumberDataPoint(self.attributes, self.started_ns, time_ns, self.value)


class Distribution:
    """The distribution of the measurements with one set of attributes."""

    __slots__ = (
        "attributes",
        "boundaries",
        "bucket_counts",
        "exemplars",
        "maximum",
        "minimum",
        "slot",
        "started_ns",
        "total",
    )

    def __init__(self, boundaries: tuple[float, ...], attributes: Attributes, started_ns: int) -> None:
        self.boundaries = boundaries
        self.attributes = attributes
        self.restart(started_ns)

    def restart(self, started_ns: int) -> None:
        """Begin an interval."""
        self.started_ns = started_ns
        self.slot: Slot | None = None
        self.bucket_counts = [0] * (len(self.boundaries) + 1)
        self.total: int | float = 0
        self.minimum, self.maximum = inf, -inf
        # For each bucket its last measurement in a sampled span, with the time.
        self.exemplars: dict[int, tuple[int | float, int, SpanContext]] = {}

    @property
    def is_idle(self) -> bool:
        """Whether nothing was measured in this interval."""
        return not any(self.bucket_counts)

    def point(self, time_ns: int) -> HistogramDataPoint:
        """The distribution as it is exported, with the exemplars since the last export."""
        exemplars, self.exemplars = sorted(self.exemplars.items()), {}
        left_out: Attributes | None = {} if self.attributes else None  # as in the SDK
        return HistogramDataPoint(
            attributes=self.attributes,
            start_time_unix_nano=self.started_ns,
            time_unix_nano=time_ns,
            count=sum(self.bucket_counts),
            sum=self.total,
            bucket_counts=tuple(self.bucket_counts),
            explicit_bounds=self.boundaries,
            min=self.minimum,
            max=self.maximum,
            exemplars=[
                Exemplar(left_out, amount, measured_ns, span.span_id, span.trace_id)
                for _, (amount, measured_ns, span) in exemplars
            ],
        )
