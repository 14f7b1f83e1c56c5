"""Gathers the evidence, and lets each check look at it."""

from __future__ import annotations

import importlib
import logging
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Collection, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, date, datetime
from importlib import metadata, util
from typing import Any

from ...ai.llm.pricing import is_in_wrong_unit, prices_set
from ...errors import ConfigError
from ...flows.shared.state_client import Examined, examined
from ...flows.shared.states import current_state
from ...front.configure import SetUp, configure, latest_set_up
from ...otel.export.otlp_variables import Signal
from ...otel.setup.settings import sdk_is_disabled
from . import receiver_checks, setup_checks, span_checks, state_checks
from .application import Ran, UnusableAppError, run_application
from .evidence import Evidence, MadeProvider, SpanSource
from .finding import Finding
from .keys import provider_keys
from .receiver import Reply, ask_receivers
from .watch import watching

Check = Callable[[Evidence], Iterator[Finding]]

CHECKS: tuple[Check, ...] = (
    setup_checks.sdk_disabled,
    setup_checks.rejected_configuration,
    setup_checks.application_failed,
    setup_checks.never_configured,
    setup_checks.second_provider,
    setup_checks.provider_without_exporter,
    setup_checks.sampler_off,
    receiver_checks.failed_exports,
    setup_checks.failed_exports_of_others,
    setup_checks.not_delivered,
    receiver_checks.different_clocks,
    state_checks.state_is_away,
    state_checks.state_is_slow,
    setup_checks.unusable_keys,
    setup_checks.wrong_unit,
    setup_checks.doubling_instrumentations,
    setup_checks.second_exporter,
    setup_checks.ignored_settings,
    span_checks.spans_of_sources,
)
"""Every check, in the order of the report."""

_SHOWN = frozenset(
    [
        "OTEL_SDK_DISABLED",
        "OTEL_SERVICE_NAME",
        "OTEL_TRACES_SAMPLER",
        "OTEL_TRACES_SAMPLER_ARG",
        "OTEL_TRACES_EXPORTER",
        "OTEL_METRICS_EXPORTER",
        "OTEL_EXPORTER_OTLP_PROTOCOL",
        "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL",
        "OTEL_EXPORTER_OTLP_METRICS_PROTOCOL",
        "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE",
        "OTEL_METRIC_EXPORT_INTERVAL",
        "OTEL_SEMCONV_STABILITY_OPT_IN",
        "FASTAPI_OTEL_AUTO_CONFIGURE",
        "TRACEMIND_INSTRUMENT",
    ]
)
"""The variables whose values are shown; another may hold a key."""
_SERVERS = ("uvicorn", "gunicorn", "celery", "rq")
_MODEL_SDKS = (
    "openai", "anthropic", "google", "gemini", "vertexai", "bedrock", "mistral", "cohere", "groq", "ollama", "together",
    "litellm", "langchain", "llama", "openinference",
)  # fmt: skip
"""Parts of the names of modules that instrument the SDKs of models."""


def findings_of(evidence: Evidence) -> list[Finding]:
    """What the checks find, each finding once, errors first."""
    found = dict.fromkeys(finding for check in CHECKS for finding in check(evidence))
    return sorted(found, key=lambda finding: finding.severity)


def examine(app: str | None, sources: Sequence[SpanSource]) -> Evidence:
    """Gather what there is to know.

    Args:
        app: `module:function` to run in this process; `None` to call `configure()` itself.
        sources: the spans of files.

    Raises:
        ConfigError: `app` leads to no function.
    """
    evidence = Evidence(
        variables=_variables(),
        is_disabled=sdk_is_disabled(),
        keys=provider_keys(),
        price_table=_price_table(),
        servers=_servers(is_loaded=app is not None),
        sources=tuple(sources),
    )
    if app is None:
        return _with_configuration(evidence, has_files=bool(sources))
    return _with_application(evidence, app)


def _variables() -> tuple[str, ...]:
    names = sorted(name for name in os.environ if name.startswith(("OTEL_", "TRACEMIND_", "FASTAPI_OTEL_")))
    return tuple(f"{name}={os.environ[name]}" if name in _SHOWN else name for name in names)


def _servers(*, is_loaded: bool) -> tuple[str, ...]:
    return tuple(name for name in _SERVERS if (name in sys.modules if is_loaded else util.find_spec(name) is not None))


def _price_table() -> str:
    """The version of the price table, and the day of the newest price in it that has a date and is in force."""
    from genai_prices.data_snapshot import get_snapshot

    models: list[Any] = [model for provider in get_snapshot().providers for model in provider.models]
    lists: list[Any] = [model.prices for model in models if hasattr(model.prices, "__iter__")]
    days: list[date] = [getattr(price.constraint, "start_date", date.min) for prices in lists for price in prices]
    newest = max((day for day in days if day <= datetime.now(UTC).date()), default=date.min)
    return f"genai-prices {metadata.version('genai-prices')}, its newest dated price from {newest}"


# --- configure(), where there is no application


def _with_configuration(evidence: Evidence, *, has_files: bool) -> Evidence:
    """What `configure()` does here. With files and no endpoint nothing is sent, as by `configure(file=...)`."""
    with tempfile.TemporaryDirectory() as directory, _warnings() as logged:
        try:
            with watching() as watch:
                telemetry = configure(file=os.path.join(directory, "spans") if has_files else None)
        except ConfigError as error:
            return replace(evidence, fault=error)
        set_up = latest_set_up()
        attributes = getattr(getattr(telemetry.tracer_provider, "resource", None), "attributes", {})
        telemetry.shutdown()
    return replace(
        evidence,
        set_up=set_up,
        service=str(attributes.get("service.name", "")),
        providers=tuple(replace(provider, place=_place_here(provider)) for provider in watch.providers()),
        replies=_replies(set_up),
        state=_state(),
        instrumentations=_instrumentations(),
        logged=tuple(logged.of_set_up),
    )


def _place_here(provider: MadeProvider) -> str:
    """Without an application the line that calls `configure()` is ours."""
    return "configure()" if provider.by_configure else provider.place


def _replies(set_up: SetUp | None) -> tuple[Reply, ...]:
    """What the receivers of our own providers answer; those of others are not known."""
    return () if set_up is None else tuple(ask_receivers(set_up.config, set_up.config.signals & set_up.made))


def _state() -> Examined | None:
    """How the shared state of this process answers."""
    client = current_state()
    return None if client is None else examined(client)


# --- An application


def _with_application(evidence: Evidence, app: str) -> Evidence:
    with _warnings() as logged:
        try:
            ran = run_application(app)
        except UnusableAppError:
            raise
        except ConfigError as error:
            return replace(evidence, fault=error)
    set_up = latest_set_up()
    return replace(
        evidence,
        app=ran.run,
        fault=ran.fault,
        set_up=set_up,
        service=next((span.service for span in ran.recorded.spans), ""),
        providers=ran.providers,
        replies=_replies(set_up),
        state=_state(),
        wrong_units=tuple(price.model for price in prices_set() if is_in_wrong_unit(price)),
        instrumentations=_instrumentations(),
        servers=_servers(is_loaded=True),
        sigterm=_at_sigterm(),
        logged=tuple(logged.of_set_up),
        export_faults=tuple(logged.of_exporters_without(() if set_up is None else set_up.made)),
        sources=(*evidence.sources, *_recorded(ran)),
    )


def _at_sigterm() -> str:
    """Who handles the signal by which servers and orchestrators end a process."""
    handler = signal.getsignal(signal.SIGTERM)
    if getattr(handler, "__module__", "").startswith("tracemind_otel."):
        return "configure() sends what waits, then the process ends"
    if handler == signal.SIG_DFL:
        return "the process ends, and what waits is lost, unless a server above sends it"
    return "the application handles it: end by sys.exit() there, or call flush()"


def _recorded(ran: Ran) -> tuple[SpanSource, ...]:
    return (ran.recorded,) if ran.recorded.spans else ()


def _instrumentations() -> tuple[str, ...]:
    """The active instrumentations of model SDKs, by class."""
    found = list[str]()
    for entry in metadata.entry_points(group="opentelemetry_instrumentor"):
        if entry.module in sys.modules and any(sdk in entry.module for sdk in _MODEL_SDKS):
            instrumentor: Any = getattr(importlib.import_module(entry.module), entry.attr)()
            if getattr(instrumentor, "is_instrumented_by_opentelemetry", False):
                found.append(entry.attr)
    return tuple(found)


# --- What is logged


_WORDS: Mapping[Signal, tuple[str, ...]] = {"traces": ("trace_exporter", "traces", "spans"), "metrics": ("metric",)}
"""By which an exporter's log names its signal."""


class _Warnings(logging.Handler):
    """Keeps the warnings of the set-up, and those of exporters. Those of prices are findings of their own."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.of_set_up: dict[str, None] = {}
        self._of_exporters: dict[tuple[str, str], None] = {}

    def emit(self, record: logging.LogRecord) -> None:
        message = " ".join(record.getMessage().split())
        if record.name.startswith("opentelemetry.exporter"):
            self._of_exporters.setdefault((record.name, message))
        else:
            self.of_set_up.setdefault(message)

    def of_exporters_without(self, signals: Collection[Signal]) -> Iterator[str]:
        """What exporters logged that send other signals than these."""
        words = [word for signal in signals for word in _WORDS[signal]]
        for name, message in self._of_exporters:
            if not any(word in f"{name} {message}" for word in words):
                yield message


@contextmanager
def _warnings() -> Generator[_Warnings]:
    handler = _Warnings()
    loggers = [logging.getLogger(name) for name in ("opentelemetry", "tracemind_otel.otel")]
    for logger in loggers:
        logger.addHandler(handler)
    try:
        yield handler
    finally:
        for logger in loggers:
            logger.removeHandler(handler)
