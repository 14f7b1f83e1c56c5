"""`configure()`: join the OpenTelemetry that is there, or set it up, and see the model calls of SDKs."""

from __future__ import annotations

import inspect
import logging
import os
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from opentelemetry import _logs as logs
from opentelemetry import metrics, trace

from ..ai.llm.pricing import PriceSource, load_prices, set_prices
from ..ai.llm.providers._hosts import name_hosts
from ..errors import ConfigError
from ..flows.shared.states import state_at, use_state
from ..flows.totals import AttributeValue
from ..otel.capture import Redact
from ..otel.current import Providers
from ..otel.export.otlp_variables import Signal
from ..otel.labels import DISTINCT_VALUES, DistinctValues, MetricLabels
from ..otel.metrics import latest_workflow_names
from ..otel.sanitize import MAX_BYTES
from ..otel.setup.content_settings import content_options
from ..otel.setup.settings import ExportConfig, export_config, sdk_is_disabled, sees_sdk_calls
from ..otel.setup.telemetry import Pipeline, Telemetry, activate, active, is_placeholder
from ..wire import instrument as sdk_calls

# An application that configures will call: better imported here than on the event loop, by the first call.
from . import calls as calls

log = logging.getLogger(__name__)

_SWITCHES = ("attempt_spans", "cost_by_kind", "instrument", "prices_over_reply")
_PROVIDERS = {"tracer_provider": "get_tracer", "meter_provider": "get_meter"}
"""The arguments that are providers, and the method that each must have."""

_made_here: weakref.WeakSet[Any] = weakref.WeakSet()


@dataclass(frozen=True, kw_only=True, slots=True)
class SetUp:
    """What a call of `configure()` set up."""

    config: ExportConfig
    """Where it sends what its own providers record."""
    made: frozenset[Signal]
    """The signals for which it made a provider."""
    joined: frozenset[Signal]
    """The signals for which it joined a provider; those that it neither made nor joined go nowhere."""


_latest: SetUp | None = None


def latest_set_up() -> SetUp | None:
    """What the last `configure()` that took effect set up, also once that is shut down; `None` before the first."""
    return _latest


def configure(
    *,
    service_name: str | None = None,
    endpoint: str | None = None,
    protocol: str | None = None,
    headers: Mapping[str, str] | None = None,
    preset: str | None = None,
    file: str | os.PathLike[str] | None = None,
    spool: str | os.PathLike[str] | None = None,
    resource: Mapping[str, AttributeValue] | None = None,
    tracer_provider: trace.TracerProvider | None = None,
    meter_provider: metrics.MeterProvider | None = None,
    metric_attributes: Sequence[str] = (),
    metric_attribute_limit: int = DISTINCT_VALUES,
    cost_by_kind: bool = False,
    attempt_spans: bool = True,
    capture_content: bool | str | None = None,
    content_limit: int = MAX_BYTES,
    redact: Redact | None = None,
    prices: PriceSource | None = None,
    prices_over_reply: bool = False,
    instrument: bool = True,
    hosts: Mapping[str, str] | None = None,
    estimate_missing_usage: bool | None = None,
    state: str | None = None,
) -> Telemetry:
    """Join the OpenTelemetry set-up of this process, or make one from the arguments and the `OTEL_*` variables.

    A provider that is passed, or that is the global one already, is used as it is and never replaced. Otherwise
    one is made, and made the global one. Importing the SDK takes 0.2 to 0.3 s: call this once, at the start.
    From then on the model calls that other SDKs make are recorded too, as `instrument()` describes.

    Args:
        service_name: `service.name`; the default is `OTEL_SERVICE_NAME`.
        endpoint: base URL of an OTLP receiver, like `http://localhost:4318`, to which `/v1/traces` and
            `/v1/metrics` are added for HTTP; `http://` means without TLS for gRPC too. The default is
            `OTEL_EXPORTER_OTLP_ENDPOINT`, else the exporter's own, on this machine.
        protocol: `http/protobuf` (default) or `grpc`; the default is `OTEL_EXPORTER_OTLP_PROTOCOL`.
        headers: headers of each export, for authentication; the default is `OTEL_EXPORTER_OTLP_HEADERS`.
        preset: the backend that receives the telemetry, `phoenix` for instance, or several, as in
            `"jaeger,langfuse"`: spans also get the attributes that it reads. The default is `TRACEMIND_PRESET`, else
            none. docs/backends.md lists them.
        file: a file to which the spans are appended as OTLP JSON lines. Given alone, nothing goes to the network.
        spool: a directory in which spans and the sums of metrics wait for the receiver, also when the process is
            killed: the next process with this spool sends them. The default is `TRACEMIND_SPOOL_DIR`, else they wait
            in memory.
        resource: attributes of the resource, besides those of `OTEL_RESOURCE_ATTRIBUTES`.
        tracer_provider: a provider to join.
        meter_provider: a provider to join.
        metric_attributes: more attributes of the metrics: names of flow attributes (`team`), ids (`user.id`,
            `session.id`), of the prompt (`gen_ai.prompt.name`), or `step`, whose label is `tracemind.step.id`. Each
            value is a time series in the APM.
        metric_attribute_limit: values of each of them that are told apart; further ones are recorded as `_other`.
        cost_by_kind: give the cost counter the attribute `tracemind.cost.kind` (`input`, `cached`, `output`, `fee`, or
            `whole` where the parts are unknown); its sum stays the same.
        attempt_spans: give a call that was retried a child span for each of its attempts, so that a timeline shows
            them. A call without a retry has none.
        capture_content: record prompts, answers and the arguments and results of tools, without what looks like a
            secret: `SPAN_ONLY` or `True` on spans, `EVENT_ONLY` on events of the logs signal, `SPAN_AND_EVENT`, or
            `NO_CONTENT` or `False`. The default is `OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT`, else nothing.
        content_limit: bytes of one such attribute, from 256 to 65,536; what is longer is cut, part by part.
        redact: sees content before it is recorded: called with a part in the form of the GenAI conventions
            (`{"type": "text", "content"}`, `{"type": "tool_call", "name", "arguments"}`, `{"type":
            "tool_call_response", "response"}`) and its role, it returns the part to record, or `None` for nothing.
        prices: your own prices, which win over the table: a TOML file or rows (`tracemind_otel.ai.llm.pricing`).
        prices_over_reply: let `prices` win over a cost that the reply itself names.
        instrument: record the model calls of other SDKs. `TRACEMIND_INSTRUMENT=false` turns that off without code.
        hosts: the provider of each of your own hosts, as `host` or `host:port`, by whose prices the calls of SDKs are
            priced: `{"gateway.acme.example": "openai"}`; the default is `TRACEMIND_HOSTS`.
        estimate_missing_usage: estimate the tokens of other SDKs' streams that report none, and mark them as
            estimated; the default is `TRACEMIND_ESTIMATE_MISSING_USAGE`, else `False`.
        state: where processes share the sums of budgets: `sqlite:////var/lib/app/limits.db` for one host, or the URL of
            a Redis or Valkey server. The default is `TRACEMIND_STATE`, else nothing is shared.

    Returns:
        A handle with `recorder`, `flush`, `shutdown`. It is shut down at exit by itself. A second call before
        `shutdown` returns a handle of the same set-up, whose `shutdown` only flushes, and logs what it ignored.

    Raises:
        ConfigError: an argument or an environment variable has a value that is not allowed.
    """
    global _latest
    asked_for = dict(locals())
    if (owner := active()) is not None:
        _warn_of_ignored(asked_for)
        return owner.shared()
    _check_kinds(asked_for)
    sees_calls = sees_sdk_calls() and instrument
    if sees_calls and sdk_calls.is_gevent():
        sees_calls = False
        log.warning("configure() sees no calls of SDKs: %s", sdk_calls.GEVENT)
    known_hosts = sdk_calls.named_hosts(hosts)
    sdk_calls.is_estimate_asked(estimate_missing_usage)
    labels = MetricLabels(metric_attributes, DistinctValues(metric_attribute_limit))
    content = content_options(capture_content, content_limit, redact)
    config = export_config(
        endpoint=endpoint,
        protocol=protocol,
        headers=headers,
        file=file,
        preset=preset,
        spool=spool,
        has_events=content.on_event,
    )
    own_prices = None if prices is None else load_prices(prices)
    shared_state = state_at(state)
    joined = Providers(
        tracer_provider=tracer_provider or _existing(trace.get_tracer_provider()),
        meter_provider=meter_provider or _existing(metrics.get_meter_provider()),
        logger_provider=_existing(logs.get_logger_provider()) if content.on_event else None,
    )
    if sdk_is_disabled():
        pipeline = Pipeline()
    else:
        from ..otel.setup.pipeline import build

        pipeline = build(joined, config, service_name, resource, has_events=content.on_event)
    _made_here.update(pipeline.providers.values())
    # Only now that nothing can go wrong any more: a mistake leaves nothing behind.
    if shared_state is not None:
        use_state(shared_state)
    if own_prices is not None:
        set_prices(own_prices, over_reply=prices_over_reply)
    providers = Providers(
        tracer_provider=joined.tracer_provider or pipeline.providers.get("traces"),
        meter_provider=joined.meter_provider or pipeline.providers.get("metrics"),
        instruments=pipeline.instruments,
        labels=labels,
        has_cost_by_kind=cost_by_kind,
        has_attempt_spans=attempt_spans,
        sees_sdk_calls=sees_calls,
        has_workflow_calls=latest_workflow_names(),
        has_cost_histogram=config.presets is not None and config.presets.has_cost_histogram,
        needs_todays_metrics=config.presets is not None and config.presets.needs_todays_metrics,
        has_token_types=config.presets is not None and config.presets.has_token_types,
        redact=redact,
        content=content,
        logger_provider=joined.logger_provider or pipeline.providers.get("logs"),
    )
    undo = sdk_calls.uninstrument if sees_calls and not sdk_calls.is_instrumented() else None
    telemetry = Telemetry(providers=providers, pipeline=pipeline, settle=sdk_calls.settle_calls, before_shutdown=undo)
    activate(telemetry)
    if not sees_calls:
        name_hosts(known_hosts)  # spans of others are priced by them too
    if sees_calls:
        sdk_calls.instrument(hosts=hosts, estimate_missing_usage=estimate_missing_usage)
    _latest = SetUp(config=config, made=frozenset(pipeline.providers), joined=_signals_of(joined))
    return telemetry


def _warn_of_ignored(asked_for: Mapping[str, object]) -> None:
    """By name: a value may be a secret."""
    usual = inspect.signature(configure).parameters
    options = [name for name, value in asked_for.items() if value != usual[name].default]
    ignored = f"{', '.join(options)} of this call had no effect" if options else "this call changed nothing"
    log.warning("configure() was called before: %s. Shut the first one down to configure anew", ignored)


def _check_kinds(arguments: Mapping[str, object]) -> None:
    for name in _SWITCHES:
        if not isinstance(value := arguments[name], bool):
            raise ConfigError(f"{name} is {type(value).__name__}; it must be True or False")
    for name, method in _PROVIDERS.items():
        if (provider := arguments[name]) is not None and not callable(getattr(provider, method, None)):
            raise ConfigError(f"{name} is {type(provider).__name__}; it must be a provider with a {method}()")
    if (resource := arguments["resource"]) is not None and not isinstance(resource, Mapping):
        raise ConfigError(f"resource is {type(resource).__name__}; it must be a mapping of attributes")
    service = arguments["service_name"]
    if service is not None and (not isinstance(service, str) or not service.strip()):
        raise ConfigError(f"service_name is {service!r}; it must be a string that is not empty")
    limit = arguments["metric_attribute_limit"]
    if type(limit) is not int or limit < 1:
        raise ConfigError(f"metric_attribute_limit is {limit!r}; it must be a whole number from 1 on")
    if (redact := arguments["redact"]) is not None:
        _check_redact(redact)


def _check_redact(redact: object) -> None:
    if not callable(redact):
        raise ConfigError(f"redact is {type(redact).__name__}; it must be a function of a part and its role")
    try:
        signature = inspect.signature(redact)
    except (TypeError, ValueError):  # of a function in C, which does not tell its parameters
        return
    try:
        signature.bind({}, "user")
    except TypeError as error:
        raise ConfigError(f"redact cannot be called with a part and its role ({error}); it must take both") from None


def _signals_of(providers: Providers) -> frozenset[Signal]:
    found: dict[Signal, object] = {
        "traces": providers.tracer_provider,
        "metrics": providers.meter_provider,
        "logs": providers.logger_provider,
    }
    return frozenset(signal for signal, provider in found.items() if provider is not None)


def _existing(provider: Any) -> Any:
    """The provider, unless it is the API's placeholder or one that an earlier `configure()` made and shut down."""
    return None if is_placeholder(provider) or provider in _made_here else provider
