"""What a call of a model is made from: its configuration, its template, its request."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, fields
from typing import Any, cast

from ..ai.llm.sampling import SAMPLING_RULES, SamplingOptions, is_number, is_sequence_of, is_whole
from ..ai.llm.types import LLMRequest, Message
from ..errors import ConfigError
from .messages import read_messages

STEP_TYPE = "ai.llm_call"
"""The name of this step type in flows and in telemetry."""

_CONTENT_FIELDS = frozenset({"prompt", "template", "vars", "extra", "messages", "system", "stop"})


@dataclass(frozen=True)
class _ConfigArguments:
    """The positional parameters of `LLMCallConfig`, in their published order."""

    provider: str
    """The provider's name: `fake`, `openai`, or one that was registered."""
    model: str
    """The model's name, as the provider knows it."""
    prompt: str | None = None
    """The user's message; `{{ name }}` and `{name}` are replaced from `vars`."""
    template: str | None = None
    """The same as `prompt`; wins where both are given."""
    vars: Mapping[str, Any] | None = None
    """Values for the names in the prompt or template."""
    timeout_ms: int = 30000
    """Milliseconds of silence that an attempt lasts at most: until the reply's head comes, then until each next byte.

    Comments, pings and blank lines are bytes, in a stream and in a whole reply. `deadline_ms` bounds the whole.
    """
    max_retries: int = 2
    """Attempts after the first one; 2 means three attempts."""
    temperature: float | None = None
    top_p: float | None = None
    extra: Mapping[str, Any] | None = None
    """Fields that go into the provider's request body as they are."""


@dataclass(frozen=True)
class LLMCallConfig(SamplingOptions, _ConfigArguments):
    """What to call and how.

    Raises:
        ConfigError: a value is not allowed; the message names the field, the value and what is allowed.
    """

    _: KW_ONLY
    deadline_ms: int | None = None
    """Milliseconds for the whole call, attempts and waits together; `None` for no such limit."""
    messages: Sequence[Message] = ()
    """A conversation; the prompt, where there is one, is its last message."""
    system: str | None = None
    """Instructions for the model, apart from the conversation."""

    def __post_init__(self) -> None:
        for name in ("provider", "model"):
            self._require(name, lambda value: isinstance(value, str), "a string")
            self._require(name, lambda value: bool(cast("str", value).strip()), "not empty")
        for name in ("prompt", "template", "system"):
            self._require(name, lambda value: isinstance(value, str | None), "a string or absent")
        for name in ("vars", "extra"):
            self._require(name, lambda value: isinstance(value, Mapping | None), "a mapping or absent")
        self._require("timeout_ms", _is_positive, "more than 0 milliseconds")
        self._require("deadline_ms", lambda v: v is None or _is_positive(v), "more than 0 milliseconds, or absent")
        self._require("max_retries", lambda value: is_whole(value, 0), "a whole number, 0 or more")
        self._require("messages", lambda value: is_sequence_of(value, Message), "a sequence of Message")
        for name, rule in SAMPLING_RULES.items():
            self._require(name, rule.allows, rule.wanted)
        if (self.extra or {}).get("stream"):
            raise ConfigError(f"{STEP_TYPE}: extra['stream'] must be absent; call stream_llm_call for a stream")

    def _require(self, name: str, is_allowed: Callable[[Any], bool], allowed: str) -> None:
        value = getattr(self, name)
        if not is_allowed(value):
            shown = type(value).__name__ if name in _CONTENT_FIELDS else repr(value)
            raise ConfigError(f"{STEP_TYPE}: {name} is {shown}; it must be {allowed}")

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> LLMCallConfig:
        """A configuration from a plain mapping, a flow's step in YAML for instance.

        Messages are mappings with `role` and `content`, which is a string or a list of `{"text": ...}` and
        `{"image_url": ...}`.

        Raises:
            ConfigError: a field is unknown, missing, or has a value that is not allowed.
        """
        allowed = [known.name for known in fields(cls)]
        for name in values:
            if name not in allowed:
                close = difflib.get_close_matches(str(name), allowed, n=1)
                hint = f"; did you mean {close[0]!r}?" if close else "."
                raise ConfigError(f"{STEP_TYPE}: unknown field {name!r}{hint} Allowed are {', '.join(allowed)}")
        for name in ("provider", "model"):
            if name not in values:
                raise ConfigError(f"{STEP_TYPE}: field {name!r} is missing; it must be a string")
        if "messages" not in values:
            return cls(**values)
        read: dict[str, Any] = {**values, "messages": read_messages("messages", values["messages"])}
        return cls(**read)

    def request(self) -> LLMRequest:
        """What goes to the provider.

        Raises:
            ConfigError: there is neither a prompt, nor a template, nor a message.
        """
        text = self.template or self.prompt
        if not text and not self.messages:
            raise ConfigError(f"{STEP_TYPE} requires either 'prompt' or 'template', or 'messages'")
        options = self.sampling()
        options["stop"] = tuple(self.stop)
        return LLMRequest(
            self.provider,
            self.model,
            apply_vars(text or "", self.vars),
            extra=dict(self.extra or {}),
            messages=tuple(self.messages),
            system=self.system,
            **options,
        )


def _is_positive(value: object) -> bool:
    return is_number(value) and cast("float", value) > 0


_VARIABLE = re.compile(r"\{\{\s*([a-zA-Z_][a-zA-Z0-9_]*)\s*\}\}|\{([a-zA-Z_][a-zA-Z0-9_]*)\}")


def apply_vars(template: str, vars: Mapping[str, Any] | None) -> str:
    """Replace `{{ name }}` and `{name}` by the values of `vars`.

    A name that is not in `vars` stays as it is. Values are put in as text and never looked at again: no
    expression, attribute or nested name in them is interpreted.
    """
    if not vars:
        return template

    def value_of(match: re.Match[str]) -> str:
        name = match.group(1) or match.group(2)
        return str(vars[name]) if name in vars else match.group(0)

    return _VARIABLE.sub(value_of, template)
