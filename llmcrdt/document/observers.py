"""Observers of a conversation, and the changes that are reported to them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from ..ids import EntryId
from ..observation import Observation, Observers
from .entry import Entry
from .view import ConversationView


@dataclass(frozen=True)
class Change:
    """The effect of one write on the transcript: entries that came, whose content changed, that left. ``deleted``: the
    conversation was deleted, here or elsewhere; this is the last change."""

    added: tuple[Entry, ...]
    changed: tuple[Entry, ...]
    removed: tuple[EntryId, ...]
    local: bool
    deleted: bool = False


class ConversationObservers:
    """The callbacks of one conversation. Called under its lock; ``dispatch`` runs the callbacks.

    Before a change ``note_visible``, after it ``note_changed``; ``report`` once it is on disk.
    """

    def __init__(self, dispatch: Callable[[Callable[[], None]], None]) -> None:
        self.dispatch = dispatch
        self._changes: Observers[Change] = Observers(lambda call: self.dispatch(call))
        self._watchers: list[Callable[[], None]] = []
        self._before: tuple[set[EntryId], set[EntryId]] | None = None
        """The entries visible at the last report, and those that changed since; None if nothing happened since."""

    def add(self, callback: Callable[[Change], None] | None) -> Observation[Change]:
        """Tell of every change from now on."""
        return self._changes.add(callback)

    def end(self, *, deleted: bool) -> None:
        """The conversation is not used any more: it was closed, or deleted."""
        if deleted:
            for watcher in tuple(self._watchers):
                self.dispatch(watcher)
            self._changes.tell(Change((), (), (), local=False, deleted=True))
        self._changes.end()

    def watch(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call back after whatever is written or arrives, also acts. Returns a function that stops it."""
        self._watchers.append(callback)
        return lambda: self._watchers.remove(callback) if callback in self._watchers else None

    def note_visible(self, view: ConversationView) -> None:
        """The document is about to change."""
        if self._changes and self._before is None:
            self._before = set(view.order.now().visible), set()

    def note_changed(self, entries: Iterable[EntryId]) -> None:
        """These entries say something else than before."""
        if self._before is not None:
            self._before[1].update(entries)

    def report(self, view: ConversationView, *, local: bool) -> None:
        """Report the entries that came, changed and went since the last report."""
        for watcher in tuple(self._watchers):
            self.dispatch(watcher)
        noted, self._before = self._before, None
        if noted is None:
            return
        before, changed = noted
        now = view.order.now()
        change = Change(
            added=tuple(view.shown(i) for i in (*now.head, *now.tail) if i not in before),
            changed=tuple(view.shown(i) for i in sorted(changed) if i in before and i in now.visible),
            removed=tuple(i for i in before if i not in now.visible),
            local=local,
        )
        if change.added or change.changed or change.removed:
            self._changes.tell(change)
