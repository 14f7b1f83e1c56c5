"""When a failed attempt is retried, and after how long."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracemind_otel.ai.llm.retry import RetryPolicy, parse_retry_after
from tracemind_otel.errors import LLMError, LLMQuotaError, LLMRateLimitError, LLMServerError

NOW = datetime(2026, 11, 22, 12, 0, 0, tzinfo=UTC)
PATIENT = RetryPolicy(max_retries=100)


def failed(*, retry_after_s: float | None = None) -> LLMError:
    return LLMServerError("failed", status_code=503, retry_after_s=retry_after_s)


@pytest.mark.parametrize(
    ("failed_attempts", "longest_s"), [(1, 0.5), (2, 1.0), (3, 2.0), (4, 4.0), (5, 4.0), (99, 4.0)]
)
def test_waits_double_from_half_a_second_to_four(failed_attempts: int, longest_s: float) -> None:
    """The waits are 0.5, 1, 2, 4, 4 ... seconds, minus the jitter."""
    assert PATIENT.next_delay_s(failed(), failed_attempts=failed_attempts, chance=lambda: 0.0) == longest_s
    assert PATIENT.next_delay_s(failed(), failed_attempts=failed_attempts, chance=lambda: 1.0) == longest_s * 0.75


@given(failed_attempts=st.integers(1, 100))
def test_jitter_only_shortens_a_wait(failed_attempts: int) -> None:
    """The jitter takes at most a quarter off a wait, which is never over four seconds."""
    longest_s = min(0.5 * 2 ** (failed_attempts - 1), 4.0)
    delay_s = PATIENT.next_delay_s(failed(), failed_attempts=failed_attempts)
    assert delay_s is not None
    assert longest_s * 0.75 <= delay_s <= longest_s


def test_jitter_differs_from_call_to_call() -> None:
    """Clients that failed together do not retry together."""
    assert len({PATIENT.next_delay_s(failed(), failed_attempts=1) for _ in range(20)}) > 1


@pytest.mark.parametrize("retry_after_s", [0.01, 1.5, 30.0, 60.0])
def test_a_server_delay_comes_first_and_is_kept_to_the_letter(retry_after_s: float) -> None:
    """A delay that the server asks for is kept without jitter, though it is over four seconds."""
    delay_s = PATIENT.next_delay_s(failed(retry_after_s=retry_after_s), failed_attempts=1, chance=lambda: 1.0)
    assert delay_s == retry_after_s


def test_a_server_delay_over_a_minute_ends_the_call() -> None:
    """A server's delay of more than 60 s ends the call."""
    assert PATIENT.next_delay_s(failed(retry_after_s=60.001), failed_attempts=1) is None


@pytest.mark.parametrize(
    ("error", "remaining_s", "expected"),
    [
        (failed(), 0.5, None),
        (failed(), 0.499, None),
        (failed(), 0.501, 0.5),
        (failed(retry_after_s=2.0), 2.0, None),
        (failed(retry_after_s=2.0), 2.1, 2.0),
        (failed(), 0.0, None),
    ],
)
def test_a_wait_past_the_deadline_is_not_begun(error: LLMError, remaining_s: float, expected: float | None) -> None:
    """A wait that would reach the deadline ends the call at once."""
    assert RetryPolicy().next_delay_s(error, failed_attempts=1, remaining_s=remaining_s, chance=lambda: 0.0) == expected


@pytest.mark.parametrize(
    ("max_retries", "failed_attempts", "goes_on"),
    [(2, 1, True), (2, 2, True), (2, 3, False), (0, 1, False), (1, 1, True), (1, 2, False)],
)
def test_max_retries_are_attempts_after_the_first(max_retries: int, failed_attempts: int, goes_on: bool) -> None:
    """`max_retries=2` means three attempts."""
    policy = RetryPolicy(max_retries=max_retries)
    assert (policy.next_delay_s(failed(), failed_attempts=failed_attempts) is not None) is goes_on


def test_what_cannot_be_mended_is_not_repeated() -> None:
    """A spent quota is not retried, even if the server names a delay."""
    error = LLMQuotaError("spent", status_code=429, retry_after_s=1.0)
    assert RetryPolicy().next_delay_s(error, failed_attempts=1) is None


def test_a_rate_limit_is_repeated() -> None:
    """A rate limit without a delay is retried after the policy's own wait."""
    assert RetryPolicy().next_delay_s(LLMRateLimitError("slow", status_code=429), failed_attempts=1) is not None


RETRY_AFTER: list[tuple[dict[str, str], float | None]] = [
    ({}, None),
    ({"retry-after": "3"}, 3.0),
    ({"retry-after": "0.25"}, 0.25),
    ({"retry-after": " 7 "}, 7.0),
    ({"retry-after-ms": "1500"}, 1.5),
    ({"retry-after-ms": "250", "retry-after": "9"}, 0.25),
    ({"retry-after-ms": "0", "retry-after": "1"}, 1.0),
    ({"retry-after-ms": "soon", "retry-after": "1"}, 1.0),
    ({"retry-after-ms": "nan", "retry-after": "2"}, 2.0),
    ({"retry-after": "0"}, None),
    ({"retry-after": "-5"}, None),
    ({"retry-after": "nan"}, None),
    ({"retry-after": "inf"}, None),
    ({"retry-after": "-inf"}, None),
    ({"retry-after": "1e999"}, None),
    ({"retry-after": ""}, None),
    ({"retry-after": "soon"}, None),
    ({"retry-after": "3 s"}, None),
    ({"retry-after": "Sun, 22 Nov 2026 12:00:30 GMT"}, 30.0),
    ({"retry-after": "Sunday, 22-Nov-26 12:00:30 GMT"}, 30.0),
    ({"retry-after": "Sun Nov 22 12:00:30 2026"}, 30.0),
    ({"retry-after": "Sun, 22 Nov 2026 14:00:30 +0200"}, 30.0),
    ({"retry-after": "Sun, 22 Nov 2026 12:00:30 -0000"}, 30.0),
    ({"retry-after": "Sun, 22 Nov 2026 11:59:59 GMT"}, None),
    ({"retry-after": "Sun, 22 Nov 2026 12:00:00 GMT"}, None),
    ({"retry-after": "Mon, 01 Jan 0001 00:00:00 GMT"}, None),
    ({"retry-after": "Sun, 99 Nov 2026 12:00:30 GMT"}, None),
    ({"retry-after": "2026-11-22T12:00:30Z"}, None),
    ({"llm_provider-retry-after": "7"}, 7.0),
    ({"llm_provider-retry-after-ms": "1500", "llm_provider-retry-after": "9"}, 1.5),
    ({"retry-after": "2", "llm_provider-retry-after": "7"}, 2.0),
]


@pytest.mark.parametrize(("headers", "expected"), RETRY_AFTER)
def test_retry_after_in_all_its_forms(headers: Mapping[str, str], expected: float | None) -> None:
    """Milliseconds win over seconds, dates become seconds, and nonsense and the past are ignored."""
    assert parse_retry_after(headers, NOW) == expected


@given(value=st.text(), milliseconds=st.none() | st.text())
def test_no_retry_after_ever_raises(value: str, milliseconds: str | None) -> None:
    """Any value of the header gives a positive number of seconds or none."""
    headers = {"retry-after": value} | ({} if milliseconds is None else {"retry-after-ms": milliseconds})
    seconds = parse_retry_after(headers, NOW)
    assert seconds is None or 0.0 < seconds < float("inf")


def test_a_date_is_counted_from_now() -> None:
    """Without a given time, the machine's clock counts."""
    assert parse_retry_after({"retry-after": "Fri, 01 Jan 2100 00:00:00 GMT"}) == pytest.approx(
        (datetime(2100, 1, 1, tzinfo=UTC) - datetime.now(UTC)).total_seconds(), abs=5.0
    )
