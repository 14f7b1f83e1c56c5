"""What one call used and what it cost."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass
from decimal import Decimal
from typing import Any, Literal

CostSource = Literal["provider", "local", "override"]
"""The source of a cost: the reply itself, the price table, or the user's own prices."""


@dataclass(frozen=True)
class LLMUsage:
    """What one call used, as the provider reported it, and what that cost.

    `None` means that the provider did not report a figure, which is not zero. A field that names a modality, a cache
    or a tool counts a part of `prompt_tokens` or `completion_tokens`, never tokens beside them. Fields after
    `estimated` have the names of the usage keys of `genai-prices` (`genai_prices.data_units`); the exception is
    `reasoning_tokens`, which it calls `output_reasoning_tokens`.
    """

    prompt_tokens: int | None = 0
    """Input tokens, including those read from or written to a cache."""
    completion_tokens: int | None = 0
    """Output tokens, including reasoning tokens."""
    total_tokens: int | None = 0
    """Input and output tokens together, as the provider counts them."""
    cost_usd: float | None = None
    """USD for the whole call; `None` when the price is unknown."""
    _: KW_ONLY
    cost_source: CostSource | None = None
    """The source of `cost_usd`; `None` when there is no cost."""
    cache_read_tokens: int | None = None
    """The part of `prompt_tokens` read from a cache."""
    cache_write_tokens: int | None = None
    """The part of `prompt_tokens` written to a cache, for any lifetime."""
    reasoning_tokens: int | None = None
    """The part of `completion_tokens` spent on reasoning."""
    estimated: bool = False
    """Whether some counts were estimated by this library because the provider reported none."""
    cache_write_5m_tokens: int | None = None
    """The part of `cache_write_tokens` kept for five minutes."""
    cache_write_1h_tokens: int | None = None
    """The part of `cache_write_tokens` kept for one hour."""
    input_text_tokens: int | None = None
    """Input tokens of text."""
    input_audio_tokens: int | None = None
    """Input tokens of audio."""
    input_image_tokens: int | None = None
    """Input tokens of images."""
    input_video_tokens: int | None = None
    """Input tokens of video."""
    input_tool_tokens: int | None = None
    """Input tokens added by the provider's own tools, such as pages found by a search."""
    cache_text_read_tokens: int | None = None
    """The part of `cache_read_tokens` that is text."""
    cache_audio_read_tokens: int | None = None
    """The part of `cache_read_tokens` that is audio."""
    cache_image_read_tokens: int | None = None
    """The part of `cache_read_tokens` that is images."""
    cache_video_read_tokens: int | None = None
    """The part of `cache_read_tokens` that is video."""
    output_text_tokens: int | None = None
    """Output tokens of text."""
    output_audio_tokens: int | None = None
    """Output tokens of audio."""
    output_image_tokens: int | None = None
    """Output tokens of images."""
    output_video_tokens: int | None = None
    """Output tokens of video."""
    output_citation_tokens: int | None = None
    """Output tokens of citations."""
    input_characters: int | None = None
    """Characters of input, for providers that charge by the character."""
    input_text_messages: int | None = None
    """Messages of input, for providers that charge by the message."""
    input_document_pages: int | None = None
    """Pages of documents in the input."""
    input_annotated_document_pages: int | None = None
    """Pages of documents in the input that were also annotated."""
    audio_seconds: float | None = None
    """Seconds of audio, where the provider does not separate input from output."""
    input_audio_seconds: float | None = None
    """Seconds of audio in the input."""
    output_audio_seconds: float | None = None
    """Seconds of audio in the output."""
    web_searches: int | None = None
    """Web searches made by the provider."""
    social_searches: int | None = None
    """Searches of social networks made by the provider."""
    storage_searches: int | None = None
    """Searches of stored files made by the provider."""
    code_executions: int | None = None
    """Code executions made by the provider."""
    rerank_searches: int | None = None
    """Rerank searches made by the provider."""
    billed_input_tokens: int | None = None
    """Input tokens charged, for providers that count them apart from those used (Cohere)."""
    billed_output_tokens: int | None = None
    """Output tokens charged, for the same providers."""
    input_cost_usd: float | None = None
    """The part of `cost_usd` for input; `None` when only the whole is known."""
    cached_cost_usd: float | None = None
    """The part of `input_cost_usd` for tokens read from a cache; `None` when it is not known apart."""
    output_cost_usd: float | None = None
    """The part of `cost_usd` for output; `None` when only the whole is known."""
    fees_usd: float | None = None
    """The part of `cost_usd` charged by the request, the search and the like; `None` when only the whole is known."""
    cost_table: str | None = None
    """Version or date of the price data behind `cost_usd`, or `override`; `None` for a cost taken from the reply."""
    cost_partial: tuple[str, ...] = ()
    """What has no rate of its own in `cost_usd`: names of fields here, or conditions such as `speed=fast`."""

    @classmethod
    def of_reply(
        cls, prompt_tokens: int | None, completion_tokens: int | None, total_tokens: int | None, **parts: Any
    ) -> LLMUsage:
        """The usage that a reply reports; a part that is `None` counts as absent.

        Only reported fields are stored on the instance. The others have the class's defaults, so that a call does
        not set forty fields.
        """
        _check_names(parts, _DEFAULTS)
        usage = object.__new__(LLMUsage)
        held = vars(usage)
        held.update(prompt_tokens=prompt_tokens, completion_tokens=completion_tokens, total_tokens=total_tokens)
        held.update({name: value for name, value in parts.items() if value is not None})
        return usage

    def with_cost(self, cost_usd: float | None, cost_source: CostSource | None, **parts: Any) -> LLMUsage:
        """The same usage at a price; `parts` are the other fields of a cost, such as `fees_usd`."""
        _check_names(parts, _NO_COST)
        return self._changed({**_NO_COST, "cost_usd": cost_usd, "cost_source": cost_source, **parts})

    def priced(self, cost: Mapping[str, Any]) -> LLMUsage:
        """The same usage with all the fields of a cost, by name; for every call, so their names are not checked."""
        return self._changed(cost)

    @property
    def billable(self) -> LLMUsage:
        """The usage to price: the charged counts, where the provider reports them apart."""
        billed_input, billed_output = self.billed_input_tokens, self.billed_output_tokens
        if billed_input is None and billed_output is None:
            return self
        return LLMUsage(
            self.prompt_tokens if billed_input is None else billed_input,
            self.completion_tokens if billed_output is None else billed_output,
            None,
        )

    def sanitized(self) -> LLMUsage:
        """The same usage without impossible figures: counts and costs that are not numbers, negative or infinite.

        Clients of third parties report usage too, and one such value would spoil every sum it is added to.
        """
        changes: dict[str, Any] = {}
        for name, value in vars(self).items():
            if value is None or (type(value) is int and 0 <= value < _MAX_COUNT and name not in _AMOUNTS):
                continue  # nearly every figure, without a call for it
            if name in _SOUND and (sound := _SOUND[name](value)) is not value:
                changes[name] = sound
        if "cost_usd" in changes and changes["cost_usd"] is None:
            changes["cost_source"] = None
        return self._changed(changes) if changes else self

    def as_dict(self) -> dict[str, Any]:
        """Every field, as plain values that JSON can hold."""
        return {**_DEFAULTS, **vars(self), "cost_partial": list(self.cost_partial)}

    def _changed(self, changes: Mapping[str, Any]) -> LLMUsage:
        # `dataclasses.replace` takes ten times as long for this many fields, and every call is priced.
        changed = object.__new__(LLMUsage)
        vars(changed).update(vars(self))
        vars(changed).update(changes)
        return changed

    @property
    def is_known(self) -> bool:
        """Whether any tokens were counted: a reply without usage is unknown, not zero."""
        return bool(self.prompt_tokens or self.completion_tokens)

    @property
    def is_whole(self) -> bool:
        """Whether input and output were both counted: the price of one is not the price of the call."""
        return self.is_known and self.prompt_tokens is not None and self.completion_tokens is not None


def _check_names(parts: Mapping[str, Any], known: Mapping[str, Any]) -> None:
    if unknown := parts.keys() - known.keys():
        raise TypeError(f"LLMUsage has no field {', '.join(sorted(unknown))} here; allowed are {', '.join(known)}")


_MAX_COUNT = 2**53
"""No count is as large."""


def _sound_count(value: object) -> int | None:
    return value if type(value) is int and 0 <= value < _MAX_COUNT else None


def _sound_amount(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (float, int, Decimal)):
        return None
    try:
        amount = float(value)
    except (OverflowError, ValueError):  # an int that is too large, a signalling NaN
        return None
    return amount if 0.0 <= amount < float("inf") else None


_DEFAULTS = vars(LLMUsage())
_NO_FIGURES = frozenset({"cost_source", "cost_table", "cost_partial", "estimated"})
_AMOUNTS = frozenset(name for name in _DEFAULTS.keys() - _NO_FIGURES if name.endswith(("_usd", "_seconds")))
_SOUND: Mapping[str, Callable[[object], Any]] = {
    name: _sound_amount if name in _AMOUNTS else _sound_count for name in _DEFAULTS.keys() - _NO_FIGURES
}
"""The check for each field that holds a figure: amounts need not be whole, counts must be."""
_NO_COST = {
    name: _DEFAULTS[name]
    for name in ("input_cost_usd", "cached_cost_usd", "output_cost_usd", "fees_usd", "cost_table", "cost_partial")
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportedCost:
    """A cost in USD that the reply names itself; only from providers whose unit is documented or declared."""

    usd: float | None
    """USD for the whole call; `None` where the reply names at most a fee beside it (`fees_usd`), as a gateway does when
    it uses the user's own key. The table's price is added to such a fee."""
    is_declared: bool = False
    """Whether the user or the preset declared the unit. Only then is zero accepted as a price."""
    input_usd: float | None = None
    """The part of `usd` for input, if reported."""
    output_usd: float | None = None
    """The part of `usd` for output, if reported."""
    fees_usd: float | None = None
    """The part of `usd` for requests, searches and the gateway itself, if reported."""
    partial: tuple[str, ...] = ()
    """Parts of the cost that the reply leaves out: `fees_usd`, where a gateway does not report its fee."""
