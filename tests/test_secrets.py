"""Neither the key nor the prompt leaves the process by anything but the request, whatever servers and clients do."""

from __future__ import annotations

import base64
import json
import logging
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

import tracemind_otel as tm
from tests.programs import run_program
from tests.servers.fixture import OpenAIServer, closed_port
from tests.servers.fixture import openai_server as openai_server
from tests.servers.openai_server import Action
from tests.support import Captured, attributes
from tracemind_otel.ai.llm.providers import OpenAILLMClient

KEY = "sk-proj-Zq81LmmT0x9vB3kE7wYd"
PROMPT = 'The "Zanzibar" merger:\nwhat did Ms. O\'Hara pay, in € — and why did it stay secret?'
SHORT_PROMPT = "PIN 4711"
FOREIGN_PROMPT = "😀请告诉我关于桑给巴尔合并的所有秘密细节以及奥哈拉女士支付了多少钱"
WINDOW = 24


def needles(prompt: str) -> set[str]:
    """The key, and the prompt in every spelling that a program would give it."""
    spellings = {prompt, json.dumps(prompt)[1:-1], json.dumps(json.dumps(prompt))[3:-3], repr(prompt)[1:-1]}
    parts = {spelling[:WINDOW] for spelling in spellings} | {spelling[-WINDOW:] for spelling in spellings}
    return spellings | parts | {KEY, base64.b64encode(KEY.encode()).decode()}


def leaks(text: str, prompt: str) -> list[str]:
    """The needles in a string."""
    return [needle for needle in needles(prompt) if needle in text]


class Doors:
    """Everything by which data leaves the process during a test."""

    def __init__(self, capture: Captured, caplog: pytest.LogCaptureFixture) -> None:
        self._capture = capture
        self._caplog = caplog
        self._told: list[str] = []
        for name, level in {"tracemind_otel": "DEBUG", "httpx": "INFO", "httpcore": "INFO", "aiohttp": "INFO"}.items():
            caplog.set_level(level, name)

    def tell(self, value: object) -> None:
        """Add something that was returned or raised."""
        lines = traceback.format_exception(value) if isinstance(value, BaseException) else [repr(value)]
        self._told.extend(lines)

    def text(self) -> str:
        """Everything, as a string."""
        formatter = logging.Formatter()
        logs = [formatter.format(record) + repr(record.args) for record in self._caplog.records]
        metrics = self._capture.reader.get_metrics_data()
        spans = [
            f"{span.to_json()} {dict(span.attributes or {})!r} {span.status.description!r}"
            for span in self._capture.spans
        ]
        events = [
            repr((event.name, dict(event.attributes or {}))) for span in self._capture.spans for event in span.events
        ]
        return "\n".join([*self._told, *logs, *spans, *events, metrics.to_json() if metrics else ""])


@pytest.fixture
def doors(capture: Captured, caplog: pytest.LogCaptureFixture) -> Doors:
    """Watches everything that leaves the process during a test."""
    return Doors(capture, caplog)


def _error(status: int, error: Mapping[str, Any], **headers: str) -> Action:
    return {"status": status, "headers": headers, "body": json.dumps({"error": error})}


ECHOES: dict[str, Callable[[str], Action]] = {
    "message": lambda prompt: _error(400, {"message": f"bad request: Bearer {KEY} said {prompt}"}),
    "message-of-json": lambda prompt: _error(
        400, {"message": "bad request: " + json.dumps({"key": KEY, "messages": [{"content": prompt}]})}
    ),
    "message-of-json-in-json": lambda prompt: _error(422, {"message": json.dumps(json.dumps({"content": prompt}))}),
    "message-of-repr": lambda prompt: _error(400, {"message": f"ValidationError: {{'content': {prompt!r}}}"}),
    "first-half": lambda prompt: _error(
        400, {"message": f"cannot parse: {prompt[: max(WINDOW + 4, len(prompt) // 2)]}"}
    ),
    "401": lambda prompt: _error(401, {"message": f"Incorrect API key provided: {KEY}.", "code": "invalid_api_key"}),
    "code": lambda prompt: _error(400, {"message": "no", "code": KEY}),
    "code-of-prompt": lambda prompt: _error(400, {"message": "no", "code": prompt}),
    "type": lambda prompt: {"body": json.dumps({"error": {"message": "no", "type": KEY}})},
    "plain-text-in-error": lambda prompt: {"status": 400, "body": json.dumps({"error": f"{KEY} {prompt}"})},
    "detail": lambda prompt: {"status": 422, "body": json.dumps({"detail": f"{KEY} {prompt}"})},
    "html": lambda prompt: {
        "status": 500,
        "headers": {"content-type": "text/html", "retry-after-ms": "10"},
        "body": f"<html><pre>authorization: Bearer {KEY}\n{prompt}</pre></html>",
    },
    "plain": lambda prompt: {"status": 400, "headers": {"content-type": "text/plain"}, "body": f"{KEY} {prompt}"},
    "success-not-json": lambda prompt: {"headers": {"x-echo": KEY}, "body": f"{KEY} {prompt}"},
    "success-not-an-object": lambda prompt: {"body": json.dumps([KEY, prompt])},
    "success-with-error": lambda prompt: {"body": json.dumps({"error": {"message": f"{KEY} {prompt}", "code": 400}})},
    "success-without-choices": lambda prompt: {"body": json.dumps({"id": KEY, "choices": [], "input": prompt})},
    "header": lambda prompt: _error(400, {"message": "no"}, **{"x-request-id": f"req-{KEY}"}),
    "over-long-header": lambda prompt: {"headers": {"x-echo": f"Bearer {KEY} " * 5000}, "body": "{}"},
    "reset": lambda prompt: {"do": "reset"},
    "time-out": lambda prompt: {"do": "hang"},
}


@pytest.mark.parametrize("prompt", [PROMPT, SHORT_PROMPT, FOREIGN_PROMPT], ids=["prompt", "short", "foreign"])
@pytest.mark.parametrize("name", list(ECHOES))
async def test_server_that_repeats(
    openai_server: OpenAIServer, capture: Captured, doors: Doors, name: str, prompt: str
) -> None:
    """A server's error that repeats key and prompt puts neither into result, telemetry or logs."""
    model = openai_server.script(ECHOES[name](prompt))
    config = tm.LLMCallConfig("openai", model, prompt=prompt, timeout_ms=500, max_retries=0)

    async with OpenAILLMClient(KEY, openai_server.base_url) as client:
        result = await tm.run_llm_call("f", "s", config, capture.recorder(), client=client)
        doors.tell(client)

    doors.tell(result)
    assert result["status"] == "error"
    assert openai_server.requests(model)[0].headers["authorization"] == f"Bearer {KEY}"
    assert leaks(doors.text(), prompt) == []


async def test_server_that_is_not_there(capture: Captured, doors: Doors) -> None:
    """The error for a refused connection names the address, and not the prompt."""
    async with OpenAILLMClient(KEY, f"http://127.0.0.1:{closed_port()}") as client:
        config = tm.LLMCallConfig("openai", "m", prompt=PROMPT, max_retries=0)
        doors.tell(await tm.run_llm_call("f", "s", config, capture.recorder(), client=client))

    assert leaks(doors.text(), PROMPT) == []


async def test_good_call(openai_server: OpenAIServer, capture: Captured, doors: Doors) -> None:
    """A successful call records tokens and cost, and nothing of the prompt or the reply."""
    reply = {"id": "chatcmpl-1", "choices": [{"message": {"content": PROMPT}, "finish_reason": "stop"}]}
    model = openai_server.script({"body": json.dumps(reply)})

    async with OpenAILLMClient(KEY, openai_server.base_url) as client:
        config = tm.LLMCallConfig("openai", model, prompt=PROMPT)
        result = await tm.run_llm_call("f", "s", config, capture.recorder(), client=client)

    assert result["text"] == PROMPT
    assert leaks(doors.text(), PROMPT) == []


@pytest.mark.parametrize("name", ["message", "message-of-json", "401", "success-not-json", "html"])
async def test_error_that_is_raised(openai_server: OpenAIServer, doors: Doors, name: str) -> None:
    """A client's error, used on its own, has no key in its message or its chain."""
    model = openai_server.script(ECHOES[name](PROMPT))

    async with OpenAILLMClient(KEY, openai_server.base_url) as client:
        with pytest.raises(tm.LLMError) as caught:
            await client.complete(tm.LLMRequest("openai", model, PROMPT))

    doors.tell(caught.value)
    doors.tell(vars(caught.value))
    assert leaks(doors.text(), PROMPT) == []


# --- Content ---

_CONTENT = (
    "gen_ai.system_instructions",
    "gen_ai.input.messages",
    "gen_ai.output.messages",
    "gen_ai.tool.definitions",
    "gen_ai.tool.call.arguments",
    "gen_ai.tool.call.result",
)
"""The attributes that have content, if it is asked for."""


def _reply(text: str) -> Action:
    call = {"id": "c1", "type": "function", "function": {"name": "look_up", "arguments": json.dumps({"said": text})}}
    message = {"content": text, "tool_calls": [call]}
    return {"body": json.dumps({"id": "chatcmpl-1", "choices": [{"message": message, "finish_reason": "stop"}]})}


def _stream(text: str) -> Action:
    piece = {"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": "stop"}]}
    return {"headers": {"content-type": "text/event-stream"}, "body": f"data: {json.dumps(piece)}\n\ndata: [DONE]\n\n"}


@tm.tool
def repeat(said: str) -> str:
    return said


async def _every_way(server: OpenAIServer, said: str) -> None:
    """Send and receive it by calls, streams, a client that is not ours and a tool; the second half of them fails."""
    told = {"message": f"bad request: {said}"}
    failing = _error(400, told)
    broken: Action = {
        "headers": {"content-type": "text/event-stream"},
        "body": f"data: {json.dumps({'error': told})}\n\n",
    }
    wrong: Action = {"body": json.dumps({"error": told})}
    model = server.script(_reply(said), _stream(said), _reply(said), failing, broken, wrong, failing, broken, wrong)
    config = tm.LLMCallConfig("openai", model, prompt=said, system=said, max_retries=0)
    async with OpenAILLMClient(KEY, server.base_url) as client:
        await tm.run_llm_call("f", "s", config, client=client)
        async with tm.stream_llm_call("f", "s", config, client=client) as stream:
            async for _ in stream:
                pass
        async with httpx.AsyncClient(headers={"authorization": f"Bearer {KEY}"}) as other:
            body = json.dumps({"model": model, "messages": [{"role": "user", "content": said}]}).encode()
            streamed = body.replace(b"{", b'{"stream": true, ', 1)
            for content in (body, body, streamed, body):
                await other.post(f"{server.base_url}/chat/completions", content=content)
        await tm.run_llm_call("f", "s", config, client=client)
        with suppress(tm.LLMError):
            async with tm.stream_llm_call("f", "s", config, client=client) as stream:
                async for _ in stream:
                    pass
        await tm.run_llm_call("f", "s", config, client=client)
    repeat(said)


def _configured(capture: Captured, server: OpenAIServer, *, content: bool) -> tm.Telemetry:
    return tm.configure(
        tracer_provider=capture.tracer_provider,
        meter_provider=capture.meter_provider,
        capture_content=content,
        hosts={f"127.0.0.1:{server.port}": "openai"},
    )


@pytest.mark.parametrize("header", ["authorization", "x-api-key"])
@pytest.mark.parametrize("name", list(ECHOES))
async def test_server_that_repeats_to_another_client(
    openai_server: OpenAIServer, capture: Captured, doors: Doors, name: str, header: str
) -> None:
    """A server's error that repeats key and prompt of a client that is not ours puts neither into telemetry or logs."""
    model = openai_server.script(ECHOES[name](PROMPT))
    value = f"Bearer {KEY}" if header == "authorization" else KEY
    with _configured(capture, openai_server, content=False):
        async with httpx.AsyncClient(headers={header: value}, timeout=0.5) as other:
            body = json.dumps({"model": model, "messages": [{"role": "user", "content": PROMPT}]}).encode()
            with suppress(httpx.HTTPError):
                await other.post(f"{openai_server.base_url}/chat/completions", content=body)
    assert [span.name for span in capture.spans] == [f"chat {model}"]
    assert leaks(doors.text(), PROMPT) == []


@pytest.mark.parametrize("prompt", [PROMPT, SHORT_PROMPT, FOREIGN_PROMPT], ids=["prompt", "short", "foreign"])
async def test_without_content_nothing_of_what_is_said(
    openai_server: OpenAIServer, capture: Captured, doors: Doors, prompt: str
) -> None:
    """Calls, streams, calls of other clients, tools and failures put neither prompt nor answer anywhere."""
    with _configured(capture, openai_server, content=False):
        await _every_way(openai_server, prompt)
    assert len([span for span in capture.spans if span.name.startswith("chat")]) == 9
    assert leaks(doors.text(), prompt) == []


async def test_with_content_it_is_in_its_attributes_and_nowhere_else(
    openai_server: OpenAIServer, capture: Captured, doors: Doors
) -> None:
    """Names, events, the status, other attributes, metrics and logs are as free of it as without."""
    with _configured(capture, openai_server, content=True):
        await _every_way(openai_server, FOREIGN_PROMPT)
    told = doors.text()
    content = {attributes(span)[name] for span in capture.spans for name in _CONTENT if name in attributes(span)}
    assert all(FOREIGN_PROMPT in text for text in content if not text.startswith('[{"type":"function"'))
    assert len(content) >= 4
    for text in sorted(content, key=len, reverse=True):
        for spelling in (json.dumps(text)[1:-1], repr(text)[1:-1], json.dumps(text, ensure_ascii=False)[1:-1], text):
            told = told.replace(spelling, "")
    assert leaks(told, FOREIGN_PROMPT) == []


@pytest.mark.parametrize(
    "said",
    [
        f"My key is {KEY}.",
        f"Authorization: Bearer {KEY}",
        f'{{"api_key": "{KEY}", "n": 1}}',
        json.dumps(json.dumps({"api_key": KEY})),
        f"curl https://user:{KEY}@host/path?api_key={KEY}",
        f"OPENAI_API_KEY={KEY}",
        "x" * 70_000 + KEY,
        "x" * 65_530 + KEY,
        f"😀\ud800 {KEY}\0",
    ],
    ids=["words", "header", "json", "json-in-json", "url", "setting", "far-behind", "across-the-limit", "odd"],
)
async def test_with_content_no_key(openai_server: OpenAIServer, capture: Captured, doors: Doors, said: str) -> None:
    """A key is scrubbed from prompts, answers, arguments and results, in each spelling and at each place."""
    with _configured(capture, openai_server, content=True):
        await _every_way(openai_server, said)
    written = doors.text()
    assert "gen_ai.input.messages" in written
    assert [needle for needle in (KEY, KEY[:20], KEY[-16:]) if needle in written] == []


class _TellingClient(tm.AsyncLLMClient):
    """A third-party client that puts the request into its errors."""

    provider_name = "third-party"

    def __init__(self, error: type[Exception]) -> None:
        self._error = error

    async def complete(self, req: tm.LLMRequest) -> tm.LLMResponse:
        raise self._error(f"cannot send {req.prompt} as {req!r}")


@pytest.mark.parametrize("prompt", [PROMPT, SHORT_PROMPT, FOREIGN_PROMPT], ids=["prompt", "short", "foreign"])
@pytest.mark.parametrize("error", [RuntimeError, TimeoutError, ConnectionError, tm.LLMServerError])
async def test_client_that_repeats(capture: Captured, doors: Doors, error: type[Exception], prompt: str) -> None:
    """A third-party client's exception with the prompt puts it into no telemetry."""
    config = tm.LLMCallConfig("third-party", "m", prompt=prompt, max_retries=0)

    result = await tm.run_llm_call("f", "s", config, capture.recorder(), client=_TellingClient(error))

    doors.tell(result)
    assert result["status"] == "error"
    assert leaks(doors.text(), prompt) == []


def test_flow_and_step_that_raise(capture: Captured, doors: Doors) -> None:
    """An exception that leaves a flow is recorded by type and place, without its message or its causes'."""

    @tm.step
    def ask() -> None:
        raise RuntimeError(PROMPT)

    @tm.flow
    def answer() -> None:
        try:
            ask()
        except RuntimeError as error:
            raise ValueError(f"{KEY} {PROMPT}") from error

    with pytest.raises(ValueError):
        answer()

    assert len(capture.spans) == 2
    assert "RuntimeError" in doors.text()
    assert leaks(doors.text(), PROMPT) == []


class _BrokenRecorder(tm.Recorder):
    """A third-party recorder that raises with what it got."""

    def record_step_end(self, flow_id: str, step_id: str, status: str, payload: dict[str, Any] | None = None) -> None:
        raise RuntimeError("cannot store this step")


async def test_recorder_that_raises(doors: Doors) -> None:
    """A broken recorder is logged with a traceback that has no prompt."""
    client = tm.LLMClientFactory.make("fake")
    config = tm.LLMCallConfig("fake", "m", prompt=PROMPT)

    await tm.run_llm_call("f", "s", config, _BrokenRecorder(), client=client)

    assert "cannot store this step" in doors.text()
    assert leaks(doors.text(), PROMPT) == []


@pytest.mark.parametrize("character", ["\n", "\r\nX-Evil: 1", "é", " ", "\x00", "\x7f"])
def test_key_that_cannot_be_sent(doors: Doors, character: str) -> None:
    """A key that no header can carry is rejected at once, and not shown."""
    half = len(KEY) // 2
    with pytest.raises(tm.ConfigError, match="api_key") as caught:
        OpenAILLMClient(KEY[:half] + character + KEY[half:])

    doors.tell(caught.value)
    assert KEY[:half] not in doors.text()
    assert KEY[half:] not in doors.text()


@pytest.mark.parametrize(
    "base_url",
    [f"https://user:{KEY}@host/v1", f"https://{KEY}@host/v1", f"ftp://{KEY}/v1", f"https://host/v1?key={KEY}"],
)
def test_base_url_with_a_key(doors: Doors, base_url: str) -> None:
    """A base URL with a key is rejected and not shown, since HTTP libraries log it."""
    with pytest.raises(tm.ConfigError, match="base_url") as caught:
        OpenAILLMClient(None, base_url)

    doors.tell(caught.value)
    assert leaks(doors.text(), PROMPT) == []


@pytest.mark.parametrize(
    "wrong",
    [
        {"vars": PROMPT},
        {"vars": [PROMPT]},
        {"prompt": [PROMPT]},
        {"template": {"text": PROMPT}},
        {"extra": PROMPT},
        {"prompt": PROMPT, "timeout_ms": -1},
        {"prompt": PROMPT, "promt": PROMPT},
        {"prompt": PROMPT, "extra": {"stream": True, "messages": [PROMPT]}},
    ],
    ids=["vars", "vars-list", "prompt", "template", "extra", "timeout", "unknown-field", "stream"],
)
def test_configuration_that_is_wrong(doors: Doors, wrong: dict[str, Any]) -> None:
    """The error for a wrong configuration names the field, and shows no prompt and no variables."""
    with pytest.raises(tm.ConfigError) as caught:
        tm.LLMCallConfig.from_mapping({"provider": "fake", "model": "m", **wrong})

    doors.tell(caught.value)
    assert leaks(doors.text(), PROMPT) == []


FILE_PROGRAM = """
import asyncio, json, logging, sys
import tracemind_otel as tm

path, prompt, models = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
logging.basicConfig(level=logging.INFO)
logging.getLogger("tracemind_otel").setLevel(logging.DEBUG)

@tm.flow
async def ask(recorder):
    for model in models:
        config = tm.LLMCallConfig("openai", model, prompt=prompt, max_retries=1, timeout_ms=500)
        await tm.run_llm_call("flow", "step", config, recorder)
    raise RuntimeError(prompt)

async def main():
    async with tm.configure(file=path) as telemetry:
        try:
            await ask(telemetry.recorder)
        except RuntimeError:
            pass

asyncio.run(main())
"""


@pytest.mark.parametrize("content", ["", "SPAN_ONLY"], ids=["off", "on"])
def test_local_file_and_stderr(openai_server: OpenAIServer, tmp_path: Path, content: str) -> None:
    """A process's file of spans and its stderr have neither key nor prompt; the file has prompts if it is asked to."""
    path = tmp_path / "spans.jsonl"
    repeated = [
        openai_server.script(ECHOES[name](PROMPT)) for name in ("message", "html", "success-not-json", "time-out")
    ]
    good = openai_server.script({"body": json.dumps({"choices": [{"message": {"content": PROMPT}}]})})

    done = run_program(
        FILE_PROGRAM,
        path,
        PROMPT,
        json.dumps([*repeated, good]),
        environment={
            "OPENAI_API_KEY": KEY,
            "OPENAI_BASE_URL": openai_server.base_url,
            "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT": content,
        },
    )

    assert done.returncode == 0, done.stderr
    written = path.read_text(encoding="utf-8")
    assert written.count('"chat scripted-') == 5
    assert "ai.llm_call openai/" in done.stderr, "the log is on"
    if content:
        assert "Zanzibar" in written
        assert KEY not in written
    else:
        assert leaks(written, PROMPT) == []
    assert leaks(done.stderr + done.stdout, PROMPT) == []
