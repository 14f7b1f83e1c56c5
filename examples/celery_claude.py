"""A Celery worker that calls Claude by Anthropic's SDK. The trace begins where the task is sent, and costs are in it.

Without arguments the program starts a worker, sends it two tasks and stops it. Its queue is a folder. It needs
`pip install celery anthropic`, but no key: without `ANTHROPIC_API_KEY` a local server answers.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Generator
from pathlib import Path
from typing import Any

from local_model import stand_in

import tracemind_otel as tm

try:
    from anthropic import Anthropic
    from anthropic.types import TextBlock
    from celery import Celery
except ImportError as error:
    raise SystemExit(f"{error.name} is not installed: pip install celery anthropic") from error

stand_in("anthropic")
service = os.environ.setdefault("OTEL_SERVICE_NAME", "shop")
queue = Path(os.environ.setdefault("QUEUE", tempfile.mkdtemp(prefix="queue-")))
tm.configure(file=f"celery_{service}.otlp.jsonl")

app = Celery("celery_claude", broker="filesystem://", backend=f"file://{queue}")
app.conf.broker_transport_options = dict.fromkeys(("data_folder_in", "data_folder_out", "control_folder"), str(queue))


@app.task(bind=True)
def summarize(self: Any, text: str) -> str:
    """Continue the trace of whoever sent the task."""
    with tm.continue_trace(self.request.headers), tm.flow("summarize"), Anthropic() as client:
        reply = client.messages.create(
            model="claude-haiku-4-5",
            max_tokens=100,
            messages=[{"role": "user", "content": f"Summarize in one line: {text}"}],
        )
    return "".join(block.text for block in reply.content if isinstance(block, TextBlock))


@contextlib.contextmanager
def worker() -> Generator[None]:
    """A worker in a process of its own, which forks a child for the tasks."""
    command = ["-m", "celery", "--quiet", "-A", "celery_claude", "worker", "--concurrency", "1", "--loglevel", "ERROR"]
    environment = {**os.environ, "OTEL_SERVICE_NAME": "worker", "PYTHONPATH": _with_this_folder()}
    with subprocess.Popen([sys.executable, *command], env=environment) as process:
        yield
        process.terminate()


def _with_this_folder() -> str:
    return os.pathsep.join(filter(None, (str(Path(__file__).parent), os.environ.get("PYTHONPATH"))))


def main() -> int:
    with worker():
        for text in ("A lamp was sold at the market.", "It rained all day long."):
            with tm.using_attributes(session_id="s-1"), tm.flow("accept"):
                job = summarize.apply_async([text], headers=tm.inject_context())
            print(job.get(timeout=30))
    shutil.rmtree(queue)
    print("See the traces: python -m tracemind_otel view celery_shop.otlp.jsonl celery_worker.otlp.jsonl")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
