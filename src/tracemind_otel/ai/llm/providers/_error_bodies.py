"""What a reply says when it is no answer: error bodies in every family's shape, and the typed errors they become."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

from ....errors import (
    LLMAuthenticationError,
    LLMQuotaError,
    LLMResponseError,
    LLMServerError,
    LLMStatusError,
    error_class_for_status,
)
from ..policy import parse_retry_after
from ..scrub import scrub, scrub_token
from ._http import HttpReply

_SPENT_QUOTA = frozenset(
    {
        "insufficient_quota",
        "credit_balance_exhausted",
        "organization_spend_limit_exceeded",
        "project_spend_limit_exceeded",
        "organization_usage_limit_exceeded",
        "enforced_spend_limit_reached",
    }
)
"""Types and codes of a 429 that no waiting mends. Not matched by words: an ordinary limit may say "quota" too."""


def json_object(reply: HttpReply) -> dict[str, Any]:
    """The body of a successful reply.

    Raises:
        LLMResponseError: the body is empty, not JSON, or not an object.
    """
    try:
        document = json.loads(reply.body)
    except (ValueError, RecursionError):
        what = "is empty" if not reply.body.strip() else "is not JSON"
        # Not chained: the decoder's error holds the whole body.
        raise LLMResponseError(
            f"the body of the reply {what} (HTTP {reply.status_code})", request_id=reply.request_id
        ) from None
    if not isinstance(document, dict):
        raise LLMResponseError("the body of the reply is not a JSON object", request_id=reply.request_id)
    return cast("dict[str, Any]", document)


@dataclass(frozen=True, slots=True)
class ErrorBody:
    """What an error body says, whichever family's shape it has."""

    message: str | None = None
    """The provider's words."""
    type: str | None = None
    """The provider's error type."""
    code: str | None = None
    """The provider's error code, where it is a string."""
    status_code: int | None = None
    """A status inside the body (OpenRouter sends one with HTTP 200)."""
    request_id: str | None = None
    """The request's id inside the body (Anthropic sends it there too)."""
    retry_after_s: float | None = None
    """Seconds the body asks to wait (Google puts its delay there, not into a header)."""


def error_body(document: object) -> ErrorBody:
    """Read an error body: `{error: {...}}`, `{error: "text"}`, `{message}`, `{detail}` and their mixtures."""
    if not isinstance(document, dict):
        return ErrorBody()
    outer = cast("dict[str, Any]", document)
    inner = outer.get("error")
    fields = {**outer, **cast("dict[str, Any]", inner)} if isinstance(inner, dict) else outer
    code = fields.get("code")
    message = _first_text(fields.get("message"), outer.get("error"), fields.get("detail"))
    return ErrorBody(
        message=message,
        type=_first_text(fields.get("type")),
        code=code if isinstance(code, str) and code else None,
        status_code=code if isinstance(code, int) and 400 <= code < 600 else None,
    )


def _first_text(*values: object) -> str | None:
    return next((value for value in values if isinstance(value, str) and value), None)


def status_error(
    reply: HttpReply, *, key: str | None, prompt: str, read: Callable[[object], ErrorBody] = error_body
) -> LLMStatusError:
    """The typed error for a reply that is not a success."""
    try:
        body = read(json.loads(reply.body))
    except (ValueError, RecursionError):
        body = ErrorBody()
    return error_from_body(reply, reply.status_code, body, key=key, prompt=prompt)


def error_from_body(
    reply: HttpReply, status_code: int | None, body: ErrorBody, *, key: str | None, prompt: str
) -> LLMStatusError:
    """The typed error for what an error body says; without a status for one inside a success that names none."""
    secrets = (key or "",)
    said = scrub(body.message, secrets=secrets, prompt=prompt) if body.message else "no message"
    return _error_class(status_code, body)(
        f"the provider reports: {said}" if status_code is None else f"HTTP {status_code}: {said}",
        status_code=status_code,
        code=scrub_token(body.code, secrets=secrets, prompt=prompt),
        provider_type=scrub_token(body.type, secrets=secrets, prompt=prompt),
        request_id=scrub_token(reply.request_id or body.request_id, secrets=secrets, prompt=prompt),
        retry_after_s=parse_retry_after(reply.headers) or body.retry_after_s,
        retryable={"true": True, "false": False}.get(reply.headers.get("x-should-retry", "").lower()),
    )


_STATUS_OF_NAME = {
    "invalid_request_error": 400,
    "overloaded": 503,
    "overloaded_error": 503,
    "rate_limit_error": 429,
    "rate_limit_exceeded": 429,
    "server_error": 500,
}
"""What errors inside a success mean by their code or type."""


def _error_class(status_code: int | None, body: ErrorBody) -> type[LLMStatusError]:
    status = status_code or _STATUS_OF_NAME.get(body.code or "") or _STATUS_OF_NAME.get(body.type or "")
    if status is None:
        # A code we do not know says what is wrong, so another try is a guess; without any it is the server's fault.
        return LLMStatusError if body.code else LLMServerError
    if status == 429 and not _SPENT_QUOTA.isdisjoint({body.type, body.code}):
        return LLMQuotaError
    if body.code == "API_KEY_INVALID":
        # Google answers a bad key with 400.
        return LLMAuthenticationError
    return error_class_for_status(status)
