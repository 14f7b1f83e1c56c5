"""Encoded spans, metrics and log records, and the body of the request that sends them.

The three requests of OTLP have the same shape and the same field numbers, so one function assembles them all, and
nothing is encoded a second time.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from .protobuf import length_tag, prefixed

MAX_REQUEST_BYTES = 4_000_000
"""Bytes of one request; the default limit of gRPC receivers is 4 MiB."""

_RESOURCE_GROUP = length_tag(1)
_SCOPE_GROUP = length_tag(2)


@dataclass(frozen=True, slots=True)
class Item:
    """One encoded span, metric or log record."""

    resource: bytes
    """The fields `resource` and `schema_url` of ResourceSpans, encoded. Items with equal bytes share a group."""
    scope: bytes
    """The fields `scope` and `schema_url` of ScopeSpans, encoded. Items with equal bytes share a group."""
    record: bytes
    """The span, metric or log record as field 2 of ScopeSpans, with tag and length."""
    count: int = 1
    """The spans, log records or data points in `record`."""


def request_body(items: Iterable[Item]) -> bytes:
    """The body of an ExportTraceServiceRequest, ExportMetricsServiceRequest or ExportLogsServiceRequest."""
    groups = dict[bytes, dict[bytes, list[bytes]]]()
    for item in items:
        groups.setdefault(item.resource, {}).setdefault(item.scope, []).append(item.record)
    return b"".join(_RESOURCE_GROUP + prefixed(_resource_group(*group)) for group in groups.items())


def _resource_group(resource: bytes, scopes: dict[bytes, list[bytes]]) -> bytes:
    groups = (_SCOPE_GROUP + prefixed(scope + b"".join(records)) for scope, records in scopes.items())
    return resource + b"".join(groups)
