"""Conversations in the form of OpenTelemetry's GenAI conventions: messages of a role and typed parts. Pure.

Requests are read from our own types, or from the body that any of the known formats has. The shapes of their blocks do
not collide, so one reader knows them all. A block of an unknown kind is named by its type alone: it may hold anything.

Source: semantic-conventions-genai, `docs/gen-ai/gen-ai-input-messages.json` and its neighbours.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, repeat
from typing import Any, cast

from .types import Image, LLMRequest, LLMResponse, Message, Text, ToolCall

Part = dict[str, Any]
"""A part of a message: its `type`, and what that type has."""

_ROLES = {"model": "assistant", "function": "tool", "developer": "system"}
"""The conventions' word for a role that a format names otherwise."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ChatMessage:
    """One message."""

    role: str
    """The author: `system`, `user`, `assistant`, `tool`, or a provider's own word."""
    parts: tuple[Part, ...]
    """Its parts, in order."""
    finish_reason: str | None = None
    """Why an answer ended, as the provider says it; some backends reject an answer without."""


@dataclass(frozen=True, kw_only=True, slots=True)
class InputContent:
    """What a model is asked."""

    messages: tuple[ChatMessage, ...] = ()
    """The conversation."""
    system_instructions: tuple[Part, ...] = ()
    """Instructions that are given apart from the conversation."""
    tool_definitions: tuple[Part, ...] = ()
    """The tools that the model may call: `type`, `name`, `description`, `parameters`."""


# --- Our own types ---


def input_of_request(request: LLMRequest) -> InputContent:
    """What one of our requests asks; tools are looked for in `extra`."""
    return InputContent(
        messages=tuple(map(_of_message, request.conversation)),
        system_instructions=(_text(request.system),) if request.system else (),
        tool_definitions=_tools_in(request.extra),
    )


def output_of(response: LLMResponse) -> tuple[ChatMessage, ...]:
    """What a model answered, one message for each choice."""
    parts: list[Part] = []
    if response.reasoning:
        parts.append({"type": "reasoning", "content": response.reasoning})
    parts += [_text(said) for said in (response.text, response.refusal) if said]
    parts += map(_of_call, response.tool_calls)
    choices = _objects(response.raw.get("choices")) or _objects(response.raw.get("candidates"))
    answers = [(ChatMessage(role="assistant", parts=tuple(parts)),) if parts else (), *map(_answer_of, choices[1:])]
    reasons = chain(_reasons_of(choices, response.finish_reasons), repeat(None))
    return tuple(
        replace(message, finish_reason=reason)
        for answer, reason in zip(answers, reasons, strict=False)
        for message in answer
    )


def _answer_of(choice: Mapping[str, Any]) -> Iterable[ChatMessage]:
    return _messages_of(choice.get("message") or choice.get("content") or choice.get("text"), "assistant")


def _reasons_of(choices: Sequence[Mapping[str, Any]], reasons: Sequence[str]) -> Sequence[str | None]:
    """Why each choice ended; `None` for one of which that is not known, as in a stream that broke off."""
    if len(reasons) >= len(choices):
        return reasons
    said = (choice.get("finish_reason", choice.get("finishReason")) for choice in choices)
    return [reason if reason in reasons else None for reason in said]


def _of_message(message: Message) -> ChatMessage:
    if message.role == "tool":
        return ChatMessage(role="tool", parts=(_response_part(message.tool_call_id, message.text),))
    content = (Text(message.content),) if isinstance(message.content, str) else message.content
    parts = [_of_image(part) if isinstance(part, Image) else _text(part.text) for part in content]
    kept = [part for part in parts if part.get("content") != "" or part["type"] != "text"]
    return ChatMessage(role=message.role, parts=(*kept, *map(_of_call, message.tool_calls)))


def _of_image(image: Image) -> Part:
    if image.data is not None:
        return _blob("image", image.media_type, len(image.data))
    return _reference("image", image.url)


def _of_call(call: ToolCall) -> Part:
    return _call_part(call.id, call.name, call.arguments)


# --- Bodies of requests ---


def input_of_body(body: Mapping[str, Any]) -> InputContent:
    """What the JSON body of a request asks, in any of the formats."""
    apart = body.get("system", body.get("instructions", body.get("systemInstruction", body.get("system_instruction"))))
    named = ("messages", "contents", "input", "prompt", "inputText")
    asked = next((body[name] for name in named if name in body), None)
    return InputContent(
        messages=tuple(_messages_of(asked, "user")),
        system_instructions=tuple(_parts_of(apart)),
        tool_definitions=_tools_in(body),
    )


def _messages_of(value: object, role: str) -> Iterator[ChatMessage]:
    if isinstance(value, str):
        yield ChatMessage(role=role, parts=(_text(value),))
    elif isinstance(value, Mapping):
        yield _message_of(cast("Mapping[str, Any]", value), role)
    else:
        for item in _items(value):
            yield from _messages_of(item, role)


def _message_of(message: Mapping[str, Any], role: str) -> ChatMessage:
    """A message of a chat, or an item of the Responses API, which may be a call or its result."""
    named = message.get("role")
    if not isinstance(named, str):
        part = _part_of(message)
        if part["type"] == "tool_call_response":
            role = "tool"
        elif part["type"] in ("tool_call", "reasoning"):
            role = "assistant"
        has_parts = "parts" in message or "content" in message
        return ChatMessage(role=role, parts=tuple(_content_of(message)) if has_parts else (part,))
    role = _ROLES.get(named, named)
    if role == "tool" and "tool_call_id" in message:
        response = _response_part(message["tool_call_id"], _result(message.get("content")))
        return ChatMessage(role=role, parts=(response,))
    return ChatMessage(role=role, parts=tuple(_content_of(message)))


def _content_of(message: Mapping[str, Any]) -> Iterator[Part]:
    for name in ("reasoning_content", "reasoning", "thinking"):
        if isinstance(message.get(name), str) and message[name]:
            yield {"type": "reasoning", "content": message[name]}
            break
    yield from _parts_of(message.get("content", message.get("parts")))
    if isinstance(message.get("refusal"), str):
        yield _text(message["refusal"])
    for image in _items(message.get("images")):  # of Ollama, in base64
        yield _blob("image", None, _size_of(image))
    for call in _objects(message.get("tool_calls")):
        function = _object(call.get("function")) or _object(call.get("custom")) or call
        yield _call_part(call.get("id"), function.get("name"), function.get("arguments", function.get("input")))


def _parts_of(value: object) -> Iterator[Part]:
    if isinstance(value, str):
        if value:
            yield _text(value)
    elif isinstance(value, Mapping):
        block = cast("Mapping[str, Any]", value)
        yield from _parts_of(block["parts"]) if "parts" in block else (_part_of(block),)
    else:
        for item in _items(value):
            yield from _parts_of(item)


def _part_of(block: Mapping[str, Any]) -> Part:
    kind = block.get("type")
    if not isinstance(kind, str):  # Gemini's and Converse's blocks are told by their one key
        kind = next((name for name in block if name in _READERS), "text" if "text" in block else "unknown")
    if kind.endswith("_tool_result"):
        return _server_response(block, kind)
    reader = _READERS.get(kind)
    part = None if reader is None else reader(block)
    return {"type": kind} if part is None else part


def _text_part(block: Mapping[str, Any]) -> Part | None:
    text = block.get("text")
    if not isinstance(text, str):
        return None
    return {"type": "reasoning", "content": text} if block.get("thought") is True else _text(text)


def _thinking(block: Mapping[str, Any]) -> Part:
    """Reasoning: Anthropic's block, Converse's, or an item of the Responses API."""
    inner = _object(block.get("reasoningContent")).get("reasoningText", block)
    inner = _object(inner)
    said = inner.get("thinking", inner.get("text"))
    if not isinstance(said, str):
        said = "".join(str(piece.get("text", "")) for piece in _objects(inner.get("summary")))
    return {"type": "reasoning", "content": said}


def _refusal(block: Mapping[str, Any]) -> Part:
    return _text(str(block.get("refusal", "")))


def _anthropic_call(block: Mapping[str, Any]) -> Part:
    return _call_part(block.get("id"), block.get("name"), block.get("input"))


def _responses_call(block: Mapping[str, Any]) -> Part:
    return _call_part(block.get("call_id"), block.get("name"), block.get("arguments", block.get("input")))


def _converse_call(block: Mapping[str, Any]) -> Part:
    use = _object(block.get("toolUse"))
    return _call_part(use.get("toolUseId"), use.get("name"), use.get("input"))


def _gemini_call(block: Mapping[str, Any]) -> Part:
    call = _object(block.get("functionCall", block.get("function_call")))
    return _call_part(call.get("id"), call.get("name"), call.get("args"))


def _anthropic_result(block: Mapping[str, Any]) -> Part:
    return _response_part(block.get("tool_use_id"), _result(block.get("content")))


def _responses_result(block: Mapping[str, Any]) -> Part:
    return _response_part(block.get("call_id"), _result(block.get("output")))


def _converse_result(block: Mapping[str, Any]) -> Part:
    result = _object(block.get("toolResult"))
    return _response_part(result.get("toolUseId"), _result(result.get("content")))


def _gemini_result(block: Mapping[str, Any]) -> Part:
    answer = _object(block.get("functionResponse", block.get("function_response")))
    return _response_part(answer.get("id"), answer.get("response"))


def _server_call(block: Mapping[str, Any]) -> Part:
    name = str(block.get("name", "unknown"))
    return _with_id(
        {"type": "server_tool_call", "name": name, "server_tool_call": {"type": name, "input": block.get("input")}},
        block.get("id"),
    )


def _server_response(block: Mapping[str, Any], kind: str) -> Part:
    return _with_id(
        {"type": "server_tool_call_response", "server_tool_call_response": {"type": kind}}, block.get("tool_use_id")
    )


def _image_url(block: Mapping[str, Any]) -> Part:
    """An image of Chat Completions, or of the Responses API."""
    if isinstance(block.get("file_id"), str):
        return _file("image", block["file_id"])
    given = block.get("image_url")
    return _reference("image", given.get("url") if isinstance(given, Mapping) else given)  # pyright: ignore[reportUnknownMemberType,reportUnknownArgumentType]


def _sourced(modality: str) -> Callable[[Mapping[str, Any]], Part]:
    """A file of Anthropic (`source` in the block) or of Converse (in an object of the block's name)."""

    def read(block: Mapping[str, Any]) -> Part:
        inner = _object(block.get(modality)) or block
        source = _object(inner.get("source"))
        if isinstance(source.get("file_id"), str):
            return _file(modality, source["file_id"])
        uri = source.get("url", _object(source.get("s3Location")).get("uri"))
        if isinstance(uri, str):
            return _reference(modality, uri)
        named = inner.get("format")  # of Converse: `png`
        media_type = source.get("media_type", f"{modality}/{named}" if named and modality != "document" else None)
        return _blob(modality, media_type, _size_of(source.get("data", source.get("bytes"))))

    return read


def _input_audio(block: Mapping[str, Any]) -> Part:
    audio = _object(block.get("input_audio"))
    return _blob("audio", f"audio/{audio.get('format', 'wav')}", _size_of(audio.get("data")))


def _input_file(block: Mapping[str, Any]) -> Part:
    """A file of Chat Completions (`file`) or of the Responses API (`input_file`)."""
    file = _object(block.get("file")) or block
    if isinstance(file.get("file_id"), str):
        return _file("document", file["file_id"])
    if isinstance(file.get("file_url"), str):
        return _reference("document", file["file_url"])
    return _reference("document", file.get("file_data"))


def _inline_data(block: Mapping[str, Any]) -> Part:
    data = _object(block.get("inlineData", block.get("inline_data")))
    media_type = data.get("mimeType", data.get("mime_type"))
    return _blob(_modality(media_type), media_type, _size_of(data.get("data")))


def _file_data(block: Mapping[str, Any]) -> Part:
    data = _object(block.get("fileData", block.get("file_data")))
    media_type = data.get("mimeType", data.get("mime_type"))
    return _reference(_modality(media_type), data.get("fileUri", data.get("file_uri")), media_type)


_READERS: Mapping[str, Callable[[Mapping[str, Any]], Part | None]] = {
    **dict.fromkeys(("text", "input_text", "output_text"), _text_part),
    **dict.fromkeys(("thinking", "reasoning", "reasoningContent"), _thinking),
    "refusal": _refusal,
    "tool_use": _anthropic_call,
    **dict.fromkeys(("function_call", "custom_tool_call"), _responses_call),
    "toolUse": _converse_call,
    "functionCall": _gemini_call,
    "tool_result": _anthropic_result,
    **dict.fromkeys(("function_call_output", "custom_tool_call_output"), _responses_result),
    "toolResult": _converse_result,
    **dict.fromkeys(("functionResponse", "function_response"), _gemini_result),
    "server_tool_use": _server_call,
    **dict.fromkeys(("image_url", "input_image"), _image_url),
    "image": _sourced("image"),
    "video": _sourced("video"),
    "document": _sourced("document"),
    "input_audio": _input_audio,
    **dict.fromkeys(("file", "input_file"), _input_file),
    **dict.fromkeys(("inlineData", "inline_data"), _inline_data),
    **dict.fromkeys(("fileData", "file_data"), _file_data),
}


# --- Parts ---


def _text(content: str) -> Part:
    return {"type": "text", "content": content}


def _with_id(part: Part, call_id: object) -> Part:
    return {**part, "id": call_id} if isinstance(call_id, str) else part


def _call_part(call_id: object, name: object, arguments: object) -> Part:
    return _with_id({"type": "tool_call", "name": str(name or "unknown"), "arguments": _parsed(arguments)}, call_id)


def _response_part(call_id: object, response: object) -> Part:
    return _with_id({"type": "tool_call_response", "response": response}, call_id)


def _parsed(arguments: object) -> object:
    """Arguments as an object where they are one as JSON; else as they are."""
    if not isinstance(arguments, str):
        return dict(cast("Mapping[str, Any]", arguments)) if isinstance(arguments, Mapping) else arguments
    try:
        found = json.loads(arguments)
    except (ValueError, RecursionError):
        return arguments
    return found if isinstance(found, dict) else arguments  # pyright: ignore[reportUnknownVariableType]


def _result(content: object) -> object:
    """A tool's result: its text, or what it has beside text as parts."""
    if isinstance(content, str):
        return content
    parts = list(_parts_of(content))
    is_text = all(part["type"] == "text" for part in parts)
    return "".join(part["content"] for part in parts) if is_text else parts


def _blob(modality: str, media_type: object, size: int) -> Part:
    """Bytes, of which only the size is recorded."""
    part: Part = {"type": "blob", "modality": modality, "content": "", "size": size}
    return {**part, "mime_type": media_type} if isinstance(media_type, str) else part


def _file(modality: str, file_id: str) -> Part:
    return {"type": "file", "modality": modality, "file_id": file_id}


def _reference(modality: str, url: object, media_type: object = None) -> Part:
    """A file by its URL. A query is left out, since it may hold a signature; of a data URL only the size is kept."""
    if not isinstance(url, str):
        return {"type": modality}
    head, comma, data = url.partition(",")
    if head.startswith("data:") and comma:
        return _blob(modality, head[5:].partition(";")[0] or media_type, _size_of(data))
    part: Part = {"type": "uri", "modality": modality, "uri": url.partition("?")[0].partition("#")[0]}
    return {**part, "mime_type": media_type} if isinstance(media_type, str) else part


def _size_of(data: object) -> int:
    """The bytes that base64 stands for."""
    if isinstance(data, bytes | bytearray):
        return len(data)
    return len(data.rstrip("=")) * 3 // 4 if isinstance(data, str) else 0


def _modality(media_type: object) -> str:
    kind = media_type.partition("/")[0] if isinstance(media_type, str) else ""
    return kind if kind in ("image", "video", "audio") else "document"


# --- Tools ---


def _tools_in(body: Mapping[str, Any]) -> tuple[Part, ...]:
    listed = body.get("tools") or _object(body.get("toolConfig")).get("tools") or body.get("functions")
    return tuple(tool for item in _objects(listed) for tool in _definitions_in(item))


def _definitions_in(tool: Mapping[str, Any]) -> Iterable[Part]:
    declared = tool.get("functionDeclarations", tool.get("function_declarations"))
    if declared is not None:
        return [_definition("function", each) for each in _objects(declared)]
    inner = next((found for key in ("function", "toolSpec", "custom") if (found := _object(tool.get(key)))), tool)
    kind = tool.get("type")
    if "name" not in inner:
        # A tool of the provider's own, told by its type, or in Gemini by its key.
        name = kind if isinstance(kind, str) else next(iter(tool), "unknown")
        return [{"type": str(name), "name": str(name)}]
    return [_definition(kind if isinstance(kind, str) else "function", inner)]


def _definition(kind: str, tool: Mapping[str, Any]) -> Part:
    schema = next(
        (tool[key] for key in ("parameters", "input_schema", "parametersJsonSchema", "inputSchema") if key in tool),
        None,
    )
    schema = _object(schema).get("json", schema)  # of Converse
    told = {"description": tool.get("description"), "parameters": schema}
    return {"type": kind, "name": str(tool.get("name")), **{key: value for key, value in told.items() if value}}


# --- JSON ---


def _object(value: object) -> Mapping[str, Any]:
    return cast("Mapping[str, Any]", value) if isinstance(value, Mapping) else {}


def _items(value: object) -> Sequence[Any]:
    return cast("Sequence[Any]", value) if isinstance(value, list | tuple) else ()


def _objects(value: object) -> list[Mapping[str, Any]]:
    return [cast("Mapping[str, Any]", item) for item in _items(value) if isinstance(item, Mapping)]
