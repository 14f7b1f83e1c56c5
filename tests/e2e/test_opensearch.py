"""Jaeger's traces in a real OpenSearch, over TLS and with a password."""

from __future__ import annotations

import fnmatch
import json
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from collector.gateway.maven import find_java
from collector.stack.console import StackError

from tests.e2e.backends import NO_PROXY, Stack, poll, run_stack
from tests.e2e.test_jaeger_storage import COLLECTOR, assert_kept, send
from tests.required import missing
from tests.servers.opensearch_server import opensearch, secured
from tests.wire.certificates import server_context

pytestmark = [pytest.mark.e2e, pytest.mark.tools]

USER, PASSWORD = "jaeger", "12345"
"""A password of digits, which must stay a string."""


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The HTTP port of OpenSearch, which needs Java and Maven."""
    try:
        find_java()
    except StackError as error:
        missing(str(error))
    if shutil.which("mvn") is None:
        missing("needs Maven")
    with opensearch(tmp_path_factory.mktemp("opensearch")) as port:
        yield port


@pytest.fixture
def guard(node: int, tmp_path: Path) -> Iterator[dict[str, str]]:
    """The settings that reach OpenSearch through TLS and its password."""
    context, trusted = server_context(tmp_path)
    with secured(node, context, USER, PASSWORD) as address:
        yield {
            "TRACEMIND_OPENSEARCH_URL": address,
            "TRACEMIND_OPENSEARCH_USERNAME": USER,
            "TRACEMIND_OPENSEARCH_PASSWORD": PASSWORD,
            "TRACEMIND_OPENSEARCH_CA": str(trusted),
        }


def test_traces_are_found_in_opensearch_and_their_indices_are_those_of_the_policy(
    stack: Stack, guard: dict[str, str], node: int, tmp_path: Path
) -> None:
    """Traces are found by id, service and attribute, and the policy of retention matches each index that holds them."""
    if stack.mode != "native":
        pytest.skip("the stack runs in Docker")
    state, service = tmp_path / "state", f"opensearch-{uuid.uuid4().hex}"
    up = run_stack("up", "--storage", "opensearch", "--ports", "auto", "--json", "--state", str(state), env=guard)
    try:
        assert up.returncode == 0, up.stderr
        own = Stack(state=state, **json.loads(up.stdout))
        trace_id = send(own, service)
        indices = poll(lambda: indices_of(node), searchable, 60.0, "the indices")
        assert_kept(own, service, trace_id)
    finally:
        run_stack("down", "--state", str(state))

    policy = json.loads((COLLECTOR / "jaeger" / "opensearch-retention.json").read_text())["policy"]
    (pattern,) = policy["ism_template"][0]["index_patterns"]
    assert [index["index"] for index in indices if not fnmatch.fnmatch(index["index"], pattern)] == []


def indices_of(node: int) -> list[dict[str, str]]:
    """Name, health and size of each index."""
    with NO_PROXY.open(f"http://127.0.0.1:{node}/_cat/indices?format=json", timeout=30.0) as reply:
        indices: list[dict[str, str]] = json.load(reply)
    return indices


def searchable(indices: list[dict[str, str]]) -> bool:
    """Whether Jaeger has made an index of spans and one of services, and each has what was sent."""
    ready = {index["index"] for index in indices if index["health"] != "red" and int(index.get("docs.count") or 0) >= 2}
    return any("-span-" in name for name in ready) and any("-service-" in name for name in ready)


@pytest.mark.parametrize(
    ("change", "reason"),
    [({"TRACEMIND_OPENSEARCH_PASSWORD": "54321"}, "401"), ({"TRACEMIND_OPENSEARCH_CA": ""}, "certificate")],
    ids=["wrong password", "unknown authority"],
)
@pytest.mark.usefixtures("stack")
def test_a_wrong_password_and_an_unknown_authority_are_rejected(
    guard: dict[str, str], tmp_path: Path, change: dict[str, str], reason: str
) -> None:
    """Jaeger does not start with credentials or a certificate that do not match, and its log says which."""
    up = run_stack(
        "up", "--storage", "opensearch", "--ports", "auto", "--state", str(tmp_path / "state"), env={**guard, **change}
    )

    assert up.returncode == 1
    assert "jaeger has exited" in up.stderr
    assert reason in up.stderr
    assert guard["TRACEMIND_OPENSEARCH_PASSWORD"] not in up.stderr
