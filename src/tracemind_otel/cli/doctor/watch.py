"""Watches which providers are made, and what they record."""

from __future__ import annotations

import functools
import os
import traceback
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from opentelemetry import metrics, trace
from opentelemetry.environment_variables import OTEL_PYTHON_METER_PROVIDER, OTEL_PYTHON_TRACER_PROVIDER

from ...errors import ConfigError
from ...otel.export.otlp_variables import Signal
from ...otel.setup.telemetry import is_placeholder
from ..otlp_file import FileEvent, FileSpan, Scalar
from .evidence import MadeProvider

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import Event, ReadableSpan

_TRIALS = 10_000
"""New traces about which a sampler is asked."""
_OTHERS = ("opentelemetry.", "tracemind_otel.", "contextlib", "functools")
"""Beginnings of the modules that never are the place that makes a provider."""
_SET_UP = "tracemind_otel.otel.setup."
"""The beginning of the modules in which `configure()` makes providers."""


class _Seen:
    """A provider of the SDK, while the application runs."""

    def __init__(
        self, signal: Signal, provider: Any, place: str, *, is_ours: bool, processors: list[str] | None
    ) -> None:
        self.signal: Signal = signal
        self.provider = provider
        self.place = place
        self.is_ours = is_ours
        self.processors = processors

    def as_evidence(self) -> MadeProvider:
        """What is known of it now."""
        return made_provider(self.provider, self.signal, self.place, self.processors, by_configure=self.is_ours)


def made_provider(
    provider: Any, signal: Signal, place: str, processors: Iterable[str] | None = None, *, by_configure: bool
) -> MadeProvider:
    """A provider, with what its sampler does."""
    sampler = getattr(provider, "sampler", None)
    return MadeProvider(
        signal=signal,
        place=place,
        by_configure=by_configure,
        processors=None if processors is None else tuple(processors),
        sampled_share=None if sampler is None else _sampled_share(sampler),
        sampler="" if sampler is None else str(sampler.get_description()),
    )


def _sampled_share(sampler: Any) -> float:
    """The part of new traces that a sampler keeps: it is asked about many."""
    from opentelemetry.sdk.trace.id_generator import RandomIdGenerator

    ids = RandomIdGenerator()
    kept = sum(
        sampler.should_sample(None, ids.generate_trace_id(), "doctor").decision.is_sampled() for _ in range(_TRIALS)
    )
    return float(kept / _TRIALS)


class Watch:
    """The providers that are made while it watches, and the spans that they record."""

    def __init__(self) -> None:
        from opentelemetry.sdk.trace.export import SimpleSpanProcessor
        from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

        self._seen = list[_Seen]()
        self._exporter = InMemorySpanExporter()
        self._processor = SimpleSpanProcessor(self._exporter)

    def note(self, signal: Signal, provider: Any, processors: list[str] | None) -> None:
        """A provider was made."""
        names = [(frame.f_globals.get("__name__", ""), frame, line) for frame, line in traceback.walk_stack(None)]
        is_ours = any(name.startswith(_SET_UP) for name, _, _ in names)
        maker = next(((frame, line) for name, frame, line in names if not f"{name}.".startswith(_OTHERS)), None)
        place = "an unknown place" if maker is None else f"{below_here(maker[0].f_code.co_filename)}:{maker[1]}"
        self._seen.append(_Seen(signal, provider, place, is_ours=is_ours, processors=processors))
        if signal == "traces":
            provider.add_span_processor(self._processor)

    def note_found(self, signal: Signal, get_provider: Callable[[], Any], variable: str) -> None:
        """Note the global provider: the API makes it now, as a variable says, or it was there before.

        Raises:
            ConfigError: the variable names a provider that cannot be made.
        """
        try:
            provider = get_provider()
        except Exception as error:  # of any type: the API does not catch what loading raises
            fault = type(error).__name__
            raise ConfigError(f"{variable} names a provider that cannot be loaded ({fault}); unset it") from error
        made = next((seen for seen in self._seen if seen.provider is provider), None)
        if made is not None:
            made.place = variable
        elif not is_placeholder(provider):
            place = "what started this process"
            self._seen.append(_Seen(signal, provider, place, is_ours=False, processors=None))

    def note_processor(self, provider: Any, processor: Any) -> None:
        """A provider got a span processor; those of ours send nothing."""
        if processor is self._processor or type(processor).__module__.startswith("tracemind_otel."):
            return
        for seen in self._seen:
            if seen.provider is provider and seen.processors is not None:
                seen.processors.append(type(processor).__name__)

    def providers(self) -> tuple[MadeProvider, ...]:
        """The providers that were there before or were made, as they are now."""
        return tuple(seen.as_evidence() for seen in self._seen)

    def flush_others(self, timeout_s: float) -> None:
        """Flush the providers that `configure()` did not make; what fails is logged by their exporters."""
        for seen in self._seen:
            if not seen.is_ours and hasattr(seen.provider, "force_flush"):
                seen.provider.force_flush(int(timeout_s * 1000))

    def spans(self) -> list[FileSpan]:
        """The spans that have ended."""
        return [_file_span(span) for span in self._exporter.get_finished_spans()]


@contextmanager
def watching() -> Generator[Watch]:
    """Note each provider that is made, and each span processor that one gets.

    Raises:
        ConfigError: a variable names a provider that cannot be made.
    """
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.trace import TracerProvider

    watch = Watch()

    def note_traces(self: Any, *_: Any, active_span_processor: Any = None, **__: Any) -> None:
        is_watched = active_span_processor is None and type(self) is TracerProvider
        watch.note("traces", self, [] if is_watched else None)

    def note_metrics(self: Any, *_: Any, **__: Any) -> None:
        watch.note("metrics", self, None)

    def note_processor(self: Any, processor: Any, *_: Any) -> None:
        watch.note_processor(self, processor)

    with (
        _followed(TracerProvider, "__init__", note_traces),
        _followed(MeterProvider, "__init__", note_metrics),
        _followed(TracerProvider, "add_span_processor", note_processor),
    ):
        watch.note_found("traces", trace.get_tracer_provider, OTEL_PYTHON_TRACER_PROVIDER)
        watch.note_found("metrics", metrics.get_meter_provider, OTEL_PYTHON_METER_PROVIDER)
        yield watch


@contextmanager
def _followed(owner: type, name: str, note: Callable[..., None]) -> Generator[None]:
    """Call `note` after a method, with the same arguments."""
    method = getattr(owner, name)

    @functools.wraps(method)
    def method_and_note(*args: Any, **kwargs: Any) -> Any:
        result = method(*args, **kwargs)
        note(*args, **kwargs)
        return result

    setattr(owner, name, method_and_note)
    try:
        yield
    finally:
        setattr(owner, name, method)


# --- Places


def below_here(path: str) -> str:
    """The path from the current directory, if it is below that."""
    below = os.path.relpath(path)
    return path if below.startswith(os.pardir) else below


# --- Spans


def _file_span(span: ReadableSpan) -> FileSpan:
    context, parent = span.get_span_context(), span.parent
    return FileSpan(
        trace_id="" if context is None else f"{context.trace_id:032x}",
        span_id="" if context is None else f"{context.span_id:016x}",
        parent_id="" if parent is None else f"{parent.span_id:016x}",
        name=span.name,
        start_ns=span.start_time or 0,
        end_ns=span.end_time or 0,
        is_error=not span.status.is_ok,
        status_message=span.status.description or "",
        service=str(span.resource.attributes.get("service.name", "")),
        attributes=_scalars(span.attributes),
        events=tuple(_file_event(event) for event in span.events),
    )


def _file_event(event: Event) -> FileEvent:
    return FileEvent(name=event.name, time_ns=event.timestamp, attributes=_scalars(event.attributes))


def _scalars(attributes: Mapping[str, Any] | None) -> dict[str, Scalar]:
    return {name: value for name, value in (attributes or {}).items() if isinstance(value, Scalar)}
