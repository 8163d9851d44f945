"""The messages of a file -> drafts of entries."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from ...document.canonical import JSON
from ...document.entry import Config, Part, Reasoning, Role, Text, ToolCall, ToolResult, Unknown
from ..format import Draft, Outline, Reader
from ..hiding import Place, hidden_fields, hide
from ..json_input import bad, kind_of, list_at, object_at, text_at
from ..native import has_native_key, is_native_type
from .parts import CALL, EXTRA, ITEM, MESSAGE, OWN_TYPES, REASONING, ROLES, WORDS, role_as_type


def read_tools(whole: Mapping[str, JSON]) -> dict[str, JSON]:
    if "tools" not in whole:
        return {}
    tools = list_at(whole["tools"], "tools")
    for i, tool in enumerate(tools):
        object_at(tool, f"tools[{i}]")
        if tool.get("type") == "function":
            function = object_at(tool.get("function"), f"tools[{i}].function")
            text_at(function.get("name"), f"tools[{i}].function.name")
    return {"tools": tools}


class ChatReader(Reader):
    """Reads messages one after the other. ``places``: where in them opaque values stand; ``binding``: that of the
    hidden fields that they become."""

    def __init__(self, places: Sequence[Place], binding: Mapping[str, JSON], outline: Outline) -> None:
        super().__init__(outline)
        self._places = places
        self._binding = binding
        self._calls: dict[str, int] = {}  # call id -> the last draft that made it
        self._config: tuple[Part, ...] = (Config(dict(outline.config)),) if outline.config else ()

    def begin(self) -> Iterator[Draft]:
        if self._config and not self.outline.has_system:
            yield Draft("system", self._config)
            self._config = ()

    def read(self, item: Mapping[str, JSON], path: str) -> Iterator[Draft]:
        draft = self.read_message(item, path)
        if draft.role == "system" and self._config:
            draft, self._config = replace(draft, parts=(*draft.parts, *self._config)), ()
        yield draft

    def read_message(self, message: Mapping[str, JSON], path: str) -> Draft:
        """The draft of the next message."""
        name = text_at(message.get("role"), f"{path}.role")
        role = ROLES.get(name)
        if role is None:
            raise bad(f"{path}.role", f"is {name!r}", f"Known roles are {', '.join(ROLES)}.")
        (message,), found = hide([message], self._places, role_as_type)
        hidden = hidden_fields(found, lambda name: self._binding)
        left = {key: item for key, item in message.items() if key != "role"}
        kept: dict[str, JSON] = {} if name == role else {"role": name}
        parts: list[Part] = []
        if role == "assistant":
            parts += _read_reasoning(left, kept)
        parts += _read_content(left, kept, role, path)
        answers = self._answer(left, path) if role == "tool" else None
        if role == "assistant":
            calls = _read_calls(left, path)
            parts += calls
            self._calls.update(dict.fromkeys(_call_ids(calls), self.count))
        if left:
            kept["fields"] = left
        if kept:
            parts.append(Unknown({"type": MESSAGE, **kept}))
        author = left.get("name")
        return Draft(role, tuple(parts), answers, hidden, author if isinstance(author, str) else "")

    def _answer(self, left: dict[str, JSON], path: str) -> tuple[int, str]:
        call = text_at(left.pop("tool_call_id", None), f"{path}.tool_call_id")
        if call not in self._calls:
            raise bad(
                f"{path}.tool_call_id", f"is {call!r}, which no message before made", "Put the result after its call."
            )
        return self._calls[call], call


def _read_reasoning(left: dict[str, JSON], kept: dict[str, JSON]) -> list[Part]:
    for key in REASONING:
        if isinstance(left.get(key), str):
            if key != REASONING[0]:
                kept["reasoning"] = key
            return [Reasoning(left.pop(key))]
    return []


def _read_content(left: dict[str, JSON], kept: dict[str, JSON], role: Role, path: str) -> list[Part]:
    path = f"{path}.content"
    if role == "assistant" and left.get("content") is None:
        kept["content"] = "null" if "content" in left else "absent"
        left.pop("content", None)
        if kept["content"] == "null" and left.get("tool_calls"):
            del kept["content"]  # what write prints anyway
        return []
    content = left.pop("content", None)
    if isinstance(content, str):
        return [ToolResult(content) if role == "tool" else Text(content)]
    if not isinstance(content, list):
        raise bad(path, f"is {kind_of(content)}", "Content is text, or a list of content parts.")
    kept["content"] = "list"
    return [_read_item(item, f"{path}[{i}]") for i, item in enumerate(content)]


def _read_item(item: JSON, path: str) -> Part:
    kind = text_at(object_at(item, path).get("type"), f"{path}.type")
    if kind == "text" and not has_native_key(item):
        text = text_at(item.get("text"), f"{path}.text")
        return Text(text, {key: value for key, value in item.items() if key not in ("type", "text")})
    own = kind in OWN_TYPES or is_native_type(kind)
    return Unknown({"type": ITEM, "item": item}) if own else Unknown(item)


def _read_calls(left: dict[str, JSON], path: str) -> list[Part]:
    calls = left.get("tool_calls")
    if not calls and (calls is None or isinstance(calls, list)):
        return []  # null or an empty list stays among the fields
    del left["tool_calls"]
    return [_read_call(call, f"{path}.tool_calls[{i}]") for i, call in enumerate(list_at(calls, f"{path}.tool_calls"))]


def _read_call(call: JSON, path: str) -> Part:
    kind = object_at(call, path).get("type")
    name = text_at(call.get("id"), f"{path}.id")
    if not isinstance(kind, str) or kind not in WORDS:
        return Unknown({"type": CALL, "call": call})
    inner_key, words_key = kind, WORDS[kind]
    inner = object_at(call.get(inner_key), f"{path}.{inner_key}")
    tool = text_at(inner.get("name"), f"{path}.{inner_key}.name")
    hint = "Arguments are JSON written as text, in quotes."
    words = text_at(inner.get(words_key), f"{path}.{inner_key}.{words_key}", hint)
    rest = {
        "kind": kind if kind != "function" else None,
        "call": {key: value for key, value in call.items() if key not in ("id", "type", inner_key)},
        "inner": {key: value for key, value in inner.items() if key not in ("name", words_key)},
    }
    rest = {key: value for key, value in rest.items() if value}
    return ToolCall(name, tool, words, {EXTRA: rest} if rest else {})


def _call_ids(parts: Sequence[Part]) -> list[str]:
    return [part.id if isinstance(part, ToolCall) else part.json["call"]["id"] for part in parts]  # type: ignore[union-attr]
