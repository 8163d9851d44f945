"""Which blocks the API takes, and where. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ...document.canonical import JSON
from ..hiding import type_of
from .parts import ASSISTANTS, USERS


def valid_said(block: JSON, role: str) -> JSON:
    """A block of a user's message, or of instructions, as the API takes it; None where it takes none of it."""
    kind = type_of(block)
    if kind == "text":
        return block if isinstance(block.get("text"), str) and block["text"].strip() else None
    if kind in ("", *ASSISTANTS, "tool_result") or kind.endswith("_tool_result"):
        return None
    return block if role == "user" or kind not in USERS else None


def valid_answer(block: JSON, *, is_first: bool, open_: Mapping[str, str], out: Sequence[JSON]) -> JSON:
    """The same of an assistant's message. ``open_``: tools of the server's that wait for a result; ``out``: the blocks
    before."""
    kind = type_of(block)
    if kind == "text":
        if not isinstance(block.get("text"), str) or not block["text"].strip():
            return None
        citations = block.get("citations")
        if isinstance(citations, list):
            whole = [one for one in citations if not _lacks_index(one)]
            return block if len(whole) == len(citations) else {**block, "citations": whole}
        return block
    if kind == "thinking":
        return block if isinstance(block.get("signature"), str) and isinstance(block.get("thinking"), str) else None
    if kind == "redacted_thinking":
        return block if isinstance(block.get("data"), str) else None
    if kind == "compaction":
        content = block.get("content")
        if is_first and any(isinstance(block.get(key), str) for key in ("signature", "encrypted_content")):
            return block
        return {"type": "text", "text": content} if isinstance(content, str) and content.strip() else None
    if kind == "tool_use":
        return block if isinstance(block.get("input"), dict) and isinstance(block.get("id"), str) else None
    if kind in ("server_tool_use", "mcp_tool_use"):
        known = isinstance(block.get("id"), str) and isinstance(block.get("name"), str)
        return block if known and isinstance(block.get("input"), dict) else None
    if kind.endswith("_tool_result"):
        answered = block.get("tool_use_id")
        used = {one["id"] for one in out if one["type"] in ("server_tool_use", "mcp_tool_use")} | open_.keys()
        used -= {answered_id(one) for one in out}
        return block if isinstance(answered, str) and answered in used else None
    return block if kind and kind not in USERS else None


def lacks_content(block: JSON) -> bool:
    """Whether the result of a search, or of code, is without what was encrypted in it."""
    content = block.get("content")
    if block.get("type") == "web_search_tool_result" and isinstance(content, list):
        return any(
            type_of(one) == "web_search_result" and not isinstance(one.get("encrypted_content"), str) for one in content
        )
    if block.get("type") in ("code_execution_tool_result", "advisor_tool_result"):
        key = {"encrypted_code_execution_result": "encrypted_stdout", "advisor_redacted_result": "encrypted_content"}
        wanted = key.get(type_of(content))
        return wanted is not None and not isinstance(content.get(wanted), str)
    return False


def answered_id(block: JSON) -> str:
    """The id of the call that a result answers; "" for what is none."""
    id_ = block.get("tool_use_id")
    return id_ if isinstance(id_, str) else ""


def pair_id(block: JSON) -> str:
    """The id that a call of the server's and its result have in common."""
    id_ = block.get("id") if type_of(block) == "server_tool_use" else block.get("tool_use_id")
    return id_ if isinstance(id_, str) else "\0"


def _lacks_index(citation: JSON) -> bool:
    located = type_of(citation) == "web_search_result_location"
    return located and not isinstance(citation.get("encrypted_index"), str)
