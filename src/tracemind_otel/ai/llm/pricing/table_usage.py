"""A call's usage by the names of `genai-prices`, which raises for counts that contradict each other.

Providers report such counts: a part is larger than its whole, or the overlap of two parts (audio read from a cache) is
missing. Each part is limited to the rest of its whole, and the least overlap is assumed.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import fields
from typing import Any

from ..usage import LLMUsage

FIELD_OF_USAGE_KEY = {
    "input_tokens": "prompt_tokens",
    "output_tokens": "completion_tokens",
    "output_reasoning_tokens": "reasoning_tokens",
}
"""The fields of `LLMUsage` that `genai-prices` names differently, by its names."""
USAGE_KEY_OF_FIELD = {field: key for key, field in FIELD_OF_USAGE_KEY.items()}

_USAGE_FIELDS = frozenset(field.name for field in fields(LLMUsage))


def field_of_unit(name: str) -> str | None:
    """The field of `LLMUsage` for a unit of `genai-prices`; `None` if it has none."""
    field = FIELD_OF_USAGE_KEY.get(name, name)
    return field if field in _USAGE_FIELDS else None


_MODALITIES = ("audio", "image", "video", "text")
"""Text comes last: it costs the rate of the whole, so that contradicting counts change the cost least."""
_FEES = ("web_searches", "social_searches", "storage_searches", "code_executions", "rerank_searches")
_OTHER_MEASURES = (
    "input_characters",
    "input_text_messages",
    "input_document_pages",
    "input_annotated_document_pages",
    "audio_seconds",
    "input_audio_seconds",
    "output_audio_seconds",
)
"""Measures that a call can be charged by instead of tokens."""
_NEEDS_RATE = (
    "cache_read_tokens",
    "cache_write_tokens",
    "cache_write_1h_tokens",
    *(f"{side}_{kind}_tokens" for side in ("input", "output") for kind in _MODALITIES[:3]),
    *(f"cache_{kind}_read_tokens" for kind in _MODALITIES[:3]),
    "output_citation_tokens",
    *_OTHER_MEASURES,
    *_FEES,
)
"""Fields with a rate unlike that of their whole. Text, reasoning and tool tokens cost the rate of their whole."""
_PARTS = frozenset(_NEEDS_RATE) | {
    "cache_write_5m_tokens",
    "cache_text_read_tokens",
    "input_text_tokens",
    "input_tool_tokens",
    "output_text_tokens",
}
"""Fields that a price may have a rate for, beside input, output and reasoning."""


def used_parts(usage: LLMUsage) -> frozenset[str]:
    """The fields with a count above zero, beside input, output and reasoning."""
    return frozenset([name for name, count in vars(usage).items() if count and name in _PARTS])


def unpriced_parts(used: Collection[str], priced: frozenset[str]) -> tuple[str, ...]:
    """The used parts that need a rate of their own and have none among `priced`."""
    if priced.issuperset(used):
        return ()
    return tuple(name for name in _NEEDS_RATE if name in used and name not in priced)


def has_other_measure(usage: LLMUsage) -> bool:
    """Whether a count is charged by another measure than tokens."""
    return not used_parts(usage).isdisjoint((*_OTHER_MEASURES, *_FEES))


def is_charged_otherwise(used: Collection[str], priced: Collection[str]) -> bool:
    """Whether the call is charged by the second, page, character or the like, so that tokens need no rate."""
    return any(name in priced and name in (*_OTHER_MEASURES, "rerank_searches") for name in used)


def table_usage(usage: LLMUsage, priced: Collection[str]) -> tuple[dict[str, int | float], tuple[str, ...]]:
    """The counts of the `priced` fields and of the prompt, and the fields that had to be assumed."""
    counts = {name: max(getattr(usage, name) or 0, 0) for name in priced}
    prompt = counts["prompt_tokens"] = max(usage.prompt_tokens or 0, 0)
    _fit_caches(counts, prompt, usage)
    assumed = _fit_input(counts, prompt, usage)
    left = max(usage.completion_tokens or 0, 0)
    for name in ("reasoning_tokens", "output_citation_tokens", *(f"output_{kind}_tokens" for kind in _MODALITIES)):
        left = _take(counts, name, left)
    _fit_seconds_and_pages(counts, usage)
    return counts, assumed


def _take(counts: dict[str, Any], name: str, left: Any) -> Any:
    """Limit a priced count to what is left; returns the rest."""
    if name in counts:
        counts[name] = min(counts[name], left)
        return left - counts[name]
    return left


def _fit_caches(counts: dict[str, Any], prompt: int, usage: LLMUsage) -> None:
    written = (usage.cache_write_5m_tokens or 0) + (usage.cache_write_1h_tokens or 0)
    if usage.cache_write_tokens is None and "cache_write_tokens" in counts:
        counts["cache_write_tokens"] = written
    left = _take(counts, "cache_read_tokens", prompt)
    left = _take(counts, "cache_write_tokens", left)
    _take(counts, "input_tool_tokens", left)
    left = _take(counts, "cache_write_1h_tokens", counts.get("cache_write_tokens", 0))
    _take(counts, "cache_write_5m_tokens", left)


def _fit_input(counts: dict[str, Any], prompt: int, usage: LLMUsage) -> tuple[str, ...]:
    """Fit the counts by modality to those of the cache; returns the overlaps that were not reported."""
    left, read = prompt, counts.get("cache_read_tokens", 0)
    typed = sum(counts.get(name, 0) for name in ("cache_read_tokens", "cache_write_tokens", "input_tool_tokens"))
    for kind in _MODALITIES:
        left = _take(counts, f"input_{kind}_tokens", left)
        both = f"cache_{kind}_read_tokens"
        if both in counts:
            counts[both] = min(counts[both], counts.get(f"input_{kind}_tokens", 0), read)
            read -= counts[both]
    excess = typed + (prompt - left) - prompt - sum(counts.get(f"cache_{kind}_read_tokens", 0) for kind in _MODALITIES)
    return _overlap(counts, excess, read, usage)


def _overlap(counts: dict[str, Any], excess: int, read: int, usage: LLMUsage) -> tuple[str, ...]:
    """Count `excess` tokens, which were counted twice, as cached ones of a modality; cut those that do not fit."""
    assumed = list[str]()
    for kind in _MODALITIES:
        whole, both = f"input_{kind}_tokens", f"cache_{kind}_read_tokens"
        if both not in counts or not counts.get(whole):
            continue
        more = max(0, min(excess, counts[whole] - counts[both], read))
        if more or (getattr(usage, both) is None and counts.get("cache_read_tokens")):
            assumed.append(both)
        counts[both] += more
        excess, read = excess - more, read - more
    for kind in reversed(_MODALITIES):
        whole = f"input_{kind}_tokens"
        cut = max(0, min(excess, counts.get(whole, 0) - counts.get(f"cache_{kind}_read_tokens", 0)))
        if cut:
            counts[whole] -= cut
            excess -= cut
    return tuple(assumed)


def _fit_seconds_and_pages(counts: dict[str, Any], usage: LLMUsage) -> None:
    if "audio_seconds" in counts:
        if usage.audio_seconds is None:
            counts["audio_seconds"] = (usage.input_audio_seconds or 0) + (usage.output_audio_seconds or 0)
        left = _take(counts, "input_audio_seconds", counts["audio_seconds"])
        _take(counts, "output_audio_seconds", left)
    if usage.input_document_pages is None and "input_document_pages" in counts:
        counts["input_document_pages"] = usage.input_annotated_document_pages or 0
    _take(counts, "input_annotated_document_pages", counts.get("input_document_pages", 0))
