"""base.yaml and the overlays fit together, without the Collector."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
import yaml

from tracemind_otel.otel import semconv

COLLECTOR = Path(__file__).resolve().parents[2] / "collector"
OVERLAYS = sorted((COLLECTOR / "overlays").glob("*.yaml"))
KINDS = {"receivers": "receiver", "processors": "processor", "exporters": "exporter", "connectors": "connector"}
RENAMED = {
    *("otlp", "otlphttp", "prometheusremotewrite", "spanmetrics", "signaltometrics", "loadbalancing", "logging"),
    "batch",
}
HANDOVER = "otlp_http/instances"
"""Hands metrics over to a receiver of the same Collector, and is no destination."""
WRITTEN_HEADERS = {"dd-otlp-source", "dd-otel-metric-config"}
"""Headers without a secret."""

Json = dict[str, Any]


def read(path: Path) -> Json:
    return cast("Json", yaml.safe_load(path.read_text()))


def keys_in(config: Json, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The path of each value that is no map: the Collector merges maps and replaces all else, lists as a whole."""
    for key, value in config.items():
        if isinstance(value, dict) and value:
            yield from keys_in(cast("Json", value), (*path, key))
        else:
            yield (*path, key)


def components(path: Path, kind: str) -> dict[str, Json]:
    """The components of one kind that a file defines."""
    return cast("dict[str, Json]", read(path).get(kind) or {})


def exporters_of(path: Path) -> dict[str, Json]:
    return components(path, "exporters")


def destinations_of(path: Path) -> dict[str, Json]:
    """The OTLP exporters that lead out of the Collector."""
    return {
        name: exporter for name, exporter in exporters_of(path).items() if name.startswith("otlp") and name != HANDOVER
    }


def pipelines_of(path: Path) -> dict[str, dict[str, list[str]]]:
    return cast("dict[str, dict[str, list[str]]]", read(path).get("service", {}).get("pipelines") or {})


def test_no_two_overlays_set_the_same_key() -> None:
    """Any overlays can be combined in any order: none replaces what another one set."""
    keys = {path.stem: set(keys_in(read(path))) for path in OVERLAYS}

    shared = {(a, b): keys[a] & keys[b] for a, b in itertools.combinations(keys, 2) if keys[a] & keys[b]}
    assert shared == {}


def test_an_overlay_replaces_only_the_token_the_extensions_and_the_way_of_metrics() -> None:
    """The base stays as it is but for the token that it has as a placeholder, the detour of aggregate-instances.yaml
    and its longer time until a series expires, and the list of extensions, to which one overlay adds."""
    base = set(keys_in(read(COLLECTOR / "base.yaml")))
    replaced = {(path.stem, *where) for path in OVERLAYS for where in set(keys_in(read(path))) & base}

    assert replaced == {
        ("receiver-token", "extensions", "bearertokenauth/receiver", "token"),
        ("persistent-queue", "service", "extensions"),
        ("aggregate-instances", "service", "pipelines", "metrics/redact", "exporters"),
        ("aggregate-instances", "exporters", "prometheus", "metric_expiration"),
    }
    extensions = read(COLLECTOR / "overlays" / "persistent-queue.yaml")["service"]["extensions"]
    assert extensions[:-1] == read(COLLECTOR / "base.yaml")["service"]["extensions"]


@pytest.mark.parametrize("path", OVERLAYS, ids=lambda path: path.stem)
def test_an_overlay_fills_an_empty_step_or_adds_a_pipeline_at_a_forward_connector(path: Path) -> None:
    """An overlay gives processors to a step that has none, or adds a pipeline that starts at a connector."""
    base = pipelines_of(COLLECTOR / "base.yaml")
    own = components(path, "connectors").keys() | components(path, "receivers").keys()
    for name, pipeline in pipelines_of(path).items():
        if pipeline.get("exporters") == [HANDOVER]:
            assert pipeline.keys() == {"exporters"}
        elif name in base:
            assert pipeline.keys() == {"processors"}
            assert "processors" not in base[name]
        else:
            assert all(receiver in own or receiver.startswith("forward/") for receiver in pipeline["receivers"]), name


@pytest.mark.parametrize("path", [COLLECTOR / "base.yaml", *OVERLAYS], ids=lambda path: path.stem)
def test_no_batch_processor_and_no_deprecated_name_in_an_overlay(path: Path) -> None:
    """The files work with Collectors that dropped the batch processor and the old names."""
    kinds = ("processors", "exporters", "connectors")
    types = {name.partition("/")[0] for kind in kinds for name in components(path, kind)}

    assert not types & RENAMED


@pytest.mark.parametrize("path", [COLLECTOR / "base.yaml", *OVERLAYS], ids=lambda path: path.stem)
def test_the_collector_that_is_built_has_what_an_overlay_uses(path: Path) -> None:
    """The native build has every component of the base and the overlays."""
    modules = (COLLECTOR / "build" / "otelcol" / "builder.yaml").read_text()
    for kind, suffix in {**KINDS, "extensions": "extension"}.items():
        for name in components(path, kind):
            module = name.partition("/")[0].replace("otlp_grpc", "otlp").replace("_", "")
            assert re.search(rf"/{module}({suffix})? v", modules), name


@pytest.mark.parametrize("path", OVERLAYS, ids=lambda path: path.stem)
def test_secrets_and_addresses_come_from_the_environment(path: Path) -> None:
    """No overlay holds a secret: each header and endpoint is read from a variable."""
    for name, exporter in exporters_of(path).items():
        endpoints = {key: value for key, value in exporter.items() if key.endswith("endpoint")}
        headers = {key: value for key, value in exporter.get("headers", {}).items() if key not in WRITTEN_HEADERS}
        assert endpoints or exporter.keys() == {"metric_expiration"}, name
        assert not [key for key, value in {**endpoints, **headers}.items() if "${env:" not in value], name


@pytest.mark.parametrize("path", OVERLAYS, ids=lambda path: path.stem)
def test_each_destination_batches_in_a_queue_that_can_be_on_disk(path: Path) -> None:
    """Each OTLP destination retries, makes batches in its queue, and can keep that queue on disk."""
    for name, exporter in destinations_of(path).items():
        assert exporter["sending_queue"]["storage"] == "${env:TRACEMIND_COLLECTOR_QUEUE:-null}", name
        assert exporter["sending_queue"]["batch"]["sizer"] == "bytes", name
        assert exporter["retry_on_failure"], name


def test_no_accepted_span_is_larger_than_a_batch() -> None:
    """The queue drops a span larger than a batch, and the rest of its request with it: the receiver rejects such
    a span, so that the sender knows, and a destination with a smaller limit cuts long values first."""
    protocols = read(COLLECTOR / "base.yaml")["receivers"]["otlp"]["protocols"]
    accepted = protocols["http"]["max_request_body_size"]
    assert protocols["grpc"]["max_recv_msg_size_mib"] * 2**20 == accepted

    for path in OVERLAYS:
        for exporter in destinations_of(path).values():
            if exporter["sending_queue"]["batch"]["max_size"] < accepted:
                assert pipelines_of(path)[f"traces/{path.stem}"]["processors"] == [f"transform/{path.stem}"], path.name


CONTENT = {
    semconv.GEN_AI_SYSTEM_INSTRUCTIONS,
    semconv.GEN_AI_INPUT_MESSAGES,
    semconv.GEN_AI_OUTPUT_MESSAGES,
    semconv.GEN_AI_TOOL_DEFINITIONS,
    semconv.GEN_AI_TOOL_CALL_ARGUMENTS,
    semconv.GEN_AI_TOOL_CALL_RESULT,
    semconv.TRACEMIND_FUNCTION_ARGUMENTS,
    semconv.TRACEMIND_FUNCTION_RESULT,
}


def test_redaction_removes_the_attributes_with_content_and_no_others() -> None:
    """Of all names that the SDK writes, exactly those of prompts, answers, arguments and results are removed."""
    text = (COLLECTOR / "overlays" / "redaction.yaml").read_text()
    patterns = re.findall(r'delete_matching_keys\(attributes, "(.+)"\)', text)
    content = [re.compile(pattern.replace("\\\\", "\\")) for pattern in patterns]
    names = {value for value in vars(semconv).values() if isinstance(value, str) and not value.startswith("https:")}
    names |= {*semconv.USAGE_NAMES.values(), *semconv.RESPONSE_CONDITION_NAMES.values()}
    names |= {
        *semconv.TOLD_INPUT_TOKENS,
        *semconv.TOLD_OUTPUT_TOKENS,
        *semconv.TOLD_CACHE_READ,
        *semconv.TOLD_REASONING,
    }

    assert {name for name in names if any(pattern.search(name) for pattern in content)} == CONTENT


def test_the_local_stack_and_the_overlays_agree() -> None:
    """otelcol.yaml is base.yaml with Jaeger and Prometheus in one file, with fixed limits."""
    stack, base = read(COLLECTOR / "otelcol.yaml"), read(COLLECTOR / "base.yaml")
    jaeger = exporters_of(COLLECTOR / "overlays" / "jaeger.yaml")["otlp_grpc/jaeger"]
    jaeger["sending_queue"].pop("storage")
    jaeger["sending_queue"]["queue_size"] = 1000
    jaeger["retry_on_failure"]["max_elapsed_time"] = "300s"

    assert stack["receivers"] == base["receivers"]
    assert stack["processors"] == base["processors"]
    assert stack["service"]["telemetry"] == base["service"]["telemetry"]
    assert stack["exporters"]["otlp_grpc/jaeger"] == jaeger
    scraped = exporters_of(COLLECTOR / "overlays" / "prometheus-scrape.yaml")["prometheus"]
    assert stack["exporters"]["prometheus"] == base["exporters"]["prometheus"] | scraped


def test_summed_series_are_shown_as_long_as_they_are_kept() -> None:
    """A series of aggregate-instances.yaml that has gone from the page begins at zero when it comes again, and a job
    that comes once a day finds it there."""
    overlay = read(COLLECTOR / "overlays" / "aggregate-instances.yaml")

    assert overlay["exporters"]["prometheus"]["metric_expiration"] == "25h"
    assert overlay["processors"]["deltatocumulative/instances"]["max_stale"] == "25h"


def test_the_readme_lists_every_overlay_and_its_variables() -> None:
    """Each overlay and each variable that it reads is in the README."""
    readme = (COLLECTOR / "README.md").read_text()

    assert [path.name for path in OVERLAYS if f"`{path.name}`" not in readme] == []
    variables = {name for path in OVERLAYS for name in re.findall(r"\$\{env:(\w+)", path.read_text())}
    assert sorted(name for name in variables if name not in readme) == []


def test_compose_mounts_the_files_that_it_names() -> None:
    """The variant for Docker changes only the Collector, and each file that it names is below the folder it mounts."""
    (name, service) = next(iter(components(COLLECTOR / "docker-compose.overlays.yml", "services").items()))
    (mount,) = cast("list[str]", service["volumes"])
    source, target, mode = mount.split(":")
    files = [COLLECTOR / word.removeprefix(f"--config={target}/") for word in cast("list[str]", service["command"])]

    assert (name, (COLLECTOR.parent / source).resolve(), mode) == ("otelcol", COLLECTOR, "ro")
    assert [path for path in files if not path.is_file()] == []
    assert files[0] == COLLECTOR / "base.yaml"
