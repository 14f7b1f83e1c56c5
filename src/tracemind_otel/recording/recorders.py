"""Recorders beside the one of OpenTelemetry: one that keeps calls in memory, and one for several at once."""

from __future__ import annotations

from dataclasses import dataclass, field

from .port import Recorder, StepEnd, StepHandle, StepRetry, StepStart, begin_safely


class CompositeRecorder(Recorder):
    """Forwards to several recorders; one that raises does not affect the others."""

    def __init__(self, *recorders: Recorder) -> None:
        self._recorders = recorders

    def begin_step(self, start: StepStart) -> StepHandle:
        return begin_safely(start, *self._recorders)


@dataclass(slots=True)
class RecordedStep:
    """One call, as `InMemoryRecorder` saw it."""

    start: StepStart
    """The start."""
    retries: list[StepRetry] = field(default_factory=list[StepRetry])
    """The attempts that failed and were repeated, in order."""
    chunk_gaps_s: list[float] = field(default_factory=list[float])
    """Seconds between the pieces of a stream, in order."""
    end: StepEnd | None = None
    """The end; `None` while the call runs."""


class InMemoryRecorder(Recorder):
    """Keeps every call in `steps`, in the order they began: for tests and notebooks."""

    def __init__(self) -> None:
        self.steps: list[RecordedStep] = []

    def begin_step(self, start: StepStart) -> StepHandle:
        step = RecordedStep(start)
        self.steps.append(step)
        return _InMemoryHandle(step)


class _InMemoryHandle(StepHandle):
    __slots__ = ("_step",)

    def __init__(self, step: RecordedStep) -> None:
        self._step = step

    def retry(self, retry: StepRetry) -> None:
        self._step.retries.append(retry)

    def next_chunk(self, gap_s: float, response_model: str | None) -> None:
        self._step.chunk_gaps_s.append(gap_s)

    def end(self, end: StepEnd) -> None:
        self._step.end = self._step.end or end
