"""Side: the library's conversations, or what a search finds."""

from __future__ import annotations

from dataclasses import dataclass

from rich.markup import escape
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.message import Message
from textual.widgets import Input, OptionList
from textual.widgets.option_list import Option

from ..exceptions import LLMCRDTError
from ..ids import EntryId
from ..repo.repo import Repo
from ..terminal_text import safe

MOST = 500


class Side(Vertical):
    """Posts ``Chosen`` when a person picks a conversation, or an entry that a search found."""

    @dataclass
    class Chosen(Message):
        """Show this conversation, at this entry if there is one."""

        conversation: str
        entry: EntryId | None

    def __init__(self, repo: Repo) -> None:
        super().__init__(id="side")
        self._repo = repo
        self._rows: list[tuple[str, EntryId | None]] = []
        self._listed: list[object] = []

    def compose(self) -> ComposeResult:
        yield Input(placeholder="Search (Ctrl+F)", id="search")
        yield OptionList(id="list")

    def refresh_list(self) -> None:
        """Show the library, unless a search is shown."""
        if self.query_one(Input).value.strip():
            return
        rows = [row for row in self._repo.list(MOST) if not row.archived]
        if rows != self._listed:
            self._listed = list(rows)
            self._show([(row.id, None, (safe(row.title) or "Untitled") + " (local)" * row.local) for row in rows])

    def on_input_changed(self, event: Input.Changed) -> None:
        text = event.value.strip()
        self._listed = []
        if not text:
            self.refresh_list()
            return
        try:
            hits = self._repo.search(text, 50, elsewhere=True)
        except LLMCRDTError as error:
            self._show([("", None, safe(error.message))])
            return
        self._show(
            [(hit.conversation, hit.entry, f"{safe(hit.title) or 'Untitled'}\n  {safe(hit.snippet)}") for hit in hits]
        )

    def _show(self, rows: list[tuple[str, EntryId | None, str]]) -> None:
        self._rows = [(conversation, entry) for conversation, entry, _ in rows]
        options = self.query_one(OptionList)
        options.clear_options()
        options.add_options([Option(escape(line)) for _, _, line in rows])

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        conversation, entry = self._rows[event.option_index]
        if conversation:
            self.post_message(self.Chosen(conversation, entry))
