"""Re-derive every hash and frame of a conversation, and name what differs."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from ..crdt.backend import Replica
from ..exceptions import CannotOpen, InvalidContent, KeyMissing, KeyringUnusable, SealingMissing
from ..ids import ContentHash, EntryId
from . import schema
from .encryption import NOWHERE, FieldAddress
from .entry import HiddenField
from .entry_fields import erased_of, read_hidden, read_version
from .head import Head, read_head
from .order import Order


@dataclass(frozen=True)
class Problem:
    """One thing that is not as it should be; the oldest entry first."""

    entry: EntryId
    what: str


def verify(
    replica: Replica, address: Callable[[EntryId, str], FieldAddress] = lambda entry, name: NOWHERE
) -> list[Problem]:
    """Every entry whose fields, hashes, place or frame don't hold. Reads only.

    ``address``: that of a hidden field; encrypted ones are opened where their key is here.
    """
    order = Order()
    problems: list[Problem] = []
    versions: dict[EntryId, set[ContentHash]] = {}
    heads: dict[EntryId, Head] = {}
    for key in replica.keys(schema.ENTRIES):
        entry = EntryId(key)
        fields = replica.node(schema.ENTRIES, key) or {}
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
                    _try_to_open(read_hidden(value, address(entry, rest)))
            except (InvalidContent, CannotOpen) as error:
                problems.append(Problem(entry, f"{kind} {rest}: {error.message}"))
    problems += [Problem(entry, f"takes no part: {reason}") for entry, reason in order.now().malformed.items()]
    for entry in order.sound():
        problems += _frame_problems(entry, heads[entry], versions)
    age = {entry: (head.lamport, entry) for entry, head in heads.items()}
    return sorted(problems, key=lambda problem: (age.get(problem.entry, (0, problem.entry)), problem.what))


def _try_to_open(field: HiddenField) -> None:
    """Raises CannotOpen for an encrypted field that was changed or moved. A key that is not here is no fault."""
    if field.sealed:
        with contextlib.suppress(KeyMissing, SealingMissing, KeyringUnusable):
            _ = field.data


def _frame_problems(entry: EntryId, head: Head, versions: dict[EntryId, set[ContentHash]]) -> Iterable[Problem]:
    for pinned, version in head.frame.pins if head.frame else ():
        if pinned in versions and version not in versions[pinned]:
            yield Problem(entry, f"its frame holds entry {pinned} in version {version}, which is not there")
