"""What `configure(capture_content=...)` and its variable ask to have recorded."""

from __future__ import annotations

import logging
import os

from ...errors import ConfigError
from ..capture import Redact
from ..content import ContentOptions
from ..sanitize import MAX_BYTES

log = logging.getLogger(__name__)

VARIABLE = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"
"""The variable of OpenTelemetry's GenAI instrumentations."""

_PLACES = {
    "no_content": (False, False),
    "span_only": (True, False),
    "event_only": (False, True),
    "span_and_event": (True, True),
    "false": (False, False),
    "true": (True, False),
}
"""Whether content goes on the span, and on an event, by the words of the conventions and their older ones."""
_ALLOWED = "NO_CONTENT, SPAN_ONLY, EVENT_ONLY or SPAN_AND_EVENT"
_LEAST_BYTES = 256


def content_options(capture_content: object, limit: object, redact: Redact | None) -> ContentOptions:
    """What to record of prompts and answers.

    Args:
        capture_content: the argument; `None` for the variable, else nothing.
        limit: bytes of one attribute.
        redact: sees each part before it is recorded.

    Raises:
        ConfigError: an argument has a value that is not allowed. A variable with such a value records nothing, and the
            log says so, as the conventions ask.
    """
    if type(limit) is not int or not _LEAST_BYTES <= limit <= MAX_BYTES:
        raise ConfigError(
            f"content_limit is {limit!r}; it must be a whole number of bytes from {_LEAST_BYTES} to {MAX_BYTES}"
        )
    word = os.getenv(VARIABLE, "") if capture_content is None else capture_content
    places = _PLACES.get(str(word).strip().lower() or "no_content") if isinstance(word, str | bool) else None
    if places is None and capture_content is not None:
        raise ConfigError(f"capture_content is {capture_content!r}; it must be {_ALLOWED}, or a bool")
    if places is None:
        log.warning("%s has a value that is not known, so no content is recorded; it must be %s", VARIABLE, _ALLOWED)
    on_span, on_event = places or (False, False)
    return ContentOptions(on_span=on_span, on_event=on_event, limit=limit, redact=redact)
