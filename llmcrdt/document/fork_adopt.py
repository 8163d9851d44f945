"""Merges a fork into the conversation that it was made from: what is new in the fork comes in under ids of its own.

A fork's copies have the ids of their originals, so the documents themselves can't be merged (docs/decisions/0023). The
new entries get ids that are derived from those that they have in the fork, and so does everything in them that names
another new entry. Their fields are written by derived writers: to adopt a fork again, or on another device, writes the
same, and adds what has come since (docs/decisions/0031).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import dataclass, replace
from typing import NamedTuple

from ..crdt.backend import NewField, NewNode, Other, Scalar, SharedText
from ..exceptions import EntryNotFound, InvalidContent
from ..ids import DocumentId, EntryId, FrameHash, tagged_digest, text_of
from . import schema
from .blob import named_in
from .canonical import canonical_json, parse_json
from .core import ConversationCore
from .encryption import EncryptedField, FieldAddress
from .entry import TOKENS, HiddenField
from .entry_fields import ERASE_MARK
from .erasure import holding
from .fork import copied, origin_of
from .frame import EMPTY_FRAME, Frame, extend_frame_hash
from .head import Head, write_head
from .nodes import GroupId, by_age


class Adopted(NamedTuple):
    """The result of ``conv.adopt``. ``entries``: the ids of the entries that are new here, oldest first.
    ``unfinished``: entries of the fork that are left out, since somebody still writes them or what they follow.
    ``locked``: encrypted fields that are left out as (entry here, name), since their keys are not."""

    entries: tuple[EntryId, ...]
    unfinished: tuple[EntryId, ...]
    locked: tuple[tuple[EntryId, str], ...]


@dataclass(frozen=True)
class _Found:
    """An entry of the fork."""

    id: EntryId
    head: Head
    group: GroupId
    sealed: bool
    fields: Mapping[str, Scalar]
    hidden: Mapping[str, HiddenField]


def adopt(target: ConversationCore, fork: ConversationCore) -> Adopted:
    """``Conversation.adopt``. Raises InvalidContent where ``fork`` is none of ``target``, EntryNotFound where
    ``target`` lacks something that it was made from."""
    with fork.reading():
        origin = origin_of(fork.replica)
        if origin is None or origin.get("conversation") != target.id:
            raise InvalidContent(
                f"{fork.id} is no fork of {target.id}.",
                hint="Adopt a fork into the conversation that its forked_from names.",
            )
        old = copied(fork.view, origin)
        sound = fork.view.order.sound()
        if old is None:  # an older fork does not say which entries it began with
            with target.reading():
                old = {i for i in sound if target.view.order.knows(i)}
        if not old <= sound.keys():
            raise EntryNotFound(f"{fork.id} is not here as a whole.", hint="Sync first.")
        new = [_found(fork, i) for i in by_age(sound.keys() - old, sound)]
        frames = {i: frame.hash for i in old if (frame := sound[i].frame)}
        named = {node.turn for node in sound.values() if node.turn}
    with target.reading():
        lacks = [i for i in old if not target.view.order.knows(i)]
        if lacks:
            raise EntryNotFound(
                f"{len(lacks)} entries that {fork.id} was made from are not here yet, {lacks[0]} for instance.",
                hint="Sync first.",
            )
        moving = _Moving(target, fork.id, old, frames, named)
        groups = [*moving.move(new)]
        update = target.host.derive([[node] for node in groups], moving.fields) if groups else b""
    if update:
        target.document.apply(update)
        if target.host.blobs is not None and (blobs := {*named_in(fork.replica, schema.ENTRIES)}):
            target.host.blobs.named(blobs & {*named_in(target.replica, schema.ENTRIES)})
    return Adopted(tuple(moving.entries), tuple(moving.unfinished), tuple(moving.locked))


def _found(fork: ConversationCore, entry: EntryId) -> _Found:
    state = fork.view.states[entry]
    fields: dict[str, Scalar] = {}
    for name, value in (fork.replica.node(schema.ENTRIES, entry) or {}).items():
        if isinstance(value, (SharedText, Other)):  # a stranger's; only an erase mark counts whatever it holds
            value = b""
            if not name.startswith(ERASE_MARK):
                continue
        fields[name] = value
    sealed = bool(state.versions) or state.erased is not None
    return _Found(entry, state.head, fork.view.order.group(entry), sealed, fields, state.hidden)


class _Moving:
    """Says of each new entry of the fork what is to be written."""

    def __init__(
        self,
        target: ConversationCore,
        fork: DocumentId,
        old: Set[EntryId],
        frames: Mapping[EntryId, FrameHash],
        turns: Set[GroupId],
    ) -> None:
        """``turns``: those that heads name."""
        self.fields: list[NewField] = []
        self.entries: list[EntryId] = []
        self.unfinished: list[EntryId] = []
        self.locked: list[tuple[EntryId, str]] = []
        self._target, self._fork = target, fork
        self._ids = {i: i for i in old}
        self._frames = dict(frames)
        self._turns = turns
        self._erased = target.view.erased
        self._hold_erased = dict.fromkeys(holding(target.view.order, self._erased), True)

    def move(self, found: Iterable[_Found]) -> Iterator[NewNode]:
        """The nodes of entries, oldest first; ``fields`` has what is to be written into them."""
        for entry in found:
            if not entry.sealed or not all(i in self._ids for i in entry.head.node(entry.id).references):
                self.unfinished.append(entry.id)
                continue
            digest = tagged_digest("llmcrdt/adopt/1", *(i.encode() for i in (self._target.id, self._fork, entry.id)))
            id_ = self._ids[entry.id] = EntryId(text_of(digest[:12]))
            head = self._head(entry)
            self._hold_erased[id_] = self._holds_erased(head)
            if id_ in self._erased:
                continue
            node = NewNode(schema.ENTRIES, id_, {"head": write_head(head)})
            there = self._target.replica.node(schema.ENTRIES, id_)
            if there is None:
                self.entries.append(id_)
            self.fields += [
                NewField(node, name, value) for name, value in self._values(entry, id_) if name not in (there or ())
            ]
            yield node

    def _head(self, entry: _Found) -> Head:
        head, ids = entry.head, self._ids
        frame = self._frame(head.frame) if head.frame else None
        if frame:
            self._frames[entry.id] = frame.hash
        return replace(
            head,
            parents=tuple(ids[i] for i in head.parents),
            after=tuple(ids[i] for i in head.after if i in ids),
            alternative_of=ids[head.alternative_of] if head.alternative_of else None,
            answers=(ids[head.answers[0]], head.answers[1]) if head.answers else None,
            frame=frame,
            covers=self._frame(head.covers) if head.covers else None,
            saw_erased=tuple(ids[i] for i in head.saw_erased if i in ids),
            turn=entry.group if frame and entry.group in self._turns else None,  # its own list is another one here
        )

    def _frame(self, frame: Frame) -> Frame:
        """The same list under the ids that its entries have here."""
        base = (self._ids[frame.base[0]], frame.base[1]) if frame.base else None
        before = self._frames[frame.base[0]] if frame.base else EMPTY_FRAME
        moved = replace(frame, base=base, appended=tuple((self._ids[i], version) for i, version in frame.appended))
        return replace(moved, hash=extend_frame_hash(before, moved.pins))

    def _holds_erased(self, head: Head) -> bool:
        pins = head.frame.pins if head.frame else ()
        base = head.frame.base if head.frame else None
        return any(i in self._erased for i, _ in pins) or (base is not None and self._hold_erased.get(base[0], False))

    def _values(self, entry: _Found, id_: EntryId) -> Iterator[tuple[str, Scalar]]:
        for name, value in entry.fields.items():
            kind, _, rest = name.partition(":")
            if kind == "version":
                yield name, value
            elif kind == "erased":
                yield name, self._erase_mark(value)
            elif kind == "hidden" and rest in entry.hidden and not (rest == TOKENS and self._hold_erased[id_]):
                # (The token ids of a prompt spell what is erased here.)
                yield from self._hidden(id_, name, entry.hidden[rest], value)

    def _hidden(self, id_: EntryId, name: str, field: HiddenField, value: Scalar) -> Iterator[tuple[str, Scalar]]:
        address: FieldAddress = self._target.address(id_, name.partition(":")[2])
        if not isinstance(field, EncryptedField):
            yield name, value
        elif field.locked:
            self.locked.append((id_, address.name))
        else:
            yield name, field.encrypted_alike(address)

    def _erase_mark(self, value: Scalar) -> Scalar:
        try:
            said = parse_json(value)
        except InvalidContent:
            return value
        if isinstance(said, dict) and isinstance(said.get("seen"), list):
            seen = [self._ids.get(EntryId(i), i) if isinstance(i, str) else i for i in said["seen"]]
            return canonical_json({**said, "seen": seen})
        return value
