"""When a failed attempt is repeated, and after how long."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from ...errors import LLMError


@dataclass(frozen=True, kw_only=True, slots=True)
class RetryPolicy:
    """Exponential backoff with jitter; a delay that the server asks for replaces it."""

    max_retries: int = 2
    """Attempts after the first one; 2 means three attempts."""
    first_delay_s: float = 0.5
    """Seconds before the first retry."""
    max_delay_s: float = 4.0
    """The longest backoff in seconds; it doubles up to this."""
    jitter: float = 0.25
    """The greatest random share taken off a backoff, so that clients do not retry together."""
    max_server_delay_s: float = 60.0
    """The longest delay in seconds that a server may ask for; a call with a longer one ends at once."""

    def next_delay_s(
        self,
        error: LLMError,
        *,
        failed_attempts: int,
        remaining_s: float | None = None,
        chance: Callable[[], float] = random.random,
    ) -> float | None:
        """Seconds to wait before the next attempt, or `None` if there is to be none.

        Args:
            error: what ended the last attempt.
            failed_attempts: the number of failed attempts, including the last one.
            remaining_s: seconds until the call's deadline; `None` without one.
            chance: a number from 0 to 1, for the jitter.
        """
        if not error.retryable or failed_attempts > self.max_retries:
            return None
        delay_s = self._delay_s(error, failed_attempts, chance)
        if delay_s is None or (remaining_s is not None and delay_s >= remaining_s):
            return None
        return delay_s

    def _delay_s(self, error: LLMError, failed_attempts: int, chance: Callable[[], float]) -> float | None:
        if error.retry_after_s is not None:
            return error.retry_after_s if error.retry_after_s <= self.max_server_delay_s else None
        backoff_s = self.first_delay_s * 2.0 ** min(failed_attempts - 1, 32)
        return min(backoff_s, self.max_delay_s) * (1.0 - self.jitter * chance())


def parse_retry_after(headers: Mapping[str, str], now: datetime | None = None) -> float | None:
    """Seconds that a reply asks to wait: `retry-after-ms`, else `retry-after` in seconds or as an HTTP date.

    A value that is not positive or not readable is ignored (Azure sends `retry-after-ms: 0` together with
    `retry-after: 1`). LiteLLM passes the headers of the provider behind it on with a prefix.
    Source: RFC 9110, 10.2.3; LiteLLM, "Response Headers".
    """
    if milliseconds := _positive(_own_or_passed_on(headers, "retry-after-ms")):
        return milliseconds / 1000.0
    value = _own_or_passed_on(headers, "retry-after")
    return _positive(value) or _seconds_until(value, now)


def _own_or_passed_on(headers: Mapping[str, str], name: str) -> str | None:
    return headers.get(name) or headers.get(f"llm_provider-{name}")


def _positive(value: str | None) -> float | None:
    try:
        number = float(value) if value is not None else 0.0
    except ValueError:
        return None
    return number if 0.0 < number < float("inf") else None


def _seconds_until(value: str | None, now: datetime | None) -> float | None:
    try:
        date = parsedate_to_datetime(value or "")
    except (TypeError, ValueError):
        return None
    if date.tzinfo is None:
        date = date.replace(tzinfo=UTC)
    return _positive(str((date - (now or datetime.now(UTC))).total_seconds()))
