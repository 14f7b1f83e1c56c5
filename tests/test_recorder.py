"""The port between a step and its recorders: forwarding, in memory, several at once, and faults."""

from __future__ import annotations

import logging
from collections.abc import Generator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import pytest

from tracemind_otel.ai.llm.types import LLMResponse, LLMUsage
from tracemind_otel.recording import port
from tracemind_otel.recording.port import (
    Recorder,
    StepEnd,
    StepHandle,
    StepRetry,
    StepStart,
    begin_safely,
)
from tracemind_otel.recording.recorders import CompositeRecorder, InMemoryRecorder

START = StepStart(flow_id="f", step_id="s", provider="openai", model="gpt-4o-mini")
RETRY = StepRetry(attempt=1, max_attempts=3, delay_s=0.5, reason="rate_limit", error_type="429", status_code=429)
END = StepEnd(status="success", payload={"status": "ok"}, response=LLMResponse("hi", LLMUsage(1, 2, 3)), retries=1)

Call = tuple[Any, ...]


class ThreeMethods(Recorder):
    """A recorder in the style of the first version, with a method for retries."""

    def __init__(self) -> None:
        self.calls: list[Call] = []

    def record_step_start(self, flow_id: str, step_id: str, payload: dict[str, Any] | None = None) -> None:
        self.calls.append(("start", flow_id, step_id, payload))

    def record_step_retry(self, flow_id: str, step_id: str, payload: dict[str, Any] | None = None) -> None:
        self.calls.append(("retry", flow_id, step_id, payload))

    def record_step_end(self, flow_id: str, step_id: str, status: str, payload: dict[str, Any] | None = None) -> None:
        self.calls.append(("end", flow_id, step_id, status, payload))


class Noting(Recorder):
    """A recorder that keeps what its handles get."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    def begin_step(self, start: StepStart) -> StepHandle:
        self.heard.append("begin")
        return NotingHandle(self.heard)


class NotingHandle(StepHandle):
    def __init__(self, heard: list[str]) -> None:
        self._heard = heard

    def active(self) -> AbstractContextManager[object]:
        @contextmanager
        def entered() -> Generator[None]:
            self._heard.append("enter")
            try:
                yield
            finally:
                self._heard.append("exit")

        return entered()

    def retry(self, retry: StepRetry) -> None:
        self._heard.append("retry")

    def first_chunk(self) -> None:
        self._heard.append("first_chunk")

    def next_chunk(self, gap_s: float, response_model: str | None) -> None:
        self._heard.append(f"next_chunk {gap_s} {response_model}")

    def end(self, end: StepEnd) -> None:
        self._heard.append("end")


class FaultError(Exception):
    """Raised by the recorders below."""


class FailsToBegin(Recorder):
    def begin_step(self, start: StepStart) -> StepHandle:
        raise FaultError


class FailsAlways(Recorder):
    def begin_step(self, start: StepStart) -> StepHandle:
        return FailingHandle()


class FailingHandle(StepHandle):
    def active(self) -> AbstractContextManager[object]:
        raise FaultError

    def retry(self, retry: StepRetry) -> None:
        raise FaultError

    def first_chunk(self) -> None:
        raise FaultError

    def next_chunk(self, gap_s: float, response_model: str | None) -> None:
        raise FaultError

    def end(self, end: StepEnd) -> None:
        raise FaultError


class FailsToEnter(Recorder):
    def begin_step(self, start: StepStart) -> StepHandle:
        return FailingContext(fails_on_enter=True)


class FailsToLeave(Recorder):
    def begin_step(self, start: StepStart) -> StepHandle:
        return FailingContext(fails_on_enter=False)


class FailingContext(StepHandle):
    def __init__(self, *, fails_on_enter: bool) -> None:
        self._fails_on_enter = fails_on_enter

    @contextmanager
    def active(self) -> Generator[None]:
        if self._fails_on_enter:
            raise FaultError
        yield
        raise FaultError


FAULTY = [FailsToBegin, FailsAlways, FailsToEnter, FailsToLeave]


def run_through(handle: StepHandle) -> str:
    """Everything a step does with a handle."""
    with handle.active():
        said = "the call"
    handle.retry(RETRY)
    handle.first_chunk()
    handle.next_chunk(0.5, "m-1")
    handle.end(END)
    handle.end(END)
    return said


def test_the_base_recorder_does_nothing() -> None:
    """A plain `Recorder` records nothing."""
    assert run_through(Recorder().begin_step(START)) == "the call"
    assert run_through(StepHandle()) == "the call"


def test_the_default_forwards_to_the_three_methods() -> None:
    """A recorder of the first version gets start, retry and end once each, as plain dicts."""
    recorder = ThreeMethods()
    run_through(recorder.begin_step(START))
    assert recorder.calls == [
        ("start", "f", "s", {"type": "ai.llm_call", "provider": "openai", "model": "gpt-4o-mini", "attempt": 0}),
        (
            "retry",
            "f",
            "s",
            {
                "attempt": 1,
                "max_attempts": 3,
                "delay_s": 0.5,
                "reason": "rate_limit",
                "error_type": "429",
                "status_code": 429,
                "failed_ns": None,
                "presumed_cost_usd": None,
            },
        ),
        ("end", "f", "s", "success", {"status": "ok"}),
    ]


def test_a_forwarded_payload_is_the_recorders_own() -> None:
    """A recorder may change its dict without changing the caller's result."""
    recorder = ThreeMethods()
    recorder.begin_step(START).end(END)
    recorder.calls[-1][-1]["mine"] = True
    assert END.payload == {"status": "ok"}


def test_in_memory_keeps_every_call() -> None:
    """`steps` has each call's start, retries, gaps between chunks and end, in the order of the starts."""
    recorder = InMemoryRecorder()
    first, second = recorder.begin_step(START), recorder.begin_step(START)
    second.end(END)
    run_through(first)
    assert [(step.start, step.retries, step.chunk_gaps_s, step.end) for step in recorder.steps] == [
        (START, [RETRY], [0.5], END),
        (START, [], [], END),
    ]


def test_in_memory_keeps_the_first_end() -> None:
    """A second end is ignored."""
    recorder = InMemoryRecorder()
    handle = recorder.begin_step(START)
    handle.end(END)
    handle.end(StepEnd(status="error", payload={}))
    assert recorder.steps[0].end is END


def test_a_running_call_has_no_end() -> None:
    """A running call has no end."""
    recorder = InMemoryRecorder()
    recorder.begin_step(START)
    assert recorder.steps[0].end is None


def test_composite_tells_all() -> None:
    """Each recorder gets everything, and contexts are left in reverse order."""
    recorders = Noting(), Noting()
    run_through(CompositeRecorder(*recorders).begin_step(START))
    expected = ["begin", "enter", "exit", "retry", "first_chunk", "next_chunk 0.5 m-1", "end", "end"]
    assert [recorder.heard for recorder in recorders] == [expected, expected]


@pytest.mark.parametrize("faulty", FAULTY)
def test_composite_goes_on_past_a_fault(faulty: type[Recorder]) -> None:
    """A recorder that raises does not keep events from the others."""
    before, after = Noting(), Noting()
    assert run_through(CompositeRecorder(before, faulty(), after).begin_step(START)) == "the call"
    assert (
        before.heard
        == after.heard
        == ["begin", "enter", "exit", "retry", "first_chunk", "next_chunk 0.5 m-1", "end", "end"]
    )


def test_an_empty_composite_does_nothing() -> None:
    """A composite without recorders is allowed."""
    assert run_through(CompositeRecorder().begin_step(START)) == "the call"


@pytest.mark.parametrize("faulty", FAULTY)
def test_a_fault_never_passes_the_border(faulty: type[Recorder]) -> None:
    """The step is unaffected, whichever method of a recorder raises."""
    assert run_through(begin_safely(START, faulty())) == "the call"


def test_a_fault_is_logged_with_its_trace_once(caplog: pytest.LogCaptureFixture) -> None:
    """A method's first fault is logged as an error with a traceback, and later ones as debug lines."""
    caplog.set_level(logging.DEBUG, logger=port.__name__)
    for _ in range(3):
        begin_safely(START, FailsToBegin())
    assert [record.levelno for record in caplog.records] == [logging.ERROR, logging.DEBUG, logging.DEBUG]
    assert "FailsToBegin.begin_step failed" in caplog.text
    first = caplog.records[0]
    assert first.exc_info is not None
    assert first.exc_info[0] is FaultError


def test_each_faulty_method_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """Each method that fails is logged."""
    run_through(begin_safely(START, FailsAlways()))
    errors = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert [message.split()[0] for message in errors] == [
        "FailsAlways.active",
        "FailsAlways.retry",
        "FailsAlways.first_chunk",
        "FailsAlways.next_chunk",
        "FailsAlways.end",
    ]


def test_a_fault_of_the_call_passes_through_the_border() -> None:
    """A provider's exception is not taken for a recorder's."""
    with pytest.raises(KeyError), begin_safely(START, FailsToLeave()).active():
        raise KeyError


def test_an_interrupt_passes_through_the_border() -> None:
    """Ctrl-C in a recorder is not swallowed."""

    class Interrupted(Recorder):
        def begin_step(self, start: StepStart) -> StepHandle:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        begin_safely(START, Interrupted())


def test_a_recorder_cannot_swallow_the_calls_exception() -> None:
    """A recorder's context that returns True from `__exit__` does not hide a failed attempt."""

    class Swallowing(StepHandle):
        @contextmanager
        def active(self) -> Generator[None]:
            try:
                yield
            except Exception:
                pass

    class Swallows(Recorder):
        def begin_step(self, start: StepStart) -> StepHandle:
            return Swallowing()

    with pytest.raises(KeyError), begin_safely(START, Swallows()).active():
        raise KeyError
    with pytest.raises(KeyError), CompositeRecorder(Swallows()).begin_step(START).active():
        raise KeyError
