"""`@flow`, `@step`, `@tool` and `@agent`: spans around functions that somebody already wrote.

Each is used bare or with options, on functions and methods of every kind: sync and async functions, sync and async
generators, and functions made by `contextlib.contextmanager` or `asynccontextmanager`. The function keeps its
kind, name, signature and type. With a name each is also the `with` of a block: `with flow("import") as run:`.

A generator's span begins with its body, at the first item, and its body runs in a context of its own: what the
consumer does between two items is never below the span. A span ends once, however the body ends:

- returned, or read to the end: status unset, since what a success is only the application knows;
- raised: status ERROR, `error.type` and an `exception` event with the places, without the message;
- cancelled: status unset and `tracemind.cancelled`;
- a generator that is closed or dropped before its end: status unset and `tracemind.stream.closed_early`.
"""

from __future__ import annotations

import abc
import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, ParamSpec, TypedDict, TypeVar, Unpack, cast, overload

from .._base.context import Block
from ..errors import ConfigError
from ..flows.budget import OnStateAway, OnUnknownPrice
from ..flows.budget.accounts import sharing
from ..flows.correlation import NO_PROMPT, Prompt, checked_prompt
from ..flows.scope import FlowSpec
from ..flows.sources import ArgumentFunction, AttributeSource, AttributeSources, CorrelationSources, IdSource
from ..flows.totals import NO_ATTRIBUTES, FlowRun
from . import semconv
from .budget_scope import checked_limits
from .span_scope import AGENT, FLOW, STEP, TOOL, Kind, SpanSpec, start_flow, start_scope, start_step
from .wrapping.body import Body, Start
from .wrapping.functions import wrap

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")


class SpanOptions(TypedDict, total=False):
    """The options of every decorator."""

    name: str | None
    """The low-cardinality name of the flow, step, tool or agent; the default is the function's own."""
    attributes: Mapping[str, AttributeSource]
    """Attributes of the span: values, lists of values of one type, or functions of the call's arguments."""
    capture_arguments: bool | None
    """Record the arguments as JSON, without what looks like a secret. By default a tool's are recorded where
    `configure(capture_content=...)` asks for content, and no others, since they may hold prompts."""
    capture_result: bool | None
    """Record the result likewise; of a generator, its first hundred items."""


class StepOptions(SpanOptions, total=False):
    """The options of `@step`."""

    prompt_name: str | None
    """The name of the prompt that the model calls below use (`gen_ai.prompt.name`)."""
    prompt_version: str | None
    """Its version (`gen_ai.prompt.version`)."""


class ToolOptions(SpanOptions, total=False):
    """The options of `@tool`."""

    call_id: IdSource | None
    """The id by which the model asked for this run (`gen_ai.tool.call.id`): a string, or a function of the call's
    arguments."""


class FlowOptions(SpanOptions, total=False):
    """The options of `@flow`."""

    flow_id: IdSource | None
    """`tracemind.flow.id` of every span and log below: a string, or a function of the call's arguments."""
    session_id: IdSource | None
    """`session.id`, likewise."""
    conversation_id: IdSource | None
    """`gen_ai.conversation.id`, likewise."""
    user_id: IdSource | None
    """`user.id`, likewise."""
    tags: Sequence[str]
    """`tracemind.tags`, added to those that are set around."""
    max_cost_usd: float | None
    """USD that the model calls below may cost."""
    max_tokens: int | None
    """Input and output tokens that they may use."""
    max_llm_calls: int | None
    """How many of them there may be."""
    on_unknown_price: OnUnknownPrice
    """Under `max_cost_usd`, a call of unknown price: `refuse` it (default), or count it as `zero` and warn."""
    reserve_cost_usd: float | None
    """USD that a call reserves at least where it does not limit its output by `max_tokens`."""
    reserve_tokens: int | None
    """Tokens that such a call reserves at least."""
    per: str | None
    """The window in which all runs in all processes share the limits: `30s`, `5m`, `1h`, `1d`."""
    key: IdSource | None
    """Whose limits they are: a string, or a function of the call's arguments; each key has an account of its own."""
    on_state_away: OnStateAway
    """Whether a shared budget denies calls (`deny`, the default) or sends them (`allow`) while the state is away."""


@overload
def flow(function: Callable[P, R], /) -> Callable[P, R]: ...
@overload
def flow(called: str | None = None, /, **options: Unpack[FlowOptions]) -> FlowDecorator: ...
def flow(
    function: Callable[P, R] | str | None = None, /, **options: Unpack[FlowOptions]
) -> Callable[P, R] | FlowDecorator:
    """Run a function or a block as a flow: an `invoke_workflow {name}` span with the sums of all model calls below it.

    The sums are `tracemind.flow.*` with nested flows and `tracemind.flow.own.*` without them. They hold under
    `asyncio.gather` and in `asyncio.to_thread` too, and in other threads by `carry_context`. The code inside finds
    them by `current_flow()`, and a block by its `as`. A call that would go over a limit is not sent, and fails with a
    `BudgetExceededError`; the span gets an event `tracemind.budget` at 50, 80 and 100 %.

    Args:
        function: the function when used bare, else the flow's name, as `name`.
        name: the flow's low-cardinality name; the default is the function's own. A block needs one.
        attributes: attributes of the span, each a value, a list of values of one type, or a function of the call's
            arguments; those named in `configure(metric_attributes=...)` go on metrics too.
        flow_id: `tracemind.flow.id` of every span and log below. Each id is a string, or a function that is called
            with the arguments of the decorated one: `session_id=lambda request: request.session`.
        session_id: `session.id` of every span and log below.
        conversation_id: `gen_ai.conversation.id` of every span and log below.
        user_id: `user.id` of every span and log below.
        tags: `tracemind.tags` of every span and log below, added to those that are set around.
        max_cost_usd: USD that the model calls below may cost.
        max_tokens: input and output tokens that they may use.
        max_llm_calls: how many of them there may be.
        on_unknown_price: under `max_cost_usd`, whether a call whose price is unknown is denied (`refuse`, the default),
            or counts as `zero` with a warning.
        reserve_cost_usd: USD that a call reserves at least where it does not limit its output by `max_tokens`.
        reserve_tokens: tokens that such a call reserves at least.
        per: the window in which all runs share the limits, in every process with the same `configure(state=...)`:
            `30s`, `5m`, `1h` or `1d`. Without `per` and `key`, each run has the limits for itself.
        key: whose limits they are, such as a user, a team or an API key; each key has an account of its own. It is a
            string, or a function that is called with the arguments of the decorated one.
        on_state_away: whether a shared budget denies calls (`deny`, the default) or sends them (`allow`) while the
            state does not answer.
        capture_arguments: record the arguments as JSON (`tracemind.function.arguments`), without what looks like a
            secret; off by default, since they may hold prompts.
        capture_result: record the result likewise (`tracemind.function.result`); of a generator, its first
            hundred items.

    Raises:
        ConfigError: an option has a value that is not allowed; the message names it. A run raises it where its limits
            are shared and there is no state, or no key for its arguments.
        TypeError: what is decorated is not a function.

    Example:
        >>> with flow("import") as run:
        ...     pass
        >>> run.llm_calls, run.cost_usd
        (0, None)
    """
    named = _with_name("flow", function, options, FlowOptions)
    decorator = _flow_decorator(**cast("FlowOptions", named))
    return decorator if function is None or isinstance(function, str) else decorator(function)


@overload
def agent(function: Callable[P, R], /) -> Callable[P, R]: ...
@overload
def agent(called: str | None = None, /, **options: Unpack[SpanOptions]) -> SpanDecorator: ...
def agent(
    function: Callable[P, R] | str | None = None, /, **options: Unpack[SpanOptions]
) -> Callable[P, R] | SpanDecorator:
    """Run a function or a block as an agent: an `invoke_agent {name}` span, under which its calls and tools nest.

    Args:
        function: the function when used bare, else the agent's name (`gen_ai.agent.name`).
        options: those of `step`.

    Raises:
        ConfigError: an option has a value that is not allowed; the message names it.
        TypeError: what is decorated is not a function.
    """
    return _applied(SpanDecorator(AGENT, **_with_name("agent", function, options, SpanOptions)), function)


@overload
def tool(function: Callable[P, R], /) -> Callable[P, R]: ...
@overload
def tool(called: str | None = None, /, **options: Unpack[ToolOptions]) -> SpanDecorator: ...
def tool(
    function: Callable[P, R] | str | None = None, /, **options: Unpack[ToolOptions]
) -> Callable[P, R] | SpanDecorator:
    """Run a function or a block as a tool that a model asked for: an `execute_tool {name}` span.

    Args:
        function: the function when used bare, else the tool's name (`gen_ai.tool.name`), as the model knows it.
        call_id: the id by which the model asked for this run (`gen_ai.tool.call.id`): a string, or a function that is
            called with the arguments of the decorated one.
        options: those of every span; arguments and result are `gen_ai.tool.call.arguments` and `.result`, and follow
            `configure(capture_content=...)` where they are not set here.

    Raises:
        ConfigError: an option has a value that is not allowed; the message names it.
        TypeError: what is decorated is not a function.
    """
    named = _with_name("tool", function, options, ToolOptions)
    call_id = named.pop("call_id", None)
    if call_id is not None:
        named["attributes"] = {**named.get("attributes", {}), semconv.GEN_AI_TOOL_CALL_ID: call_id}
    return _applied(SpanDecorator(TOOL, **named), function)


@overload
def step(function: Callable[P, R], /) -> Callable[P, R]: ...
@overload
def step(called: str | None = None, /, **options: Unpack[StepOptions]) -> SpanDecorator: ...
def step(
    function: Callable[P, R] | str | None = None, /, **options: Unpack[StepOptions]
) -> Callable[P, R] | SpanDecorator:
    """Run a function or a block as a step: a span of its name, under which its model calls nest.

    Args:
        function: the function when used bare, else the step's name, as `name`.
        name: the low-cardinality name; the default is the function's own. A block needs one.
        attributes: attributes of the span, each a value, a list of values of one type, or a function of the call's
            arguments.
        prompt_name: the name of the prompt that the model calls below use (`gen_ai.prompt.name`).
        prompt_version: its version (`gen_ai.prompt.version`).
        capture_arguments: record the arguments as JSON (`tracemind.function.arguments`), without what looks like a
            secret; off by default, since they may hold prompts.
        capture_result: record the result likewise (`tracemind.function.result`); of a generator, its first
            hundred items.

    Raises:
        ConfigError: an option has a value that is not allowed; the message names it.
        TypeError: what is decorated is not a function.
    """
    named = _with_name("step", function, options, StepOptions)
    prompt = checked_prompt(named.pop("prompt_name", None), named.pop("prompt_version", None))
    return _applied(SpanDecorator(STEP, prompt=prompt, **named), function)


def _applied(decorator: SpanDecorator, function: Callable[P, R] | str | None) -> Callable[P, R] | SpanDecorator:
    return decorator if function is None or isinstance(function, str) else decorator(function)


def _with_name(decorator: str, name: object, options: Any, allowed: type) -> Any:
    """The options with a name that was given without the keyword."""
    _check_options(decorator, options, allowed)
    if not isinstance(name, str):
        return {**options}
    if "name" in options:
        raise TypeError(f"{decorator}({name!r}, name={options['name']!r}): give one name")
    return {**options, "name": name}


def _flow_decorator(
    *,
    flow_id: IdSource | None = None,
    session_id: IdSource | None = None,
    conversation_id: IdSource | None = None,
    user_id: IdSource | None = None,
    tags: Sequence[str] = (),
    max_cost_usd: float | None = None,
    max_tokens: int | None = None,
    max_llm_calls: int | None = None,
    on_unknown_price: OnUnknownPrice = "refuse",
    reserve_cost_usd: float | None = None,
    reserve_tokens: int | None = None,
    per: str | None = None,
    key: IdSource | None = None,
    on_state_away: OnStateAway = "deny",
    **options: Unpack[SpanOptions],
) -> FlowDecorator:
    sources = {"flow_id": flow_id, "session_id": session_id, "conversation_id": conversation_id, "user_id": user_id}
    limits = checked_limits(
        max_cost_usd=max_cost_usd,
        max_tokens=max_tokens,
        max_llm_calls=max_llm_calls,
        on_unknown_price=on_unknown_price,
        reserve_cost_usd=reserve_cost_usd,
        reserve_tokens=reserve_tokens,
    )
    key_of = ArgumentFunction.of("key", key) if callable(key) else None
    fixed = None if callable(key) else key
    shared = sharing(key=fixed, per=per, on_state_away=on_state_away, has_key_later=key_of is not None)
    if shared is not None and limits is None:
        raise ConfigError("per and key limit nothing by themselves; pass max_cost_usd, max_tokens or max_llm_calls too")
    spec = FlowSpec(ids=CorrelationSources.of(tags, **sources), limits=limits, sharing=shared, key_of=key_of)
    return FlowDecorator(spec, **options)


class _Decorator(Block[T], Generic[T]):
    """What a decorator with options returns: it decorates functions, or is the `with` of one block at a time."""

    def __init__(
        self,
        kind: Kind,
        *,
        name: str | None = None,
        attributes: Mapping[str, AttributeSource] = NO_ATTRIBUTES,
        capture_arguments: bool | None = None,
        capture_result: bool | None = None,
        prompt: Prompt = NO_PROMPT,
    ) -> None:
        _check_name(name)
        self._kind = kind
        self._name = name
        self._attributes = AttributeSources.of(attributes)
        self._capture_arguments = capture_arguments
        self._capture_result = capture_result
        self._prompt = prompt
        self._block: Body | None = None

    def __call__(self, function: Callable[P, R], /) -> Callable[P, R]:
        """Decorate a function."""
        _reject_unfit(function, self._kind.decorator)
        spec = SpanSpec.of(
            self._kind,
            self._name or _name_of(function, self._kind),
            self._attributes_for(function),
            signature=_signature(function) if self._may_capture(self._capture_arguments) else None,
            captures_arguments=self._capture_arguments,
            captures_result=self._capture_result,
            prompt=self._prompt,
        )
        return wrap(function, self._starting(spec, function))

    def _may_capture(self, asked: bool | None) -> bool:
        """Whether a run may capture: what nobody has decided is as `configure()` says, for a tool."""
        return self._kind is TOOL if asked is None else asked

    def _attributes_for(self, function: Callable[..., object]) -> AttributeSources:
        signature = _signature(function) if self._attributes.called.functions else None
        return self._attributes if signature is None else self._attributes.beside(signature)

    @abc.abstractmethod
    def _starting(self, spec: SpanSpec, function: Callable[..., object]) -> Start:
        """What starts a run of a function."""

    def _leave(self, exc: BaseException | None) -> None:
        block, self._block = self._block, None
        if block is not None:
            block.leave(exc)

    def _spec_of_block(self) -> SpanSpec:
        if self._name is None:
            raise ConfigError(f"with {self._kind.decorator}(): a block has no name of its own; pass name=...")
        if self._block is not None:
            raise RuntimeError(f"this {self._kind.decorator}(...) is in use; make one for each block")
        return SpanSpec.of(self._kind, self._name, self._attributes, prompt=self._prompt)


class SpanDecorator(_Decorator[None]):
    """What `@step(...)`, `@tool(...)` and `@agent(...)` return: a decorator, and the `with` of one block at a time."""

    def _starting(self, spec: SpanSpec, function: Callable[..., object] | None = None) -> Start:
        return functools.partial(start_step if self._kind is STEP else start_scope, spec)

    def _enter(self) -> None:
        run = self._starting(self._spec_of_block())((), {})
        run.enter()
        self._block = Body(run)


class FlowDecorator(_Decorator[FlowRun]):
    """What `@flow(...)` returns: a decorator, and the `with` of one block at a time, whose `as` is the `FlowRun`."""

    def __init__(self, flow: FlowSpec, **options: Unpack[SpanOptions]) -> None:
        super().__init__(FLOW, **options)
        self._flow = flow

    def _starting(self, spec: SpanSpec, function: Callable[..., object]) -> Start:
        flow = self._flow
        if flow.reads_arguments and (signature := _signature(function)) is not None:
            flow = flow.beside(signature)
        return functools.partial(start_flow, spec, flow)

    def _enter(self) -> FlowRun:
        scope = start_flow(self._spec_of_block(), self._flow, (), {})
        scope.enter()
        self._block = Body(scope)
        return scope.run


def _check_name(name: object) -> None:
    if name is not None and (not isinstance(name, str) or not name):
        raise ConfigError(f"name is {name!r}; it must be a string that is not empty")


def _check_options(decorator: str, options: Mapping[str, object], allowed: type) -> None:
    for option in options.keys() - allowed.__annotations__.keys():
        only = "; only @flow has it" if option in FlowOptions.__annotations__ else ""
        known = ", ".join(allowed.__annotations__)
        raise TypeError(f"@{decorator}() has no option {option!r}{only}; its options are {known}")


def _name_of(function: Callable[..., object], kind: Kind) -> str:
    """`Class.method` or `function`, without the functions it is nested in; of a tool, what a model calls it."""
    if kind is TOOL:
        return getattr(function, "__name__", type(function).__name__)
    return getattr(function, "__qualname__", type(function).__name__).rpartition("<locals>.")[2]


def _signature(function: Callable[..., object]) -> inspect.Signature | None:
    try:
        return inspect.signature(function)
    except ValueError:  # a function in C that has none
        return None


def _reject_unfit(function: object, decorator: str) -> None:
    if isinstance(function, staticmethod | classmethod | property | functools.cached_property):
        raise TypeError(f"@{decorator}: put it below @{type(function).__name__}, next to the function")  # pyright: ignore[reportUnknownArgumentType]
    if isinstance(function, type):
        raise TypeError(f"@{decorator}: {function.__name__} is a class; decorate its methods")
    if not callable(function):
        raise TypeError(f"@{decorator}: {type(function).__name__} is not a function")
