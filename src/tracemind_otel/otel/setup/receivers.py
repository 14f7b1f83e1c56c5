"""The way of encoded telemetry to its receiver, as the configuration has it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..export.answers import Transport
from ..export.delivery_stats import MetricsDeliveryStats, SpoolStats
from ..export.metric_exporter import OtlpMetricExporter, SpooledMetricExporter
from ..export.otlp_metrics import metric_items
from ..export.otlp_options import OtlpOptions, batch_options, otlp_options
from ..export.otlp_variables import Signal
from ..export.sender import Sender
from ..export.spool import MemorySpool
from ..export.transports import make_transport
from .settings import ExportConfig, syncs_spool

if TYPE_CHECKING:
    from ..export.disk_spool import DiskSpool

_ITEMS = {"traces": "spans", "metrics": "metric points", "logs": "events"}


@dataclass(frozen=True, slots=True)
class Outbox:
    """Where encoded items wait, and what sends them."""

    spool: MemorySpool | DiskSpool
    """Where they wait."""
    sender: Sender
    """Sends them."""


def outbox(config: ExportConfig, signal: Signal) -> Outbox:
    """Make the outbox of a signal, and start its thread. Items wait on disk if the configuration says so.

    Raises:
        ConfigError: a variable has a value that is not allowed.
    """
    transport, options = receiver_transport(config, signal)
    batches = batch_options(signal)
    spool = MemorySpool() if config.spool is None else _disk_spool(os.path.join(config.spool, signal))
    sender = Sender(
        spool,
        transport,
        SpoolStats(config.destination(signal), spool, items=_ITEMS[signal], kept_in=config.spool),
        name=f"tracemind-{signal}",
        delay_s=batches.delay_s,
        max_items=batches.max_items,
        timeout_s=options.timeout_s,
    )
    sender.start()
    return Outbox(spool, sender)


def metric_exporter(config: ExportConfig, *, is_delta: bool) -> OtlpMetricExporter | SpooledMetricExporter:
    """Make what sends the metrics.

    Raises:
        ConfigError: a variable has a value that is not allowed.
    """
    if is_delta:
        out = outbox(config, "metrics")
        return SpooledMetricExporter(out.spool, out.sender, metric_items)
    transport, options = receiver_transport(config, "metrics")
    stats = MetricsDeliveryStats(config.destination("metrics"), kept_in=config.spool)
    return OtlpMetricExporter(transport, stats, metric_items, timeout_s=options.timeout_s)


def sums_directory(config: ExportConfig) -> str | None:
    """Where the sums of our metrics are kept, so that those of a killed process arrive; `None` without a spool."""
    return None if config.spool is None else os.path.join(config.spool, "sums")


def receiver_transport(config: ExportConfig, signal: Signal, *, adapter: Any = None) -> tuple[Transport, OtlpOptions]:
    """Make the transport of a signal.

    Args:
        config: where to, over which protocol and with which headers.
        signal: what is sent.
        adapter: over HTTP, an adapter of `requests` that sends in place of its own.

    Returns:
        The transport, and the options that the variables gave it.

    Raises:
        ConfigError: an argument or a variable has a value that is not allowed.
    """
    protocol, url = config.protocols[signal], config.signal_endpoint(signal)
    options = otlp_options(signal, protocol, url)
    return make_transport(signal, protocol, url, config.signal_headers(signal), options, adapter=adapter), options


def _disk_spool(directory: str) -> DiskSpool:
    from ..export.disk_spool import DiskSpool

    return DiskSpool(directory, fsync=syncs_spool())
