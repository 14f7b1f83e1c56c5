"""The error tree. The class of an error says who can act on it, and whether it is retried.

```
TraceMindError
├── ConfigError (ValueError)          the caller's mistake: raised at once, never retried
│   └── UnknownProviderError          no provider of that name; the message lists the known ones
├── OTLPFileError (ValueError)        a file that `view` cannot show (`tracemind_otel.cli.otlp_file`)
└── LLMError                          a run-time fault of one model call; the step returns it as a reason
    ├── LLMTimeoutError (TimeoutError)    no answer in time                                retried
    ├── LLMConnectionError                refused, unresolved, reset, or cut mid-body      retried
    ├── LLMResponseError                  a reply that cannot be read                      retried
    ├── LLMClientError                    a client raised something outside this tree      not retried
    ├── BudgetExceededError               a budget around the call is spent: not sent      not retried
    └── LLMStatusError                    an HTTP status that is not a success
        ├── LLMRequestError               400, 413, 422 ...: the request itself is wrong   not retried
        ├── LLMAuthenticationError        401, 403, or no key at all                       not retried
        ├── LLMNotFoundError              404: no such model or path                       not retried
        ├── LLMQuotaError                 402, or a 429 whose quota is spent               not retried
        ├── LLMRateLimitError             429, 498                                         retried
        └── LLMServerError                5xx, 408, 409                                    retried
```

`asyncio.CancelledError` is outside the tree and is never turned into one of these.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Literal

if TYPE_CHECKING:
    from .ai.llm.types import LLMResponse

RetryReason = Literal["rate_limit", "server_error", "timeout", "connection", "invalid_response"]
"""The reason for a retry; the value of `tracemind.retry.reason`."""

BudgetKind = Literal["cost_usd", "tokens", "llm_calls"]
"""The kind of a budget's limit; the value of `tracemind.budget.kind`."""

_LOW_CARDINALITY = re.compile(r"[A-Za-z][A-Za-z0-9_.\-]{0,63}|[45][0-9]{2}")


class TraceMindError(Exception):
    """Base of every error that this package raises on purpose."""


class ConfigError(TraceMindError, ValueError):
    """A mistake of the caller; the message names the field, its value and what is allowed."""


class UnknownProviderError(ConfigError):
    """No provider is registered under the name."""


class LLMError(TraceMindError):
    """A run-time fault of one model call.

    Args:
        message: what went wrong and what to do; contains neither a key nor the prompt.
        status_code: the HTTP status of a failure; `None` for an error inside a successful reply.
        code: the provider's error code: a string, or a number that is not an HTTP status.
        provider_type: the provider's error type, if it sent one.
        request_id: the provider's id of the request, for its support desk.
        retry_after_s: seconds that the server asked to wait, if it did.
        retryable: whether a retry can help; `None` for the default of the class.
        may_be_billed: whether the provider may charge for the attempt; `None` for the default of the class: a reply
            with an error status is free, any other fault may be billed.
        reply: the reply received so far, with its id, model and usage, if any of it arrived.
    """

    retry_reason: ClassVar[RetryReason] = "server_error"
    retried_by_default: ClassVar[bool] = False
    billed_by_default: ClassVar[bool] = True
    fixed_error_type: ClassVar[str | None] = None

    def __init__(
        self,
        message: str,
        *,
        status_code: int | None = None,
        code: str | None = None,
        provider_type: str | None = None,
        request_id: str | None = None,
        retry_after_s: float | None = None,
        retryable: bool | None = None,
        may_be_billed: bool | None = None,
        reply: LLMResponse | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.result: dict[str, Any] | None = None
        """The plain result of the call, where the error comes from `llm_call` or a stream."""
        self.reply = reply
        self.status_code = status_code
        self.code = code
        self.provider_type = provider_type
        self.request_id = request_id
        self.retry_after_s = retry_after_s
        self.retryable = self.retried_by_default if retryable is None else retryable
        self.may_be_billed = self.billed_by_default if may_be_billed is None else may_be_billed

    def __str__(self) -> str:
        return self.message

    def reword(self, message: str) -> None:
        """Replace the message, in `args` too, so that no `repr` shows the old one."""
        self.message = message
        self.args = (message,)

    @property
    def error_type(self) -> str:
        """The value of `error.type`, the same on span, event, metric and result.

        The provider's code, else the HTTP status as a string, else the provider's type, else the name of the class.
        The number of values stays low, as OpenTelemetry's "Recording errors" requires.
        """
        if self.code and _LOW_CARDINALITY.fullmatch(self.code):
            return self.code
        if self.status_code is not None:
            return str(self.status_code)
        if self.provider_type and _LOW_CARDINALITY.fullmatch(self.provider_type):
            return self.provider_type
        return self._own_error_type()

    def _own_error_type(self) -> str:
        return self.fixed_error_type or type(self).__name__


class LLMTimeoutError(LLMError, TimeoutError):
    """No whole answer within the time given."""

    retry_reason = "timeout"
    retried_by_default = True
    fixed_error_type = "timeout"


class LLMConnectionError(LLMError):
    """The connection was refused, unresolved or reset, or the reply was cut before its end."""

    retry_reason = "connection"
    retried_by_default = True


class LLMResponseError(LLMError):
    """The reply is not in the provider's format."""

    retry_reason = "invalid_response"
    retried_by_default = True


class LLMClientError(LLMError):
    """A client raised an exception outside this tree, which is the `__cause__`."""

    def _own_error_type(self) -> str:
        return type(self.__cause__ or self).__name__


class BudgetExceededError(LLMError):
    """A budget around the call denied it; the call was not sent.

    The arguments are attributes too; the step's result has them under `budget`.

    Args:
        message: what was spent on which models, and what to do.
        budget: the name of the budget, which is that of its flow.
        kind: the kind of limit.
        limit: the limit, in USD, tokens or calls.
        spent: what the attempts that have ended spent of it, in the same unit.
        spent_on: `spent` for each `provider/model`, the highest first.
        retry_after_s: seconds until the window of a shared budget ends, if there may be room for the call then.
    """

    billed_by_default = False
    fixed_error_type = "budget_exceeded"

    def __init__(
        self,
        message: str,
        *,
        budget: str,
        kind: BudgetKind,
        limit: float,
        spent: float,
        spent_on: Mapping[str, float] | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message, retry_after_s=retry_after_s)
        self.budget = budget
        self.kind: BudgetKind = kind
        self.limit = limit
        self.spent = spent
        self.spent_on = dict(spent_on or {})

    def __reduce__(self) -> tuple[Any, ...]:
        # Unpickling calls the class with `args` alone, which lacks the keyword-only arguments.
        made = partial(type(self), budget=self.budget, kind=self.kind, limit=self.limit, spent=self.spent)
        return made, self.args, vars(self)


class LLMStatusError(LLMError):
    """The provider answered with an HTTP status that is not a success."""

    billed_by_default = False


class LLMRequestError(LLMStatusError):
    """The request itself is wrong (400, 413, 422 ...); a retry gives the same answer."""


class LLMAuthenticationError(LLMStatusError):
    """The key is missing, wrong, or not allowed to do this (401, 403)."""


class LLMNotFoundError(LLMStatusError):
    """No such model, deployment or path (404)."""


class LLMQuotaError(LLMStatusError):
    """The quota or the credit is spent (402, or a 429 that says so); waiting does not help."""

    retry_reason = "rate_limit"


class LLMRateLimitError(LLMStatusError):
    """Too many requests or tokens at the moment (429; Groq's 498)."""

    retry_reason = "rate_limit"
    retried_by_default = True


class LLMServerError(LLMStatusError):
    """The provider failed or asks for a retry (5xx, 408, 409)."""

    retried_by_default = True


_CLASS_BY_STATUS: dict[int, type[LLMStatusError]] = {
    401: LLMAuthenticationError,
    402: LLMQuotaError,
    403: LLMAuthenticationError,
    404: LLMNotFoundError,
    408: LLMServerError,
    409: LLMServerError,
    429: LLMRateLimitError,
    498: LLMRateLimitError,
}


def error_class_for_status(status_code: int) -> type[LLMStatusError]:
    """The class for an HTTP status that is not a success."""
    by_range = LLMServerError if status_code >= 500 else LLMRequestError if status_code >= 400 else LLMStatusError
    return _CLASS_BY_STATUS.get(status_code, by_range)
