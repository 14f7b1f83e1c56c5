"""Each attempt goes as the standard variables say, and tells whether the request was sent before it failed."""

from __future__ import annotations

import base64
import json
import ssl
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Literal
from urllib.parse import unquote

import pytest

from tests.servers.fixture import closed_port
from tests.servers.scripted_receiver import Receiver, Reply, grpc_receiver, http_receiver
from tests.wire.certificates import server_context
from tracemind_otel.errors import ConfigError
from tracemind_otel.otel.export.answers import Answer, Delivered, Later, Refused, Transport, Unknown
from tracemind_otel.otel.export.otlp_options import batch_options, otlp_options
from tracemind_otel.otel.export.transports import make_transport

Protocol = Literal["http/protobuf", "grpc"]
BOTH = pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
GENERAL, OWN = "OTEL_EXPORTER_OTLP_", "OTEL_EXPORTER_OTLP_TRACES_"
BODY = b"\n\x00" * 50_000
SECRET = "Zq81LmmT0x9vB3"


@pytest.fixture(autouse=True)
def no_bundle(monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine's own authorities and proxies are none of the tests' business."""
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(params=["http/protobuf", "grpc"])
def receiver(request: pytest.FixtureRequest) -> Iterator[Receiver]:
    """A receiver over each protocol."""
    with http_receiver() if request.param == "http/protobuf" else grpc_receiver() as made:
        yield made


def transport_to(url: str, headers: dict[str, str] | None = None) -> Transport:
    """A transport of traces; a URL with a path is HTTP's."""
    protocol: Protocol = "http/protobuf" if url.endswith("/v1/traces") else "grpc"
    return make_transport("traces", protocol, url, headers or {}, otlp_options("traces", protocol, url))


def sent_once(url: str, headers: dict[str, str] | None = None, timeout_s: float = 20.0) -> Answer:
    """The answer to one request."""
    transport = transport_to(url, headers)
    try:
        return transport.send(BODY, timeout_s)
    finally:
        transport.close()


# --- What is sent ---


def test_a_request(receiver: Receiver) -> None:
    """A request has the body as it is, the headers, and the name of this product."""
    assert sent_once(receiver.url, {"x-key": "a b", "x-other": "c"}) == Delivered()
    [request] = receiver.requests
    assert request.body == BODY
    assert (request.headers["x-key"], request.headers["x-other"]) == ("a b", "c")
    assert request.headers["user-agent"].startswith("tracemind-otel/")


def test_the_type_of_a_request() -> None:
    """Over HTTP the type is protobuf, and the path is that of the URL."""
    with http_receiver() as receiver:
        sent_once(receiver.url)
    [request] = receiver.requests
    assert (request.path, request.headers["content-type"]) == ("/v1/traces", "application/x-protobuf")


def test_the_connection_is_kept(receiver: Receiver) -> None:
    """Many requests go over one connection, also when an answer has a body."""
    receiver.answer_next(Reply(body=b"\n\x00"), Reply(body=b""))
    transport = transport_to(receiver.url)
    assert [transport.send(BODY, 20.0) for _ in range(4)] == [Delivered()] * 4
    transport.close()
    assert len({request.client for request in receiver.requests}) == 1


def test_an_answer_before_the_answer() -> None:
    """Nobody knows what a receiver did that hints at an answer, and the next request does not get that one."""
    with http_receiver(Reply(103)) as receiver:
        transport = transport_to(receiver.url)
        assert isinstance(transport.send(BODY, 5.0), Unknown)
        assert transport.send(BODY, 5.0) == Delivered()
        first, second = receiver.requests
        assert first.client != second.client
        transport.close()


@pytest.mark.parametrize("compression", ["gzip", "deflate", "none", " GZIP "])
@pytest.mark.parametrize("prefix", [GENERAL, OWN])
def test_compression_over_http(monkeypatch: pytest.MonkeyPatch, compression: str, prefix: str) -> None:
    """The variable of all signals, or the signal's own, says how a body is compressed."""
    monkeypatch.setenv(f"{prefix}COMPRESSION", compression)
    with http_receiver() as receiver:
        assert sent_once(receiver.url) == Delivered()
    [request] = receiver.requests
    assert request.body == BODY
    is_compressed = "none" not in compression
    assert request.headers.get("content-encoding", "none") == compression.strip().lower()
    assert (int(request.headers["content-length"]) < len(BODY) / 10) is is_compressed


def test_compression_over_grpc(monkeypatch: pytest.MonkeyPatch) -> None:
    """gzip works over gRPC too."""
    monkeypatch.setenv(f"{OWN}COMPRESSION", "gzip")
    with grpc_receiver() as receiver:
        assert sent_once(receiver.url) == Delivered()
    assert receiver.requests[0].body == BODY


def test_the_variable_of_one_signal_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is set for traces replaces what is set for all signals, and other signals keep that."""
    monkeypatch.setenv(f"{GENERAL}TIMEOUT", "7")
    monkeypatch.setenv(f"{OWN}TIMEOUT", "2.5")
    assert otlp_options("traces", "grpc", "http://h:4317").timeout_s == 2.5
    assert otlp_options("metrics", "grpc", "http://h:4317").timeout_s == 7.0


@pytest.mark.parametrize(
    ("url", "insecure", "is_secure"),
    [
        ("http://h:4317", None, False),
        ("https://h:4317", None, True),
        ("h:4317", None, True),
        ("h:4317", "true", False),
        ("h:4317", "TRUE", False),
        ("h:4317", "false", True),
        ("http://h:4317", "false", True),
        ("https://h:4317", "true", True),
    ],
)
def test_whether_grpc_has_tls(monkeypatch: pytest.MonkeyPatch, url: str, insecure: str | None, is_secure: bool) -> None:
    """The scheme says whether gRPC has TLS, and the variable where there is none, as in the official exporter."""
    if insecure is not None:
        monkeypatch.setenv(f"{GENERAL}INSECURE", insecure)
    assert otlp_options("traces", "grpc", url).is_secure is is_secure


@pytest.mark.parametrize("variable", ["HTTP_PROXY", "http_proxy"])
def test_a_proxy(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    """A proxy of the environment is used over HTTP."""
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    with http_receiver() as proxy:
        monkeypatch.setenv(variable, proxy.url.removesuffix("/v1/traces"))
        assert sent_once("http://collector.invalid:4318/v1/traces") == Delivered()
    assert [request.path for request in proxy.requests] == ["http://collector.invalid:4318/v1/traces"]


def test_a_proxy_that_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing was sent if the proxy cannot be reached."""
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{closed_port()}")
    assert sent_once("http://collector.invalid:4318/v1/traces") == Later("Connection refused")


# --- TLS ---


@BOTH
@pytest.mark.parametrize("prefix", [GENERAL, OWN])
def test_an_authority_of_your_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, protocol: str, prefix: str) -> None:
    """A certificate that nobody here knows is not trusted until the variable names its file."""
    context, authority = server_context(tmp_path)
    identity = (tmp_path / "server.pem").read_bytes()
    with http_receiver(tls=context) if protocol == "http/protobuf" else grpc_receiver(identity=identity) as receiver:
        answer = sent_once(receiver.url)
        assert isinstance(answer, Later)
        assert "certificate" in answer.reason.lower()
        monkeypatch.setenv(f"{prefix}CERTIFICATE", str(authority))
        assert sent_once(receiver.url) == Delivered()


@pytest.mark.parametrize("variable", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
def test_the_exporters_authority_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    """Authorities that other HTTP clients need do not replace the one that is named for the exporter."""
    context, authority = server_context(tmp_path)
    (other := tmp_path / "other").mkdir()
    monkeypatch.setenv(variable, str(server_context(other)[1]))
    monkeypatch.setenv(f"{GENERAL}CERTIFICATE", str(authority))
    with http_receiver(tls=context) as receiver:
        assert sent_once(receiver.url) == Delivered()
        monkeypatch.delenv(f"{GENERAL}CERTIFICATE")
        assert isinstance(sent_once(receiver.url), Later)


@pytest.mark.parametrize("is_one_file", [True, False])
def test_a_client_certificate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_one_file: bool) -> None:
    """A receiver that asks for a client's certificate gets it, with the key in the same file or in one of its own."""
    context, authority = server_context(tmp_path)
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(authority)
    monkeypatch.setenv(f"{GENERAL}CERTIFICATE", str(authority))
    with http_receiver(tls=context) as receiver:
        assert not isinstance(sent_once(receiver.url), Delivered)
        monkeypatch.setenv(f"{GENERAL}CLIENT_CERTIFICATE", str(tmp_path / "server.pem"))
        if not is_one_file:
            monkeypatch.setenv(f"{GENERAL}CLIENT_KEY", str(tmp_path / "server.pem"))
        assert sent_once(receiver.url) == Delivered()


# --- Failures ---


@BOTH
@pytest.mark.parametrize("host", ["127.0.0.1", "collector.invalid"])
def test_nobody_is_there(protocol: str, host: str) -> None:
    """A request that could not be sent waits for a later attempt."""
    path = "/v1/traces" if protocol == "http/protobuf" else ""
    assert isinstance(sent_once(f"http://{host}:{closed_port()}{path}"), Later)


def test_http_to_a_port_for_grpc() -> None:
    """The answer is not HTTP, and the reason names the variable that says so."""
    with grpc_receiver() as there:
        answer = sent_once(f"{there.url}/v1/traces")
    assert "OTEL_EXPORTER_OTLP_PROTOCOL=grpc" in str(answer)


def test_no_answer(receiver: Receiver) -> None:
    """A request that got no answer in time may have arrived."""
    receiver.answer_next(Reply(behaviour="hangs"))
    assert isinstance(sent_once(receiver.url, timeout_s=0.3), Unknown)


@pytest.mark.parametrize("behaviour", ["cuts before reading", "cuts before answering"])
def test_a_cut_connection(behaviour: Literal["cuts before reading", "cuts before answering"]) -> None:
    """A connection that was cut before the answer leaves open whether the request arrived."""
    with http_receiver(Reply(behaviour=behaviour)) as receiver:
        assert isinstance(sent_once(receiver.url), Unknown)


def test_after_a_failure_the_next_request_arrives(receiver: Receiver) -> None:
    """No failure of one request costs the next one."""
    transport = transport_to(receiver.url)
    receiver.answer_next(Reply(behaviour="hangs"))
    assert isinstance(transport.send(BODY, 0.3), Unknown)
    receiver.answer_next(Reply("UNAVAILABLE" if not receiver.url.endswith("traces") else 503))
    assert isinstance(transport.send(BODY, 20.0), Later)
    assert transport.send(BODY, 20.0) == Delivered()
    transport.close()


def test_close_ends_a_request_over_grpc() -> None:
    """Closing cuts short a request that hangs."""
    with grpc_receiver(Reply(behaviour="hangs")) as receiver:
        transport, answers = transport_to(receiver.url), list[Answer]()
        thread = threading.Thread(target=lambda: answers.append(transport.send(BODY, 60.0)))
        thread.start()
        receiver.wait_for(1)
        transport.close()
        thread.join(20)
        assert isinstance(answers[0], Unknown)


def test_no_secret_in_a_reason() -> None:
    """A key in the query of a URL is in the messages of `requests`, and in none of ours."""
    for url in (
        f"http://127.0.0.1:{closed_port()}/?key={SECRET}&x=/v1/traces",
        f"http://no.invalid/{SECRET}/v1/traces",
    ):
        answer = sent_once(url)
        assert isinstance(answer, Later)
        assert SECRET not in repr(answer)


@pytest.mark.parametrize("password", [SECRET, f"{SECRET}%20{SECRET}"])
def test_no_password_of_the_url_in_an_answer(password: str) -> None:
    """A receiver that repeats the password of the endpoint, as it is or as the header has it, is not quoted."""
    sent = base64.b64encode(f"me:{unquote(password)}".encode()).decode()
    for repeated in (password, unquote(password), sent):
        message = json.dumps({"message": f"{repeated} is wrong"}).encode()
        with http_receiver(Reply(401, message, headers={"content-type": "application/json"})) as receiver:
            answer = sent_once(receiver.url.replace("//", f"//me:{password}@"))
        assert isinstance(answer, Refused)
        assert receiver.requests[0].headers["authorization"] == f"Basic {sent}"
        assert "is wrong" in answer.reason
        assert repeated not in answer.reason


def test_a_key_wins_over_a_netrc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The header that the user set is sent, not the password that a file has for that host or for all hosts."""
    (tmp_path / "netrc").write_text("default login me password other\n")
    (tmp_path / "netrc").chmod(0o600)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    with http_receiver() as receiver:
        sent_once(receiver.url, {"authorization": f"Bearer {SECRET}"})
        sent_once(receiver.url)
    keys = [request.headers.get("authorization") for request in receiver.requests]
    assert keys == [f"Bearer {SECRET}", "Basic bWU6b3RoZXI="]


# --- Variables that cannot be followed ---


@pytest.mark.parametrize(
    ("variable", "value", "protocol", "said"),
    [
        (f"{GENERAL}COMPRESSION", "zip", "http/protobuf", "none, gzip, deflate"),
        (f"{OWN}COMPRESSION", "deflate", "grpc", "none, gzip"),
        (f"{GENERAL}TIMEOUT", "soon", "http/protobuf", "positive number of seconds"),
        (f"{OWN}TIMEOUT", "-1", "grpc", "positive number of seconds"),
        (f"{GENERAL}TIMEOUT", "inf", "grpc", "positive number of seconds"),
        (f"{GENERAL}CERTIFICATE", "/no/such/file", "http/protobuf", "cannot be read: No such file"),
        (f"{OWN}CLIENT_KEY", "/", "grpc", "cannot be read: Is a directory"),
    ],
)
def test_a_value_that_is_not_allowed(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, protocol: Protocol, said: str
) -> None:
    """A mistake in a variable is a ConfigError that names it and says what is allowed."""
    monkeypatch.setenv(variable, value)
    with pytest.raises(ConfigError, match=f"{variable} is '{value}'.*{said}"):
        otlp_options("traces", protocol, "https://h:4317")


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("SCHEDULE_DELAY", "0"),
        ("SCHEDULE_DELAY", "often"),
        ("MAX_EXPORT_BATCH_SIZE", "-1"),
        ("MAX_EXPORT_BATCH_SIZE", "9999"),
        ("MAX_QUEUE_SIZE", "0"),
    ],
)
@pytest.mark.parametrize(("signal", "prefix"), [("traces", "OTEL_BSP_"), ("logs", "OTEL_BLRP_")])
def test_a_batch_that_is_not_allowed(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, signal: Literal["traces", "logs"], prefix: str
) -> None:
    """So is one in a variable of batches."""
    monkeypatch.setenv(prefix + variable, value)
    with pytest.raises(ConfigError, match=f"{prefix}{variable} is '?{value}"):
        batch_options(signal)


@pytest.mark.parametrize(("signal", "prefix", "delay_s"), [("traces", "OTEL_BSP", 5.0), ("logs", "OTEL_BLRP", 1.0)])
def test_the_variables_of_batches(
    monkeypatch: pytest.MonkeyPatch, signal: Literal["traces", "logs"], prefix: str, delay_s: float
) -> None:
    """The delay is in milliseconds; without variables the defaults are those of the specification."""
    assert (batch_options(signal).delay_s, batch_options(signal).max_items) == (delay_s, 512)
    monkeypatch.setenv(f"{prefix}_SCHEDULE_DELAY", "1500")
    monkeypatch.setenv(f"{prefix}_MAX_EXPORT_BATCH_SIZE", "64")
    assert (batch_options(signal).delay_s, batch_options(signal).max_items) == (1.5, 64)


# --- Credential providers ---


PROVIDERS = """
import pathlib
import grpc, requests

def session():
    made = requests.Session()
    made.headers["authorization"] = "provided"
    return made

def credentials():
    return grpc.ssl_channel_credentials(pathlib.Path({authority!r}).read_bytes())

def nothing():
    return None

def fault():
    raise ValueError({secret!r})
"""


@pytest.fixture
def providers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package with credential providers is installed; returns the folder of the certificate that one trusts."""
    package = tmp_path / "site"
    information = package / "fake_credentials-1.0.dist-info"
    information.mkdir(parents=True)
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: fake-credentials\nVersion: 1.0\n")
    names = ("session", "credentials", "nothing", "fault")
    lines = [f"{name} = fake_credentials:{name}" for name in names]
    (information / "entry_points.txt").write_text("\n".join(["[opentelemetry_otlp_credential_provider]", *lines]))
    source = PROVIDERS.format(authority=str(tmp_path / "trusted.pem"), secret=SECRET)
    (package / "fake_credentials.py").write_text(source)
    monkeypatch.setattr(sys, "path", [str(package), *sys.path])
    monkeypatch.delitem(sys.modules, "fake_credentials", raising=False)
    return tmp_path


@pytest.mark.parametrize("scope", ["", "TRACES_"])
def test_a_session_that_is_provided(providers: Path, monkeypatch: pytest.MonkeyPatch, scope: str) -> None:
    """A package may provide the session, for instance with keys that it renews."""
    monkeypatch.setenv(f"OTEL_PYTHON_EXPORTER_OTLP_HTTP_{scope}CREDENTIAL_PROVIDER", "session")
    with http_receiver() as receiver:
        assert sent_once(receiver.url) == Delivered()
    assert receiver.requests[0].headers["authorization"] == "provided"


@pytest.mark.parametrize("scope", ["", "TRACES_"])
def test_credentials_that_are_provided(providers: Path, monkeypatch: pytest.MonkeyPatch, scope: str) -> None:
    """A package may provide gRPC's credentials."""
    server_context(providers)
    monkeypatch.setenv(f"OTEL_PYTHON_EXPORTER_OTLP_GRPC_{scope}CREDENTIAL_PROVIDER", "credentials")
    with grpc_receiver(identity=(providers / "server.pem").read_bytes()) as receiver:
        assert sent_once(receiver.url) == Delivered()


@pytest.mark.parametrize("name", ["missing", "nothing", "fault"])
@pytest.mark.parametrize("transport", ["HTTP", "GRPC"])
def test_a_provider_that_provides_nothing(
    providers: Path, monkeypatch: pytest.MonkeyPatch, name: str, transport: str
) -> None:
    """A provider that is not installed, that fails, or that gives something else is named, without what it says."""
    monkeypatch.setenv(f"OTEL_PYTHON_EXPORTER_OTLP_{transport}_CREDENTIAL_PROVIDER", name)
    with pytest.raises(ConfigError, match=f"credential provider '{name}'") as caught:
        transport_to("https://127.0.0.1:1" + ("/v1/traces" if transport == "HTTP" else ""))
    assert SECRET not in str(caught.value)


def test_the_codes_that_are_retried(monkeypatch: pytest.MonkeyPatch) -> None:
    """The official exporter's variable says after which gRPC codes a request is sent again."""
    monkeypatch.setenv("OTEL_PYTHON_EXPORTER_OTLP_GRPC_RETRYABLE_ERROR_CODES", "internal, unknown")
    with grpc_receiver(Reply("INTERNAL"), Reply("UNAVAILABLE")) as receiver:
        assert isinstance(sent_once(receiver.url), Later)
        assert isinstance(sent_once(receiver.url), Refused)
