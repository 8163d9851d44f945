"""Simple entries: a head without rarer fields, one complete version, and hidden fields or none.

Of entries that come by the thousand nearly all are simple. They are checked here as ``entry_state`` checks them,
and nothing is made of them but what their order needs; the rest is read when somebody asks for the entry.
"""

from __future__ import annotations

from typing import Any

from ..crdt.backend import Node as ReplicaNode
from ..exceptions import InvalidContent
from ..ids import ContentHash, EntryId, is_entry_id, is_session_id
from .blob import Blob
from .canonical import parse_json
from .checks import lamport_of
from .entry import ROLES, content_hash, part_from_json, visible_text
from .frame import frame_from_json
from .nodes import Node
from .schema import TIMES_END

_HEAD = frozenset(("role", "author", "session", "parents", "lamport", "created_at", "frame"))
_VERSION = frozenset(("by", "hidden", "lamport", "nonce", "parts"))
VERSION_NAME = "version:"


def read_simple_entry(entry: EntryId, fields: ReplicaNode | None) -> tuple[Node, ContentHash] | None:
    """The node of an entry, and its only version; None where it is of another kind, or malformed."""
    if fields is None or not is_entry_id(entry):
        return None
    version = ""
    for name in fields:
        if name.startswith(VERSION_NAME) and not version:
            version = name
        elif name != "head" and not name.startswith("hidden:"):
            return None
    try:
        head = _read_head(entry, parse_json(fields.get("head")))
        if head is None or not version:
            return None
        role, node = head
        text = fields[version]
        if not _is_simple_version(parse_json(text)) or content_hash(role, str(text)) != version[len(VERSION_NAME) :]:
            return None
    except InvalidContent:
        return None
    return node, ContentHash(version[len(VERSION_NAME) :])


def words_of_version(version: object) -> str:
    """The visible text of a version, from its field."""
    return visible_text([part_from_json(part) for part in parse_json(version)["parts"]])


def _read_head(entry: EntryId, head: Any) -> tuple[str, Node] | None:
    if type(head) is not dict or not head.keys() <= _HEAD:
        return None
    role, parents, lamport, created_at = (
        head.get("role"),
        head.get("parents"),
        head.get("lamport"),
        head.get("created_at"),
    )
    if role not in ROLES or type(created_at) is not int or not -TIMES_END <= created_at <= TIMES_END:
        return None
    if type(lamport) is not int or lamport_of(lamport) is None:
        return None
    if type(parents) is not list or len(parents) > 1 or not all(map(is_entry_id, parents)):
        return None
    if not isinstance(head.get("author"), str) or not is_session_id(head.get("session")):
        return None
    said = head.get("frame")
    frame = None if said is None else frame_from_json(said)
    return role, Node(entry, tuple(parents), lamport, frame=frame, system=role == "system" and frame is None)


def _is_simple_version(version: Any) -> bool:
    if type(version) is not dict or not version.keys() <= _VERSION or type(version.get("parts")) is not list:
        return False
    lamport = version.get("lamport")
    if type(lamport) is not int or lamport_of(lamport) is None or not is_session_id(version.get("by")):
        return False
    # One with attachments is always read: who erases it must know which.
    return not any(isinstance(part_from_json(part), Blob) for part in version["parts"])
