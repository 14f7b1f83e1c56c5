"""The table of backends: what each reads, what its preset adds, how it is reached.

This is the only module that names attributes of backends. Those of the conventions and ours are in `semconv`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from .. import semconv
from .backend import ANY, Added, Backend, Field, KindRead, Option, Read
from .derived import (
    AGENT,
    ANSWER,
    ANSWER_FORM,
    ARGUMENTS,
    CACHE_READ_TOKENS,
    CACHE_WRITE_TOKENS,
    CONVERSATION,
    COST,
    COST_DETAILS,
    COST_JSON,
    EXCLUSIVE_TOKENS,
    FIRST_CHUNK_AT,
    FLOW_COST,
    FLOW_INPUT_TOKENS,
    FLOW_OUTPUT_TOKENS,
    INPUT_COST,
    LAST_INPUT,
    MODEL,
    OPENINFERENCE_KIND,
    OUTPUT_COST,
    PROVIDER,
    REASONING_TOKENS,
    RESULT,
    RESULT_FORM,
    THREAD,
    WORKFLOW,
    SpanType,
    copied,
    fixed,
)

_BLOCKS: tuple[SpanType, ...] = ("flow", "agent", "tool", "step")
_ALL: tuple[SpanType, ...] = (*_BLOCKS, "call")

# --- Names of GenAI attributes that the conventions have given up, or never had ---

SYSTEM = "gen_ai.system"
CACHE_CREATION = "gen_ai.usage.cache_creation.input_tokens"

# --- What most backends read ---

_INPUT = Read(names=(semconv.GEN_AI_USAGE_INPUT_TOKENS,))
_OUTPUT = Read(names=(semconv.GEN_AI_USAGE_OUTPUT_TOKENS,))
_OWN_PRICES = "it computes a cost of its own, from its own prices and the tokens, and reads none from spans"
_NO_COST = "it has no view of cost"
_NO_USER = "it has no view of users"
_SPAN_NAME = Read(span_name=True)

_USUAL: Mapping[Field, Read] = {
    "model": Read(names=(semconv.GEN_AI_REQUEST_MODEL, semconv.GEN_AI_RESPONSE_MODEL)),
    "input_tokens": _INPUT,
    "output_tokens": _OUTPUT,
    "cache_read": Read(names=(semconv.GEN_AI_USAGE_CACHE_READ_INPUT_TOKENS,)),
    "cache_write": Read(names=(CACHE_CREATION,)),
    "reasoning": Read(names=(semconv.GEN_AI_USAGE_REASONING_OUTPUT_TOKENS,)),
    "cost": Read(names=(semconv.GEN_AI_USAGE_COST,)),
    "session": Read(names=(semconv.GEN_AI_CONVERSATION_ID,)),
    "user": Read(names=(semconv.USER_ID,)),
    "messages": Read(names=(semconv.GEN_AI_OUTPUT_MESSAGES, semconv.GEN_AI_INPUT_MESSAGES)),
    "tool": Read(names=(semconv.GEN_AI_TOOL_NAME,)),
    "error": Read(status=True),
}
_OPERATIONS: Mapping[str, str] = {
    "chat": "model call",
    "text_completion": "model call",
    "generate_content": "model call",
    "embeddings": "model call",
    semconv.EXECUTE_TOOL: "tool",
    semconv.INVOKE_AGENT: "agent",
}
_WITH_WORKFLOWS = {**_OPERATIONS, semconv.INVOKE_WORKFLOW: "workflow"}


def _reads(**others: Read) -> Mapping[Field, Read]:
    usual = cast("Mapping[str, Read]", _USUAL)
    merged: dict[str, Read] = {**usual, **others}
    return cast("Mapping[Field, Read]", merged)


def _unread(why: str) -> Read:
    return Read(note=why)


def _by_operation(known: Mapping[str, str] = _OPERATIONS, *, also: str = "", note: str = "") -> KindRead:
    names = (semconv.GEN_AI_OPERATION_NAME,)
    return KindRead(names=(also, *names) if also else names, known=known, note=note)


_TOKEN_METRIC = semconv.METRIC_TOKEN_USAGE
_CLIENT_METRICS = (_TOKEN_METRIC, semconv.METRIC_OPERATION_DURATION, semconv.METRIC_USAGE_COST)

# --- What several presets add ---

_CACHE_CREATION = Added(name=CACHE_CREATION, value=CACHE_WRITE_TOKENS)
_COST = Added(name=semconv.GEN_AI_USAGE_COST, value=COST)
_CONVERSATION = Added(name=semconv.GEN_AI_CONVERSATION_ID, value=CONVERSATION)
_SYSTEM = Added(name=SYSTEM, value=PROVIDER)
_WORKFLOW = Added(name=semconv.GEN_AI_WORKFLOW_NAME, value=WORKFLOW, on=("tool",))
_AGENT = Added(name=semconv.GEN_AI_AGENT_NAME, value=AGENT, on=("tool",))

_SOURCE_READ = "the backend's source code"
_VENDOR = "the vendor's documentation"
_RUN = "a run of the backend"


JAEGER = Backend(
    name="jaeger",
    title="Jaeger",
    reads=_reads(
        cost=Read(names=(semconv.GEN_AI_USAGE_COST,), note="in the group Other of the tab GenAI"),
        session=Read(
            names=(semconv.GEN_AI_CONVERSATION_ID,),
            note=f"its tab GenAI has `{semconv.GEN_AI_CONVERSATION_ID}`, if a call has one; search for the tag "
            f"`{semconv.SESSION_ID}` otherwise",
        ),
        user=_unread("it has no view of users; the tag `user.id` can be searched for"),
    ),
    kind=_by_operation(_WITH_WORKFLOWS),
    adds=(_CACHE_CREATION, _COST),
    adds_when_sent=(
        Added(name=semconv.GEN_AI_USAGE_COST, value=FLOW_COST, on=("flow",)),
        Added(name=semconv.GEN_AI_USAGE_INPUT_TOKENS, value=FLOW_INPUT_TOKENS, on=("flow",)),
        Added(name=semconv.GEN_AI_USAGE_OUTPUT_TOKENS, value=FLOW_OUTPUT_TOKENS, on=("flow",)),
    ),
    names_reasons=True,
    endpoint="http://localhost:4318",
    notes=(
        "Jaeger itself takes no metrics: send to a Collector, which `docker compose up` starts with it, or set "
        "`OTEL_METRICS_EXPORTER=none`.",
    ),
    source=_SOURCE_READ,
    as_of="2026-08",
)

_OI_KIND = "openinference.span.kind"
_OI_INPUT, _OI_OUTPUT = "input.value", "output.value"
_OI_MIME = "output.mime_type"
_OI_MODEL, _OI_IN_TOKENS, _OI_OUT_TOKENS = "llm.model_name", "llm.token_count.prompt", "llm.token_count.completion"
_OI_KINDS: Mapping[str, str] = {
    "LLM": "model call",
    "EMBEDDING": "embedding",
    "CHAIN": "chain",
    "AGENT": "agent",
    "TOOL": "tool",
    "RETRIEVER": "retriever",
    "RERANKER": "reranker",
    "GUARDRAIL": "guardrail",
    "EVALUATOR": "evaluator",
}
_OI_PROMPT, _OI_COMPLETION = "llm.token_count.prompt_details", "llm.token_count.completion_details"
PHOENIX = Backend(
    name="phoenix",
    title="Arize Phoenix",
    reads=_reads(
        model=Read(names=(_OI_MODEL, semconv.GEN_AI_REQUEST_MODEL)),
        input_tokens=Read(names=(_OI_IN_TOKENS, semconv.GEN_AI_USAGE_INPUT_TOKENS)),
        output_tokens=Read(names=(_OI_OUT_TOKENS, semconv.GEN_AI_USAGE_OUTPUT_TOKENS)),
        cache_read=Read(names=(f"{_OI_PROMPT}.cache_read", semconv.GEN_AI_USAGE_CACHE_READ_INPUT_TOKENS)),
        cache_write=Read(names=(f"{_OI_PROMPT}.cache_write", CACHE_CREATION)),
        reasoning=Read(names=(f"{_OI_COMPLETION}.reasoning",)),
        cost=_unread(f"{_OWN_PRICES}, unless your prices are in its table"),
        session=Read(names=(semconv.SESSION_ID, semconv.GEN_AI_CONVERSATION_ID)),
        messages=Read(
            names=(_OI_OUTPUT, _OI_INPUT, semconv.GEN_AI_OUTPUT_MESSAGES, semconv.GEN_AI_INPUT_MESSAGES),
        ),
        tool=Read(names=("tool.name", semconv.GEN_AI_TOOL_NAME)),
    ),
    kind=KindRead(
        names=(_OI_KIND, semconv.GEN_AI_OPERATION_NAME),
        known={**_OPERATIONS, **_OI_KINDS},
    ),
    adds=(
        Added(name=_OI_KIND, value=fixed("CHAIN"), on=("flow", "step")),
        Added(name=_OI_KIND, value=fixed("AGENT"), on=("agent",)),
        Added(name=_OI_KIND, value=fixed("TOOL"), on=("tool",)),
        Added(name=_OI_KIND, value=OPENINFERENCE_KIND),
        Added(name=_OI_MODEL, value=MODEL),
        Added(name=f"{_OI_PROMPT}.cache_read", value=CACHE_READ_TOKENS),
        Added(name=f"{_OI_PROMPT}.cache_write", value=CACHE_WRITE_TOKENS),
        Added(name=f"{_OI_COMPLETION}.reasoning", value=REASONING_TOKENS),
        Added(name=_OI_INPUT, value=LAST_INPUT),
        Added(name=_OI_OUTPUT, value=ANSWER),
        Added(name=_OI_MIME, value=ANSWER_FORM),
        Added(name=_OI_INPUT, value=ARGUMENTS, on=_BLOCKS),
        Added(name=_OI_OUTPUT, value=RESULT, on=_BLOCKS),
        Added(name=_OI_MIME, value=RESULT_FORM, on=_BLOCKS),
    ),
    resource=("openinference.project.name",),
    endpoint="http://localhost:6006",
    headers=(("authorization", "Bearer%20YOUR_API_KEY"),),
    takes_metrics=False,
    notes=("Without authentication no header is needed.",),
    source=f"{_RUN}: 20.26.1",
    as_of="2026-11-26",
)

_ML_TYPE, _ML_COST = "mlflow.spanType", "mlflow.llm.cost"
MLFLOW = Backend(
    name="mlflow",
    title="MLflow",
    reads=_reads(
        model=Read(names=(_OI_MODEL, semconv.GEN_AI_RESPONSE_MODEL, semconv.GEN_AI_REQUEST_MODEL)),
        input_tokens=Read(names=(_OI_IN_TOKENS, semconv.GEN_AI_USAGE_INPUT_TOKENS)),
        output_tokens=Read(names=(_OI_OUT_TOKENS, semconv.GEN_AI_USAGE_OUTPUT_TOKENS)),
        cache_read=Read(names=(f"{_OI_PROMPT}.cache_read", semconv.GEN_AI_USAGE_CACHE_READ_INPUT_TOKENS)),
        cache_write=Read(
            names=(f"{_OI_PROMPT}.cache_write", semconv.GEN_AI_USAGE_CACHE_WRITE_INPUT_TOKENS, CACHE_CREATION)
        ),
        reasoning=_unread("it keeps no count of reasoning tokens"),
        messages=Read(
            names=(_OI_OUTPUT, _OI_INPUT, semconv.GEN_AI_OUTPUT_MESSAGES, semconv.GEN_AI_INPUT_MESSAGES),
        ),
        tool=_SPAN_NAME,
        cost=Read(names=(f"{_ML_COST}#total_cost",), note=f"without `{_ML_COST}` MLflow computes a cost of its own"),
        session=Read(names=(semconv.SESSION_ID, semconv.GEN_AI_CONVERSATION_ID)),
    ),
    kind=KindRead(
        names=(_ML_TYPE, _OI_KIND, semconv.GEN_AI_OPERATION_NAME),
        known={**_OPERATIONS, **_OI_KINDS, '"CHAIN"': "chain"},
    ),
    adds=(
        Added(name=_ML_TYPE, value=fixed('"CHAIN"'), on=("flow", "step")),
        Added(name=_ML_COST, value=COST_JSON),
    ),
    endpoint="http://localhost:5000",
    headers=(("x-mlflow-experiment-id", "YOUR_EXPERIMENT_ID"),),
    is_http_only=True,
    takes_metrics=False,
    notes=("Its store must be a database; SQLite suffices.",),
    source=f"{_RUN}: 3.17.2",
    as_of="2026-11-26",
)

_LF = "langfuse.observation"
LANGFUSE = Backend(
    name="langfuse",
    title="Langfuse",
    reads=_reads(
        model=Read(
            names=(f"{_LF}.model.name", semconv.GEN_AI_RESPONSE_MODEL, semconv.GEN_AI_REQUEST_MODEL),
        ),
        input_tokens=Read(names=(f"{_LF}.usage_details#input", semconv.GEN_AI_USAGE_INPUT_TOKENS)),
        output_tokens=Read(names=(f"{_LF}.usage_details#output", semconv.GEN_AI_USAGE_OUTPUT_TOKENS)),
        cache_read=Read(names=(f"{_LF}.usage_details#input_cache_read", semconv.GEN_AI_USAGE_CACHE_READ_INPUT_TOKENS)),
        cache_write=Read(names=(f"{_LF}.usage_details#input_cache_creation", CACHE_CREATION)),
        reasoning=Read(names=(f"{_LF}.usage_details#output_reasoning", semconv.GEN_AI_USAGE_REASONING_OUTPUT_TOKENS)),
        cost=Read(names=(f"{_LF}.cost_details#total", semconv.GEN_AI_USAGE_COST)),
        session=Read(names=(semconv.SESSION_ID, "langfuse.session.id", semconv.GEN_AI_CONVERSATION_ID)),
        user=Read(names=(semconv.USER_ID, "langfuse.user.id")),
    ),
    kind=KindRead(
        names=(f"{_LF}.type", semconv.GEN_AI_OPERATION_NAME),
        known={**_OPERATIONS, "chain": "chain", "span": "span", "tool": "tool"},
    ),
    adds=(
        Added(name=f"{_LF}.type", value=fixed("chain"), on=("flow",)),
        Added(name=f"{_LF}.type", value=fixed("span"), on=("step",)),
        Added(name=f"{_LF}.type", value=fixed("tool"), on=("tool",)),
        Added(name="langfuse.trace.name", value=copied(semconv.GEN_AI_WORKFLOW_NAME), on=("flow",)),
        Added(name="langfuse.trace.tags", value=copied(semconv.TRACEMIND_TAGS), on=("flow",)),
        Added(name=f"{_LF}.cost_details", value=COST_DETAILS),
        Added(name=f"{_LF}.usage_details", value=EXCLUSIVE_TOKENS),
        Added(name=f"{_LF}.completion_start_time", value=FIRST_CHUNK_AT),
    ),
    endpoint="https://cloud.langfuse.com/api/public/otel",
    headers=(("authorization", "Basic%20BASE64(PUBLIC_KEY:SECRET_KEY)"),),
    is_http_only=True,
    takes_metrics=False,
    notes=("Input and output are shown without their cached and reasoning parts, which have rows of their own.",),
    source=_SOURCE_READ,
    as_of="2026-08",
)

OPIK = Backend(
    name="opik",
    title="Opik",
    reads=_reads(
        cache_write=Read(names=(semconv.GEN_AI_USAGE_CACHE_WRITE_INPUT_TOKENS, CACHE_CREATION)),
        session=Read(names=("thread_id", semconv.GEN_AI_CONVERSATION_ID)),
        user=_unread(_NO_USER),
        tool=_SPAN_NAME,
    ),
    kind=KindRead(
        names=(semconv.GEN_AI_REQUEST_MODEL, semconv.GEN_AI_RESPONSE_MODEL, semconv.GEN_AI_USAGE_INPUT_TOKENS),
        known={ANY: "model call"},
        note="only a span with a model or tokens is told apart",
    ),
    adds=(
        Added(name="thread_id", value=THREAD, on=_ALL),
        Added(name="opik.tags", value=copied(semconv.TRACEMIND_TAGS), on=("flow",)),
        _COST,
    ),
    leaves_out=("tracemind.",),
    endpoint="https://www.comet.com/opik/api/v1/private/otel",
    headers=(("authorization", "YOUR_API_KEY"), ("comet-workspace", "YOUR_WORKSPACE"), ("projectname", "YOUR_PROJECT")),
    is_http_only=True,
    takes_metrics=False,
    notes=("It lists attributes that it does not know as Input.",),
    source=f"{_SOURCE_READ} and its issues",
    as_of="2026-05",
)

WEAVE = Backend(
    name="weave",
    title="Weave",
    reads=_reads(
        reasoning=Read(names=("gen_ai.usage.reasoning_tokens",)),
        cost=_unread(_OWN_PRICES),
        user=_unread("it reads users only by `wandb.*`"),
        error=Read(status=True),
    ),
    kind=_by_operation(),
    adds=(
        _CACHE_CREATION,
        _CONVERSATION,
        Added(name="gen_ai.usage.reasoning_tokens", value=REASONING_TOKENS),
    ),
    endpoint="https://trace.wandb.ai/otel",
    headers=(("authorization", "Basic%20BASE64(api:YOUR_API_KEY)"), ("project_id", "YOUR_ENTITY/YOUR_PROJECT")),
    is_http_only=True,
    takes_metrics=False,
    source=_SOURCE_READ,
    as_of="2026-08",
)

_LM_SESSION, _LM_USER = "lmnr.association.properties.session_id", "lmnr.association.properties.user_id"
LAMINAR = Backend(
    name="laminar",
    title="Laminar",
    reads=_reads(
        reasoning=_unread("it keeps no count of reasoning tokens"),
        session=Read(names=(_LM_SESSION,)),
        user=Read(names=(_LM_USER,)),
        tool=_SPAN_NAME,
    ),
    kind=KindRead(
        names=("lmnr.span.type", semconv.GEN_AI_OPERATION_NAME),
        known={**_OPERATIONS, "DEFAULT": "general span", "TOOL": "tool"},
    ),
    adds=(
        Added(name="lmnr.span.type", value=fixed("DEFAULT"), on=("flow", "step")),
        Added(name="lmnr.span.type", value=fixed("TOOL"), on=("tool",)),
        Added(name=_LM_SESSION, value=copied(semconv.SESSION_ID, semconv.GEN_AI_CONVERSATION_ID), on=_ALL),
        Added(name=_LM_USER, value=copied(semconv.USER_ID), on=_ALL),
        _SYSTEM,
        _CACHE_CREATION,
        _COST,
        Added(name="gen_ai.usage.input_cost", value=INPUT_COST),
        Added(name="gen_ai.usage.output_cost", value=OUTPUT_COST),
    ),
    endpoint="https://api.lmnr.ai",
    headers=(("authorization", "Bearer%20YOUR_PROJECT_KEY"),),
    takes_metrics=False,
    source=_SOURCE_READ,
    as_of="2026-06",
)

_LS_KIND = "langsmith.span.kind"
LANGSMITH = Backend(
    name="langsmith",
    title="LangSmith",
    reads=_reads(
        reasoning=_unread("its documentation names no count of reasoning tokens"),
        cost=_unread(_OWN_PRICES),
        session=Read(names=("langsmith.trace.session_id",)),
        user=Read(names=("langsmith.metadata.user_id",)),
        tool=_SPAN_NAME,
    ),
    kind=KindRead(
        names=(_LS_KIND, semconv.GEN_AI_OPERATION_NAME),
        known={**_OPERATIONS, "chain": "chain", "tool": "tool", "llm": "model call"},
    ),
    adds=(
        Added(name=_LS_KIND, value=fixed("chain"), on=("flow", "agent", "step")),
        Added(name=_LS_KIND, value=fixed("tool"), on=("tool",)),
        Added(name=_LS_KIND, value=fixed("llm")),
        Added(name="langsmith.trace.name", value=copied(semconv.GEN_AI_WORKFLOW_NAME), on=("flow",)),
        Added(
            name="langsmith.trace.session_id",
            value=copied(semconv.SESSION_ID, semconv.GEN_AI_CONVERSATION_ID),
            on=_ALL,
        ),
        Added(name="langsmith.metadata.thread_id", value=THREAD, on=_ALL),
        Added(name="langsmith.metadata.user_id", value=copied(semconv.USER_ID), on=_ALL),
        _CACHE_CREATION,
    ),
    endpoint="https://api.smith.langchain.com/otel",
    headers=(("x-api-key", "YOUR_API_KEY"), ("langsmith-project", "YOUR_PROJECT")),
    is_http_only=True,
    takes_metrics=False,
    source=f"{_VENDOR} and its SDK's source",
    as_of="2026-08",
)

_SIGNOZ_FIRST = "gen_ai.server.ttft"
_SIGNOZ_COST = "_signoz.gen_ai.total_cost"
SIGNOZ = Backend(
    name="signoz",
    title="SigNoz",
    reads=_reads(
        model=Read(names=(semconv.GEN_AI_REQUEST_MODEL,)),
        cost=_unread(
            "its own Collector computes the cost from price rules, which the open edition needs from you; "
            "`signoz+cost` sends ours"
        ),
        user=_unread("it is not known to read a user"),
        reasoning=_unread("it keeps no count of reasoning tokens"),
    ),
    kind=KindRead(
        names=(semconv.GEN_AI_REQUEST_MODEL, semconv.GEN_AI_TOOL_NAME, semconv.GEN_AI_AGENT_NAME),
        known={
            f"{semconv.GEN_AI_REQUEST_MODEL}={ANY}": "model call",
            f"{semconv.GEN_AI_TOOL_NAME}={ANY}": "tool",
            f"{semconv.GEN_AI_AGENT_NAME}={ANY}": "agent",
        },
    ),
    adds=(
        _CACHE_CREATION,
        _CONVERSATION,
        Added(name=_SIGNOZ_FIRST, value=copied(semconv.GEN_AI_RESPONSE_TIME_TO_FIRST_CHUNK)),
    ),
    options={
        "cost": Option(
            adds=(Added(name=_SIGNOZ_COST, value=COST),),
            reads={"cost": Read(names=(_SIGNOZ_COST,))},
            why="It is a private attribute, which SigNoz's own Collector writes and which may change at any time.",
        )
    },
    endpoint="https://ingest.YOUR_REGION.signoz.cloud",
    headers=(("signoz-ingestion-key", "YOUR_KEY"),),
    notes=(
        "Give its price rules the mode that takes cached tokens as part of the input; its additive mode counts them "
        "twice.",
    ),
    source=f"{_SOURCE_READ} and {_VENDOR}",
    as_of="2026-08",
)

OPENOBSERVE = Backend(
    name="openobserve",
    title="OpenObserve",
    reads=_reads(
        session=Read(names=(semconv.SESSION_ID, semconv.GEN_AI_CONVERSATION_ID)),
        reasoning=_unread("it keeps no count of reasoning tokens"),
        cost=Read(names=(semconv.GEN_AI_USAGE_COST,), note="a cost of 0 is taken for unknown and computed anew"),
    ),
    kind=_by_operation(_WITH_WORKFLOWS),
    adds=(_CACHE_CREATION, _COST),
    endpoint="https://api.openobserve.ai/api/YOUR_ORGANIZATION",
    headers=(("authorization", "Basic%20BASE64(USER:PASSWORD)"), ("stream-name", "default")),
    source=_SOURCE_READ,
    as_of="2026-08",
)

OPENLIT = Backend(
    name="openlit",
    title="OpenLIT",
    reads=_reads(
        model=Read(names=(semconv.GEN_AI_REQUEST_MODEL,)),
        reasoning=_unread("it keeps no count of reasoning tokens"),
        session=_unread("it is not known to read a session"),
        user=_unread(_NO_USER),
        messages=_unread("it reads the content that its own SDK writes"),
        tool=_SPAN_NAME,
    ),
    kind=_by_operation(),
    adds=(_CACHE_CREATION, _COST),
    metrics=_CLIENT_METRICS,
    endpoint="http://localhost:4318",
    source=_SOURCE_READ,
    as_of="2026-08",
)

DATADOG = Backend(
    name="datadog",
    title="Datadog LLM Observability",
    reads=_reads(
        model=Read(names=(semconv.GEN_AI_REQUEST_MODEL,)),
        reasoning=_unread("its documentation names no count of reasoning tokens"),
        cost=_unread(f"{_OWN_PRICES}; the metric `{semconv.METRIC_LLM_COST}` has ours"),
        user=_unread("its documentation names no user"),
    ),
    kind=_by_operation(note="its documentation does not say what it takes a flow for"),
    adds=(_CACHE_CREATION, _CONVERSATION),
    own_headers=(("dd-otlp-source", "llmobs"),),
    headers=(("dd-api-key", "YOUR_API_KEY"),),
    is_http_only=True,
    temporality="delta",
    endpoint="https://otlp.YOUR_DATADOG_SITE",
    notes=("Traces appear there after three to five minutes.", "The application is named after `service.name`."),
    source=_VENDOR,
    as_of="2026-08",
)

GRAFANA = Backend(
    name="grafana",
    title="Grafana Cloud",
    reads=_reads(
        model=Read(names=(semconv.GEN_AI_REQUEST_MODEL,)),
        cache_read=Read(metric=_TOKEN_METRIC, note="its type `cache_read`"),
        cache_write=Read(names=(semconv.GEN_AI_USAGE_CACHE_WRITE_INPUT_TOKENS,)),
        reasoning=Read(metric=_TOKEN_METRIC, note="its type `reasoning`"),
        cost=Read(
            metric=semconv.METRIC_USAGE_COST,
            note="in the dashboards of the integration; Agent Observability prices the token metric itself",
        ),
        error=Read(status=True),
    ),
    kind=_by_operation(),
    adds=(_CONVERSATION,),
    temporality="cumulative",
    metrics=_CLIENT_METRICS,
    has_token_types=True,
    endpoint="https://otlp-gateway-YOUR_ZONE.grafana.net/otlp",
    headers=(("authorization", "Basic%20BASE64(INSTANCE:TOKEN)"),),
    is_http_only=True,
    source=f"{_SOURCE_READ} and {_VENDOR}",
    as_of="2026-08",
)

HONEYCOMB = Backend(
    name="honeycomb",
    title="Honeycomb",
    reads=_reads(
        cache_write=Read(names=(semconv.GEN_AI_USAGE_CACHE_WRITE_INPUT_TOKENS,), note="as a field to query"),
        cost=Read(names=(semconv.GEN_AI_USAGE_COST,), note="as a field to query; its timeline has no cost"),
        session=Read(
            names=(semconv.GEN_AI_CONVERSATION_ID,), note="its timeline shows only spans that have a conversation"
        ),
    ),
    kind=_by_operation(_WITH_WORKFLOWS),
    adds=(
        Added(name=semconv.GEN_AI_CONVERSATION_ID, value=CONVERSATION, on=_ALL),
        _WORKFLOW,
        _AGENT,
    ),
    endpoint="https://api.honeycomb.io",
    headers=(("x-honeycomb-team", "YOUR_API_KEY"),),
    source=_VENDOR,
    as_of="2026-08",
)

DYNATRACE = Backend(
    name="dynatrace",
    title="Dynatrace",
    reads=_reads(
        model=Read(names=(semconv.GEN_AI_REQUEST_MODEL,)),
        cache_read=_unread("its documentation names no cached tokens"),
        cache_write=_unread("its documentation names no cached tokens"),
        reasoning=_unread("its documentation names no count of reasoning tokens"),
        cost=_unread(_OWN_PRICES),
        session=_unread("its documentation names no session"),
        user=_unread(_NO_USER),
    ),
    kind=_by_operation(_WITH_WORKFLOWS),
    notes=("The durations of flows, agents and tools come from metrics.",),
    metrics=(_TOKEN_METRIC, semconv.METRIC_OPERATION_DURATION),
    temporality="delta",
    endpoint="https://YOUR_ENVIRONMENT.live.dynatrace.com/api/v2/otlp",
    headers=(("authorization", "Api-Token%20YOUR_TOKEN"),),
    is_http_only=True,
    source=_VENDOR,
    as_of="2026-07",
)

NEWRELIC = Backend(
    name="newrelic",
    title="New Relic",
    reads=_reads(
        cache_read=_unread("its documentation names no cached tokens"),
        cache_write=_unread("its documentation names no cached tokens"),
        reasoning=_unread("its documentation names no count of reasoning tokens"),
        cost=_unread(_NO_COST),
        session=_unread("its documentation names no session"),
        user=_unread(_NO_USER),
        messages=_unread("its documentation names no parts form of messages"),
        tool=_SPAN_NAME,
    ),
    kind=_by_operation(),
    temporality="delta",
    endpoint="https://otlp.nr-data.net",
    headers=(("api-key", "YOUR_LICENSE_KEY"),),
    source=_VENDOR,
    as_of="2026-08",
)

ELASTIC = Backend(
    name="elastic",
    title="Elastic",
    reads=_reads(
        model=Read(names=(semconv.GEN_AI_REQUEST_MODEL,)),
        cache_read=_unread("its documentation names no cached tokens"),
        cache_write=_unread("its documentation names no cached tokens"),
        reasoning=_unread("its documentation names no count of reasoning tokens"),
        cost=_unread("its documentation names no cost"),
        session=_unread("its documentation names no session"),
        user=_unread(_NO_USER),
        tool=_SPAN_NAME,
    ),
    kind=KindRead(names=(), known={}, note="it tells no spans apart"),
    endpoint="https://YOUR_DEPLOYMENT.ingest.YOUR_REGION.elastic.cloud",
    headers=(("authorization", "ApiKey%20YOUR_API_KEY"),),
    notes=("Any attribute can be searched for and charted.",),
    source=f"{_VENDOR}, a preview",
    as_of="2026-08",
)

_ENDUSER = "enduser.id"
AZURE = Backend(
    name="azure",
    title="Azure Monitor",
    reads=_reads(
        model=Read(names=(semconv.GEN_AI_REQUEST_MODEL,)),
        input_tokens=Read(names=(semconv.GEN_AI_USAGE_INPUT_TOKENS,), note="in the custom dimensions"),
        output_tokens=Read(names=(semconv.GEN_AI_USAGE_OUTPUT_TOKENS,), note="in the custom dimensions"),
        cache_write=Read(names=(semconv.GEN_AI_USAGE_CACHE_WRITE_INPUT_TOKENS,), note="in the custom dimensions"),
        cost=_unread("it has no view of cost; the custom dimensions have the attribute"),
        session=Read(names=(semconv.SESSION_ID,)),
        user=_unread("it reads `enduser.id`, which the preset adds only if you ask for `azure+users`"),
    ),
    kind=KindRead(
        names=(SYSTEM,),
        known={ANY: "GenAI dependency"},
        note="only model calls are told from ordinary dependencies",
    ),
    adds=(_SYSTEM,),
    options={
        "users": Option(
            adds=(Added(name=_ENDUSER, value=copied(semconv.USER_ID), on=_ALL),),
            reads={"user": Read(names=(_ENDUSER,))},
            why="It is personal data, which Azure Monitor keeps as such.",
        )
    },
    endpoint="http://localhost:4318",
    notes=(
        "It takes no OTLP at an address of its own: send to a Collector with the exporter `azuremonitor`, or pass a "
        "tracer provider that has Microsoft's exporter.",
    ),
    source="the exporter's source code",
    as_of="2026-08",
)

AWS = Backend(
    name="aws",
    title="AWS CloudWatch",
    reads=_reads(
        model=Read(names=(semconv.GEN_AI_REQUEST_MODEL,)),
        cache_read=_unread("it is not known to read cached tokens"),
        cache_write=_unread("it is not known to read cached tokens"),
        reasoning=_unread("it is not known to read reasoning tokens"),
        cost=_unread(_NO_COST),
        session=Read(names=(semconv.SESSION_ID,)),
        user=_unread(_NO_USER),
        messages=Read(
            names=(semconv.GEN_AI_OUTPUT_MESSAGES, semconv.GEN_AI_INPUT_MESSAGES),
            note="its distribution moves them into log events",
        ),
    ),
    kind=_by_operation(_WITH_WORKFLOWS),
    endpoint="http://localhost:4318",
    notes=("Its addresses need signed requests: send to a Collector, or to its distribution of one.",),
    source="the distribution's source code",
    as_of="2026-08",
)

SPLUNK = Backend(
    name="splunk",
    title="Splunk Observability",
    reads=_reads(
        model=Read(names=(semconv.GEN_AI_REQUEST_MODEL,)),
        input_tokens=Read(metric=_TOKEN_METRIC),
        output_tokens=Read(metric=_TOKEN_METRIC),
        cache_read=_unread("its documentation names no cached tokens"),
        cache_write=_unread("its documentation names no cached tokens"),
        reasoning=_unread("its documentation names no count of reasoning tokens"),
        cost=_unread("it computes a cost of its own, from published prices and the token metric"),
        messages=Read(event=semconv.INFERENCE_DETAILS_EVENT),
    ),
    kind=_by_operation(_WITH_WORKFLOWS),
    metrics=(_TOKEN_METRIC,),
    adds=(_CONVERSATION, _WORKFLOW, _AGENT),
    endpoint="http://localhost:4318",
    notes=(
        "Send to its distribution of the Collector, which has the access token.",
        "Calls are grouped by the name of their workflow.",
    ),
    source=f"{_SOURCE_READ} and {_VENDOR}",
    as_of="2026-08",
)

_SENTRY_COST = "gen_ai.cost"
SENTRY = Backend(
    name="sentry",
    title="Sentry",
    reads=_reads(
        cache_read=Read(names=("gen_ai.usage.input_tokens.cached", semconv.GEN_AI_USAGE_CACHE_READ_INPUT_TOKENS)),
        cache_write=Read(
            names=("gen_ai.usage.input_tokens.cache_write", semconv.GEN_AI_USAGE_CACHE_WRITE_INPUT_TOKENS)
        ),
        reasoning=Read(names=("gen_ai.usage.output_tokens.reasoning", semconv.GEN_AI_USAGE_REASONING_OUTPUT_TOKENS)),
        cost=Read(names=(f"{_SENTRY_COST}.total_tokens",)),
        user=_unread("it has users of its own, which its SDK sets"),
    ),
    kind=_by_operation(),
    adds=(
        Added(name=f"{_SENTRY_COST}.total_tokens", value=COST),
        Added(name=f"{_SENTRY_COST}.input_tokens", value=INPUT_COST),
        Added(name=f"{_SENTRY_COST}.output_tokens", value=OUTPUT_COST),
        Added(name="gen_ai.usage.input_tokens.cached", value=CACHE_READ_TOKENS),
        Added(name="gen_ai.usage.input_tokens.cache_write", value=CACHE_WRITE_TOKENS),
        Added(name="gen_ai.usage.output_tokens.reasoning", value=REASONING_TOKENS),
        _CONVERSATION,
    ),
    endpoint="https://YOUR_ORGANIZATION.ingest.sentry.io/api/YOUR_PROJECT/integration/otlp",
    headers=(("x-sentry-auth", "sentry%20sentry_key=YOUR_PUBLIC_KEY"),),
    is_http_only=True,
    takes_metrics=False,
    source="its conventions",
    as_of="2026-08",
)

BACKENDS: Mapping[str, Backend] = {
    backend.name: backend
    for backend in (
        JAEGER, PHOENIX, MLFLOW, LANGFUSE, OPIK, WEAVE, LAMINAR, LANGSMITH, SIGNOZ, OPENOBSERVE, OPENLIT, DATADOG,
        GRAFANA, HONEYCOMB, DYNATRACE, NEWRELIC, ELASTIC, AZURE, AWS, SPLUNK, SENTRY,
    )
}  # fmt: skip
"""The backends that have a preset, by its name."""
