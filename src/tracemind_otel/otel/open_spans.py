"""Which spans tell of one model call, so that it is counted once: nested ones, and ones beside each other."""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field

from opentelemetry.trace import Span, SpanContext, get_current_span

from .._base.fork import in_forked_child
from .._base.owner import current_owner
from ..ai.llm.types import LLMResponse, LLMUsage
from .genai_spans import Measured, is_own_call, most_measured
from .names_around import Names

_MAX_OPEN = 65_536
"""Spans that are never ended stay open; the oldest are forgotten."""
_MAX_PLACES = 1024
_MAX_CALLS = 64
_MAX_IDS = 4096
_Key = tuple[int, int]
_Place = Hashable
"""Where a call is made: a trace, or outside of any the task or thread."""


class OpenSpan:
    """A span that is open, and those around it."""

    __slots__ = (
        "has_told",
        "is_call",
        "is_counted",
        "measured",
        "model",
        "names",
        "names_inside",
        "owner",
        "parent",
        "place",
        "scope",
        "span",
    )

    def __init__(self, parent: OpenSpan | None, place: _Place, scope: str) -> None:
        self.parent = parent
        self.place = place
        self.scope = scope
        """The name of the instrumentation scope."""
        self.is_call = False
        """Whether it was a model call's at its start."""
        self.is_counted = False
        """Whether its call was counted, by itself, by a span below, or by the wire."""
        self.has_told = False
        """Whether the span itself was counted."""
        self.model = ""
        """The model of a call, where it was known at the start."""
        self.measured: Measured = "nothing"
        """What the maker of a call's span measures."""
        self.names: Names = {}
        """The names of the flow and the agent whose spans are around it."""
        self.names_inside: Names | None = None
        """The names for what is inside it; `None` until something is."""
        self.owner = 0
        """The task or thread that began a call."""
        self.span: Span | None = None
        """The span of a call."""

    def begin_call(self, span: Span, model: str, measured: Measured) -> None:
        """Note that it is a model call's."""
        self.span = span
        self.is_call, self.model, self.measured, self.owner = True, model, measured, id(current_owner())
        with _lock:
            _calls_at.setdefault(self.place, []).append(self)

    def count(self) -> None:
        """Note that the call of this span is counted; the spans around it report the same call."""
        self.has_told = True
        self.count_inside()

    def count_inside(self) -> None:
        """Note that a call inside is counted; this span and those around it report the same call."""
        for span in self.upwards():
            span.is_counted = True

    @property
    def is_told(self) -> bool:
        """Whether the call was counted: here, below, or by a span around it that ended first."""
        return self.is_counted or any(span.has_told for span in self.upwards())

    @property
    def is_inside_call(self) -> bool:
        """Whether a span around it is a model call's, which will tell how the call ended."""
        return self.parent is not None and any(span.is_call for span in self.parent.upwards())

    def upwards(self) -> Iterator[OpenSpan]:
        """This span and those around it."""
        span: OpenSpan | None = self
        while span is not None:
            yield span
            span = span.parent


@dataclass(slots=True, eq=False)
class CallTellers:
    """A call that is counted, and what tells of it."""

    model: str
    """The model that was asked for."""
    started_ns: int
    """Its start, in nanoseconds since the epoch."""
    span: Span | None = None
    """The span of another instrumentation that the call is recorded on."""
    scopes: set[str] = field(default_factory=set[str])
    """The instrumentations that have told of it."""
    beside: set[str] = field(default_factory=set[str])
    """Those of them whose span is beside the call's."""
    measured: Measured = "nothing"
    """What they measure."""
    ended_ns: int | None = None
    """The time of its reply."""
    response_id: str | None = None
    """The provider's id of the reply."""
    tokens: tuple[int | None, int | None] | None = None
    """Input and output of the reply."""
    unwritten: LLMUsage | None = None
    """The usage, where the span that the call is recorded on had ended before."""

    def replied(self, response: LLMResponse, ended_ns: int) -> None:
        """Note the reply."""
        usage = response.usage
        self.response_id, self.ended_ns = response.response_id, ended_ns
        self.tokens = (usage.prompt_tokens, usage.completion_tokens)
        if response.response_id is not None:
            with _lock:
                _keep_id(response.response_id, self)

    def priced(self, usage: LLMUsage | None) -> None:
        """Note the usage, for a span that comes after that of the call."""
        if self.span is not None and not self.span.is_recording():
            self.unwritten = usage


_open: dict[_Key, OpenSpan] = {}
_calls_at: dict[_Place, list[OpenSpan]] = {}
_counted_at: OrderedDict[_Place, deque[CallTellers]] = OrderedDict()
_calls_by_id: OrderedDict[str, CallTellers] = OrderedDict()
_own_replies: OrderedDict[str, None] = OrderedDict()
"""The ids of the replies to calls of our own."""
_lock = threading.Lock()


def open_span(span: Span, parent: Span, scope: str) -> OpenSpan:
    """Note that a span begins which is no call of ours."""
    around, context = open_around(parent), parent.get_span_context()
    made = OpenSpan(around, _place_of(context) if around is None else around.place, scope)
    made.has_told = is_own_call(parent)
    with _lock:
        if len(_open) >= _MAX_OPEN:
            _forget(next(iter(_open)))
        _open[_key(span.get_span_context())] = made
    return made


def open_around(parent: Span) -> OpenSpan | None:
    """The innermost span that is noted around what begins in this one.

    The span of a call of ours is not noted itself, because seldom anything begins in it.
    """
    around = _open.get(_key(parent.get_span_context()))
    if around is None and is_own_call(parent):
        outer: SpanContext | None = getattr(parent, "parent", None)
        return None if outer is None else _open.get(_key(outer))
    return around


def close_span(context: SpanContext) -> None:
    """Note that a span has ended."""
    key = _key(context)
    if key in _open:
        with _lock:
            _forget(key)


def _forget(key: _Key) -> None:
    span = _open.pop(key, None)
    if span is not None and span.is_call and (calls := _calls_at.get(span.place)) is not None:
        calls[:] = [each for each in calls if each is not span]
        if not calls:
            del _calls_at[span.place]


def count_call_of(span: Span) -> None:
    """Note that the call of a span is counted by other means than the span."""
    found = _open.get(_key(span.get_span_context()))
    if found is not None:
        found.count()


def begin_counted_call(model: str, started_ns: int, span: Span | None) -> CallTellers:
    """A call begins that is counted by what is on the wire.

    An open span of such a call that this task or thread began, and that is not around it, tells of the same call: its
    maker does not make it current.

    Args:
        model: the model that is asked for.
        started_ns: now.
        span: the span of somebody else that the call is recorded on.
    """
    current = span or get_current_span()
    around = open_around(current)
    place = _place_of(current.get_span_context()) if around is None else around.place
    call = CallTellers(model, started_ns, span)
    chain = [] if around is None else [each for each in around.upwards() if each.is_call]
    owner = id(current_owner())
    with _lock:
        beside = next((each for each in _calls_at.get(place, ()) if _tells_of(each, model, owner, chain)), None)
        if beside is not None:
            beside.is_counted = True
            call.beside.add(beside.scope)
            chain = [*chain, beside]
    call.scopes.update(each.scope for each in chain)
    call.measured = most_measured(each.measured for each in chain)
    _keep(place, call)
    return call


def span_around_suppression(model: str) -> Span | None:
    """The open span of a call that this task or thread began, where a suppressed span hides it; `None` without one.

    Logfire suppresses the spans inside its own, so that an SDK that makes spans itself makes one that records nothing.
    """
    if get_current_span().is_recording() or not _calls_at:
        return None
    owner = id(current_owner())
    with _lock:
        calls = [each for calls in _calls_at.values() for each in calls if _tells_of(each, model, owner, [])]
    return next((each.span for each in reversed(calls) if each.span is not None and each.span.is_recording()), None)


def _tells_of(span: OpenSpan, model: str, owner: int, chain: list[OpenSpan]) -> bool:
    is_free = not span.is_counted and span not in chain and span.owner == owner
    return is_free and (not span.model or not model or span.model == model)


def keep_told_call(opened: OpenSpan, model: str, started_ns: int) -> CallTellers:
    """A call is counted by what a span tells."""
    call = CallTellers(model, started_ns, scopes={opened.scope})
    _keep(opened.place, call)
    return call


def keep_own_reply(response_id: str) -> None:
    """A span of ours has ended, whose call is counted; the id of its reply tells who else tells of it."""
    with _lock:
        _own_replies[response_id] = None
        if len(_own_replies) > _MAX_IDS:
            _own_replies.popitem(last=False)


def _keep(place: _Place, call: CallTellers) -> None:
    with _lock:
        calls = _counted_at.setdefault(place, deque(maxlen=_MAX_CALLS))
        _counted_at.move_to_end(place)
        calls.append(call)
        while len(_counted_at) > _MAX_PLACES:
            _counted_at.popitem(last=False)


def counted_call_told_by(
    opened: OpenSpan, models: tuple[str, ...], response: LLMResponse | None, times_ns: tuple[int, int], *, is_log: bool
) -> CallTellers | None:
    """The counted call that a span tells of again; `None` where it tells of one that was not counted.

    The ids of the replies decide where both are known, else the model, the tokens and the time; without ids each
    instrumentation tells of a call once.

    Args:
        opened: the span.
        models: the model that was asked for, and the one that answered.
        response: the reply as the span tells it; `None` where it has no counts.
        times_ns: its start and end.
        is_log: whether it is no period but a note after the end of a call, beside the span of the same maker.
    """
    scope = f"{opened.scope} (log)" if is_log else opened.scope
    reply = None if response is None else response.response_id
    with _lock:
        calls = [*reversed(_counted_at.get(opened.place, ()))]
        if reply is not None and (same := _call_with_id(reply)) is not None:
            calls.insert(0, same)
        for call in calls:
            is_reply = reply is not None and reply == call.response_id
            if is_reply or (
                scope not in call.scopes and _is_same(call, models, response, None if is_log else times_ns)
            ):
                if not is_log and scope not in call.scopes:
                    call.beside.add(scope)
                call.scopes.add(scope)
                return call
    return None


def _call_with_id(response_id: str) -> CallTellers | None:
    """The counted call that got this reply. One of our own is described only when somebody else tells of it."""
    call = _calls_by_id.get(response_id)
    if call is None and response_id in _own_replies:
        call = CallTellers("", 0, response_id=response_id)
        _keep_id(response_id, call)
    return call


def _keep_id(response_id: str, call: CallTellers) -> None:
    while len(_calls_by_id) >= _MAX_IDS:
        _calls_by_id.popitem(last=False)
    _calls_by_id[response_id] = call


def _is_same(
    call: CallTellers, models: tuple[str, ...], response: LLMResponse | None, times_ns: tuple[int, int] | None
) -> bool:
    if response is not None and response.response_id is not None and call.response_id is not None:
        return False
    tokens = None if response is None else (response.usage.prompt_tokens, response.usage.completion_tokens)
    if call.model not in models or tokens != call.tokens:
        return False
    return times_ns is None or (
        call.started_ns <= times_ns[1] and (call.ended_ns is None or times_ns[0] <= call.ended_ns)
    )


def _key(context: SpanContext) -> _Key:
    return context.trace_id, context.span_id


def _place_of(context: SpanContext) -> _Place:
    return context.trace_id if context.is_valid else ("outside", id(current_owner()))


def _begin_anew() -> None:
    global _lock
    _lock = threading.Lock()
    _open.clear()
    _calls_at.clear()
    _counted_at.clear()
    _calls_by_id.clear()
    _own_replies.clear()


in_forked_child(_begin_anew)
