"""The published path of the recorder: it lives in `tracemind_otel.recording`."""

from __future__ import annotations

from ..recording.port import Recorder, StepEnd, StepHandle, StepRetry, StepStart, StepStatus
from ..recording.recorders import CompositeRecorder, InMemoryRecorder, RecordedStep

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
