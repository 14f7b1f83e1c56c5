"""The entry point of `opentelemetry-instrument`: spans with prices for an application that knows nothing of us."""

from __future__ import annotations

import logging
from collections.abc import Collection
from typing import Any

from opentelemetry.instrumentation.instrumentor import BaseInstrumentor  # type: ignore[attr-defined]

from ..errors import ConfigError
from ..wire.instrument import uninstrument
from .configure import configure

log = logging.getLogger(__name__)


class TracemindInstrumentor(BaseInstrumentor):  # type: ignore[misc]
    """`configure()`, as an instrumentation of OpenTelemetry.

    Configured by the `OTEL_*` variables and `TRACEMIND_HOSTS`. Providers that the OpenTelemetry distribution has made
    are used as they are.
    """

    def instrumentation_dependencies(self) -> Collection[str]:
        """No library has to be installed: each is patched if it is imported."""
        return ()

    def _instrument(self, **kwargs: Any) -> None:
        """See model calls; takes `tracer_provider`, `meter_provider`, `hosts` and `estimate_missing_usage`.

        A variable with a value that is not allowed leaves the application as it is, and the other instrumentations.
        """
        try:
            configure(
                tracer_provider=kwargs.get("tracer_provider"),
                meter_provider=kwargs.get("meter_provider"),
                hosts=kwargs.get("hosts"),
                estimate_missing_usage=kwargs.get("estimate_missing_usage"),
            )
        except ConfigError as error:
            log.error("tracemind-otel is off, no model call is recorded: %s", error)

    def _uninstrument(self, **kwargs: Any) -> None:
        uninstrument()
