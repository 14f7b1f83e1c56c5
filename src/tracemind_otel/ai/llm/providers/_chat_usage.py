"""The usage and the cost that a Chat Completions reply reports, in each server's spelling.

Sources, as of 2026-11: OpenAI API reference, "The chat completion object"; OpenRouter, "Usage accounting" and "BYOK";
Perplexity API reference, "Chat completions"; xAI, "Cost tracking" and "Reasoning"; DeepSeek, "Context caching"; Groq,
"API reference"; Mistral API reference; LiteLLM, "Response headers"; Alibaba Cloud Model Studio, "Context cache".
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

from ...._base.once import Once
from ..types import LLMResponse, LLMUsage, ReportedCost
from ._dialect import COST_FORMATS, CostFormat
from ._wire_format import cost_of, count_of, mapped, part_of, text_of

log = logging.getLogger(__name__)

_REASONING = ("reasoning_tokens",)
_XAI_TICKS_PER_USD = 10**10


def _modalities_as(field: str) -> tuple[tuple[str, str], ...]:
    """The count of each modality in the details of a whole, and the field of `LLMUsage` for it."""
    return tuple((f"{kind}_tokens", field.format(kind)) for kind in ("text", "audio", "image", "video"))


_INPUT_MODALITIES = _modalities_as("input_{}_tokens")
_OUTPUT_MODALITIES = _modalities_as("output_{}_tokens")
_CACHE_MODALITIES = _modalities_as("cache_{}_read_tokens")


# --- Tokens


def usage_of(
    usage: Mapping[str, Any],
    *,
    hides_output: bool = False,
    counts_apart: bool = False,
    tools: Mapping[str, Any] | None = None,
) -> LLMUsage:
    """Tokens as reported; the count of a part is limited to the count of its whole.

    Args:
        usage: the reply's `usage`.
        hides_output: whether what the total has beyond prompt and completion is known to be output.
        counts_apart: whether reasoning and citations are known to be counted beside the completion.
        tools: the calls of the provider's own tools, where the reply has more about them than its `usage`.
    """
    if tools is None and not counts_apart and (usual := _usual(usage)) is not None:
        return usual
    given, made = mapped(usage.get("prompt_tokens_details")), mapped(usage.get("completion_tokens_details"))
    lifetimes = _lifetimes(usage, given)
    read = _first((usage, _CACHE_READ), (given, _CACHE_READ_DETAILS))
    written = _first((usage, _CACHE_WRITTEN), (given, _CACHE_WRITTEN_DETAILS))
    if not written and lifetimes:
        written = sum(count_of(lifetimes.get(name)) or 0 for name in _LIFETIMES) or written
    reasoning = _first((made, _REASONING), (usage, _REASONING))
    prompt = _input(usage, read or 0, written or 0, reasoning or 0, hides_output=hides_output)
    completion = _output(usage, reasoning, prompt, hides_output=hides_output, counts_apart=counts_apart)
    read = None if read is None else min(read, prompt or 0)
    return LLMUsage.of_reply(
        prompt,
        completion,
        _total(usage, prompt, completion),
        cache_read_tokens=read,
        cache_write_tokens=None if written is None else min(written, max((prompt or 0) - (read or 0), 0)),
        reasoning_tokens=None if reasoning is None else min(reasoning, completion or 0),
        input_audio_seconds=cost_of(usage.get("prompt_audio_seconds")),
        output_citation_tokens=part_of(usage.get("citation_tokens"), completion or 0) if counts_apart else None,
        **(_by_lifetime(lifetimes, written or 0) if lifetimes else {}),
        **_modalities(given, _INPUT_MODALITIES),
        **_modalities(made, _OUTPUT_MODALITIES),
        **_modalities(mapped(given.get("cached_tokens_details")), _CACHE_MODALITIES),
        **(server_tools(usage) if tools is None else tools),
    )


_USUAL = frozenset(
    {"prompt_tokens", "completion_tokens", "total_tokens", "prompt_tokens_details", "completion_tokens_details"}
)
_USUAL_GIVEN = frozenset({"cached_tokens", "audio_tokens"})
_USUAL_MADE = frozenset(
    {"reasoning_tokens", "audio_tokens", "accepted_prediction_tokens", "rejected_prediction_tokens"}
)


def _usual(usage: Mapping[str, Any]) -> LLMUsage | None:
    """The usage as OpenAI reports it, whose counts fit together: in a third of the time. `None` for any other."""
    if not usage.keys() <= _USUAL:
        return None
    prompt, completion = usage.get("prompt_tokens"), usage.get("completion_tokens")
    total: Any = usage.get("total_tokens")
    if type(prompt) is not int or type(completion) is not int or type(total) is not int:
        return None
    if prompt < 0 or completion < 0 or total != prompt + completion or total > _MANY:
        return None
    given, made = mapped(usage.get("prompt_tokens_details")), mapped(usage.get("completion_tokens_details"))
    if not (given.keys() <= _USUAL_GIVEN and made.keys() <= _USUAL_MADE):
        return None
    for details, whole in ((given, prompt), (made, completion)):
        for part in details.values():
            if part is not None and (type(part) is not int or not 0 <= part <= whole):
                return None
    return LLMUsage.of_reply(
        prompt,
        completion,
        total,
        cache_read_tokens=given.get("cached_tokens"),
        reasoning_tokens=made.get("reasoning_tokens"),
        input_audio_tokens=given.get("audio_tokens"),
        output_audio_tokens=made.get("audio_tokens"),
    )


_MANY = 2**50
"""No count is as large."""


def _modalities(details: Mapping[str, Any], fields: tuple[tuple[str, str], ...]) -> dict[str, Any]:
    """The counts by modality in the details of a whole; a modality that is not reported is left out."""
    found: dict[str, Any] = {}
    if details:
        for spelled, field in fields:
            if spelled in details and (count := count_of(details[spelled])) is not None:
                found[field] = count
    return found


_SERVER_TOOLS = {
    "web_searches": ("web_search_requests", "web_search_calls", "SERVER_SIDE_TOOL_WEB_SEARCH"),
    "social_searches": ("x_search_calls", "SERVER_SIDE_TOOL_X_SEARCH"),
    "code_executions": ("code_interpreter_calls", "code_execution_requests", "SERVER_SIDE_TOOL_CODE_EXECUTION"),
    "storage_searches": ("file_search_calls", "SERVER_SIDE_TOOL_COLLECTIONS_SEARCH"),
}
_SERVER_TOOL_NAMES = frozenset(name for names in _SERVER_TOOLS.values() for name in names)
_SERVER_TOOL_PLACES = (
    "server_tool_use",
    "server_tool_use_details",
    "server_side_tool_usage_details",
    "server_side_tool_usage",
    "prompt_tokens_details",
)


def server_tools(usage: Mapping[str, Any]) -> dict[str, Any]:
    """Tools that the provider ran itself and charges for, by the names of OpenRouter, xAI, Perplexity and LiteLLM."""
    counts: dict[str, int] = {}
    for place in _SERVER_TOOL_PLACES:
        if place in usage and (said := mapped(usage.get(place))) and not _SERVER_TOOL_NAMES.isdisjoint(said):
            for field, names in _SERVER_TOOLS.items():
                if (count := _first((said, names))) is not None:
                    counts.setdefault(field, count)
    if (queries := count_of(usage.get("num_search_queries"))) is not None:
        counts.setdefault("web_searches", queries)
    return counts


_CACHE_READ = ("cache_read_input_tokens", "cached_tokens", "prompt_cache_hit_tokens", "num_cached_tokens")
"""Beside the details; the last two are DeepSeek's and Mistral's."""
_CACHE_READ_DETAILS = ("cached_tokens", "cache_read_input_tokens")
_CACHE_WRITTEN = ("cache_creation_input_tokens", "cache_write_input_tokens")
_CACHE_WRITTEN_DETAILS = ("cache_write_tokens", "cache_creation_tokens", "cache_creation_input_tokens")
_LIFETIMES = ("ephemeral_5m_input_tokens", "ephemeral_1h_input_tokens")


def _first(*places: tuple[Mapping[str, Any], Iterable[str]]) -> int | None:
    """The first count above zero under these names, else a zero that was reported."""
    found = None
    for fields, names in places:
        for name in names:
            if name in fields and (count := count_of(fields[name])) is not None:
                if count:
                    return count
                found = count
    return found


def _lifetimes(usage: Mapping[str, Any], given: Mapping[str, Any]) -> Mapping[str, Any]:
    """Cache writes by their time to live: as Anthropic spells them, or in the details as LiteLLM and Alibaba do."""
    if "cache_creation" in usage and (found := mapped(usage["cache_creation"])):
        return found
    return mapped(given.get("cache_creation_token_details")) or mapped(given.get("cache_creation")) if given else {}


def _by_lifetime(lifetimes: Mapping[str, Any], written: int) -> dict[str, Any]:
    return {
        "cache_write_5m_tokens": part_of(lifetimes.get("ephemeral_5m_input_tokens"), written),
        "cache_write_1h_tokens": part_of(lifetimes.get("ephemeral_1h_input_tokens"), written),
    }


def _total(usage: Mapping[str, Any], prompt: int | None, completion: int | None) -> int | None:
    """The total as reported, unless it leaves out the cached part that the prompt does."""
    total = count_of(usage.get("total_tokens")) or None
    if prompt is None or completion is None:
        return total
    is_short = total is not None and total < prompt + completion and prompt != count_of(usage.get("prompt_tokens"))
    return prompt + completion if total is None or is_short else total


def _input(usage: Mapping[str, Any], read: int, written: int, reasoning: int, *, hides_output: bool) -> int | None:
    """The input with its cached part. A proxy in front of Anthropic may leave that out; the total tells."""
    prompt = count_of(usage.get("prompt_tokens"))
    if prompt is None or not read + written:
        return prompt
    beyond = (count_of(usage.get("total_tokens")) or 0) - prompt - (count_of(usage.get("completion_tokens")) or 0)
    # Anthropic's spelling, whose input leaves them out.
    is_beside = "cache_read_input_tokens" in usage or "cache_creation_input_tokens" in usage
    if not is_beside and (hides_output or beyond == reasoning):
        return prompt
    parts = (part for part in (read + written, read, written) if part and beyond in (part, part + reasoning))
    # A part that exceeds its whole is no part of it.
    otherwise = read + written if is_beside and read + written > prompt else 0
    return prompt + next(parts, otherwise)


def _output(
    usage: Mapping[str, Any], reasoning: int | None, prompt: int | None, *, hides_output: bool, counts_apart: bool
) -> int | None:
    """The output with its reasoning, which some servers leave out of the completion but not of the total."""
    completion = count_of(usage.get("completion_tokens"))
    if completion is None:
        return None
    if counts_apart:
        return completion + (reasoning or 0) + (count_of(usage.get("citation_tokens")) or 0)
    hidden = (count_of(usage.get("total_tokens")) or 0) - (prompt or 0) - completion
    if hidden <= 0 or not prompt:
        return completion
    is_output = reasoning == hidden or (hides_output and not reasoning)
    return completion + hidden if is_output else completion


# --- Cost


def reported_cost(usage: Mapping[str, Any], form: CostFormat | None, provider: str) -> ReportedCost | None:
    """The cost that a reply reports, where its unit is documented or declared; any other is ignored and logged once."""
    if form == "xai":
        ticks = count_of(usage.get("cost_in_usd_ticks"))
        return None if ticks is None else ReportedCost(usd=ticks / _XAI_TICKS_PER_USD)
    cost = usage.get("cost")
    if cost is None and not (form == "openrouter" and usage.get("is_byok")):
        return None
    if form is not None and not _is_foreign(usage):
        return _READ[form](usage, cost)
    unknown = "its unit is not documented; pass cost_unit='USD' to the factory if it is USD"
    ignore_cost(provider, unknown if form is None else "it is not in USD")
    return None


def _is_foreign(usage: Mapping[str, Any]) -> bool:
    """Whether the reply itself names another currency, which outweighs any documentation or declaration."""
    named = (mapped(usage.get("cost")).get("currency"), usage.get("cost_currency"), usage.get("currency"))
    return any(currency.strip().upper() != "USD" for value in named if (currency := text_of(value)))


ignored_costs = Once()
"""The servers for which the log has said that the cost in their replies is ignored."""


def ignore_cost(provider: str, why: str) -> None:
    """Log once for each server that the cost in its replies is ignored."""
    if ignored_costs.is_new(provider):
        log.warning("the cost in the replies of %s is ignored: %s", provider, why)


def cost_format(provider: str, cost_unit: str | None) -> CostFormat | None:
    """How a server names its cost: as the user declares (believed for USD alone), else as its provider documents."""
    if cost_unit is None:
        return COST_FORMATS.get(provider.lower())
    if cost_unit.strip().upper() == "USD":
        return "declared"
    ignore_cost(provider, f"it is in {cost_unit.strip()}, and only USD is supported")
    return None


def _openrouter(usage: Mapping[str, Any], cost: object) -> ReportedCost | None:
    """USD; with a key of the user's own it is OpenRouter's fee, beside what the provider charges."""
    usd, details = cost_of(cost), mapped(usage.get("cost_details"))
    given = _sum(details, "upstream_inference_prompt_cost", "upstream_inference_input_cost")
    made = _sum(details, "upstream_inference_completions_cost", "upstream_inference_output_cost")
    if usage.get("is_byok"):
        missing = () if usd is not None else ("fees_usd",)
        if not (upstream := cost_of(details.get("upstream_inference_cost"))):
            return ReportedCost(usd=None, fees_usd=usd, partial=missing)
        whole = upstream + (usd or 0.0)
        return ReportedCost(usd=whole, fees_usd=usd, input_usd=given, output_usd=made, partial=missing)
    if usd is None:
        return None
    is_split = given is not None and made is not None and abs(given + made - usd) <= 1e-9 * max(usd, 1e-9)
    return ReportedCost(usd=usd, input_usd=given, output_usd=made) if is_split else ReportedCost(usd=usd)


def _perplexity(usage: Mapping[str, Any], cost: object) -> ReportedCost | None:
    parts = mapped(cost)
    usd = cost_of(parts.get("total_cost"))
    if usd is None:
        return None
    given = _sum(parts, "input_tokens_cost")
    made = _sum(parts, "output_tokens_cost", "reasoning_tokens_cost", "citation_tokens_cost")
    if given is None or made is None or given + made > usd * (1 + 1e-9):
        return ReportedCost(usd=usd)
    return ReportedCost(usd=usd, input_usd=given, output_usd=made, fees_usd=max(usd - given - made, 0.0))


def _sum(parts: Mapping[str, Any], *names: str) -> float | None:
    known = [value for name in names if (value := cost_of(parts.get(name))) is not None]
    return sum(known) if known else None


def _declared(usage: Mapping[str, Any], cost: object) -> ReportedCost | None:
    """USD, as the user declares."""
    parts = mapped(cost)
    usd = cost_of(parts.get("total_cost") if parts else cost)
    return None if usd is None else ReportedCost(usd=usd, is_declared=True)


_READ: Mapping[CostFormat, Callable[[Mapping[str, Any], object], ReportedCost | None]] = {
    "openrouter": _openrouter,
    "perplexity": _perplexity,
    "declared": _declared,
}


def with_cost_header(response: LLMResponse, headers: Mapping[str, str]) -> LLMResponse:
    """The cost in LiteLLM's header, for a server whose unit is declared. A stream's header comes before its cost."""
    if response.reported_cost is not None:
        return response
    try:
        usd = cost_of(float(headers.get("x-litellm-response-cost", "")))
    except ValueError:
        return response
    is_stream = headers.get("content-type", "").startswith("text/event-stream")
    if usd is None or (is_stream and usd == 0):
        return response
    return replace(response, reported_cost=ReportedCost(usd=usd, is_declared=True))
