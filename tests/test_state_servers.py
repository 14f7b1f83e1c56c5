"""A shared budget on real Redis and Valkey servers: what is wrong with them delays no call and loses no settlement."""

from __future__ import annotations

import signal
from collections.abc import Callable, Generator
from pathlib import Path
from typing import get_args

import pytest

from tests import away_state
from tests.away_state import YEAR
from tests.programs import REPOSITORY
from tests.servers.state_servers import PASSWORD, Kind, StateServer, free_port, running, wait_until
from tests.wire.certificates import server_context
from tracemind_otel.flows.shared.redis_state import RedisState
from tracemind_otel.flows.shared.state_port import Reserve, Settle, StateAwayError, Sums

pytestmark = pytest.mark.slow


@pytest.fixture(params=get_args(Kind))
def kind(request: pytest.FixtureRequest) -> Kind:
    """Each kind of server."""
    kind: Kind = request.param
    return kind


@pytest.fixture
def server(kind: Kind, tmp_path: Path) -> Generator[StateServer]:
    """A server that writes all that it knows to the disk."""
    with running(kind, tmp_path, "--appendonly", "yes", "--appendfsync", "always") as started:
        yield started


async def goes_away_and_comes_back(
    server: StateServer,
    caplog: pytest.LogCaptureFixture,
    reason: str,
    take_away: Callable[[], object],
    bring_back: Callable[[], object],
) -> None:
    await away_state.goes_away_and_comes_back(
        server.url, lambda: RedisState(server.url, timeout_s=5), caplog, reason, take_away, bring_back
    )
    assert PASSWORD not in caplog.text


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
async def test_a_server_that_ends_and_comes_back(
    server: StateServer, how: signal.Signals, caplog: pytest.LogCaptureFixture
) -> None:
    """A server that writes its data to the disk loses nothing, not even by SIGKILL."""
    await goes_away_and_comes_back(server, caplog, "no server can be reached", lambda: server.send(how), server.start)


async def test_a_server_that_is_stopped_delays_no_call(server: StateServer, caplog: pytest.LogCaptureFixture) -> None:
    """It takes connections and answers nothing."""
    await goes_away_and_comes_back(
        server,
        caplog,
        "did not answer in time",
        lambda: server.send(signal.SIGSTOP),
        lambda: server.send(signal.SIGCONT),
    )


async def test_a_server_without_memory_is_away(server: StateServer, caplog: pytest.LogCaptureFixture) -> None:
    """With `noeviction` it takes no reservation, and forgets none; with more memory the settlements arrive."""
    await goes_away_and_comes_back(
        server,
        caplog,
        "maxmemory is reached",
        lambda: server.client().config_set("maxmemory", "1"),
        lambda: server.client().config_set("maxmemory", "0"),
    )


async def test_a_server_with_too_few_replicas_is_away(server: StateServer, caplog: pytest.LogCaptureFixture) -> None:
    """The line names the option by which the server does not write, though the client has no error for that."""
    await goes_away_and_comes_back(
        server,
        caplog,
        "fewer replicas than min-replicas-to-write",
        lambda: server.client().config_set("min-replicas-to-write", "1"),
        lambda: server.client().config_set("min-replicas-to-write", "0"),
    )


async def test_a_read_only_replica_is_away(
    kind: Kind, server: StateServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A failover that makes the server a replica is told by its line, and so is the end of it."""
    (tmp_path / "primary").mkdir()
    with running(kind, tmp_path / "primary") as primary:
        await goes_away_and_comes_back(
            server,
            caplog,
            "read-only replica",
            lambda: server.client().replicaof("127.0.0.1", primary.port),
            lambda: server.client().replicaof("NO", "ONE"),
        )


def test_a_server_that_lost_its_data_counts_no_less_than_nothing(kind: Kind, tmp_path: Path) -> None:
    """What was reserved before is unknown to it; what was used is counted all the same."""
    with running(kind, tmp_path) as server:
        state = RedisState(server.url, timeout_s=5)
        order = Reserve(YEAR, (None, 1_000, None), Sums(0, 60, 1), is_call=True)
        granted = state.apply("a", [order], 60)[0]
        server.send(signal.SIGKILL)
        server.start()
        settled = Settle(YEAR, granted.window, order.wanted, Sums(0, 10, 1))
        after = state.apply("a", [settled], 60)[0]
        state.close()
    assert (after.spent, after.held) == (Sums(0, 10, 1), Sums())


def test_a_user_needs_no_more_rights_than_the_page_says(server: StateServer) -> None:
    """The ACL of the docs is enough, and less is told as what it is."""
    page = (REPOSITORY / "docs" / "how-to" / "shared-budgets.md").read_text()
    (rule,) = (line for line in page.splitlines() if line.startswith("ACL SETUSER"))
    words = rule.replace("PASSWORD", "app-secret").split()
    server.client().execute_command(*words)
    url = f"{server.kind}://{words[2]}:app-secret@127.0.0.1:{server.port}/0"
    state = RedisState(url, timeout_s=5)
    order = Reserve(YEAR, (None, 1_000, None), Sums(0, 60, 1), is_call=True)
    granted = state.apply("a", [order], 60)[0]
    state.renew("a", 60)
    settled = Settle(YEAR, granted.window, order.wanted, Sums(0, 10, 1))
    assert state.apply("a", [settled], 60)[0].spent == Sums(0, 10, 1)
    server.client().execute_command("ACL", "SETUSER", words[2], "-evalsha")
    with pytest.raises(StateAwayError, match="ACL must allow"):
        state.apply("a", [order], 60)
    state.close()


def test_tls_checks_the_certificate(tmp_path: Path) -> None:
    """Without the certificate to trust, the state is away. The package of Valkey is built without TLS."""
    _, trusted = server_context(tmp_path)
    both = str(tmp_path / "server.pem")
    port = free_port()
    listens = ("--port", "0", "--tls-port", str(port), "--tls-auth-clients", "no")
    files = ("--tls-cert-file", both, "--tls-key-file", both, "--tls-ca-cert-file", str(trusted))
    with running("redis", tmp_path, *listens, *files, port=port):
        url = f"rediss://:{PASSWORD}@127.0.0.1:{port}/0"
        with pytest.raises(StateAwayError):
            RedisState(url, timeout_s=5)
        state = RedisState(f"{url}?ssl_ca_certs={trusted}", timeout_s=5)
        order = Reserve(YEAR, (None, 100, None), Sums(0, 60, 1), is_call=True)
        assert state.apply("a", [order], 60)[0].denied_by is None
        state.close()


def test_a_cluster_of_one_shard_is_used_and_one_of_many_is_told(kind: Kind, tmp_path: Path) -> None:
    """The keys of an account are on one node; the client does not follow a redirection to another."""
    bus = ("--cluster-port", str(free_port()))  # the default, 10,000 above the other, may be too high
    with running(kind, tmp_path, "--cluster-enabled", "yes", *bus) as server:
        order = Reserve(YEAR, (None, 100, None), Sums(0, 60, 1), is_call=True)
        server.client().execute_command("CLUSTER", "ADDSLOTSRANGE", "0", "16383")
        wait_until(lambda: b"cluster_state:ok" in server.client().execute_command("CLUSTER", "INFO"))
        state = RedisState(server.url, timeout_s=5)
        assert state.apply("a", [order], 60)[0].denied_by is None
        server.client().execute_command("CLUSTER", "DELSLOTSRANGE", "0", "16383")
        with pytest.raises(StateAwayError, match="cluster"):
            state.apply("a", [order], 60)
        state.close()
