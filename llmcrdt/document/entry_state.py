"""EntryState: the fields of one entry, checked; and the Entry that is shown of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from ..crdt.backend import Node as ReplicaNode
from ..exceptions import InvalidContent
from ..ids import ContentHash, EntryId, is_entry_id
from .blob import Blob, BlobStorage
from .canonical import parse_json
from .encryption import NOWHERE, FieldAddress
from .entry import Entry, HiddenField, Part, SyncState, ToolCall, Version, part_from_json, visible_text
from .entry_fields import (
    erased_of,
    erases_of,
    hidden_of,
    is_live,
    live_parts,
    read_digests,
    versions_of,
    why_no_version,
)
from .head import Head, read_head
from .nodes import Erase, Node


@dataclass(slots=True)  # not frozen, as ``nodes.Node``
class EntryState:
    """The fields of one entry as the document has them, checked."""

    head: Head
    versions: tuple[Version, ...]
    live: tuple[Part, ...]
    hidden: Mapping[str, HiddenField]
    erased: tuple[ContentHash, ...] | None = None  # the hashes that an erased entry had
    leftover: bool = False  # content stands beside an erase, and has to go
    erases: tuple[Erase, ...] = ()

    @property
    def erased_at(self) -> int:
        """The lamport of the latest erase; 0 where none says it."""
        return max((mark.lamport for mark in self.erases), default=0)


class EntryStates(dict[EntryId, EntryState]):
    """The states that were read so far; one that is missing is read when it is asked for."""

    def __init__(self) -> None:
        self.read: Callable[[EntryId], EntryState] | None = None

    def __missing__(self, entry: EntryId) -> EntryState:
        if self.read is None:
            raise KeyError(entry)
        self[entry] = state = self.read(entry)
        return state


def fields_at(entry: EntryId, fields: ReplicaNode | None) -> ReplicaNode:
    """The fields that stand at a key of the entries. Raises InvalidContent, which names it, where it is no entry."""
    if not is_entry_id(entry):
        raise InvalidContent(f"the key {entry[:40]!r} is no id of an entry")
    if fields is None:
        raise InvalidContent(f"the key {entry!r} holds a single value where an entry's fields stand")
    return fields


def entry_state_of(
    entry: EntryId,
    fields: ReplicaNode | None,
    address: Callable[[EntryId, str], FieldAddress] = lambda entry, name: NOWHERE,
) -> EntryState:
    """Read the fields of one entry. Raises InvalidContent: the entry is malformed (O1)."""
    fields = fields_at(entry, fields)
    if "head" not in fields:
        raise InvalidContent("has no head")
    head = read_head(fields["head"])
    erased = erased_of(entry, fields)
    if erased is not None:
        leftover = any(name.startswith(("version:", "live:", "hidden:")) for name in fields)
        return EntryState(head, (), (), {}, erased, leftover, erases_of(fields))
    versions = tuple(versions_of(head.role, fields))
    if not versions and not is_live(fields):
        raise InvalidContent(why_no_version(head.role, fields))
    hidden = hidden_of(fields, lambda name: address(entry, name), versions)
    return EntryState(head, versions, live_parts(fields), hidden)


def entry_of(
    entry: EntryId,
    state: EntryState,
    pin: ContentHash | None,
    sync: SyncState,
    blobs: BlobStorage | None = None,
) -> Entry:
    """The entry in the version that ``pin`` names, else in its best one, else as it has grown so far."""
    version, hash_ = chosen_version(state, pin)
    head = state.head
    parts = version.parts if version else state.live
    return Entry(
        id=entry,
        role=head.role,
        parts=tuple(_placed(part, entry, blobs) for part in parts),
        status="erased" if state.erased else version.status if version else "streaming",
        hash=hash_,
        author=head.author,
        session=head.session,
        parents=head.parents,
        lamport=head.lamport,
        created_at=head.created_at / 1000,
        after=head.after,
        alternative_of=head.alternative_of,
        answers=head.answers,
        frame=head.frame,
        model=head.model or {},
        covers=head.covers,
        usage=version.usage if version else {},
        hidden=state.hidden,
        sync=sync,
        saw_erased=head.saw_erased,
        missing=tuple(sorted((version.hidden or {}).keys() - state.hidden.keys())) if version else (),
    )


def entry_at_once(
    node: Node,
    fields: ReplicaNode,
    version: ContentHash,
    sync: SyncState,
    address: Callable[[EntryId, str], FieldAddress],
    blobs: BlobStorage | None,
) -> Entry:
    """The entry that ``entry_of`` makes of the state of these fields. They were checked before, and ``version`` is the
    only one that they hold; so it is not checked again, but for the hidden fields that it vouches for."""
    id_ = node.id
    head, said = parse_json(fields["head"]), parse_json(fields[f"version:{version}"])
    answers = head.get("answers")
    hidden: Mapping[str, HiddenField] = {}
    missing: tuple[str, ...] = ()
    if len(fields) > 2 or said.get("hidden"):
        digests = read_digests(said.get("hidden"))
        vouching = Version(version, "complete", (), said["lamport"], said["by"], hidden=digests)
        hidden = hidden_of(fields, lambda name: address(id_, name), (vouching,))
        missing = tuple(sorted((digests or {}).keys() - hidden.keys()))
    return Entry(
        id_,
        head["role"],
        tuple([_placed(part_from_json(part), id_, blobs) for part in said["parts"]]),
        said.get("status", "complete"),
        version,
        head["author"],
        head["session"],
        node.parents,
        node.lamport,
        head["created_at"] / 1000,
        tuple(head.get("after", ())),
        node.alternative_of,
        (answers[0], answers[1]) if answers else None,
        node.frame,
        head.get("model") or {},
        node.covers,
        said.get("usage", {}),
        hidden,
        sync,
        missing=missing,
        saw_erased=tuple(head.get("saw_erased", ())),
    )


def _placed(part: Part, entry: EntryId, blobs: BlobStorage | None) -> Part:
    """A part that knows where it stands: a call its entry, an attachment where its content is kept."""
    match part:
        case ToolCall():
            return replace(part, entry=entry)
        case Blob():
            return part.kept_by(blobs)
    return part


def searchable_text(state: EntryState, pin: ContentHash | None) -> str | None:
    """The visible text of the version to show; None where nothing is sealed, or it was erased."""
    version, _ = chosen_version(state, pin)
    return visible_text(version.parts) if version and state.erased is None else None


def chosen_version(state: EntryState, pin: ContentHash | None) -> tuple[Version | None, ContentHash | None]:
    """The version to show, and the hash that the entry has then."""
    version = next((v for v in state.versions if v.hash == pin), None) or next(iter(state.versions), None)
    if state.erased:
        return version, _erased_hash(state.erased, pin)
    return version, version.hash if version else None


def has_choice(state: EntryState) -> bool:
    """Whether it matters which version is pinned."""
    return len(state.versions) > 1 or state.erased is not None


def _erased_hash(hashes: tuple[ContentHash, ...], pin: ContentHash | None) -> ContentHash:
    return pin if pin is not None else hashes[0]
