"""The material that is written in the benchmark of relays: Yjs updates and Automerge changes, made before the clock
starts."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import pycrdt

from llmcrdt.crdt.registry import backend
from llmcrdt.varint import read_uint, write_uint

CLIENT = 7


@dataclass(frozen=True, eq=False)
class Material:
    """Updates of one client, in order. ``clocks``: where that client's clock stands after each. ``text``: where all of
    them together write one text, that. ``base``: an update before them, with which the document begins."""

    updates: tuple[bytes, ...]
    clocks: tuple[int, ...]
    text: bytes = b""
    base: bytes = b""

    @property
    def size(self) -> int:
        return sum(map(len, self.updates))

    def reached(self, state: bytes) -> int:
        """How many of the updates a state vector holds."""
        return bisect_right(self.clocks, clock(state))

    def goes_on(self, update: bytes, have: int) -> int:
        """How many of the updates are there with one that has some of them merged, where it is, byte for byte, the next
        piece of the text; else ``have``."""
        at = self.clocks[have - 1] if have else 0
        head = b"".join((b"\x01\x01", write_uint(CLIENT), write_uint(at), b"\x84", write_uint(CLIENT)))
        head += write_uint(max(0, at - 1))
        if not at or not self.text or not update.startswith(head):
            return have
        size, start = read_uint(update, len(head), 8)
        now = bisect_right(self.clocks, at + size)
        whole = update[start:] == self.text[at : at + size] + b"\x00"
        return now if whole and now and self.clocks[now - 1] == at + size else have


def tokens(count: int) -> Material:
    """A streamed answer: each update adds a word of 5 letters to a text."""
    document: pycrdt.Doc[pycrdt.Text] = pycrdt.Doc(client_id=CLIENT)
    text = document.get("answer", type=pycrdt.Text)
    updates = []
    document.observe(lambda event: updates.append(event.update))
    for n in range(count):
        text += f"{n % 10_000:04} "
    return Material(tuple(updates), tuple(accumulate(5 for _ in updates)), str(text).encode())


def changes(count: int) -> Material:
    """The same as Automerge changes, each of which says one word."""
    replica = backend("automerge").make_replica(("entries",))
    updates = []
    for n in range(count + 1):
        with replica.edit() as edit:
            if not n:
                edit.put_node("entries", "e", {})
                edit.put_text("entries", "e", "live")
            edit.append_text("entries", "e", "live", f"{n % 10_000:04} ")
        updates.append(edit.update)
    return Material(tuple(updates[1:]), tuple(range(1, count + 1)), base=updates[0])


def entries(count: int, size: int) -> Material:
    """A long conversation: each update puts an entry of ``size`` letters into a map."""
    document: pycrdt.Doc[pycrdt.Map[str]] = pycrdt.Doc(client_id=CLIENT)
    map_ = document.get("entries", type=pycrdt.Map)
    updates = []
    document.observe(lambda event: updates.append(event.update))
    for n in range(count):
        map_[f"entry-{n}"] = (f"{n:08} " * (size // 9 + 1))[:size]
    return Material(tuple(updates), tuple(accumulate(1 for _ in updates)))


def clock(state: bytes) -> int:
    """The clock of CLIENT in a state vector (lib0: count, then pairs of client and clock); 0 where it has none."""
    found, at = _numbers(state), 1
    while at < len(found):
        if found[at] == CLIENT:
            return found[at + 1]
        at += 2
    return 0


def _numbers(data: bytes) -> list[int]:
    numbers, n, shift = [], 0, 0
    for byte in data:
        n |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            numbers.append(n)
            n = shift = 0
    return numbers


class Replica:
    """A document that somebody has received, to compare with what was written."""

    def __init__(self, updates: Iterable[bytes] = ()) -> None:
        self._document: pycrdt.Doc[Any] = pycrdt.Doc()
        for update in updates:
            self.apply(update)

    def apply(self, update: bytes) -> None:
        self._document.apply_update(update)

    @property
    def state(self) -> bytes:
        return self._document.get_state()

    def equals(self, other: Replica) -> bool:
        """Whether both hold the same: they lack nothing of each other, and say the same."""
        if self.state != other.state:
            return False
        return self._contents() == other._contents()

    def _contents(self) -> tuple[str, object]:
        document = self._document
        return str(document.get("answer", type=pycrdt.Text)), document.get("entries", type=pycrdt.Map).to_py()
