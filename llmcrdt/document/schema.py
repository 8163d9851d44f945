"""ONE table of what stands in a document, and the reading and writing of each field.

Root maps: ``meta``, ``entries`` (entry id -> node), ``acts``. A field name may end in ``:`` and more: one field per
version, hidden name, live part or session. Whatever is not in the table is left alone, so a newer minor version's
fields survive. ``docs/schema.md`` says the same for readers in other languages.

Set-once fields of an entry are one canonical JSON text, ``head``: they are written in one step, checked in one place,
and cost one CRDT item where ten fields would cost ten.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from operator import itemgetter
from typing import Any, Literal, cast

from ..crdt.backend import Node as ReplicaNode
from ..crdt.backend import Scalar, SharedText
from ..exceptions import InvalidContent, NewerDocument, OtherDocument
from ..ids import (
    ContentHash,
    EntryId,
    FrameHash,
    Random,
    SessionId,
    is_entry_id,
    is_hash,
    is_session_id,
    tagged_hash,
    text_of,
)
from .canonical import JSON, canonical_json, parse_json
from .encryption import MARK, NOWHERE, FieldAddress, read_sealed, seal
from .entry import (
    ROLES,
    Frame,
    HiddenField,
    Part,
    Pin,
    Reasoning,
    Role,
    Text,
    ToolCall,
    Version,
    content_hash,
    part_from_json,
    part_to_json,
)
from .order import Erase, Node, Selection

META, ENTRIES, ACTS = "meta", "entries", "acts"
ROOTS = (META, ENTRIES, ACTS)
SCHEMA = "1.0"
_ERASED = "llmcrdt/erased/1"  # stands for the hash of an entry that was erased before it was ever sealed
_LAMPORT_END = 1 << 53  # JavaScript's integers end here
_MAX_NAME = 1024
_TIMES_END = 8_640_000_000_000_000  # milliseconds: JavaScript's dates end there, before 1970 as well


@dataclass(frozen=True)
class Field:
    """One row: where it stands, its shared type, how two writes meet, and whether people see it."""

    path: str
    type: Literal["text", "bytes", "shared text"]
    rule: str
    visible: bool
    holds: str


FIELDS = (
    Field("meta/schema", "text", "set once", False, 'schema version, "major.minor"'),
    Field("meta/kind", "text", "set once", False, '"conversation" or "library"'),
    Field("meta/id:<document>", "text", "set once", False, '"1"; the document is the one of that id'),
    Field("meta/forked_from", "text", "set once", True, "JSON: conversation, entry, transcript"),
    Field("meta/created_at", "text", "set once", True, "milliseconds since 1970 on the creator's clock"),
    Field("entries/<id>/head", "text", "set once", True, "JSON: role, author, session, parents, lamport, ..."),
    Field("entries/<id>/live:<n>:<type>", "shared text", "grows, dropped at the seal", True, "a part"),
    Field("entries/<id>/version:<hash>", "text", "named by its content", True, "JSON: nonce, parts, lamport, by, ..."),
    Field("entries/<id>/hidden:<name>", "bytes", "set once", False, "binding as JSON, a zero byte, data; or sealed"),
    Field("entries/<id>/erased:<session>", "text", "terminal: one is enough", True, "JSON: lamport, versions, seen"),
    Field("acts/select:<group>:<session>", "text", "greatest (lamport, session)", True, "JSON: lamport, entry, after"),
    Field("acts/keep:<entry>:<session>", "text", "one is enough", True, "JSON: lamport"),
    Field("acts/stop:<entry>:<session>", "text", "one is enough", True, "JSON: lamport"),
    Field("acts/claim:<call>:<session>", "text", "one per session", True, "JSON: lamport"),
)  # fmt: skip


@dataclass(frozen=True)
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

    def node(self, entry: EntryId) -> Node:
        answers = self.answers[0] if self.answers else None
        node = Node(entry, self.parents, self.lamport, self.alternative_of, answers, self.frame, self.covers)
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
        value["frame"] = _frame_to_json(head.frame)
    if head.model:
        value["model"] = dict(head.model)
    if head.covers:
        value["covers"] = _frame_to_json(head.covers)
    if head.saw_erased:
        value["saw_erased"] = list(head.saw_erased)
    return canonical_json(value)


def read_head(text: object) -> Head:
    """Raises InvalidContent with the reason: the entry is then malformed (O1)."""
    value = parse_json(text)
    _need(isinstance(value, dict), "head is not an object")
    role, author, session = value.get("role"), value.get("author"), value.get("session")
    _need(role in ROLES, "role is not one of system, user, assistant, tool")
    _need(isinstance(author, str), "author is not text")
    _need(is_session_id(session), "session is not a session id")
    created_at = value.get("created_at")
    _need(_is_int(created_at) and abs(created_at) <= _TIMES_END, "created_at is not a time in whole milliseconds")
    lamport = value.get("lamport")
    _need(_is_int(lamport) and 0 < lamport < _LAMPORT_END, "lamport is not a number above 0 and below 2^53")
    alternative_of = value.get("alternative_of")
    _need(alternative_of is None or is_entry_id(alternative_of), "alternative_of is not an entry id")
    model = value.get("model")
    _need(model is None or isinstance(model, dict), "model is not an object")
    return Head(
        role=cast(Role, role),
        author=author,
        session=session,
        parents=_entry_ids(value.get("parents"), "parents"),
        lamport=lamport,
        created_at=created_at,
        after=_entry_ids(value.get("after", []), "after"),
        alternative_of=alternative_of,
        answers=_read_answers(value.get("answers")),
        frame=_frame_from_json(value["frame"]) if value.get("frame") is not None else None,
        model=model,
        covers=_frame_from_json(value["covers"]) if value.get("covers") is not None else None,
        saw_erased=_entry_ids(value.get("saw_erased", []), "saw_erased"),
    )


def write_version(
    role: str,
    parts: tuple[Part, ...],
    *,
    status: Literal["complete", "stopped", "failed"],
    lamport: int,
    by: SessionId,
    nonce: bytes,
    usage: Mapping[str, JSON] | None = None,
) -> tuple[ContentHash, str]:
    """A version's name and its text. The nonce keeps an erased text from being guessed by its hash."""
    value: dict[str, JSON] = {
        "nonce": text_of(nonce),
        "parts": [part_to_json(part) for part in parts],
        "lamport": lamport,
        "by": by,
    }
    if status != "complete":
        value["status"] = status
    if usage:
        value["usage"] = dict(usage)
    text = canonical_json(value)
    return content_hash(role, text), text


def read_version(role: str, name: str, text: object) -> Version:
    """Raises InvalidContent where the text is not what its name says."""
    value = parse_json(text)
    _need(isinstance(value, dict) and isinstance(value.get("parts"), list), "version has no parts")
    _need(content_hash(role, cast(str, text)) == name, "version's hash is not that of its content")
    status, lamport, by = value.get("status", "complete"), value.get("lamport"), value.get("by")
    _need(status in ("complete", "stopped", "failed"), "version's status is unknown")
    _need(_is_int(lamport) and 0 < lamport < _LAMPORT_END, "version's lamport is out of range")
    _need(is_session_id(by), "version's writer is not a session id")
    usage = value.get("usage", {})
    _need(isinstance(usage, dict), "version's usage is not an object")
    parts = tuple(part_from_json(part) for part in value["parts"])
    return Version(ContentHash(name), status, parts, lamport, by, usage)


def versions_of(role: str, fields: ReplicaNode) -> list[Version]:
    """The sound versions of an entry, best first: complete before stopped before failed, then the oldest (O9)."""
    rank = {"complete": 0, "stopped": 1, "failed": 2}
    found = []
    for name, value in fields.items():
        kind, _, hash_ = name.partition(":")
        if kind == "version":
            try:
                found.append(read_version(role, hash_, value))
            except InvalidContent:
                continue
    return sorted(found, key=lambda version: (rank[version.status], version.lamport, version.hash))


def why_no_version(role: str, fields: ReplicaNode) -> str:
    """Of an entry without a sound version, why the first of those that it has can't be read."""
    for name in sorted(name for name in fields if name.startswith("version:")):
        try:
            read_version(role, name.removeprefix("version:"), fields[name])
        except InvalidContent as error:
            return f"has no content that can be read: {error.message}"
    return "has no content"


LIVE_TYPES: dict[str, type[Text] | type[Reasoning] | type[ToolCall]] = {
    "text": Text, "reasoning": Reasoning, "tool_call": ToolCall,
}  # fmt: skip


def write_erased(lamport: int, versions: Iterable[ContentHash], seen: Iterable[EntryId]) -> str:
    """``versions``: the hashes of what was there; they stay, so that frames can still be checked. ``seen``: the
    alternatives made of the entry that its eraser knows, and leaves."""
    return canonical_json({"lamport": lamport, "versions": sorted(versions), "seen": sorted(seen)})


def erased_of(entry: EntryId, fields: ReplicaNode) -> tuple[ContentHash, ...] | None:
    """The hashes that an erased entry had, smallest first; None where it is not erased. That the field is there is
    enough, whatever it holds."""
    found: set[str] = set()
    erased = False
    for name, value in fields.items():
        if name.startswith("erased:"):
            erased = True
            try:
                said = parse_json(value)
            except InvalidContent:
                continue
            hashes = said.get("versions") if isinstance(said, dict) else None
            found |= {hash_ for hash_ in hashes if is_hash(hash_)} if isinstance(hashes, list) else set()
    if not erased:
        return None
    return tuple(ContentHash(hash_) for hash_ in sorted(found)) or (ContentHash(tagged_hash(_ERASED, entry.encode())),)


def erases_of(fields: ReplicaNode) -> tuple[Erase, ...]:
    """The marks of an erased entry, by session. A lamport that none can read is 0."""
    found: list[Erase] = []
    for name, value in sorted(fields.items()):
        if name.startswith("erased:"):
            try:
                said = parse_json(value)
            except InvalidContent:
                said = None
            known = said if isinstance(said, dict) else {}
            lamport: Any = known.get("lamport")
            seen: Any = known.get("seen")
            found.append(
                Erase(
                    name.partition(":")[2],
                    lamport if _is_int(lamport) and 0 < lamport < _LAMPORT_END else 0,
                    frozenset(EntryId(i) for i in seen if is_entry_id(i)) if isinstance(seen, list) else None,
                )
            )
    return tuple(found)


def live_name(index: int, part_type: str) -> str:
    return f"live:{index}:{part_type}"


def is_live(fields: ReplicaNode) -> bool:
    """Whether a stream grows there, whatever its parts are."""
    return any(name.startswith("live:") and isinstance(value, SharedText) for name, value in fields.items())


def live_parts(fields: ReplicaNode) -> tuple[Part, ...]:
    """What a stream holds so far, part by part."""
    found: list[tuple[int, Part]] = []
    for name, value in sorted(fields.items()):  # where two have one number, their names decide
        kind, _, rest = name.partition(":")
        index, _, part_type = rest.partition(":")
        if kind == "live" and isinstance(value, SharedText) and index.isdecimal() and len(index) < 9:
            text = str(value)
            if part_type == "tool_call":
                found.append((int(index), ToolCall("", "", text)))
            elif part_type in LIVE_TYPES:
                found.append((int(index), Reasoning(text) if part_type == "reasoning" else Text(text)))
    return tuple(part for _, part in sorted(found, key=itemgetter(0)))


def hidden_key(name: str) -> str:
    """The field that holds a hidden field of this name. Raises InvalidContent for a name that can't be one here."""
    if len(canonical_json(name).encode()) > _MAX_NAME:
        raise InvalidContent(
            f"The name of a hidden field may take {_MAX_NAME:,} bytes.", hint="Put what it says into the binding."
        )
    return f"hidden:{name}"


def write_hidden(field: HiddenField, place: FieldAddress = NOWHERE, random: Random = os.urandom) -> bytes:
    """A sealed field is sealed for ``place``. Raises what ``sealing.seal`` does."""
    if field.sealed:
        return seal(field, place, random)
    return canonical_json(dict(field.binding)).encode("utf-8") + b"\0" + bytes(field.data)


def read_hidden(value: Scalar, place: FieldAddress = NOWHERE) -> HiddenField:
    """Raises InvalidContent. JSON text holds no zero byte, so the first one ends the binding. A sealed field is not
    opened yet."""
    if isinstance(value, bytes) and value.startswith(MARK):
        return read_sealed(value, place)
    _need(isinstance(value, bytes) and b"\0" in value, "hidden field has no binding")
    binding, _, data = cast(bytes, value).partition(b"\0")
    try:
        parsed = parse_json(binding.decode("utf-8"))
    except UnicodeDecodeError:
        raise InvalidContent("hidden field's binding is not UTF-8") from None
    _need(isinstance(parsed, dict), "hidden field's binding is not an object")
    return HiddenField(data, parsed)


def hidden_of(
    fields: ReplicaNode, place: Callable[[str], FieldAddress] = lambda name: NOWHERE
) -> dict[str, HiddenField]:
    """The hidden fields of an entry by name; ``place``: where one of this name stands."""
    found = {}
    for name, value in fields.items():
        kind, _, rest = name.partition(":")
        if kind == "hidden":
            try:
                found[rest] = read_hidden(value, place(rest))
            except InvalidContent:
                continue
    return found


def selection_key(act: Selection) -> str:
    return f"select:{act.group}:{act.session}"


def write_selection(act: Selection) -> str:
    return canonical_json({"lamport": act.lamport, "entry": act.entry, "after": list(act.after)})


def read_selection(key: str, text: object) -> Selection | None:
    """The selection an act stands for; None for other acts and malformed ones."""
    kind, _, rest = key.partition(":")
    group, _, session = rest.partition(":")
    if kind != "select" or not is_session_id(session):
        return None
    try:
        value = parse_json(text)
    except InvalidContent:
        return None
    if not isinstance(value, dict) or not is_entry_id(value.get("entry")):
        return None
    lamport: Any = value.get("lamport")
    if not _is_int(lamport) or not 0 < lamport < _LAMPORT_END:
        return None
    after = value.get("after", [])
    seen = tuple(EntryId(i) for i in after if is_entry_id(i)) if isinstance(after, list) else ()
    return Selection(group, session, lamport, value["entry"], seen)


def write_time(seconds: float) -> int:
    """A clock's time in milliseconds; where no date holds it, the nearest that one does."""
    return round(max(-_TIMES_END, min(seconds * 1000, _TIMES_END)))


def read_time(text: object) -> float:
    """The seconds since 1970 that ``meta/created_at`` says; 0 for what is no such time."""
    fits = isinstance(text, str) and text.isascii() and text.isdecimal() and len(text) <= len(str(_TIMES_END))
    return seconds_of(int(cast(str, text)) / 1000) if fits else 0.0


def seconds_of(value: JSON) -> float:
    """A stranger's time in seconds since 1970; 0 for what is no time, or what no date holds."""
    fits = isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= _TIMES_END / 1000
    return float(value) if fits else 0.0


IDENTITY = "id:"
"""Begins the key in ``meta`` whose rest is the document's id. A key of its own, so that nobody can write over it."""


def check_identity(document: str, update: bytes, foreign_key: Callable[[bytes, str, str, str], str | None]) -> None:
    """Raises OtherDocument for an update of another document, as far as it says so; documents of before say nothing."""
    other = foreign_key(update, META, IDENTITY, IDENTITY + document)
    if other is not None:
        raise OtherDocument(
            f"The update is of document {other.removeprefix(IDENTITY)[:40]}, not of {document}.",
            hint="Documents of two ids don't merge, not even a fork and what it was made from.",
        )


def check_schema(text: object) -> None:
    """Raises NewerDocument for a newer major version. A missing one (nothing arrived yet) is fine."""
    major = str(text).partition(".")[0] if isinstance(text, str) else ""
    # More digits than int() takes are a newer one too.
    if major.isascii() and major.isdecimal() and (len(major) > 18 or int(major) > int(SCHEMA.partition(".")[0])):
        raise NewerDocument(
            f"The document has schema version {str(text)[:40]}; this library reads {SCHEMA}.",
            hint="Update llmcrdt to read it. It is stored and synced untouched meanwhile.",
        )


def _frame_to_json(frame: Frame) -> dict[str, JSON]:
    value: dict[str, JSON] = {"appended": [list(pin) for pin in frame.appended], "hash": frame.hash}
    if frame.base:
        value["base"] = list(frame.base)
    for name in ("renderer", "sent", "assumed", "partial", "restarts"):
        if getattr(frame, name):
            value[name] = getattr(frame, name)
    return value


def _frame_from_json(value: Any) -> Frame:
    _need(isinstance(value, dict) and isinstance(value.get("appended"), list), "frame has no list")
    _need(is_hash(value.get("hash")), "frame has no hash")
    renderer, sent, restarts = value.get("renderer", ""), value.get("sent"), value.get("restarts", "")
    _need(isinstance(restarts, str), "frame's reason is not text")
    _need(isinstance(renderer, str) and (sent is None or isinstance(sent, str)), "frame's renderer is not text")
    return Frame(
        base=_pin(value["base"]) if value.get("base") is not None else None,
        appended=tuple(_pin(pin) for pin in value["appended"]),
        hash=FrameHash(value["hash"]),
        renderer=renderer,
        sent=sent,
        assumed=value.get("assumed") is True,
        partial=value.get("partial") is True,
        restarts=restarts,
    )


def _pin(value: Any) -> Pin:
    _need(isinstance(value, list) and len(value) == 2, "frame holds something that is not a pair")
    _need(is_entry_id(value[0]) and is_hash(value[1]), "frame holds a pair that is not an entry and a hash")
    return EntryId(value[0]), ContentHash(value[1])


def _read_answers(value: Any) -> tuple[EntryId, str] | None:
    if value is None:
        return None
    fits = isinstance(value, list) and len(value) == 2 and is_entry_id(value[0]) and isinstance(value[1], str)
    _need(fits, "answers is not an entry and a call")
    return EntryId(value[0]), value[1]


def _entry_ids(value: Any, name: str) -> tuple[EntryId, ...]:
    _need(isinstance(value, list) and all(is_entry_id(i) for i in value), f"{name} is not a list of entry ids")
    _need(len(set(value)) == len(value), f"{name} names an entry twice")
    return tuple(EntryId(i) for i in value)


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _need(condition: object, reason: str) -> None:
    if not condition:
        raise InvalidContent(reason)
