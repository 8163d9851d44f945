"""Erases entries of a conversation, and finds what still holds their words."""

from __future__ import annotations

from collections.abc import Iterable, Sequence, Set

from ..exceptions import InvalidContent
from ..ids import DocumentId, EntryId
from .core import ConversationCore
from .entry import Entry
from .erasure import Erased, Held, erase, holders, with_copies, words_of
from .fork import copied, origin_of, until
from .nodes import by_age


class Eraser:
    """Erases in one conversation. It holds nothing itself."""

    def __init__(self, core: ConversationCore) -> None:
        self._core = core

    def erase(self, entry: Entry | EntryId, also: Iterable[Entry | EntryId | Held]) -> Erased:
        """As ``Conversation.erase`` says."""
        core = self._core
        with core.editing() as edit:
            view = core.view
            named = [view.find(entry), *(view.find(self._entry_here(other)) for other in also)]
            chosen = {copy for each in named for copy in with_copies(view, each)}
            words, lamport = words_of(view, chosen), view.order.next_lamport()
            erase(view, core.replica, edit, chosen, session=core.document.session, lamport=lamport)
            core.stale_bytes = True
            entries = by_age(chosen, view.order.sound())
        return Erased(tuple(entries), lambda: self._still_held(entries, words))

    def _entry_here(self, found: Entry | EntryId | Held) -> Entry | EntryId:
        if not isinstance(found, Held):
            return found
        if found.conversation != self._core.id:
            raise InvalidContent(
                f"Entry {found.entry} is in conversation {found.conversation}.",
                hint="Erase it there: repo.get(held.conversation).erase(held.entry).",
            )
        return found.entry

    def _still_held(self, erased: Sequence[EntryId], words: Set[str]) -> list[Held]:
        """The entries that hold erased words: here, and in other conversations that have the same entries (forks, and
        the one that this is a fork of)."""
        core = self._core
        with core.reading():
            found = [Held(core.id, entry, kind) for entry, kind in holders(core.view, erased, words)]
            origin, copied = self._copied_from()
            for entry in erased:
                erased_there = dict(core.host.index.copies(entry)) if core.host.index is not None else {}
                if origin is not None and entry in copied:
                    erased_there.setdefault(origin, False)
                found += [Held(DocumentId(i), entry, "copy") for i, gone in erased_there.items() if not gone]
        return found

    def _copied_from(self) -> tuple[str | None, Set[EntryId]]:
        """The conversation that this one is a fork of, and the entries that came from there."""
        came, view = origin_of(self._core.replica) or {}, self._core.view
        origin, began_with = came.get("conversation"), copied(view, came)
        if not isinstance(origin, str):
            return None, frozenset()
        if began_with is None:  # an older fork does not say it
            at = came.get("entry")
            shown = isinstance(at, str) and at in view.order.now().visible
            began_with = until(view, EntryId(str(at))) if shown else set()
        return origin, began_with
