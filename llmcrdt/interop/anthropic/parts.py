"""The blocks of the Messages API: who makes them, and where in them opaque values stand."""

from __future__ import annotations

from ...document.canonical import JSON
from ..hiding import ANY, Place
from ..json_input import list_at, object_at, text_at
from ..native import Native, mapping
from ..tool_names import NameForm

NATIVE = Native("anthropic")
NAMES = NameForm(longest=128)
ROLES = ("user", "assistant", "system")
RESPONSE_ONLY = (
    "id", "type", "model", "stop_reason", "stop_sequence", "stop_details", "usage", "container", "context_management",
)  # fmt: skip
USERS = ("image", "document", "search_result", "container_upload", "tool_result")
ASSISTANTS = ("thinking", "redacted_thinking", "tool_use", "server_tool_use", "mcp_tool_use", "compaction")


def _is_cache_point(value: JSON) -> bool:
    return isinstance(mapping(value).get("type"), str)


def is_container(value: JSON) -> bool:
    return isinstance(mapping(value).get("id"), str)


PLACES = (
    Place("anthropic/thinking", "thinking", ("signature",)),
    Place("anthropic/thinking", "redacted_thinking", ("data",)),
    Place("anthropic/search", "web_search_tool_result", ("content", ANY, "encrypted_content")),
    Place("anthropic/search", "text", ("citations", ANY, "encrypted_index")),
    Place("anthropic/code", "code_execution_tool_result", ("content", "encrypted_stdout")),
    Place("anthropic/code", "advisor_tool_result", ("content", "encrypted_content")),
    Place("anthropic/compaction", "compaction", ("signature",)),
    Place("anthropic/compaction", "compaction", ("encrypted_content",)),
    Place("anthropic/cache", ANY, ("cache_control",), _is_cache_point),
    Place("anthropic/cache", "tool_result", ("content", ANY, "cache_control"), _is_cache_point),
)
CONTAINER = "anthropic/container"
OF_MODEL = ("anthropic/thinking", "anthropic/compaction")
OF_FRAME = frozenset(OF_MODEL)


def blocks_of(content: JSON, path: str) -> tuple[str, list[JSON]]:
    """How content is written, "text" or "list", and its blocks."""
    if isinstance(content, str):
        return "text", [{"type": "text", "text": content}]
    blocks = list_at(content, path)
    for i, block in enumerate(blocks):
        kind = text_at(object_at(block, f"{path}[{i}]").get("type"), f"{path}[{i}].type")
        if kind in ("text", "thinking"):
            text_at(block.get(kind), f"{path}[{i}].{kind}")
    return "list", blocks
