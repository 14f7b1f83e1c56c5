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
from dataclasses import dataclass, field
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
"""The roles of the three APIs, with what they are called here."""
_DATA_URL = re.compile(r"data:([\w.+/-]+);base64,(.*)", re.DOTALL)
_PARTS = (
    "text, an image (image_url, image, inline_data, file_data), a tool call (tool_use, function_call) or its result"
)


def read_messages(where: str, values: object) -> tuple[Message, ...]:
    """The messages of a list that holds `Message` objects and role dicts.

    Args:
        where: the name of the list, for errors.
        values: the list. A string is one message of the user.

    Raises:
        ConfigError: an item is neither; the error names its index, its key and what is allowed.
    """
    if values is None:
        return ()
    if isinstance(values, str) or not isinstance(values, Sequence):
        raise ConfigError(f"{where} is {type(values).__name__}; it must be a list of role dicts or Message objects")
    items = cast("Sequence[object]", values)
    return tuple(message for index, item in enumerate(items) for message in _read(f"{where}[{index}]", item))


@dataclass(slots=True)
class _Said:
    """What the parts of one role dict say."""

    content: list[Text | Image] = field(default_factory=list[Text | Image])
    """Text and images, in order."""
    tool_calls: list[ToolCall] = field(default_factory=list[ToolCall])
    """The tool calls that an assistant asked for."""
    results: list[Message] = field(default_factory=list[Message])
    """Results of tools, each a message of its own."""


def _read(where: str, value: object) -> Iterator[Message]:
    if isinstance(value, Message):
        yield value
        return
    values = _mapping(where, value)
    role = _role(where, values)
    said = _Said()
    content = _content_of(where, values)
    if not isinstance(content, str):
        for place, part in content:
            _read_part(place, part, said)
    for index, call in enumerate(_list(f"{where}.tool_calls", values.get("tool_calls") or ())):
        said.tool_calls.append(_tool_call(f"{where}.tool_calls[{index}]", call))
    yield from said.results
    shown = content if isinstance(content, str) else _shortest(said.content)
    if shown or said.tool_calls or not said.results:
        yield Message(
            role=role,
            content=shown,
            tool_calls=tuple(said.tool_calls),
            tool_call_id=_optional_string(where, values, "tool_call_id"),
            name=_optional_string(where, values, "name"),
        )


def _role(where: str, values: Mapping[str, Any]) -> Role:
    role = values.get("role", "user" if "parts" in values else None)
    if not isinstance(role, str) or role not in _ROLES:
        raise ConfigError(f"{where}['role'] is {role!r}; it must be one of {', '.join(_ROLES)}")
    return _ROLES[role]


def _content_of(where: str, values: Mapping[str, Any]) -> str | list[tuple[str, object]]:
    """The content as a string, or its parts with their places."""
    key = "content" if "content" in values or "parts" not in values else "parts"
    value = values.get(key)
    if key not in values and not values.get("tool_calls"):
        raise ConfigError(f"{where} has no 'content' (or 'parts'); it must have one, a string or a list of parts")
    if value is None or isinstance(value, str):
        return value or ""
    if isinstance(value, Mapping):
        return [(f"{where}[{key!r}]", cast("object", value))]
    items = _list(f"{where}[{key!r}]", value)
    return [(f"{where}[{key!r}][{index}]", item) for index, item in enumerate(items)]


def _shortest(parts: list[Text | Image]) -> str | tuple[Text | Image, ...]:
    """One piece of text is the same as a string; the providers send that in fewer bytes."""
    if len(parts) == 1 and isinstance(parts[0], Text):
        return parts[0].text
    return tuple(parts)


def _read_part(where: str, part: object, said: _Said) -> None:
    if isinstance(part, str):
        said.content.append(Text(part))
    elif isinstance(part, Text | Image):
        said.content.append(part)
    else:
        values = _mapping(where, part)
        for key, read in _READERS.items():
            if values.get(key) is not None:
                read(where, values, said)
                return
        raise ConfigError(f"{where} has the keys {', '.join(map(repr, values)) or 'none'}; it must have {_PARTS}")


def _read_text(where: str, values: Mapping[str, Any], said: _Said) -> None:
    said.content.append(Text(_string(f"{where}['text']", values["text"])))


def _read_thought(where: str, values: Mapping[str, Any], said: _Said) -> None:
    raise ConfigError(f"{where} is the model's reasoning, which is not sent back; leave this part out")


def _read_image_url(where: str, values: Mapping[str, Any], said: _Said) -> None:
    value: object = values["image_url"]
    if isinstance(value, Mapping):
        value = cast("Mapping[str, object]", value).get("url")
    said.content.append(_image_at(f"{where}['image_url']", value))


def _read_source(where: str, values: Mapping[str, Any], said: _Said) -> None:
    """An image as Anthropic has it."""
    place = f"{where}['source']"
    source = _mapping(place, values["source"])
    if values.get("type", "image") != "image":
        raise ConfigError(f"{where}['type'] is {values['type']!r}; only text, images and tools are sent")
    if "url" in source:
        said.content.append(_image_at(f"{place}['url']", source["url"]))
    else:
        said.content.append(_inline_image(place, source.get("media_type"), source.get("data")))


def _read_inline_data(where: str, values: Mapping[str, Any], said: _Said) -> None:
    data = _mapping(where, _either(values, "inline_data", "inlineData"))
    said.content.append(_inline_image(where, _either(data, "mime_type", "mimeType"), data.get("data")))


def _read_file_data(where: str, values: Mapping[str, Any], said: _Said) -> None:
    data = _mapping(where, _either(values, "file_data", "fileData"))
    said.content.append(_image_at(f"{where}['file_uri']", _either(data, "file_uri", "fileUri")))


def _read_tool_use(where: str, values: Mapping[str, Any], said: _Said) -> None:
    said.tool_calls.append(_call(where, values.get("id"), values.get("name"), values["input"]))


def _read_function_call(where: str, values: Mapping[str, Any], said: _Said) -> None:
    call = _mapping(where, _either(values, "function_call", "functionCall"))
    name = call.get("name")
    said.tool_calls.append(_call(where, call.get("id") or name, name, call.get("args") or {}))


def _read_function_response(where: str, values: Mapping[str, Any], said: _Said) -> None:
    answer = _mapping(where, _either(values, "function_response", "functionResponse"))
    name = _string(f"{where}['name']", answer.get("name"))
    content = _as_string(answer.get("response"))
    said.results.append(Message(role="tool", content=content, tool_call_id=answer.get("id") or name, name=name))


def _read_tool_result(where: str, values: Mapping[str, Any], said: _Said) -> None:
    call_id = _string(f"{where}['tool_use_id']", values.get("tool_use_id"))
    inner = _Said()
    content = values.get("content")
    if content is not None and not isinstance(content, str):
        for index, part in enumerate(_list(f"{where}['content']", content)):
            _read_part(f"{where}['content'][{index}]", part, inner)
    shown = content if isinstance(content, str) else _shortest(inner.content)
    said.results.append(Message(role="tool", content=shown or "", tool_call_id=call_id))


_READERS: Mapping[str, Callable[[str, Mapping[str, Any], _Said], None]] = {
    "thinking": _read_thought,
    "thought": _read_thought,
    "tool_use_id": _read_tool_result,
    "text": _read_text,
    "image_url": _read_image_url,
    "source": _read_source,
    "inline_data": _read_inline_data,
    "inlineData": _read_inline_data,
    "file_data": _read_file_data,
    "fileData": _read_file_data,
    "input": _read_tool_use,
    "function_call": _read_function_call,
    "functionCall": _read_function_call,
    "function_response": _read_function_response,
    "functionResponse": _read_function_response,
}
"""Reads a part by the key that it has."""


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


def _as_string(value: object) -> str:
    """A tool's result as the string that goes to the model."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _mapping(where: str, value: object) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        hint = "; pass the object's .model_dump()" if hasattr(value, "model_dump") else ""
        raise ConfigError(f"{where} is {type(value).__name__}; it must be a dict{hint}")
    return cast("Mapping[str, Any]", value)


def _list(where: str, value: object) -> Sequence[object]:
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise ConfigError(f"{where} is {type(value).__name__}; it must be a list")
    return cast("Sequence[object]", value)


def _string(where: str, value: object) -> str:
    if not isinstance(value, str):
        raise ConfigError(f"{where} is {type(value).__name__}; it must be a string")
    return value


def _optional_string(where: str, values: Mapping[str, Any], key: str) -> str | None:
    value = values.get(key)
    return None if value is None else _string(f"{where}[{key!r}]", value)


def _either(values: Mapping[str, Any], first: str, second: str) -> Any:
    """The value in the Python spelling of a key, else in the REST spelling."""
    return values[first] if first in values else values.get(second)
