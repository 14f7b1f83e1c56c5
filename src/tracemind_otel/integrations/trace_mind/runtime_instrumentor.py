"""Every flow of the runtime traced, without a change to the program."""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any, Final, cast

from opentelemetry.metrics import MeterProvider
from opentelemetry.trace import TracerProvider

from ..._base.importing import ImportHooks
from ..._base.once import report_fault
from ...otel.current import Providers, configured_providers, use_providers
from .requests import Request, SharedRuns, current_request
from .runtime_calls import record_usage, traced_call, traced_retry
from .runtime_metrics import RuntimeMetrics
from .traced_flow import run_of, traced_spec

log = logging.getLogger(__name__)

KNOWN_VERSION: Final = "2.0"
"""The releases of trace-mind that this was tested with."""

Function = Callable[..., Any]


class TraceMindInstrumentor:
    """Traces every flow of the trace-mind runtime: requests, flows, steps and model calls.

    `opentelemetry-instrument` finds it by itself. It wraps `FlowRuntime.execute` and `build_dag`, the runtime's model
    client, and fills its hook for usage; the modules are changed when the program imports them. All instances are one.

    Example:
        >>> TraceMindInstrumentor().instrument()
        >>> TraceMindInstrumentor().uninstrument()
    """

    def instrument(
        self,
        tracer_provider: TracerProvider | None = None,
        meter_provider: MeterProvider | None = None,
        **options: object,
    ) -> None:
        """Trace from now on; runtimes that exist already are traced too.

        Args:
            tracer_provider: makes the spans of this package until `uninstrument()`; the default is the one that
                `configure()` set, else the global one.
            meter_provider: makes the metrics, likewise.
            options: what `opentelemetry-instrument` passes to every instrumentor; nothing here needs it.
        """
        with _lock:
            _warn_of_version()
            _state.use(tracer_provider, meter_provider)
            _state.is_on = True
            _hooks.install()

    def uninstrument(self, **options: object) -> None:
        """Put everything back as it was. Runs in progress are traced to their end, but for calls that begin later."""
        with _lock:
            _hooks.remove()
            _state.is_on = False
            _state.restore()


@dataclass(frozen=True, slots=True)
class _Patch:
    """One attribute that was replaced."""

    owner: Any
    """The class or module."""
    name: str
    """The attribute."""
    original: Any
    """Its value before."""
    replacement: Any
    """Its value now, unless somebody else has wrapped it since."""


class _State:
    """What is changed in this process."""

    def __init__(self) -> None:
        self.is_on = False
        self.shared = SharedRuns()
        self._patches: list[_Patch] = []
        self._providers: tuple[Providers, Providers] | None = None
        self.metrics = RuntimeMetrics(lambda: self.is_on)

    def use(self, tracer_provider: TracerProvider | None, meter_provider: MeterProvider | None) -> None:
        """Use these providers, where they are given."""
        if tracer_provider is None and meter_provider is None:
            return
        before = now = configured_providers()
        if tracer_provider is not None:
            now = replace(now, tracer_provider=tracer_provider)
        if meter_provider is not None:
            now = replace(now, meter_provider=meter_provider, instruments=None)
        use_providers(now)
        self._providers = (before if self._providers is None else self._providers[0], configured_providers())

    def wrap(self, module: ModuleType, path: str, wrapper: Callable[[Function], Function]) -> None:
        """Replace a function of a module, once; one that is missing in this version is named in the log."""
        *owners, name = path.split(".")
        owner: Any = module
        for each in owners:
            owner = getattr(owner, each, None)
        original = getattr(owner, name, None)
        if not callable(original):
            log.warning(
                "trace-mind %s has no %s.%s, so what it does is not traced; wrap your flows with instrument_flow()",
                _version(), module.__name__, path,
            )  # fmt: skip
        elif not self.has_replaced(owner, name):
            self.replace(owner, name, functools.wraps(original)(wrapper(original)))

    def has_replaced(self, owner: Any, name: str) -> bool:
        """Whether an attribute is, or is below, what was put there."""
        return any(patch.owner is owner and patch.name == name for patch in self._patches)

    def replace(self, owner: Any, name: str, replacement: object) -> None:
        """Replace an attribute."""
        self._patches.append(_Patch(owner, name, getattr(owner, name), replacement))
        setattr(owner, name, replacement)

    def restore(self) -> None:
        """Put back what was replaced; what somebody else wrapped since stays, and lets every call through."""
        wrapped = [patch for patch in self._patches if getattr(patch.owner, patch.name, None) is not patch.replacement]
        for patch in self._patches:
            if patch not in wrapped:
                setattr(patch.owner, patch.name, patch.original)
        self._patches = wrapped
        if self._providers is not None:
            before, ours = self._providers
            if configured_providers() is ours:
                use_providers(before)
            self._providers = None


_lock = threading.RLock()
_state = _State()


def _patch_runtime(module: ModuleType) -> None:
    _state.wrap(module, "FlowRuntime.build_dag", _building)
    _state.wrap(module, "FlowRuntime.execute", _executing)


def _patch_client(module: ModuleType) -> None:
    _state.wrap(module, "AsyncLLMClient.call", _calling)
    _state.wrap(module, "with_retry", _retrying)


def _patch_bridge(module: ModuleType) -> None:
    before: Function | None = getattr(module, _USAGE_HOOK, None)

    def record(**usage: Any) -> None:
        try:
            if _state.is_on:
                record_usage(**usage)
        except Exception:
            report_fault(log, "TraceMindInstrumentor", "record_llm_usage")
        if before is not None:
            before(**usage)

    if not _state.has_replaced(module, _USAGE_HOOK):
        _state.replace(module, _USAGE_HOOK, record)


def _patch_counters(module: ModuleType) -> None:
    _state.metrics.read_from(module.metrics.snapshot)


_USAGE_HOOK: Final = "_real_record_llm_usage"
"""The runtime looks its recorder of usage up under this name, and finds none of its own."""

_hooks = ImportHooks(
    {
        "tm.flow.runtime": _patch_runtime,
        "tm.ai.llm_client": _patch_client,
        "tm.ai.recorder_bridge": _patch_bridge,
        "tm.obs.counters": _patch_counters,
    }
)


def _building(build: Function) -> Function:
    def build_dag(*args: Any, **kwargs: Any) -> Any:
        spec = build(*args, **kwargs)
        request = current_request()
        if request is None or request.run is not None:
            return spec  # not asked for a run: a worker's tasks inherit the request that started the worker
        traced = traced_spec(spec)
        request.run = run_of(traced)
        return traced

    return build_dag


def _executing(execute: Function) -> Function:
    async def traced(runtime: Any, name: str, *args: Any, **kwargs: Any) -> Any:
        if not _state.is_on:
            return await execute(runtime, name, *args, **kwargs)
        _state.metrics.observe()
        request = Request(name)
        try:
            with request.active(), request.current():
                result = await execute(runtime, name, *args, **kwargs)
        except BaseException as exc:
            request.failed(exc)
            raise
        request.answered(result, _state.shared, is_keyed=_has_key(kwargs.get("ctx")))
        return result

    return traced


def _has_key(ctx: object) -> bool:
    return isinstance(ctx, Mapping) and isinstance(cast("Mapping[str, object]", ctx).get("idempotency_key"), str)


def _calling(call: Function) -> Function:
    async def traced(client: Any, *args: Any, **kwargs: Any) -> Any:
        if not _state.is_on:
            return await call(client, *args, **kwargs)
        return await traced_call(call, client, args, kwargs)

    return traced


def _retrying(retry: Function) -> Function:
    async def traced(*args: Any, **kwargs: Any) -> Any:
        return await (traced_retry(retry, args, kwargs) if _state.is_on else retry(*args, **kwargs))

    return traced


def _version() -> str:
    try:
        return importlib.metadata.version("trace-mind")
    except importlib.metadata.PackageNotFoundError:
        return ""


def _warn_of_version() -> None:
    version = _version()
    if version and not f"{version}.".startswith(f"{KNOWN_VERSION}."):
        log.warning(
            "trace-mind %s is installed; tracemind-otel was tested with %s.x. Its flows are traced as far as they are "
            "alike; if something is missing, wrap your flows with instrument_flow() or install trace-mind %s.x",
            version, KNOWN_VERSION, KNOWN_VERSION,
        )  # fmt: skip
