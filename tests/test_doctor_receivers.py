"""`doctor` asks real receivers: why each does not take an export, for both protocols."""

from __future__ import annotations

import ast
import re
import socket
from collections.abc import Mapping
from pathlib import Path

import pytest
from opentelemetry.sdk.trace import TracerProvider

from tests.servers.fixture import closed_port
from tests.servers.grpc_sink import grpc_listening
from tests.servers.otlp_sink import Sink, listening
from tests.servers.otlp_sink import sink as sink
from tests.wire.certificates import server_context
from tracemind_otel.cli.doctor.application import run_application
from tracemind_otel.cli.doctor.evidence import Evidence
from tracemind_otel.cli.doctor.examination import findings_of
from tracemind_otel.cli.doctor.finding import Finding
from tracemind_otel.cli.doctor.receiver import ask_receivers
from tracemind_otel.cli.doctor.watch import made_provider
from tracemind_otel.errors import ConfigError
from tracemind_otel.front.configure import SetUp
from tracemind_otel.otel.setup.settings import export_config

ROOT = Path(__file__).parents[1]
BOTH = pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])


def found(
    endpoint: str | None,
    protocol: str = "http/protobuf",
    *,
    timeout_s: float = 5.0,
    headers: Mapping[str, str] | None = None,
) -> list[Finding]:
    """What is found when these receivers are asked."""
    config = export_config(endpoint=endpoint, protocol=protocol, headers=headers, file=None)
    set_up = SetUp(config=config, made=config.signals, joined=frozenset())
    replies = tuple(ask_receivers(config, config.signals, timeout_s))
    return findings_of(Evidence(set_up=set_up, replies=replies))


def checks(findings: list[Finding]) -> set[str]:
    """The names of the checks; each finding has a fix."""
    assert all(finding.fix for finding in findings)
    return {finding.check for finding in findings}


@BOTH
def test_a_receiver_that_takes_exports_is_fine(protocol: str) -> None:
    """An empty export is taken, and nothing else is sent."""
    with grpc_listening() if protocol == "grpc" else listening() as receiver:
        assert found(receiver.url, protocol) == []


@BOTH
def test_a_port_of_the_other_protocol(protocol: str) -> None:
    """gRPC to a port that speaks HTTP, and the other way round: one finding that names the protocol to set."""
    with listening() if protocol == "grpc" else grpc_listening() as receiver:
        [finding] = found(receiver.url, protocol)
    other = "grpc" if protocol == "http/protobuf" else "http/protobuf"
    assert finding.check == "wrong-protocol"
    assert f"OTEL_EXPORTER_OTLP_PROTOCOL={other}" in finding.fix


@BOTH
@pytest.mark.parametrize("host", ["127.0.0.1", "receiver.invalid"])
def test_a_receiver_that_cannot_be_reached(protocol: str, host: str) -> None:
    """A port on which nobody listens, and a name that nobody knows: one finding, which names the receiver."""
    endpoint = f"http://{host}:{closed_port()}"
    [finding] = found(endpoint, protocol)
    assert finding.check == "unreachable"
    assert endpoint in finding.what


@BOTH
def test_tls_to_a_plain_port(protocol: str) -> None:
    """`https://` in front of a receiver without TLS: the fix is `http://`."""
    with grpc_listening() if protocol == "grpc" else listening() as receiver:
        [finding] = found(receiver.url.replace("http://", "https://"), protocol)
    assert finding.check == "tls-mismatch"
    assert finding.fix.startswith("write http://")


@BOTH
def test_plain_to_a_tls_port(tmp_path: Path, protocol: str) -> None:
    """`http://` in front of a receiver with TLS: the fix is `https://`."""
    context, _ = server_context(tmp_path)
    with listening(tls=context) as receiver:
        [finding] = found(receiver.url.replace("https://", "http://"), protocol)
    assert finding.check == "tls-mismatch"
    assert finding.fix.startswith("write https://")


def test_grpc_without_a_scheme_means_tls(monkeypatch: pytest.MonkeyPatch) -> None:
    """The SDK reads `host:port` as TLS, unless a variable says otherwise; so does `doctor`."""
    with grpc_listening() as receiver:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.url.removeprefix("http://"))
        assert checks(found(None, "grpc")) == {"tls-mismatch"}
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_INSECURE", "true")
        assert found(None, "grpc") == []


def test_an_unknown_authority(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A certificate that nobody here knows is a finding, and naming its file in the variable is the cure."""
    monkeypatch.delenv("REQUESTS_CA_BUNDLE", raising=False)
    monkeypatch.delenv("CURL_CA_BUNDLE", raising=False)
    context, authority = server_context(tmp_path)
    with listening(tls=context) as receiver:
        assert checks(found(receiver.url)) == {"certificate"}
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_CERTIFICATE", str(authority))
        assert found(receiver.url) == []


def test_a_grpc_receiver_with_tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Plain to its port, HTTP to its port, an authority that nobody knows, and the cure of that."""
    _, authority = server_context(tmp_path)
    with grpc_listening(identity=(tmp_path / "server.pem").read_bytes()) as receiver:
        assert checks(found(receiver.url.replace("https://", "http://"), "grpc")) == {"tls-mismatch"}
        assert checks(found(receiver.url, "http/protobuf")) == {"wrong-protocol"}
        assert checks(found(receiver.url, "grpc")) == {"certificate"}
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_CERTIFICATE", str(authority))
        assert found(receiver.url, "grpc") == []


@pytest.mark.parametrize("variable", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
def test_the_exporters_certificate_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    """Authorities of a proxy, which other HTTP clients need, do not replace the one that is named for the exporter."""
    context, authority = server_context(tmp_path)
    (other := tmp_path / "other").mkdir()
    _, wrong = server_context(other)
    monkeypatch.delenv("REQUESTS_CA_BUNDLE", raising=False)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_CERTIFICATE", str(authority))
    monkeypatch.setenv(variable, str(wrong))
    with listening(tls=context) as receiver:
        assert found(receiver.url) == []
        monkeypatch.delenv("OTEL_EXPORTER_OTLP_CERTIFICATE")
        assert checks(found(receiver.url)) == {"certificate"}
        monkeypatch.setenv(variable, str(authority))
        assert found(receiver.url) == []


@pytest.mark.parametrize("status", [401, 403])
def test_a_header_that_is_rejected(status: int) -> None:
    """The finding names the headers that are sent, never their values."""
    with listening(status) as receiver:
        [finding] = found(receiver.url, headers={"x-key": "not-shown"})
    assert finding.check == "wrong-header"
    assert "x-key" in finding.what
    assert "not-shown" not in repr(finding)


@pytest.mark.parametrize("code", ["UNAUTHENTICATED", "PERMISSION_DENIED"])
def test_a_header_that_is_missing_over_grpc(code: str) -> None:
    """One finding for both signals, which says that no header is sent."""
    with grpc_listening(code) as receiver:
        [finding] = found(receiver.url, "grpc")
    assert finding.check == "wrong-header"
    assert "no header is sent" in finding.what


def test_a_path_that_nobody_serves() -> None:
    """A web server that is no receiver: each finding names the whole URL."""
    with listening(404) as receiver:
        findings = found(f"{receiver.url}/otlp")
    assert checks(findings) == {"no-receiver"}
    assert any(f"{receiver.url}/otlp/v1/traces answers 404" in finding.what for finding in findings)


@pytest.mark.parametrize(
    ("status", "headers"),
    [(200, {"content-type": "text/html"}), (302, {"location": "http://127.0.0.1:1/login"})],
    ids=["page", "redirect"],
)
def test_an_answer_that_is_no_otlp(sink: Sink, status: int, headers: dict[str, str]) -> None:
    """A login page or a redirect, which the SDK's exporter takes for success; nothing has arrived."""
    sink.status, sink.answer, sink.answer_headers = status, b"<html>log in</html>", headers
    assert checks(found(sink.url)) == {"no-receiver"}


def test_an_empty_export_that_is_rejected_as_empty(sink: Sink) -> None:
    """A receiver may object to an export without spans: it speaks OTLP, so nothing is wrong."""
    sink.status, sink.answer_headers = 400, {"content-type": "application/x-protobuf"}
    assert found(sink.url) == []


def test_a_receiver_that_is_overloaded(sink: Sink) -> None:
    """An answer of 503: the receiver is there and takes nothing, and nobody waits for the exporter's retries."""
    sink.status = 503
    assert checks(found(sink.url)) == {"export-failed"}
    assert len(sink.posts) == 4  # one export a signal, and one question a signal what the port speaks


def test_a_web_server_that_takes_no_posts(sink: Sink) -> None:
    """An answer of 405 or 501 comes from a server of pages."""
    sink.status = 501
    assert checks(found(sink.url)) == {"no-receiver"}


@BOTH
def test_a_port_that_never_answers(protocol: str) -> None:
    """A port that takes connections and is silent: one finding, after seconds and not after the exporter's retries."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        [finding] = found(f"http://127.0.0.1:{listener.getsockname()[1]}", protocol, timeout_s=0.3)
    assert finding.check == "export-failed"
    assert "gives no answer within 0.3 s" in finding.what


def test_a_proxy_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """Exports go through the proxy of the environment: where it is down, the receiver is not to blame."""
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "")
    for name in ("HTTP_PROXY", "http_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{closed_port()}")
    [finding] = found("http://receiver.invalid:4318")
    assert finding.check == "unreachable"
    assert "HTTP_PROXY" in finding.fix


def test_clocks_that_differ(sink: Sink) -> None:
    """A receiver whose clock is years behind: a warning, since spans do arrive."""
    sink.answer_headers = {"date": "Wed, 01 Jan 2020 00:00:00 GMT"}
    assert {(finding.check, finding.severity) for finding in found(sink.url)} == {("clock", "warning")}


# --- What needs no receiver


@pytest.mark.parametrize(
    ("sampler", "argument", "is_off"),
    [
        ("always_off", "", True),
        ("parentbased_always_off", "", True),
        ("traceidratio", "0", True),
        ("parentbased_traceidratio", "0.0", True),
        ("parentbased_traceidratio", "0.2", False),
        ("parentbased_always_on", "", False),
    ],
)
def test_a_sampler_that_keeps_nothing(
    monkeypatch: pytest.MonkeyPatch, sampler: str, argument: str, is_off: bool
) -> None:
    """However it is spelled; a sampler that keeps a part of the traces is a choice, and no finding."""
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", sampler)
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", argument)
    provider = made_provider(TracerProvider(shutdown_on_exit=False), "traces", "app.py:1", by_configure=True)
    assert checks(findings_of(Evidence(providers=(provider,)))) == ({"sampler-off"} if is_off else set())


def test_the_page_lists_every_check() -> None:
    """Each name that a finding can have is a row of the page, and each row is a name that a finding can have."""
    sources = [path.read_text(encoding="utf-8") for path in (ROOT / "src/tracemind_otel/cli/doctor").glob("*.py")]
    calls = [node for source in sources for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    named = [call.args[0] for call in calls if isinstance(call.func, ast.Name) and call.func.id == "Finding"]
    made = {name.value for name in named if isinstance(name, ast.Constant)}
    rows = re.findall(r"^\| (`[a-z-]+`.*?) \|", (ROOT / "docs/doctor.md").read_text(encoding="utf-8"), re.MULTILINE)
    listed = {name for row in rows for name in re.findall(r"`([a-z-]+)`", row)} - {"doctor"}
    assert listed == made | {"rejected", "wrong-header"}


@pytest.mark.parametrize(
    "app", ["", "service", "service:", "no_such_module:main", "math:missing", "math:pi", "math:pow"]
)
def test_an_application_that_cannot_be_run(app: str) -> None:
    """A wrong `--app` is a mistake on the command line, which the message quotes, and not a finding."""
    with pytest.raises(ConfigError, match=f"--app .*{app}"):
        run_application(app)
