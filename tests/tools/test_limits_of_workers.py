"""Workers of gunicorn share one limit, whether each imports the application or inherits it from the master."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.ended import serving
from tests.servers.fixture import REPOSITORY
from tracemind_otel.flows.shared.sqlite_state import SqliteState
from tracemind_otel.flows.shared.state_port import Account, Settle, Sums

pytestmark = pytest.mark.tools

LIMIT = 12

SERVICE = f"""
import asyncio, os
import tracemind_otel as tm

tm.configure(file=f"{{os.environ['FOLDER']}}/spans.jsonl", state=f"sqlite:///{{os.environ['FOLDER']}}/limits.db")

@tm.flow(name="web", per="365d", max_llm_calls={LIMIT})
async def answer():
    await tm.llm_call("fake/toy-1", "hi", max_tokens=5)

async def who():
    try:
        await answer()
    except tm.BudgetExceededError:
        return b"0"
    return str(os.getpid()).encode()

asyncio.run(who())  # with preload in the master, which has a thread and a connection when it forks
"""

WSGI = """
def app(environ, start_response):
    body = asyncio.run(who())
    start_response("200 OK", [])
    return [body]
"""

ASGI = """
async def app(scope, receive, send):
    if scope["type"] == "http":
        body = await who()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": body})
"""


@pytest.mark.parametrize("preload", [[], ["--preload"]], ids=["each imports", "preload"])
@pytest.mark.parametrize(("kind", "app"), [("uvicorn_worker.UvicornWorker", ASGI), ("gthread", WSGI)])
def test_workers_of_gunicorn_share_a_limit(
    python: Path, tmp_path: Path, kind: str, app: str, preload: list[str]
) -> None:
    """Each call of the master and of the workers counts once, and together they send as many as the limit allows."""
    (tmp_path / "service.py").write_text(SERVICE + app)
    command = ["-m", "gunicorn", "-b", "127.0.0.1:0", "-w", "2", "-k", kind, *preload, "service:app"]
    environment = {"PYTHONPATH": str(REPOSITORY / "src"), "FOLDER": str(tmp_path)}
    with serving(tmp_path, *command, python=[python], **environment) as server:
        answers = [server.ask() for _ in range(LIMIT + 20)]
        code, log = server.stop(signal.SIGTERM)
    assert code == 0
    assert "Traceback" not in log
    at_import = 1 if preload else 2
    assert sum(worker != 0 for worker in answers) == LIMIT - at_import
    state = SqliteState(tmp_path / "limits.db", timeout_s=5)
    left = state.apply("reader", [Settle(Account("web", "", 365 * 86_400), None, Sums(), Sums())], 60)[0]
    state.close()
    assert (left.spent.llm_calls, left.held) == (LIMIT, Sums())
