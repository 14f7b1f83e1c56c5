"""The published path of the recorder: it lives in `tracemind_otel.recording`."""

from __future__ import annotations

from ..recording.composite import CompositeRecorder
from ..recording.in_memory import InMemoryRecorder, RecordedStep
from ..recording.port import Recorder, StepEnd, StepHandle, StepRetry, StepStart, StepStatus

__all__ = [
    "CompositeRecorder",
    "InMemoryRecorder",
    "RecordedStep",
    "Recorder",
    "StepEnd",
    "StepHandle",
    "StepRetry",
    "StepStart",
    "StepStatus",
]
