"""Head: the set-once fields of an entry, and their codec.

They are one canonical JSON text: they are written in one step, checked in one place, and cost one CRDT item where ten
fields would cost ten.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, cast

from ..ids import EntryId, SessionId, is_entry_id, is_hash, is_session_id
from .canonical import JSON, canonical_json, parse_json
from .checks import lamport_of, need, whole_number
from .entry import ROLES, Role
from .frame import Frame, frame_from_json, frame_to_json
from .nodes import GroupId, Node
from .schema import TIMES_END


@dataclass(slots=True)  # not frozen, as ``nodes.Node``
class Head:
    """The set-once fields of an entry. ``created_at`` is milliseconds since 1970."""

    role: Role
    author: str
    session: SessionId
    parents: tuple[EntryId, ...]
    lamport: int
    created_at: int
    after: tuple[EntryId, ...] = ()
    alternative_of: EntryId | None = None
    answers: tuple[EntryId, str] | None = None
    frame: Frame | None = None
    model: Mapping[str, JSON] | None = None
    covers: Frame | None = None
    saw_erased: tuple[EntryId, ...] = ()
    turn: GroupId | None = None

    def node(self, entry: EntryId) -> Node:
        answers = self.answers[0] if self.answers else None
        node = Node(entry, self.parents, self.lamport, self.alternative_of, answers, self.frame, self.covers)
        node = replace(node, system=True) if self.role == "system" and not self.frame else node
        node = replace(node, turn=self.turn) if self.turn and self.frame else node
        return replace(node, session=self.session, saw_erased=self.saw_erased) if self.alternative_of else node


def write_head(head: Head) -> str:
    value: dict[str, JSON] = {
        "role": head.role,
        "author": head.author,
        "session": head.session,
        "parents": list(head.parents),
        "lamport": head.lamport,
        "created_at": head.created_at,
    }
    if head.after:
        value["after"] = list(head.after)
    if head.alternative_of:
        value["alternative_of"] = head.alternative_of
    if head.answers:
        value["answers"] = list(head.answers)
    if head.frame:
        value["frame"] = frame_to_json(head.frame)
    if head.model:
        value["model"] = dict(head.model)
    if head.covers:
        value["covers"] = frame_to_json(head.covers)
    if head.saw_erased:
        value["saw_erased"] = list(head.saw_erased)
    if head.turn:
        value["turn"] = head.turn
    return canonical_json(value)


def read_head(text: object) -> Head:
    """Raises InvalidContent with the reason: the entry is then malformed (O1)."""
    value = parse_json(text)
    need(isinstance(value, dict), "head is not an object")
    role, author, session = value.get("role"), value.get("author"), value.get("session")
    need(role in ROLES, "role is not one of system, user, assistant, tool")
    need(isinstance(author, str), "author is not text")
    need(is_session_id(session), "session is not a session id")
    created_at = whole_number(value.get("created_at"))
    fits = created_at is not None and abs(created_at) <= TIMES_END
    need(fits, "created_at is not a time in whole milliseconds")
    lamport = lamport_of(value.get("lamport"))
    need(lamport is not None, "lamport is not a number above 0 and below 2^53")
    alternative_of = value.get("alternative_of")
    need(alternative_of is None or is_entry_id(alternative_of), "alternative_of is not an entry id")
    model = value.get("model")
    need(model is None or isinstance(model, dict), "model is not an object")
    turn = value.get("turn")
    need(turn is None or is_hash(turn), "turn is not a hash")
    return Head(
        role=cast(Role, role),
        author=author,
        session=session,
        parents=_entry_ids(value.get("parents"), "parents"),
        lamport=cast(int, lamport),
        created_at=cast(int, created_at),
        after=_entry_ids(value.get("after", []), "after"),
        alternative_of=alternative_of,
        answers=_read_answers(value.get("answers")),
        frame=frame_from_json(value["frame"]) if value.get("frame") is not None else None,
        model=model,
        covers=frame_from_json(value["covers"]) if value.get("covers") is not None else None,
        saw_erased=_entry_ids(value.get("saw_erased", []), "saw_erased"),
        turn=turn,
    )


def _read_answers(value: Any) -> tuple[EntryId, str] | None:
    if value is None:
        return None
    fits = isinstance(value, list) and len(value) == 2 and is_entry_id(value[0]) and isinstance(value[1], str)
    need(fits, "answers is not an entry and a call")
    return EntryId(value[0]), value[1]


def _entry_ids(value: Any, name: str) -> tuple[EntryId, ...]:
    if value == []:
        return ()
    need(isinstance(value, list) and all(is_entry_id(i) for i in value), f"{name} is not a list of entry ids")
    need(len(set(value)) == len(value), f"{name} names an entry twice")
    return tuple(EntryId(i) for i in value)
