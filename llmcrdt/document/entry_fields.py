"""The codecs of an entry's other fields: versions, erase marks, live parts, hidden fields."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from operator import itemgetter
from typing import Any, Literal, cast

from ..crdt.backend import Node as ReplicaNode
from ..crdt.backend import Scalar, SharedText
from ..exceptions import InvalidContent
from ..ids import ContentHash, EntryId, Random, SessionId, is_entry_id, is_hash, is_session_id, tagged_hash, text_of
from .canonical import JSON, canonical_json, parse_json
from .checks import is_lamport, need
from .encryption import MARK, NOWHERE, FieldAddress, encrypt_field, read_encrypted
from .entry import HiddenField, Part, Reasoning, Text, ToolCall, Version, content_hash, part_from_json, part_to_json
from .nodes import Erase

_ERASED = "llmcrdt/erased/1"  # stands for the hash of an entry that was erased before it was ever sealed
_MAX_NAME = 1024
ERASE_MARK = "erased:"
"""The beginning of the name of a field that erases its entry."""


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
    need(isinstance(value, dict) and isinstance(value.get("parts"), list), "version has no parts")
    need(content_hash(role, cast(str, text)) == name, "version's hash is not that of its content")
    status, lamport, by = value.get("status", "complete"), value.get("lamport"), value.get("by")
    need(status in ("complete", "stopped", "failed"), "version's status is unknown")
    need(is_lamport(lamport), "version's lamport is out of range")
    need(is_session_id(by), "version's writer is not a session id")
    usage = value.get("usage", {})
    need(isinstance(usage, dict), "version's usage is not an object")
    parts = tuple(part_from_json(part) for part in value["parts"])
    return Version(ContentHash(name), status, parts, lamport, by, usage)


def versions_of(role: str, fields: ReplicaNode) -> list[Version]:
    """The sound versions of an entry, best first: complete before stopped before failed, then the oldest (O9)."""
    found = []
    for name, value in fields.items():
        if name.startswith("version:"):
            try:
                found.append(read_version(role, name[8:], value))
            except InvalidContent:
                continue
    if len(found) > 1:
        rank = {"complete": 0, "stopped": 1, "failed": 2}
        found.sort(key=lambda version: (rank[version.status], version.lamport, version.hash))
    return found


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
        if name.startswith(ERASE_MARK):
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
        if name.startswith(ERASE_MARK):
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
                    lamport if is_lamport(lamport) else 0,
                    frozenset(EntryId(i) for i in seen if is_entry_id(i)) if isinstance(seen, list) else None,
                )
            )
    return tuple(found)


def live_name(index: int, part_type: str) -> str:
    return f"live:{index}:{part_type}"


def is_live(fields: ReplicaNode) -> bool:
    """Whether a stream grows there, of parts of any kind."""
    return any(name.startswith("live:") and isinstance(value, SharedText) for name, value in fields.items())


def live_parts(fields: ReplicaNode) -> tuple[Part, ...]:
    """The text of a stream so far, part by part."""
    found: list[tuple[int, Part]] = []
    live = [(name, value) for name, value in fields.items() if name.startswith("live:")]
    for name, value in sorted(live):  # where two have one number, their names decide
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


def write_hidden(field: HiddenField, address: FieldAddress = NOWHERE, random: Random = os.urandom) -> bytes:
    """The bytes that stand in a document; a field that is to be encrypted is encrypted for ``address``. Raises what
    ``encryption.encrypt_field`` does."""
    if field.sealed:
        return encrypt_field(field, address, random)
    return canonical_json(dict(field.binding)).encode("utf-8") + b"\0" + bytes(field.data)


def read_hidden(value: Scalar, address: FieldAddress = NOWHERE) -> HiddenField:
    """Raises InvalidContent. JSON text holds no zero byte, so the first one ends the binding. An encrypted field is
    not opened yet."""
    if isinstance(value, bytes) and value.startswith(MARK):
        return read_encrypted(value, address)
    need(isinstance(value, bytes) and b"\0" in value, "hidden field has no binding")
    binding, _, data = cast(bytes, value).partition(b"\0")
    try:
        parsed = parse_json(binding.decode("utf-8"))
    except UnicodeDecodeError:
        raise InvalidContent("hidden field's binding is not UTF-8") from None
    need(isinstance(parsed, dict), "hidden field's binding is not an object")
    return HiddenField(data, parsed)


def hidden_of(
    fields: ReplicaNode, address: Callable[[str], FieldAddress] = lambda name: NOWHERE
) -> dict[str, HiddenField]:
    """The hidden fields of an entry by name; ``address``: where one of this name stands."""
    found = {}
    for name, value in fields.items():
        kind, _, rest = name.partition(":")
        if kind == "hidden":
            try:
                found[rest] = read_hidden(value, address(rest))
            except InvalidContent:
                continue
    return found
