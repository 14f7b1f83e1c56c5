"""What stands behind the Collector: keeps each span by its id and each sum by its series, and refuses when told to.

Run as a program it prints its port and ends when its standard input closes.

- `PUT /_mode/{mode}`: `ok`, `503` or `429`, for all requests that follow
- `GET /_accounts`: copies and cost of each span, and the sums of the cost counters
"""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

from aiohttp import web
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from benchmarks.processes import serve_application
from tracemind_otel.otel import semconv

COUNTERS = (semconv.METRIC_LLM_COST, semconv.METRIC_LLM_PRESUMED_COST)
COSTS = (semconv.TRACEMIND_COST_USD, semconv.TRACEMIND_COST_PRESUMED_USD)


class Sink:
    """The store of one run."""

    def __init__(self) -> None:
        self._mode = "ok"
        self._copies: Counter[str] = Counter()
        self._spans: dict[str, dict[str, Any]] = {}
        self._sums: dict[str, dict[str, float]] = {name: {} for name in COUNTERS}

    async def set_mode(self, request: web.Request) -> web.Response:
        self._mode = request.match_info["mode"]
        return web.Response()

    async def take_traces(self, request: web.Request) -> web.Response:
        body = await request.read()
        if self._mode != "ok":
            return web.Response(status=int(self._mode), headers={"retry-after": "1"})
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            for scope in resource.scope_spans:
                for span in scope.spans:
                    span_id = span.span_id.hex()
                    self._copies[span_id] += 1
                    self._spans[span_id] = {
                        "parent": span.parent_span_id.hex(),
                        **{each.key: each.value.double_value for each in span.attributes if each.key in COSTS},
                        "is_interrupted": any(each.key == semconv.TRACEMIND_INTERRUPTED for each in span.attributes),
                    }
        return web.Response()

    async def take_metrics(self, request: web.Request) -> web.Response:
        body = await request.read()
        if self._mode != "ok":
            return web.Response(status=int(self._mode), headers={"retry-after": "1"})
        for resource in ExportMetricsServiceRequest.FromString(body).resource_metrics:
            instance = sorted(str(each) for each in resource.resource.attributes)
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    if metric.name in self._sums:
                        for point in metric.sum.data_points:
                            key = repr((instance, sorted(str(each) for each in point.attributes)))
                            self._sums[metric.name][key] = point.as_double
        return web.Response()

    async def tell(self, request: web.Request) -> web.Response:
        sums = {name: sum(series.values()) for name, series in self._sums.items()}
        return web.json_response({"copies": self._copies, "spans": self._spans, "sums": sums})


async def _serve() -> None:
    sink = Sink()
    application = web.Application(client_max_size=2**26)
    application.router.add_post("/v1/traces", sink.take_traces)
    application.router.add_post("/v1/metrics", sink.take_metrics)
    application.router.add_put("/_mode/{mode}", sink.set_mode)
    application.router.add_get("/_accounts", sink.tell)
    await serve_application(application)


if __name__ == "__main__":
    asyncio.run(_serve())
