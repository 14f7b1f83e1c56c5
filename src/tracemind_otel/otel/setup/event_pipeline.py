"""The logs signal, for the events that carry prompts and answers. Loaded only where content is asked for in events.

The SDK's part for it takes time to import, which `configure()` saves everybody else.
"""

from __future__ import annotations

from typing import Any, cast

from opentelemetry.sdk._logs import LoggerProvider, LogRecordProcessor, ReadableLogRecord, ReadWriteLogRecord
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor, ConsoleLogRecordExporter
from opentelemetry.sdk.resources import Resource

from ..export.delivery_stats import DeliveryStats, EventDeliveryStats
from ..export.otlp_logs import log_item
from .delivery import Destination, WatchedExporter
from .receivers import outbox
from .settings import ExportConfig
from .spool_processor import Spooling


class SpoolEventProcessor(Spooling, LogRecordProcessor):
    """Encodes each event, and hands it over."""

    def on_emit(self, log_record: ReadWriteLogRecord) -> None:
        try:
            self.keep(log_item(cast("ReadableLogRecord", log_record)))
        except Exception:
            self.fail("on_emit")


class CountingEventProcessor(BatchLogRecordProcessor):
    """Counts the events on their way to an exporter."""

    def __init__(self, exporter: Any, stats: DeliveryStats) -> None:
        super().__init__(exporter)
        self._delivery_stats = stats

    def on_emit(self, log_record: ReadWriteLogRecord) -> None:
        self._delivery_stats.accept(1)
        super().on_emit(log_record)


def event_provider(config: ExportConfig, resource: Resource) -> tuple[LoggerProvider, list[Destination]]:
    """Make the provider of events, and name where they go."""
    provider = LoggerProvider(resource, shutdown_on_exit=False)
    destinations = list[Destination]()
    if "logs" in config.on_console:
        stats = EventDeliveryStats("the console")
        console = WatchedExporter(ConsoleLogRecordExporter, stats)
        provider.add_log_record_processor(CountingEventProcessor(console, stats))
        destinations.append(console)
    if "logs" in config.signals:
        processor = SpoolEventProcessor(outbox(config, "logs"))
        provider.add_log_record_processor(processor)
        destinations.append(processor)
    return provider, destinations
