"""Runs that the runtime has stored, as traces with the times that they had."""

from __future__ import annotations

import contextvars
import hashlib
import importlib
import json
import logging
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from os import PathLike, fspath
from typing import Any, Final, cast

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Span, Status, StatusCode, Tracer, TracerProvider, set_span_in_context

from ..._base.context import set_here
from ..._version import __version__
from ...errors import ConfigError
from ...flows.sources import AttributeSources
from ...otel import semconv
from ...otel.current import configured_providers
from ...otel.sanitize import sanitized
from ...otel.span_scope import FLOW, STEP, SpanSpec
from .shapes import SCOPE

log = logging.getLogger(__name__)

_RECORD: Final = "FlowTrace"
_NO_SOURCES: Final = AttributeSources.of({})
_AWAITS_APPROVAL: Final = "PendingApproval"
"""The code of a step that waits for a person, which the runtime stores as an error."""
_SPANS_BETWEEN_FLUSHES: Final = 500
"""Fewer than the 2,048 spans for which an exporter's queue has room by default."""
_FLUSH_MS: Final = 30_000


def import_runs(
    source: str | PathLike[str] | Iterable[object], *, tracer_provider: TracerProvider | None = None
) -> int:
    """Make a trace of each stored run: the span of the flow and those of its steps, with their stored times.

    Each run is a trace of its own, found by `tracemind.flow.id`, which is its run id. The ids of its spans are made of
    the run, so importing it again makes the same spans, which a backend that compares ids shows once. The runtime
    stores neither model calls nor attempts, and the message of an error stays out, since it may hold a prompt.

    The function waits for the exporter now and then, so that its queue never overflows: call it in a script, or in a
    thread.

    Args:
        source: the directory of a `FlowTraceSink`, or the spans that a trace sink of one's own has kept, as objects or
            as mappings.
        tracer_provider: makes the spans; the default is the one that `configure()` set, else the global one.

    Returns:
        The number of runs.

    Raises:
        ConfigError: the directory does not exist, or a span lacks a field or has a wrong time.
        ModuleNotFoundError: trace-mind, which reads its own files, is not installed.
    """
    provider = tracer_provider or configured_providers().tracer_provider or trace.get_tracer_provider()
    made = _tracer(provider)
    runs = spans = 0
    for steps in _runs(_stored_in(source) if isinstance(source, str | PathLike) else map(_fields, source)):
        _trace(made, steps)
        runs += 1
        spans += len(steps) + 1
        if spans >= _SPANS_BETWEEN_FLUSHES:
            _flush(provider)
            spans = 0
    _flush(provider)
    return runs


@dataclass(frozen=True, slots=True)
class _StoredStep:
    """What a run's trace needs of `tm.flow.trace_store.TraceSpanLike`."""

    run: tuple[str, str, str]
    """The flow, its revision and the run id."""
    step: str
    """The name of the step."""
    position: int
    """How many steps of the run came before."""
    started_ns: int
    """Nanoseconds since the epoch."""
    ended_ns: int
    """Nanoseconds since the epoch; not before the start, whatever the clock did."""
    error_type: str | None
    """Why the step failed, if it did."""

    @classmethod
    def of(cls, number: int, fields: Mapping[str, Any]) -> _StoredStep:
        try:
            failed = fields["status"] == "error" and fields.get("error_code") != _AWAITS_APPROVAL
            started_ns = _ns(fields["start_ts"])
            return cls(
                run=(str(fields["flow"]), str(fields["flow_rev"]), str(fields["run_id"])),
                step=str(fields["step"]),
                position=int(fields["seq"]),
                started_ns=started_ns,
                ended_ns=max(started_ns, _ns(fields["end_ts"])),
                error_type=sanitized(str(fields.get("error_code") or "error")) if failed else None,
            )
        except KeyError as missing:
            raise ConfigError(
                f"import_runs: span {number} has no {missing.args[0]!r}; it must have the fields of trace-mind's "
                "TraceSpanLike"
            ) from None
        except (TypeError, ValueError) as wrong:
            raise ConfigError(f"import_runs: span {number} is not one of trace-mind's: {wrong}") from None


def _ns(seconds: Any) -> int:
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not math.isfinite(seconds) or seconds < 0:
        raise ValueError(f"its time is {seconds!r}; it must be seconds since 1970")
    return int(seconds * 1e9)


def _stored_in(directory: str | PathLike[str]) -> Iterator[Mapping[str, Any]]:
    reader = importlib.import_module("tm.storage.binlog").BinaryLogReader(fspath(directory))
    try:
        for kind, payload in reader.scan():
            if kind == _RECORD:
                yield json.loads(payload)
    except (FileNotFoundError, NotADirectoryError):
        raise ConfigError(f"import_runs: there is no directory {fspath(directory)!r}") from None


def _fields(span: object) -> Mapping[str, Any]:
    return cast("Mapping[str, Any]", span) if isinstance(span, Mapping) else vars(span)


def _runs(steps: Iterable[Mapping[str, Any]]) -> Iterator[list[_StoredStep]]:
    """The steps of each run; the steps of several runs may be mixed, and a run id may be used again."""
    runs: dict[tuple[str, str, str], list[_StoredStep]] = {}
    for number, fields in enumerate(steps, 1):
        step = _StoredStep.of(number, fields)
        if step.position == 0 and step.run in runs:
            yield runs.pop(step.run)
        runs.setdefault(step.run, []).append(step)
    yield from runs.values()


def _trace(made: Tracer, steps: list[_StoredStep]) -> None:
    (name, revision, run_id), started_ns = steps[0].run, min(step.started_ns for step in steps)
    ids = {semconv.TRACEMIND_FLOW_ID: sanitized(run_id)}
    spec = SpanSpec.of(FLOW, name, _NO_SOURCES)
    attributes = {**spec.own, **ids, semconv.TRACEMIND_FLOW_REVISION: sanitized(revision)}
    identity = (name, revision, run_id, str(started_ns))
    with set_here(_identity, identity):
        flow = made.start_span(spec.span_name, Context(), attributes=attributes, start_time=started_ns)
    for step in steps:
        step_name = SpanSpec.of(STEP, step.step, _NO_SOURCES).span_name
        with set_here(_identity, (*identity, str(step.position), step.step)):
            span = made.start_span(
                step_name, set_span_in_context(flow, Context()), attributes=ids, start_time=step.started_ns
            )
        _end(span, step.error_type, step.ended_ns)
    failure = next((step.error_type for step in steps if step.error_type is not None), None)
    _end(flow, failure, max(step.ended_ns for step in steps))


def _end(span: Span, error_type: str | None, ended_ns: int) -> None:
    if error_type is not None:
        span.set_attribute(semconv.ERROR_TYPE, error_type)
        span.set_status(Status(StatusCode.ERROR, error_type))
    span.end(ended_ns)


_identity: contextvars.ContextVar[tuple[str, ...]] = contextvars.ContextVar("tracemind_stored_run")


class _IdsOfRuns:
    """An `IdGenerator` of OpenTelemetry's SDK whose ids follow from what the span is."""

    def generate_trace_id(self) -> int:
        return _number(16)

    def generate_span_id(self) -> int:
        return _number(8)

    def is_trace_id_random(self) -> bool:
        return True  # as good as: the bits of a hash


def _number(size: int) -> int:
    text = json.dumps([size, *_identity.get()])
    return int.from_bytes(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:size], "big") or 1


def _tracer(provider: TracerProvider) -> Tracer:
    """A tracer for imported runs alone: the ids of an SDK's are ours, those of any other are random."""
    made = trace.get_tracer(SCOPE, __version__, tracer_provider=provider, schema_url=semconv.SCHEMA_URL)
    if hasattr(made, "id_generator"):
        cast("Any", made).id_generator = _IdsOfRuns()
    return made


def _flush(provider: TracerProvider) -> None:
    flush: Callable[[int], bool] | None = getattr(provider, "force_flush", None)
    if flush is not None and not flush(_FLUSH_MS):
        log.warning(
            "import_runs: the exporter took longer than %d s, so some spans of imported runs may be lost; import them "
            "again once the receiver of the spans answers",
            _FLUSH_MS // 1000,
        )
