"""The pages about Django, Celery, gunicorn, notebooks and scraping do what they say, with the tools themselves."""

from __future__ import annotations

import json
import signal
import subprocess
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import httpx
import pytest

from tests.ended import serving
from tests.pages import blocks, files, write_files
from tests.programs import clean_environment
from tests.servers.fixture import REPOSITORY
from tests.servers.otlp_sink import Sink
from tests.servers.otlp_sink import sink as sink

pytestmark = pytest.mark.tools

SOURCE = {"PYTHONPATH": f"{REPOSITORY / 'src'}:."}


def run(python: Path, directory: Path, program: str, **environment: str) -> str:
    """Run a program of the tools' Python and return what it prints."""
    done = subprocess.run(
        [python, "-c", program],
        cwd=directory,
        env=clean_environment(**SOURCE, **environment),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def attributes_of(sink: Sink, name: str) -> Mapping[str, str]:
    (found,) = (span for span in sink.spans() if span.name == name)
    return {item.key: item.value.string_value for item in found.attributes}


@pytest.mark.parametrize("preload", [[], ["--preload"]], ids=["each imports", "preload"])
def test_the_fastapi_page_under_gunicorn(python: Path, tmp_path: Path, sink: Sink, preload: list[str]) -> None:
    """The command of the page serves the service of the page, and its workers deliver."""
    write_files("docs/how-to/fastapi.md", tmp_path)
    options = ["-b", "127.0.0.1:0", "-w", "2", "-k", "uvicorn_worker.UvicornWorker", *preload]
    environment = {**SOURCE, "OTEL_EXPORTER_OTLP_ENDPOINT": sink.url}
    with serving(tmp_path, "-m", "gunicorn", *options, "service:app", python=[python], **environment) as server:
        asked = httpx.post(f"{server.url}/ask", params={"question": "why?"}, trust_env=False)
        assert asked.status_code == 200
        code, _ = server.stop(signal.SIGTERM)
    assert code == 0
    assert {"invoke_workflow ask": 1, "chat toy-1": 1}.items() <= Counter(span.name for span in sink.spans()).items()


SITE = """
import os
os.environ["DJANGO_SETTINGS_MODULE"] = "site_settings"
from django.core.asgi import get_asgi_application
from django.core.wsgi import get_wsgi_application
application = {kind}()
"""


@pytest.mark.parametrize("path", ["describe/lamp", "translate/lamp"])
@pytest.mark.parametrize("server", ["gunicorn", "uvicorn"])
def test_the_django_page(python: Path, tmp_path: Path, sink: Sink, server: str, path: str) -> None:
    """Synchronous and asynchronous views are flows with the user's id, under WSGI and under ASGI."""
    write_files("docs/how-to/django.md", tmp_path)
    kind = "get_wsgi_application" if server == "gunicorn" else "get_asgi_application"
    (tmp_path / "site_app.py").write_text(SITE.format(kind=kind))
    port = ["-b", "127.0.0.1:0"] if server == "gunicorn" else ["--port", "0"]
    environment = {**SOURCE, "OTEL_EXPORTER_OTLP_ENDPOINT": sink.url}
    with serving(tmp_path, "-m", server, *port, "site_app:application", python=[python], **environment) as running:
        reply = httpx.get(f"{running.url}/{path}", headers={"x-user": "ada"}, trust_env=False)
        assert reply.status_code == 200, reply.text
        running.stop(signal.SIGTERM)
    flow = f"invoke_workflow {path.partition('/')[0]}"
    assert Counter(span.name for span in sink.spans()) == {flow: 1, "chat toy-1": 1}
    assert attributes_of(sink, flow)["user.id"] == attributes_of(sink, "chat toy-1")["user.id"] == "ada"


FOLDERS = """
app.conf.broker_transport_options = {
    "data_folder_in": "queue", "data_folder_out": "queue", "control_folder": "control"
}
"""


def test_the_celery_page(python: Path, tmp_path: Path, sink: Sink) -> None:
    """The sender's trace and session go on in the worker, whose children deliver at a normal stop."""
    write_files("docs/how-to/celery.md", tmp_path)
    tasks = tmp_path / "tasks.py"
    tasks.write_text(tasks.read_text().replace('results")\n', f'results")\n{FOLDERS}', 1))
    for folder in ("queue", "control", "results"):
        (tmp_path / folder).mkdir()
    environment = clean_environment(OTEL_EXPORTER_OTLP_ENDPOINT=sink.url, **SOURCE)
    command: list[str | Path] = [python, "-m", "celery", "-A", "tasks", "worker", "-c", "1"]
    with (
        (tmp_path / "log").open("w") as log,
        subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=log, stderr=log) as worker,
    ):
        try:
            sender = files("docs/how-to/celery.md")["sender.py"] + "\njob.get(timeout=60)\n"
            sender += 'from tasks import translate\ntranslate.delay("A lamp").get(timeout=60)\n'
            run(python, tmp_path, sender, OTEL_EXPORTER_OTLP_ENDPOINT=sink.url)
            worker.terminate()
            assert worker.wait(60) == 0
        finally:
            worker.kill()
    accepted, summary = (
        next(span for span in sink.spans() if span.name == f"invoke_workflow {name}")
        for name in ("accept", "summarise")
    )
    assert (summary.trace_id, summary.parent_span_id) == (accepted.trace_id, accepted.span_id)
    assert attributes_of(sink, "invoke_workflow summarise")["session.id"] == "s-1"
    assert Counter(span.name for span in sink.spans())["chat toy-1"] == 2


NOTEBOOK = """
import json, sys, nbclient, nbformat
cells = [nbformat.v4.new_code_cell(source) for source in json.loads(sys.stdin.readline())]
notebook = nbformat.v4.new_notebook(cells=cells)
nbclient.NotebookClient(notebook, timeout=60, kernel_name="python3").execute()
print(json.dumps([cell.outputs for cell in cells]))
"""


def test_the_notebook_page(python: Path, tmp_path: Path) -> None:
    """Every cell runs in a kernel with a running loop, and the last one prints the cost by step."""
    page = [block for block in blocks() if block.page == "docs/how-to/notebook.md"]
    cells = [block.code for block in page if block.title]
    cells += [block.code.replace("tracemind-otel", f"{python} -m tracemind_otel") for block in page if not block.title]
    done = subprocess.run(
        [python, "-c", NOTEBOOK],
        cwd=tmp_path,
        env=clean_environment(IPYTHONDIR=str(tmp_path), JUPYTER_RUNTIME_DIR=str(tmp_path), **SOURCE),
        input=json.dumps(cells) + "\n",
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    _, call, _, table = json.loads(done.stdout.splitlines()[-1])
    assert "LLMResult(" in json.dumps(call)
    printed = "".join(output.get("text", "") for output in table)
    assert "summarise" in printed


def test_a_process_that_prometheus_scrapes(python: Path, tmp_path: Path) -> None:
    """The program of the page serves the cost under the name that the page's queries use."""
    scraped = files("docs/how-to/prometheus.md")["scraped.py"].replace("9464", "0")
    program = scraped.replace("start_http_server(0)", "server, _ = start_http_server(0)") + SCRAPE
    assert "tracemind_llm_cost_USD_total{" in run(python, tmp_path, program)


SCRAPE = """
import urllib.request
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
print(opener.open(f"http://127.0.0.1:{server.server_port}/metrics").read().decode())
"""
