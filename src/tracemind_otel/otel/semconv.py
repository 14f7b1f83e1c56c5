"""Every name this package puts into telemetry, and nothing else.

`gen_ai.*` follows the OpenTelemetry GenAI semantic conventions (open-telemetry/semantic-conventions-genai,
read in November 2026, all of stability "development"); `error.type`, `server.*`, `exception.*` and
`http.response.status_code` are stable. `gen_ai.usage.cost` is no convention yet; it is what Langfuse, OpenLIT
and Grafana read. `tracemind.*` is ours: a rename there is a breaking change and goes into the changelog.
"""

from __future__ import annotations

from typing import Final

SCHEMA_URL: Final = "https://opentelemetry.io/schemas/gen-ai/1.42.0"

# --- The call: known at its start ---
GEN_AI_OPERATION_NAME: Final = "gen_ai.operation.name"
GEN_AI_PROVIDER_NAME: Final = "gen_ai.provider.name"
GEN_AI_REQUEST_MODEL: Final = "gen_ai.request.model"
GEN_AI_REQUEST_TEMPERATURE: Final = "gen_ai.request.temperature"
GEN_AI_REQUEST_TOP_P: Final = "gen_ai.request.top_p"
GEN_AI_REQUEST_TOP_K: Final = "gen_ai.request.top_k"
GEN_AI_REQUEST_MAX_TOKENS: Final = "gen_ai.request.max_tokens"
GEN_AI_REQUEST_STOP_SEQUENCES: Final = "gen_ai.request.stop_sequences"
GEN_AI_REQUEST_SEED: Final = "gen_ai.request.seed"
GEN_AI_REQUEST_FREQUENCY_PENALTY: Final = "gen_ai.request.frequency_penalty"
GEN_AI_REQUEST_PRESENCE_PENALTY: Final = "gen_ai.request.presence_penalty"
GEN_AI_REQUEST_REASONING_LEVEL: Final = "gen_ai.request.reasoning.level"
GEN_AI_OUTPUT_TYPE: Final = "gen_ai.output.type"
GEN_AI_REQUEST_STREAM: Final = "gen_ai.request.stream"
SERVER_ADDRESS: Final = "server.address"
SERVER_PORT: Final = "server.port"
TRACEMIND_FLOW_ID: Final = "tracemind.flow.id"
TRACEMIND_FLOW_REVISION: Final = "tracemind.flow.revision"
TRACEMIND_STEP_ID: Final = "tracemind.step.id"
TRACEMIND_STEP_TYPE: Final = "tracemind.step.type"

# --- A request to the trace-mind runtime ---
TRACEMIND_REQUEST_STATUS: Final = "tracemind.request.status"
TRACEMIND_REQUEST_QUEUED_S: Final = "tracemind.request.queued_s"
TRACEMIND_REQUEST_SHARED: Final = "tracemind.request.shared"

# --- The call: known at its end ---
GEN_AI_RESPONSE_ID: Final = "gen_ai.response.id"
GEN_AI_RESPONSE_MODEL: Final = "gen_ai.response.model"
GEN_AI_RESPONSE_FINISH_REASONS: Final = "gen_ai.response.finish_reasons"
GEN_AI_RESPONSE_TIME_TO_FIRST_CHUNK: Final = "gen_ai.response.time_to_first_chunk"
GEN_AI_USAGE_INPUT_TOKENS: Final = "gen_ai.usage.input_tokens"
GEN_AI_USAGE_OUTPUT_TOKENS: Final = "gen_ai.usage.output_tokens"
GEN_AI_USAGE_CACHE_READ_INPUT_TOKENS: Final = "gen_ai.usage.cache_read.input_tokens"
GEN_AI_USAGE_CACHE_WRITE_INPUT_TOKENS: Final = "gen_ai.usage.cache_write.input_tokens"
GEN_AI_USAGE_REASONING_OUTPUT_TOKENS: Final = "gen_ai.usage.reasoning.output_tokens"
ERROR_TYPE: Final = "error.type"
HTTP_REQUEST_METHOD: Final = "http.request.method"
HTTP_RESPONSE_STATUS_CODE: Final = "http.response.status_code"
HTTP_ROUTE: Final = "http.route"
TRACEMIND_CANCELLED: Final = "tracemind.cancelled"
TRACEMIND_STREAM_CLOSED_EARLY: Final = "tracemind.stream.closed_early"
"""`true` on a stream, or a generator, whose reader stopped before its end. It is not an error."""
TRACEMIND_INTERRUPTED: Final = "tracemind.interrupted"
"""`true` on a span whose process was killed before the span ended. The process that adopts its spool ends it."""
TRACEMIND_USAGE_ESTIMATED: Final = "tracemind.usage.estimated"

# --- Cost: none of these when the price is unknown ---
GEN_AI_USAGE_COST: Final = "gen_ai.usage.cost"
TRACEMIND_COST_USD: Final = "tracemind.cost_usd"
TRACEMIND_COST_SOURCE: Final = "tracemind.cost.source"
TRACEMIND_COST_BUCKET: Final = "tracemind.cost.bucket"
TRACEMIND_COST_INPUT_USD: Final = "tracemind.cost.input_usd"
TRACEMIND_COST_OUTPUT_USD: Final = "tracemind.cost.output_usd"
TRACEMIND_COST_CACHED_USD: Final = "tracemind.cost.cached_usd"
TRACEMIND_COST_FEES_USD: Final = "tracemind.cost.fees_usd"
"""The parts of the cost, absent where only the whole is known: a bill lists them line by line."""
TRACEMIND_COST_TABLE: Final = "tracemind.cost.table"
"""The version or date of the prices, so that a stored figure can be traced to them."""
TRACEMIND_COST_PARTIAL: Final = "tracemind.cost.partial"
"""What had no price of its own, so that a reader knows where the figure may differ from the bill."""

# --- Cost by the names that the conventions are about to adopt: opt-in `gen_ai_cost` ---
GEN_AI_USAGE_COST_AMOUNT: Final = "gen_ai.usage.cost.amount"
GEN_AI_USAGE_COST_CURRENCY: Final = "gen_ai.usage.cost.currency"
GEN_AI_USAGE_COST_SOURCE: Final = "gen_ai.usage.cost.source"
CURRENCY_USD: Final = "USD"
METRIC_OPERATION_COST: Final = "gen_ai.client.operation.cost"
COST_SOURCES: Final = {"provider": "provider", "local": "local", "override": "local"}
"""Its two values, by those of `tracemind.cost.source`: a cost by the user's own prices is computed here too."""

# --- What a stored call needs to be priced again, where the conventions have no name ---
OPENAI_RESPONSE_SERVICE_TIER: Final = "openai.response.service_tier"
OPENAI_PROVIDERS: Final = frozenset({"openai", "azure.ai.openai"})
"""The values of `gen_ai.provider.name` whose served tier has OpenAI's own attribute."""
TRACEMIND_RESPONSE_SERVICE_TIER: Final = "tracemind.response.service_tier"
RESPONSE_CONDITION_NAMES: Final = {
    "speed": "tracemind.response.speed",
    "processing": "tracemind.response.processing",
    "route": "tracemind.response.route",
    "search_type": "tracemind.response.search_type",
}
"""The conditions of the price table, by its keys."""
USAGE_NAMES: Final = {
    "cache_write_5m_tokens": "tracemind.usage.cache_write_5m.input_tokens",
    "cache_write_1h_tokens": "tracemind.usage.cache_write_1h.input_tokens",
    "input_text_tokens": "tracemind.usage.text.input_tokens",
    "input_audio_tokens": "tracemind.usage.audio.input_tokens",
    "input_image_tokens": "tracemind.usage.image.input_tokens",
    "input_video_tokens": "tracemind.usage.video.input_tokens",
    "input_tool_tokens": "tracemind.usage.tool.input_tokens",
    "cache_text_read_tokens": "tracemind.usage.cache_text_read.input_tokens",
    "cache_audio_read_tokens": "tracemind.usage.cache_audio_read.input_tokens",
    "cache_image_read_tokens": "tracemind.usage.cache_image_read.input_tokens",
    "cache_video_read_tokens": "tracemind.usage.cache_video_read.input_tokens",
    "output_text_tokens": "tracemind.usage.text.output_tokens",
    "output_audio_tokens": "tracemind.usage.audio.output_tokens",
    "output_image_tokens": "tracemind.usage.image.output_tokens",
    "output_video_tokens": "tracemind.usage.video.output_tokens",
    "output_citation_tokens": "tracemind.usage.citation.output_tokens",
    "billed_input_tokens": "tracemind.usage.billed.input_tokens",
    "billed_output_tokens": "tracemind.usage.billed.output_tokens",
    "input_characters": "tracemind.usage.input_characters",
    "input_text_messages": "tracemind.usage.input_text_messages",
    "input_document_pages": "tracemind.usage.input_document_pages",
    "input_annotated_document_pages": "tracemind.usage.input_annotated_document_pages",
    "audio_seconds": "tracemind.usage.audio_seconds",
    "input_audio_seconds": "tracemind.usage.input_audio_seconds",
    "output_audio_seconds": "tracemind.usage.output_audio_seconds",
    "web_searches": "tracemind.usage.web_searches",
    "social_searches": "tracemind.usage.social_searches",
    "storage_searches": "tracemind.usage.storage_searches",
    "code_executions": "tracemind.usage.code_executions",
    "rerank_searches": "tracemind.usage.rerank_searches",
}
"""The fields of `LLMUsage` beside those that the conventions name, so that a stored call can be priced again.

Tokens are named as the conventions name theirs, by the part and then the side (`gen_ai.usage.cache_read.input_tokens`);
whatever else is counted keeps the price table's own key. None of it is under `gen_ai.usage.`: some backends take every
number there for tokens to be added up.
"""

# --- A retry: a span event for each failed attempt that is repeated ---
RETRY_EVENT: Final = "tracemind.retry"
TRACEMIND_RETRY_ATTEMPT: Final = "tracemind.retry.attempt"
TRACEMIND_RETRY_MAX_ATTEMPTS: Final = "tracemind.retry.max_attempts"
TRACEMIND_RETRY_DELAY_S: Final = "tracemind.retry.delay_s"
TRACEMIND_RETRY_REASON: Final = "tracemind.retry.reason"
TRACEMIND_RETRY_COUNT: Final = "tracemind.retry.count"

TRACEMIND_COST_PRESUMED_USD: Final = "tracemind.cost.presumed_usd"
"""On the event of a repeated attempt whose reply was lost, or on the span if it was the last one: their sum is the
counter's. It is no part of `tracemind.cost_usd`, which replies have shown."""

# --- The final failure: a span event ---
EXCEPTION_EVENT: Final = "exception"
EXCEPTION_TYPE: Final = "exception.type"
EXCEPTION_MESSAGE: Final = "exception.message"
EXCEPTION_STACKTRACE: Final = "exception.stacktrace"

# --- Set once, found on every span and log below ---
SESSION_ID: Final = "session.id"
USER_ID: Final = "user.id"
GEN_AI_CONVERSATION_ID: Final = "gen_ai.conversation.id"
TRACEMIND_TAGS: Final = "tracemind.tags"

# --- Flows, agents, tools and steps ---
INVOKE_WORKFLOW: Final = "invoke_workflow"
INVOKE_AGENT: Final = "invoke_agent"
EXECUTE_TOOL: Final = "execute_tool"
OPERATION_EMBEDDINGS: Final = "embeddings"
GEN_AI_WORKFLOW_NAME: Final = "gen_ai.workflow.name"
GEN_AI_AGENT_NAME: Final = "gen_ai.agent.name"
GEN_AI_TOOL_NAME: Final = "gen_ai.tool.name"
GEN_AI_TOOL_TYPE: Final = "gen_ai.tool.type"
TOOL_TYPE_FUNCTION: Final = "function"
TRACEMIND_FLOW_COST_USD: Final = "tracemind.flow.cost_usd"
TRACEMIND_FLOW_PRESUMED_COST_USD: Final = "tracemind.flow.presumed_cost_usd"
TRACEMIND_FLOW_INPUT_TOKENS: Final = "tracemind.flow.input_tokens"
TRACEMIND_FLOW_OUTPUT_TOKENS: Final = "tracemind.flow.output_tokens"
TRACEMIND_FLOW_LLM_CALLS: Final = "tracemind.flow.llm_calls"
TRACEMIND_FLOW_RETRIES: Final = "tracemind.flow.retries"

# --- The same without nested flows: these may be added up over all flows, and nothing is counted twice ---
TRACEMIND_FLOW_OWN_COST_USD: Final = "tracemind.flow.own.cost_usd"
TRACEMIND_FLOW_OWN_PRESUMED_COST_USD: Final = "tracemind.flow.own.presumed_cost_usd"
TRACEMIND_FLOW_OWN_INPUT_TOKENS: Final = "tracemind.flow.own.input_tokens"
TRACEMIND_FLOW_OWN_OUTPUT_TOKENS: Final = "tracemind.flow.own.output_tokens"
TRACEMIND_FLOW_OWN_LLM_CALLS: Final = "tracemind.flow.own.llm_calls"
TRACEMIND_FLOW_OWN_RETRIES: Final = "tracemind.flow.own.retries"

# --- The prompt of a library or registry ---
GEN_AI_PROMPT_NAME: Final = "gen_ai.prompt.name"
GEN_AI_PROMPT_VERSION: Final = "gen_ai.prompt.version"

# --- Counts of calls below a flow: an open proposal (#523), only by opt-in ---
GEN_AI_INVOKE_WORKFLOW_INFERENCE_CALLS: Final = "gen_ai.invoke_workflow.inference_calls"
GEN_AI_INVOKE_WORKFLOW_TOOL_CALLS: Final = "gen_ai.invoke_workflow.tool_calls"

# --- Prompts and answers: only where asked for; JSON on spans, structured values on the event ---
GEN_AI_SYSTEM_INSTRUCTIONS: Final = "gen_ai.system_instructions"
GEN_AI_INPUT_MESSAGES: Final = "gen_ai.input.messages"
GEN_AI_OUTPUT_MESSAGES: Final = "gen_ai.output.messages"
GEN_AI_TOOL_DEFINITIONS: Final = "gen_ai.tool.definitions"
INFERENCE_DETAILS_EVENT: Final = "gen_ai.client.inference.operation.details"
OF_INFERENCE: Final = ("gen_ai.", "server.", "openai.", "error.type")
"""The beginnings of the names that the event shares with its span."""

# --- What a function got and gave: only where asked for; a tool's have names in the conventions ---
GEN_AI_TOOL_CALL_ID: Final = "gen_ai.tool.call.id"
GEN_AI_TOOL_CALL_ARGUMENTS: Final = "gen_ai.tool.call.arguments"
GEN_AI_TOOL_CALL_RESULT: Final = "gen_ai.tool.call.result"
TRACEMIND_FUNCTION_ARGUMENTS: Final = "tracemind.function.arguments"
TRACEMIND_FUNCTION_RESULT: Final = "tracemind.function.result"

# --- A budget: a span event for each threshold that is reached ---
BUDGET_EVENT: Final = "tracemind.budget"
TRACEMIND_BUDGET_NAME: Final = "tracemind.budget.name"
TRACEMIND_BUDGET_KIND: Final = "tracemind.budget.kind"
TRACEMIND_BUDGET_LIMIT: Final = "tracemind.budget.limit"
TRACEMIND_BUDGET_SPENT: Final = "tracemind.budget.spent"
TRACEMIND_BUDGET_FRACTION: Final = "tracemind.budget.fraction"

# --- Metrics that dashboards read today ---
METRIC_TOKEN_USAGE: Final = "gen_ai.client.token.usage"
METRIC_OPERATION_DURATION: Final = "gen_ai.client.operation.duration"
METRIC_OPERATION_TIME_TO_FIRST_CHUNK: Final = "gen_ai.client.operation.time_to_first_chunk"
METRIC_OPERATION_TIME_PER_OUTPUT_CHUNK: Final = "gen_ai.client.operation.time_per_output_chunk"
METRIC_WORKFLOW_DURATION: Final = "gen_ai.invoke_workflow.duration"
METRIC_EMBEDDINGS_DURATION: Final = "gen_ai.client.embeddings.duration"
METRIC_EMBEDDINGS_INPUT_TOKENS: Final = "gen_ai.client.embeddings.operation.input_tokens"
METRIC_AGENT_DURATION: Final = "gen_ai.invoke_agent.duration"
METRIC_AGENT_INFERENCE_CALLS: Final = "gen_ai.invoke_agent.inference_calls"
METRIC_AGENT_TOOL_CALLS: Final = "gen_ai.invoke_agent.tool_calls"
"""On an agent's span, attributes of the same names have the same counts."""
METRIC_TOOL_DURATION: Final = "gen_ai.execute_tool.duration"
GEN_AI_TOKEN_TYPE: Final = "gen_ai.token.type"
TOKEN_TYPE_INPUT: Final = "input"
TOKEN_TYPE_OUTPUT: Final = "output"

# --- Metrics that a preset asks for ---
METRIC_USAGE_COST: Final = "gen_ai.usage.cost"
"""A histogram, as OpenLIT and Grafana's integration read it."""
TOKEN_TYPE_CACHE_READ: Final = "cache_read"
TOKEN_TYPE_CACHE_WRITE: Final = "cache_write"
TOKEN_TYPE_REASONING: Final = "reasoning"
"""Further types of `gen_ai.client.token.usage`, parts of input and output: a sum over all types counts them twice."""
GEN_AI_TOKEN_SEMANTICS: Final = "gen_ai.token.semantics"
TOKEN_SEMANTICS_INCLUSIVE: Final = "inclusive"
"""Says that input includes cached tokens, and output reasoning tokens."""

# --- Metrics by their newest names ---
METRIC_INFERENCE_DURATION: Final = "gen_ai.client.inference.duration"
METRIC_INFERENCE_TIME_TO_FIRST_CHUNK: Final = "gen_ai.client.inference.time_to_first_chunk"
METRIC_INFERENCE_TIME_PER_OUTPUT_CHUNK: Final = "gen_ai.client.inference.time_per_output_chunk"
METRIC_INFERENCE_INPUT_TOKENS: Final = "gen_ai.client.inference.usage.input_tokens"
METRIC_INFERENCE_OUTPUT_TOKENS: Final = "gen_ai.client.inference.usage.output_tokens"
METRIC_INFERENCE_CACHE_READ_TOKENS: Final = "gen_ai.client.inference.usage.cache_read.input_tokens"
METRIC_INFERENCE_CACHE_WRITE_TOKENS: Final = "gen_ai.client.inference.usage.cache_write.input_tokens"
METRIC_INFERENCE_REASONING_TOKENS: Final = "gen_ai.client.inference.usage.reasoning.output_tokens"
METRIC_INFERENCE_OPERATION_INPUT_TOKENS: Final = "gen_ai.client.inference.operation.input_tokens"
METRIC_INFERENCE_OPERATION_OUTPUT_TOKENS: Final = "gen_ai.client.inference.operation.output_tokens"
GEN_AI_TOKEN_MODALITY: Final = "gen_ai.token.modality"
MODALITY_TEXT: Final = "text"
MODALITY_UNKNOWN: Final = "unknown"

# --- Metrics of ours ---
METRIC_LLM_COST: Final = "tracemind.llm.cost"
METRIC_LLM_CALL_COST: Final = "tracemind.llm.call.cost"
METRIC_LLM_RETRIES: Final = "tracemind.llm.retries"
METRIC_LLM_UNPRICED_CALLS: Final = "tracemind.llm.unpriced_calls"
METRIC_LLM_DENIED_CALLS: Final = "tracemind.llm.denied_calls"
"""Calls that a budget denied: they never reached the model, so they are no failures of it."""
METRIC_LLM_CACHE_TOKENS: Final = "tracemind.llm.cache.tokens"
"""Beside `gen_ai.client.token.usage`, whose token types are input and output, so that its sum counts nothing twice."""
TRACEMIND_CACHE_OPERATION: Final = "tracemind.cache.operation"
CACHE_READ: Final = "read"
CACHE_WRITE: Final = "write"
RUNTIME_METRICS: Final = "tracemind.runtime."
"""The beginning of the names of the trace-mind runtime's own metrics."""
METRIC_BUDGET_LIMIT: Final = "tracemind.budget.limit"
METRIC_BUDGET_SPENT: Final = "tracemind.budget.spent"
METRIC_LLM_PRESUMED_COST: Final = "tracemind.llm.presumed_cost"
"""Beside `tracemind.llm.cost`, whose sum is what replies have shown: estimates would spoil it."""
TRACEMIND_COST_KIND: Final = "tracemind.cost.kind"
"""On `tracemind.llm.cost` where it was asked for: `input`, `cached`, `output`, `fee`, or `whole`."""

# --- Names by which other instrumentations tell the same ---
TOLD_INPUT_TOKENS: Final = (GEN_AI_USAGE_INPUT_TOKENS, "gen_ai.usage.prompt_tokens", "llm.token_count.prompt")
TOLD_OUTPUT_TOKENS: Final = (GEN_AI_USAGE_OUTPUT_TOKENS, "gen_ai.usage.completion_tokens", "llm.token_count.completion")
TOLD_CACHE_READ: Final = (
    GEN_AI_USAGE_CACHE_READ_INPUT_TOKENS,
    "gen_ai.usage.cache_read_input_tokens",
    "gen_ai.usage.details.cache_read_tokens",
    "gen_ai.usage.details.cache_read_input_tokens",
    "llm.token_count.prompt_details.cache_read",
)
TOLD_CACHE_WRITTEN: Final = (
    GEN_AI_USAGE_CACHE_WRITE_INPUT_TOKENS,
    "gen_ai.usage.cache_creation.input_tokens",
    "gen_ai.usage.cache_creation_input_tokens",
    "gen_ai.usage.details.cache_write_tokens",
    "gen_ai.usage.details.cache_creation_input_tokens",
    "llm.token_count.prompt_details.cache_write",
)
TOLD_REASONING: Final = (
    GEN_AI_USAGE_REASONING_OUTPUT_TOKENS,
    "gen_ai.usage.reasoning_tokens",
    "gen_ai.usage.details.reasoning_tokens",
    "llm.token_count.completion_details.reasoning",
    "llm.usage.reasoning_tokens",
)
"""Official names first, then older ones, OpenLLMetry's, pydantic-ai's and OpenInference's."""
TOLD_PROVIDER: Final = (GEN_AI_PROVIDER_NAME, "gen_ai.system", "llm.provider", "llm.system")
TOLD_MODEL: Final = (
    GEN_AI_REQUEST_MODEL,
    "llm.request.model_name",
    "llm.model_name",
    "embedding.model_name",
    GEN_AI_RESPONSE_MODEL,
)
TOLD_BY: Final = frozenset({"gen_ai.system", "llm.request.type"})
"""Older attributes that only the span of a model call has."""

# --- Histogram boundaries ---
DURATION_BOUNDARIES_S: Final = tuple(0.01 * 2**power for power in range(14))
"""Seconds, 0.01 to 81.92 (conventions, `gen_ai.client.operation.duration`)."""
TOKEN_BOUNDARIES: Final = tuple(4**power for power in range(14))
"""Tokens, 1 to 67108864 (conventions, `gen_ai.client.token.usage`)."""
WORKFLOW_DURATION_BOUNDARIES_S: Final = (1, 5, 10, 30, 60, 120, 300, 600, 1800, 3600, 7200)
"""Seconds (conventions, `gen_ai.invoke_workflow.duration`)."""
CALLS_BOUNDARIES: Final = tuple(2.0**power for power in range(8))
AGENT_DURATION_BOUNDARIES_S: Final = tuple(0.1 * 2**power for power in range(13))
"""Seconds, 0.1 to 409.6 (conventions, `gen_ai.invoke_agent.duration`)."""
COST_BOUNDARIES_USD: Final = (
    *(digit * 10.0**power for power in range(-6, 1) for digit in (1, 2.5, 5)),
    10.0,
)
"""USD, 0.000001 to 10: with the SDK's own boundaries every call would fall into one bucket."""

_COST_BUCKETS: Final = (
    (0.0001, "lt_0.0001"),
    (0.001, "lt_0.001"),
    (0.01, "lt_0.01"),
    (0.1, "lt_0.1"),
    (1.0, "lt_1"),
    (10.0, "lt_10"),
)


def cost_bucket(cost_usd: float) -> str:
    """The value of `tracemind.cost.bucket`: Jaeger's search compares strings, so "dear calls" need one."""
    return next((name for limit, name in _COST_BUCKETS if cost_usd < limit), "ge_10")
