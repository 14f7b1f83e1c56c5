"""Read the spans of an OTLP JSON-lines file, such as that of `configure(file=...)` or of the Collector.

A missing value becomes an empty one; metrics, logs and other JSON are skipped. No I/O.
Source: OTLP specification, "JSON Protobuf Encoding" and "File Exporter".
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

from ..errors import TraceMindError

T = TypeVar("T")

Scalar = str | bool | int | float
"""The value of an attribute; lists and maps are left out."""

_ERROR_CODES = (2, "2", "STATUS_CODE_ERROR")


class OTLPFileError(TraceMindError, ValueError):
    """A line, counted from 1, is not JSON."""

    def __init__(self, line_number: int, error: Exception) -> None:
        detail = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        if isinstance(error, json.JSONDecodeError):
            detail = f"{error.msg} at column {error.colno}"
        super().__init__(f"line {line_number} is not JSON: {detail}")
        self.line_number = line_number


@dataclass(frozen=True, kw_only=True, slots=True)
class FileEvent:
    """One event of a span."""

    name: str = ""
    """The event's name."""
    time_ns: int = 0
    """Nanoseconds since 1970; 0 when the file does not say."""
    attributes: Mapping[str, Scalar] = field(default_factory=dict[str, Scalar])
    """Its attributes; lists and maps are left out."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FileSpan:
    """One span."""

    trace_id: str = ""
    """The trace's id, a hexadecimal string."""
    span_id: str = ""
    """The span's id, a hexadecimal string."""
    parent_id: str = ""
    """The parent's id; empty for a root."""
    name: str = ""
    """The span's name."""
    start_ns: int = 0
    """Nanoseconds since 1970; 0 when the file does not say."""
    end_ns: int = 0
    """Nanoseconds since 1970; 0 when the file does not say."""
    is_error: bool = False
    """Whether the span's status is an error."""
    status_message: str = ""
    """The description of the status."""
    service: str = ""
    """`service.name` of the resource."""
    scope: str = ""
    """The name of the instrumentation scope: who made the span."""
    attributes: Mapping[str, Scalar] = field(default_factory=dict[str, Scalar])
    """Its attributes; lists and maps are left out."""
    events: tuple[FileEvent, ...] = ()
    """Its events, in the file's order."""


def read_spans(
    lines: Iterable[str], *, on_torn: Callable[[int], None] = lambda line_number: None
) -> Iterator[FileSpan]:
    """The spans of an OTLP JSON-lines file, in the file's order.

    Args:
        lines: the lines, such as an open file; only one is held at a time.
        on_torn: called with the number of each skipped line, which is not JSON, such as one that a crash cut off.

    Raises:
        OTLPFileError: no line at all is JSON.
    """
    torn: list[OTLPFileError] = []
    has_content = False
    for line_number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            document: object = json.loads(line)
        except (ValueError, RecursionError) as error:
            torn.append(OTLPFileError(line_number, error))
            continue
        has_content = True
        yield from _spans(document)
    if torn and not has_content:
        raise torn[0]
    for fault in torn:
        on_torn(fault.line_number)


def _spans(document: object) -> Iterator[FileSpan]:
    for resource_spans in _mappings(_mapping(document).get("resourceSpans")):
        resource = _mapping(resource_spans.get("resource"))
        service = _text(_attributes(resource.get("attributes")).get("service.name"))
        for scope_spans in _mappings(resource_spans.get("scopeSpans")):
            scope = _text(_mapping(scope_spans.get("scope")).get("name"))
            for span in _mappings(scope_spans.get("spans")):
                yield _span(span, service, scope)


def _span(span: Mapping[str, Any], service: str, scope: str) -> FileSpan:
    status, parent_id = _mapping(span.get("status")), _text(span.get("parentSpanId")).lower()
    return FileSpan(
        trace_id=_text(span.get("traceId")).lower(),
        span_id=_text(span.get("spanId")).lower(),
        parent_id=parent_id if parent_id.strip("0") else "",  # some writers give a root zeros instead of none
        name=_text(span.get("name")),
        start_ns=_number(int, span.get("startTimeUnixNano")) or 0,
        end_ns=_number(int, span.get("endTimeUnixNano")) or 0,
        is_error=status.get("code") in _ERROR_CODES,
        status_message=_text(status.get("message")),
        service=service,
        scope=scope,
        attributes=_attributes(span.get("attributes")),
        events=tuple(_event(event) for event in _mappings(span.get("events"))),
    )


def _event(event: Mapping[str, Any]) -> FileEvent:
    return FileEvent(
        name=_text(event.get("name")),
        time_ns=_number(int, event.get("timeUnixNano")) or 0,
        attributes=_attributes(event.get("attributes")),
    )


def _attributes(pairs: object) -> dict[str, Scalar]:
    found: dict[str, Scalar] = {}
    for pair in _mappings(pairs):
        value = _scalar(_mapping(pair.get("value")))
        if value is not None:
            found[_text(pair.get("key"))] = value
    return found


def _scalar(value: Mapping[str, Any]) -> Scalar | None:
    if isinstance(text := value.get("stringValue"), str):
        return text
    if isinstance(flag := value.get("boolValue"), bool):
        return flag
    if "intValue" in value:
        return _number(int, value["intValue"])
    return _number(float, value.get("doubleValue"))


def _number(kind: Callable[[str | int | float], T], value: object) -> T | None:
    """Protobuf's JSON has 64-bit integers, NaN and the infinities as strings; other writers have numbers."""
    try:
        return kind(value) if isinstance(value, str | int | float) else None
    except (ValueError, OverflowError):
        return None


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _mapping(value: object) -> Mapping[str, Any]:
    return cast("Mapping[str, Any]", value) if isinstance(value, dict) else {}


def _mappings(value: object) -> Iterator[Mapping[str, Any]]:
    for item in cast("Sequence[object]", value) if isinstance(value, list) else ():
        if isinstance(item, dict):
            yield cast("Mapping[str, Any]", item)
