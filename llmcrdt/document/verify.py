"""Re-derive every hash and frame of a conversation, and name what differs."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from functools import partial

from ..crdt.backend import Node as ReplicaNode
from ..crdt.backend import Replica
from ..exceptions import CannotOpen, InvalidContent, KeyMissing, KeyringUnusable, SealingMissing
from ..ids import ContentHash, EntryId
from . import schema
from .encryption import NOWHERE, FieldAddress
from .entry import TOKENS, HiddenField
from .entry_fields import erased_of, hidden_of, read_hidden, read_version, versions_of
from .entry_state import fields_at
from .head import Head, read_head
from .order import Order


@dataclass(frozen=True)
class Problem:
    """One thing that is not as it should be; the oldest entry first."""

    entry: EntryId
    what: str


def verify(
    replica: Replica,
    address: Callable[[EntryId, str], FieldAddress] = lambda entry, name: NOWHERE,
    left_out: Collection[tuple[EntryId, str]] = (),
) -> list[Problem]:
    """Every entry whose fields, hashes, place or frame don't hold. Reads only.

    ``address``: that of a hidden field; encrypted ones are opened where their key is here. ``left_out``: hidden fields
    that a fork says it could not take along.
    """
    order = Order()
    problems: list[Problem] = []
    versions: dict[EntryId, set[ContentHash]] = {}
    heads: dict[EntryId, Head] = {}
    for key in replica.keys(schema.ENTRIES):
        entry = EntryId(key)
        try:
            fields = fields_at(entry, replica.node(schema.ENTRIES, key))
        except InvalidContent as error:
            problems.append(Problem(entry, f"takes no part: {error.message}"))
            continue
        try:
            head = read_head(fields.get("head"))
        except InvalidContent as error:
            problems.append(Problem(entry, f"its head can't be read: {error.message}"))
            continue
        heads[entry] = head
        order.put(head.node(entry))
        if erased_of(entry, fields) is not None:
            continue  # its hashes stand on the word of whoever erased it
        versions[entry] = set()
        for name, value in fields.items():
            kind, _, rest = name.partition(":")
            try:
                if kind == "version":
                    versions[entry].add(read_version(head.role, rest, value).hash)
                elif kind == "hidden":
                    read_hidden(value)
            except InvalidContent as error:
                problems.append(Problem(entry, f"{kind} {rest}: {error.message}"))
        excused = {name for other, name in left_out if other == entry} | {TOKENS}  # an erase takes token logs
        problems += _hidden_problems(entry, head, fields, partial(address, entry), excused)
    problems += [Problem(entry, f"takes no part: {reason}") for entry, reason in order.now().malformed.items()]
    for entry in order.sound():
        problems += _frame_problems(entry, heads[entry], versions)
    age = {entry: (head.lamport, entry) for entry, head in heads.items()}
    return sorted(problems, key=lambda problem: (age.get(problem.entry, (0, problem.entry)), problem.what))


def _hidden_problems(
    entry: EntryId, head: Head, fields: ReplicaNode, address: Callable[[str], FieldAddress], excused: set[str]
) -> Iterable[Problem]:
    """Hidden fields that are not what the entry's versions vouch for, do not open, or are gone. ``excused``: names of
    those that may be gone."""
    known = versions_of(head.role, fields)
    found = hidden_of(fields, address, known)
    for name, there in found.items():
        try:
            _try_to_open(there)
        except CannotOpen as error:
            yield Problem(entry, f"hidden {name}: {error.message}")
    for version in known:
        for name in version.hidden or ():
            field = found.get(name)
            if field is None and name not in excused:
                yield Problem(entry, f"hidden {name}: it came with version {version.hash}, and is not here")
            elif field and field.versions and version.hash not in field.versions:
                yield Problem(entry, f"hidden {name}: that of version {version.hash} is not here, another one's is")


def _try_to_open(field: HiddenField) -> None:
    """Raises CannotOpen for a field that was put in another's place, and an encrypted one that was changed or moved. A
    key that is not here is no fault."""
    if field.sealed or field.refused:
        with contextlib.suppress(KeyMissing, SealingMissing, KeyringUnusable):
            _ = field.data


def _frame_problems(entry: EntryId, head: Head, versions: dict[EntryId, set[ContentHash]]) -> Iterable[Problem]:
    for pinned, version in head.frame.pins if head.frame else ():
        if pinned in versions and version not in versions[pinned]:
            yield Problem(entry, f"its frame holds entry {pinned} in version {version}, which is not there")
