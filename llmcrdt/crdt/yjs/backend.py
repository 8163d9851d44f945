"""Backend over pycrdt: Yjs documents, which any Yjs client can read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from ..backend import NewField, NewNode, ParsedUpdate, Replica, Work
from .derive import derive_update, locate_nodes
from .redact import redact_updates
from .split import cut_update, split_update
from .update import foreign_key, join_words, parse_update, read_state_vector
from .work import estimate_work

if TYPE_CHECKING:
    from .replica import YjsReplica


class YjsBackend:
    """``replicas`` makes them: a simulation gives each a writer identity from its seed. pycrdt is loaded with the first
    replica: a list of conversations needs none."""

    kind = "yjs"
    empty = b"\x00\x00"
    forgets = True

    def __init__(self, replicas: Callable[..., YjsReplica] | None = None) -> None:
        self._given = replicas

    @property
    def _replicas(self) -> Callable[..., YjsReplica]:
        from .replica import YjsReplica

        return self._given or YjsReplica

    def make_replica(self, roots: Iterable[str], applying: AbstractContextManager[None] | None = None) -> Replica:
        return self._replicas(roots) if applying is None else self._replicas(roots, applying=applying)

    def reply(self, replica: Replica, question: bytes) -> bytes:
        return replica.diff(question)

    def mark(self, replica: Replica) -> bytes:
        return b""

    def derive(self, groups: Iterable[Sequence[NewNode]], fields: Iterable[NewField] = ()) -> bytes:
        return derive_update(groups, fields)

    def read(self, update: bytes) -> ParsedUpdate:
        return parse_update(update)

    def touches(self, update: ParsedUpdate, prefix: str) -> bool:
        return prefix.encode() in update.data  # a new key stands in its update as it is, in UTF-8

    def foreign_key(self, update: ParsedUpdate, root: str, prefix: str, own: str) -> str | None:
        return foreign_key(update.data, root, prefix, own)

    def repeats(self, updates: Iterable[ParsedUpdate], version: bytes) -> bool:
        state = read_state_vector(version)
        return any(update.structure.repeats(state) for update in updates)

    def estimate_work(self, update: bytes, blocks: int) -> Work:
        return estimate_work(update, blocks)

    def join(self, updates: Sequence[bytes], first: int, most: float) -> tuple[bytes, int]:
        return join_words(updates, first, most)

    def cut(self, update: bytes) -> list[bytes]:
        return cut_update(update)

    def split(self, update: bytes, limit: int) -> list[bytes]:
        return split_update(update, limit)

    def locate(self, piece: bytes, root: str) -> dict[str, int]:
        return locate_nodes(piece, root)

    def redact(self, whole: bytes, updates: Sequence[bytes]) -> list[bytes] | None:
        return redact_updates(whole, updates)

    def compact(self, updates: Iterable[bytes]) -> list[bytes]:
        from .compact import compact_updates

        return compact_updates(updates)

    def catch_up(self, snapshot: Sequence[bytes], before: Sequence[bytes], tail: Sequence[bytes]) -> bytes:
        from .compact import catch_up_updates

        return catch_up_updates(snapshot, before, tail)

    def begin(self, first: bytes) -> Replica:
        from .compact import begin

        return begin(first, self._replicas)

    def load_all(self, updates: Iterable[bytes]) -> tuple[Replica, list[bytes]]:
        from .compact import load_all

        return load_all(updates)
