"""What is below HTTP: threads and loops, proxies, certificates, cookies, long headers, and the user's own clients."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import sys
import threading
import zlib
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import aclosing
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import aiohttp
import httpx
import httpx2
import pytest
from opentelemetry.trace import StatusCode

import tracemind_otel as tm
from tests.programs import run_program
from tests.servers.edge_servers import answering
from tests.servers.fixture import OpenAIServer, closed_port
from tests.servers.fixture import openai_server as openai_server
from tests.support import Captured
from tests.wire.canned import CHOICES, read_whole
from tests.wire.certificates import server_context
from tracemind_otel.ai.llm.providers._proxies import is_exempt, proxy_for
from tracemind_otel.ai.llm.providers.openai import OpenAILLMClient

PROXY = "http://proxy.example:3128"


@pytest.fixture
async def transports() -> AsyncGenerator[Callable[[str], Any]]:
    """Makes the `http_client` of a transport in the current environment; `None` is the package's own."""
    made: list[Any] = []

    def make(name: str) -> Any:
        if name == "aiohttp":
            return None
        made.append({"httpx": httpx, "httpx2": httpx2}[name].AsyncClient(timeout=None))
        return made[-1]

    yield make
    for client in made:
        await client.aclose()


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR"):
        monkeypatch.delenv(name, raising=False)


async def call(base_url: str, http_client: Any = None, *, recorder: tm.Recorder | None = None) -> dict[str, Any]:
    """One call with its own client."""
    async with OpenAILLMClient("sk-test", base_url, http_client=http_client) as client:
        cfg = tm.LLMCallConfig("openai", "gpt-4o-mini", prompt="ping")
        return await tm.run_llm_call("flow", "step", cfg, recorder or tm.Recorder(), client=client)


# --- Threads and loops


@pytest.fixture
def _eager_switches() -> Generator[None]:
    """Let threads take turns as often as they can."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


def in_its_own_loop(work: Any) -> Any:
    """Run in a new event loop, as programs without `asyncio.run` do."""
    loop = asyncio.new_event_loop()
    try:
        return loop.run_until_complete(work)
    finally:
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()


@pytest.mark.usefixtures("_eager_switches")
@pytest.mark.parametrize("run", [asyncio.run, in_its_own_loop])
@pytest.mark.parametrize("is_shared", [True, False], ids=["one-client", "the-factory's"])
def test_any_number_of_threads_and_loops(
    openai_server: OpenAIServer, monkeypatch: pytest.MonkeyPatch, run: Any, *, is_shared: bool
) -> None:
    """12 threads that make and close loops use one client, or the factory's, and every call succeeds."""
    monkeypatch.setenv("OPENAI_BASE_URL", openai_server.base_url)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
    cfg = tm.LLMCallConfig("openai", "gpt-4o-mini", prompt="ping", timeout_ms=60_000)
    client = OpenAILLMClient("sk-test", openai_server.base_url, timeout_s=None) if is_shared else None
    results: list[str] = []

    def work() -> None:
        for _ in range(15):
            call = tm.run_llm_call("flow", "step", cfg, tm.Recorder(), client=client)
            results.append(run(call)["status"])

    threads = [threading.Thread(target=work) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == ["ok"] * 180


PROGRAM = """
import asyncio, gc, os, sys, threading
import tracemind_otel as tm

sys.setswitchinterval(1e-6)
config = tm.LLMCallConfig("openai", "gpt-4o-mini", prompt="ping", timeout_ms=60_000)
results, most_open = [], []

def work():
    for _ in range(15):
        loop = asyncio.new_event_loop()
        call = tm.run_llm_call("flow", "step", config, tm.Recorder())
        results.append(loop.run_until_complete(call)["status"])
        loop.close()

for _ in range(2):
    threads = [threading.Thread(target=work) for _ in range(12)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    gc.collect()
    most_open.append(len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0)
assert results == ["ok"] * 360, results
assert most_open[1] < 100, most_open
"""


def test_loops_that_are_closed_without_more(openai_server: OpenAIServer, tmp_path: Path) -> None:
    """`new_event_loop`, `run_until_complete`, `close`: calls succeed, sockets do not pile up, and stderr is empty.

    Such a program leaves its loops' connections to asyncio, which closes them and warns in development mode only.
    """
    environment = {"OPENAI_BASE_URL": openai_server.base_url, "OPENAI_API_KEY": "sk-test"}
    options = ("-W", "ignore:unclosed:ResourceWarning")
    done = run_program(PROGRAM, tmp_path / "unused", options=options, environment=environment)
    assert (done.returncode, done.stderr) == (0, "")


WITHOUT_HTTPX = """
import sys
sys.modules["httpx"] = sys.modules["httpx_aiohttp"] = None  # importing them fails
import tracemind_otel as tm
print(tm.llm_call_sync("openai/gpt-4o-mini", "ping").text)
client = tm.LLMClientFactory.make("openai", base_url=sys.argv[1])
try:
    tm.llm_call_sync("openai/gpt-4o-mini", "ping", client=client, max_retries=0)
except tm.LLMConnectionError as error:
    print(error)
"""


def test_a_call_does_not_load_httpx(openai_server: OpenAIServer) -> None:
    """A call, and one that fails, do without httpx, which takes 5 MiB and 70 ms to load."""
    environment = {"OPENAI_BASE_URL": openai_server.base_url, "OPENAI_API_KEY": "sk-test"}
    port = closed_port()
    done = run_program(WITHOUT_HTTPX, f"http://127.0.0.1:{port}/v1", environment=environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["echo: ping", f"connection to 127.0.0.1:{port} failed: Connection refused"]


# --- Cookies and headers


async def test_the_id_of_a_call_through_litellm() -> None:
    """LiteLLM's header gives the request's id where the provider's own is missing."""
    for headers, expected in (
        ({"x-litellm-call-id": "call-1"}, "call-1"),
        ({"x-litellm-call-id": "call-1", "x-request-id": "req-1"}, "req-1"),
    ):
        assert (await read_whole("openai", {"choices": CHOICES}, headers=headers)).request_id == expected


@pytest.mark.parametrize("name", ["aiohttp", "httpx", "httpx2"])
async def test_no_cookie_is_sent_back(transports: Callable[[str], Any], name: str) -> None:
    """A cookie of a reply is not sent with the next request."""
    with answering(headers={"set-cookie": "route=abc; Path=/"}) as edge:
        http_client = transports(name)
        # By its name: aiohttp keeps no cookies of addresses.
        async with OpenAILLMClient("sk-test", f"http://localhost:{edge.port}/v1", http_client=http_client) as client:
            for _ in range(2):
                await client.complete(tm.LLMRequest("openai", "m", "ping"))
    assert ["cookie" in headers for headers in edge.headers] == [False, False]


@pytest.mark.parametrize("name", ["aiohttp", "httpx", "httpx2"])
@pytest.mark.parametrize("count", [1, 64])
async def test_long_headers_are_read(transports: Callable[[str], Any], name: str, count: int) -> None:
    """64 KB of response headers, in one or in many, are read."""
    headers = {f"x-long-{number}": "a" * (64 * 1024 // count) for number in range(count)}
    with answering(headers=headers) as edge:
        result = await call(f"http://127.0.0.1:{edge.port}/v1", transports(name))
    assert result["status"] == "ok", result


# --- Proxies


@pytest.mark.parametrize(
    ("host", "port", "no_proxy", "expected"),
    [
        ("api.example.com", 443, "", False),
        ("api.example.com", 443, "*", True),
        ("api.example.com", 443, "example.com", True),
        ("api.example.com", 443, ".example.com", True),
        ("api.example.com", 443, "*.example.com", True),
        ("example.com", 443, ".example.com", True),
        ("API.Example.COM.", 443, "example.com", True),
        ("badexample.com", 443, "example.com", False),
        ("example.com.evil.org", 443, "example.com", False),
        ("api.example.com", 443, "example.com:443", True),
        ("api.example.com", 8443, "example.com:443", False),
        ("api.example.com", 443, "other.org, example.com", True),
        ("api.example.com", 443, "other.org example.com", True),
        ("localhost", 80, "localhost", True),
        ("10.1.2.3", 80, "10.0.0.0/8", True),
        ("11.1.2.3", 80, "10.0.0.0/8", False),
        ("10.1.2.3", 80, "10.1.2.3", True),
        ("10.1.2.3", 80, "10.1.2.3:80", True),
        ("10.1.2.3", 81, "10.1.2.3:80", False),
        ("10.1.2.3", 80, "2.3", False),
        ("10.1.2.3", 80, "10.9.9.9/8", True),
        ("10.1.2.3", 80, "10.0.0.0/99", False),
        ("::1", 80, "::1", True),
        ("::1", 80, "[::1]", True),
        ("::1", 80, "[::1]:80", True),
        ("::1", 81, "[::1]:80", False),
        ("::1", 80, "0:0:0:0:0:0:0:1", True),
        ("fd00::12", 80, "fd00::/8", True),
        ("fd00::12", 80, "[fd00::]/8", True),
        ("fe00::12", 80, "fd00::/8", False),
        ("fd00::12", 80, "10.0.0.0/8", False),
        ("::ffff:10.1.2.3", 80, "10.0.0.0/8", True),
        ("10.example.com", 80, "10.0.0.0/8", False),
    ],
)
def test_no_proxy(host: str, port: int, no_proxy: str, *, expected: bool) -> None:
    """`NO_PROXY` has names, domains, ports, addresses and networks of both families, as in curl and requests."""
    assert is_exempt(host, port, no_proxy) is expected


@pytest.mark.parametrize(
    ("url", "proxies", "expected"),
    [
        ("http://a.example/v1", {}, None),
        ("http://a.example/v1", {"http": PROXY}, PROXY),
        ("https://a.example/v1", {"http": PROXY}, None),
        ("https://a.example/v1", {"https": PROXY}, PROXY),
        ("https://a.example/v1", {"all": PROXY}, PROXY),
        ("https://a.example/v1", {"https": "proxy.example:3128"}, PROXY),
        ("https://a.example/v1", {"https": PROXY, "all": "http://other"}, PROXY),
        ("https://[fd00::1]:8443/v1", {"all": PROXY, "no": "fd00::/8"}, None),
        ("https://a.example/v1", {"https": PROXY, "no": "a.example:443"}, None),
        ("http://a.example/v1", {"http": PROXY, "no": "a.example:443"}, PROXY),
    ],
)
def test_the_proxy_of_an_address(url: str, proxies: dict[str, str], expected: str | None) -> None:
    """A scheme's proxy wins over the general one, and an exempt host has none."""
    assert proxy_for(url, proxies) == expected


@pytest.mark.parametrize("variable", ["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"])
async def test_requests_go_through_the_proxy(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    """The proxy gets the whole address, and the user and password of its URL."""
    with answering() as proxy:
        monkeypatch.setenv(variable, f"http://me:secret@127.0.0.1:{proxy.port}")
        result = await call("http://model.invalid/v1")
    assert result["status"] == "ok", result
    assert proxy.seen == ["http://model.invalid/v1/chat/completions"]
    assert proxy.headers[0]["proxy-authorization"] == "Basic bWU6c2VjcmV0"


@pytest.mark.parametrize("no_proxy", ["127.0.0.0/8", "127.0.0.1", "*"])
async def test_an_exempt_server_is_asked_itself(monkeypatch: pytest.MonkeyPatch, no_proxy: str) -> None:
    """A server in a network of `NO_PROXY` gets the request directly."""
    with answering() as proxy, answering() as server:
        monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{proxy.port}")
        monkeypatch.setenv("NO_PROXY", no_proxy)
        result = await call(f"http://127.0.0.1:{server.port}/v1")
    assert result["status"] == "ok", result
    assert (proxy.seen, server.seen) == ([], ["/v1/chat/completions"])


async def test_a_server_of_ipv6_is_exempt(monkeypatch: pytest.MonkeyPatch) -> None:
    """An IPv6 server in a network of `NO_PROXY` gets the request directly."""
    with answering() as proxy, answering(host="::1") as server:
        monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{proxy.port}")
        monkeypatch.setenv("NO_PROXY", "::/64")
        result = await call(f"http://[::1]:{server.port}/v1")
    assert result["status"] == "ok", result
    assert (proxy.seen, server.seen) == ([], ["/v1/chat/completions"])


@pytest.mark.parametrize("scheme", ["http", "socks5"])
async def test_a_proxy_that_cannot_be_used_is_named(monkeypatch: pytest.MonkeyPatch, scheme: str) -> None:
    """The reason of a call says that its proxy does not listen, or is of an unsupported kind."""
    monkeypatch.setenv("ALL_PROXY", f"{scheme}://127.0.0.1:{closed_port()}")
    result = await call("http://model.invalid/v1")
    assert result["error_type"] == "LLMConnectionError"
    assert ("the proxy cannot be reached" if scheme == "http" else "socks5:// proxy") in result["reason"]


# --- Certificates


@pytest.mark.parametrize("name", ["aiohttp", "httpx", "httpx2"])
@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("unknown", "self-signed certificate"),
        ("expired", "certificate has expired"),
        ("other-host", "IP address mismatch"),
    ],
)
async def test_a_bad_certificate_is_named(
    transports: Callable[[str], Any],
    capture: Captured,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    name: str,
    fault: str,
    said: str,
) -> None:
    """A bad certificate's host and reason are in the result, over each transport, and the call is not retried."""
    host = "10.9.9.9" if fault == "other-host" else "127.0.0.1"
    context, trusted = server_context(tmp_path, host=host, is_expired=fault == "expired")
    if fault != "unknown":
        monkeypatch.setenv("SSL_CERT_FILE", str(trusted))
    with answering(tls=context) as edge:
        result = await call(f"https://127.0.0.1:{edge.port}/v1", transports(name), recorder=capture.recorder())

    assert (result["error_type"], result["retryable"], result["retries"]) == ("LLMConnectionError", False, 0)
    assert f"the certificate of 127.0.0.1:{edge.port} is not trusted: " in result["reason"]
    assert said in result["reason"].replace("self signed", "self-signed")
    assert ("SSL_CERT_FILE is " in result["reason"]) is (fault != "unknown")
    assert edge.seen == ["connection"]
    assert capture.spans[0].status.status_code is StatusCode.ERROR


@pytest.mark.parametrize("variable", ["SSL_CERT_FILE", "SSL_CERT_DIR"])
async def test_certificates_that_are_missing_are_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, variable: str
) -> None:
    """A variable with a missing file of certificates is named, and does not disturb a server without TLS."""
    monkeypatch.setenv(variable, str(tmp_path / "gone"))
    context, _ = server_context(tmp_path)
    with answering(tls=context) as edge, answering() as plain:
        result = await call(f"https://127.0.0.1:{edge.port}/v1")
        without_tls = await call(f"http://127.0.0.1:{plain.port}/v1")
    assert (result["error_type"], result["retryable"]) == ("LLMConnectionError", False)
    assert f"{variable} is {tmp_path / 'gone'}, which does not exist" in result["reason"]
    assert without_tls["status"] == "ok", without_tls


async def test_a_file_without_certificates_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A variable with a file without certificates is named."""
    empty = tmp_path / "empty.pem"
    empty.touch()
    monkeypatch.setenv("SSL_CERT_FILE", str(empty))
    result = await call("https://127.0.0.1:1/v1")
    assert "the certificates to trust cannot be loaded" in result["reason"]
    assert str(empty) in result["reason"]


@pytest.mark.parametrize("name", ["aiohttp", "httpx", "httpx2"])
async def test_a_trusted_certificate_is_good(
    transports: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    """A certificate in `SSL_CERT_FILE` is trusted."""
    context, trusted = server_context(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(trusted))
    with answering(tls=context) as edge:
        result = await call(f"https://127.0.0.1:{edge.port}/v1", transports(name))
    assert result["status"] == "ok", result


@pytest.mark.parametrize("name", ["aiohttp", "httpx", "httpx2"])
async def test_tls_with_a_server_that_has_none(transports: Callable[[str], Any], name: str) -> None:
    """The reason says that https:// was sent to a port of http://, and the call is not retried."""
    with answering() as edge:
        result = await call(f"https://127.0.0.1:{edge.port}/v1", transports(name))
    assert result["reason"].startswith(f"TLS with 127.0.0.1:{edge.port} failed: ")
    assert result["retryable"] is False


# --- Words


@pytest.mark.parametrize("name", ["aiohttp", "httpx", "httpx2"])
async def test_every_fault_has_a_reason_in_words(
    openai_server: OpenAIServer, transports: Callable[[str], Any], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No reason is the name of a library's class."""
    http_client = transports(name)
    reasons: list[str] = []
    addresses = [f"http://127.0.0.1:{closed_port()}/v1", "http://model.invalid/v1"]
    for base_url in addresses:
        async with OpenAILLMClient("sk-test", base_url, http_client=http_client) as client:
            with pytest.raises(tm.LLMError) as caught:
                await client.complete(tm.LLMRequest("openai", "m", "ping"))
            reasons.append(str(caught.value))
    async with OpenAILLMClient("sk-test", openai_server.base_url, http_client=http_client) as client:
        for action in ("reset", "cut"):
            model = openai_server.script({"do": cast("Any", action)})
            with pytest.raises(tm.LLMConnectionError) as caught:
                await client.complete(tm.LLMRequest("openai", model, "ping"))
            reasons.append(str(caught.value))
    assert all(" failed: " in reason for reason in reasons)
    said = [reason.partition(" failed: ")[2] for reason in reasons]
    assert not any("Error" in each or "Exception" in each for each in said), said


# --- Clients of one's own


async def test_a_library_that_another_thread_is_loading_changes_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """A first call that fails while a thread imports httpx2 has a connection error."""
    monkeypatch.setitem(sys.modules, "httpx2", ModuleType("httpx2"))
    result = await call(f"http://127.0.0.1:{closed_port()}")
    assert (result["status"], result["error_type"]) == ("error", "LLMConnectionError")


@pytest.mark.parametrize("kind", ["httpx.Client", "aiohttp.ClientSession", "httpx2.Client", "str"])
async def test_an_http_client_of_another_kind(kind: str) -> None:
    """An object that is no async httpx client is rejected, and the message says which one fits."""
    made: dict[str, Callable[[], Any]] = {
        "httpx.Client": httpx.Client,
        "httpx2.Client": httpx2.Client,
        "aiohttp.ClientSession": aiohttp.ClientSession,
        "str": str,
    }
    wrong = made[kind]()
    with pytest.raises(tm.ConfigError, match=r"http_client.*must be an httpx\.AsyncClient") as caught:
        OpenAILLMClient("sk-test", "http://127.0.0.1/v1", http_client=wrong)
    assert kind in str(caught.value)
    if kind == "aiohttp.ClientSession":
        await wrong.close()
    elif kind != "str":
        wrong.close()


# --- Bodies


STREAM = (
    'data: {"id": "c", "model": "m", "choices": [{"index": 0, "delta": {"content": "hi"}, "finish_reason": "stop"}]}'
    "\n\ndata: [DONE]\n\n"
)
CODINGS: dict[str, Callable[[bytes], bytes]] = {
    "identity": bytes,
    "gzip": gzip.compress,
    "deflate": zlib.compress,
    "deflate, gzip": lambda data: gzip.compress(zlib.compress(data)),
    "br": lambda data: cast("bytes", pytest.importorskip("brotli").compress(data)),
    "zstd": lambda data: cast("bytes", pytest.importorskip("zstandard").compress(data)),
}


@pytest.mark.parametrize("coding", CODINGS)
@pytest.mark.parametrize("is_stream", [False, True], ids=["whole", "streamed"])
async def test_a_compressed_reply_is_read(openai_server: OpenAIServer, coding: str, *, is_stream: bool) -> None:
    """A reply in any content coding is read, whole and streamed, if its library is installed."""
    plain = STREAM if is_stream else json.dumps({"choices": [{"message": {"content": "hi"}}]})
    body = CODINGS[coding](plain.encode()).decode("utf-8", "surrogateescape")
    model = openai_server.script({"body": body, "headers": {"content-encoding": coding}})
    async with OpenAILLMClient("sk-test", openai_server.base_url) as client:
        request = tm.LLMRequest("openai", model, "ping")
        if is_stream:
            events = [event async for batch in client.stream(request) for event in batch]
            reply = cast("tm.Finish", events[-1]).response
        else:
            reply = await client.complete(request)
    assert reply.text == "hi"


async def test_a_stream_that_is_not_read_holds_its_server_back() -> None:
    """While nobody asks for the next event, no more than the buffers of both ends is sent."""
    event = b'data: {"choices": [{"index": 0, "delta": {"content": "%s"}}]}\n\n' % (b"x" * 65536)
    sent = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            while sent < 64 * 2**20:
                writer.write(event)
                await writer.drain()
                sent += len(event)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    base_url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    request = tm.LLMRequest("openai", "m", "ping")
    async with server, OpenAILLMClient("sk-test", base_url) as client, aclosing(client.stream(request)) as stream:
        await anext(stream)
        for _ in range(2000):  # turns of the loop in which all could be sent
            await asyncio.sleep(0)
        assert sent < 32 * 2**20


# --- The end of a stream


async def _connections_of_two_streams(openai_server: OpenAIServer, headers: dict[str, str]) -> list[int]:
    model = openai_server.script({"body": STREAM, "headers": {"content-type": "text/event-stream", **headers}})
    request = tm.LLMRequest("openai", model, "ping")
    async with OpenAILLMClient("sk-test", openai_server.base_url) as client, asyncio.timeout(5):
        for _ in range(2):
            events = [event async for batch in client.stream(request) for event in batch]
            assert isinstance(events[-1], tm.Finish)
    return [request["connection"] for request in openai_server.requests(model)]


async def test_a_finished_stream_gives_its_connection_back(openai_server: OpenAIServer) -> None:
    """The next request uses the connection of a stream whose body has ended."""
    first, second = await _connections_of_two_streams(openai_server, {})
    assert first == second


async def test_a_finished_stream_that_goes_on_is_dropped(openai_server: OpenAIServer) -> None:
    """A connection whose body stays open after the end mark is not used again."""
    first, second = await _connections_of_two_streams(openai_server, {"content-length": "99999"})
    assert first != second


async def test_a_document_that_answers_a_stream_and_is_cut(openai_server: OpenAIServer) -> None:
    """A cut document instead of a stream is a connection error, which is retried."""
    model = openai_server.script({"do": "cut"}, {"do": "echo"})
    request = tm.LLMRequest("openai", model, "ping")
    async with OpenAILLMClient("sk-test", openai_server.base_url) as client:
        with pytest.raises(tm.LLMConnectionError, match="in the middle of the reply") as raised:
            async for _ in client.stream(request):
                pass
        assert raised.value.retryable
        events = [event async for batch in client.stream(request) for event in batch]
    assert tm.TextDelta("echo: ping") in events
