"""The compatible family: where each server is, where its key is, and which parameters are unsupported."""

from __future__ import annotations

import pytest

from tests.servers.fixture import OpenAIServer
from tests.support import Captured, attributes
from tracemind_otel import LLMCallConfig, LLMClientFactory, LLMRequest, run_llm_call
from tracemind_otel.ai.llm.providers.presets import PRESETS, Preset
from tracemind_otel.errors import ConfigError, LLMAuthenticationError

BY_NAME = {preset.name: preset for preset in PRESETS}
EXPECTED: dict[str, tuple[str | None, str | None, str, set[str]]] = {
    "openai_compatible": (None, None, "openai_compatible", set()),
    "openrouter": ("https://openrouter.ai/api/v1", "OPENROUTER_API_KEY", "openrouter", set()),
    "groq": ("https://api.groq.com/openai/v1", "GROQ_API_KEY", "groq", {"top_k"}),
    "deepseek": ("https://api.deepseek.com", "DEEPSEEK_API_KEY", "deepseek", {"top_k", "seed"}),
    "together": ("https://api.together.xyz/v1", "TOGETHER_API_KEY", "together", set()),
    "xai": ("https://api.x.ai/v1", "XAI_API_KEY", "x_ai", {"top_k"}),
    "perplexity": ("https://api.perplexity.ai", "PERPLEXITY_API_KEY", "perplexity", {"seed", "stop"}),
    "mistral": ("https://api.mistral.ai/v1", "MISTRAL_API_KEY", "mistral_ai", {"top_k"}),
    "vllm": ("http://localhost:8000/v1", None, "vllm", set()),
    "llama_cpp": ("http://localhost:8080/v1", None, "llama_cpp", set()),
    "lm_studio": ("http://localhost:1234/v1", None, "lm_studio", set()),
    "ollama_v1": ("http://localhost:11434/v1", None, "ollama", set()),
}
EVERYTHING = LLMRequest(
    "any",
    "m",
    "hi",
    temperature=0.5,
    top_p=0.9,
    max_tokens=10,
    stop=("x",),
    seed=7,
    top_k=5,
    frequency_penalty=0.1,
    presence_penalty=0.2,
    reasoning_effort="low",
)
SET = {
    "temperature": 0.5,
    "top_p": 0.9,
    "max_tokens": 10,
    "stop": ("x",),
    "seed": 7,
    "top_k": 5,
    "frequency_penalty": 0.1,
    "presence_penalty": 0.2,
    "reasoning_effort": "low",
}
NAMES = sorted(EXPECTED)


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for preset in PRESETS:
        for variable in preset.environment:
            monkeypatch.delenv(variable, raising=False)


def asking(model: str, names: set[str]) -> LLMRequest:
    """A request with just these parameters."""
    values: dict[str, object] = {name: SET[name] for name in names}
    return LLMRequest("any", model, "hi", **values)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def test_every_preset_is_in_the_table() -> None:
    """The table below has every preset."""
    assert sorted(BY_NAME) == NAMES


@pytest.mark.parametrize("name", NAMES)
async def test_where_it_is(name: str) -> None:
    """Address and telemetry name are those that the provider documents."""
    base_url, _, telemetry_name, _ = EXPECTED[name]

    async with BY_NAME[name].client("k", None if base_url else "http://here/v1") as client:
        assert client.base_url == base_url or name == "openai_compatible"
        assert (client.telemetry_name or client.provider_name) == telemetry_name
        assert (client.provider_name, client.operation) == (name, "chat")


@pytest.mark.parametrize("name", [name for name in NAMES if EXPECTED[name][1]])
async def test_missing_key(name: str, openai_server: OpenAIServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a key nothing is sent, and the error names the variable; the variable's key is sent as bearer."""
    variable = EXPECTED[name][1] or ""
    model = openai_server.script({"do": "echo"})

    async with BY_NAME[name].client(base_url=openai_server.base_url) as client:
        with pytest.raises(LLMAuthenticationError, match=variable):
            await client.complete(LLMRequest(name, model, "hi"))
        with pytest.raises(LLMAuthenticationError, match=variable):
            await anext(client.stream(LLMRequest(name, model, "hi")))
    assert openai_server.requests(model) == []

    monkeypatch.setenv(variable, "from-the-variable")
    async with BY_NAME[name].client(base_url=openai_server.base_url) as client:
        await client.complete(LLMRequest(name, model, "hi"))
    assert openai_server.requests(model)[0].headers["authorization"] == "Bearer from-the-variable"


@pytest.mark.parametrize("name", [name for name in NAMES if not EXPECTED[name][1]])
async def test_no_key_is_needed(name: str, openai_server: OpenAIServer) -> None:
    """A user's own server needs no key, and gets no authorization header."""
    model = openai_server.script({"do": "echo"})

    async with BY_NAME[name].client(base_url=openai_server.base_url) as client:
        reply = await client.complete(LLMRequest(name, model, "hi"))

    assert reply.text == "echo: hi"
    assert "authorization" not in openai_server.requests(model)[0].headers


UNSUPPORTED = [(name, parameter) for name in NAMES for parameter in sorted(EXPECTED[name][3])]


@pytest.mark.parametrize(("name", "parameter"), UNSUPPORTED)
async def test_unsupported_parameter(name: str, parameter: str, openai_server: OpenAIServer) -> None:
    """An unsupported parameter is rejected by name before anything is sent; `extra` sends it."""
    model = openai_server.script({"do": "echo"})
    request = asking(model, {parameter})

    async with BY_NAME[name].client("k", openai_server.base_url) as client:
        with pytest.raises(ConfigError, match=f"^{parameter}: {name} has no such parameter"):
            await client.complete(request)
        with pytest.raises(ConfigError, match=f"^{parameter}: "):
            await anext(client.stream(request))
        assert openai_server.requests(model) == []
        await client.complete(LLMRequest(name, model, "hi", extra={parameter: "as it is"}))

    assert openai_server.requests(model)[0].body[parameter] == "as it is"


@pytest.mark.parametrize("name", NAMES)
async def test_other_parameters_arrive(name: str, openai_server: OpenAIServer) -> None:
    """Every supported parameter reaches the server, under the server's name for it."""
    model = openai_server.script({"do": "echo"})
    allowed = set(SET) - EXPECTED[name][3]

    async with BY_NAME[name].client("k", openai_server.base_url) as client:
        await client.complete(asking(model, allowed))

    body = openai_server.requests(model)[0].body
    own_names = {"seed": "random_seed"} if name == "mistral" else {}
    assert {key: value for key, value in body.items() if key not in ("model", "messages")} == {
        own_names.get(key, key): (list(SET["stop"]) if key == "stop" else SET[key])  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue, reportUnknownArgumentType]
        for key in allowed
    }


@pytest.mark.parametrize("name", NAMES)
def test_asking_for_usage(name: str) -> None:
    """A stream asks for its usage, unless the server sends it unasked and rejects the field."""
    payload = BY_NAME[name].wire.to_payload(LLMRequest(name, "m", "hi"), True)

    assert payload["stream"] is True
    assert payload.get("stream_options") == (None if name == "mistral" else {"include_usage": True})


def test_turning_it_off() -> None:
    """`extra={"stream_options": None}` removes the field, and other values of the user win."""
    wire = BY_NAME["vllm"].wire
    more = {"include_usage": True, "continuous_usage_stats": True}

    assert "stream_options" not in wire.to_payload(LLMRequest("v", "m", "hi", extra={"stream_options": None}), True)
    assert wire.to_payload(LLMRequest("v", "m", "hi", extra={"stream_options": more}), True)["stream_options"] == more


def test_compatible_without_address(monkeypatch: pytest.MonkeyPatch) -> None:
    """`openai_compatible` needs an address, as argument or variable."""
    preset: Preset = BY_NAME["openai_compatible"]

    with pytest.raises(ConfigError, match="base_url or OPENAI_COMPATIBLE_BASE_URL"):
        preset.client("k")
    with pytest.raises(ConfigError, match="base_url"):
        LLMClientFactory.make("openai_compatible")
    monkeypatch.setenv("OPENAI_COMPATIBLE_BASE_URL", "http://variable:1/v1/")
    assert preset.client("k").base_url == "http://variable:1/v1"
    assert preset.client("k", "http://argument:1").base_url == "http://argument:1"


@pytest.mark.parametrize("name", [name for name in NAMES if not EXPECTED[name][1]])
def test_address_by_variable(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The address of a user's own server can be in a variable."""
    monkeypatch.setenv(f"{name.upper()}_BASE_URL", "http://elsewhere:9/v1")

    assert BY_NAME[name].client().base_url == "http://elsewhere:9/v1"


@pytest.mark.parametrize("name", ["xai", "mistral", "openrouter"])
async def test_span(name: str, openai_server: OpenAIServer, capture: Captured) -> None:
    """The span has the conventions' name of the provider, its server, and the tokens."""
    model = openai_server.script({"do": "echo"})

    async with BY_NAME[name].client("k", openai_server.base_url) as client:
        config = LLMCallConfig(name, model, prompt="hi")
        result = await run_llm_call("f", "s", config, capture.recorder(), client=client)

    seen = attributes(capture.span(f"chat {model}"))
    assert result["status"] == "ok"
    assert seen["gen_ai.provider.name"] == EXPECTED[name][2]
    assert (seen["server.port"], seen["gen_ai.usage.input_tokens"]) == (openai_server.port, 1000)
