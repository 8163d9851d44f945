"""TranscriptView: the last entries of a conversation, kept in step with the document."""

from __future__ import annotations

from textual.containers import VerticalScroll

from ..document.conversation import Conversation
from ..ids import EntryId
from ..repo.repo import Repo
from .turn import TurnView

WINDOW = 60  # entries
STEP = 100


class TranscriptView(VerticalScroll, can_focus=False):
    """Turns in order, the youngest at the end. ``sync`` brings it into step."""

    def __init__(self, repo: Repo) -> None:
        super().__init__(id="transcript")
        self._repo = repo
        self._last = WINDOW
        self._shown: dict[EntryId, tuple[object, ...]] = {}
        self.more = False

    def begin(self) -> None:
        """Another conversation is shown from now on."""
        self._last, self._shown = WINDOW, {}
        self.remove_children()

    def older(self) -> None:
        """Show more of what is older, from the next ``sync`` on."""
        self._last += STEP

    async def sync(self, conversation: Conversation, arrived: set[EntryId]) -> None:
        """Show what the conversation says now. Turns that say the same are left as they are."""
        at_end = self.is_vertical_scroll_end
        entries = conversation.entries(last=self._last + 1)
        self.more = len(entries) > self._last
        entries = entries[-self._last :]
        views = {view.entry.id: view for view in self.query(TurnView)}
        wanted = {entry.id for entry in entries}
        for id_ in views.keys() - wanted:
            self._shown.pop(id_, None)
            await views[id_].remove()
        before: TurnView | None = None
        for entry in entries:
            alternatives = conversation.alternatives(entry)
            place = next((number for number, other in enumerate(alternatives) if other.id == entry.id), 0)
            state = (entry, place, len(alternatives), entry.id in arrived)
            view = views.get(entry.id)
            if view is None:
                view = TurnView(self._repo, conversation, *state)
                await self.mount(view, after=before) if before else await self.mount(view, before=0)
            else:
                if self._shown.get(entry.id) != state:
                    view.show(*state)
                if before is not None and self.children.index(view) != self.children.index(before) + 1:
                    self.move_child(view, after=before)
            self._shown[entry.id] = state
            before = view
        if at_end:
            self.scroll_end(animate=False)
