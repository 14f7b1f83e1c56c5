"""Checks of what the receivers answered."""

from __future__ import annotations

import ssl
from collections.abc import Iterator

from ...otel.export.http_transport import causes_of
from ...otel.export.otlp_variables import Protocol
from .evidence import Evidence
from .finding import Finding
from .receiver import Reply
from .spoken import Spoken

_CLOCK_S = 60.0
"""Seconds by which two clocks may differ before traces look wrong."""
_HEADER_STATUSES = (401, 403)
_LATER = (408, 429, 500, 502, 503, 504)
"""Statuses of a receiver that is there and may take an export later."""
_HEADER_CODES = ("UNAUTHENTICATED", "PERMISSION_DENIED")
_OTLP_TYPES = ("application/x-protobuf", "application/json")
_ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT, or the endpoint that is passed to configure()"


def failed_exports(evidence: Evidence) -> Iterator[Finding]:
    """Why an empty export was not taken, one finding a receiver."""
    set_up = evidence.set_up
    if set_up is None:
        return
    for reply in evidence.replies:
        if not reply.taken and reply.rejection is None:
            yield from _why(reply, set_up.config.protocols[reply.signal])


def different_clocks(evidence: Evidence) -> Iterator[Finding]:
    """Backends drop or misplace spans from the future or from long ago."""
    for reply in evidence.replies:
        ahead_s = reply.clock_ahead_s
        if ahead_s is not None and abs(ahead_s) > _CLOCK_S:
            way = "ahead of" if ahead_s > 0 else "behind"
            what = f"this machine's clock is {abs(ahead_s):,.0f} s {way} that of {reply.receiver}"
            yield Finding("clock", "warning", what, "set both clocks by NTP")


def _why(reply: Reply, protocol: Protocol) -> Iterator[Finding]:
    spoken = reply.spoken or Spoken()
    if reply.status in _HEADER_STATUSES or reply.code in _HEADER_CODES:
        yield _wrong_header(reply)
    elif _is_proxy_fault(reply):
        what = f"{reply.receiver} is reached through a proxy of the environment, and the proxy fails"
        yield Finding("unreachable", "error", what, "correct HTTP_PROXY or HTTPS_PROXY, or name the host in NO_PROXY")
    elif spoken.refusal is not None:
        what = f"{reply.receiver} cannot be reached: {spoken.refusal}"
        yield Finding("unreachable", "error", what, f"start the receiver, or correct {_ENDPOINT}")
    elif reply.wants_tls != spoken.tls and (spoken.tls or spoken.http1 or spoken.http2):
        yield _tls_mismatch(reply, spoken)
    elif _speaks_another(spoken, protocol):
        yield _wrong_protocol(reply, protocol)
    else:
        yield from _by_answer(reply, protocol)


def _wrong_header(reply: Reply) -> Finding:
    answer = reply.code if reply.status is None else str(reply.status)
    sent = f"the headers sent are {', '.join(reply.header_names)}" if reply.header_names else "no header is sent"
    return Finding(
        "wrong-header",
        "error",
        f"{reply.receiver} answers {answer}, so its header for authentication is missing or wrong; {sent}",
        "set OTEL_EXPORTER_OTLP_HEADERS to name=value as your backend describes; a space in it is %20",
    )


def _is_proxy_fault(reply: Reply) -> bool:
    return type(reply.error).__name__ == "ProxyError" or reply.status == 407


def _tls_mismatch(reply: Reply, spoken: Spoken) -> Finding:
    if spoken.tls:
        what = f"{reply.receiver} speaks TLS, and the exporter sends without"
        return Finding("tls-mismatch", "error", what, f"write https:// in {_ENDPOINT}")
    what = f"{reply.receiver} speaks no TLS, and the exporter sends with it"
    return Finding("tls-mismatch", "error", what, f"write http:// in {_ENDPOINT}, or name the receiver's port for TLS")


def _speaks_another(spoken: Spoken, protocol: Protocol) -> bool:
    wanted, other = (spoken.http2, spoken.http1) if protocol == "grpc" else (spoken.http1, spoken.http2)
    return other and not wanted


def _wrong_protocol(reply: Reply, protocol: Protocol) -> Finding:
    other, port = ("http/protobuf", 4317) if protocol == "grpc" else ("grpc", 4318)
    spoken = "HTTP/1.1" if protocol == "grpc" else "gRPC"
    return Finding(
        "wrong-protocol",
        "error",
        f"{reply.receiver} answers in {spoken}, and the exporter speaks {protocol}",
        f"set OTEL_EXPORTER_OTLP_PROTOCOL={other} (or configure(protocol={other!r})), or use the receiver's port for "
        f"{protocol}, usually {port}",
    )


def _by_answer(reply: Reply, protocol: Protocol) -> Iterator[Finding]:
    """The port speaks what the exporter speaks, and still the export was not taken."""
    trust = _untrusted(reply)
    if trust is not None:
        what = f"the certificate of {reply.receiver} is not trusted: {trust}"
        fix = "set OTEL_EXPORTER_OTLP_CERTIFICATE to the file with the certificate of its authority"
        yield Finding("certificate", "error", what, fix)
    elif reply.status == 400 and reply.content_type.startswith(_OTLP_TYPES):
        return  # it speaks OTLP, and objects to an export without anything in it
    elif reply.code == "UNIMPLEMENTED" and reply.spoken is not None and reply.spoken.http1:
        yield _wrong_protocol(reply, protocol)
    elif reply.status in _LATER:
        fix = "look into the receiver's log: it is there, and takes nothing now"
        yield Finding("export-failed", "error", f"{reply.receiver} answers {reply.status}", fix)
    elif reply.status is not None or reply.code == "UNIMPLEMENTED":
        yield _no_receiver(reply)
    else:
        fix = "look into the receiver's log; check what stands between, such as a proxy or a load balancer"
        yield Finding("export-failed", "error", f"{reply.receiver} {_failure(reply)}", fix)


def _failure(reply: Reply) -> str:
    if reply.code == "DEADLINE_EXCEEDED" or "Timeout" in type(reply.error).__name__:
        return f"takes the connection and gives no answer within {reply.timeout_s:g} s"
    return f"takes no export: {reply.said}"


def _untrusted(reply: Reply) -> str | None:
    """Why a certificate is not trusted; `None` for another fault."""
    for cause in () if reply.error is None else causes_of(reply.error):
        if isinstance(cause, ssl.SSLCertVerificationError):
            return cause.verify_message
    return "gRPC's TLS rejects it" if "CERTIFICATE_VERIFY_FAILED" in reply.said else None


def _no_receiver(reply: Reply) -> Finding:
    answer = reply.code if reply.status is None else f"{reply.status}"
    if reply.status is not None and reply.status < 300:
        answer += " with a page, not with OTLP"
    elif reply.status is not None and reply.status < 400:
        answer += ", a redirect, which exporters do not follow"
    fix = f"set {_ENDPOINT}, to the base URL of an OTLP receiver: /v1/traces and /v1/metrics are added to it"
    return Finding("no-receiver", "error", f"{reply.url} answers {answer}: no OTLP receiver is there", fix)
