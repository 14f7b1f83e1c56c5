"""Our own encoding of spans says what the official one says, and loses no span where the official one gives up."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from enum import IntEnum, StrEnum
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, Status, StatusCode

from tests.otlp_strategies import ATTRIBUTES, CONTEXTS, KEYS, VALUES, readable_spans, spans
from tracemind_otel.otel.export.otlp_request import request_body
from tracemind_otel.otel.export.otlp_spans import interrupted_item, span_item
from tracemind_otel.otel.sanitize import sanitized

CONTEXT = SpanContext(1, 2, is_remote=False)
many = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def request_of(spans: Sequence[ReadableSpan]) -> ExportTraceServiceRequest:
    return parsed(request_body(map(span_item, spans)))


def parsed(body: bytes) -> ExportTraceServiceRequest:
    request = ExportTraceServiceRequest()
    request.ParseFromString(body)
    return request


def as_bytes(request: ExportTraceServiceRequest) -> bytes:
    """For comparing: two messages with NaN are never equal."""
    return bytes(request.SerializeToString(deterministic=True))


def span_of(**parts: Any) -> Span:
    """The message of a span with these parts."""
    usual: dict[str, Any] = {"name": "s", "context": CONTEXT, "resource": Resource({})}
    span: Span = request_of([ReadableSpan(**{**usual, **parts})]).resource_spans[0].scope_spans[0].spans[0]
    return span


@many
@given(spans(st.booleans()))
def test_a_span_of_the_sdk_says_the_same(span: ReadableSpan) -> None:
    """Whatever a span holds, a receiver reads the same from our bytes as from those of the stock exporter."""
    assert as_bytes(request_of([span])) == as_bytes(encode_spans([span]))


@many
@given(
    readable_spans(
        attributes=st.none() | ATTRIBUTES,
        events=st.lists(st.builds(Event, st.text(), st.none() | ATTRIBUTES, st.integers(0, 2**64 - 1)), max_size=3),
        links=st.lists(st.builds(Link, CONTEXTS, st.none() | ATTRIBUTES), max_size=3),
    )
)
def test_a_span_of_another_library_says_the_same(span: ReadableSpan) -> None:
    """The same for spans that were not made by a tracer, with plain dicts, no scope, or no times."""
    assert as_bytes(request_of([span])) == as_bytes(encode_spans([span]))


def test_what_is_kept_of_a_key_is_never_mixed_up() -> None:
    """A key with many values, equal ones of different types among them, has in each span the value of that span."""
    equal_values: list[Any] = [
        1,
        True,
        1.0,
        "1",
        0,
        False,
        0.0,
        -0.0,
        "",
        b"",
        (),
        (1,),
        (True,),
        ("1",),
        ["1"],
        {},
        None,
    ]
    many_values = [value for number in range(60) for value in (number, str(number), "x" * number, float(number))]
    values = [*equal_values, *reversed(equal_values), *many_values, *many_values, *equal_values]
    batch = [ReadableSpan("s", CONTEXT, resource=Resource({}), attributes={"varied": value}) for value in values]
    assert request_of(batch) == encode_spans(batch)


def test_keys_and_values_without_end_take_bounded_memory() -> None:
    """Spans with keys and values that never come again arrive as they are, and little is kept of them."""

    def batch(number: int) -> list[ReadableSpan]:
        attributes: list[Any] = [{f"key.{number}.{i}": i, f"k{i % 500}": f"value.{number}.{i}"} for i in range(1_000)]
        return [ReadableSpan("s", CONTEXT, resource=Resource({"r": number}), attributes=each) for each in attributes]

    assert request_of(batch(0)) == encode_spans(batch(0))
    tracemalloc.start()
    try:
        for number in range(1, 5):
            request_of(batch(number))
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < 1_500_000


def test_spans_share_their_resource_and_scope() -> None:
    """A batch is grouped as the stock exporter groups it: each resource and scope stands in the request once."""
    batch = list[ReadableSpan]()
    for name in ("a", "b"):
        resource = Resource({"service.name": name}, "https://example.org/schema")
        scopes = [InstrumentationScope("one"), InstrumentationScope("two", "1.0", "https://example.org/s", {"a": 1})]
        for scope in [*scopes, None, *scopes]:
            batch.append(ReadableSpan(name, CONTEXT, resource=resource, instrumentation_scope=scope))
    batch = [*batch[::2], *batch[1::2]]

    assert request_of(batch) == encode_spans(batch)
    assert [len(group.scope_spans) for group in request_of(batch).resource_spans] == [3, 3]


# --- Values that the official encoder cannot encode ---

SURROGATES = st.text(st.characters(categories=["Cs", "Lu"]), min_size=1)
LARGE = st.integers(2**63, 2**80) | st.integers(-(2**80), -(2**63) - 1)
HOSTILE = st.recursive(
    SURROGATES | LARGE | VALUES,
    lambda values: st.lists(values, max_size=3) | st.dictionaries(SURROGATES | KEYS, values, max_size=3),
    max_leaves=6,
)
HOSTILE_ATTRIBUTES = st.dictionaries(SURROGATES | KEYS, HOSTILE, max_size=5)


def mended(value: Any) -> Any:
    """The value as it is to arrive."""
    if isinstance(value, str):
        return sanitized(value) if has_surrogates(value) else value
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        return str(value)
    if isinstance(value, list | tuple):
        return [mended(item) for item in cast("list[Any]", value)]
    if isinstance(value, dict):
        return {mended(key): mended(item) for key, item in cast("dict[str, Any]", value).items()}
    return value


def unchanged(value: Any) -> Any:
    return value


def has_surrogates(text: str) -> bool:
    return any("\ud800" <= character <= "\udfff" for character in text)


def is_distinct(attributes: dict[str, Any]) -> bool:
    """Whether no two keys become the same."""
    return len(mended(attributes)) == len(attributes)


@many
@given(
    SURROGATES,
    HOSTILE_ATTRIBUTES.filter(is_distinct),
    SURROGATES,
    st.integers(0, 2**64 - 1),
)
def test_what_cannot_be_encoded_is_mended_alone(name: str, attributes: dict[str, Any], words: str, time: int) -> None:
    """A lone surrogate is replaced and an integer over 64 bits becomes a string; all else arrives as it is."""

    def span(mend: Callable[[Any], Any]) -> ReadableSpan:
        kept = mend(attributes)
        return ReadableSpan(
            mend(name),
            CONTEXT,
            resource=Resource({"r": mend(words)}, mend(words)),
            attributes=kept,
            events=[Event(mend(words), kept, time)],
            links=[Link(CONTEXT, kept)],
            status=Status(StatusCode.ERROR, mend(words)),
            start_time=time,
            end_time=time,
            instrumentation_scope=InstrumentationScope(mend(words), mend(words), mend(words), kept),
        )

    assert as_bytes(request_of([span(unchanged)])) == as_bytes(encode_spans([span(mended)]))


class Colour(StrEnum):
    RED = "red"


class Level(IntEnum):
    HIGH = 7


class Silent:
    def __str__(self) -> str:
        raise ValueError("no string")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (Colour.RED, "red"),
        (Level.HIGH, 7),
        (range(3), [0, 1, 2]),
        (bytearray(b"ab"), [97, 98]),
        (frozenset({1}), "frozenset({1})"),
        (Silent(), "<Silent>"),
        (10**5000, "<int>"),
    ],
    ids=["string enum", "integer enum", "range", "bytearray", "set", "without a string", "5000 digits"],
)
def test_a_value_of_another_class_arrives(value: object, expected: object) -> None:
    """A subclass arrives as what it is, and what no attribute can hold as a string."""
    assert span_of(attributes={"a": value}) == span_of(attributes={"a": expected})


@pytest.mark.parametrize("kind", ["array", "map"])
@pytest.mark.parametrize("depth", [5, 24, 200])
def test_deep_nesting_costs_no_span(kind: str, depth: int) -> None:
    """Up to 24 levels arrive whole; protobuf's parsers reject a message with many more, so deeper ones are cut off."""
    value: Any = "bottom"
    for _ in range(depth):
        value = [value] if kind == "array" else {"key": value}
    span = span_of(attributes={"deep": value, "other": 1}, events=[Event("e", {"deep": value}, 1)])

    encoded = span.SerializeToString()
    assert (b"bottom" in encoded) == (depth <= 24)
    assert ("…".encode() in encoded) == (depth > 24)
    assert span.attributes[1].value.int_value == 1


@pytest.mark.parametrize(
    ("time", "expected"),
    [(None, 0), (-1, 0), (2**64, 2**64 - 1), (1.5, 1), (float("nan"), 0), (float("inf"), 0), ("now", 0)],
)
def test_a_time_that_is_none_costs_no_span(time: Any, expected: int) -> None:
    """A time that is no integer of 64 bits is cut to one: a user may give any."""
    span = span_of(start_time=time, end_time=time, events=[Event("e", None, time if time is not None else 0)])
    assert (span.start_time_unix_nano, span.end_time_unix_nano) == (expected, expected)
    assert span.events[0].time_unix_nano == expected


@pytest.mark.parametrize(("name", "expected"), [(7, "7"), (b"ab", "ab"), (None, "None"), (Silent(), "<Silent>")])
def test_a_name_that_is_no_string_costs_no_span(name: Any, expected: str) -> None:
    """The name of a span and of an event is its string."""
    span = span_of(name=name, events=[Event(name, None, 1)])
    assert (span.name, span.events[0].name) == (expected, expected)


def test_a_kind_or_status_that_is_none_costs_no_span() -> None:
    """A user who gives a string for the kind, or for the code of the status, sends a span without it."""
    status: Any = SimpleNamespace(status_code="ERROR", description="broken")
    span = span_of(kind="client", status=status)
    assert (span.kind, span.status.code, span.status.message) == (0, 0, "broken")


def test_ids_of_any_size_cost_no_span() -> None:
    """An id generator that makes longer ids loses their upper bits, in the span and in its children alike."""
    context = SpanContext(2**128 + 1, 2**64 + 2, is_remote=False)
    span = span_of(context=context, parent=context)
    assert (span.trace_id, span.span_id) == (b"\0" * 15 + b"\1", b"\0" * 7 + b"\2")
    assert span.parent_span_id == span.span_id


@many
@given(spans(st.just(False)), ATTRIBUTES)
def test_an_interrupted_span_is_its_start_and_a_failure(span: ReadableSpan, attributes: dict[str, Any]) -> None:
    """The span has all that it had at its start, and an end, further attributes, and a status that says why."""
    item = interrupted_item(span_item(span), 9, attributes, "the process ended first")

    expected = encode_spans([span])
    message = expected.resource_spans[0].scope_spans[0].spans[0]
    message.end_time_unix_nano = 9
    added = encode_spans([ReadableSpan("s", CONTEXT, resource=Resource({}), attributes=attributes)])
    message.attributes.extend(added.resource_spans[0].scope_spans[0].spans[0].attributes)
    message.status.code = message.status.STATUS_CODE_ERROR
    message.status.message = "the process ended first"
    assert as_bytes(parsed(request_body([item]))) == as_bytes(expected)
    assert item.count == 1


def test_two_threads_encode_at_once() -> None:
    """Spans that end in several threads, each with keys and values of its own, all arrive as they are."""

    def batch(number: int) -> list[ReadableSpan]:
        values: list[Any] = [
            {f"k{number}-{i % 300}": f"v{i}", "shared": i % 50, "id": f"{number}-{i}"} for i in range(600)
        ]
        return [ReadableSpan("s", CONTEXT, resource=Resource({"n": number}), attributes=value) for value in values]

    batches = [batch(number) for number in range(4)]
    with ThreadPoolExecutor(4) as pool:
        requests = [*pool.map(request_of, batches)]
    assert requests == [encode_spans(batch) for batch in batches]
