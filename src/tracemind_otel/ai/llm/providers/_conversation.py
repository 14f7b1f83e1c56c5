"""What the requests of several formats are made of: settings, system text, images, tool calls and their results.

A message that a format cannot express is rejected with a `ConfigError`; nothing is dropped in silence.
"""

from __future__ import annotations

import base64
import itertools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ....errors import ConfigError
from ..types import Image, LLMRequest, Message, ToolCall
from ._wire_format import arguments_of


def settings_of(req: LLMRequest, provider: str, names: Mapping[str, str], *elsewhere: str) -> dict[str, Any]:
    """The sampling options that are set, under the format's names for them.

    Args:
        req: the request.
        provider: the provider, for the message.
        names: the format's name of each option that it has.
        elsewhere: the options that the format has in another place.

    Raises:
        ConfigError: an option is set that the provider does not support.
    """
    given: dict[str, Any] = {}
    for ours, value in req.sampling().items():
        if value is None or value == ():
            continue
        if ours in names:
            given[names[ours]] = list(value) if ours == "stop" else value
        elif ours not in elsewhere:
            known = ", ".join(sorted((*names, *elsewhere)))
            raise ConfigError(
                f"{ours}: {provider} has no such parameter; it takes {known}. Use extra to send it anyway"
            )
    return given


def effort_of(req: LLMRequest, provider: str, efforts: Mapping[str, dict[str, Any]], hint: str = "") -> dict[str, Any]:
    """The fields that ask for the request's effort of reasoning; none where it sets no effort.

    Raises:
        ConfigError: the provider has no such effort; the message ends with the hint.
    """
    effort = req.reasoning_effort
    if effort is not None and effort not in efforts:
        raise ConfigError(f"reasoning_effort: {provider} takes {', '.join(efforts)}, not {effort}{hint}")
    return efforts[effort] if effort else {}


def merged(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of both objects; theirs win, and the objects that both have under one name are merged too."""
    both = {**ours, **theirs}
    for name in ours.keys() & theirs.keys():
        if isinstance(ours[name], dict) and isinstance(theirs[name], dict):
            both[name] = merged(ours[name], theirs[name])
    return both


def split_system(req: LLMRequest, provider: str, *, allows_later: bool = False) -> tuple[list[str], list[Message]]:
    """The system texts at the beginning of a conversation, and the messages after them.

    Raises:
        ConfigError: a message has a field that its role cannot have, or system text comes later and is not allowed to.
    """
    conversation = req.conversation
    for message in conversation:
        reject_misplaced(message, provider)
    rest = list(itertools.dropwhile(_is_system, conversation))
    if not allows_later and any(map(_is_system, rest)):
        raise ConfigError(f"messages: {provider} takes system text only before the conversation, not within it")
    leading = conversation[: len(conversation) - len(rest)]
    texts = (req.system, *(only_text(message, provider) for message in leading))
    return [text for text in texts if text], rest


def _is_system(message: Message) -> bool:
    return message.role == "system"


def reject_misplaced(message: Message, provider: str) -> None:
    """Raise a `ConfigError` for a field that a message of its role cannot have."""
    where = f"in a message of role {message.role!r}"
    if message.tool_calls and message.role != "assistant":
        raise ConfigError(f"tool_calls {where}: only the assistant calls tools")
    if message.role != "tool" and message.tool_call_id is not None:
        raise ConfigError(f"tool_call_id {where}: only role 'tool' has one")
    if message.role != "tool" and message.name is not None:
        raise ConfigError(f"name {where}: {provider} does not support it")


def only_text(message: Message, provider: str) -> str:
    """The text of a message that cannot hold images; raises a `ConfigError` where it holds one."""
    if not isinstance(message.content, str) and any(isinstance(part, Image) for part in message.content):
        raise ConfigError(f"an image in a message of role {message.role!r}: {provider} takes none there")
    return message.text


def answered_call(message: Message) -> str:
    """The id of the call that a tool's message answers; raises a `ConfigError` where it has none."""
    if not message.tool_call_id:
        raise ConfigError("a message of role 'tool' needs tool_call_id: the id of the call that it answers")
    return message.tool_call_id


def with_tool_names(messages: Iterable[Message], provider: str) -> Iterator[tuple[Message, str]]:
    """Each message, and the tool's name where it is a tool's result: its own, or that of the call with its id."""
    names: dict[str | None, str] = {}
    for message in messages:
        name = message.name or names.get(message.tool_call_id) or ""
        if message.role == "tool" and not name:
            raise ConfigError(f"messages: {provider} needs the tool's name in a tool's message: set Message.name")
        yield message, name
        names.update((call.id, call.name) for call in message.tool_calls)


def object_arguments(call: ToolCall, provider: str) -> dict[str, Any]:
    """A call's arguments as the JSON object that the format demands; raises a `ConfigError` where they are none."""
    arguments = arguments_of(call.arguments) if isinstance(call.arguments, str) else call.arguments
    if isinstance(arguments, str):
        raise ConfigError(f"tool call {call.id!r}: its arguments are not a JSON object, the only form {provider} takes")
    return dict(arguments)


def image_url(image: Image) -> str:
    """The URL of an image; a data URL for one that is given by its bytes.

    Raises:
        ConfigError: it has neither `url` nor `data`, or both.
    """
    if bool(image.url) == (image.data is not None):
        raise ConfigError("messages: an image needs exactly one of url and data")
    if image.data is None:
        return str(image.url)
    return f"data:{image.media_type};base64,{base64.b64encode(image.data).decode()}"


def image_bytes(image: Image, provider: str) -> tuple[str, str] | None:
    """The media type of an image and its bytes in base64; `None` for one that is to be fetched by its URL.

    Raises:
        ConfigError: it has neither `url` nor `data`, or both, or a data URL in another encoding.
    """
    head, _, data = image_url(image).partition(",")
    if not head.startswith("data:"):
        return None
    if not head.endswith(";base64"):
        raise ConfigError(f"messages: {provider} takes an image's data URL only in base64")
    return head.removeprefix("data:").removesuffix(";base64"), data
