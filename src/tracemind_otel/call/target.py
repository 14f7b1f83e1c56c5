"""What a call goes to: its configuration, its request, and the client that sends it."""

from __future__ import annotations

from dataclasses import dataclass

from ..ai.llm.client import AsyncLLMClient
from ..ai.llm.types import LLMRequest
from ..flows.correlation import current_correlation
from ..recording.port import StepStart
from .config import STEP_TYPE, LLMCallConfig


@dataclass(frozen=True, slots=True)
class CallTarget:
    """One call's configuration, request and client."""

    cfg: LLMCallConfig
    """The caller's configuration."""
    request: LLMRequest
    """The request for the client."""
    client: AsyncLLMClient
    """The client that sends it."""

    @property
    def name(self) -> str:
        """The name of the call in the log."""
        return f"{STEP_TYPE} {self.cfg.provider}/{self.cfg.model}"

    @property
    def provider_name(self) -> str:
        """The provider's name in the price table: the client's, else the configuration's."""
        return str(getattr(self.client, "provider_name", self.cfg.provider)).strip().lower()

    @property
    def priced_name(self) -> str:
        """`provider/model`, by which its cost is summed."""
        return f"{self.provider_name}/{self.request.model}"

    def start(self, flow_id: str, step_id: str, *, is_stream: bool) -> StepStart:
        """The start of the call, for a recorder."""
        return StepStart(
            flow_id=flow_id or current_correlation().flow_id or "",
            step_id=step_id,
            step_type=STEP_TYPE,
            operation=self.client.operation,
            provider=self.client.telemetry_name or self.provider_name,
            model=self.request.model,
            server_address=self.client.server_address,
            server_port=self.client.server_port,
            is_stream=is_stream,
            **self.request.sampling(),
        )
