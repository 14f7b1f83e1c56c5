"""An existing FastAPI service that calls OpenAI's SDK, and its cost per endpoint in three more lines: `# +`.

Two of them are enough: FastAPI's own span of each request names the endpoint. The third makes each request to one
endpoint a flow, with a limit on what it may cost.

Without arguments the program starts the server, sends requests to both endpoints and stops. It needs
`pip install fastapi openai uvicorn`, but no key: without `OPENAI_API_KEY` a local server answers.
"""

from __future__ import annotations

import argparse
import contextlib
import socket
import threading
from collections.abc import Generator

import httpx
from local_model import stand_in

import tracemind_otel as tm  # +

try:
    import uvicorn
    from fastapi import FastAPI
    from openai import AsyncOpenAI
    from openai.types.chat import ChatCompletionUserMessageParam
    from pydantic import BaseModel
except ImportError as error:
    raise SystemExit(f"{error.name} is not installed: pip install fastapi openai uvicorn") from error

stand_in("openai")
FILE = "fastapi_costs.otlp.jsonl"
tm.configure(service_name="texts", file=FILE)  # +
app = FastAPI()
client = AsyncOpenAI()


class Text(BaseModel):
    text: str


async def ask(question: str) -> str:
    asked: ChatCompletionUserMessageParam = {"role": "user", "content": question}
    reply = await client.chat.completions.create(model="gpt-4o-mini", messages=[asked])
    return reply.choices[0].message.content or ""


@app.post("/summaries")
async def summarize(asked: Text) -> str:
    return await ask(f"Summarize in one line: {asked.text}")


@app.post("/answers/{topic}")
@tm.flow(max_cost_usd=0.05)  # +
async def answer(topic: str, asked: Text) -> str:
    draft = await ask(f"About {topic}: {asked.text}")
    return await ask(f"Check this answer: {draft}")


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
    with serving(arguments.port) as url:
        if arguments.serve:
            print(f"""curl {url}/summaries --json '{{"text": "A long story."}}'""", flush=True)
            with contextlib.suppress(KeyboardInterrupt):
                threading.Event().wait()
        else:
            for path in ("summaries", "answers/lamps", "answers/rain"):
                reply = httpx.post(f"{url}/{path}", json={"text": "A long story of ten words."}, trust_env=False)
                reply.raise_for_status()
    print(f"See the cost of each endpoint: python -m tracemind_otel view {FILE} --by endpoint")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
