"""The names under which parts keep what only one format understands; no other format writes it.

``NAME/message``: an unknown part, the last one of its entry, that keeps what belongs to the item as a whole.
``NAME/block``: an unknown part that is a block as it came. ``extra["llmcrdt:NAME"]`` of any other part: the rest of its
block. (``openai-chat`` is older than this, and keeps more than that flat.)
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from ..document.canonical import JSON
from ..document.entry import Part, Unknown

_TYPE = re.compile(r"[a-z][a-z-]*/(message|block)")
_KEY = "llmcrdt:"


def is_native_type(kind: JSON) -> bool:
    """Whether a part of this type is what some format keeps for itself."""
    return isinstance(kind, str) and _TYPE.fullmatch(kind) is not None


def has_native_key(value: Mapping[str, JSON]) -> bool:
    """Whether an object has a key under which a format keeps the rest of a block."""
    return any(key.startswith(_KEY) for key in value)


def without_native(extra: Mapping[str, JSON]) -> dict[str, JSON]:
    """The members that a part keeps flat."""
    return {key: value for key, value in extra.items() if not key.startswith(_KEY)}


def native_block(part: Part) -> Mapping[str, JSON] | None:
    """The block that a part keeps for whatever format, else None."""
    if isinstance(part, Unknown) and is_native_type(part.type) and part.type.endswith("/block"):
        return mapping(part.json.get("block"))
    return None


def mapping(value: JSON) -> Mapping[str, JSON]:
    """``value`` if it is an object, else an empty one: strangers write anything."""
    return value if isinstance(value, dict) else {}


@dataclass(frozen=True)
class Native:
    """The names of one format."""

    name: str

    @property
    def message(self) -> str:
        return f"{self.name}/message"

    @property
    def block_type(self) -> str:
        return f"{self.name}/block"

    def block(self, block: JSON) -> Unknown:
        """A part that keeps a block as it came."""
        return Unknown({"type": self.block_type, "block": block})

    def block_of(self, part: Part) -> JSON:
        """The block that such a part keeps, else None."""
        return part.json.get("block") if isinstance(part, Unknown) and part.type == self.block_type else None

    def whole(self, kept: Mapping[str, JSON]) -> list[Part]:
        """The part that keeps what belongs to the item as a whole, if there is any of it."""
        return [Unknown({"type": self.message, **kept})] if kept else []

    def whole_of(self, parts: Sequence[Part]) -> Mapping[str, JSON]:
        """The value that it keeps."""
        return next((part.json for part in parts if isinstance(part, Unknown) and part.type == self.message), {})

    def extra(self, rest: Mapping[str, JSON]) -> dict[str, JSON]:
        """The rest of a block, as the ``extra`` of its part."""
        return {_KEY + self.name: dict(rest)} if rest else {}

    def rest_of(self, part: Part) -> Mapping[str, JSON]:
        """The rest of the block that a part was made of."""
        return mapping(getattr(part, "extra", {}).get(_KEY + self.name))

    def said(self, parts: Sequence[Part]) -> Iterator[Part]:
        """The parts without the one of the item as a whole."""
        return (part for part in parts if not (isinstance(part, Unknown) and part.type == self.message))
