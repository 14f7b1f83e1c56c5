"""An existing FastAPI service that shows its cost per endpoint. The lines that were added end with `# +`.

Without arguments the program starts the server, sends requests to both endpoints, prints the cost of each endpoint and
stops. It needs `pip install fastapi uvicorn`, but no key.
"""

from __future__ import annotations

import argparse
import contextlib
import socket
import threading
from collections.abc import Generator

import httpx

import tracemind_otel as tm  # +

try:
    import uvicorn
    from fastapi import FastAPI
    from pydantic import BaseModel
except ImportError as error:
    raise SystemExit(f"{error.name} is not installed: pip install fastapi uvicorn") from error

TOY_PRICE = tm.Price.from_mapping({"model": "toy-1", "input": 0.15, "output": 0.60})  # USD per million tokens
FILE = "fastapi_costs.otlp.jsonl"

app = FastAPI()


class Text(BaseModel):
    text: str


@app.post("/summaries")
@tm.flow("POST /summaries")  # +
async def summarize(asked: Text) -> str:
    reply = await tm.llm_call("fake/toy-1", f"Summarize in one line: {asked.text}")  # +
    return reply.text


@app.post("/answers")
@tm.flow("POST /answers")  # +
async def answer(asked: Text) -> str:
    draft = await tm.llm_call("fake/toy-1", asked.text, step="draft")  # +
    reply = await tm.llm_call("fake/toy-1", f"Check this answer: {draft.text}", step="check")  # +
    return reply.text


@contextlib.contextmanager
def serving(port: int) -> Generator[str]:
    """Run the server in a thread. The socket listens before the server starts, so clients can connect at once."""
    listening = socket.create_server(("127.0.0.1", port))
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
    thread = threading.Thread(target=server.run, args=([listening],))
    thread.start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--serve", action="store_true", help="serve until interrupted")
    parser.add_argument("--port", type=int, default=0, help="the port; the default is a free one")
    arguments = parser.parse_args()
    tm.configure(service_name="texts", file=FILE, prices=[TOY_PRICE])  # +
    with serving(arguments.port) as url:
        if arguments.serve:
            print(f"""curl {url}/summaries --json '{{"text": "A long story."}}'""", flush=True)
            with contextlib.suppress(KeyboardInterrupt):
                threading.Event().wait()
        else:
            for path in ("summaries", "answers", "answers"):
                reply = httpx.post(f"{url}/{path}", json={"text": "A long story of ten words."}, trust_env=False)
                reply.raise_for_status()
    print(f"See the cost of each endpoint: python -m tracemind_otel view {FILE} --by flow")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
