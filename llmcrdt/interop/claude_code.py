"""``claude-code``: the sessions of Claude Code, a file of lines each.

A line is an event with a ``uuid`` and a ``parentUuid``, so that a file holds a tree. Messages are those of the
Messages API, whose reader (``anthropic``) reads them; the model's is written a block at a time, in lines with one
``message.id``. Results of calls that run at the same time hang on the lines of their calls, which is no branch: they
follow the whole message, one after the other.

Sidechains (what subagents said) and all that is no message are kept and not shown; of a message all but what it says.
A file with nothing but a sidechain is a conversation.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import BinaryIO

from ..document.canonical import JSON
from ..document.entry import Role
from ..exceptions import FormatError
from .anthropic import Anthropic
from .format import Draft, Outline, Reader
from .native import mapping
from .source import (
    File,
    Line,
    Notes,
    Source,
    Step,
    Tell,
    Told,
    Tree,
    collected,
    kept_beside,
    lines_of,
    parsed_line,
    parsed_line_at,
    text_or_none,
    unread,
    walk,
)

_TITLES = (("custom-title", "customTitle"), ("ai-title", "aiTitle"), ("summary", "summary"))
_ROLES = ("user", "assistant")
_NAME = "claude-code"
_FORMAT = Anthropic()


class ClaudeCode(Source):
    """Sessions of Claude Code."""

    name = _NAME
    provider = "anthropic"
    ends = (".jsonl",)

    def detect(self, file: File) -> int:
        for row in file.rows:
            if isinstance(row.get("sessionId"), str) and isinstance(row.get("type"), str):
                return 90
            if row.get("type") == "summary" and isinstance(row.get("leafUuid"), str):
                return 80
            if row.get("type") == "file-history-snapshot" and isinstance(row.get("snapshot"), dict):
                return 80
        return 0

    def conversations(self, file: File, provider: str | None, tell: Tell) -> Iterator[Told]:
        yield _Session(file, provider or self.provider, tell).told()


@dataclass(slots=True)
class _Event:
    """A line, as far as it has to be known to find its place."""

    number: int
    start: int
    size: int
    role: Role | None  # of a message
    side: bool
    message: str | None = None
    results: tuple[str, ...] = ()


@dataclass(slots=True)
class _Node:
    """A message: its lines; the calls that it answers; whether something follows it."""

    parent: int | None
    role: Role
    lines: list[_Event]
    message: str | None
    results: set[str] | None = None  # most have none, and there may be 100,000
    followed_by: list[int] = field(default_factory=list)


class _Session:
    """One file. ``told`` reads it once to find the places of its lines; messages are read when they are asked for."""

    def __init__(self, file: File, provider: str, tell: Tell) -> None:
        self._path, self._size, self._tell = file.path, file.size, tell
        self._notes = Notes()
        self._titles: dict[str, str] = {}
        self._id: str | None = None
        self._side_id: str | None = None
        self._shown: set[int] = set()  # where the lines begin whose messages are shown
        self._outline = Outline(None, provider)
        self._at = 0

    def told(self) -> Told:
        events, parents = self._survey()
        if all(event.side for event in events if event.role):
            self._id = self._side_id or self._id
            for event in events:  # the file is a sidechain
                event.side = False
        if self._id is None:
            raise FormatError("No line names a session.", hint="Give a file of ~/.claude/projects, as it is.")
        tree = Tree(parents)
        if tree.cut:
            self._notes.kept["links that go in a circle"] = tree.cut
        nodes, shown = _nodes(events, tree)
        self._shown = {event.start for node in nodes for event in node.lines}
        title = next((self._titles[kind] for kind, _ in _TITLES if kind in self._titles), None)
        return Told(
            self._id, title, self._size, self._steps(nodes, shown), self._beside(), self._notes, lambda: self._at
        )

    def _survey(self) -> tuple[list[_Event], list[int | None]]:
        """The lines that have a uuid, and the number of the parent of each."""
        events: list[_Event] = []
        wanted: list[str | None] = []
        by_uuid: dict[str, int] = {}
        with open(self._path, "rb") as file:
            for line in lines_of(file, self._size, self._tell):
                try:
                    row = parsed_line(line.raw)
                except FormatError as error:
                    self._notes.refuse(line.name, error)
                    continue
                uuid, session = row.get("uuid"), text_or_none(row.get("sessionId"))
                for kind, key in _TITLES:
                    if row.get("type") == kind and (said := text_or_none(row.get(key))):
                        self._titles[kind] = said
                if not isinstance(uuid, str) or uuid in by_uuid:
                    continue
                event = _event(line, row)
                if session and event.side:
                    self._side_id = self._side_id or f"{session}/{text_or_none(row.get('agentId')) or ''}"
                elif session:
                    self._id = self._id or session
                by_uuid[uuid] = len(events)
                parent = row.get("parentUuid") or row.get("logicalParentUuid")
                wanted.append(parent if isinstance(parent, str) else None)
                events.append(event)
        return events, _parents(events, wanted, by_uuid)

    def _steps(self, nodes: Sequence[_Node], shown: int | None) -> Iterator[Step]:
        with open(self._path, "rb") as file:

            def read(reader: Reader, number: int) -> Sequence[Draft]:
                return self._read(file, reader, nodes[number])

            yield from walk(Tree(node.parent for node in nodes), shown, _FORMAT.reader(self._outline), read)

    def _read(self, file: BinaryIO, reader: Reader, node: _Node) -> Sequence[Draft]:
        self._at = node.lines[0].start
        rows = [parsed_line_at(file, event.start, event.size) for event in node.lines]
        messages = [mapping(row.get("message")) for row in rows]
        try:
            return collected(reader, reader.read(_message(messages), "message")) or [unread(_NAME, node.role, messages)]
        except FormatError as error:
            self._notes.refuse(f"line {node.lines[0].number}", error)
            return [unread(_NAME, node.role, messages)]

    def _beside(self) -> Iterator[Draft]:
        return kept_beside(_NAME, self._kept())

    def _kept(self) -> Iterator[tuple[str, JSON]]:
        """All that is not shown, in the order of the file."""
        with open(self._path, "rb") as file:
            for line in lines_of(file, self._size):
                try:
                    row = parsed_line(line.raw)
                except FormatError:
                    continue  # it was named
                if line.start in self._shown:
                    message = {k: v for k, v in mapping(row.get("message")).items() if k not in ("role", "content")}
                    yield "of messages", {**row, "message": message}
                else:
                    kind = "sidechain" if row.get("isSidechain") is True else text_or_none(row.get("type")) or "other"
                    self._notes.kept[kind] += 1
                    yield kind, row


def _event(line: Line, row: Mapping[str, JSON]) -> _Event:
    message = mapping(row.get("message"))
    role = row.get("type") if row.get("type") == message.get("role") and message.get("role") in _ROLES else None
    blocks = message.get("content")
    answered = [mapping(block).get("tool_use_id") for block in blocks] if isinstance(blocks, list) else []
    return _Event(
        line.number,
        line.start,
        len(line.raw or b""),
        role,
        row.get("isSidechain") is True,
        text_or_none(message.get("id")) if role == "assistant" else None,
        tuple(id_ for id_ in answered if isinstance(id_, str)) if role == "user" else (),
    )


def _parents(events: Sequence[_Event], wanted: Sequence[str | None], by_uuid: Mapping[str, int]) -> list[int | None]:
    """The parent of each line. One whose parent is not there (a damaged line) follows the line before it."""
    parents: list[int | None] = []
    last: int | None = None
    for n, uuid in enumerate(wanted):
        parents.append(by_uuid.get(uuid, last) if uuid else None)
        if not events[n].side:
            last = n
    return parents


def _nodes(events: Sequence[_Event], tree: Tree) -> tuple[list[_Node], int | None]:
    """The messages that lines tell, and which of them is the end of the shown path: the last one in the file."""
    nodes: list[_Node] = []
    node_of: list[int | None] = [None] * len(events)
    for n in tree.parents_first():
        event, parent = events[n], tree.parents[n]
        at = node_of[parent] if parent is not None else None
        if event.role and not event.side:
            joined = _joined(nodes, at, event)
            if joined is None:
                joined, role = len(nodes), event.role
                nodes.append(_Node(at, role, [], event.message))
                if at is not None:
                    nodes[at].followed_by.append(joined)
            nodes[joined].lines.append(event)
            if event.results:
                known = nodes[joined].results = nodes[joined].results or set()
                known.update(event.results)
            at = joined
        node_of[n] = at
    said = [n for n, event in enumerate(events) if event.role and not event.side]
    return nodes, node_of[said[-1]] if said else None


def _joined(nodes: Sequence[_Node], at: int | None, event: _Event) -> int | None:
    """The message that a line goes on with, if it is no new one."""
    if at is None:
        return None
    node = nodes[at]
    above = nodes[node.parent] if node.parent is not None else None
    if event.message is not None:
        if node.message == event.message:
            return at
        # A call may be answered before the rest of its message is written.
        of_above = above is not None and above.message == event.message
        return node.parent if of_above and node.results and not node.followed_by else None
    if not event.results:
        return None
    candidates = [*node.followed_by, at] if node.role == "assistant" else [at]
    for n in candidates:
        other = nodes[n]
        if other.results and not other.followed_by and not other.results & set(event.results):
            return n
    return None


def _message(messages: Sequence[Mapping[str, JSON]]) -> dict[str, JSON]:
    """The message that lines tell together."""
    first = messages[0]
    content = first.get("content")
    if len(messages) > 1:
        pieces = [message.get("content") for message in messages]
        content = [block for piece in pieces for block in (piece if isinstance(piece, list) else [_text(piece)])]
    model = text_or_none(messages[-1].get("model"))
    return {"role": first.get("role"), "content": content, **({"model": model} if model else {})}


def _text(piece: JSON) -> JSON:
    return {"type": "text", "text": piece}
