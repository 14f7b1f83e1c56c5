"""The usage that each provider documents is read completely, and costs what a bill would say."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import genai_prices
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.servers.bedrock_server import frame
from tests.wire.canned import read_reply, read_whole
from tracemind_otel.ai.llm.pricing import price_reply
from tracemind_otel.ai.llm.types import LLMResponse, LLMUsage

NOON = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)

Json = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Use:
    """The tokens of a call; each is in one of these."""

    plain: int = 0
    read: int = 0
    written_5m: int = 0
    written_1h: int = 0
    heard: int = 0
    seen: int = 0
    said: int = 0
    thought: int = 0
    spoken: int = 0
    searched: int = 0

    @property
    def input(self) -> int:
        return self.plain + self.cached + self.heard + self.seen

    @property
    def written(self) -> int:
        return self.written_5m + self.written_1h

    @property
    def cached(self) -> int:
        return self.read + self.written

    @property
    def output(self) -> int:
        return self.said + self.thought + self.spoken

    def usd(self, provider: str, model: str) -> float:
        """The bill, by the library alone."""
        usage = genai_prices.Usage(
            input_tokens=self.input,
            cache_read_tokens=self.read,
            cache_write_tokens=self.written,
            cache_write_5m_tokens=self.written_5m,
            cache_write_1h_tokens=self.written_1h,
            input_audio_tokens=self.heard,
            input_image_tokens=self.seen,
            cache_audio_read_tokens=0,
            cache_image_read_tokens=0,
            output_tokens=self.output,
            output_audio_tokens=self.spoken,
            output_reasoning_tokens=self.thought,
            web_searches=self.searched,
        )
        priced = genai_prices.calc_price(usage, model, provider_id=provider, genai_request_timestamp=NOON)
        return float(priced.total_price)


@dataclass(frozen=True)
class Bill:
    """How a provider reports usage."""

    provider: str
    """The provider whose prices hold."""
    model: str
    """A model that has a price for every part."""
    client: str
    """The provider whose client reads the reply."""
    parts: Sequence[str]
    """The parts of a `Use` that it reports."""
    whole: Callable[[Use, Json], Json]
    """The document of a reply with this usage and head."""
    stream: Callable[[Use], bytes]
    """The bytes of a stream."""


def events(*documents: Json, mark: str = "") -> bytes:
    """Server-sent events, named after their documents' types."""
    named = (f"event: {each['type']}\ndata: {json.dumps(each)}\n\n" if "type" in each else None for each in documents)
    plain = (f"data: {json.dumps(each)}\n\n" for each in documents)
    return ("".join(one or two for one, two in zip(named, plain, strict=True)) + mark).encode()


# --- The OpenAI family


def chat_usage(use: Use) -> Json:
    return {
        "prompt_tokens": use.input,
        "completion_tokens": use.output,
        "total_tokens": use.input + use.output,
        "prompt_tokens_details": {"cached_tokens": use.read, "audio_tokens": use.heard},
        "completion_tokens_details": {"reasoning_tokens": use.thought, "audio_tokens": use.spoken},
    }


def xai_usage(use: Use) -> Json:
    """Reasoning is beside the completion, and both are in the total."""
    return {**chat_usage(use), "completion_tokens": use.said, "num_sources_used": 0}


def deepseek_usage(use: Use) -> Json:
    return {
        "prompt_tokens": use.input,
        "completion_tokens": use.output,
        "total_tokens": use.input + use.output,
        "prompt_cache_hit_tokens": use.read,
        "prompt_cache_miss_tokens": use.input - use.read,
        "completion_tokens_details": {"reasoning_tokens": use.thought},
    }


def litellm_usage(use: Use) -> Json:
    """Claude behind LiteLLM: cache counts are in the prompt, and also beside the details."""
    lifetimes = {"ephemeral_5m_input_tokens": use.written_5m, "ephemeral_1h_input_tokens": use.written_1h}
    return {
        "prompt_tokens": use.input,
        "completion_tokens": use.output,
        "total_tokens": use.input + use.output,
        "cache_read_input_tokens": use.read,
        "cache_creation_input_tokens": use.written,
        "prompt_tokens_details": {
            "cached_tokens": use.read,
            "cache_creation_tokens": use.written,
            "cache_creation_token_details": lifetimes,
        },
    }


def beside_usage(use: Use) -> Json:
    """A gateway to Claude that leaves the cache out of the prompt, and has it in the total."""
    return {
        "prompt_tokens": use.plain,
        "completion_tokens": use.output,
        "total_tokens": use.input + use.output,
        "cache_read_input_tokens": use.read,
        "cache_creation_input_tokens": use.written,
        "cache_creation": {
            "ephemeral_5m_input_tokens": use.written_5m,
            "ephemeral_1h_input_tokens": use.written_1h,
        },
    }


def chat(
    provider: str, model: str, parts: Sequence[str], usage: Callable[[Use], Json] = chat_usage, **more: Any
) -> Bill:
    client = more.get("preset", "openai")

    def whole(use: Use, head: Json) -> Json:
        choice: Json = {"index": 0, "message": {"content": "ok"}, "finish_reason": "stop"}
        return {**head, "choices": [choice], "usage": usage(use)}

    def stream(use: Use) -> bytes:
        """The usage comes last; an earlier chunk has only the input, as some servers send it in every chunk."""
        head = {"id": "c", "model": model}
        delta: Json = {"index": 0, "delta": {"content": "ok"}, "finish_reason": None}
        early = {**usage(Use(plain=1)), "prompt_tokens": 0, "total_tokens": 0}
        end: Json = {"index": 0, "delta": {}, "finish_reason": "stop"}
        chunks: tuple[Json, ...] = (
            {"choices": [delta], "usage": early},
            {"choices": [end]},
            {"choices": [], "usage": usage(use)},
        )
        return events(*({**head, **each} for each in chunks), mark="data: [DONE]\n\n")

    return Bill(provider, model, client, parts, whole, stream)


def responses_document(use: Use, head: Json) -> Json:
    usage = {
        "input_tokens": use.input,
        "input_tokens_details": {"cached_tokens": use.read},
        "output_tokens": use.output,
        "output_tokens_details": {"reasoning_tokens": use.thought},
        "total_tokens": use.input + use.output,
    }
    search = {"type": "web_search_call", "action": {"type": "search"}}
    said = {"type": "message", "content": [{"type": "output_text", "text": "ok"}]}
    return {**head, "status": "completed", "output": [*([search] * use.searched), said], "usage": usage}


def responses_stream(use: Use) -> bytes:
    whole = responses_document(use, {"id": "r", "model": "gpt-5-mini"})
    return events(
        {"type": "response.created", "response": {**whole, "status": "in_progress", "output": [], "usage": None}},
        {"type": "response.output_text.delta", "output_index": 0, "delta": "ok"},
        {"type": "response.completed", "response": whole},
    )


# --- The others


def messages_usage(use: Use) -> Json:
    lifetimes = {"ephemeral_5m_input_tokens": use.written_5m, "ephemeral_1h_input_tokens": use.written_1h}
    return {
        "input_tokens": use.plain + use.seen,
        "cache_read_input_tokens": use.read,
        "cache_creation_input_tokens": use.written,
        "cache_creation": lifetimes,
        "output_tokens": use.output,
        "output_tokens_details": {"thinking_tokens": use.thought},
        "server_tool_use": {"web_search_requests": use.searched, "web_fetch_requests": 0},
        "service_tier": "standard",
    }


def messages_document(use: Use, head: Json) -> Json:
    content = [{"type": "text", "text": "ok"}]
    return {**head, "content": content, "stop_reason": "end_turn", "usage": messages_usage(use)}


def messages_stream(use: Use) -> bytes:
    """The input comes first, with a small output; the end repeats everything but the lifetimes."""
    usage = messages_usage(use)
    start = {**usage, "output_tokens": 1, "output_tokens_details": None, "server_tool_use": None}
    end = {name: value for name, value in usage.items() if name not in ("cache_creation", "service_tier")}
    return events(
        {"type": "message_start", "message": {"id": "m", "model": "claude-sonnet-4-5", "usage": start}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "ok"}},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": end},
        {"type": "message_stop"},
    )


def gemini_document(use: Use, head: Json) -> Json:
    """Zeros are left out, thoughts are beside the candidates, and the total has everything."""
    given = {"TEXT": use.plain + use.read, "AUDIO": use.heard, "IMAGE": use.seen}
    counts = {
        "promptTokenCount": use.input,
        "candidatesTokenCount": use.said,
        "thoughtsTokenCount": use.thought,
        "totalTokenCount": use.input + use.output,
        "cachedContentTokenCount": use.read,
    }
    usage: Json = {name: count for name, count in counts.items() if count}
    usage["promptTokensDetails"] = [{"modality": kind, "tokenCount": n} for kind, n in given.items() if n]
    if use.read:
        usage["cacheTokensDetails"] = [{"modality": "TEXT", "tokenCount": use.read}]
    candidate: Json = {"content": {"parts": [{"text": "ok"}]}, "finishReason": "STOP"}
    if use.searched:
        candidate["groundingMetadata"] = {"webSearchQueries": ["q"] * use.searched}
    return {**head, "candidates": [candidate], "usageMetadata": usage}


def gemini_stream(use: Use) -> bytes:
    """The first chunk has the input and a part of the output."""
    head = {"responseId": "g", "modelVersion": "gemini-3-flash-preview"}
    whole = gemini_document(use, head)
    some = {**whole["usageMetadata"], "candidatesTokenCount": 1, "totalTokenCount": use.input + 1}
    some.pop("thoughtsTokenCount", None)
    first = {**head, "candidates": [{"content": {"parts": [{"text": "o"}]}}], "usageMetadata": some}
    return events(first, whole)


def cohere_document(use: Use, head: Json) -> Json:
    """The used tokens include the template, which is free."""
    usage = {
        "billed_units": {"input_tokens": float(use.input), "output_tokens": float(use.output)},
        "tokens": {"input_tokens": float(use.input), "output_tokens": float(use.output)},
    }
    message = {"role": "assistant", "content": [{"type": "text", "text": "ok"}]}
    return {"id": "c", "message": message, "finish_reason": "COMPLETE", "usage": usage}


def cohere_stream(use: Use) -> bytes:
    usage = cohere_document(use, {})["usage"]
    return events(
        {"type": "message-start", "id": "c"},
        {"type": "content-delta", "index": 0, "delta": {"message": {"content": {"text": "ok"}}}},
        {"type": "message-end", "delta": {"finish_reason": "COMPLETE", "usage": usage}},
    )


def converse_document(use: Use, head: Json) -> Json:
    lifetimes = {"5m": use.written_5m, "1h": use.written_1h}
    usage = {
        "inputTokens": use.plain,
        "outputTokens": use.output,
        "totalTokens": use.input + use.output,
        "cacheReadInputTokens": use.read,
        "cacheWriteInputTokens": use.written,
        "cacheDetails": [{"ttl": ttl, "inputTokens": count} for ttl, count in lifetimes.items()],
    }
    message = {"role": "assistant", "content": [{"text": "ok"}]}
    return {"output": {"message": message}, "stopReason": "end_turn", "usage": usage}


def converse_stream(use: Use) -> bytes:
    whole = converse_document(use, {})
    return (
        frame("event", "contentBlockDelta", {"contentBlockIndex": 0, "delta": {"text": "ok"}})
        + frame("event", "messageStop", {"stopReason": "end_turn"})
        + frame("event", "metadata", {"usage": whole["usage"]})
    )


def ollama_document(use: Use, head: Json) -> Json:
    counts = {"prompt_eval_count": use.input, "eval_count": use.output}
    return {**head, "message": {"content": "ok"}, "done": True, "done_reason": "stop", **counts}


def ollama_stream(use: Use) -> bytes:
    lines = ({"message": {"content": "o"}, "done": False}, ollama_document(use, {"model": "qwen3"}))
    return "".join(json.dumps(line) + "\n" for line in lines).encode()


SIMPLE = ("plain", "said")
CACHED = (*SIMPLE, "read", "thought")
WRITTEN = (*CACHED, "written_5m", "written_1h")
CONVERSE = "anthropic.claude-sonnet-4-5-20250929-v1:0"

BILLS = {
    "chat": chat("openai", "gpt-5-mini", CACHED),
    "chat-audio": chat("openai", "gpt-audio", (*SIMPLE, "heard", "spoken")),
    "xai": chat("x-ai", "grok-4", (*SIMPLE, "read", "thought"), xai_usage, preset="xai"),
    "deepseek": chat("deepseek", "deepseek-chat", CACHED, deepseek_usage, preset="deepseek"),
    "litellm": chat("anthropic", "claude-sonnet-4-5", tuple(set(WRITTEN) - {"thought"}), litellm_usage),
    "beside": chat("anthropic", "claude-sonnet-4-5", tuple(set(WRITTEN) - {"thought"}), beside_usage),
    "responses": Bill(
        "openai",
        "gpt-5-mini",
        "openai_responses",
        (*CACHED, "searched"),
        responses_document,
        responses_stream,
    ),
    "anthropic": Bill(
        "anthropic",
        "claude-sonnet-4-5",
        "anthropic",
        (*WRITTEN, "searched"),
        messages_document,
        messages_stream,
    ),
    "gemini": Bill(
        "google",
        "gemini-3-flash-preview",
        "gemini",
        (*CACHED, "heard", "seen", "searched"),
        gemini_document,
        gemini_stream,
    ),
    "cohere": Bill("cohere", "command-r-plus", "cohere", SIMPLE, cohere_document, cohere_stream),
    "bedrock": Bill(
        "aws",
        CONVERSE,
        "bedrock",
        tuple(set(WRITTEN) - {"thought"}),
        converse_document,
        converse_stream,
    ),
    "ollama": Bill("ollama", "qwen3", "ollama", SIMPLE, ollama_document, ollama_stream),
}


OPTIONS: dict[str, dict[str, Any]] = {"bedrock": {"region": "us-east-1"}}


async def whole_reply(bill: Bill, use: Use) -> LLMResponse:
    names = ("responseId", "modelVersion") if bill.client == "gemini" else ("id", "model")
    head: Json = dict(zip(names, ("x", bill.model), strict=True))
    return await read_whole(bill.client, bill.whole(use, head), **OPTIONS.get(bill.client, {}))


async def streamed_reply(bill: Bill, use: Use, cuts: Sequence[int]) -> LLMResponse:
    """The reply of a stream whose bytes come in pieces."""
    data = bill.stream(use)
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return await read_reply(
        bill.client, *(data[start:end] for start, end in pairwise(edges)), **OPTIONS.get(bill.client, {})
    )


def told(usage: LLMUsage) -> dict[str, int]:
    """The parts of a use in a reply's counts; what was not reported is zero."""
    heard, seen, spoken = usage.input_audio_tokens, usage.input_image_tokens, usage.output_audio_tokens
    cached = (usage.cache_read_tokens or 0) + (usage.cache_write_tokens or 0)
    assert usage.prompt_tokens is not None
    assert usage.completion_tokens is not None
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
    parts = {
        "plain": usage.prompt_tokens - cached - (heard or 0) - (seen or 0),
        "read": usage.cache_read_tokens,
        "written_5m": usage.cache_write_5m_tokens,
        "written_1h": usage.cache_write_1h_tokens,
        "heard": heard,
        "seen": seen,
        "said": usage.completion_tokens - (usage.reasoning_tokens or 0) - (spoken or 0),
        "thought": usage.reasoning_tokens,
        "spoken": spoken,
        "searched": usage.web_searches,
    }
    return {name: count or 0 for name, count in parts.items()}


COUNTS = st.integers(0, 60_000)


@pytest.mark.parametrize("name", BILLS)
@settings(max_examples=60, deadline=None)
@given(st.data())
async def test_what_was_used_is_what_is_told_and_billed(name: str, data: st.DataObject) -> None:
    """Every part of the usage is read, whole and streamed, and the cost is that of the bill."""
    bill = BILLS[name]
    counts = {part: data.draw(st.integers(0, 5) if part == "searched" else COUNTS, part) for part in bill.parts}
    use = Use(**{**counts, "plain": counts["plain"] + 1, "said": counts["said"] + 1})
    whole = await whole_reply(bill, use)
    streamed = await streamed_reply(bill, use, data.draw(st.lists(st.integers(0, 10_000), max_size=4), "cuts"))
    assert told(whole.usage) == told(streamed.usage) == vars(use)
    assert streamed.usage == whole.usage
    if bill.provider != "ollama":  # which has no prices
        for reply in (whole, streamed):
            priced = await price_reply(bill.provider, (bill.model,), reply, at=NOON)
            assert priced.cost_usd == pytest.approx(use.usd(bill.provider, bill.model), rel=1e-12)
            assert set(priced.cost_partial) <= {"input_image_tokens"}, "what has the rate of its whole"
