"""The last cache points of a request stay; the API takes so many. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from ...document.canonical import JSON, exact_json

MAX_CACHE_POINTS = 4


def with_cache_points(messages: Sequence[JSON], points: int) -> list[JSON]:
    """The messages with their last cache points."""
    out: list[JSON] = []
    for message in reversed(messages):
        content = message["content"]
        if isinstance(content, list) and any("cache_control" in exact_json(block) for block in content):
            blocks: list[JSON] = []
            for block in reversed(content):
                block, points = _thinned(block, points)
                blocks.insert(0, block)
            message = {**message, "content": blocks}
        out.append(message)
    return out[::-1]


def _thinned(block: JSON, points: int) -> tuple[JSON, int]:
    inner = block.get("content") if block.get("type") == "tool_result" else None
    if "cache_control" in block:
        if points == 0:
            block = {key: value for key, value in block.items() if key != "cache_control"}
        points = max(0, points - 1)
    if isinstance(inner, list):
        kept: list[JSON] = []
        for one in reversed(inner):
            one, points = _thinned(one, points)
            kept.insert(0, one)
        block = {**block, "content": kept}
    return block, points


def without_points(value: JSON) -> JSON:
    """A list, or an object, of blocks without cache points, those inside of results too."""
    if isinstance(value, list):
        return [without_points(one) for one in value]
    if not isinstance(value, dict):
        return value
    inner = value.get("content")
    kept = {key: one for key, one in value.items() if key != "cache_control"}
    return {**kept, "content": without_points(inner)} if isinstance(inner, list) else kept
