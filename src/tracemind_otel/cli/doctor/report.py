"""The report of `doctor`, for a person and as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict

from ..._version import __version__
from ...flows.shared.state_client import Examined
from ...front.configure import SetUp
from ...otel.export.otlp_variables import Signal
from ...otel.setup.settings import ExportConfig
from ..trace_tree import printable
from .evidence import Evidence, MadeProvider, ProviderKeys
from .finding import Finding
from .receiver import Reply

_SIGNALS: tuple[Signal, ...] = ("traces", "metrics")
_CLOCK_STEPS_S = 2.0
"""Seconds below which no difference is seen: a receiver says the time in whole seconds, after a delay."""
_ADVICE = {
    "uvicorn": "spans are sent when the server shuts down",
    "gunicorn": "each worker sends for itself when it ends, also with --preload",
    "celery": "each child sends when it ends; configure() at import or in worker_process_init",
    "rq": "spans are sent after each job",
}


def report_text(evidence: Evidence, findings: Sequence[Finding]) -> str:
    """What `configure()` does, then each finding with its fix, then a line that counts them."""
    facts = list(_facts(evidence))
    width = max(len(name) for name, _ in facts)
    lines = [f"{name:{width}}  {printable(value)}" for name, value in facts]
    for finding in findings:
        lines += ["", f"{finding.severity.upper()} {finding.check}: {printable(finding.what)}"]
        lines.append(f"  fix: {printable(finding.fix)}")
    return "\n".join([*lines, "", _summary(findings)]) + "\n"


def report_json(evidence: Evidence, findings: Sequence[Finding]) -> str:
    """The same for a script."""
    document = {
        "version": __version__,
        "facts": dict(_facts(evidence)),
        "findings": [asdict(finding) for finding in findings],
        "exit_code": exit_code(findings),
    }
    return json.dumps(document, indent=2) + "\n"


def exit_code(findings: Sequence[Finding]) -> int:
    """1 if there is an error, else 0."""
    return int(any(finding.severity == "error" for finding in findings))


def _summary(findings: Sequence[Finding]) -> str:
    if not findings:
        return "No findings."
    errors = sum(finding.severity == "error" for finding in findings)
    return f"{_count(errors, 'error')}, {_count(len(findings) - errors, 'warning')}"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _state(state: Examined) -> str:
    """Budgets choose what happens while it is away, so only the default is known here."""
    if state.fault is not None:
        return f"{state.where} cannot be asked"
    waits = f"a call waits for {state.timeout_s:g} s, then budgets deny unless on_state_away says otherwise"
    answers = f"answers in {state.round_trip_s * 1e3:.2f} ms, {_count(state.accounts, 'account')} in use"
    return f"{state.where} {answers}; {waits}; leases of {state.lease_s:g} s"


def _facts(evidence: Evidence) -> Iterator[tuple[str, str]]:
    yield "variables", ", ".join(evidence.variables) or "no OTEL_* variable is set, so defaults hold"
    if evidence.service:
        yield "service", evidence.service
    if evidence.set_up is not None:
        for signal in _SIGNALS:
            yield signal, _destination(evidence, evidence.set_up, signal)
    samplers = [_sampling(provider) for provider in evidence.providers if provider.sampled_share is not None]
    if samplers:
        yield "sampler", "; ".join(samplers)
    for receiver in dict.fromkeys(reply.receiver for reply in evidence.replies if reply.receiver):
        yield receiver, _answers([reply for reply in evidence.replies if reply.receiver == receiver])
    if evidence.state is not None:
        yield "state", _state(evidence.state)
    yield "prices", evidence.price_table
    yield "keys", ", ".join(map(_key, evidence.keys)) or "no provider's key is set; fake needs none"
    for server in evidence.servers:
        yield server, f"{_ADVICE[server]} (docs/processes.md)"
    if evidence.sigterm:
        yield "SIGTERM", f"{evidence.sigterm} (docs/processes.md)"
    for source in evidence.sources:
        yield source.name, _count(len(source.spans), "span")


def _key(keys: ProviderKeys) -> str:
    variables = ", ".join(keys.variables)
    return f"{keys.provider} ({variables}{'' if keys.fault is None else '; no client can be made'})"


def _sampling(provider: MadeProvider) -> str:
    kept = (
        "every trace" if provider.sampled_share == 1 else f"about {100 * (provider.sampled_share or 0):.2g}% of traces"
    )
    described = "" if provider.sampled_share == 1 else f", by {provider.sampler}"
    return f"{provider.place} keeps {kept}{described}"


def _answers(replies: Sequence[Reply]) -> str:
    taken = [reply for reply in replies if reply.taken]
    if not taken:
        return "takes no exports"
    signals = " and ".join(sorted(reply.signal for reply in taken))
    ahead_s = taken[0].clock_ahead_s
    return f"takes exports of {signals}{_clock(ahead_s)}"


def _clock(ahead_s: float | None) -> str:
    if ahead_s is None:
        return ""
    if abs(ahead_s) < _CLOCK_STEPS_S:
        return "; its clock agrees with this one"
    return f"; its clock differs from this one by {abs(ahead_s):,.0f} s"


def _destination(evidence: Evidence, set_up: SetUp, signal: Signal) -> str:
    """Where a signal goes, and why."""
    if evidence.is_disabled:
        return "nowhere: OTEL_SDK_DISABLED is true"
    if signal in set_up.joined:
        return "to the provider that was there before configure(), which joined it"
    places = _places(set_up.config, signal, is_of_app=evidence.app is not None)
    if signal in set_up.made and places:
        return ", ".join(places)
    if set_up.config.file is not None and not set_up.config.has_endpoint:
        return "nowhere: with a file and no endpoint nothing goes to the network"
    if places:
        return "nowhere: beside a tracer provider that was joined, metrics need an endpoint"
    presets = set_up.config.presets
    if signal == "metrics" and presets is not None and not presets.takes_metrics:
        return "nowhere: the preset's backend takes none; OTEL_EXPORTER_OTLP_METRICS_ENDPOINT sends them elsewhere"
    return f"nowhere: OTEL_{signal.upper()}_EXPORTER leaves them out"


def _places(config: ExportConfig, signal: Signal, *, is_of_app: bool) -> list[str]:
    places = ["the console"] if signal in config.on_console else []
    if signal == "traces" and config.file is not None and is_of_app:
        places.append(config.file)
    if signal in config.signals:
        source = config.endpoint_source(signal)
        why = "the default" if source is None else f"by {source}"
        places.append(f"{config.destination(signal)}, {config.protocols[signal]}, {why}")
    return places
