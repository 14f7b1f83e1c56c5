"""The attempts of one call: each has a time limit, and is repeated while a retry can help."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from functools import lru_cache
from typing import NoReturn, TypeVar

from .._base.context import OwnContext
from ..ai.llm.liveness import DeadlinePassedError, Patience, ProviderSilentError
from ..ai.llm.resends import telling
from ..ai.llm.retry import RetryPolicy
from ..ai.llm.scrub import scrub
from ..ai.llm.types import Shortcut, StreamEvent
from ..errors import ConfigError, LLMClientError, LLMConnectionError, LLMError, LLMTimeoutError
from ..flows.correlation import hidden_correlation
from ..recording.port import StepHandle, StepRetry
from .accounting import CallAccount
from .config import CallTarget
from .lost_replies import is_lost

log = logging.getLogger(__name__)

T = TypeVar("T")


@lru_cache(maxsize=64)
def _policy(max_retries: int) -> RetryPolicy:
    return RetryPolicy(max_retries=max_retries)


class Attempts:
    """The attempts of one call."""

    def __init__(self, target: CallTarget, account: CallAccount, handle: StepHandle) -> None:
        self._target, self._account, self._handle = target, account, handle
        self._policy = _policy(target.cfg.max_retries)
        deadline_ms = target.cfg.deadline_ms
        self._ends_at = None if deadline_ms is None else time.monotonic() + deadline_ms / 1000.0
        self._patience: Patience | None = None
        self._context: OwnContext | None = None
        self.made = 0
        self.retries = 0
        self.is_running = False

    async def until_success(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """The result of the first attempt that succeeds.

        Raises:
            LLMError: an attempt failed that is not repeated.
        """
        while True:
            self.made += 1
            self.is_running = True
            if self._patience is not None:
                self._patience.is_unsent = False
            try:
                return await attempt()
            except LLMError as error:
                if is_lost(error):
                    await self._account.until_priced()
                delay_s = self._policy.next_delay_s(error, failed_attempts=self.made, remaining_s=self.remaining_s())
                if delay_s is None or not await self._may_repeat(error):
                    raise
                self.is_running = False
                self._report_retry(error, delay_s)
            await asyncio.sleep(delay_s)
            self._handle.next_attempt()

    def take_back(self) -> None:
        """Do not count the running attempt: it sent nothing."""
        self.made = max(0, self.made - 1)
        self.is_running = False

    @property
    def may_have_sent(self) -> bool:
        """Whether the running attempt may have reached the provider."""
        return self.is_running and not (self._patience is not None and self._patience.is_unsent)

    @property
    def lost_requests(self) -> int:
        """Requests that were probably read by the provider, and sent again within an attempt."""
        return 0 if self._patience is None else self._patience.lost_requests

    async def _may_repeat(self, error: LLMError) -> bool:
        """Whether the budgets have room for another attempt beside this one, which may be billed."""
        reservation = self._account.reservation
        if reservation is None or not error.may_be_billed or await reservation.repeat_soon():
            return True
        log.info("%s: attempt %d failed, and no budget is left for another", self._target.name, self.made)
        return False

    def _report_retry(self, error: LLMError, delay_s: float) -> None:
        self.retries += 1
        retry = StepRetry(
            attempt=self.retries,
            max_attempts=self._policy.max_retries + 1,
            delay_s=delay_s,
            reason=error.retry_reason,
            error_type=error.error_type,
            status_code=error.status_code,
            presumed_cost_usd=self._account.presume(error.reply) if is_lost(error) else None,
        )
        failed = f"attempt {retry.attempt} of {retry.max_attempts} failed ({retry.error_type})"
        log.info("%s: %s, next in %.3g s", self._target.name, failed, delay_s)
        self._handle.retry(retry)

    async def ask_provider(self, work: Callable[[], Awaitable[T]]) -> T:
        """Await the client's work under the call's span, within the time-out and the deadline.

        Raises:
            LLMError: the client's error, as one of our error tree and without the prompt.
            ConfigError: the client cannot make such a call.
        """
        patience = self._started_patience()
        with self._handle.active(), hidden_correlation(), telling(self._account.reservation), patience.listening():
            try:
                with patience:
                    return await work()
            except Exception as error:
                self._raise_typed(error)

    async def ask_in_turns(self, work: Callable[[], Awaitable[T]]) -> T:
        """Do the same for one of many waits, in a context that the code between them never sees."""
        patience = self._started_patience()
        if self._context is None:
            reservation = self._account.reservation
            self._context = OwnContext(
                self._handle.active, hidden_correlation, lambda: telling(reservation), patience.listening
            )
        try:
            with patience:
                return await self._context.run(work())
        except Exception as error:
            self._raise_typed(error)

    async def take_shortcut(self, way: Shortcut) -> Sequence[StreamEvent] | None:
        """Wait for the next events of a stream without its generator; `None` if the generator has to go on."""
        patience = self._started_patience()
        try:
            with patience:
                while not way.is_over():
                    try:
                        data = await way.read()
                    except Exception:
                        return None  # the generator meets the same, and knows what it is
                    if not data:
                        return None
                    patience.beat()
                    if events := way.feed(data):
                        return events
                return None
        except Exception as error:
            self._raise_typed(error)

    async def close(self, stream: AsyncGenerator[object]) -> None:
        """Close what `ask_in_turns` read, in the same context."""
        closing = stream.aclose()
        await (closing if self._context is None else self._context.run(closing))

    def end_wait(self, error: Exception) -> None:
        """End the wait for the provider with this error, if one goes on."""
        if self._patience is not None:
            self._patience.end(error)

    def _started_patience(self) -> Patience:
        """The clock of all attempts; the time until the deadline is counted from the call's start."""
        if self._patience is None:
            self._patience = Patience(self._target.cfg.timeout_ms / 1000.0, self.remaining_s())
        return self._patience

    def _raise_typed(self, error: Exception) -> NoReturn:
        """Raise an error of our tree, without the prompt, for what ended a wait."""
        if isinstance(error, DeadlinePassedError):
            raise self.deadline_error() from None
        if isinstance(error, ProviderSilentError):
            said = f"timeout after {self._target.cfg.timeout_ms / 1000.0:.2f}s"
            raise LLMTimeoutError(said, may_be_billed=self.may_have_sent) from None
        if isinstance(error, StopAsyncIteration):
            raise LLMConnectionError("the stream ended without its last event") from None
        if isinstance(error, ConfigError):
            raise error
        prompt = self._target.request.texts
        if isinstance(error, LLMError):
            error.reword(scrub(_message_of(error) or type(error).__name__, prompt=prompt))
            raise error
        raise as_llm_error(error, prompt=prompt) from error

    def deadline_error(self) -> LLMTimeoutError:
        """The error of a call whose deadline has passed."""
        said = f"deadline of {self._target.cfg.deadline_ms} ms exceeded"
        return LLMTimeoutError(said, retryable=False, may_be_billed=self.may_have_sent)

    def remaining_s(self) -> float | None:
        """Seconds until the deadline; `None` where there is none."""
        return None if self._ends_at is None else max(0.0, self._ends_at - time.monotonic())

    def stop(self) -> None:
        """Stop the timer and leave the context."""
        if self._patience is not None:
            self._patience.stop()
        if self._context is not None:
            self._context.leave()


def as_llm_error(error: Exception, *, prompt: Sequence[str]) -> LLMError:
    """The error of our tree for one of a client; its message may hold the prompt, which is removed."""
    said = scrub(_message_of(error), prompt=prompt)
    message = f"{type(error).__name__}: {said}" if said else type(error).__name__
    if isinstance(error, TimeoutError):
        return LLMTimeoutError(message)
    if isinstance(error, ConnectionError):
        return LLMConnectionError(message)
    fault = LLMClientError(message)
    fault.__cause__ = error
    return fault


def _message_of(error: Exception) -> str:
    """The message of an exception; empty if making it fails."""
    try:
        return str(error)
    except Exception:
        return ""
