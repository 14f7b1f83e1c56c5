"""Which HTTP requests are model calls: by the end of the path, since gateways have hosts of their own. Pure."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, cast
from urllib.parse import unquote

from ..ai.llm.providers import (
    anthropic,
    bedrock,
    bedrock_invoke,
    cohere,
    embeddings,
    gemini,
    images,
    ollama,
    openai_responses,
    text_completions,
)
from ..ai.llm.providers._chat_usage import cost_format
from ..ai.llm.providers._hosts import UNKNOWN, provider_at
from ..ai.llm.providers._wire_format import WireFormat, mapped
from ..ai.llm.providers.openai import chat_wire
from ..ai.llm.providers.presets import PRESETS
from ..ai.llm.sampling import SAMPLING_RULES


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Endpoint:
    """A kind of request that calls a model."""

    suffix: str
    """The end of the path."""
    wire: WireFormat
    """The format of its replies."""
    inventor: str
    """The provider that invented the format."""
    options: Mapping[str, tuple[str, ...]]
    """Where each sampling option stands in the body, as a path of keys."""
    streams_by: Callable[[str, Mapping[str, Any]], bool] = lambda path, body: body.get("stream") is True
    """Whether a stream is asked for, by path and body."""
    model_of: Callable[[str, Mapping[str, Any]], object] = lambda path, body: _model_or_deployment(path, body)
    """The model, by path and body."""
    is_meant: Callable[[str], bool] = lambda path: True
    """Whether a path with that end is of this kind, where the end alone does not tell."""
    asks: tuple[tuple[str, ...], ...] = ()
    """Fields of the body, of each of these one or another. An unknown host has model calls only at such requests,
    since other services have paths with that end too; empty where the end tells enough."""
    output_type: str | None = None
    """What the model is asked to make, where that is no text (`gen_ai.output.type`)."""


def _flat(**renamed: str) -> dict[str, tuple[str, ...]]:
    """Options at the top of the body, under their own names unless renamed."""
    return {name: (renamed.get(name, name),) for name in SAMPLING_RULES}


def _below(key: str, **names: str) -> dict[str, tuple[str, ...]]:
    """Options in an object of the body."""
    return {name: (key, there) for name, there in names.items()}


def _model_in_path(path: str, _: Mapping[str, Any]) -> object:
    return unquote(path.rpartition("/")[2].rpartition(":")[0])


def _model_or_deployment(path: str, body: Mapping[str, Any]) -> object:
    """The model in the body, else Azure's deployment in the path."""
    return body.get("model") or unquote(path.partition("/deployments/")[2].partition("/")[0])


def _bedrock_model(path: str, _: Mapping[str, Any] | None = None) -> str:
    """The model between `/model/` and the operation; an ARN has a slash, which some clients do not encode."""
    return unquote(path.rpartition("/")[0].partition("/model/")[2])


def _is_bedrock(path: str) -> bool:
    return "/model/" in path


def _is_bedrock_embedding(path: str) -> bool:
    """Whether the model makes embeddings: by its name, since InvokeModel does not tell."""
    return _is_bedrock(path) and "embed" in _bedrock_model(path)


def _is_bedrock_chat(path: str) -> bool:
    return _is_bedrock(path) and not _is_bedrock_embedding(path)


def _is_vertex_embedding(path: str) -> bool:
    """Whether it is an embedding: Vertex predicts anything under that verb, images and the user's models too."""
    return "publishers/google/models/" in path and "embedding" in path.rpartition("/")[2]


def _unless_declined(path: str, body: Mapping[str, Any]) -> bool:
    """Ollama streams unless it is asked not to."""
    return body.get("stream") is not False


def _always(path: str, body: Mapping[str, Any]) -> bool:
    return True


def _never(path: str, body: Mapping[str, Any]) -> bool:
    return False


def _embedding(suffix: str, wire: WireFormat, inventor: str, **more: Any) -> Endpoint:
    """An endpoint without sampling options and without streams."""
    return Endpoint(suffix=suffix, wire=wire, inventor=inventor, options={}, streams_by=_never, **more)


def _on_vertex(suffix: str, publisher: str, wire: WireFormat, options: Mapping[str, tuple[str, ...]]) -> Endpoint:
    """A model of another publisher on Vertex. Counting tokens has the name of a model there."""
    return Endpoint(
        suffix=suffix,
        wire=wire,
        inventor="vertex",
        options=options,
        model_of=_model_in_path,
        is_meant=lambda path: f"publishers/{publisher}/" in path and "/count-tokens:" not in path,
    )


_OLLAMA = _below("options", temperature="temperature", top_p="top_p", top_k="top_k", seed="seed", stop="stop") | _below(
    "options", max_tokens="num_predict"
)
_GEMINI = _below(
    "generationConfig",
    temperature="temperature",
    top_p="topP",
    top_k="topK",
    max_tokens="maxOutputTokens",
    stop="stopSequences",
    seed="seed",
    frequency_penalty="frequencyPenalty",
    presence_penalty="presencePenalty",
)

_CONVERSE = _below("inferenceConfig", max_tokens="maxTokens", temperature="temperature", top_p="topP") | _below(
    "inferenceConfig", stop="stopSequences"
)
_CLAUDE = _flat(stop="stop_sequences")
_CONVERSATION = (("model",), ("messages",))
_RAW = (":rawPredict", ":streamRawPredict")
_COHERE_EMBEDS = (("texts", "images", "inputs"),)
_GEMINI_EMBEDS = (":embedContent", ":batchEmbedContents")
_CHAT_LIMITS = ("max_completion_tokens", "max_tokens")
"""The new name of the limit and the old one: no path of keys."""
_CHAT = _flat() | {"max_tokens": _CHAT_LIMITS}

ENDPOINTS: tuple[Endpoint, ...] = (
    Endpoint(
        suffix="/chat/completions",
        wire=chat_wire(),
        inventor="openai",
        options=_CHAT,
    ),
    Endpoint(
        suffix="/responses",
        wire=openai_responses.responses_wire(runs_on=True),
        inventor="openai",
        options=_flat(max_tokens="max_output_tokens") | _below("reasoning", reasoning_effort="effort"),
        asks=(("model", "prompt"),),
    ),
    Endpoint(
        suffix="/v1/messages",
        wire=anthropic.MESSAGES,
        inventor="anthropic",
        options=_CLAUDE,
        asks=_CONVERSATION,
    ),
    Endpoint(
        suffix=":generateContent",
        wire=gemini.WIRE,
        inventor="gemini",
        options=_GEMINI,
        streams_by=_never,
        model_of=_model_in_path,
    ),
    Endpoint(
        suffix=":streamGenerateContent",
        wire=gemini.WIRE,
        inventor="gemini",
        options=_GEMINI,
        streams_by=_always,
        model_of=_model_in_path,
    ),
    Endpoint(
        suffix="/v2/chat",
        wire=cohere.PRESET.wire,
        inventor="cohere",
        options=_flat(top_p="p", top_k="k", stop="stop_sequences"),
        asks=_CONVERSATION,
    ),
    Endpoint(
        suffix="/api/chat",
        wire=ollama.PRESET.wire,
        inventor="ollama",
        options=_OLLAMA,
        streams_by=_unless_declined,
        asks=_CONVERSATION,
    ),
    Endpoint(
        suffix="/api/generate",
        wire=text_completions.GENERATE,
        inventor="ollama",
        options=_OLLAMA,
        streams_by=_unless_declined,
        asks=(("model",), ("prompt",)),
    ),
    Endpoint(
        suffix="/agents/completions",
        wire=chat_wire(),
        inventor="mistral",
        options=_CHAT,
        asks=(("agent_id",), ("messages",)),
    ),
    Endpoint(
        suffix="/completions",
        wire=text_completions.COMPLETIONS,
        inventor="openai",
        options=_CHAT,
        asks=(("prompt",),),
    ),
    Endpoint(
        suffix="/images/generations",
        wire=images.IMAGES,
        inventor="openai",
        options={},
        asks=(("prompt",),),
        output_type="image",
    ),
    *(
        Endpoint(
            suffix=suffix,
            wire=wire,
            inventor="bedrock",
            options=options,
            streams_by=_always if suffix.endswith("-stream") else _never,
            model_of=_bedrock_model,
            is_meant=is_meant,
        )
        for suffix, wire, options, is_meant in (
            ("/converse", bedrock.CONVERSE, _CONVERSE, _is_bedrock),
            ("/converse-stream", bedrock.CONVERSE, _CONVERSE, _is_bedrock),
            ("/invoke", bedrock_invoke.INVOKE, _CLAUDE, _is_bedrock_chat),
            ("/invoke-with-response-stream", bedrock_invoke.INVOKE, _CLAUDE, _is_bedrock),
        )
    ),
    _embedding(
        "/invoke",
        bedrock_invoke.EMBED,
        "bedrock",
        model_of=_bedrock_model,
        is_meant=_is_bedrock_embedding,
    ),
    *(_on_vertex(suffix, "anthropic", anthropic.MESSAGES, _CLAUDE) for suffix in _RAW),
    *(_on_vertex(suffix, "mistralai", chat_wire(), _CHAT) for suffix in _RAW),
    _embedding("/api/embeddings", embeddings.OLLAMA, "ollama", asks=(("model",), ("prompt",))),
    _embedding("/embeddings", embeddings.OPENAI, "openai", asks=(("input",),)),
    _embedding("/api/embed", embeddings.OLLAMA, "ollama", asks=(("model",), ("input",))),
    _embedding("/v2/embed", embeddings.COHERE, "cohere", asks=_COHERE_EMBEDS),
    _embedding("/v1/embed", embeddings.COHERE, "cohere", asks=_COHERE_EMBEDS),
    *(_embedding(suffix, embeddings.GEMINI, "gemini", model_of=_model_in_path) for suffix in _GEMINI_EMBEDS),
    _embedding(":predict", embeddings.VERTEX, "vertex", model_of=_model_in_path, is_meant=_is_vertex_embedding),
)

_SUFFIXES = tuple(dict.fromkeys(endpoint.suffix for endpoint in ENDPOINTS))
_TAIL = min(map(len, _SUFFIXES))
_TAILS = frozenset(suffix[-_TAIL:] for suffix in _SUFFIXES)
"""The last characters of each, which nearly no other path has."""


def may_be_call(path: str) -> bool:
    """Whether a path ends as that of a model call does: the one test that every request pays for."""
    return path[-_TAIL:] in _TAILS and path.endswith(_SUFFIXES)


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelCall:
    """A request that calls a model."""

    endpoint: Endpoint
    """The kind of request."""
    provider: str
    """The provider whose prices apply; `openai_compatible` for an unknown host."""
    wire: WireFormat
    """The format of the reply, as that provider speaks it."""
    model: str
    """The model that is asked for; empty where the request does not tell."""
    is_stream: bool
    """Whether a stream is asked for."""
    sampling: Mapping[str, Any]
    """The sampling options that the request names, by field of `SamplingOptions`."""
    choices: int = 1
    """The replies that the request asks for; each may be as long as the limit of output allows."""

    @property
    def max_output(self) -> int:
        """The most output tokens that the request allows; 0 where it sets no limit."""
        return (self.sampling.get("max_tokens") or 0) * self.choices


def recognized(
    host: str, port: int | None, path: str, body: bytes | None, hosts: Mapping[str, str]
) -> ModelCall | None:
    """The model call in a request; `None` where it is none.

    Args:
        host: the server's name.
        port: its port; `None` for that of the scheme.
        path: the path, without the query.
        body: the body; `None` where it cannot be seen.
        hosts: the user's own hosts, as `host` or `host:port`, with the provider of each.
    """
    document = _object_in(body)
    provider = provider_at(host, port, hosts)
    endpoint = _endpoint_of(path, document, is_known=provider != UNKNOWN)
    if endpoint is None:
        return None
    model = endpoint.model_of(path, document)
    return ModelCall(
        endpoint=endpoint,
        provider=provider,
        wire=endpoint.wire if endpoint.wire.with_cost is None else _spoken_at(endpoint, provider),
        model=model if isinstance(model, str) else "",
        is_stream=endpoint.streams_by(path, document),
        sampling=_sampling_in(document, endpoint.options),
        choices=_choices_in(document),
    )


def _endpoint_of(path: str, body: Mapping[str, Any], *, is_known: bool) -> Endpoint | None:
    """The kind of a request; of two with one end, that which asks as the body does."""
    meant = _meant_by(path)
    for endpoint in meant:
        if not endpoint.asks or all(any(field in body for field in either) for either in endpoint.asks):
            return endpoint
    return meant[0] if meant and is_known else None


@lru_cache(maxsize=256)
def _meant_by(path: str) -> Sequence[Endpoint]:
    """The kinds of request that a path may be, of which few programs use more than some."""
    return [each for each in ENDPOINTS if path.endswith(each.suffix) and each.is_meant(path)]


def wire_at(suffix: str, provider: str) -> WireFormat:
    """The format of a path's end, as a server speaks it."""
    return _spoken_at(next(each for each in ENDPOINTS if each.suffix == suffix), provider)


@lru_cache(maxsize=64)
def _spoken_at(endpoint: Endpoint, provider: str) -> WireFormat:
    """The format as a server speaks it: how it counts tokens, and how it reports cost."""
    wire = endpoint.wire
    if wire.with_cost is None or provider == UNKNOWN:
        return wire
    if endpoint.suffix in ("/chat/completions", "/agents/completions"):
        wire = next((preset.wire for preset in PRESETS if preset.name == provider), wire)
    return wire if wire.with_cost is None else wire.with_cost(cost_format(provider, None), provider)


_DECODER = json.JSONDecoder()


def _object_in(body: bytes | None) -> Mapping[str, Any]:
    try:
        if body is None or not body.startswith(b"{"):
            return mapped(json.loads(body)) if body else {}
        text = body.decode("utf-8", "surrogatepass")
        document, end = _DECODER.raw_decode(text)  # in half the time of `json.loads`
        return mapped(document if end == len(text) else _DECODER.decode(text))
    except (ValueError, RecursionError):
        return {}


def _sampling_in(body: Mapping[str, Any], options: Mapping[str, tuple[str, ...]]) -> dict[str, Any]:
    """The options whose values are such as the option allows."""
    found: dict[str, Any] = {}
    for option, keys in options.items():
        value = body.get(keys[0]) if len(keys) == 1 else _value_at(body, keys)
        if value is None:
            continue
        if isinstance(value, list):
            value = tuple(cast("list[object]", value))
        elif option == "stop" and isinstance(value, str):
            value = (value,)
        if SAMPLING_RULES[option].allows(value):
            found[option] = value
    return found


def _choices_in(body: Mapping[str, Any]) -> int:
    """Of chat completions `n`, of older completions also `best_of`, of Gemini `candidateCount`."""
    asked = body.get("n"), body.get("best_of"), mapped(body.get("generationConfig")).get("candidateCount")
    return max([1, *(count for count in asked if type(count) is int)])


def _value_at(body: Mapping[str, Any], keys: tuple[str, ...]) -> object:
    if keys == _CHAT_LIMITS:
        return next((body[key] for key in keys if body.get(key) is not None), None)
    value: object = body
    for key in keys:
        value = mapped(value).get(key)
    return value
