"""Lean reading of streams: most events hold a piece of text, which telemetry does not need.

The decoders here drop such events as bytes, before they are parsed. So a chunk costs little, and a long stream holds
no more memory than a short one. What is kept is read by the providers' own readers: the first events, what names a
finish reason, a usage, an error or an end, and whatever is not known to be a piece. An event that is kept without need
costs time only, so a word that is looked for may also stand in a text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ..ai.llm.providers._chat_reply import ChatReader
from ..ai.llm.providers._sse import EventDecoder, JsonLinesDecoder, ServerSentEvent
from ..ai.llm.providers.anthropic import MessagesReader
from ..ai.llm.providers.cohere import CohereReader
from ..ai.llm.providers.gemini import GeminiReader
from ..ai.llm.providers.ollama import OllamaReader
from ..ai.llm.providers.openai_responses import ResponsesReader
from ..ai.llm.providers.text_completions import CompletionReader, GenerateReader

_ERROR = b'"error"'
_PADDING = b'"obfuscation":"'


@dataclass(frozen=True, kw_only=True, slots=True)
class Rules:
    """Which events of a format are kept; each field holds bytes to look for."""

    piece: bytes
    """In each event that may be dropped."""
    output: tuple[bytes, ...]
    """One of them in each of these that brings output, and so counts as a chunk."""
    telling: tuple[bytes, ...] = ()
    """In events that are kept."""
    unless_null: tuple[bytes, ...] = (_ERROR,)
    """Names, in events that are kept unless the value is null."""
    unless_zero: tuple[bytes, ...] = ()
    """Names, in events that are kept unless the value is zero."""
    usage: bytes | None = None
    """The name of running totals, of which the latest counts; `None` where a piece never has any."""
    text: tuple[bytes, ...] = ()
    """Names of the strings that alone differ between most pieces; none where something else differs too."""


_CHOICE = b'"index"'
"""The number of a choice; a reply of several is over when each has its finish reason."""

_CHAT = Rules(
    piece=b'"choices"',
    output=(b'"delta"',),
    telling=(b"chat.completion.done", b'"base_resp"'),
    unless_zero=(_CHOICE,),
    unless_null=(b'"finish_reason"', _ERROR),
    usage=b'"usage"',
    text=(b'"content":', b'"reasoning_content":', b'"reasoning":', b'"arguments":'),
)
_OLLAMA = Rules(piece=b'"done"', output=(b'"message"',), telling=(b'"done":true', b'"done": true'))

RULES: dict[type, Rules] = {
    ChatReader: _CHAT,
    CompletionReader: replace(_CHAT, output=(b'"text"', b'"delta"'), text=(b'"text":', b'"content":')),
    MessagesReader: Rules(
        piece=b"content_block_delta",
        output=(b'"text_delta"', b'"thinking_delta"', b'"input_json_delta"'),
        text=(b'"text":', b'"thinking":', b'"partial_json":'),
    ),
    ResponsesReader: Rules(piece=b".delta", output=(b".delta",), telling=(b'"response":',)),
    GeminiReader: Rules(
        piece=b'"candidates"',
        output=(b'"parts"',),
        telling=(b'"promptFeedback"', b'"groundingMetadata"'),
        unless_zero=(_CHOICE,),
        unless_null=(b'"finishReason"', _ERROR),
        usage=b'"usageMetadata"',
    ),
    CohereReader: Rules(
        piece=b'"delta"',
        output=(b"-delta",),
        telling=(b"message-", b"-start"),
        text=(b'"text":',),
    ),
    OllamaReader: _OLLAMA,
    GenerateReader: replace(_OLLAMA, output=(b'"response"',)),
}


@dataclass(frozen=True, slots=True)
class Pattern:
    """A piece without its text: one that differs in nothing else needs no search for any word, which takes longer."""

    before: bytes
    """All that is before the text."""
    after: bytes
    """All that follows it, or all up to the padding."""
    has_padding: bool
    """Whether a string of random letters ends the piece, as OpenAI's do."""

    @classmethod
    def of(cls, piece: bytes, names: Sequence[bytes]) -> Pattern | None:
        """The pattern of a piece; `None` if it has no text under these names, or one with a quotation mark."""
        for name in names:
            _, found, value = piece.partition(name)
            gap, quote, rest = value.partition(b'"')
            text, end, after = rest.partition(b'"')
            if found and quote and end and not gap.strip() and not text.endswith(b"\\"):
                kept, padding, _ = (end + after).partition(_PADDING)
                return cls(piece[: len(piece) - len(text + end + after)], kept + padding, bool(padding))
        return None

    def fits(self, event: bytes) -> bool:
        """Whether an event is such a piece."""
        if not event.startswith(self.before):
            return False
        text_end = event.find(b'"', len(self.before))
        if not event.startswith(self.after, text_end):
            return False
        end = text_end + len(self.after)
        return event.find(b'"', end) == len(event) - 2 if self.has_padding else end == len(event)


class Sieve:
    """Tells the events of one stream that are kept from those that are dropped.

    Args:
        rules: those of the format.
        separator: what stands between two events.
    """

    def __init__(self, rules: Rules, separator: bytes) -> None:
        self._rules = rules
        self._separator = separator
        self.is_open = True
        """Whether every event is kept, as at the start and at the end of a stream."""
        self.has_output = False
        """Whether output was dropped since this was last set to false."""
        self._totals = b""
        """The latest event with running totals, if it is not read yet."""
        self._named_totals = 0
        self._dropped = b""
        """The last event, if it was dropped."""
        self._pattern: Pattern | None = None

    def drops(self, event: bytes) -> bool:
        """Whether this is one piece, like one before."""
        if self.is_open or self._pattern is None or not self._pattern.fits(event):
            return False
        self._dropped, self.has_output = event, True
        return True

    def kept(self, events: bytes) -> bytes:
        """The events that are kept of these whole ones."""
        if self.is_open:
            return events
        if self._separator not in events:
            return self._separator.join(self._sifted(events))
        return self._separator.join([kept for event in events.split(self._separator) for kept in self._sifted(event)])

    def _sifted(self, event: bytes) -> Sequence[bytes]:
        if self.drops(event):
            return ()
        if not self._is_piece(event):
            self._dropped = b""
            return (*self._take_totals(), event)
        has_output = any(word in event for word in self._rules.output)
        self.has_output = self.has_output or has_output
        if self._rules.usage is not None and not _is_always(self._rules.usage, b"null", event):
            return self._replace_totals(event, self._rules.usage)
        self._dropped = event
        if has_output:
            self._pattern = Pattern.of(event, self._rules.text) or self._pattern
        return ()

    def _is_piece(self, event: bytes) -> bool:
        """Whether an event brings output and nothing else but, perhaps, totals."""
        rules = self._rules
        if not event.endswith(b"}") or rules.piece not in event:
            return False
        for word in rules.telling:
            if word in event:
                return False
        if not all(_is_always(name, b"null", event) for name in rules.unless_null):
            return False
        return all(_is_always(name, b"0", event) for name in rules.unless_zero)

    def _replace_totals(self, event: bytes, usage: bytes) -> Sequence[bytes]:
        """Hold an event with totals. The one before is kept if it names more of them, since these stay in force."""
        named = event.count(b'":', event.rfind(usage))
        before = self._take_totals() if self._named_totals > named else ()
        self._totals, self._named_totals, self._dropped = event, named, b""
        return before

    def _take_totals(self) -> Sequence[bytes]:
        totals, self._totals, self._named_totals = self._totals, b"", 0
        return (totals,) if totals else ()

    def held(self) -> bytes:
        """What is read when no more comes: the latest totals, and the last event, which may say why."""
        held = (*self._take_totals(), self._dropped)
        self._dropped = b""
        return self._separator.join(filter(None, held))


def _is_always(name: bytes, value: bytes, event: bytes) -> bool:
    """Whether a name has no other value than this in an event."""
    count = event.count(name)
    if not count:
        return True
    count -= event.count(name + b":" + value)
    return not count or count == event.count(name + b": " + value)


class LeanEvents(EventDecoder):
    """Decodes those server-sent events that are kept."""

    def __init__(self, rules: Rules) -> None:
        super().__init__()
        self.sieve = Sieve(rules, self._ending)

    def drops(self, data: bytes) -> bool:
        """Whether these bytes are one whole piece, like one before: nobody needs to read them."""
        is_whole = data.endswith(self._ending) and self._rest == [b""] and not self._ignore_newline
        return is_whole and self.sieve.drops(data[: -len(self._ending)])

    def _events_in(self, parts: bytes) -> list[ServerSentEvent]:
        kept = self.sieve.kept(parts)
        return super()._events_in(kept) if kept else []

    def _events_in_line(self, line: bytes) -> list[ServerSentEvent]:
        return self._events_in(line)

    def end(self) -> list[ServerSentEvent]:
        """The events that were held, and the last one if the stream ended without its ending."""
        held = super()._events_in(self.sieve.held())
        self.sieve.is_open = True
        return [*held, *super().end()]


class LeanLines(JsonLinesDecoder):
    """Decodes those lines of JSON that are kept."""

    def __init__(self, rules: Rules) -> None:
        super().__init__()
        self.sieve = Sieve(rules, self._ending)

    def drops(self, data: bytes) -> bool:
        """Whether these bytes are one whole piece, like one before: nobody needs to read them."""
        is_whole = data.endswith(self._ending) and self._rest == [b""] and not self._ignore_newline
        return is_whole and self.sieve.drops(data[: -len(self._ending)])

    def _events_in(self, parts: bytes) -> list[ServerSentEvent]:
        kept = self.sieve.kept(parts)
        return super()._events_in(kept) if kept else []

    def end(self) -> list[ServerSentEvent]:
        """The lines that were held, and the last one if the stream ended without its ending."""
        held = super()._events_in(self.sieve.held())
        self.sieve.is_open = True
        return [*held, *super().end()]
