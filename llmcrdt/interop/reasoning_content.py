"""``reasoning-content``: chat completions as DeepSeek, Kimi, GLM and servers of open models have them in their thinking
mode: ``reasoning_content`` beside the content.

It is a text that people may read, so it is a part of the entry. A message with calls has to bring it back, also an
empty one; the others keep it, which costs nothing where it is ignored.
"""

from __future__ import annotations

from ..document.canonical import JSON, exact_json
from ..document.entry import Entry
from .format import Rule, Survey
from .native import mapping
from .openai_chat import ChatFormat, OpenAIChat

_KEY = "reasoning_content"


class ReasoningContent(ChatFormat):
    """Chat completions with ``reasoning_content``."""

    name = "reasoning-content"
    provider = "deepseek"
    rules = (
        *OpenAIChat.rules,
        Rule(
            "messages with calls bring their reasoning back",
            "The `reasoning_content` in the thinking mode must be passed back to the API",
            "an empty text where there is none",
        ),
        Rule("roles are those of old", "unknown variant `developer`", "it is system"),
        Rule("calls are functions", "unknown variant `custom`", "its input becomes an argument"),
    )

    def detect(self, about: Survey) -> int:
        return 55 if super().detect(about) and any(isinstance(m.get(_KEY), str) for m in about.sample) else 0

    def finish(self, entry: Entry, message: dict[str, JSON]) -> dict[str, JSON]:
        made = dict(message)
        if made.get("role") == "developer":
            made["role"] = "system"
        if made.get("tool_calls"):
            made["tool_calls"] = [_as_function(call) for call in made["tool_calls"]]
            if not isinstance(made.get(_KEY), str):
                other = made.pop("reasoning", None)
                made[_KEY] = other if isinstance(other, str) else ""
        return made


def _as_function(call: JSON) -> JSON:
    """A call as that of a function."""
    kind = call["type"]
    if kind == "function":
        return call
    inner = mapping(call.get(kind))
    name = inner.get("name")
    words: JSON = {key: value for key, value in call.items() if key not in ("id", "type")}
    if kind == "custom":
        words = {"input": inner["input"]}
    function = {"name": name if isinstance(name, str) and name else kind, "arguments": exact_json(words)}
    return {"id": call["id"], "type": "function", "function": function}
