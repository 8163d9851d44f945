"""``chatgpt``: the export of a ChatGPT account.

A conversation is a ``mapping`` of nodes, each with its parent, and ``current_node``, the end of the path that is shown.
A node is a message or nothing. Messages of an assistant to a tool (``recipient``) are calls; a tool's are results.

Messages that ChatGPT hides, instructions of the account among them, are kept and not shown, and of each message all
but what it says: this may be told otherwise by the next export. Pictures and other files are named and not taken.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from ..document.canonical import JSON
from ..document.entry import Part, Reasoning, Role, Text, ToolCall, ToolResult
from ..exceptions import FormatError
from .account_export import AccountExport
from .format import Draft, Outline, Reader
from .json_input import object_at
from .native import Native, mapping
from .source import Notes, Told, Tree, kept_beside, text_or_none, unread, walk

_NAME = "chatgpt"
_NATIVE = Native(_NAME)
_ROLES: Mapping[str, Role] = {"user": "user", "assistant": "assistant", "system": "system", "tool": "tool"}
_TEXTS = ("text", "result", "content")


class ChatGPT(AccountExport):
    """Exports of ChatGPT accounts."""

    name = _NAME
    provider = "openai"

    def is_own(self, item: Mapping[str, JSON]) -> bool:
        return isinstance(item.get("mapping"), dict)

    def told(self, item: Mapping[str, JSON], size: int, provider: str) -> Told:
        id_ = text_or_none(item.get("conversation_id")) or text_or_none(item.get("id"))
        if id_ is None:
            raise FormatError("The conversation has no id.", hint="Ask for the export again.")
        read = _Conversation(item)
        return Told(id_, text_or_none(item.get("title")), size, read.steps, read.beside, read.notes)


@dataclass
class _Node:
    """A node. ``role``: None where nothing of it is shown."""

    id: str
    value: Mapping[str, JSON]
    message: Mapping[str, JSON]
    role: Role | None
    parts: Sequence[Part]


class _Calls(Reader):
    """Knows the calls of the path by the name of their tool, and the last one."""

    def __init__(self) -> None:
        super().__init__(Outline(None, ""))
        self.calls: dict[str, tuple[int, str]] = {}


class _Conversation:
    """One conversation."""

    def __init__(self, item: Mapping[str, JSON]) -> None:
        self._item = item
        self.notes = Notes()
        table = object_at(item.get("mapping"), "mapping")
        self._nodes = [self._node(id_, mapping(table[id_])) for id_ in _in_order(table)]
        at = {node.id: n for n, node in enumerate(self._nodes)}
        whole = Tree(_number(at, node.value.get("parent")) for node in self._nodes)
        if whole.cut:
            self.notes.kept["links that go in a circle"] = whole.cut
        shown_at: list[int | None] = [None] * len(self._nodes)
        self._shown: list[_Node] = []
        parents: list[int | None] = []
        for n in whole.parents_first():
            above = whole.parents[n]
            parent = shown_at[above] if above is not None else None
            if self._nodes[n].role is not None:
                shown_at[n] = len(self._shown)
                self._shown.append(self._nodes[n])
                parents.append(parent)
            else:
                shown_at[n] = parent
        current = _number(at, item.get("current_node"))
        self.steps = walk(Tree(parents), shown_at[current] if current is not None else None, _Calls(), self._read)
        self.beside = kept_beside(_NAME, self._kept())

    def _node(self, id_: str, value: Mapping[str, JSON]) -> _Node:
        message = mapping(value.get("message"))
        role = _ROLES.get(str(mapping(message.get("author")).get("role")))
        hidden = mapping(message.get("metadata")).get("is_visually_hidden_from_conversation") is True
        parts: Sequence[Part] = () if role is None or hidden else _parts(mapping(message.get("content")))
        return _Node(id_, value, message, role if parts else None, parts)

    def _read(self, reader: Reader, number: int) -> Sequence[Draft]:
        assert isinstance(reader, _Calls)
        node = self._shown[number]
        assert node.role is not None
        author, recipient = mapping(node.message.get("author")), text_or_none(node.message.get("recipient"))
        if node.role == "assistant" and recipient not in (None, "all"):
            given = "".join(part.text for part in node.parts if isinstance(part, (Text, Reasoning)))
            reader.calls.pop(str(recipient), None)
            reader.calls[str(recipient)] = (reader.count, node.id)
            return [Draft("assistant", (ToolCall(node.id, str(recipient), given),))]
        if node.role == "tool":
            call = reader.calls.get(str(author.get("name"))) or next(reversed(reader.calls.values()), None)
            if call is None:
                self.notes.kept["results without a call"] += 1
                return [unread(_NAME, "assistant", [node.message])]
            results = [ToolResult(part.text) if isinstance(part, Text) else part for part in node.parts]
            return [Draft("tool", tuple(results), call)]
        return [Draft(node.role, tuple(node.parts))]

    def _kept(self) -> Iterator[tuple[str, JSON]]:
        for node in self._nodes:
            if node.role is not None:
                files = sum(getattr(part, "type", "") == _NATIVE.block_type for part in node.parts)
                if files:
                    self.notes.kept["pictures, files and the like, named only"] += files
                message = {key: value for key, value in node.message.items() if key != "content"}
                content = {k: v for k, v in mapping(node.message.get("content")).items() if k not in ("text", "parts")}
                pieces = mapping(node.message.get("content")).get("parts")
                if isinstance(pieces, list):
                    content["parts"] = [piece for piece in pieces if not isinstance(piece, str)]
                yield "of messages", {**node.value, "message": {**message, "content": content}}
            else:
                if node.message:
                    self.notes.kept["hidden or empty messages"] += 1
                yield "hidden", dict(node.value)
        yield "of the conversation", {key: value for key, value in self._item.items() if key != "mapping"}


def _number(at: Mapping[str, int], id_: JSON) -> int | None:
    return at.get(id_) if isinstance(id_, str) else None


def _in_order(table: Mapping[str, JSON]) -> list[str]:
    """The nodes, each before its children, and these in the order that it names them; others as they stand."""
    found: dict[str, None] = {}
    above = {id_: text_or_none(mapping(value).get("parent")) for id_, value in table.items()}
    for start in [id_ for id_ in table if above[id_] not in table] + list(table):
        todo = [start]
        while todo:
            id_ = todo.pop()
            if id_ not in found:
                found[id_] = None
                children = mapping(table[id_]).get("children")
                own = [c for c in children if isinstance(c, str)] if isinstance(children, list) else []
                todo += [c for c in reversed(own) if above.get(c) == id_]
    return list(found)


def _parts(content: Mapping[str, JSON]) -> list[Part]:
    """The parts of a message; none where it is empty."""
    kind = content.get("content_type")
    if kind == "thoughts":
        thoughts = content.get("thoughts")
        told = [mapping(thought) for thought in thoughts] if isinstance(thoughts, list) else []
        said = [text for thought in told for key in ("summary", "content") if (text := text_or_none(thought.get(key)))]
        return [Reasoning("\n\n".join(said))] if said else []
    if kind == "reasoning_recap":
        return []
    pieces = content.get("parts")
    if not isinstance(pieces, list):
        said = [text for key in _TEXTS if (text := text_or_none(content.get(key)))]
        return [Text(said[0])] if said else []
    parts: list[Part] = []
    for piece in pieces:
        if isinstance(piece, str):
            parts += [Text(piece)] if piece else []
        elif (spoken := text_or_none(mapping(piece).get("text"))) is not None:
            parts.append(Text(spoken))
        else:
            kind, pointer = mapping(piece).get("content_type"), mapping(piece).get("asset_pointer")
            named = {"asset_pointer": pointer} if isinstance(pointer, str) else {}
            parts.append(_NATIVE.block({"type": kind if isinstance(kind, str) else "unknown", **named}))
    return parts
