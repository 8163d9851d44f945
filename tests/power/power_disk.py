"""The disks that a power failure may leave of what was recorded.

All that an fsync promised is there: the content of a file by its own, a name by that of its folder. Of all else, each
part may have reached the disk or not: sectors of a write, cuts, names; in any order, names apart from contents.
"""

from __future__ import annotations

import itertools
import os
import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, TypeAlias

from power_recording import Event

SECTOR = 512
Ignored: TypeAlias = Callable[[str], bool]
"""Whether the fsyncs of this name do nothing, to see that somebody notices."""


class _Change(NamedTuple):
    """``index``: of its event. Of a file: (offset, bytes), or (size, None) for a cut. Of a folder: names and what they
    stand for, None where one is gone; all of them at once."""

    index: int
    write: tuple[int, bytes | None] | None = None
    names: tuple[tuple[str, _Node | None], ...] = ()


class _Node:
    """A file or a folder. Changes before ``durable`` (an index) are on disk."""

    def __init__(self, folder: bool, mode: int, name: str) -> None:
        self.folder, self.mode, self.name = folder, mode, name
        self.changes: list[_Change] = []
        self.durable = 0
        self.mapped = False
        self.entries: dict[str, _Node] = {}
        """Of a folder: what a process sees."""


class Disk:
    """A folder whose changes are taken in one after the other. ``ignored``: fsyncs that do nothing."""

    def __init__(self, ignored: Ignored | None = None) -> None:
        self._ignored = ignored or (lambda name: False)
        self.root = _Node(True, 0o700, "")
        self._nodes: dict[int, _Node] = {}
        self._begun: dict[tuple[int, int], int] = {}
        self.index = 0

    def take(self, event: Event) -> None:
        index, self.index = self.index, self.index + 1
        match event.kind:
            case "C" | "D":
                node = _Node(event.kind == "D", event.at, event.names[0])
                self._nodes[event.file] = node
                self._name(index, event.names[0], node)
            case "U":
                self._name(index, event.names[0], None)
            case "L":
                self._name(index, event.names[1], self._find(event.names[0]))
            case "R":
                self._rename(index, *event.names)
            case "W":
                self._nodes[event.file].changes.append(_Change(index, (event.at, event.data)))
            case "T":
                self._nodes[event.file].changes.append(_Change(index, (event.at, None)))
            case "m":
                self._nodes[event.file].mapped = True
            case "f":
                self._begun[event.process, event.at] = index
            case "F":
                node = self._nodes.get(event.file, self.root)
                begun = self._begun.pop((event.process, event.at))
                if not self._ignored(node.name):
                    node.durable = max(node.durable, begun)

    def after_power_loss(self, rng: random.Random, into: Path) -> str:
        """Write what is left into a new folder. How it was chosen, in a word."""
        how = rng.choice(_WAYS)
        chance = rng.choice((0.1, 0.5, 0.9))
        moment = rng.randrange(self.index + 1)
        zeros = rng.random() < 0.5

        def reached(index: int, name: bool) -> bool:
            match how:
                case "nothing":
                    return False
                case "everything":
                    return True
                case "all up to a moment":
                    return index < moment
                case "names alone":
                    return name
                case "contents alone":
                    return not name
            return rng.random() < chance

        self._write(self.root, into, reached, rng, zeros)
        return how

    # inside

    def _parent(self, name: str) -> tuple[_Node, str]:
        folder, _, last = name.rpartition("/")
        return self._find(folder), last

    def _find(self, name: str) -> _Node:
        node = self.root
        for piece in name.split("/") if name else ():
            node = node.entries[piece]
        return node

    def _name(self, index: int, name: str, node: _Node | None) -> None:
        folder, last = self._parent(name)
        folder.changes.append(_Change(index, names=((last, node),)))
        if node is None:
            del folder.entries[last]
        else:
            folder.entries[last] = node

    def _rename(self, index: int, old: str, new: str) -> None:
        """In one folder at once; from one folder to another in two steps."""
        (source, before), (target, after) = self._parent(old), self._parent(new)
        node = source.entries.pop(before)
        node.name = new
        target.entries[after] = node
        if source is target:
            source.changes.append(_Change(index, names=((after, node), (before, None))))
        else:
            target.changes.append(_Change(index, names=((after, node),)))
            source.changes.append(_Change(index, names=((before, None),)))

    def _write(
        self, node: _Node, to: Path, reached: Callable[[int, bool], bool], rng: random.Random, zeros: bool
    ) -> None:
        if not node.folder:
            to.write_bytes(_mapped(node, rng) if node.mapped else _content(node, reached, zeros))
            os.chmod(to, node.mode)
            return
        to.mkdir(mode=node.mode or 0o700)
        entries: dict[str, _Node] = {}
        for change in node.changes:
            if change.index < node.durable or reached(change.index, True):
                for name, what in change.names:
                    if what is None:
                        entries.pop(name, None)
                    else:
                        entries[name] = what
        for name, what in sorted(entries.items()):
            self._write(what, to / name, reached, rng, zeros)


_WAYS = (
    "nothing", "everything", "all up to a moment", "all up to a moment", "names alone", "contents alone",
    "here and there", "here and there", "here and there",
)  # fmt: skip


def _content(node: _Node, reached: Callable[[int, bool], bool], zeros: bool) -> bytes:
    """``zeros``: a file may have grown where what was written into it did not arrive."""
    image = bytearray()
    for change in node.changes:
        assert change.write is not None
        if change.index < node.durable:
            _apply(image, *change.write)
            continue
        for at, data in _sectors(*change.write):
            if reached(change.index, False):
                _apply(image, at, data)
            elif zeros and data is not None and reached(change.index, True):
                image.extend(bytes(max(0, at + len(data) - len(image))))
    return bytes(image)


def _mapped(node: _Node, rng: random.Random) -> bytes:
    """Memory of which nobody knows what reached the disk."""
    size = max([0, *(at + len(data or b"") for at, data in _writes(node))])
    return rng.choice((bytes(size), rng.randbytes(size)))


def _writes(node: _Node) -> Iterator[tuple[int, bytes | None]]:
    for change in node.changes:
        if change.write is not None:
            yield change.write


def _sectors(at: int, data: bytes | None) -> Sequence[tuple[int, bytes | None]]:
    if data is None:
        return [(at, None)]
    bounds = [at, *range(at - at % SECTOR + SECTOR, at + len(data), SECTOR), at + len(data)]
    return [(start, data[start - at : end - at]) for start, end in itertools.pairwise(bounds)]


def _apply(image: bytearray, at: int, data: bytes | None) -> None:
    if data is None:
        del image[at:]
        image.extend(bytes(max(0, at - len(image))))
        return
    image.extend(bytes(max(0, at - len(image))))
    image[at : at + len(data)] = data
