"""The contract of a source: a file that another program keeps, which is read and never written.

One file a source, and one line in ``registry.py``. Such a file may hold many conversations, be no JSON (a zip, a
database, a line of JSON for each event), and tell a tree in place of a list. ``Source.conversations`` gives them one
after the other, each as steps that say what they follow.

Every source holds to this (``llmcrdt.testing.source_suite`` checks it):

1. *Nothing is dropped in silence.* What can't be shown is kept, as a hidden field of entries that stand beside the
   history (``kept_beside``), and counted in ``Notes.kept``. Lines that can't be read are named in ``Notes.refused``.
2. *The rest comes.* A damaged line, message or conversation is refused alone.
3. *Entries hold what was said* and nothing that another export of the same conversation may tell otherwise (times,
   costs, states), so that importing again extends. The source's own id names the conversation.
4. *Branches are alternatives*, the first one in the file first. ``Step.shown`` is the end of the path that the file
   says is the current one.
5. *Opaque values are hidden fields* with a binding, as in the formats, whose readers are used.
6. *Memory* is that of one message, and of a place for each of the others; exports of accounts, of one conversation.
"""

from __future__ import annotations

import io
import os
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from typing import BinaryIO, ClassVar

from ..document.canonical import JSON, exact_json
from ..document.entry import Config, HiddenField, Role, Unknown
from ..exceptions import FormatError
from .format import Draft, Reader
from .json_input import JsonReader, check_json

HEAD = 1 << 16
"""So many bytes of a file are looked at to find out what it is."""
MAX_LINE = 1 << 26
"""So many bytes a line may have."""
MAX_NAMED = 100
"""So many refusals are named; the others are counted."""
_MAX_FIRST = 1 << 22
_GROUP = 1 << 18
_BLANK = b"\xef\xbb\xbf \t\r\n"

Tell = Callable[[int], None]
"""Told how many bytes of a file were read; each counts twice, as it is read twice by most."""


@dataclass(frozen=True)
class Step:
    """A draft, and the step that it follows (its number), or None at the beginning. ``forks``: other steps than the
    next one may follow it. ``shown``: the path that the file shows ends here, or further on."""

    draft: Draft
    after: int | None
    forks: bool = False
    shown: bool = False


@dataclass
class Notes:
    """``kept``: how many things of each kind are kept and not shown. ``refused``: what could not be read, with its
    place; ``more``: how many others."""

    kept: Counter[str] = field(default_factory=Counter)
    refused: list[str] = field(default_factory=list)
    more: int = 0

    def refuse(self, where: str, error: FormatError) -> None:
        """Name something that is left out."""
        if len(self.refused) < MAX_NAMED:
            self.refused.append(f"{where}: {error.message}")
        else:
            self.more += 1


@dataclass
class Told:
    """A conversation of a file. ``id``: the source's own. ``size``: bytes, about. ``steps`` are read once, from any
    thread, then ``beside``: entries that stand beside the history. ``notes`` are whole when both were read.
    ``reached``: how many bytes of the file the steps have come to, where they read it again."""

    id: str
    title: str | None
    size: int
    steps: Iterator[Step]
    beside: Iterator[Draft]
    notes: Notes
    reached: Callable[[], int] | None = None


@dataclass(frozen=True)
class NotTold:
    """A conversation of a file that can't be read. ``where``: which one."""

    where: str
    error: FormatError


@dataclass(frozen=True)
class File:
    """A file that may be a source's."""

    path: str

    @cached_property
    def size(self) -> int:
        return os.path.getsize(self.path)

    @cached_property
    def head(self) -> bytes:
        """Its first bytes."""
        with open(self.path, "rb") as file:
            return file.read(HEAD)

    @cached_property
    def rows(self) -> Sequence[dict[str, JSON]]:
        """The objects that stand alone on the lines of its head; of a longer first line, that."""
        lines = self.head.splitlines(keepends=True)
        if len(lines) == 1 and len(self.head) == HEAD:
            with open(self.path, "rb") as file:
                lines = [file.readline(_MAX_FIRST)]
        found: list[dict[str, JSON]] = []
        for line in lines:
            if line.lstrip(_BLANK).startswith(b"{") and len(line) < _MAX_FIRST:
                with suppress(FormatError):
                    found.append(parsed_line(line))
        return found


class Source(ABC):
    """A kind of file. ``name``: its name in the registry. ``provider``: whom its hidden fields are for, where neither
    the file nor the caller says so. ``ends``: how the names of such files end, which a folder is searched for."""

    name: ClassVar[str]
    provider: ClassVar[str] = ""
    ends: ClassVar[Sequence[str]] = ()

    @abstractmethod
    def detect(self, file: File) -> int:
        """How sure it is that a file is its own: 0 (it is not) to 100. May raise OSError."""

    @abstractmethod
    def conversations(self, file: File, provider: str | None, tell: Tell) -> Iterator[Told | NotTold]:
        """The conversations of a file. Each is read before the next one is asked for. Raises FormatError where the
        file as a whole is none, or ends in the middle."""


# -- lines


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a file. ``number``: from 1."""

    number: int
    start: int
    raw: bytes | None
    """None: it is too long."""

    @property
    def name(self) -> str:
        return f"line {self.number}"


def lines_of(file: BinaryIO, size: int, tell: Tell = lambda done: None) -> Iterator[Line]:
    """The lines of a file that are not blank, of its first ``size`` bytes: it may be growing."""
    at = told = 0
    number = 0
    while raw := file.readline(min(MAX_LINE + 1, size - at)):
        number, start = number + 1, at
        at += len(raw)
        whole = len(raw) <= MAX_LINE
        while not raw.endswith(b"\n") and len(raw) > MAX_LINE:
            raw = file.readline(min(MAX_LINE + 1, size - at))
            at += len(raw)
        if not whole or raw.strip(_BLANK):
            yield Line(number, start, raw if whole else None)
        if at - told > HEAD:
            told = at
            tell(at)


def parsed_line(raw: bytes | None) -> dict[str, JSON]:
    """The object that a line is. Raises FormatError."""
    if raw is None:
        raise FormatError(f"It has more than {MAX_LINE} bytes.", hint="Nothing else of the file is affected.")
    try:
        text = raw.removeprefix(b"\xef\xbb\xbf").decode("utf-8")
    except UnicodeDecodeError:
        raise FormatError("It is not UTF-8 text.", hint="Nothing else of the file is affected.") from None
    value = JsonReader(io.StringIO(text)).whole()
    check_json(value)
    if not isinstance(value, dict):
        raise FormatError("It is no object.", hint="Nothing else of the file is affected.")
    return value


def parsed_line_at(file: BinaryIO, start: int, size: int) -> dict[str, JSON]:
    """The object of a line that was read before. Raises FormatError."""
    file.seek(start)
    return parsed_line(file.read(size))


def text_or_none(value: JSON) -> str | None:
    """``value`` if it is text that says something."""
    return value if isinstance(value, str) and value else None


# -- what is kept and not shown


def kept_beside(name: str, items: Iterable[tuple[str, JSON]]) -> Iterator[Draft]:
    """Entries that stand beside a history and keep things that it can't show, each with its kind. Of a file that grows,
    all but the last entry stay the same."""
    kinds: Counter[str] = Counter()
    texts: list[str] = []
    size = 0
    for kind, item in items:
        text = exact_json(item)
        if texts and size + len(text) > _GROUP:
            yield _kept(name, kinds, texts)
            kinds, texts, size = Counter(), [], 0
        kinds[kind] += 1
        texts.append(text)
        size += len(text)
    if texts:
        yield _kept(name, kinds, texts)


def _kept(name: str, kinds: Counter[str], texts: Sequence[str]) -> Draft:
    data = f"[{','.join(texts)}]".encode()
    return Draft("system", (Config({name: {"kept": dict(kinds)}}),), hidden={f"{name}/kept": _hidden(name, data)})


def unread(name: str, role: Role, items: Sequence[JSON]) -> Draft:
    """An entry in the place of a message that can't be read, which it keeps."""
    part = Unknown({"type": f"{name}/block", "block": {"type": "unread"}})
    return Draft(role, (part,), hidden={f"{name}/kept": _hidden(name, exact_json(list(items)).encode())})


def _hidden(name: str, data: bytes) -> HiddenField:
    return HiddenField(data, {"provider": name})


# -- trees


class Tree:
    """Nodes in the order of a file, each with the number of its parent or None. Links that go in a circle are cut:
    ``cut`` says how many."""

    def __init__(self, parents: Iterable[int | None]) -> None:
        self.parents = list(parents)
        self.cut = 0
        done = [False] * len(self.parents)
        for node in range(len(self.parents)):
            path: list[int] = []
            on_path: set[int] = set()
            at: int | None = node
            while at is not None and not done[at]:
                if at in on_path:
                    first = min(path[path.index(at) :])
                    self.parents[first] = None
                    self.cut += 1
                    break
                path.append(at)
                on_path.add(at)
                at = self.parents[at]
            for each in path:
                done[each] = True

    def children(self) -> tuple[list[int], list[list[int]]]:
        """The nodes without a parent, and the children of each node."""
        roots: list[int] = []
        below: list[list[int]] = [[] for _ in self.parents]
        for node, parent in enumerate(self.parents):
            (roots if parent is None else below[parent]).append(node)
        return roots, below

    def parents_first(self) -> Iterator[int]:
        """The nodes in the order of the file, but each after its parent."""
        seen = [False] * len(self.parents)
        for node in range(len(self.parents)):
            path: list[int] = []
            at: int | None = node
            while at is not None and not seen[at]:
                seen[at] = True
                path.append(at)
                at = self.parents[at]
            yield from reversed(path)


def walk(
    tree: Tree, shown: int | None, reader: Reader, read: Callable[[Reader, int], Sequence[Draft]]
) -> Iterator[Step]:
    """The steps of a tree, the branch that began first at first. ``read``: the drafts of a node, at least one, with the
    reader of its branch. ``shown``: the node where the shown path ends."""
    roots, below = tree.children()
    count = 0
    todo: list[tuple[int, Reader, int | None]] = [
        (root, reader if len(roots) == 1 else reader.fork(), None) for root in reversed(roots)
    ]
    while todo:
        node, reader, after = todo.pop()
        reader.count = count
        drafts = read(reader, node)
        for n, draft in enumerate(drafts):
            last = n == len(drafts) - 1
            yield Step(draft, after, forks=last and len(below[node]) > 1, shown=node == shown and last)
            after = count
            count += 1
        forks = len(below[node]) > 1
        todo += [(child, reader.fork() if forks else reader, after) for child in reversed(below[node])]


def collected(reader: Reader, drafts: Iterable[Draft]) -> list[Draft]:
    """Drafts that a reader gives, which it counts."""
    made: list[Draft] = []
    for draft in drafts:
        made.append(draft)
        reader.count += 1
    return made


def in_a_row(drafts: Iterable[Draft]) -> Iterator[Step]:
    """The steps of a history without branches."""
    for n, draft in enumerate(drafts):
        yield Step(draft, n - 1 if n else None)
