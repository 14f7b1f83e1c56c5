"""The signals and protocols of OTLP, and the standard variables that set an option for one signal or for all."""

from __future__ import annotations

import os
from typing import Literal

Protocol = Literal["http/protobuf", "grpc"]
Signal = Literal["traces", "metrics", "logs"]


def otlp_variable(signal: Signal, option: str, prefix: str = "OTEL_EXPORTER_OTLP") -> tuple[str, str]:
    """The name and the value of the variable that sets an option: the signal's own, else that of all signals."""
    own, general = f"{prefix}_{signal.upper()}_{option}", f"{prefix}_{option}"
    value = os.getenv(own, "").strip()
    return (own, value) if value else (general, os.getenv(general, "").strip())
