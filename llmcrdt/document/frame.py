"""Frame: the list of entries that a generation was computed on; its hash, and its one codec.

A frame is stored in two forms, a JSON object in the document and a row of values in the entry index. Both are made of
the fields of ``Frame`` in their order, so neither can lack one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

from ..ids import ContentHash, EntryId, FrameHash, is_entry_id, is_hash, tagged_hash
from .canonical import JSON, canonical_json
from .checks import need

Pin = tuple[EntryId, ContentHash]
"""One entry in exactly one version."""


@dataclass(frozen=True, slots=True)
class Frame:
    """The exact ordered list of versions that a generation was computed on: frame(base), base, appended.

    ``hash`` names the whole list; ``sent`` is the hash of what was really sent. ``assumed``: imported, so nobody knows
    what was sent. ``partial``: something before it is missing. ``restarts``: why it names no base although something
    was generated before ("erased", or what the caller said).
    """

    base: Pin | None
    appended: tuple[Pin, ...]
    hash: FrameHash
    renderer: str = ""
    sent: str | None = None
    assumed: bool = False
    partial: bool = False
    restarts: str = ""

    @property
    def pins(self) -> tuple[Pin, ...]:
        """The pins that this frame names itself: the base, then those that it appends."""
        return ((self.base,) if self.base else ()) + self.appended


def sent_hash(sent: JSON | bytes) -> str:
    """The hash of what was really sent, as a frame records it: over bytes as they are, over the canonical JSON of
    anything else (a request body, token ids). Raises InvalidContent."""
    data = bytes(sent) if isinstance(sent, (bytes, bytearray)) else canonical_json(sent).encode("utf-8")
    return tagged_hash("llmcrdt/sent/1", data)


EMPTY_FRAME = FrameHash(tagged_hash("llmcrdt/frame/1"))
"""The hash of the frame that holds nothing."""


def extend_frame_hash(before: FrameHash, pins: Sequence[tuple[str, str]]) -> FrameHash:
    """The hash of a list after ``pins`` are appended to it: a chain, so a frame's hash costs what it adds."""
    for entry, version in pins:
        before = FrameHash(tagged_hash("llmcrdt/frame/1", before.encode(), entry.encode(), version.encode()))
    return before


_FIELDS = tuple(field.name for field in fields(Frame))
_ALWAYS = ("appended", "hash")


def frame_to_row(frame: Frame | None) -> list[Any] | None:
    """The values of a frame, field by field, for the entry index."""
    return None if frame is None else [getattr(frame, name) for name in _FIELDS]


def frame_from_row(row: Sequence[Any] | None) -> Frame | None:
    """The frame of a row of ours; nothing is checked."""
    if row is None:
        return None
    base, appended, *rest = row
    return Frame(tuple(base) if base else None, tuple(map(tuple, appended)), *rest)


def frame_to_json(frame: Frame) -> dict[str, JSON]:
    """The object that stands in a document; fields without a value are left out."""
    values = zip(_FIELDS, frame_to_row(frame) or (), strict=True)
    return {name: _plain(value) for name, value in values if value or name in _ALWAYS}


def frame_from_json(value: Any) -> Frame:
    """The frame that a document has. Raises InvalidContent with the reason."""
    need(isinstance(value, dict) and isinstance(value.get("appended"), list), "frame has no list")
    need(is_hash(value.get("hash")), "frame has no hash")
    renderer, sent, restarts = value.get("renderer", ""), value.get("sent"), value.get("restarts", "")
    need(isinstance(restarts, str), "frame's reason is not text")
    need(isinstance(renderer, str) and (sent is None or isinstance(sent, str)), "frame's renderer is not text")
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


def _plain(value: Any) -> JSON:
    return [_plain(each) for each in value] if isinstance(value, tuple) else value


def _pin(value: Any) -> Pin:
    need(isinstance(value, list) and len(value) == 2, "frame holds something that is not a pair")
    need(is_entry_id(value[0]) and is_hash(value[1]), "frame holds a pair that is not an entry and a hash")
    return EntryId(value[0]), ContentHash(value[1])
