"""TranscriptView: the last entries of a conversation, kept in step with the document."""

from __future__ import annotations

from typing import ClassVar

from textual import work
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll

from ..document.conversation import Conversation
from ..exceptions import LLMCRDTError
from ..ids import EntryId
from ..repo.repo import Repo
from .dialogs import Choice
from .turn import TurnView
from .words import first_words

WINDOW = 60  # entries
STEP = 100


class TranscriptView(VerticalScroll, can_focus=False):
    """Turns in order, the youngest at the end. ``sync`` brings it into step."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,k", "turn(-1)", "The turn before", show=False),
        Binding("down,j", "turn(1)", "The next turn", show=False),
        Binding("b", "branches", "Branches"),
        Binding("o", "older", "Older", show=False),
    ]

    def __init__(self, repo: Repo) -> None:
        super().__init__(id="transcript")
        self._repo = repo
        self._last = WINDOW
        self._shown: dict[EntryId, tuple[object, ...]] = {}
        self.more = False
        self._conversation: Conversation | None = None

    def begin(self) -> None:
        """Another conversation is shown from now on."""
        self._last, self._shown, self._conversation = WINDOW, {}, None
        self.remove_children()

    async def action_older(self) -> None:
        """Show more of what is older."""
        self._last += STEP
        if self._conversation is not None:
            await self.sync(self._conversation, set())

    def action_turn(self, step: int) -> None:
        views, focused = list(self.query(TurnView)), self.screen.focused
        place = views.index(focused) + step if isinstance(focused, TurnView) else len(views) - 1
        if place >= len(views):
            self.screen.query_one("#composer").focus()
        else:
            views[max(0, place)].focus()

    @work
    async def action_branches(self) -> None:
        conversation = self._conversation
        if conversation is None:
            return
        others = list(conversation.transcript().elsewhere)[-100:]
        if not others:
            self.notify("Everything is shown; there is no other branch.")
            return
        lines = [
            f"{other.entry.role}: {first_words(other.entry)}" + (" (withheld)" if other.way == "withheld" else "")
            for other in others
        ]
        chosen = await self.app.push_screen_wait(Choice("Not shown now; Enter goes there", lines))
        if chosen is not None:
            other = others[chosen]
            go = conversation.keep if other.way == "withheld" else conversation.select
            try:
                go(other.entry)
            except LLMCRDTError as error:
                self.post_message(TurnView.Failed(error))

    async def sync(self, conversation: Conversation, arrived: set[EntryId]) -> None:
        """Show what the conversation says now. Turns that say the same are left as they are."""
        self._conversation, at_end = conversation, self.is_vertical_scroll_end
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
