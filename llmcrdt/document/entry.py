"""Entry, Part, HiddenField: immutable values, equal by content. They know no storage and no order.

Parts are what an entry says; each has a JSON form with a ``type``. A type this version doesn't know is an ``Unknown``
and is kept verbatim; unknown fields of a known type are kept in ``extra``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from ..exceptions import CannotOpen, InvalidContent
from ..ids import ContentHash, EntryId, SessionId, tagged_hash
from .blob import Blob, blob_from_json, blob_to_json
from .canonical import JSON
from .frame import Frame

Role = Literal["system", "user", "assistant", "tool"]
ROLES = ("system", "user", "assistant", "tool")
SyncState = Literal["local", "sent", "durable"]
Status = Literal["streaming", "complete", "stopped", "failed", "erased"]


@dataclass(frozen=True, slots=True)
class Text:
    """Visible text."""

    type: ClassVar[str] = "text"
    text: str
    extra: Mapping[str, JSON] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class Reasoning:
    """A model's thoughts; a renderer may leave them out."""

    type: ClassVar[str] = "reasoning"
    text: str
    extra: Mapping[str, JSON] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A model asks for a tool. ``arguments`` is the JSON text exactly as the model wrote it."""

    type: ClassVar[str] = "tool_call"
    id: str
    name: str
    arguments: str
    extra: Mapping[str, JSON] = field(default_factory=dict, repr=False)
    entry: EntryId | None = field(default=None, compare=False)  # the entry it stands in; set when read from one


@dataclass(frozen=True, slots=True)
class ToolResult:
    """A tool's answer, as text. The entry names the call (``answers``)."""

    type: ClassVar[str] = "tool_result"
    text: str
    error: bool = False
    extra: Mapping[str, JSON] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class Config:
    """Settings that count from here on: ``tools``, ``date``, ``template`` (arguments of the chat template), ..."""

    type: ClassVar[str] = "config"
    values: Mapping[str, JSON] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Unknown:
    """A part of a type this version doesn't know, kept as it came."""

    json: Mapping[str, JSON]

    @property
    def type(self) -> str:
        return str(self.json.get("type", ""))


Part = Text | Reasoning | ToolCall | ToolResult | Blob | Config | Unknown
_TEXTUAL: dict[str, type[Text] | type[Reasoning]] = {"text": Text, "reasoning": Reasoning}


def part_to_json(part: Part) -> dict[str, JSON]:
    match part:
        case Text() | Reasoning():
            return {**part.extra, "type": part.type, "text": part.text}
        case ToolCall():
            return {**part.extra, "type": part.type, "id": part.id, "name": part.name, "arguments": part.arguments}
        case ToolResult():
            return {**part.extra, "type": part.type, "text": part.text} | ({"error": True} if part.error else {})
        case Blob():
            return blob_to_json(part)
        case Config():
            return {**part.values, "type": part.type}
        case Unknown():
            return dict(part.json)


def part_from_json(value: JSON) -> Part:
    """The part a JSON object stands for. Raises InvalidContent unless it is an object with a ``type``."""
    if not isinstance(value, dict) or not isinstance(value.get("type"), str):
        raise InvalidContent('A part is an object with a "type".')
    rest = dict(value)
    kind = rest.pop("type")
    if kind in _TEXTUAL and isinstance(rest.get("text"), str):
        return _TEXTUAL[kind](rest.pop("text"), rest)
    if kind == "tool_call" and all(isinstance(rest.get(k), str) for k in ("id", "name", "arguments")):
        return ToolCall(rest.pop("id"), rest.pop("name"), rest.pop("arguments"), rest)
    if kind == "tool_result" and isinstance(rest.get("text"), str) and isinstance(rest.get("error", False), bool):
        return ToolResult(rest.pop("text"), rest.pop("error", False), rest)
    if kind == "config":
        return Config(rest)
    if kind == "blob" and (blob := blob_from_json(rest)) is not None:
        return blob
    return Unknown(value)


def parts_of(content: str | Part | Sequence[Part], role: str) -> tuple[Part, ...]:
    """The parts of what people pass as content: a string, a part, or several parts."""
    if isinstance(content, str):
        return (ToolResult(content) if role == "tool" else Text(content),) if content or role != "system" else ()
    if isinstance(content, Part):
        return (content,)
    parts = tuple(content)
    for part in parts:
        if not isinstance(part, Part):
            raise InvalidContent(f"{type(part).__name__} is not a part.", hint="Pass text or parts such as Text(...).")
    return parts


TOKENS = "llmcrdt/tokens"
"""The hidden field that holds a generation's token log. Token ids spell the words, so an erase takes it along."""


Refusal = Literal["", "replaced", "added"]


@dataclass(frozen=True, repr=False)
class HiddenField:
    """Opaque bytes that people don't see and other providers must not get.

    ``binding`` says what they are valid for (provider, api, model, account, frame, group, expires; all optional).
    ``sealed``: only devices that have the conversation's key can read them. A field read
    from an entry opens when its ``data`` is asked for; ``data`` raises KeyMissing or CannotOpen where it can't.
    ``versions``: of a field read from an entry, the versions of the entry that it came with, which vouch for it; ()
    where none says which fields came with it, as in entries of before.
    """

    data: bytes
    binding: Mapping[str, JSON] = field(default_factory=dict)
    sealed: bool = False
    versions: tuple[ContentHash, ...] = field(default=(), compare=False)

    @property
    def locked(self) -> bool:
        """Whether ``data`` can't be read here: it is encrypted, and the key is missing or the field was tampered
        with."""
        return False

    @property
    def refused(self) -> Refusal:
        """Why it is not what its author wrote there; "" where nothing says so."""
        return ""

    def __repr__(self) -> str:
        form = "hidden field to encrypt" if self.sealed else "hidden field"
        return f"<{form}, {len(self.data)} bytes, bound to {sorted(self.binding)}>"


class RefusedField(HiddenField):
    """A value that stands in the place of a hidden field and is not the one that the entry's version vouches for."""

    stored: bytes
    _why: Refusal

    def __init__(self, stored: bytes, why: Literal["replaced", "added"]) -> None:
        object.__setattr__(self, "stored", stored)
        object.__setattr__(self, "binding", {})
        object.__setattr__(self, "sealed", False)
        object.__setattr__(self, "versions", ())
        object.__setattr__(self, "_why", why)

    @property
    def data(self) -> bytes:
        """Raises CannotOpen."""
        raise CannotOpen(
            f"The hidden field was {self.refused} after its entry was sealed.",
            hint="It stays as it is, and is sent to nobody; nothing else is affected.",
        )

    @property
    def locked(self) -> bool:
        return True

    @property
    def refused(self) -> Refusal:
        return self._why

    def __eq__(self, other: object) -> bool:
        return self.stored == other.stored if isinstance(other, RefusedField) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.stored)

    def __repr__(self) -> str:
        return f"<hidden field that was {self.refused} after its entry was sealed>"


def content_hash(role: str, version_text: str) -> ContentHash:
    """The name of a version: over its role and its canonical text, which holds a nonce (an erased text can't be
    guessed)."""
    return ContentHash(tagged_hash("llmcrdt/content/1", role.encode(), version_text.encode("utf-8")))


@dataclass(slots=True)  # not frozen, as ``nodes.Node``
class Version:
    """One sealed content of an entry. Never overwritten. ``hidden``: the hidden fields that came with it, each with its
    digest (``entry_fields.field_digest``); None where it does not say."""

    hash: ContentHash
    status: Literal["complete", "stopped", "failed"]
    parts: tuple[Part, ...]
    lamport: int
    by: SessionId
    usage: Mapping[str, JSON] = field(default_factory=dict)
    hidden: Mapping[str, str] | None = None


def visible_text(parts: Sequence[Part]) -> str:
    """Text parts and tool results, joined."""
    return "".join([part.text for part in parts if isinstance(part, (Text, ToolResult))])


@dataclass(frozen=True, slots=True)
class Entry:
    """One contribution by one author, as a transcript shows it.

    ``created_at`` is seconds since 1970 on the author's clock: for display, never for order. ``after`` is what the
    author had seen beyond ``parents``. ``covers``: what a summary stands for. While ``status`` is "streaming", ``hash``
    is None and parts grow. ``sync`` is "local" until the entry is on its way to a relay that is connected, "sent" until
    every relay that follows the conversation has it on disk, then "durable"; without a connection it is "local" again.
    ``missing``: hidden fields that this version came with and that are not here. ``saw_erased``: the erased entries
    that its author knew of: of an alternative, among those that it was made of; of a generation, those of its frame.
    """

    id: EntryId
    role: Role
    parts: tuple[Part, ...]
    status: Status
    hash: ContentHash | None
    author: str
    session: SessionId
    parents: tuple[EntryId, ...]
    lamport: int
    created_at: float
    after: tuple[EntryId, ...] = ()
    alternative_of: EntryId | None = None
    answers: tuple[EntryId, str] | None = None
    frame: Frame | None = None
    model: Mapping[str, JSON] = field(default_factory=dict)
    covers: Frame | None = None
    usage: Mapping[str, JSON] = field(default_factory=dict)
    hidden: Mapping[str, HiddenField] = field(default_factory=dict, repr=False)
    sync: SyncState = "local"
    missing: tuple[str, ...] = ()
    saw_erased: tuple[EntryId, ...] = ()

    @property
    def text(self) -> str:
        """The visible text: text parts and tool results, joined."""
        return visible_text(self.parts)

    @property
    def reasoning(self) -> str:
        return "".join(part.text for part in self.parts if isinstance(part, Reasoning))

    @property
    def tool_calls(self) -> tuple[ToolCall, ...]:
        return tuple(part for part in self.parts if isinstance(part, ToolCall))

    @property
    def config(self) -> Mapping[str, Any]:
        """The settings this entry brings, merged over its config parts."""
        return {key: value for part in self.parts if isinstance(part, Config) for key, value in part.values.items()}

    @property
    def sealed(self) -> bool:
        return self.hash is not None


def oldest_first(entries: Iterable[Entry]) -> list[Entry]:
    """Entries by their age, as the rules of order count it (docs/semantics.md): lamport, then id."""
    return sorted(entries, key=lambda entry: (entry.lamport, entry.id))
