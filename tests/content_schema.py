"""The schema of content, as the GenAI conventions have it (`gen-ai-input-messages.json` and its neighbours)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

_REQUIRED: Mapping[str, tuple[str, ...]] = {
    "text": ("content",),
    "reasoning": ("content",),
    "tool_call": ("name",),
    "tool_call_response": ("response",),
    "server_tool_call": ("name", "server_tool_call"),
    "server_tool_call_response": ("server_tool_call_response",),
    "blob": ("modality", "content"),
    "file": ("modality", "file_id"),
    "uri": ("modality", "uri"),
}
"""The fields that a part of each type must have."""
_STRINGS = ("content", "name", "id", "modality", "mime_type", "uri", "file_id")


def assert_messages(messages: object) -> None:
    """Each message has a role and parts."""
    assert isinstance(messages, list)
    for message in cast("Sequence[Any]", messages):
        assert isinstance(message["role"], str)
        assert_parts(message["parts"])


def assert_parts(parts: object) -> None:
    """Each part has a type and what that type demands; URLs hold no data."""
    assert isinstance(parts, list | tuple)
    for part in cast("Sequence[dict[str, Any]]", parts):
        kind = part["type"]
        assert isinstance(kind, str)
        missing = [name for name in _REQUIRED.get(kind, ()) if name not in part]
        assert not missing, (kind, missing)
        assert all(isinstance(part[name], str) for name in _STRINGS if name in part)
        assert not str(part.get("uri", "")).startswith("data:")


def assert_tools(tools: Iterable[Any]) -> None:
    """Each definition has a type and a name."""
    for tool in tools:
        assert isinstance(tool["type"], str)
        assert isinstance(tool["name"], str)
        assert isinstance(tool.get("parameters", {}), dict)
