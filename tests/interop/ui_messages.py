"""Whether messages are such as the AI SDK takes; written from its schema of UIMessages, not from the exporter.

Nothing here imports ``llmcrdt``.
"""

from __future__ import annotations

from typing import Any

_TEXTS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "text": (("text",), ()),
    "reasoning": (("text",), ()),
    "custom": (("kind",), ()),
    "source-url": (("sourceId", "url"), ("title",)),
    "source-document": (("sourceId", "mediaType", "title"), ("filename",)),
    "file": (("mediaType", "url"), ("filename",)),
    "reasoning-file": (("mediaType", "url"), ()),
}
_ANSWERED = ("output-available", "output-error", "output-denied")
_STATES = ("input-streaming", "input-available", "approval-requested", "approval-responded", *_ANSWERED)


def problems(request: Any, *, log: bool = False) -> list[str]:
    """Why they would be refused; empty where they would not. ``log``: there may be none, and calls of the last may
    still wait for their results."""
    messages = request.get("messages") if isinstance(request, dict) else None
    if not isinstance(messages, list):
        return ["messages parameter must be provided"]
    if not messages and not log:
        return ["Messages array must not be empty"]
    found: list[str] = []
    ids: set[str] = set()
    calls: set[str] = set()
    for i, message in enumerate(messages):
        why = _shape(message)
        if why:
            found.append(f"messages[{i}]: {why}")
            continue
        if message["id"] in ids:
            found.append(f"Encountered two children with the same key, `{message['id']}`")
        ids.add(message["id"])
        if message["role"] == "system" and any(m["role"] != "system" for m in messages[:i]):
            found.append("system messages are only supported at the beginning of the conversation")
        for part in message["parts"]:
            if _is_call(part) and part.get("providerExecuted") is not True:
                if part["toolCallId"] in calls:
                    found.append(f"Duplicate toolCallId {part['toolCallId']}")
                calls.add(part["toolCallId"])
                if part["state"] not in _ANSWERED and not (log and i == len(messages) - 1):
                    found.append(f"Tool result is missing for tool call {part['toolCallId']}.")
    return found


def _is_call(part: Any) -> bool:
    return part["type"] == "dynamic-tool" or part["type"].startswith("tool-")


def _shape(message: Any) -> str:
    if not isinstance(message, dict) or not isinstance(message.get("id"), str):
        return "Type validation failed: id"
    if message.get("role") not in ("system", "user", "assistant") or not isinstance(message.get("parts"), list):
        return "Type validation failed: role, parts"
    if not message["parts"]:
        return "Message must contain at least one part"
    return next((f"Type validation failed: {why}" for part in message["parts"] if (why := _part(part))), "")


def _part(part: Any) -> str:
    if not isinstance(part, dict) or not isinstance(part.get("type"), str) or not part["type"]:
        return "type"
    kind = part["type"]
    for key in ("providerMetadata", "callProviderMetadata", "resultProviderMetadata"):
        of_providers = part.get(key, {})
        if not isinstance(of_providers, dict) or not all(isinstance(one, dict) for one in of_providers.values()):
            return key
    needed, possible = _TEXTS.get(kind, ((), ()))
    for key in (*needed, *(key for key in possible if key in part)):
        if not isinstance(part.get(key), str):
            return f"{kind}.{key}"
    if kind in ("text", "reasoning") and part.get("state", "done") not in ("done", "streaming"):
        return f"{kind}.state"
    if kind.startswith("data-"):
        return "" if "data" in part and isinstance(part.get("id", ""), str) else "data"
    return _call(part) if _is_call(part) else ""


def _call(part: Any) -> str:
    state, approval = part.get("state"), part.get("approval")
    if not isinstance(part.get("toolCallId"), str) or state not in _STATES:
        return "toolCallId, state"
    if part["type"] == "dynamic-tool" and not isinstance(part.get("toolName"), str):
        return "toolName"
    if not isinstance(part.get("providerExecuted", True), bool) or not isinstance(part.get("toolMetadata", {}), dict):
        return "providerExecuted, toolMetadata"
    if not isinstance(part.get("preliminary", True), bool) and state == "output-available":
        return "preliminary"
    if "input" not in part and state not in ("input-streaming", "output-error"):
        return "input"
    if ("output" in part) != (state == "output-available") or ("errorText" in part) != (state == "output-error"):
        return "output, errorText"
    if state == "output-error" and not isinstance(part["errorText"], str):
        return "errorText"
    if "approval" not in part:
        return "approval" if state in ("approval-requested", "approval-responded", "output-denied") else ""
    if not isinstance(approval, dict) or not isinstance(approval.get("id"), str):
        return "approval.id"
    if not isinstance(approval.get("reason", ""), str) or not isinstance(approval.get("isAutomatic", True), bool):
        return "approval.reason"
    allowed: dict[str, tuple[Any, ...]] = {
        "approval-requested": (None,),
        "approval-responded": (True, False),
        "output-available": (True,),
        "output-error": (True,),
        "output-denied": (False,),
    }
    given = approval.get("approved") if "approved" in approval else None
    if state == "approval-requested" and "reason" in approval:
        return "approval.reason"
    return "" if given in allowed.get(state, ()) else "approval.approved"
