"""The options of `LLMClientFactory.make`: which providers have them, what they change, and when a client is reused."""

from __future__ import annotations

import json
import threading
from typing import Any

import httpx
import pytest

import tracemind_otel as tm
from tests.servers.fixture import OpenAIServer
from tests.support import Captured, attributes
from tracemind_otel.ai.llm.providers import OpenAILLMClient

make = tm.LLMClientFactory.make
CLAUDE = "claude-sonnet-4-5@20250929"
MESSAGE: dict[str, Any] = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "claude-sonnet-4-5-20250929",
    "content": [{"type": "text", "text": "Hello"}],
    "stop_reason": "end_turn",
    "usage": {"input_tokens": 10, "output_tokens": 5},
}


class LocalTransport(httpx.AsyncHTTPTransport):
    """Sends what is meant for a provider's host to the local server, and keeps the bodies as they were.

    The local server finds its script by the model, so a body without one gets `model`.
    """

    def __init__(self, base_url: str, model: str) -> None:
        super().__init__()
        self._local, self._model = httpx.URL(base_url), model
        self.sent: list[dict[str, Any]] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        body: dict[str, Any] = json.loads(request.content)
        self.sent.append(body)
        url = request.url.copy_with(scheme="http", host=self._local.host, port=self._local.port)
        return await super().handle_async_request(httpx.Request("POST", url, json={"model": self._model, **body}))


@pytest.mark.parametrize(
    "name", ["openai", "openai_responses", "anthropic", "gemini", "cohere", "ollama", "groq", "vllm"]
)
def test_another_host(name: str) -> None:
    """`provider_name` names another host in telemetry, and its prices hold."""
    client = make(name, api_key="k", base_url="https://host.example", provider_name="mistral")
    assert (client.provider_name, client.telemetry_name) == ("mistral", "mistral_ai")
    unknown = make(name, api_key="k", base_url="https://host.example", provider_name="Acme")
    assert (unknown.provider_name, unknown.telemetry_name) == ("Acme", "Acme")


@pytest.mark.parametrize("option", ["project", "api_version"])
def test_option_of_others(option: str) -> None:
    """An unsupported option is rejected with the names of the providers that have it."""
    options: dict[str, Any] = {option: "x"}
    takers = "vertex" if option == "project" else "azure_openai, azure_openai_responses"
    with pytest.raises(tm.ConfigError, match=f"{option}: provider 'groq' does not take it; those that do are {takers}"):
        make("groq", **options)


def test_unknown_and_empty_options() -> None:
    """Unknown and empty options are rejected by name."""
    options: dict[str, Any] = {"flavour": "x"}
    with pytest.raises(tm.ConfigError, match="flavour: provider 'groq' does not take it; no provider does"):
        make("groq", **options)
    with pytest.raises(tm.ConfigError, match="provider_name is empty"):
        make("groq", provider_name=" ")


async def test_clients_by_options() -> None:
    """Within a loop, equal options give the same client, and other options another one."""
    async with httpx.AsyncClient() as one, httpx.AsyncClient() as two:
        assert make("groq", http_client=one) is make("groq", http_client=one)
        assert make("groq", http_client=one) is not make("groq", http_client=two)
        assert make("groq", provider_name="a") is not make("groq", provider_name="b")
        assert make("groq", provider_name=None) is make("groq")


def test_plain_third_party() -> None:
    """A factory that takes only a key and a base URL works; any other option is rejected by name."""
    fake = make("fake")

    def plain(*, api_key: str | None = None, base_url: str | None = None) -> tm.AsyncLLMClient:
        return fake

    tm.LLMClientFactory.register("plain", plain)
    assert make("plain", api_key="k") is fake
    with pytest.raises(tm.ConfigError, match="provider_name: provider 'plain' does not take it"):
        make("plain", provider_name="x")


def test_azure_responses() -> None:
    """Responses at Azure has Azure's name in telemetry, and each surface its path."""
    client = make("azure_openai_responses", api_key="k", base_url="https://r.example", api_version="2025-04-01-preview")
    assert (client.provider_name, client.telemetry_name) == ("azure_openai_responses", "azure.ai.openai")


async def test_azure_responses_request(openai_server: OpenAIServer) -> None:
    """The key is in Azure's header, and the path is the v1 surface's."""
    body: dict[str, Any] = {"id": "r", "status": "completed", "model": "gpt-5.2", "output": []}
    key = openai_server.script({"body": json.dumps(body)})
    base_url = openai_server.base_url.removesuffix("/v1") + "/openai/v1"
    client = make("azure_openai_responses", api_key="secret", base_url=base_url)
    await client.complete(tm.LLMRequest("azure_openai_responses", key, "hi"))
    (request,) = openai_server.requests(key)
    assert request.headers["api-key"] == "secret"
    assert request["path"].endswith("/openai/v1/responses")


async def test_claude_on_vertex(openai_server: OpenAIServer, capture: Captured) -> None:
    """Claude has its own path, body, operation and price on Vertex; a sync token function runs off the loop."""
    key = openai_server.script({"body": json.dumps(MESSAGE)})
    threads: list[threading.Thread] = []

    def token() -> str:
        threads.append(threading.current_thread())
        return "t1"

    client = make("vertex", project="p", location="us-east5", token=token, base_url=openai_server.base_url)
    config = tm.LLMCallConfig("vertex", CLAUDE, "hi", extra={"model": key})
    result = await tm.run_llm_call("f", "s", config, capture.recorder(), client=client)
    assert result["status"] == "ok"
    (request,) = openai_server.requests(key)
    assert request["path"].endswith(f"/projects/p/locations/us-east5/publishers/anthropic/models/{CLAUDE}:rawPredict")
    assert request.headers["authorization"] == "Bearer t1"
    assert threads != [threading.current_thread()]
    seen = attributes(capture.span(f"chat {CLAUDE}"))
    assert seen["gen_ai.provider.name"] == "gcp.vertex_ai"
    assert seen["gen_ai.usage.cost"] > 0


async def test_claude_body_on_vertex(openai_server: OpenAIServer) -> None:
    """The body has Vertex's version and no model, since the path names it."""
    key = openai_server.script({"body": json.dumps(MESSAGE)})
    local = LocalTransport(openai_server.base_url, key)
    async with httpx.AsyncClient(transport=local) as http_client:
        client = make("vertex", project="p", location="us-east5", token=lambda: "t", http_client=http_client)
        await client.complete(tm.LLMRequest("vertex", CLAUDE, "hi"))
    (body,) = local.sent
    assert body["anthropic_version"] == "vertex-2023-10-16"
    assert "model" not in body


def test_vertex_without_token() -> None:
    """The error for a missing token says how to get one."""
    with pytest.raises(tm.ConfigError, match=r"token is not set.*google\.auth\.default"):
        make("vertex", project="p")


def test_vertex_by_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Project and location come from Google's variables."""
    monkeypatch.setenv("GOOGLE_CLOUD_LOCATION", "europe-west4")
    monkeypatch.delenv("GOOGLE_CLOUD_PROJECT", raising=False)
    with pytest.raises(tm.ConfigError, match="GOOGLE_CLOUD_PROJECT"):
        make("vertex", token=lambda: "t")
    monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", "p")
    assert make("vertex", token=lambda: "t").server_address == "europe-west4-aiplatform.googleapis.com"


async def test_claude_streamed_on_vertex(openai_server: OpenAIServer, capture: Captured) -> None:
    """A stream of Claude on Vertex uses its own method, with a token of an async function."""
    documents: list[dict[str, Any]] = [
        {"type": "message_start", "message": {**MESSAGE, "content": [], "stop_reason": None}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hello"}},
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 5}},
        {"type": "message_stop"},
    ]
    body = "".join(f"event: {each['type']}\ndata: {json.dumps(each)}\n\n" for each in documents)
    key = openai_server.script({"body": body, "headers": {"content-type": "text/event-stream"}})

    async def token() -> str:
        return "t2"

    client = make("vertex", project="p", token=token, base_url=openai_server.base_url)
    config = tm.LLMCallConfig("vertex", CLAUDE, "hi", extra={"model": key})
    async with tm.stream_llm_call("f", "s", config, capture.recorder(), client=client) as stream:
        events = [event async for event in stream]
    assert isinstance(events[-1], tm.Finish)
    assert events[-1].response.text == "Hello"
    (request,) = openai_server.requests(key)
    assert request["path"].endswith(f"/publishers/anthropic/models/{CLAUDE}:streamRawPredict")
    assert request.headers["authorization"] == "Bearer t2"
    assert attributes(capture.span(f"chat {CLAUDE}"))["gen_ai.usage.output_tokens"] == 5


REPLY: dict[str, Any] = {
    "model": "gpt-4o-mini-2024-07-18",
    "choices": [{"message": {"content": "Hello"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 1000, "completion_tokens": 500, "total_tokens": 1500, "cost": 42.0},
}


@pytest.mark.parametrize(
    ("name", "options", "cost", "source"),
    [
        ("openai_compatible", {"cost_unit": "USD"}, 42.0, "provider"),
        ("vllm", {"cost_unit": "usd"}, 42.0, "provider"),
        ("openai", {"cost_unit": "USD"}, 42.0, "provider"),
        ("openai", {}, 0.00045, "local"),
        ("openai", {"cost_unit": "CNY"}, 0.00045, "local"),
        ("openai_compatible", {"provider_name": "openai"}, 0.00045, "local"),
        ("openai_compatible", {"provider_name": "openrouter"}, 42.0, "provider"),
        ("openai_compatible", {}, None, None),
    ],
)
async def test_whose_cost_is_believed(
    openai_server: OpenAIServer, name: str, options: dict[str, Any], cost: float | None, source: str | None
) -> None:
    """A cost is believed in USD where its unit is declared, and ignored in any other currency or without a unit."""
    model = openai_server.script({"body": json.dumps(REPLY)})
    client = make(name, api_key="k", base_url=openai_server.base_url, **options)
    config = tm.LLMCallConfig(name, model, prompt="hi")
    usage = (await tm.run_llm_call("f", "s", config, tm.Recorder(), client=client))["usage"]
    assert usage["cost_usd"] == pytest.approx(cost)
    assert usage["cost_source"] == source


@pytest.mark.parametrize(
    ("name", "url", "options", "cost", "output"),
    [
        ("openai", "https://api.x.ai/v1", {}, 2.0, 90),
        ("openai_compatible", "https://eu-west-1.api.x.ai/v1", {}, 2.0, 90),
        ("openai_compatible", "https://proxy.example/v1", {"provider_name": "x-ai"}, 2.0, 90),
        ("openai", "https://openrouter.ai/api/v1", {"provider_name": "anthropic"}, 0.5, 5),
        ("openai", "https://generativelanguage.googleapis.com/v1beta/openai", {}, None, 90),
        ("openai_compatible", "https://api.x.ai.example/v1", {}, None, 5),
    ],
)
async def test_a_server_is_known_by_its_host(
    openai_server: OpenAIServer, name: str, url: str, options: dict[str, Any], cost: float | None, output: int
) -> None:
    """A known host decides how usage and cost are read, under any name; prices are those of the name."""
    counted = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 100}
    charged = {"cost": 0.5, "cost_in_usd_ticks": 2 * 10**10}
    body: dict[str, Any] = {"model": "m", "choices": [{}], "usage": {**counted, **charged}}
    model = openai_server.script({"body": json.dumps(body)})
    async with httpx.AsyncClient(transport=LocalTransport(openai_server.base_url, model)) as http_client:
        client = make(name, api_key="k", base_url=url, http_client=http_client, **options)
        reply = await client.complete(tm.LLMRequest(name, model, "hi"))
    assert reply.usage.completion_tokens == output
    assert (reply.reported_cost.usd if reply.reported_cost else None) == cost
    assert client.reports_cost == (cost is not None)
    named = {"https://eu-west-1.api.x.ai/v1": "xai"} if name == "openai_compatible" else {}
    assert client.provider_name == options.get("provider_name", named.get(url, name))


@pytest.mark.parametrize(
    ("url", "options", "provider", "shown"),
    [
        ("https://eu.api.openai.com/v1", {}, "openai", "openai"),
        ("https://api.x.ai/v1", {}, "xai", "x_ai"),
        ("https://api.x.ai/v1", {"provider_name": "mistral"}, "mistral", "mistral_ai"),
        ("https://api.openai.com.example/v1", {}, "openai_compatible", "openai_compatible"),
    ],
)
def test_a_compatible_server_is_named_by_its_host(url: str, options: dict[str, Any], provider: str, shown: str) -> None:
    """A known host is named in telemetry, and an unknown one is not."""
    client = make("openai_compatible", base_url=url, **options)
    assert (client.provider_name, client.telemetry_name or client.provider_name) == (provider, shown)


async def test_a_server_that_nobody_named_has_no_price_of_openais(
    openai_server: OpenAIServer, caplog: pytest.LogCaptureFixture
) -> None:
    """A model at an unknown host does not get OpenAI's price, and the log says once what to do."""
    plain = {**REPLY, "usage": {"prompt_tokens": 1000, "completion_tokens": 500, "total_tokens": 1500}}
    model = openai_server.script({"body": json.dumps(plain)}, {"body": json.dumps(plain)}, {"body": json.dumps(plain)})
    config = tm.LLMCallConfig("openai_compatible", model, prompt="hi")
    client = make("openai_compatible", base_url=openai_server.base_url)

    async def cost() -> float | None:
        cost_usd: float | None = (await tm.run_llm_call("f", "s", config, tm.Recorder(), client=client))["usage"][
            "cost_usd"
        ]
        return cost_usd

    assert [await cost(), await cost()] == [None, None]
    assert [record.getMessage() for record in caplog.records if "cost" in record.getMessage()] == [
        f"calls of openai_compatible/{model} have no cost: its provider is unknown; "
        "pass provider_name= to LLMClientFactory.make(), or add a price by set_prices()"
    ]
    tm.set_prices([{"model": "gpt-4o-mini-2024-07-18", "input": 1, "output": 2}])
    assert await cost() == pytest.approx(0.002)


def test_a_budget_waits_for_no_cost_that_nobody_believes() -> None:
    """A client reports costs only where they are believed, not in another currency or format."""
    assert make("openai", api_key="k", base_url="http://h/v1", cost_unit="USD").reports_cost
    assert not make("openrouter", api_key="k", cost_unit="EUR").reports_cost
    assert not make("anthropic", api_key="k", provider_name="openrouter").reports_cost


@pytest.mark.parametrize("name", ["azure_openai", "azure_openai_responses"])
@pytest.mark.parametrize("version", [None, "2025-04-01-preview"])
async def test_a_gateway_before_azure_may_name_the_cost(
    openai_server: OpenAIServer, name: str, version: str | None
) -> None:
    """With a declared unit the cost of a gateway in front of Azure is believed."""
    reply: dict[str, Any] = {
        **REPLY,
        "status": "completed",
        "output": [],
        "usage": {**REPLY["usage"], "input_tokens": 1000},
    }
    model = openai_server.script({"body": json.dumps(reply)})
    options: dict[str, Any] = {"api_version": version} if version else {}
    client = make(name, api_key="k", base_url=openai_server.base_url.removesuffix("/v1"), cost_unit="USD", **options)
    config = tm.LLMCallConfig(name, model, prompt="hi")
    result = await tm.run_llm_call("f", "s", config, tm.Recorder(), client=client)
    assert (result["usage"]["cost_usd"], result["usage"]["cost_source"]) == (42.0, "provider")
    (request,) = openai_server.requests(model)
    assert ("api-version=" in request["path"]) == (version is not None)


@pytest.mark.parametrize("url", ["http://[::1", "http://host:notaport/v1", "host/v1"])
def test_an_address_that_is_none(url: str) -> None:
    """An invalid address is rejected with a ConfigError that names it."""
    with pytest.raises(tm.ConfigError, match="base_url must be"):
        make("openai_compatible", base_url=url)


async def test_the_cost_of_a_proxy_in_its_header(openai_server: OpenAIServer) -> None:
    """LiteLLM's headers give the request's id, and the cost where its unit is declared."""
    headers = {"x-litellm-response-cost": "0.0123", "x-litellm-call-id": "lite-1"}
    plain = {**REPLY, "usage": {"prompt_tokens": 1000, "completion_tokens": 500, "total_tokens": 1500}}
    model = openai_server.script({"body": json.dumps(plain), "headers": headers})
    client = make("openai_compatible", base_url=openai_server.base_url, cost_unit="USD")
    config = tm.LLMCallConfig("openai_compatible", model, prompt="hi")
    result = await tm.run_llm_call("f", "s", config, tm.Recorder(), client=client)
    assert (result["usage"]["cost_usd"], result["usage"]["cost_source"]) == (0.0123, "provider")


@pytest.mark.parametrize(
    ("options", "extra", "sent"),
    [
        ({}, {}, {"max_tokens": 8}),
        ({}, {"max_completion_tokens": 9}, {"max_completion_tokens": 9}),
        ({"provider_name": "openai"}, {}, {"max_completion_tokens": 8}),
        ({"provider_name": "groq"}, {}, {"max_tokens": 8}),
    ],
)
async def test_the_limit_that_the_family_knows(
    openai_server: OpenAIServer, options: dict[str, Any], extra: dict[str, Any], sent: dict[str, int]
) -> None:
    """Compatible servers get `max_tokens`, and OpenAI's, also behind a proxy of that name, its own field."""
    model = openai_server.script({"body": json.dumps(REPLY)})
    client = make("openai", api_key="k", base_url=openai_server.base_url, **options)
    config = tm.LLMCallConfig("openai", model, prompt="hi", max_tokens=8, extra=extra)
    await tm.run_llm_call("f", "s", config, tm.Recorder(), client=client)
    (request,) = openai_server.requests(model)
    assert {name: value for name, value in request.body.items() if name.startswith("max_")} == sent


async def test_openais_own_hosts(openai_server: OpenAIServer) -> None:
    """OpenAI's server gets `max_completion_tokens`, in each of its regions."""
    model = openai_server.script({"body": json.dumps(REPLY)})
    for url in (None, "https://api.openai.com/v1", "https://eu.api.openai.com/v1"):
        local = LocalTransport(openai_server.base_url, model)
        async with httpx.AsyncClient(transport=local) as http_client:
            client = OpenAILLMClient("k", url, http_client=http_client)
            await client.complete(tm.LLMRequest("openai", model, "hi", max_tokens=8))
        assert local.sent[0]["max_completion_tokens"] == 8
