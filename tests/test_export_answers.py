"""What a receiver's answer means: taken, not now, unknown, too large or never; and what it says of itself."""

from __future__ import annotations

import importlib
import json
import time
from email.utils import formatdate
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import (
    ExportLogsPartialSuccess,
    ExportLogsServiceResponse,
)
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsPartialSuccess,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTracePartialSuccess,
    ExportTraceServiceResponse,
)

from tracemind_otel.otel.export.answers import (
    Answer,
    Delivered,
    Later,
    Refused,
    TooLarge,
    Unknown,
    grpc_answer,
    http_answer,
    retry_after_s,
    secrets_in,
)
from tracemind_otel.otel.export.otlp_response import partial_success

AnyMessage: Any = importlib.import_module("google.protobuf.any_pb2").Any
Duration: Any = importlib.import_module("google.protobuf.duration_pb2").Duration
RetryInfo: Any = importlib.import_module("google.rpc.error_details_pb2").RetryInfo
Status: Any = importlib.import_module("google.rpc.status_pb2").Status
# All untyped.

PROTOBUF = {"content-type": "application/x-protobuf"}
JSON = {"content-type": "application/json; charset=utf-8"}
SECRET = "Zq81LmmT0x9vB3"


def rejected_by(signal: str, count: int, message: str) -> bytes:
    """The protobuf answer of a receiver that rejects a part."""
    if signal == "traces":
        part = ExportTracePartialSuccess(rejected_spans=count, error_message=message)
        return bytes(ExportTraceServiceResponse(partial_success=part).SerializeToString())
    if signal == "metrics":
        points = ExportMetricsPartialSuccess(rejected_data_points=count, error_message=message)
        return bytes(ExportMetricsServiceResponse(partial_success=points).SerializeToString())
    records = ExportLogsPartialSuccess(rejected_log_records=count, error_message=message)
    return bytes(ExportLogsServiceResponse(partial_success=records).SerializeToString())


# --- HTTP ---


@given(
    signal=st.sampled_from(["traces", "metrics", "logs"]),
    count=st.integers(0, 2**63 - 1),
    message=st.text(max_size=300),
)
def test_a_partial_success_is_read(signal: str, count: int, message: str) -> None:
    """The count and the message of each signal's answer in protobuf are read, whatever they are."""
    assert partial_success(rejected_by(signal, count, message), is_json=False) == (count, message)


@pytest.mark.parametrize("field", ["rejectedSpans", "rejectedDataPoints", "rejectedLogRecords", "rejected_spans"])
@pytest.mark.parametrize("count", [3, "3"])
def test_a_partial_success_in_json_is_read(field: str, count: object) -> None:
    """In JSON a count may be a string, as protobuf's mapping writes 64-bit integers."""
    body = json.dumps({"partialSuccess": {field: count, "errorMessage": "no"}, "new": 1}).encode()
    assert http_answer(200, JSON, body) == Delivered(3, "no")


@given(body=st.binary(max_size=200), is_json=st.booleans())
def test_an_answer_without_meaning_is_a_success(body: bytes, is_json: bool) -> None:
    """No body raises anything; one that cannot be read rejects nothing, or what its bytes happen to say."""
    rejected, _ = partial_success(body, is_json=is_json)
    assert rejected >= 0


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b"[1, 2",
        b"[]",
        b"null",
        b'{"partialSuccess": []}',
        b'{"partialSuccess": {"rejectedSpans": "many"}}',
        b'{"partialSuccess": {"rejectedSpans": -1}}',
        b'{"partialSuccess": {"rejectedSpans": {}}}',
        b"[" * 100_000,
    ],
)
def test_json_that_rejects_nothing(body: bytes) -> None:
    """Only a positive count rejects something."""
    assert http_answer(200, JSON, body) == Delivered()


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (429, Later),
        (503, Later),
        (502, Unknown),
        (504, Unknown),
        (102, Unknown),
        (103, Unknown),
        (413, TooLarge),
        (301, Refused),
        (308, Refused),
        (400, Refused),
        (401, Refused),
        (403, Refused),
        (404, Refused),
        (405, Refused),
        (407, Refused),
        (408, Refused),
        (415, Refused),
        (500, Refused),
        (501, Refused),
        (599, Refused),
        (799, Refused),
        (200, Delivered),
        (202, Delivered),
        (204, Delivered),
    ],
)
def test_each_status(status: int, kind: type[Answer]) -> None:
    """Each status has one meaning. A gateway that got no answer cannot know whether the request was taken."""
    assert isinstance(http_answer(status, {}, b""), kind)


@pytest.mark.parametrize("body", [b"<!DOCTYPE html><title>Sign in", b"\n <html>", b"<HTML>"])
@pytest.mark.parametrize("content_type", ["text/html; charset=utf-8", "text/plain", ""])
def test_a_page_is_no_answer(body: bytes, content_type: str) -> None:
    """A page of HTML, whatever type it claims, comes from a proxy or a login, and nothing was taken."""
    answer = http_answer(200, {"content-type": content_type}, body)
    assert answer == Refused("the answer is 200 with a page of HTML, so no OTLP receiver is there")


def test_the_message_of_an_error_is_said() -> None:
    """An OTLP error says in its Status what was wrong; no key is repeated, and no page of another type."""
    status = Status(message=f"label x is\ntoo long, key {SECRET}").SerializeToString()
    secrets = secrets_in({"authorization": f"Bearer {SECRET}"})
    expected = Refused("400 Bad Request: label x is too long, key [redacted]")
    assert http_answer(400, PROTOBUF, status, secrets) == expected
    as_json = json.dumps({"code": 3, "message": f"label x is too long, key {SECRET}"}).encode()
    assert http_answer(400, JSON, as_json, secrets) == expected
    assert http_answer(400, {"content-type": "text/plain"}, SECRET.encode(), secrets) == Refused("400 Bad Request")


def test_the_place_of_a_redirect_is_not_said() -> None:
    """A redirect's address may hold a token."""
    assert SECRET not in repr(http_answer(302, {"location": f"http://h/?t={SECRET}"}, b""))


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("7", 7.0),
        (" 7 ", 7.0),
        ("0.5", 0.5),
        ("-3", 0.0),
        ("soon", None),
        ("", None),
        ("nan", None),
        ("inf", None),
        (None, None),
    ],
)
def test_seconds_of_retry_after(value: str | None, seconds: float | None) -> None:
    """Seconds are read; what is no number is no wish."""
    assert retry_after_s(value) == seconds


def test_dates_of_retry_after() -> None:
    """A date in the future is a wait until then; one in the past is none."""
    found = retry_after_s(formatdate(time.time() + 60, usegmt=True))
    assert found is not None
    assert 50 < found <= 60
    assert retry_after_s(formatdate(time.time() - 60, usegmt=True)) == 0.0
    assert retry_after_s("Fri, 99 Nov 2026 04:00:00 GMT") is None


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_retry_after_is_handed_on(status: int) -> None:
    """Each answer after which the request is sent again says how long to wait."""
    answer = http_answer(status, {"retry-after": "9"}, b"")
    assert isinstance(answer, Later | Unknown)
    assert answer.after_s == 9.0


# --- gRPC ---


@pytest.mark.parametrize(
    ("code", "details", "kind"),
    [
        ("UNAVAILABLE", "busy", Later),
        ("UNAVAILABLE", "failed to connect to all addresses; last error: Socket closed", Later),
        ("UNAVAILABLE", "errors resolving nowhere:4317: name not found", Later),
        ("UNAVAILABLE", "Stream removed (Socket closed)", Unknown),
        ("UNAVAILABLE", "recvmsg:Connection reset by peer", Unknown),
        ("UNAVAILABLE", "GOAWAY received", Unknown),
        ("DEADLINE_EXCEEDED", "Deadline Exceeded", Unknown),
        ("CANCELLED", "Channel closed!", Unknown),
        ("ABORTED", "", Later),
        ("OUT_OF_RANGE", "", Later),
        ("DATA_LOSS", "", Later),
        ("RESOURCE_EXHAUSTED", "too many requests", Later),
        ("RESOURCE_EXHAUSTED", "SERVER: Received message larger than max (5000000 vs. 4194304)", TooLarge),
        ("RESOURCE_EXHAUSTED", "grpc: received message larger than max (5 vs. 4)", TooLarge),
        ("RESOURCE_EXHAUSTED", "grpc: received message after decompression larger than max (5 vs. 4)", TooLarge),
        ("UNAUTHENTICATED", "", Refused),
        ("PERMISSION_DENIED", "", Refused),
        ("INVALID_ARGUMENT", "", Refused),
        ("UNIMPLEMENTED", "", Refused),
        ("INTERNAL", "", Refused),
        ("UNKNOWN", "", Refused),
    ],
)
def test_each_code(code: str, details: str, kind: type[Answer]) -> None:
    """Each code has one meaning; UNAVAILABLE is told apart by what gRPC says of the connection."""
    assert isinstance(grpc_answer(code, details, {}), kind)


@pytest.mark.parametrize("seconds", [0.0, 0.25, 3.0, 7200.5])
def test_retry_info_is_read(seconds: float) -> None:
    """A wait is read from the metadata of its own, and from the details of a Status, as Go's servers send it."""
    info = RetryInfo(retry_delay=Duration(seconds=int(seconds), nanos=int(seconds % 1 * 1e9)))
    status = Status(
        code=14, message="busy", details=[AnyMessage(type_url="type.googleapis.com/other", value=b"x"), wrapped(info)]
    )
    for trailing in (
        {"google.rpc.retryinfo-bin": info.SerializeToString()},
        {"grpc-status-details-bin": status.SerializeToString()},
    ):
        answer = grpc_answer("UNAVAILABLE", "busy", trailing)
        assert isinstance(answer, Later)
        assert answer.after_s == seconds


def wrapped(info: Any) -> Any:
    packed = AnyMessage()
    packed.Pack(info)
    return packed


@given(value=st.binary(max_size=60))
def test_metadata_without_meaning(value: bytes) -> None:
    """No metadata raises anything."""
    trailing: dict[str, Any] = {"google.rpc.retryinfo-bin": value, "grpc-status-details-bin": value, "x": "y"}
    assert isinstance(grpc_answer("UNAVAILABLE", "busy", trailing), Later)


def test_the_codes_that_are_retried_can_be_chosen() -> None:
    """A variable of the official exporter names the codes after which a request is sent again."""
    chosen = frozenset({"INTERNAL"})
    assert isinstance(grpc_answer("INTERNAL", "", {}, (), chosen), Later)
    assert isinstance(grpc_answer("UNAVAILABLE", "", {}, (), chosen), Refused)


def test_no_key_is_said_over_grpc() -> None:
    """A receiver that repeats the key in its message has it taken out."""
    secrets = secrets_in({"authorization": f"Bearer {SECRET}"})
    answer = grpc_answer("UNAUTHENTICATED", f"key {SECRET} is unknown", {}, secrets)
    assert answer == Refused(
        "UNAUTHENTICATED: key [redacted] is unknown; the key in the headers is probably missing or wrong",
        code="UNAUTHENTICATED",
    )
