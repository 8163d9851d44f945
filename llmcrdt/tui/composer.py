"""Composer: the field in which a person writes. Enter sends; pasted text is one message, of any number of lines."""

from __future__ import annotations

from dataclasses import dataclass

from textual import events
from textual.message import Message
from textual.widgets import TextArea


class Composer(TextArea):
    """Posts ``Sent`` with what was written. Up and down on the first and last line walk through what was sent before;
    the words that were being written come back after it."""

    @dataclass
    class Sent(Message):
        """A person wants this said."""

        text: str

    def __init__(self) -> None:
        super().__init__(id="composer", soft_wrap=True, show_line_numbers=False, tab_behavior="focus")
        self.border_title = "Enter sends, Ctrl+J begins a line"
        self._history: list[str] = []
        self._place = 0
        self._draft = ""

    async def _on_key(self, event: events.Key) -> None:
        if event.key == "enter":
            event.prevent_default().stop()
            if self.text.strip():
                self.post_message(self.Sent(self.text))
            return
        if event.key in ("ctrl+j", "shift+enter"):
            event.prevent_default().stop()
            self.insert("\n")
            return
        if event.key == "up" and self.cursor_location[0] == 0 and self._place > 0:
            event.prevent_default().stop()
            self._walk(-1)
            return
        if event.key == "down" and self.cursor_at_last_line and self._place < len(self._history):
            event.prevent_default().stop()
            self._walk(1)
            return
        await super()._on_key(event)

    def sent(self, text: str) -> None:
        """It was said: remember it, and begin anew."""
        self._history.append(text)
        self._place, self._draft = len(self._history), ""
        if self.text == text:
            self.clear()

    def _walk(self, step: int) -> None:
        if self._place == len(self._history):
            self._draft = self.text
        self._place += step
        self.text = self._draft if self._place == len(self._history) else self._history[self._place]
        self.move_cursor(self.document.end)
