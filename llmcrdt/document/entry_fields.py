"""The codecs of an entry's other fields: versions, erase marks, live parts, hidden fields."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from operator import itemgetter
from typing import Any, Literal, cast

from ..crdt.backend import Node as ReplicaNode
from ..crdt.backend import Scalar, SharedText
from ..exceptions import InvalidContent
from ..ids import ContentHash, EntryId, Random, SessionId, is_entry_id, is_hash, is_session_id, tagged_hash, text_of
from .canonical import JSON, canonical_json, exact_json, parse_json
from .checks import lamport_of, need
from .encryption import (
    NOWHERE,
    SEALED_DIGEST,
    EncryptedField,
    FieldAddress,
    encrypt_field,
    encrypted_digest,
    is_encrypted,
    read_encrypted,
)
from .entry import (
    HiddenField,
    Part,
    Reasoning,
    RefusedField,
    Text,
    ToolCall,
    Version,
    content_hash,
    part_from_json,
    part_to_json,
)
from .nodes import Erase

_ERASED = "llmcrdt/erased/1"  # stands for the hash of an entry that was erased before it was ever sealed
MAX_NAME = 1024
"""Bytes of the name of a hidden field that is written here."""
_SHORT_NAME = 170  # one of ASCII that is no longer fits as JSON, whatever letters it has
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
    hidden: Mapping[str, str] | None = None,
) -> tuple[ContentHash, str]:
    """A version's name and its text. The nonce keeps an erased text from being guessed by its hash. ``hidden``: the
    digests of the hidden fields that come with it; None says nothing of them."""
    written = exact_json([part_to_json(part) for part in parts])
    return write_version_of(
        role, written, status=status, lamport=lamport, by=by, nonce=nonce, usage=usage, hidden=hidden
    )


def write_version_of(
    role: str,
    parts: str,
    *,
    status: Literal["complete", "stopped", "failed"] = "complete",
    lamport: int,
    by: SessionId,
    nonce: bytes,
    usage: Mapping[str, JSON] | None = None,
    hidden: Mapping[str, str] | None = None,
) -> tuple[ContentHash, str]:
    """The same for parts that are canonical JSON already."""
    digests = "" if hidden is None else f',"hidden":{canonical_json(dict(hidden))}'
    text = f'{{"by":"{by}"{digests},"lamport":{lamport},"nonce":"{text_of(nonce)}","parts":{parts}'
    if status != "complete":
        text += f',"status":"{status}"'
    if usage:
        text += f',"usage":{canonical_json(dict(usage))}'
    text += "}"
    return content_hash(role, text), text


def read_version(role: str, name: str, text: object) -> Version:
    """Raises InvalidContent where the text is not what its name says."""
    value = parse_json(text)
    need(isinstance(value, dict) and isinstance(value.get("parts"), list), "version has no parts")
    need(content_hash(role, cast(str, text)) == name, "version's hash is not that of its content")
    status, lamport, by = value.get("status", "complete"), lamport_of(value.get("lamport")), value.get("by")
    need(status in ("complete", "stopped", "failed"), "version's status is unknown")
    need(lamport is not None, "version's lamport is out of range")
    need(is_session_id(by), "version's writer is not a session id")
    usage = value.get("usage", {})
    need(isinstance(usage, dict), "version's usage is not an object")
    parts = tuple(part_from_json(part) for part in value["parts"])
    return Version(ContentHash(name), status, parts, cast(int, lamport), by, usage, read_digests(value.get("hidden")))


def read_digests(value: Any) -> dict[str, str] | None:
    """The hidden fields that a version vouches for, each with its digest; None where it does not say. A value that is
    no digest vouches for nothing, and makes no version malformed: older readers take it as well."""
    if not isinstance(value, dict):
        return None
    return {name: digest if isinstance(digest, str) else "" for name, digest in value.items()}


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
            seen: Any = known.get("seen")
            found.append(
                Erase(
                    name.partition(":")[2],
                    lamport_of(known.get("lamport")) or 0,
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
    short = isinstance(name, str) and name.isascii() and len(name) <= _SHORT_NAME
    if not short and len(canonical_json(name).encode()) > MAX_NAME:
        raise InvalidContent(
            f"The name of a hidden field may take {MAX_NAME:,} bytes.", hint="Put what it says into the binding."
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
    if is_encrypted(value):
        return read_encrypted(cast(bytes, value), address)
    need(isinstance(value, bytes) and b"\0" in value, "hidden field has no binding")
    binding, _, data = cast(bytes, value).partition(b"\0")
    try:
        parsed = parse_json(binding.decode("utf-8"))
    except UnicodeDecodeError:
        raise InvalidContent("hidden field's binding is not UTF-8") from None
    need(isinstance(parsed, dict), "hidden field's binding is not an object")
    return HiddenField(data, parsed)


def field_digest(value: bytes, address: FieldAddress) -> str:
    """The digest of a hidden field that was just written for ``address``, by which a version vouches for it: over the
    bytes of a clear one as they stand in the document; over what is encrypted of an encrypted one."""
    return encrypted_digest(value, address) if is_encrypted(value) else _clear_digest(address.name, value)


def _clear_digest(name: str, value: bytes) -> str:
    return tagged_hash("llmcrdt/field/1", name.encode("utf-8", "surrogatepass"), value)


def hidden_of(
    fields: ReplicaNode,
    address: Callable[[str], FieldAddress] = lambda name: NOWHERE,
    versions: Sequence[Version] = (),
) -> dict[str, HiddenField]:
    """The hidden fields of an entry by name, each held against what the entry's versions vouch for; ``address``: where
    one of this name stands."""
    found: dict[str, HiddenField] = {}
    for field_name, value in fields.items():
        kind, _, name = field_name.partition(":")
        if kind != "hidden":
            continue
        try:
            found[name] = _held_against(versions, name, value, read_hidden(value, address(name)))
        except InvalidContent:
            if any(name in (version.hidden or ()) for version in versions):
                found[name] = RefusedField(value if isinstance(value, bytes) else b"", "replaced")
    return found


def _held_against(versions: Sequence[Version], name: str, value: Scalar, field: HiddenField) -> HiddenField:
    """A field as it counts: where versions speak of it, only as what they vouch for; where some speak of others only,
    as one of those that say nothing; as it is where none says anything."""
    stored = cast(bytes, value)
    silent = tuple(version.hash for version in versions if version.hidden is None)
    if len(silent) == len(versions):
        return field
    digests: dict[str, tuple[ContentHash, ...]] = {}
    for version in versions:
        if version.hidden and name in version.hidden:
            digest = version.hidden[name]
            digests[digest] = (*digests.get(digest, ()), version.hash)
    if not digests:
        if not silent:
            return RefusedField(stored, "added")
        return field.of_versions(silent) if isinstance(field, EncryptedField) else replace(field, versions=silent)
    if isinstance(field, EncryptedField):
        sealed = {digest: came_with for digest, came_with in digests.items() if digest.startswith(SEALED_DIGEST)}
        return field.vouched_by(sealed) if sealed else RefusedField(stored, "replaced")
    came_with = digests.get(_clear_digest(name, stored))
    if not came_with:
        return RefusedField(stored, "replaced")
    return replace(field, versions=came_with)
