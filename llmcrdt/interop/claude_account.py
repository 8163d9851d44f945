"""``claude``: the export of a Claude account.

A conversation is a list of ``chat_messages``, which may name the one before (``parent_message_uuid``). A message is a
list of blocks like those of the Messages API; calls and their results stand in the assistant's own message, so that it
becomes several entries. The text of an attachment is a document. Files are named and not taken.

Of each message all but what it says is kept and not shown: the next export may tell it otherwise.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from ..document.canonical import JSON
from ..document.entry import Part, Reasoning, Role, Text, ToolCall, ToolResult
from ..exceptions import FormatError
from .account_export import AccountExport
from .format import Draft, Outline, Reader
from .hiding import type_of
from .json_input import list_at
from .native import Native, mapping
from .source import Notes, Told, Tree, kept_beside, text_or_none, walk
from .turns import text_of_object

_NAME = "claude"
_NATIVE = Native(_NAME)
_DOCUMENTS = Native("anthropic")  # the Messages API has a block for what an attachment says
_ROLES: Mapping[JSON, Role] = {"human": "user", "user": "user", "assistant": "assistant"}
_ROOT = "00000000-0000-4000-8000-000000000000"
_SHOWN = {"text": "text", "thinking": "thinking", "tool_use": "input", "tool_result": "content"}


class ClaudeAccount(AccountExport):
    """Exports of Claude accounts."""

    name = _NAME
    provider = "anthropic"

    def is_own(self, item: Mapping[str, JSON]) -> bool:
        return isinstance(item.get("chat_messages"), list)

    def told(self, item: Mapping[str, JSON], size: int, provider: str) -> Told:
        id_ = text_or_none(item.get("uuid"))
        if id_ is None:
            raise FormatError("The conversation has no uuid.", hint="Ask for the export again.")
        read = _Conversation(item)
        return Told(id_, text_or_none(item.get("name")), size, read.steps, read.beside, read.notes)


@dataclass
class _Message:
    """A message with its blocks. ``number``: in the list."""

    number: int
    id: str
    value: Mapping[str, JSON]
    role: Role
    blocks: Sequence[JSON]


class _Conversation:
    """One conversation."""

    def __init__(self, item: Mapping[str, JSON]) -> None:
        self._item = item
        self.notes = Notes()
        self._messages: list[_Message] = []
        self._odd: list[JSON] = []
        at: dict[str, int] = {}
        listed = list_at(item.get("chat_messages"), "chat_messages")
        wanted: list[JSON] = []
        for n, value in enumerate(listed):
            message = self._message(n, mapping(value), at)
            if message is None:
                self._odd.append(value)
                continue
            at[message.id] = len(self._messages)
            wanted.append(message.value.get("parent_message_uuid"))
            self._messages.append(message)
        tree = Tree(_parent(at, n, parent) for n, parent in enumerate(wanted))
        if tree.cut:
            self.notes.kept["links that go in a circle"] = tree.cut
        current = item.get("current_leaf_message_uuid")
        last = len(self._messages) - 1 if self._messages else None
        shown = at.get(current, last) if isinstance(current, str) else last
        self.steps = walk(tree, shown, Reader(Outline(None, "")), self._read)
        self.beside = kept_beside(_NAME, self._kept())

    def _message(self, number: int, value: Mapping[str, JSON], at: Mapping[str, int]) -> _Message | None:
        role, id_ = _ROLES.get(str(value.get("sender"))), value.get("uuid")
        id_ = id_ if isinstance(id_, str) else f"message-{number}"
        if role is None or id_ in at:
            return None
        content, text = value.get("content"), text_or_none(value.get("text"))
        blocks = [block for block in _list(content) if isinstance(block, dict)]
        return _Message(number, id_, value, role, blocks or ([{"type": "text", "text": text}] if text else []))

    def _read(self, reader: Reader, number: int) -> Sequence[Draft]:
        message = self._messages[number]
        if message.role == "user":
            parts = [_part(block, message, n) for n, block in enumerate(message.blocks)]
            return [Draft("user", tuple([*parts, *self._attached(message)] or [Text("")]))]
        return list(self._turn(message, reader.count))

    def _turn(self, message: _Message, count: int) -> Iterator[Draft]:
        """An assistant's message: what it says up to a result, the result, what it says then, and so on."""
        calls: dict[str, int] = {}
        open_: list[str] = []
        said: list[Part] = []
        made = 0
        for n, block in enumerate(message.blocks):
            if type_of(block) != "tool_result":
                part = _part(block, message, n)
                said.append(part)
                if isinstance(part, ToolCall):
                    open_.append(part.id)
                continue
            named = text_or_none(block.get("tool_use_id"))
            call = named if named in calls or named in open_ else open_[0] if open_ else None
            if call is None:
                self.notes.kept["results without a call"] += 1
                said.append(_NATIVE.block({"type": "tool_result"}))
                continue
            if said:
                calls |= dict.fromkeys((part.id for part in said if isinstance(part, ToolCall)), count + made)
                yield Draft("assistant", tuple(said))
                said, made = [], made + 1
            if call in open_:
                open_.remove(call)
            yield Draft("tool", tuple(_result(block)), (calls[call], call))
            made += 1
        if said or not made:
            yield Draft("assistant", tuple(said or [Text("")]))

    def _attached(self, message: _Message) -> Iterator[Part]:
        for key in ("attachments", "files", "files_v2"):
            for value in _list(message.value.get(key)):
                name, text = text_or_none(mapping(value).get("file_name")), mapping(value).get("extracted_content")
                title = {"title": name} if name else {}
                if text_or_none(text):
                    source = {"type": "text", "media_type": "text/plain", "data": text}
                    yield _DOCUMENTS.block({"type": "document", "source": source, **title})
                else:
                    self.notes.kept["files, named only"] += 1
                    yield _NATIVE.block({"type": "file", **title})

    def _kept(self) -> Iterator[tuple[str, JSON]]:
        for message in self._messages:
            blocks = [_rest(block) for block in message.blocks]
            rest = {key: value for key, value in message.value.items() if key not in ("text", "attachments")}
            attached = message.value.get("attachments")
            files = [{k: v for k, v in mapping(one).items() if k != "extracted_content"} for one in _list(attached)]
            yield "of messages", {**rest, "content": blocks, "attachments": files}
        for value in self._odd:
            self.notes.kept["other messages"] += 1
            yield "other", value
        yield "of the conversation", {key: value for key, value in self._item.items() if key != "chat_messages"}


def _list(value: JSON) -> list[JSON]:
    return value if isinstance(value, list) else []


def _parent(at: Mapping[str, int], number: int, parent: JSON) -> int | None:
    """The message that one follows: where it does not say which, or that is not there, the one before it."""
    if isinstance(parent, str) and (parent in at or parent == _ROOT):
        return at.get(parent)
    return number - 1 if number else None


def _rest(block: JSON) -> JSON:
    shown = _SHOWN.get(type_of(block))
    return {key: value for key, value in block.items() if key != shown}


def _part(block: JSON, message: _Message, number: int) -> Part:
    kind = type_of(block)
    text = block.get(kind) if kind in ("text", "thinking") else None
    if isinstance(text, str):
        return Text(text) if kind == "text" else Reasoning(text)
    if kind == "tool_use" and text_or_none(block.get("name")):
        given, id_ = block.get("input"), text_or_none(block.get("id")) or f"call_{message.id}_{number}"
        arguments = text_of_object(given) if isinstance(given, dict) else given if isinstance(given, str) else "{}"
        return ToolCall(id_, block["name"], arguments)
    return _NATIVE.block({"type": kind or "unknown"})


def _result(block: JSON) -> Iterator[Part]:
    content, error = block.get("content"), block.get("is_error") is True
    pieces = content if isinstance(content, list) else [{"type": "text", "text": content}]
    for piece in pieces:
        text = mapping(piece).get("text")
        yield ToolResult(text, error) if isinstance(text, str) else _NATIVE.block({"type": type_of(piece) or "unknown"})
