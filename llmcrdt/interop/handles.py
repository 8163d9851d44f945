"""Handles: the names of state that a provider keeps, so that a request need not say again what is there. Pure.

A handle is a hidden field of the answer that left the state, ``NAME/handle``, bound like others: to its provider, its
API, the account, the list that the answer was computed on, and the time for which the provider keeps it. It is derived:
all that it stands for is in the document, and a request without it says the same.

It says how many items the provider holds, and a hash of them. A delta is sent only where the whole list, as it would be
sent now, begins with exactly these.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ..document.canonical import JSON, exact_json, parse_json
from ..document.entry import Entry, HiddenField
from ..exceptions import InvalidContent
from ..ids import EntryId, tagged_hash
from .native import mapping


@dataclass(frozen=True)
class Held:
    """A list that a provider holds: how many items, and their hash, which is a chain, so it costs what is added."""

    count: int = 0
    hash: str = tagged_hash("llmcrdt/held/1")

    def and_then(self, items: Sequence[JSON]) -> Held:
        """The list with more items at its end."""
        made = self.hash
        for item in items:
            made = tagged_hash("llmcrdt/held/1", made.encode(), exact_json(item).encode("utf-8"))
        return Held(self.count + len(items), made)


NOTHING = Held()
"""The list of a provider that holds nothing."""


@dataclass(frozen=True)
class Handle:
    """``id``: the provider's name of the state. ``held``: the list that it holds there."""

    id: str
    held: Held

    def field(self, binding: dict[str, JSON]) -> HiddenField:
        """The hidden field that keeps it."""
        value = {"id": self.id, "count": self.held.count, "held": self.held.hash}
        return HiddenField(exact_json(value).encode(), binding)


@dataclass(frozen=True)
class Kept:
    """The state that a response leaves at its provider. ``seconds``: how long it is kept at least."""

    id: str
    seconds: float


def handle_name(format: str) -> str:
    """The name of the hidden field with the handle of a format."""
    return f"{format}/handle"


def handle_of(field: HiddenField) -> Handle | None:
    """The handle in a field that anybody may have written; None where there is none."""
    try:
        value = mapping(parse_json(field.data.decode("utf-8")))
    except (InvalidContent, UnicodeDecodeError):
        return None
    id_, count, held = value.get("id"), value.get("count"), value.get("held")
    if not (isinstance(id_, str) and id_ and isinstance(held, str)) or type(count) is not int or count < 1:
        return None
    return Handle(id_, Held(count, held))


def find_handle(format: str, entries: Iterable[Entry], text: str) -> EntryId:
    """The answer whose handle a text names: by the provider's name of the state, or by the entry's id, or how that
    begins. The text itself, as the id of no entry, where no answer, or more than one, is meant."""
    name, begun = handle_name(format), set()
    for entry in entries:
        field = entry.hidden.get(name)
        handle = handle_of(field) if field is not None and not field.locked else None
        if entry.id == text or (handle is not None and handle.id == text):
            return entry.id
        begun |= {entry.id} if field is not None and text and entry.id.startswith(text) else set()
    return begun.pop() if len(begun) == 1 else EntryId(text)
