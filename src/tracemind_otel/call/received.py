"""What has come of a streamed reply, and the ends of its call."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import replace

from ..ai.llm.pricing import warm_up
from ..ai.llm.types import LLMResponse, LLMUsage, ReasoningDelta, StreamEvent, TextDelta, ToolCallDelta
from ..errors import LLMError
from .estimate import CharacterTokenizer, Tokenizer
from .lifecycle import Call
from .result import is_response, partial_result

log = logging.getLogger(__name__)


class Received:
    """What has come of a streamed reply."""

    def __init__(self, call: Call, tokenizer: Tokenizer) -> None:
        self.call = call
        self.events: list[StreamEvent] = []
        self.so_far: Callable[[], LLMResponse] | None = None
        self._tokenizer = tokenizer
        self._response_model: str | None = None
        self._last_chunk_s: float | None = None

    @property
    def name(self) -> str:
        """What a warning calls it."""
        return f"the stream of {self.call.target.name}"

    @property
    def has_begun(self) -> bool:
        """Whether a chunk has come."""
        return self._last_chunk_s is not None

    def note_chunk(self) -> None:
        """Note that a chunk has come now."""
        now = time.perf_counter()
        if self._last_chunk_s is None:
            self.call.handle.first_chunk()
            self._note_model()
        else:
            self.call.handle.next_chunk(now - self._last_chunk_s, self._response_model)
        self._last_chunk_s = now

    def _note_model(self) -> None:
        """Note the model that answers, and look for its price: at an early end nothing can be awaited."""
        reported = self._reported()
        if reported is not None and reported.response_model is not None:
            self._response_model = reported.response_model
            warm_up(self.call.target.provider_name, reported.response_model)

    def whole(self, response: LLMResponse) -> LLMResponse:
        """Keep the whole reply; its counts are estimated if the provider reported none."""
        if not response.usage.sanitized().is_known:
            response = replace(response, usage=self._filled(response))
        self.call.reply = response
        return response

    def failed(self, error: LLMError) -> None:
        """End the call in an error, with what had come."""
        partial = self._partial()
        usage = None if partial is None else self.call.account.priced_now(partial)
        self.call.failed(error, also=partial_result(partial, usage), response=partial, usage=usage)

    def interrupted(self, ended_ns: int) -> None:
        """End the call as cancelled, with what had come."""
        self.call.reply = self._partial()
        self.call.interrupted(ended_ns)

    def close(self, ended_ns: int | None = None) -> None:
        """End the call without an error, because its reader closed or dropped the stream."""
        partial = self._partial() or LLMResponse("", LLMUsage())
        usage = self.call.account.priced_now(partial)
        self.call.succeeded(partial, usage, also={"closed_early": True}, closed_early=True, ended_ns=ended_ns)

    def _partial(self) -> LLMResponse | None:
        """The reply as far as it came, its missing counts estimated; `None` where nothing came."""
        if self.call.reply is not None:
            return self.call.reply
        reported = self._reported()
        if self._last_chunk_s is None and (reported is None or not reported.usage.sanitized().is_known):
            return reported
        said = reported or LLMResponse("", LLMUsage(None, None, None))
        reply = replace(said, text=self._joined(TextDelta), reasoning=self._joined(ReasoningDelta) or None)
        return replace(reply, usage=self._filled(reply))

    def _reported(self) -> LLMResponse | None:
        """The reply so far, if the client can give one; a client that raises does no harm."""
        try:
            reply = None if self.so_far is None else self.so_far()
        except Exception as error:
            log.warning("%s: what came before the end is not known: %s", self.call.target.name, type(error).__name__)
            return None
        return reply if is_response(reply) else None

    def _joined(self, kind: type[TextDelta | ReasoningDelta]) -> str:
        return "".join(event.text for event in self.events if isinstance(event, kind))

    def _filled(self, reply: LLMResponse) -> LLMUsage:
        """The reported usage; what it lacks is estimated by the tokenizer's count."""
        usage = reply.usage.sanitized()
        prompt, completion = (usage.prompt_tokens, usage.completion_tokens) if usage.is_known else (None, None)
        if prompt is not None and completion is not None:
            return usage
        prompt = self._count(self.call.target.request.all_text) if prompt is None else prompt
        completion = self._estimated_output(reply) if completion is None else completion
        total = prompt + completion
        return replace(usage, prompt_tokens=prompt, completion_tokens=completion, total_tokens=total, estimated=True)

    def _estimated_output(self, reply: LLMResponse) -> int:
        arguments = "".join(event.arguments for event in self.events if isinstance(event, ToolCallDelta))
        said = (self._joined(TextDelta) or reply.text, self._joined(ReasoningDelta), arguments)
        return sum(map(self._count, said))

    def _count(self, text: str) -> int:
        """The tokens of a string; a tokenizer that raises does no harm to the call."""
        model = self.call.target.cfg.model
        try:
            return max(0, int(self._tokenizer.count(text, model)))
        except Exception as error:
            names = type(self._tokenizer).__name__, type(error).__name__
            log.warning("%s failed (%s); tokens are estimated by a rule of thumb", *names)
            return CharacterTokenizer().count(text, model)
