"""A recorder that forwards to several."""

from __future__ import annotations

import logging
from contextlib import AbstractContextManager, ExitStack

from .port import Recorder, StepEnd, StepHandle, StepRetry, StepStart, begin_safely

log = logging.getLogger(__name__)


class CompositeRecorder(Recorder):
    """Forwards to several recorders; one that raises does not affect the others."""

    def __init__(self, *recorders: Recorder) -> None:
        self._recorders = recorders

    def begin_step(self, start: StepStart) -> StepHandle:
        return _CompositeHandle([begin_safely(recorder, start) for recorder in self._recorders])


class _CompositeHandle(StepHandle):
    __slots__ = ("_handles",)

    def __init__(self, handles: list[StepHandle]) -> None:
        self._handles = handles

    def active(self) -> AbstractContextManager[object]:
        stack = ExitStack()
        for handle in self._handles:
            stack.enter_context(handle.active())
        return stack

    def retry(self, retry: StepRetry) -> None:
        for handle in self._handles:
            handle.retry(retry)

    def first_chunk(self) -> None:
        for handle in self._handles:
            handle.first_chunk()

    def next_chunk(self, gap_s: float, response_model: str | None) -> None:
        for handle in self._handles:
            handle.next_chunk(gap_s, response_model)

    def end(self, end: StepEnd) -> None:
        for handle in self._handles:
            handle.end(end)
