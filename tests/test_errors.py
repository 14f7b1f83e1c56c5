"""Each error says who can act on it, whether it is retried, and what telemetry calls it."""

from __future__ import annotations

import copy
import importlib
import pickle
from collections.abc import Callable, Iterator

import pytest

from tracemind_otel import errors
from tracemind_otel.errors import (
    BudgetExceededError,
    ConfigError,
    LLMAuthenticationError,
    LLMClientError,
    LLMConnectionError,
    LLMError,
    LLMNotFoundError,
    LLMQuotaError,
    LLMRateLimitError,
    LLMRequestError,
    LLMResponseError,
    LLMServerError,
    LLMStatusError,
    LLMTimeoutError,
    TraceMindError,
    UnknownProviderError,
    error_class_for_status,
)

CLASSES_BY_STATUS: dict[int, type[LLMStatusError]] = {
    302: LLMStatusError,
    400: LLMRequestError,
    401: LLMAuthenticationError,
    402: LLMQuotaError,
    403: LLMAuthenticationError,
    404: LLMNotFoundError,
    408: LLMServerError,
    409: LLMServerError,
    413: LLMRequestError,
    422: LLMRequestError,
    429: LLMRateLimitError,
    498: LLMRateLimitError,
    500: LLMServerError,
    503: LLMServerError,
    529: LLMServerError,
}

REPEATED: dict[type[LLMError], bool] = {
    LLMTimeoutError: True,
    LLMConnectionError: True,
    LLMResponseError: True,
    LLMClientError: False,
    LLMRequestError: False,
    LLMAuthenticationError: False,
    LLMNotFoundError: False,
    LLMQuotaError: False,
    LLMRateLimitError: True,
    LLMServerError: True,
}

REASONS: dict[type[LLMError], str] = {
    LLMTimeoutError: "timeout",
    LLMConnectionError: "connection",
    LLMResponseError: "invalid_response",
    LLMRateLimitError: "rate_limit",
    LLMServerError: "server_error",
}


@pytest.mark.parametrize(("status_code", "expected"), CLASSES_BY_STATUS.items())
def test_a_status_has_its_class(status_code: int, expected: type[LLMStatusError]) -> None:
    """Catching a class catches the statuses that the error tree lists for it."""
    assert error_class_for_status(status_code) is expected


@pytest.mark.parametrize(("error_class", "expected"), REPEATED.items())
def test_what_is_repeated_is_said_by_the_class(error_class: type[LLMError], expected: bool) -> None:
    """Only errors that another attempt can solve are retryable."""
    assert error_class("failed").retryable is expected


@pytest.mark.parametrize("retryable", [True, False])
@pytest.mark.parametrize("error_class", REPEATED)
def test_a_client_can_overrule_its_class(error_class: type[LLMError], retryable: bool) -> None:
    """A client decides with `retryable=` whether its error is retried."""
    assert error_class("failed", retryable=retryable).retryable is retryable


@pytest.mark.parametrize(("error_class", "expected"), REASONS.items())
def test_the_retry_reason(error_class: type[LLMError], expected: str) -> None:
    """Each retryable class has its own value of `tracemind.retry.reason`."""
    assert error_class("failed").retry_reason == expected


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (
            LLMRateLimitError("x", status_code=429, code="rate_limit_exceeded", provider_type="requests"),
            "rate_limit_exceeded",
        ),
        (LLMRateLimitError("x", status_code=429, provider_type="requests"), "429"),
        (LLMError("x", provider_type="overloaded_error"), "overloaded_error"),
        (LLMTimeoutError("x"), "timeout"),
        (LLMTimeoutError("x", status_code=408), "408"),
        (LLMConnectionError("x"), "LLMConnectionError"),
        (LLMResponseError("x"), "LLMResponseError"),
        (LLMServerError("x", status_code=500, code=""), "500"),
        (LLMServerError("x", status_code=500, code="no such user: 12345 in org 6"), "500"),
        (LLMServerError("x", status_code=500, code="a" * 65), "500"),
        (LLMError("x", provider_type="spaces are no type"), "LLMError"),
    ],
)
def test_the_error_type_is_one_of_few_values(error: LLMError, expected: str) -> None:
    """`error.type` is the code, else the status, the provider's type or the class; never free text."""
    assert error.error_type == expected


def test_the_error_type_of_a_foreign_error_is_its_class() -> None:
    """A third-party client's exception is named by its class, so that a dashboard can group by it."""
    error = LLMClientError("x")
    error.__cause__ = KeyError("secret")
    assert error.error_type == "KeyError"
    assert LLMClientError("x").error_type == "LLMClientError"


def test_rewording_leaves_no_trace_of_the_old_message() -> None:
    """After an error is reworded, its str, repr and args have only the new message."""
    error = LLMServerError("the prompt was: my secret", status_code=500)
    error.reword("withheld")
    assert str(error) == error.message == "withheld"
    assert "secret" not in repr(error)
    assert "secret" not in str(error.args)


def test_an_error_carries_what_the_provider_said() -> None:
    """A typed error has all its published attributes."""
    error = LLMRateLimitError(
        "slow down", status_code=429, code="rpm", provider_type="requests", request_id="req_1", retry_after_s=2.5
    )
    assert (error.status_code, error.code, error.message) == (429, "rpm", "slow down")
    assert (error.provider_type, error.request_id, error.retry_after_s, error.retryable) == (
        "requests",
        "req_1",
        2.5,
        True,
    )


def spent_budget() -> BudgetExceededError:
    return BudgetExceededError(
        "nothing left", budget="research", kind="cost_usd", limit=1.0, spent=0.98, spent_on={"acme/m": 0.98}
    )


def test_a_spent_budget_is_not_repeated() -> None:
    """A budget's error is not retried, since the budget stays used up, and has its own `error.type`."""
    error = spent_budget()
    assert not error.retryable
    assert error.error_type == "budget_exceeded"


def pickled(error: BudgetExceededError) -> BudgetExceededError:
    again = pickle.loads(pickle.dumps(error))
    assert isinstance(again, BudgetExceededError)
    return again


@pytest.mark.parametrize("again", [copy.copy, pickled])
def test_a_spent_budget_passes_between_processes(again: Callable[[BudgetExceededError], BudgetExceededError]) -> None:
    """A budget's error with its figures crosses process boundaries without breaking the pool."""
    error = again(spent_budget())
    assert (str(error), error.budget, error.kind) == ("nothing left", "research", "cost_usd")
    assert (error.limit, error.spent, error.spent_on) == (1.0, 0.98, {"acme/m": 0.98})


def test_builtin_classes_catch_ours() -> None:
    """`except ValueError` catches a caller's mistake and `except TimeoutError` a time-out, and neither the other."""
    assert issubclass(ConfigError, ValueError)
    assert issubclass(UnknownProviderError, ConfigError)
    assert issubclass(LLMTimeoutError, TimeoutError)
    assert not issubclass(ConfigError, LLMError)
    assert not issubclass(LLMError, ValueError)


def test_the_tree_in_the_docstring_is_the_tree_in_the_code() -> None:
    """The tree in the module's docstring has every class under its parent."""
    importlib.import_module("tracemind_otel.cli.otlp_file")
    assert _drawn_tree() == dict(_tree_below(TraceMindError))


def _tree_below(parent: type[TraceMindError]) -> Iterator[tuple[str, str]]:
    """Each subclass in the package, with its parent, but for those inside the doctor."""
    for child in parent.__subclasses__():
        if child.__module__.startswith("tracemind_otel.") and ".doctor." not in child.__module__:
            yield child.__name__, parent.__name__
            yield from _tree_below(child)


def _drawn_tree() -> dict[str, str]:
    """Each class in the drawing, with the class above it."""
    lines = (errors.__doc__ or "").partition("```\n")[2].partition("```")[0].splitlines()
    parents, found = {0: lines[0].split()[0]}, dict[str, str]()
    for line in lines[1:]:
        depth = len(line) - len(line.lstrip(" │├└─"))
        name = line[depth:].split()[0]
        level = depth // 4
        parents[level] = name
        found[name] = parents[level - 1]
    return found
