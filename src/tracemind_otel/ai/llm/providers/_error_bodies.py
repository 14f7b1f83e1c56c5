"""Error bodies of every family, and the typed errors for them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlsplit

from ....errors import LLMAuthenticationError, LLMQuotaError, LLMServerError, LLMStatusError, error_class_for_status
from ..retry import parse_retry_after
from ..scrub import scrub, scrub_token
from ._error_documents import document_in, fields_of, words_of
from ._http import HttpReply

_SPENT_QUOTA = frozenset(
    {
        # developers.openai.com/api/docs/guides/error-codes; the first is the type of all, which Perplexity sends too
        "insufficient_quota",
        "credit_balance_exhausted",
        "organization_spend_limit_exceeded",
        "project_spend_limit_exceeded",
        "organization_usage_limit_exceeded",
        # OpenAI's as seen: acode-plugin-chatgpt#19 and many more
        "billing_hard_limit_reached",
        "billing_not_active",
        # Anthropic: platform.claude.com/docs/en/api/errors and /rate-limits
        "billing_error",
        "enforced_spend_limit_reached",
        "exceeded_current_quota_error",  # Moonshot: MoonshotAI/kimi-code#1857
        # Zhipu, docs.bigmodel.cn/cn/api/api-code: in arrears; the limit of a day, of some hours, of a week or a
        # month is reached; the plan has ended
        *("1113", "1304", "1308", "1309", "1310"),
        # Alibaba, alibabacloud.com/help/en/model-studio/error-code. Not Throttling.AllocationQuota: see _THROTTLED
        "arrearage",
        "allocationquota.freetieronly",
        "accountoverdueerror",  # Volcengine: volcengine.com/docs/82379/1299023
        "setlimitexceeded",  # Volcengine: the limit that the user has set
        "insufficient_balance",  # Venice: veniceai/api-docs#149
        "insufficient_balance_error",  # MiniMax: modelscope/modelscope#1691
        "insufficient_credits",  # gateways: Gitlawb/openclaude#1489
        "insufficient_funds",  # gateways: ai-stats.phaseo.app, quickstart of each model
        "budget_exceeded",  # LiteLLM's proxy: ProxyErrorTypes
        "blocked_api_access",  # Groq: console.groq.com/docs/spend-limits
    }
)
"""Types and codes of a spent quota, in lower case: waiting does not help. Rate limits may say "quota" in words."""

_THROTTLED = ("throttling.allocationquota", "error-code#token-limit")
"""Alibaba's code for too many tokens a minute, and the link in its message: its type is `insufficient_quota` all the
same (can1357/oh-my-pi#8496)."""

_STATUS_OF_MINIMAX = {"1000": 500, "1001": 504, "1002": 429, "1004": 401, "1008": 402, "1024": 500}
"""The codes in MiniMax's `base_resp`, which comes with HTTP 200 (platform.minimax.io/docs/api-reference/errorcode)."""

_QUOTA_OF_A_DAY = re.compile(r'"quotaId": "\w*PerDay')
"""Among Google's details; it asks to wait some seconds all the same (google-gemini/gemini-cli#8437)."""

_SPENT_AT_MINIMAX = "insufficient balance (1008)"
"""How its messages end in other formats; the status is 500 there, the type `api_error` (MiniMax-AI/MiniMax-M2#62)."""


@dataclass(frozen=True, slots=True)
class ErrorBody:
    """An error body in the normal form."""

    message: str | None = None
    """The provider's message."""
    type: str | None = None
    """The provider's error type."""
    code: str | None = None
    """The provider's error code: a string, or a number that is no HTTP status."""
    stated_status: int | None = None
    """An HTTP status named in the body (OpenRouter sends one with HTTP 200)."""
    implied_status: int | None = None
    """The status that the provider sends with this code or type; 402 for a spent quota that neither of them names.

    Inside a success it decides the class of the error and whether to retry; it is never reported as HTTP's.
    """
    request_id: str | None = None
    """The request's id inside the body (Anthropic sends it there too)."""
    retry_after_s: float | None = None
    """Seconds to wait, from the body (Google sends no header for it)."""


# As `fields_of` spells them.
_TYPES = ("errortype", "type")
_CODES = ("code", "errorcode", "statuscode")
_STATUSES = (*_CODES, "httpcode", "status")


def error_body(document: object) -> ErrorBody:
    """Read an error body in any of the usual shapes: nested, listed, as plain text, as JSON inside a string."""
    fields = fields_of(document)
    code, kind = _first_name(fields, _CODES), _first_name(fields, _TYPES)
    message = words_of(document)
    implied_status = _STATUS_OF_MINIMAX.get(code or "") if "baseresp" in fields else None
    if (message or "").endswith(_SPENT_AT_MINIMAX) or _QUOTA_OF_A_DAY.search(json.dumps(fields.get("details"))):
        implied_status = 402
    return ErrorBody(
        message=message,
        type=(kind or "").rpartition("#")[2] or None,  # AWS puts a namespace before it
        code=code,
        stated_status=next(filter(None, (_status_in(fields.get(name)) for name in _STATUSES)), None),
        implied_status=implied_status,
    )


def is_error(body: ErrorBody) -> bool:
    """Whether an event that is no part of a reply is an error, not a note: it has a message and a code or a status."""
    return body.message is not None and (body.code or body.stated_status) is not None


def _first_name(fields: dict[str, Any], names: tuple[str, ...]) -> str | None:
    """The first code or type that says something: a string, or a number that cannot be taken for a status."""
    for name in names:
        value = fields.get(name)
        if isinstance(value, int) and value >= 1000:
            return str(value)
        if isinstance(value, str) and value not in ("", "None"):  # LiteLLM's proxy sends Python's `None` as a string
            return value
    return None


def _status_in(value: object) -> int | None:
    """A status as a number, or as a string of three figures."""
    number = int(value) if isinstance(value, str) and re.fullmatch("[0-9]{3}", value) else value
    return number if isinstance(number, int) and 400 <= number < 600 else None


def status_error(
    reply: HttpReply,
    *,
    secrets: Sequence[str | None],
    prompt: Sequence[str],
    read: Callable[[object], ErrorBody] = error_body,
) -> LLMStatusError:
    """The typed error for a reply that is not a success."""
    document = document_in(reply.body)
    body = read(document)
    message = body.message or words_of(document)
    if redirection := _redirection(reply):
        # A page adds nothing to the status.
        message = f"{redirection}: {message}" if message and isinstance(document, dict) else redirection
    kind = body.type or reply.headers.get("x-amzn-errortype", "").partition(":")[0] or None
    return error_from_body(reply, replace(body, message=message, type=kind), secrets=secrets, prompt=prompt)


def _redirection(reply: HttpReply) -> str | None:
    """What a redirect means. Only the host is named, since the rest of an address may hold a key."""
    target = reply.headers.get("location", "")
    if not 300 <= reply.status_code < 400 or not target:
        return None
    try:
        host = urlsplit(target).netloc.rpartition("@")[2]
    except ValueError:
        host = ""
    where = f"to {host}" if host else "to another path of the same host"
    return f"the server redirects {where}, and redirects are not followed; set base_url to the address it names"


def error_from_body(
    reply: HttpReply, body: ErrorBody, *, secrets: Sequence[str | None], prompt: Sequence[str]
) -> LLMStatusError:
    """The typed error for what an error body says, in an error reply or inside a success."""
    withheld: Any = {"secrets": secrets, "prompt": prompt}
    is_success = 200 <= reply.status_code < 300
    said = scrub(" ".join(body.message.split()), **withheld) if body.message else "no message"
    # Inside a success the figure in the body is a code like any other, and not HTTP's status.
    code = body.code or (str(body.stated_status) if is_success and body.stated_status else None)
    return _error_class(None if is_success else reply.status_code, body)(
        f"the provider reports: {said}" if is_success else f"HTTP {reply.status_code}: {said}",
        status_code=None if is_success else reply.status_code,
        code=scrub_token(code, **withheld),
        provider_type=scrub_token(body.type, **withheld),
        request_id=scrub_token(reply.request_id or body.request_id, **withheld),
        retry_after_s=parse_retry_after(reply.headers) or body.retry_after_s,
        retryable=None if _is_spent(body) else _RETRYABLE.get(reply.headers.get("x-should-retry", "").lower()),
    )


_RETRYABLE = {"true": True, "false": False}
_STATUS_OF_NAME = {
    name: status
    for status, names in {
        400: "invalid_request_error invalid_argument validationexception servicequotaexceededexception",
        401: "authentication_error invalid_api_key unauthenticated",
        403: "permission_error permission_denied accessdeniedexception",
        404: "not_found_error not_found resourcenotfoundexception",
        408: "modeltimeoutexception",
        409: "conflict_error",
        413: "request_too_large",
        # The numbers are Zhipu's.
        429: "rate_limit_error rate_limit_exceeded resource_exhausted too_many_requests throttling.allocationquota "
        "throttling.ratequota 1302 1305 throttlingexception modelnotreadyexception slow_down",
        500: "server_error api_error internal_error internal_server_error internal internalserverexception "
        "modelstreamerrorexception",
        503: "overloaded overloaded_error server_is_overloaded service_unavailable unavailable "
        "serviceunavailableexception",
        504: "timeout_error vector_store_timeout",
    }.items()
    for name in names.split()
}
"""The status of errors inside a success, by their code or type in lower case."""


def named_status(body: ErrorBody) -> int | None:
    """The status that goes with the code or the type of an error; `None` where neither is known."""
    return next((_STATUS_OF_NAME[name] for name in _names(body) if name in _STATUS_OF_NAME), None)


def _error_class(http_status: int | None, body: ErrorBody) -> type[LLMStatusError]:
    if _is_spent(body):
        return LLMQuotaError
    if body.code == "API_KEY_INVALID":
        # Google answers a bad key with 400.
        return LLMAuthenticationError
    status = http_status or body.stated_status or body.implied_status or named_status(body)
    if status is None:
        # An unknown code names a reason, so a retry would be a guess; without a code the server is at fault.
        return LLMStatusError if body.code else LLMServerError
    return error_class_for_status(status)


def _is_spent(body: ErrorBody) -> bool:
    told = f"{body.code} {body.message}".lower()
    if any(mark in told for mark in _THROTTLED):
        return False
    return body.implied_status == 402 or not _SPENT_QUOTA.isdisjoint(_names(body))


def _names(body: ErrorBody) -> list[str]:
    return [name.lower() for name in (body.code, body.type) if name]
