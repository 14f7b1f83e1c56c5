"""A FastAPI endpoint that streams a model's answer. Each request is one flow, which lasts until the stream ends.

Without arguments the program starts the server, sends one question to it, prints the streamed answer and stops. It
needs `pip install fastapi uvicorn`, but no key.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import socket
import threading
from collections.abc import AsyncGenerator, Generator

import httpx

import tracemind_otel as tm
from tracemind_otel.ai.llm.providers import FakeLLMClient

try:
    import uvicorn
    from fastapi import FastAPI
    from fastapi.responses import StreamingResponse
    from pydantic import BaseModel
except ImportError as error:
    raise SystemExit(f"{error.name} is not installed: pip install fastapi uvicorn") from error

TOY_PRICE = tm.Price.from_mapping({"model": "toy-1", "input": 0.15, "output": 0.60})  # USD per million tokens
QUESTION = {"question": "When does a stream end?", "session": "s-1"}
MODEL = FakeLLMClient(20, text="A stream ends with its last word, or with its reader. " * 3, chunk_gap_ms=10)


def session_of(question: str, session: str) -> str:
    return session


@tm.flow(session_id=session_of)
async def answer(question: str, session: str) -> AsyncGenerator[str, None]:
    async with tm.llm_stream("fake/toy-1", question, client=MODEL) as stream:
        async for text in stream.text_deltas():
            yield text


app = FastAPI()


class Question(BaseModel):
    question: str
    session: str


@app.post("/ask")  # a query string would put the question into access logs and HTTP spans
async def ask(asked: Question) -> StreamingResponse:
    return StreamingResponse(answer(asked.question, asked.session), media_type="text/plain")


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
    parser.add_argument("--file", default="fastapi_stream.otlp.jsonl", help="file for the trace, as OTLP JSON lines")
    arguments = parser.parse_args()
    with tm.configure(service_name="fastapi", file=arguments.file, prices=[TOY_PRICE]), serving(arguments.port) as url:
        if arguments.serve:
            print(f"curl -N {url}/ask --json '{json.dumps(QUESTION)}'", flush=True)
            with contextlib.suppress(KeyboardInterrupt):
                threading.Event().wait()
        else:
            with httpx.stream("POST", f"{url}/ask", json=QUESTION, trust_env=False) as reply:
                for piece in reply.iter_text():
                    print(piece, end="", flush=True)
    print(f"\nSee the trace: python -m tracemind_otel view {arguments.file}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
