"""Runs that the runtime has stored, as traces with the times that they had."""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterable, Iterator, Mapping
from os import PathLike, fspath
from typing import Any, Final

from opentelemetry.context import Context
from opentelemetry.trace import Span, Status, StatusCode, Tracer, TracerProvider, set_span_in_context

from ...errors import ConfigError
from ...flows.sources import AttributeSources
from ...otel import semconv
from ...otel.current import tracer
from ...otel.sanitize import sanitized
from ...otel.span_scope import FLOW, STEP, SpanSpec

_RECORD: Final = "FlowTrace"
_NO_SOURCES: Final = AttributeSources.of({})

StoredStep = Mapping[str, Any]
"""The fields of `tm.flow.trace_store.TraceSpanLike`."""


def import_runs(
    source: str | PathLike[str] | Iterable[object], *, tracer_provider: TracerProvider | None = None
) -> int:
    """Make a trace of each stored run: the span of the flow and those of its steps, with their stored times.

    Each run is a trace of its own, found by `tracemind.flow.id`, which is its run id. Model calls are not stored by
    the runtime. Importing the same runs again makes the same spans once more, in new traces.

    Args:
        source: the directory of a `FlowTraceSink`, or the spans that a trace sink of one's own has kept.
        tracer_provider: makes the spans; the default is the one that `configure()` set, else the global one.

    Returns:
        The number of runs.

    Raises:
        ConfigError: the directory does not exist.
        ModuleNotFoundError: trace-mind, which reads its own files, is not installed.
    """
    made = tracer(tracer_provider)
    count = 0
    for steps in _runs(_stored_in(source) if isinstance(source, str | PathLike) else map(_fields, source)):
        _trace(made, steps)
        count += 1
    return count


def _stored_in(directory: str | PathLike[str]) -> Iterator[StoredStep]:
    reader = importlib.import_module("tm.storage.binlog").BinaryLogReader(fspath(directory))
    try:
        for kind, payload in reader.scan():
            if kind == _RECORD:
                yield json.loads(payload)
    except FileNotFoundError:
        raise ConfigError(f"import_runs: there is no directory {fspath(directory)!r}") from None


def _fields(span: object) -> StoredStep:
    return vars(span)


def _runs(steps: Iterable[StoredStep]) -> Iterator[list[StoredStep]]:
    """The steps of each run; the steps of several runs may be mixed, and a run id may be used again."""
    runs: dict[str, list[StoredStep]] = {}
    for step in steps:
        run_id = str(step["run_id"])
        if step["seq"] == 0 and run_id in runs:
            yield runs.pop(run_id)
        runs.setdefault(run_id, []).append(step)
    yield from runs.values()


def _trace(made: Tracer, steps: list[StoredStep]) -> None:
    first = steps[0]
    ids = {semconv.TRACEMIND_FLOW_ID: sanitized(str(first["run_id"]))}
    plan = SpanSpec.of(FLOW, str(first["flow"]), _NO_SOURCES)
    revision = {semconv.TRACEMIND_FLOW_REVISION: sanitized(str(first["flow_rev"]))}
    flow = made.start_span(
        plan.span_name,
        Context(),
        attributes={**plan.own, **ids, **revision},
        start_time=min(_ns(step["start_ts"]) for step in steps),
    )
    for step in steps:
        name = SpanSpec.of(STEP, str(step["step"]), _NO_SOURCES).span_name
        span = made.start_span(
            name, set_span_in_context(flow, Context()), attributes=ids, start_time=_ns(step["start_ts"])
        )
        _end(span, step, _ns(step["end_ts"]))
    _end(flow, next((step for step in steps if step["status"] == "error"), first), max(_ns(s["end_ts"]) for s in steps))


def _end(span: Span, step: StoredStep, ended_ns: int) -> None:
    """End a span; the message of an error stays out, since it may hold a prompt."""
    if step["status"] == "error":
        error_type = sanitized(str(step.get("error_code") or "error"))
        span.set_attribute(semconv.ERROR_TYPE, error_type)
        span.set_status(Status(StatusCode.ERROR, error_type))
    span.end(ended_ns)


def _ns(seconds: float) -> int:
    return int(seconds * 1e9)
