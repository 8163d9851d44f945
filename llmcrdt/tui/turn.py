"""TurnView: one entry, and all that a person does with it by a key while it has the focus."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from rich.console import Group
from textual import work
from textual.binding import Binding, BindingType
from textual.message import Message
from textual.widgets import Static

from ..document.conversation import Conversation
from ..document.entry import Entry
from ..exceptions import LLMCRDTError
from ..ids import EntryId
from ..repo.repo import Repo
from .dialogs import Confirm, Several, Told, Words
from .words import details, first_words, heading, words


class TurnView(Static, can_focus=True):
    """Posts ``Answer`` where something was said that wants one, ``Opened`` where another conversation is to be shown,
    and ``Failed``. Changes of the document are seen by whoever observes it."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("left", "walk(-1)", "‹"),
        Binding("right", "walk(1)", "›"),
        Binding("e", "edit", "Edit"),
        Binding("f", "fork", "Fork"),
        Binding("x", "erase", "Erase"),
        Binding("s", "seal", "Seal", show=False),
        Binding("c", "summarize", "Summarize"),
        Binding("d", "details", "Details"),
    ]

    class Answer(Message):
        """Something was said that wants an answer."""

    @dataclass
    class Opened(Message):
        """Show this conversation."""

        conversation: str

    @dataclass
    class Failed(Message):
        """Something could not be done."""

        error: LLMCRDTError

    def __init__(self, repo: Repo, conversation: Conversation, entry: Entry, place: int, of: int, new: bool) -> None:
        super().__init__(classes=f"turn {entry.role}")
        self._repo, self._conversation = repo, conversation
        self.entry, self.new = entry, new
        self.show(entry, place, of, new)

    def show(self, entry: Entry, place: int, of: int, new: bool) -> None:
        """This is what it says now: alternative ``place`` of ``of``; ``new``: brought by another device."""
        self.entry, self.new = entry, new
        self.update(Group(heading(entry, place, of, new), words(entry)))

    def action_walk(self, step: int) -> None:
        others = self._conversation.alternatives(self.entry)
        if len(others) > 1:
            place = next(number for number, other in enumerate(others) if other.id == self.entry.id)
            self._do(lambda: self._conversation.select(others[(place + step) % len(others)]))

    @work
    async def action_edit(self) -> None:
        entry = self.entry
        text = await self.app.push_screen_wait(Words("Say something else in its place", entry.text))
        wanted = text is not None and text != entry.text
        if wanted and self._do(lambda: self._conversation.edit(entry, text or "")) and entry.role == "user":
            self.app.screen.post_message(self.Answer())

    def action_fork(self) -> None:
        title = f"{self._conversation.title or 'Untitled'} (fork)"
        made: list[Conversation] = []
        if self._do(lambda: made.append(self._repo.fork(self._conversation, at=self.entry, title=title))):
            self.post_message(self.Opened(made[0].id))

    @work
    async def action_erase(self) -> None:
        entry = self.entry
        if not await self.app.push_screen_wait(Confirm("Erase these words for good, on every device?", "Erase")):
            return
        try:
            held = self._conversation.erase(entry).still_held
        except LLMCRDTError as error:
            self.post_message(self.Failed(error))
            return
        if held:
            lines = [f"{each.kind}: {self._words_of(each.conversation, each.entry)}" for each in held]
            for number in await self.app.push_screen_wait(
                Several("These still hold the words", lines, "Erase them too")
            ):
                there, found = held[number].conversation, held[number].entry
                self._do(lambda there=there, found=found: self._repo.get(there).erase(found))  # type: ignore[misc]

    def action_seal(self) -> None:
        self._do(lambda: self._conversation.seal(self.entry))

    @work
    async def action_summarize(self) -> None:
        entry = self.entry
        text = await self.app.push_screen_wait(Words("A summary of all up to this turn; prompts hold it instead"))
        if text:
            self._do(lambda: self._conversation.summarize(until=entry, text=text))

    def action_details(self) -> None:
        self.app.push_screen(Told("Details", details(self._conversation, self.entry)))

    def _words_of(self, conversation: str, entry: EntryId) -> str:
        try:
            return first_words(self._repo.get(conversation).entry(entry))
        except LLMCRDTError:
            return entry

    def _do(self, act: Callable[[], object]) -> bool:
        try:
            act()
        except LLMCRDTError as error:
            self.app.screen.post_message(self.Failed(error))
            return False
        return True
