"""The messages of chat completions: their roles, and the names under which parts keep the rest of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ...document.canonical import JSON
from ...document.entry import Config, Entry, Role
from ..format import Draft
from ..tool_names import NameForm

MESSAGE, ITEM, CALL = "openai_chat/message", "openai_chat/content", "openai_chat/tool_call"
EXTRA = "openai_chat"
NAMES = NameForm()
OWN_TYPES = ("text", "reasoning", "tool_call", "tool_result", "config", "blob", MESSAGE, ITEM, CALL)
ROLES: dict[str, Role] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
}
REASONING = ("reasoning_content", "reasoning")
WORDS = {"function": "arguments", "custom": "input"}
MEMBER = "messages"


def configs(entries: Iterable[Entry | Draft]) -> Iterator[Config]:
    return (part for entry in entries for part in entry.parts if isinstance(part, Config))


def is_config(entry: Entry | Draft) -> bool:
    """Whether it holds settings only, which are no message."""
    return entry.role == "system" and all(isinstance(part, Config) for part in entry.parts)


def role_as_type(message: JSON) -> str:
    role = message.get("role") if isinstance(message, dict) else None
    return role if isinstance(role, str) else ""


def role_of(name: JSON) -> Role | None:
    return ROLES.get(name) if isinstance(name, str) else None
