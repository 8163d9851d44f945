"""ONE table of what stands in a document, and the facts of the document itself.

Root maps: ``meta``, ``entries`` (entry id -> node), ``acts``. A field name may end in ``:`` and more: one field per
version, hidden name, live part or session. Other fields are left alone, so those of a newer minor version
survive. ``docs/schema.md`` says the same for readers in other languages.

``head.py``, ``entry_fields.py`` and ``acts.py`` read and write what stands in an entry and in an act.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeVar, cast

from ..crdt.backend import Edit
from ..exceptions import NewerDocument, OtherDocument
from .canonical import JSON

META, ENTRIES, ACTS = "meta", "entries", "acts"
ROOTS = (META, ENTRIES, ACTS)
SCHEMA = "1.0"
TIMES_END = 8_640_000_000_000_000  # milliseconds: JavaScript's dates end there, before 1970 as well


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
    Field("meta/forked_from", "text", "set once", True, "JSON: conversation, entry, transcript, tips, left_out"),
    Field("meta/created_at", "text", "set once", True, "milliseconds since 1970 on the creator's clock"),
    Field("entries/<id>/head", "text", "set once", True, "JSON: role, author, session, parents, lamport, ..."),
    Field("entries/<id>/live:<n>:<type>", "shared text", "grows, dropped at the seal", True, "a part"),
    Field("entries/<id>/version:<hash>", "text", "named by its content", True, "JSON: nonce, parts, lamport, by, ..."),
    Field("entries/<id>/hidden:<name>", "bytes", "set once", False, "binding as JSON, a zero byte, data; or encrypted"),
    Field("entries/<id>/erased:<session>", "text", "terminal: one is enough", True, "JSON: lamport, versions, seen"),
    Field("acts/select:<group>:<session>", "text", "greatest (lamport, session)", True, "JSON: lamport, entry, after"),
    Field("acts/keep:<entry>:<session>", "text", "one is enough", True, "JSON: lamport"),
    Field("acts/stop:<entry>:<session>", "text", "one is enough", True, "JSON: lamport"),
    Field("acts/claim:<call>:<session>", "text", "one per session", True, "JSON: lamport, abandoned"),
    Field("acts/ask:<ask>:<session>", "text", "least (lamport, session)", True, "JSON: lamport, after, frame, ..."),
    Field("acts/reply:<ask>:<session>", "text", "one per session", True, "JSON: lamport, entry, code, text"),
)  # fmt: skip


def write_time(seconds: float) -> int:
    """A clock's time in milliseconds; where no date holds it, the nearest that one does."""
    return round(max(-TIMES_END, min(seconds * 1000, TIMES_END)))


def read_time(text: object) -> float:
    """The seconds since 1970 that ``meta/created_at`` says; 0 for what is no such time."""
    fits = isinstance(text, str) and text.isascii() and text.isdecimal() and len(text) <= len(str(TIMES_END))
    return seconds_of(int(cast(str, text)) / 1000) if fits else 0.0


def seconds_of(value: JSON) -> float:
    """A stranger's time in seconds since 1970; 0 for what is no time, or what no date holds."""
    fits = isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= TIMES_END / 1000
    return float(value) if fits else 0.0


IDENTITY = "id:"
"""Begins the key in ``meta`` whose rest is the document's id. A key of its own, so that nobody can write over it."""


def write_identity(edit: Edit, document: str, created_at: float) -> None:
    """Write the facts of a conversation's document itself; once, by whoever creates it."""
    edit.put(META, "schema", SCHEMA)
    edit.put(META, "kind", "conversation")
    edit.put(META, IDENTITY + document, "1")
    edit.put(META, "created_at", str(write_time(created_at)))


_Update = TypeVar("_Update")


def check_identity(document: str, update: _Update, foreign_key: Callable[[_Update, str, str, str], str | None]) -> None:
    """Raises OtherDocument for an update of another document, as far as it says so; documents of before say nothing.
    ``foreign_key``: that of the Backend, for an update that was read, or that of a Replica."""
    other = foreign_key(update, META, IDENTITY, IDENTITY + document)
    if other is not None:
        raise OtherDocument(
            f"The update is of document {other.removeprefix(IDENTITY)[:40]}, not of {document}.",
            hint="Documents of two ids don't merge; what is new in a fork comes in by conv.adopt(fork).",
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
