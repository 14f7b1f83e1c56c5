"""The options of `llm_call`, and the configuration made from them."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict, Unpack

from ..ai.llm.client import AsyncLLMClient
from ..ai.llm.sampling import ReasoningEffort
from ..ai.llm.types import Message
from ..call.clients import LLMClientFactory
from ..call.config import LLMCallConfig
from ..call.messages import read_messages
from ..errors import ConfigError, UnknownProviderError
from ..flows.correlation import current_step
from ..recording.port import Recorder


class SamplingArguments(TypedDict, total=False):
    """`SamplingOptions` as keyword arguments. What is left out is left to the provider."""

    temperature: float | None
    """Sampling temperature."""
    top_p: float | None
    """Nucleus sampling: the share of the probability that tokens are drawn from."""
    max_tokens: int | None
    """Most output tokens."""
    stop: Sequence[str]
    """Strings at which the reply ends."""
    seed: int | None
    """Seed for replies that repeat, as far as the provider keeps that."""
    top_k: int | None
    """Sampling among the k likeliest tokens."""
    frequency_penalty: float | None
    """Penalty for tokens, by how often they were said."""
    presence_penalty: float | None
    """Penalty for tokens that were said at all."""
    reasoning_effort: ReasoningEffort | None
    """How much the model reasons."""


class CallOptions(SamplingArguments, total=False):
    """The options of a call, in addition to the model and the prompt."""

    provider: str | None
    """The provider's name, where `model` does not begin with it."""
    messages: Sequence[Message | Mapping[str, Any]] | None
    """A conversation, as role dicts of OpenAI, Anthropic or Gemini, or as `Message` objects. A prompt comes last."""
    system: str | None
    """Instructions for the model, apart from the conversation."""
    template: str | None
    """The same as `prompt`; wins where both are given."""
    vars: Mapping[str, Any] | None
    """Values for `{{ name }}` and `{name}` in the prompt or the template."""
    prompt_name: str | None
    """The name of the prompt in a library or registry; by default that of the `@step` around the call."""
    prompt_version: str | None
    """Its version."""
    extra: Mapping[str, Any] | None
    """Fields that go into the provider's request body as they are."""
    timeout_ms: int
    """Milliseconds of silence after which an attempt fails; 30,000 by default."""
    deadline_ms: int | None
    """Milliseconds for the whole call, attempts and waits together; no limit by default."""
    max_retries: int
    """Attempts after the first one; 2 by default."""
    step: str | None
    """`tracemind.step.id`; by default the name of the `@step` around the call, else the model."""
    client: AsyncLLMClient | None
    """A client of your own; by default the provider's, with its key from the environment."""
    recorder: Recorder | None
    """What records the call; by default what `configure()` set up."""


_ALLOWED = frozenset(CallOptions.__annotations__)
_NOT_OF_CONFIG = frozenset({"provider", "messages", "step", "client", "recorder"})
"""The options that do not go into `LLMCallConfig` as they are given."""


@dataclass(frozen=True, slots=True)
class CallPlan:
    """One call, worked out from its arguments."""

    cfg: LLMCallConfig
    """What to call and how."""
    step_id: str
    """The step's id, for telemetry."""
    client: AsyncLLMClient | None
    """The caller's own client."""
    recorder: Recorder | None
    """The caller's own recorder."""

    @classmethod
    def of(cls, function: str, model: str, prompt: str | None, **options: Unpack[CallOptions]) -> CallPlan:
        """The plan for these arguments.

        Args:
            function: the function that was called, for errors.
            model: `provider/model`, or the model alone beside `provider`.
            prompt: the user's message.
            options: `CallOptions`.

        Raises:
            ConfigError: an argument has a value that is not allowed.
            TypeError: there is no such option.
        """
        _check_names(function, options)
        client, step = options.get("client"), options.get("step")
        _check_kinds(function, client, step)
        provider, name = _split(function, model, options.get("provider"), client)
        fields: Mapping[str, Any] = {key: value for key, value in options.items() if key not in _NOT_OF_CONFIG}
        messages = read_messages(f"{function}: messages", options.get("messages"))
        cfg = LLMCallConfig(provider, name, prompt, messages=messages, **fields)
        return cls(cfg, step or current_step() or name, client, options.get("recorder"))


def _split(function: str, model: object, provider: str | None, client: AsyncLLMClient | None) -> tuple[str, str]:
    """Provider and model. With `provider` the model is taken as it is: OpenRouter's names have a slash of their own."""
    if not isinstance(model, str):
        raise ConfigError(f"{function}: model is {type(model).__name__}; it must be a string like 'openai/gpt-4o-mini'")
    if provider is not None:
        return provider, model
    prefix, slash, name = model.partition("/")
    if client is not None and not (slash and prefix == client.provider_name):
        return client.provider_name, model
    if slash and prefix and name:
        return prefix, name
    raise _no_provider(function, model)


def _no_provider(function: str, model: str) -> ConfigError:
    known = ", ".join(LLMClientFactory.names())
    provider, name = _meant(model)
    wanted = f"write 'provider/model', '{provider}/{name}' for instance, or pass provider=..."
    return UnknownProviderError(f"{function}: model {model!r} names no provider; {wanted} Known providers: {known}")


def _meant(model: str) -> tuple[str, str]:
    """The provider and the model to show as an example."""
    prefix, _, name = model.replace(":", "/", 1).partition("/")
    prefix, name = prefix.strip(), name.strip(" /")
    if prefix.lower() in LLMClientFactory.names():
        return prefix, name or "MODEL"
    return "openai", model.strip(" /") or "gpt-4o-mini"


def _check_kinds(function: str, client: object, step: object) -> None:
    """Check the options that `LLMCallConfig` does not have."""
    if not (client is None or isinstance(getattr(client, "provider_name", None), str)):
        kind = type(client).__name__
        allowed = "an AsyncLLMClient, such as LLMClientFactory.make('openai') returns"
        raise ConfigError(f"{function}: client is {kind}; it must be {allowed}")
    if not (step is None or isinstance(step, str)):
        raise ConfigError(f"{function}: step is {type(step).__name__}; it must be a string")


def _check_names(function: str, options: Mapping[str, object]) -> None:
    for name in options.keys() - _ALLOWED:
        close = difflib.get_close_matches(name, _ALLOWED, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else f"; its options are {', '.join(sorted(_ALLOWED))}"
        raise TypeError(f"{function}() has no option {name!r}{hint}")
