"""The entry index of a conversation, in the tables of a repo's file: derived from its document, so that a page of it or
a search needs no replica, and so that a replica is ready without reading every entry.

One row per entry: its fields as the document has them, its words if it is sealed, and its node in the order in short
form; for one that has a choice, the version that is pinned. Beside the rows stands the transcript, as a list of their
entries: so a change that moves many changes none of their rows. Nothing here is ever the only copy of anything.
``projector.py`` derives all that; a host stores it.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from ..crdt.backend import Node as ReplicaNode
from ..crdt.backend import Other, Scalar, SharedText
from ..ids import ContentHash
from .frame import frame_from_row, frame_to_row
from .nodes import Node

RULES = "4"
"""Names the rules that rows are made by. Another name here, and an index made before is made again."""

_KINDS = (str, bytes, SharedText, Other)
_LENGTHS = struct.Struct(">IBI")


class IndexRow(NamedTuple):
    """One entry. ``pin``: the version that is shown, where that is not plain (``entry_state.has_choice``) and the entry
    is in a frame; ``words`` is None where it can't be searched for."""

    entry: str
    pin: str | None
    node: str
    erased: bool
    fields: bytes
    words: str | None


class IndexChange(NamedTuple):
    """The changes to the index of a conversation, in this order. The first ``steady`` entries of the transcript stand
    where they stood; ``shown`` are those behind them."""

    gone: Sequence[str]
    put: Sequence[IndexRow]
    steady: int
    shown: Sequence[str]


Known = Mapping[str, str | None]
"""entry -> pin, as the index has them."""


class IndexSource(Protocol):
    """The rows as they should be. Called under the document's lock."""

    def changes(self, known: Known | None) -> IndexChange | None:
        """The change from ``known`` to what is true now. None for ``known``: the rows as of the last ``note_written``;
        the answer is None if only the rows themselves can tell."""
        ...

    def note_written(self) -> None:
        """The index holds what is true now."""
        ...


class EntryIndex(Protocol):
    """The index of one conversation. ``RULES`` is part of what makes it true."""

    def follow(self, source: IndexSource | None) -> None:
        """From now on keep the index in step with ``source``, which has just read what the journal loaded; None: leave
        it as it is."""
        ...

    def refresh(self) -> None:
        """Bring the index up to date where it is not."""
        ...

    def page(self, last: int, before: str | None) -> Sequence[tuple[str, str | None, bytes]] | None:
        """Entries of the transcript as (entry, pin, fields), oldest first; None where the index can't tell."""
        ...

    def nodes(self) -> Sequence[tuple[str, bool, str]] | None:
        """All entries as (entry, whether it is in the transcript, node), those of the transcript in its order, as of
        what the journal loaded; None where it can't tell."""
        ...

    def copy(self, source: str, entries: Sequence[str], rows: Sequence[IndexRow], shown: Sequence[str]) -> None:
        """Of a conversation that has no row yet, and holds copies of entries of another one: take over the rows of
        these, and put ``rows``. Together they are all; ``shown`` is the transcript. Nothing happens where the index of
        the other one is not up to date."""
        ...

    def copies(self, entry: str) -> Sequence[tuple[str, bool]]:
        """The other conversations of the file that have an entry of this id, as forks do, and whether it is erased
        there."""
        ...


def pack_fields(fields: ReplicaNode) -> bytes:
    pieces = []
    for name, value in sorted(fields.items()):
        kind = _KINDS.index(type(value))
        data = value if isinstance(value, bytes) else value.encode("utf-8", "surrogatepass")
        key = name.encode("utf-8", "surrogatepass")
        pieces += [_LENGTHS.pack(len(key), kind, len(data)), key, data]
    return b"".join(pieces)


def unpack_fields(data: bytes, begin: bytes = b"") -> dict[str, Scalar | SharedText]:
    """The fields whose names begin so."""
    fields: dict[str, Scalar | SharedText] = {}
    at = 0
    while at < len(data):
        key, kind, size = _LENGTHS.unpack_from(data, at)
        named = at + _LENGTHS.size
        at = named + key + size
        if not data.startswith(begin, named):
            continue
        name, value = data[named : named + key].decode("utf-8", "surrogatepass"), data[named + key : at]
        if kind in (1, 3):
            fields[name] = Other() if kind == 3 else value
        else:
            text = value.decode("utf-8", "surrogatepass")
            fields[name] = SharedText(text) if kind == 2 else text
    return fields


Noted = tuple[Node, bool, ContentHash | None]
"""An entry in short form: its node, whether it is erased, and its version if it has one and no more."""


_LENGTH = 8
"""Values of a row's node, but for those of alternatives and system entries."""


def write_node(node: Node, *, erased: bool, version: ContentHash | None) -> str:
    fields = [node.lamport, node.parents, node.alternative_of, node.answers]
    rare: list[Any] = []
    if node.alternative_of or node.system or node.turn:
        rare = [node.session, node.saw_erased, node.system]
    rare += [node.turn] if node.turn else []
    return json.dumps([*fields, frame_to_row(node.frame), frame_to_row(node.covers), erased, version, *rare])


def write_unreadable(reason: str) -> str:
    return json.dumps(reason)


def read_nodes(rows: Sequence[tuple[str, bool, str]]) -> Iterator[Noted | str]:
    """For each row the entry in short form, or why it can't be read."""
    for row, value in zip(rows, json.loads(f"[{','.join([row[2] for row in rows])}]"), strict=True):
        if type(value) is str:
            yield value
        elif len(value) == _LENGTH and value[5] is None:  # nearly always: nothing that is rare
            lamport, parents, alternative_of, answers, frame, _, erased, version = value
            found = frame_from_row(frame) if frame else None
            yield Node(row[0], tuple(parents), lamport, alternative_of, answers, found), erased, version  # type: ignore[arg-type]
        else:
            lamport, parents, alternative_of, answers, frame, covers, erased, version, *rare = value
            more: tuple[Any, ...] = (rare[0], tuple(rare[1]), *rare[2:]) if rare else ()
            frames = frame_from_row(frame), frame_from_row(covers)
            yield Node(row[0], tuple(parents), lamport, alternative_of, answers, *frames, *more), erased, version  # type: ignore[arg-type]
