"""Processes that end without `atexit` deliver their telemetry, and end as they would without it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from collector.stack.processes import wait_until

from tests.ended import (
    APP,
    AS_PROCESS_1,
    CONFIGURED,
    IN_A_CONTAINER,
    STRICT,
    WORK,
    assert_arrived,
    serving,
    stop_process_1,
)
from tests.programs import clean_environment, run
from tests.servers.fixture import closed_port
from tests.servers.otlp_sink import Sink, listening
from tests.servers.otlp_sink import sink as sink
from tracemind_otel.cli.otlp_file import read_spans

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no such signals")

# --- uvicorn ---


SIGNALS = pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])


@SIGNALS
def test_uvicorn(tmp_path: Path, sink: Sink, signum: signal.Signals) -> None:
    """An application that configures at import loses nothing when its server is stopped."""
    (tmp_path / "service.py").write_text(APP.replace("CONFIGURED", CONFIGURED))
    with serving(tmp_path, "-m", "uvicorn", "service:app", "--port", "0", SINK=sink.url) as server:
        for _ in range(3):
            server.ask()
        code, log = server.stop(signum)
    assert code in (-signum, 128 + signum, 0)
    assert "Traceback" not in log
    assert_arrived(sink, 3)


@SIGNALS
def test_uvicorn_with_workers(tmp_path: Path, sink: Sink, signum: signal.Signals) -> None:
    """Each worker sends its own spans and metrics."""
    (tmp_path / "service.py").write_text(APP.replace("CONFIGURED", CONFIGURED))
    workers = list[int]()
    with serving(tmp_path, "-m", "uvicorn", "service:app", "--port", "0", "--workers", "2", SINK=sink.url) as server:
        while len(set(workers)) < 2:
            workers.append(server.ask())
        _, log = server.stop(signum)
    assert "Traceback" not in log
    assert_arrived(sink, len(workers))


@pytest.mark.parametrize("before", [True, False], ids=["before uvicorn is loaded", "after"])
def test_uvicorn_in_a_program(tmp_path: Path, sink: Sink, before: bool) -> None:
    """A program that calls `uvicorn.run` loses nothing, whichever of the two it imports first."""
    lines = [CONFIGURED, "import uvicorn"]
    program = APP.replace("CONFIGURED", "\n".join(lines if before else lines[::-1]))
    (tmp_path / "program.py").write_text(f"{program}\nuvicorn.run(app, port=0)\n")
    with serving(tmp_path, "program.py", SINK=sink.url) as server:
        server.ask()
        code, log = server.stop(signal.SIGTERM)
    assert code == -signal.SIGTERM
    assert "Traceback" not in log
    assert_arrived(sink, 1)


@AS_PROCESS_1
def test_uvicorn_as_process_1_of_a_container(tmp_path: Path, sink: Sink) -> None:
    """A server that ends itself at SIGTERM does so as process 1 too, and nothing says that it would not."""
    program = APP.replace("CONFIGURED", CONFIGURED)
    (tmp_path / "program.py").write_text(f"{program}\nimport uvicorn\nuvicorn.run(app, port=0)\n")
    with serving(tmp_path, "program.py", python=[*IN_A_CONTAINER, *STRICT], SINK=sink.url) as server:
        assert server.ask() == 1
        stop_process_1(server.process.pid)
        _, log = server.process.communicate(timeout=60)
    assert server.process.returncode == 0
    assert "process 1 of its container" not in log
    assert_arrived(sink, 1)


LIFESPAN = f"""{WORK}
from contextlib import asynccontextmanager
from fastapi import FastAPI

@asynccontextmanager
async def lifespan(app):
    async with {CONFIGURED}:
        yield
    os._exit(0)

app = FastAPI(lifespan=lifespan)

@app.get("/")
async def ask() -> int:
    await answer()
    return os.getpid()
"""


def test_a_lifespan_sends_by_itself(tmp_path: Path, sink: Sink) -> None:
    """`async with tm.configure()` in an ASGI lifespan delivers everything before its block ends, without any hook."""
    (tmp_path / "service.py").write_text(LIFESPAN)
    with serving(tmp_path, "-m", "uvicorn", "service:app", "--port", "0", SINK=sink.url) as server:
        for _ in range(3):
            server.ask()
        code, log = server.stop(signal.SIGTERM)
    assert code == 0
    assert "Traceback" not in log
    names = Counter(span.name for span in sink.spans())  # FastAPI makes spans too
    assert (names["chat toy-1"], names["invoke_workflow answer"]) == (3, 3)
    assert sink.counter("tracemind.llm.cost") == pytest.approx(0.75)


# --- SIGTERM ---


def ended_by_signal(program: str, **environment: str) -> tuple[int, str, float]:
    """Run a program until it prints that it is ready, and send SIGTERM; returns exit code, stderr and seconds."""
    with subprocess.Popen(
        [sys.executable, "-W", "error", "-c", WORK + program],
        env=clean_environment(**environment),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        started = time.monotonic()
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=60)
        return process.returncode, errors, time.monotonic() - started


WAITS = """
asyncio.run(answer())
print("ready", flush=True)
import time
time.sleep(60)
"""
WAITS_ON_A_LOOP = """
async def main():
    await answer()
    print("ready", flush=True)
    await asyncio.sleep(60)
asyncio.run(main())
"""


@pytest.mark.parametrize("waits", [WAITS, WAITS_ON_A_LOOP], ids=["asleep", "on an event loop"])
def test_sigterm(sink: Sink, waits: str) -> None:
    """A program that `docker stop` ends delivers its telemetry, and then ends by the signal as usual."""
    code, errors, _ = ended_by_signal(CONFIGURED + waits, SINK=sink.url)
    assert (code, errors) == (-signal.SIGTERM, "")
    assert_arrived(sink, 1)


def test_sigterm_with_nobody_there() -> None:
    """With the Collector down, the program ends within 5 s and says what was lost."""
    code, errors, took = ended_by_signal(
        f"import logging\nlogging.disable()\n{CONFIGURED}{WAITS}", SINK=f"http://127.0.0.1:{closed_port()}"
    )
    assert code == -signal.SIGTERM
    assert took < 5
    assert "2 of 2 spans did not reach" in errors


WORKS_ON = """
asyncio.run(answer())
print(os.getpid(), flush=True)
sys.stdin.readline()
asyncio.run(answer())
"""


@AS_PROCESS_1
def test_process_1_of_a_container_sends_and_works_on(sink: Sink) -> None:
    """SIGTERM does not end process 1. What waits is sent at once, and what it does after that arrives too."""
    with subprocess.Popen(
        [*IN_A_CONTAINER, sys.executable, "-W", "error", "-c", WORK + CONFIGURED + WORKS_ON],
        env=clean_environment(SINK=sink.url, OTEL_BSP_SCHEDULE_DELAY="60000", OTEL_METRIC_EXPORT_INTERVAL="60000"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as namespace:
        try:
            assert namespace.stdout is not None
            assert namespace.stdout.readline() == "1\n"
            assert sink.spans() == []
            stop_process_1(namespace.pid)
            assert wait_until(lambda: len(sink.spans()) == 2, 20)
            assert namespace.stderr is not None
            assert "process 1 of its container" in namespace.stderr.readline()
            assert namespace.poll() is None
            _, errors = namespace.communicate("\n", timeout=60)
        finally:
            namespace.kill()
    assert (namespace.returncode, errors) == (0, "")
    assert_arrived(sink, 2)


@pytest.mark.parametrize("order", ["first", "last"])
def test_a_handler_of_the_application_stays(sink: Sink, order: str) -> None:
    """An application's SIGTERM handler stays in force, whether set before or after `configure()`."""
    lines = [
        "import signal\nsignal.signal(signal.SIGTERM, lambda *_: sys.exit(7))",
        CONFIGURED,
    ]
    code, errors, _ = ended_by_signal("\n".join(lines if order == "first" else lines[::-1]) + WAITS, SINK=sink.url)
    assert (code, errors) == (7, "")
    assert_arrived(sink, 1)


def test_configured_in_a_thread(sink: Sink) -> None:
    """`configure()` works in a thread, though only the main thread may set a signal handler."""
    program = f"import threading\nt = threading.Thread(target=lambda: {CONFIGURED})\nt.start()\nt.join()\n"
    code, errors, _ = ended_by_signal(program + "import signal\n" + WAITS, SINK=sink.url)
    assert (code, errors) == (-signal.SIGTERM, "")


# --- Children ---

CHILDREN = f"""{WORK}
import multiprocessing

def work(*_):
    CHILD
    asyncio.run(answer())

def warm():
    "As a server does before it forks: the parent has a connection to the Collector, and something queued."
    asyncio.run(answer())
    assert telemetry.flush()
    asyncio.run(answer())

def processes(context):
    children = [context.Process(target=work) for _ in range(2)]
    for child in children:
        child.start()
    for child in children:
        child.join()
    assert [child.exitcode for child in children] == [0, 0]

def pool(context):
    with context.Pool(2) as pool:
        pool.map(work, range(2))

def forked(_):
    children = []
    for _ in range(2):
        children.append(os.fork())
        if not children[-1]:
            work()
            ENDS
    assert [os.waitpid(child, 0)[1] for child in children] == [0, 0]

IMPORTED
if __name__ == "__main__":
    MAIN
"""


def run_children(directory: Path, sink: Sink, *, main: str, imported: str = "", child: str = "", ends: str = "") -> str:
    """Run a program with two children that make one call each; returns its stderr."""
    places = {"MAIN": main, "IMPORTED": imported, "CHILD": child, "ENDS": ends or "sys.exit()"}
    program = re.sub("MAIN|IMPORTED|CHILD(?!R)|ENDS", lambda match: places[match[0]], CHILDREN)
    (directory / "program.py").write_text(program)
    done = run("-W", "ignore::DeprecationWarning", "program.py", directory=directory, environment={"SINK": sink.url})
    assert done.returncode == 0, done.stderr
    return done.stderr


@pytest.mark.parametrize("kind", ["processes", "pool"])
@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.parametrize("where", ["imported", "child"])
def test_children_of_multiprocessing(tmp_path: Path, sink: Sink, where: str, method: str, kind: str) -> None:
    """A child's last spans arrive, whether `configure()` runs at import or in the child."""
    main = f"{kind}(multiprocessing.get_context({method!r}))"
    run_children(tmp_path, sink, main=main, **{where: f"telemetry = {CONFIGURED}"})
    assert_arrived(sink, 2)


@pytest.mark.soak
@pytest.mark.parametrize("ends", ["sys.exit()", "telemetry.flush(); os._exit(0)"])
def test_children_of_fork(tmp_path: Path, sink: Sink, ends: str) -> None:
    """A child that was forked by hand ends like any process; before `os._exit` it has to flush."""
    run_children(tmp_path, sink, imported=f"telemetry = {CONFIGURED}", main="forked(None)", ends=ends)
    assert_arrived(sink, 2)


@pytest.mark.soak
def test_a_child_shares_nothing_with_its_parent(tmp_path: Path) -> None:
    """A child has its own connection and instance id, and sends none of its parent's spans or sums."""
    with listening(protocol="HTTP/1.1") as sink:
        run_children(
            tmp_path,
            sink,
            imported=f"telemetry = {CONFIGURED}",
            main="warm(); processes(multiprocessing.get_context('fork'))",
        )
    assert_arrived(sink, 4)
    senders = {(post.client, post.instance) for post in sink.posts}
    assert len({instance for _, instance in senders}) == 3
    assert len({client for client, _ in senders}) == len(senders)


def test_a_child_with_nobody_there(tmp_path: Path) -> None:
    """With the Collector down, each child says what it lost."""
    nobody = Sink(url=f"http://127.0.0.1:{closed_port()}")
    errors = run_children(
        tmp_path,
        nobody,
        imported=f"import logging\nlogging.disable()\n{CONFIGURED}",
        main="processes(multiprocessing.get_context('fork'))",
    )
    assert errors.count("2 of 2 spans did not reach") == 2


def test_a_block_in_which_a_process_forks_has_one_span(tmp_path: Path) -> None:
    """A forked child leaves the `with` block of its parent as well, and does not send its span a second time."""
    done = run(
        "-c",
        """
import os
import tracemind_otel as tm
telemetry = tm.configure(file="spans.jsonl")
with tm.flow(name="block"):
    child = os.fork()
if child:
    os.waitpid(child, 0)
telemetry.shutdown()
""",
        directory=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    with (tmp_path / "spans.jsonl").open(encoding="utf-8") as lines:
        assert [span.name for span in read_spans(lines)] == ["invoke_workflow block"]
