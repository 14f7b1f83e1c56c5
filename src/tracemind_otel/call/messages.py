"""Messages from role dicts, as users of OpenAI, Anthropic and Gemini write them.

Sources: OpenAI Chat Completions ("messages"), Anthropic Messages API ("content blocks"), Gemini API ("Content" and
"Part", in its REST and its Python spelling).
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, cast

from ..ai.llm.types import Image, Message, Role, Text, ToolCall
from ..errors import ConfigError

_ROLES: Mapping[str, Role] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
    "model": "assistant",
    "tool": "tool",
    "function": "tool",
}
"""The roles of the three APIs, and the role of each here."""
_PYTHON_KEYS = {
    "inlineData": "inline_data",
    "mimeType": "mime_type",
    "fileData": "file_data",
    "fileUri": "file_uri",
    "functionCall": "function_call",
    "functionResponse": "function_response",
}
"""Keys of Gemini's REST API, and their Python spelling."""
_DATA_URL = re.compile(r"data:([\w.+/-]+);base64,(.*)", re.DOTALL)
_PARTS = (
    "text, an image (image_url, image, inline_data, file_data), a tool call (tool_use, function_call) or its result"
)


def read_messages(where: str, values: object) -> tuple[Message, ...]:
    """The messages of a list of `Message` objects and role dicts, which errors call `where`; `None` has none.

    Raises:
        ConfigError: an item is neither; the error names its index, its key and what is allowed.
    """
    if values is None:
        return ()
    if isinstance(values, str) or not isinstance(values, Sequence):
        raise ConfigError(f"{where} is {type(values).__name__}; it must be a list of role dicts or Message objects")
    items = cast("Sequence[object]", values)
    return tuple(message for index, item in enumerate(items) for message in _read(f"{where}[{index}]", item))


Item = Text | Image | ToolCall | Message
"""What one part says: content, a tool call, or a tool's result, which is a message of its own."""


def _read(where: str, value: object) -> Iterator[Message]:
    if isinstance(value, Message):
        yield value
        return
    values = _mapping(where, value)
    role = _role(where, values)
    content = _content_of(where, values)
    items = [] if isinstance(content, str) else content
    calls = [item for item in items if isinstance(item, ToolCall)]
    for index, call in enumerate(_list(f"{where}.tool_calls", values.get("tool_calls") or ())):
        calls.append(_tool_call(f"{where}.tool_calls[{index}]", call))
    results = [item for item in items if isinstance(item, Message)]
    yield from results
    shown = _shortest(content)
    if shown or calls or not results:
        yield Message(
            role=role,
            content=shown,
            tool_calls=tuple(calls),
            tool_call_id=_optional_string(where, values, "tool_call_id"),
            name=_optional_string(where, values, "name"),
        )


def _role(where: str, values: Mapping[str, Any]) -> Role:
    role = values.get("role", "user" if "parts" in values else None)
    if not isinstance(role, str) or role not in _ROLES:
        raise ConfigError(f"{where}['role'] is {role!r}; it must be one of {', '.join(_ROLES)}")
    return _ROLES[role]


def _content_of(where: str, values: Mapping[str, Any]) -> str | list[Item]:
    key = "content" if "content" in values or "parts" not in values else "parts"
    if key not in values and not values.get("tool_calls"):
        raise ConfigError(f"{where} has no 'content' (or 'parts'); it must have one, a string or a list of parts")
    return _parts_of(f"{where}[{key!r}]", values.get(key))


def _parts_of(where: str, value: object) -> str | list[Item]:
    if value is None or isinstance(value, str):
        return value or ""
    if isinstance(value, Mapping):
        return [_item(where, cast("object", value))]
    return [
        _item(f"{where}[{index}]", part)
        for index, part in enumerate(_list(where, value, "a string or a list of parts"))
    ]


def _shortest(content: str | list[Item]) -> str | tuple[Text | Image, ...]:
    """Text and images; one piece of text as a string, which the providers send in fewer bytes."""
    if isinstance(content, str):
        return content
    parts = tuple(item for item in content if isinstance(item, Text | Image))
    return parts[0].text if len(parts) == 1 and isinstance(parts[0], Text) else parts


def _item(where: str, part: object) -> Item:
    if isinstance(part, str):
        return Text(part)
    if isinstance(part, Text | Image):
        return part
    values = _mapping(where, part)
    for key, read in _READERS.items():
        if values.get(key) is not None and values[key] is not False:
            return read(where, values)
    raise ConfigError(f"{where} has the keys {', '.join(map(repr, values)) or 'none'}; it must have {_PARTS}")


def _read_text(where: str, values: Mapping[str, Any]) -> Text:
    return Text(_string(f"{where}['text']", values["text"]))


def _read_thought(where: str, values: Mapping[str, Any]) -> Text:
    raise ConfigError(f"{where} is the model's reasoning, which is not sent back; leave this part out")


def _read_image_url(where: str, values: Mapping[str, Any]) -> Image:
    value: object = values["image_url"]
    if isinstance(value, Mapping):
        value = cast("Mapping[str, object]", value).get("url")
    return _image_at(f"{where}['image_url']", value)


def _read_source(where: str, values: Mapping[str, Any]) -> Image:
    """An image as Anthropic has it."""
    place = f"{where}['source']"
    source = _mapping(place, values["source"])
    if values.get("type", "image") != "image":
        raise ConfigError(f"{where}['type'] is {values['type']!r}; only text, images and tools are sent")
    if "url" in source:
        return _image_at(f"{place}['url']", source["url"])
    return _inline_image(place, source.get("media_type"), source.get("data"))


def _read_inline_data(where: str, values: Mapping[str, Any]) -> Image:
    data = _mapping(where, values["inline_data"])
    return _inline_image(where, data.get("mime_type"), data.get("data"))


def _read_file_data(where: str, values: Mapping[str, Any]) -> Image:
    return _image_at(f"{where}['file_uri']", _mapping(where, values["file_data"]).get("file_uri"))


def _read_tool_use(where: str, values: Mapping[str, Any]) -> ToolCall:
    return _call(where, values.get("id"), values.get("name"), values["input"])


def _read_function_call(where: str, values: Mapping[str, Any]) -> ToolCall:
    call = _mapping(where, values["function_call"])
    name = call.get("name")
    return _call(where, call.get("id") or name, name, call.get("args") or {})


def _read_function_response(where: str, values: Mapping[str, Any]) -> Message:
    answer = _mapping(where, values["function_response"])
    name, result = _string(f"{where}['name']", answer.get("name")), answer.get("response")
    content = result if isinstance(result, str) else json.dumps(result, ensure_ascii=False, default=str)
    return Message(role="tool", content=content, tool_call_id=answer.get("id") or name, name=name)


def _read_tool_result(where: str, values: Mapping[str, Any]) -> Message:
    call_id = _string(f"{where}['tool_use_id']", values.get("tool_use_id"))
    content = _shortest(_parts_of(f"{where}['content']", values.get("content")))
    return Message(role="tool", content=content or "", tool_call_id=call_id)


_READERS: Mapping[str, Callable[[str, Mapping[str, Any]], Item]] = {
    "thinking": _read_thought,
    "thought": _read_thought,
    "tool_use_id": _read_tool_result,
    "text": _read_text,
    "image_url": _read_image_url,
    "source": _read_source,
    "inline_data": _read_inline_data,
    "file_data": _read_file_data,
    "input": _read_tool_use,
    "function_call": _read_function_call,
    "function_response": _read_function_response,
}
"""Reads a part by the first of these keys that it has."""


def _tool_call(where: str, value: object) -> ToolCall:
    """A call as OpenAI has it (`function`), or with `id`, `name` and `arguments` beside one another."""
    if isinstance(value, ToolCall):
        return value
    values = _mapping(where, value)
    if "custom" in values:
        custom = _mapping(f"{where}['custom']", values["custom"])
        name, text = _string(f"{where}['name']", custom.get("name")), _string(f"{where}['input']", custom.get("input"))
        return ToolCall(_string(f"{where}['id']", values.get("id")), name, text, kind="custom")
    named = _mapping(f"{where}['function']", values["function"]) if "function" in values else values
    return _call(where, values.get("id"), named.get("name"), named.get("arguments", {}))


def _call(where: str, call_id: object, name: object, arguments: object) -> ToolCall:
    if not isinstance(arguments, str | Mapping):
        kind = type(arguments).__name__
        raise ConfigError(f"{where}: the arguments are {kind}; they must be a dict or a JSON string")
    call_id, name = _string(f"{where}['id']", call_id), _string(f"{where}['name']", name)
    return ToolCall(call_id, name, cast("Mapping[str, Any] | str", arguments))


def _image_at(where: str, value: object) -> Image:
    url = _string(where, value)
    inline = _DATA_URL.fullmatch(url)
    return Image(url=url) if inline is None else _inline_image(where, inline[1], inline[2])


def _inline_image(where: str, media_type: object, data: object) -> Image:
    media = _string(f"{where}['media_type']", media_type)
    if isinstance(data, bytes):
        return Image(data=data, media_type=media)
    try:
        return Image(data=base64.b64decode(_string(f"{where}['data']", data), validate=True), media_type=media)
    except binascii.Error:
        raise ConfigError(f"{where}['data'] is not base64; it must be the image as base64 or as bytes") from None


def _mapping(where: str, value: object) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        hint = "; pass the object's .model_dump()" if hasattr(value, "model_dump") else ""
        raise ConfigError(f"{where} is {type(value).__name__}; it must be a dict{hint}")
    return {_PYTHON_KEYS.get(key, key): item for key, item in cast("Mapping[str, Any]", value).items()}


def _list(where: str, value: object, allowed: str = "a list") -> Sequence[object]:
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise ConfigError(f"{where} is {type(value).__name__}; it must be {allowed}")
    return cast("Sequence[object]", value)


def _string(where: str, value: object) -> str:
    if not isinstance(value, str):
        raise ConfigError(f"{where} is {type(value).__name__}; it must be a string")
    return value


def _optional_string(where: str, values: Mapping[str, Any], key: str) -> str | None:
    value = values.get(key)
    return None if value is None else _string(f"{where}[{key!r}]", value)
