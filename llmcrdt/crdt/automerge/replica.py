"""Replica over the package automerge: an Automerge document, which any Automerge client can read.

Root maps are found by the operations that make them (``derive.root_change``), so nobody can hide one behind another map
of its name.
"""

from __future__ import annotations

import os
from collections.abc import Container, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext

from ..backend import Applied, Node, Other, ParsedUpdate, Scalar, SharedText, Touched
from .chunks import EMPTY, Change, Name, read_update, trusted_change
from .core import Core, object_bytes, object_id
from .derive import root_object
from .edit import AutomergeEdit
from .erasures import Erasures, erasures_of, last_of, tell_held
from .foreign import find_foreign_key
from .places import Places
from .sync import answer, tell
from .version import parse_version, write_version

_ACTOR = 8
"""Bytes of a drawn actor. Each change tells its own, and those of the objects that it writes to."""


class AutomergeReplica:
    """One Automerge document. ``roots`` names its root maps; ``actor`` None draws a fresh one. ``applying`` is entered
    while bytes are applied or loaded. Raises CRDTMissing."""

    kind = "automerge"

    def __init__(
        self,
        roots: Iterable[str],
        *,
        actor: bytes | None = None,
        applying: AbstractContextManager[None] | None = None,
    ) -> None:
        self._applying = nullcontext() if applying is None else applying
        self._core = Core(roots, os.urandom(_ACTOR) if actor is None else actor)
        self._places = Places(self._core)

    @property
    def broken(self) -> bool:
        return self._core.broken

    # bytes in

    def apply(self, update: bytes) -> Applied:
        with self._applying:
            taken = self._core.take([read_update(update)])
        if not taken.news:
            return Applied(Touched(), False, False, EMPTY)
        if taken.first:
            touched = Touched({root: frozenset(self.keys(root)) for root in self._core.roots})
        else:
            touched = self._places.touched(taken.ready, taken.erased)
        changed = taken.first or bool(taken.ready) or bool(taken.erased)
        return Applied(touched, changed, taken.waits, taken.news)

    def apply_together(self, updates: Sequence[ParsedUpdate]) -> None:
        self._core.take(updates)

    def merge(self, updates: Sequence[ParsedUpdate]) -> list[bytes]:
        news = self._core.take(updates).news
        return [news] if news else []

    def adds(self, update: bytes) -> bool:
        parsed = read_update(update)
        self._core.history.all()
        if self._core.erasures.lacks(erasures_of(filter(self._core.can_erase, parsed.structure.erased))):
            return True
        return self._core.history.all().adds(self._core.new_changes(parsed))

    def foreign_key(self, update: bytes, root: str, prefix: str, own: str) -> str | None:
        return find_foreign_key(read_update(update), root, prefix, own)

    def load(self, snapshot: bytes | None, updates: Iterable[bytes]) -> None:
        with self._applying:
            if snapshot and self._core.start_with(snapshot):
                snapshot = None
            parsed = [read_update(update) for update in ([snapshot] if snapshot else []) + list(updates)]
            if parsed:
                self._core.take(parsed, stored=True)

    # bytes out

    def snapshot(self) -> tuple[bytes, list[bytes]]:
        with self._core.guarded("The CRDT core could not encode the document."):
            whole = bytes(self._core.doc.save())
        return whole + self._core.erasures.write(), self._told_waiting()

    def diff(self, since: bytes | None = None) -> bytes:
        if since is None:
            whole, waiting = self.snapshot()
            return b"".join((whole, *waiting))
        version, history = parse_version(since), self._core.history.all()
        had = [hash_ for hash_ in version.heads if hash_ in history]
        if version.seqs:
            had += history.roots
        with self._core.guarded("The CRDT core could not encode the document."):
            changes = [
                trusted_change(change.hash, change.raw_bytes)
                for change in self._core.doc.get_changes(had)
                if change.hash in history.roots or change.seq > version.seqs.get(change.actor_id, 0)
            ]
        told = self._core.tell([*changes, *self._core.waiting])
        erased = self._core.erasures.write(last_of(changes))
        return b"".join((told, erased, *map(tell_held, self._core.held))) or EMPTY

    def tell(self, names: Container[Name]) -> bytes:
        """The changes with these names, and what waits, as an update."""
        return self._core.tell(change for change in self.changes() if change.name in names)

    @property
    def erasures(self) -> Erasures:
        return self._core.erasures

    def _told_waiting(self) -> list[bytes]:
        return [*(self._core.tell([change]) for change in self._core.waiting), *map(tell_held, self._core.held)]

    @property
    def waits(self) -> bool:
        return bool(self._core.waiting or self._core.held)

    @property
    def has_changes(self) -> bool:
        return bool(self._core.history.ends().heads)

    def changes(self) -> list[Change]:
        """All changes, in an order in which they can be applied, those that wait last."""
        with self._core.guarded("The CRDT core can't tell its changes."):
            told = [trusted_change(change.hash, change.raw_bytes) for change in self._core.doc.get_changes([])]
        return [*told, *self._core.waiting]

    def version(self) -> bytes:
        history = self._core.history.ends()
        return write_version(history.heads - history.roots, history.seqs)

    def reply(self, question: bytes) -> bytes:
        """``Backend.reply``."""
        return answer(self._core, question)

    def mark(self) -> bytes:
        """``Backend.mark``."""
        return tell(self._core)

    # reading and writing

    @contextmanager
    def edit(self) -> Iterator[AutomergeEdit]:
        edit = AutomergeEdit(self._core, self._places)
        try:
            yield edit
        finally:
            edit.commit()
        if edit.changes or edit.erased:
            edit.update = self._tell_edit(edit)

    def _tell_edit(self, edit: AutomergeEdit) -> bytes:
        core = self._core
        told = core.tell_own(edit.changes)
        roots = b"".join(change.raw for change in core.untold.values())
        core.untold = {}
        if not edit.erased:
            return roots + told
        before = core.erasures.copy()
        core.erase(edit.erased)
        names = {change.name for change in edit.changes}
        return roots + (self.tell(names) if names else b"") + core.erasures.without(before).write(names)

    def keeps_deleted(self, root: str, key: str, names: Iterable[str]) -> bool:
        kind, node = self._core.read(object_bytes(root_object(root)), key)
        return kind == self._core.package.ObjType.Map and not self._core.erasures.covers_all(object_id(node), names)

    def keys(self, root: str) -> Iterator[str]:
        try:
            return iter(self._core.doc.keys(object_bytes(root_object(root))))
        except Exception:
            return iter(())  # nobody made that root

    def get(self, root: str, key: str) -> Scalar | None:
        kind, value = self._core.read(object_bytes(root_object(root)), key)
        return value if kind is None else None

    def node(self, root: str, key: str) -> Node | None:
        core, kinds = self._core, self._core.package.ObjType
        kind, node = core.read(object_bytes(root_object(root)), key)
        if kind != kinds.Map:
            return None
        fields: dict[str, Scalar | SharedText] = {}
        for name, (kind, value) in core.read_all(node):
            fields[name] = (
                value if kind is None else SharedText(core.doc.text(value)) if kind == kinds.Text else Other()
            )
        return fields
