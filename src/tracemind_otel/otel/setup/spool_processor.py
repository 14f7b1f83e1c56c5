"""The span processor that encodes each span as it ends, keeps the bytes in a spool, and has them sent.

`configure()` adds one to the provider that it makes. `SpoolSpanProcessor` is the same for a provider of your own.
"""

from __future__ import annotations

import logging
import os
import weakref
from collections.abc import Callable, Mapping

from opentelemetry.context import Context
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor

from ..._base.fork import in_forked_child
from ..._base.once import report_fault
from ..export.delivery_stats import SpoolStats
from ..export.otlp_request import Item
from ..export.otlp_spans import span_item
from ..export.spool import MemorySpool
from ..instruments import is_ours
from .delivery import undelivered, write_to_stderr
from .receivers import Outbox, outbox
from .settings import export_config

log = logging.getLogger(__name__)

AsSent = Callable[[ReadableSpan], ReadableSpan]
"""Gives an ended span as the receiver gets it."""

EXIT_S = 1.5
"""Seconds that the end of a process waits for a receiver that takes nothing."""
_LONGEST_S = 30.0
"""Seconds that a shut-down waits for the receiver, as in the SDK, unless `interrupt` ends it before."""


class Spooling:
    """Ends as its sender ends.

    Args:
        out: where items wait and what sends them.
    """

    def __init__(self, out: Outbox) -> None:
        self._spool, self._sender = out.spool, out.sender
        self.stats: SpoolStats = out.sender.stats
        """What arrived and what did not."""

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Send what waits now; returns whether everything has arrived since the flush before."""
        return self._sender.flush(timeout_millis / 1000)

    def shutdown(self) -> None:
        """Send what waits, for 30 seconds at most."""
        self._sender.shutdown(_LONGEST_S)

    def interrupt(self) -> None:
        """Cut short a shut-down that waits for the receiver."""
        self._sender.shutdown(0.0)

    def begin_anew(self) -> None:
        """In a forked child: what waits is the parent's."""
        self._sender.begin_anew()

    def keep(self, item: Item) -> None:
        self._spool.append(item)
        self._sender.notify(len(item.record))

    def fail(self, during: str) -> None:
        self.stats.lose(1, "it could not be encoded or kept")
        report_fault(log, "SpoolSpanProcessor", during)


class SpoolProcessor(Spooling, SpanProcessor):
    """Encodes each sampled span as it ends, and hands it over.

    Args:
        out: where to.
        as_sent: how spans differ in what is sent; `None` where they do not.
    """

    def __init__(self, out: Outbox, as_sent: AsSent | None = None) -> None:
        super().__init__(out)
        self._as_sent = as_sent
        self._keep_start = None if isinstance(out.spool, MemorySpool) else out.spool.append_start

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        context = span.get_span_context()
        if self._keep_start is not None and context.trace_flags.sampled and is_ours(span):
            try:
                self._keep_start(context.span_id.to_bytes(8), self._item(span))
            except Exception:
                report_fault(log, "SpoolSpanProcessor", "on_start")

    def on_end(self, span: ReadableSpan) -> None:
        if span.context is None or not span.context.trace_flags.sampled:
            return
        try:
            self.keep(self._item(span))
        except Exception:
            self.fail("on_end")

    def _item(self, span: ReadableSpan) -> Item:
        return span_item(span if self._as_sent is None else self._as_sent(span))


class SpoolSpanProcessor(SpoolProcessor):
    """Sends spans by OTLP, for a tracer provider of your own. `configure()` adds one to the provider that it makes.

    A span is encoded when it ends. The bytes wait in memory, 64 MiB of them at most, or on disk, until the receiver
    has taken them: an outage of minutes loses nothing. What is lost all the same is counted and logged.

    Args:
        endpoint: base URL of an OTLP receiver, to which `/v1/traces` is added for HTTP; the default is
            `OTEL_EXPORTER_OTLP_ENDPOINT`, else the receiver on this machine.
        protocol: `http/protobuf` (default) or `grpc`; the default is `OTEL_EXPORTER_OTLP_PROTOCOL`.
        headers: headers of each request; the default is `OTEL_EXPORTER_OTLP_HEADERS`.
        spool: a directory in which spans wait, also when the process is killed: the next process with this spool sends
            them. The default is `TRACEMIND_SPOOL_DIR`, else none.

    Raises:
        ConfigError: an argument or a variable has a value that is not allowed.
    """

    def __init__(
        self,
        *,
        endpoint: str | None = None,
        protocol: str | None = None,
        headers: Mapping[str, str] | None = None,
        spool: str | os.PathLike[str] | None = None,
    ) -> None:
        config = export_config(endpoint=endpoint, protocol=protocol, headers=headers, file=None, spool=spool)
        super().__init__(outbox(config, "traces"))
        _begin_anew_in_children(self)

    def shutdown(self) -> None:
        """Send what waits, for about two seconds at most, and log what did not arrive."""
        self._sender.shutdown(EXIT_S)
        write_to_stderr(undelivered([self.stats]))


def _begin_anew_in_children(processor: SpoolProcessor) -> None:
    reference = weakref.ref(processor)

    def begin_anew() -> None:
        found = reference()
        if found is not None:
            found.begin_anew()

    in_forked_child(begin_anew)
