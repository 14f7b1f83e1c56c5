"""Runs an application in this process, and watches what telemetry it sets up and records."""

from __future__ import annotations

import asyncio
import functools
import importlib
import inspect
import os
import sys
import traceback
from collections.abc import Callable, Coroutine, Generator, Iterable, Mapping
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, cast

from opentelemetry import trace

from ...errors import ConfigError
from ...otel.setup.settings import Signal
from ...otel.setup.telemetry import active, is_placeholder
from ..otlp_file import FileEvent, FileSpan, Scalar
from .evidence import AppRun, MadeProvider, SpanSource

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import Event, ReadableSpan

_TRIALS = 10_000
"""New traces about which a sampler is asked."""
_FLUSH_S = 5.0
_OTHERS = ("opentelemetry.", "tracemind_otel.", "contextlib", "functools")
"""Beginnings of the modules that never are the place that makes a provider."""


@dataclass(slots=True)
class Ran:
    """An application that has run."""

    run: AppRun
    """How it ended."""
    fault: ConfigError | None = None
    """What rejected its configuration."""
    providers: tuple[MadeProvider, ...] = ()
    """The providers that it made or found."""
    recorded: SpanSource = field(default_factory=lambda: SpanSource(name="", spans=()))
    """The spans that it recorded."""


def run_application(name: str) -> Ran:
    """Import an application and call it.

    Raises:
        ConfigError: `name` leads to no function without arguments.
    """
    watch = _Watch(_found_at_start())
    with _watching(watch), redirect_stdout(sys.stderr):
        function = _function(name)
        ran = _called(name, function)
    has_flushed = _flush(watch)
    has_global = not is_placeholder(trace.get_tracer_provider())
    ran.run = replace(ran.run, has_flushed=has_flushed, has_global_provider=has_global)
    ran.providers = tuple(seen.as_evidence() for seen in watch.seen)
    ran.recorded = SpanSource(name=name, spans=[_file_span(span) for span in watch.spans()])
    return ran


def _found_at_start() -> list[_Seen]:
    """A provider that was made before, as `opentelemetry-instrument` makes one."""
    provider: Any = trace.get_tracer_provider()
    if is_placeholder(provider):
        return []
    return [_Seen("traces", provider, "what started this process", is_ours=False, processors=None)]


def _flush(watch: _Watch) -> bool:
    """Whether what was recorded reached the receivers of our providers; those of others say so in their logs."""
    for seen in watch.seen:
        if not seen.is_ours and hasattr(seen.provider, "force_flush"):
            seen.provider.force_flush(int(_FLUSH_S * 1000))
    telemetry = active()
    return telemetry is None or telemetry.flush(_FLUSH_S)


# --- The function


def _function(name: str) -> Callable[[], object] | None:
    """The function; `None` for an application of a server, which is only imported."""
    module_name, colon, path = name.partition(":")
    if not (module_name and colon and path):
        raise ConfigError(f"--app is {name!r}; it must be module:function, like myservice.main:run")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        found = functools.reduce(getattr, path.split("."), cast("Any", importlib.import_module(module_name)))
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"--app {name} cannot be loaded: {error}; run doctor where your program runs") from error
    if not callable(found):
        raise ConfigError(f"--app {name} is {type(found).__name__}; it must be a function without arguments")
    try:
        inspect.signature(found).bind()
    except TypeError:
        if inspect.isroutine(found):
            raise ConfigError(f"--app {name} takes arguments; name a function without any") from None
        return None
    return cast("Callable[[], object]", found)


def _called(name: str, function: Callable[[], object] | None) -> Ran:
    if function is None:
        return Ran(AppRun(name=name, was_called=False))
    run = AppRun(name=name, was_called=True)
    try:
        result = function()
        if inspect.isawaitable(result):
            asyncio.run(_awaited(result))
    except ConfigError as error:
        return Ran(run, error)
    except SystemExit as error:
        return Ran(replace(run, raised=_raised(error)) if error.code else run)
    except Exception as error:
        return Ran(replace(run, raised=_raised(error)))
    return Ran(run)


def _awaited(awaitable: Any) -> Coroutine[Any, Any, object]:
    async def wait() -> object:
        return await awaitable

    return wait()


def _raised(error: BaseException) -> str:
    place = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__} at {_below_here(place.filename)}:{place.lineno}"


def _below_here(path: str) -> str:
    below = os.path.relpath(path)
    return path if below.startswith(os.pardir) else below


# --- Its providers


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


class _Watch:
    """The providers that are made while it watches, and the spans that they record."""

    def __init__(self, seen: list[_Seen]) -> None:
        from opentelemetry.sdk.trace.export import SimpleSpanProcessor
        from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

        self.seen = seen
        self._exporter = InMemorySpanExporter()
        self._processor = SimpleSpanProcessor(self._exporter)

    def note(self, signal: Signal, provider: Any, processors: list[str] | None) -> None:
        """A provider was made."""
        names = [(frame.f_globals.get("__name__", ""), frame, line) for frame, line in traceback.walk_stack(None)]
        is_ours = any(name == "tracemind_otel.otel.setup.pipeline" for name, _, _ in names)
        maker = next(((frame, line) for name, frame, line in names if not f"{name}.".startswith(_OTHERS)), None)
        place = "an unknown place" if maker is None else f"{_below_here(maker[0].f_code.co_filename)}:{maker[1]}"
        self.seen.append(_Seen(signal, provider, place, is_ours=is_ours, processors=processors))
        if signal == "traces":
            provider.add_span_processor(self._processor)

    def note_processor(self, provider: Any, processor: Any) -> None:
        """A provider got a span processor."""
        if processor is self._processor or type(processor).__module__ == "tracemind_otel.otel.setup.pipeline":
            return
        for seen in self.seen:
            if seen.provider is provider and seen.processors is not None:
                seen.processors.append(type(processor).__name__)

    def spans(self) -> tuple[ReadableSpan, ...]:
        """The spans that have ended."""
        return self._exporter.get_finished_spans()


@contextmanager
def _watching(watch: _Watch) -> Generator[None]:
    """Note each provider that is made, and each span processor that one gets."""
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.trace import TracerProvider

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
        yield


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


# --- Its spans


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
