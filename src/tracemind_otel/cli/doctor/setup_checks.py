"""Checks of what `configure()` does in this process: variables, providers, sampler, keys, prices."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace

from .evidence import Evidence, MadeProvider
from .finding import Finding

_EXTRA = re.compile(r"tracemind-otel\[(\w+)\]")
"""How our messages name an extra."""
_CLOUD_KEYS = frozenset({"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"})
"""The keys of cloud accounts, which give access to more than models."""


def sdk_disabled(evidence: Evidence) -> Iterator[Finding]:
    """Nothing is recorded where the SDK is switched off."""
    if evidence.is_disabled:
        what = "OTEL_SDK_DISABLED is true, so configure() makes no provider and nothing is sent"
        yield Finding("sdk-disabled", "error", what, "unset OTEL_SDK_DISABLED")


def rejected_configuration(evidence: Evidence) -> Iterator[Finding]:
    """What `configure()` or a call rejected."""
    if evidence.fault is not None:
        yield _rejected(str(evidence.fault), "correct the variable or the argument that the message names")
    for reply in evidence.replies:
        if reply.rejection is not None:
            yield _rejected(str(reply.rejection), "correct the variable that the message names")


def unusable_keys(evidence: Evidence) -> Iterator[Finding]:
    """Providers whose key is set, and of which no client can be made.

    A cloud account's key does not show that its models are used: there a missing extra is a warning, and other
    faults are only shown among the facts.
    """
    for keys in evidence.keys:
        is_own = not _CLOUD_KEYS.issuperset(keys.variables)
        if keys.fault is None or not (is_own or _EXTRA.search(keys.fault)):
            continue
        what = f"{', '.join(keys.variables)} is set, but no client of {keys.provider} can be made: {keys.fault}"
        fix = f"set what the message names, or unset {' and '.join(keys.variables)}"
        found = _rejected(what, fix)
        yield found if is_own and found.check == "missing-extra" else replace(found, severity="warning")


def _rejected(message: str, fix: str) -> Finding:
    extra = _EXTRA.search(message)
    if extra is not None:
        return Finding("missing-extra", "error", message, f"pip install 'tracemind-otel[{extra[1]}]'")
    check = "wrong-header" if "HEADERS" in message else "rejected"
    return Finding(check, "error", message, fix)


def ignored_settings(evidence: Evidence) -> Iterator[Finding]:
    """The warnings that `configure()` and the SDK logged."""
    for message in evidence.logged:
        yield Finding(
            "logged", "warning", message, "change what the message names; docs/configuration.md describes each setting"
        )


def sampler_off(evidence: Evidence) -> Iterator[Finding]:
    """A sampler that keeps no new trace."""
    for provider in evidence.providers:
        if provider.sampled_share == 0:
            what = f"the sampler of the provider made by {provider.place} keeps no new trace: {provider.sampler}"
            fix = "unset OTEL_TRACES_SAMPLER and OTEL_TRACES_SAMPLER_ARG, or pass another sampler to the TracerProvider"
            yield Finding("sampler-off", "error", what, fix)


def second_provider(evidence: Evidence) -> Iterator[Finding]:
    """Two providers of one signal: what one records never meets what the other records."""
    for signal, argument in (("traces", "tracer_provider"), ("metrics", "meter_provider")):
        made = [provider for provider in evidence.providers if provider.signal == signal]
        if len(made) > 1 and not all(provider.by_configure for provider in made):
            what = f"{signal} have {len(made)} providers, so each gets a part of them: {'; '.join(map(_named, made))}"
            fix = f"make one, before configure(), and pass it as configure({argument}=...)"
            yield Finding("second-provider", "error", what, fix)


def _named(provider: MadeProvider) -> str:
    return f"{'configure() at ' if provider.by_configure else ''}{provider.place}"


def provider_without_exporter(evidence: Evidence) -> Iterator[Finding]:
    """A provider that was joined and sends its spans nowhere."""
    for provider in evidence.providers:
        if provider.signal == "traces" and not provider.by_configure and provider.processors == ():
            what = f"the tracer provider made by {provider.place} has no span processor, so its spans go nowhere"
            yield Finding("no-exporter", "error", what, "add a BatchSpanProcessor with an exporter to it")


def never_configured(evidence: Evidence) -> Iterator[Finding]:
    """An application that neither configured nor set a provider."""
    app = evidence.app
    if app is None or not app.was_called or app.raised is not None or evidence.fault is not None:
        return
    if evidence.set_up is None and not app.has_global_provider:
        what = f"{app.name} ran, and neither called configure() nor set a tracer provider: nothing is recorded"
        yield Finding("not-configured", "error", what, "call tracemind_otel.configure() at the start of the program")


def application_failed(evidence: Evidence) -> Iterator[Finding]:
    """An application that raised."""
    if evidence.app is not None and evidence.app.raised is not None:
        what = f"{evidence.app.name} raised {evidence.app.raised}; its message is not shown, since it may hold a prompt"
        yield Finding("application-failed", "error", what, "run the application by itself to see the whole error")


def failed_exports_of_others(evidence: Evidence) -> Iterator[Finding]:
    """What the exporters of providers that were joined logged."""
    for message in evidence.export_faults:
        fix = "correct the exporter of the provider that configure() joined"
        yield Finding("export-failed", "error", f"an exporter of another provider fails: {message}", fix)


def not_delivered(evidence: Evidence) -> Iterator[Finding]:
    """Spans that were lost although each receiver took an empty export."""
    if evidence.app is None or evidence.app.has_flushed or not all(reply.taken for reply in evidence.replies):
        return
    what = f"not everything that {evidence.app.name} recorded reached its receiver, which takes empty exports"
    yield Finding("not-delivered", "error", what, "the lines on stderr say what was lost, and the receiver's log why")


def doubling_instrumentations(evidence: Evidence) -> Iterator[Finding]:
    """Instrumentations of model SDKs make a second span for a call that a client of ours wraps."""
    for name in evidence.instrumentations:
        what = f"{name} is active: a call of that SDK inside a client of yours has two spans"
        yield Finding("doubled-spans", "warning", what, f"call {name}().uninstrument(), or leave it out")


def second_exporter(evidence: Evidence) -> Iterator[Finding]:
    """FastAPI adds an exporter of its own to the provider that it finds, where a variable asks for it."""
    if "fastapi_otel_auto_configure=true" in map(str.lower, evidence.variables):
        what = "FASTAPI_OTEL_AUTO_CONFIGURE is true: FastAPI adds an exporter of its own, and every span is sent twice"
        yield Finding("doubled-exports", "warning", what, "unset FASTAPI_OTEL_AUTO_CONFIGURE; configure() exports")


def wrong_unit(evidence: Evidence) -> Iterator[Finding]:
    """Own prices that look like USD per thousand tokens."""
    for model in evidence.wrong_units:
        yield per_thousand(model)


def per_thousand(model: str) -> Finding:
    """The finding for a model whose own price is in a wrong unit."""
    what = f"your prices for {model} are under a hundredth of the table's: they look like USD per thousand tokens"
    return Finding("prices-per-thousand", "error", what, "prices are USD per million tokens; multiply them by 1,000")
