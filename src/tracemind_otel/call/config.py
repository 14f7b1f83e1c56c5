"""What a call is made from: its configuration, its template, its request, and what it goes to."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, fields
from functools import partial
from typing import Any, cast

from .._base.frozen import of_fields
from ..ai.llm.client import AsyncLLMClient
from ..ai.llm.message_parts import input_of_request
from ..ai.llm.sampling import SAMPLING_RULES, Rule, SamplingOptions, is_number, is_sequence_of, is_whole
from ..ai.llm.types import LLMRequest, Message
from ..errors import ConfigError
from ..flows.correlation import checked_prompt, current_correlation
from ..recording.port import StepStart
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
    """Milliseconds of silence after which an attempt fails: before the reply's head, then before each next byte.

    Comments, pings and blank lines are bytes too. `deadline_ms` limits the whole call.
    """
    max_retries: int = 2
    """Attempts after the first one; 2 means three attempts."""
    temperature: float | None = None
    top_p: float | None = None
    extra: Mapping[str, Any] | None = None
    """Fields for the provider's request body, unchanged."""


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
    """A conversation; a prompt becomes its last message."""
    system: str | None = None
    """Instructions for the model, apart from the conversation."""
    prompt_name: str | None = None
    """The name of the prompt in a library or registry; by default the one that the `@step` around the call names."""
    prompt_version: str | None = None
    """Its version."""

    def __post_init__(self) -> None:
        values = self.__dict__
        for name, default, rule in _CHECKS:
            value = values[name]
            if value is not default and not rule.allows(value):
                shown = type(value).__name__ if name in _CONTENT_FIELDS else repr(value)
                raise ConfigError(f"{STEP_TYPE}: {name} is {shown}; it must be {rule.wanted}")
        checked_prompt(self.prompt_name, self.prompt_version)
        if self.extra and self.extra.get("stream"):
            raise ConfigError(f"{STEP_TYPE}: extra['stream'] must be absent; call stream_llm_call for a stream")

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> LLMCallConfig:
        """A configuration from a plain mapping, such as a flow's step in YAML; messages may be role dicts.

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
        read = dict(values)
        if "messages" in values:
            read["messages"] = read_messages("messages", values["messages"])
        return cls(**read)

    def request(self) -> LLMRequest:
        """The request for the provider.

        Raises:
            ConfigError: there is neither a prompt, nor a template, nor a message.
        """
        text = self.template or self.prompt
        if not text and not self.messages:
            raise ConfigError(f"{STEP_TYPE} requires either 'prompt' or 'template', or 'messages'")
        return of_fields(
            LLMRequest,
            {**self.sampling(), "stop": tuple(self.stop)},
            provider=self.provider,
            model=self.model,
            prompt=apply_vars(text or "", self.vars),
            extra=dict(self.extra) if self.extra else {},
            messages=tuple(self.messages),
            system=self.system,
        )


def _is_positive(value: object) -> bool:
    return is_number(value) and cast("float", value) > 0


_NAME = Rule(lambda value: isinstance(value, str) and bool(value.strip()), "a string that is not empty")
_STRING = Rule(lambda value: value is None or isinstance(value, str), "a string or absent")
_MAPPING = Rule(lambda value: isinstance(value, Mapping | None), "a mapping or absent")
_RULES: Mapping[str, Rule] = {
    "provider": _NAME,
    "model": _NAME,
    "prompt": Rule(_STRING.allows, "a string or absent; a conversation goes into messages"),
    "template": _STRING,
    "system": _STRING,
    "vars": _MAPPING,
    "extra": _MAPPING,
    "timeout_ms": Rule(_is_positive, "more than 0 milliseconds"),
    "deadline_ms": Rule(lambda value: value is None or _is_positive(value), "more than 0 milliseconds, or absent"),
    "max_retries": Rule(lambda value: is_whole(value, 0), "a whole number, 0 or more"),
    "messages": Rule(lambda value: is_sequence_of(value, Message), "a sequence of Message"),
    **SAMPLING_RULES,
}
_CHECKS = tuple((each.name, each.default, _RULES[each.name]) for each in fields(LLMCallConfig) if each.name in _RULES)
"""Each field with its default, which needs no check: most fields of most calls have it."""


_VARIABLE = re.compile(r"\{\{\s*([a-zA-Z_][a-zA-Z0-9_]*)\s*\}\}|\{([a-zA-Z_][a-zA-Z0-9_]*)\}")


def apply_vars(template: str, vars: Mapping[str, Any] | None) -> str:
    """Replace `{{ name }}` and `{name}` by the values of `vars`.

    A name that is not in `vars` stays as it is. Nothing inside a value is interpreted.
    """
    if not vars:
        return template

    def value_of(match: re.Match[str]) -> str:
        name = match.group(1) or match.group(2)
        return str(vars[name]) if name in vars else match.group(0)

    return _VARIABLE.sub(value_of, template)


@dataclass(frozen=True, slots=True)
class CallTarget:
    """What one call goes to: its configuration, its request, and the client that sends it."""

    cfg: LLMCallConfig
    """The caller's configuration."""
    request: LLMRequest
    """The request for the client."""
    client: AsyncLLMClient
    """The client that sends `request`."""

    @property
    def name(self) -> str:
        """The name of the call in the log."""
        return f"{STEP_TYPE} {self.cfg.provider}/{self.cfg.model}"

    @property
    def provider_name(self) -> str:
        """The provider's name in the price table: the client's, else the configuration's."""
        return str(getattr(self.client, "provider_name", self.cfg.provider)).strip().lower()

    @property
    def priced_name(self) -> str:
        """`provider/model`, by which its cost is summed."""
        return f"{self.provider_name}/{self.request.model}"

    def start(self, flow_id: str, step_id: str, *, is_stream: bool) -> StepStart:
        """The start of the call, for a recorder."""
        return of_fields(
            StepStart,
            self.request.sampling(),
            flow_id=flow_id or current_correlation().flow_id or "",
            step_id=step_id,
            step_type=STEP_TYPE,
            operation=self.client.operation,
            provider=self.client.telemetry_name or self.provider_name,
            model=self.request.model,
            server_address=self.client.server_address,
            server_port=self.client.server_port,
            is_stream=is_stream,
            prompt_name=self.cfg.prompt_name,
            prompt_version=self.cfg.prompt_version,
            asked=partial(input_of_request, self.request),
        )
