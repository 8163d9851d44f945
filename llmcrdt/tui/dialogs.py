"""Questions on top of the screen. Escape always means no."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from rich.markup import escape
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Button, Input, OptionList, SelectionList, Static, TextArea


class Confirm(ModalScreen[bool]):
    """Whether a person means it."""

    BINDINGS: ClassVar[list[BindingType]] = [("escape", "dismiss(False)", "No")]

    def __init__(self, question: str, yes: str = "Yes") -> None:
        super().__init__()
        self._question, self._yes = question, yes

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog"):
            yield Static(escape(self._question))
            with Horizontal():
                yield Button("No", id="no")
                yield Button(self._yes, id="yes", variant="error")

    def on_button_pressed(self, event: Button.Pressed) -> None:
        self.dismiss(event.button.id == "yes")


class Words(ModalScreen[str | None]):
    """Text from a person; Ctrl+S or the button takes it."""

    BINDINGS: ClassVar[list[BindingType]] = [("escape", "dismiss(None)", "No"), ("ctrl+s", "take", "Save")]

    def __init__(self, title: str, text: str = "", *, lines: bool = True) -> None:
        super().__init__()
        self._title, self._text, self._lines = title, text, lines

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog"):
            yield Static(escape(self._title), classes="title")
            yield TextArea(self._text, id="words") if self._lines else Input(self._text, id="words")
            with Horizontal():
                yield Button("Cancel", id="no")
                yield Button("Save (Ctrl+S)", id="yes", variant="primary")

    def on_button_pressed(self, event: Button.Pressed) -> None:
        self.action_take() if event.button.id == "yes" else self.dismiss(None)

    def on_input_submitted(self) -> None:
        self.action_take()

    def action_take(self) -> None:
        words = self.query_one("#words")
        self.dismiss(words.text if isinstance(words, TextArea) else words.value)  # type: ignore[attr-defined]


class Choice(ModalScreen[int | None]):
    """One line of several."""

    BINDINGS: ClassVar[list[BindingType]] = [("escape", "dismiss(None)", "No")]

    def __init__(self, title: str, lines: Sequence[str]) -> None:
        super().__init__()
        self._title, self._choices = title, list(lines)

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog"):
            yield Static(escape(self._title), classes="title")
            yield OptionList(*(escape(line) for line in self._choices))

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        self.dismiss(event.option_index)


class Several(ModalScreen[list[int]]):
    """Any lines of several."""

    BINDINGS: ClassVar[list[BindingType]] = [("escape", "dismiss([])", "None of them")]

    def __init__(self, title: str, lines: Sequence[str], yes: str) -> None:
        super().__init__()
        self._title, self._choices, self._yes = title, list(lines), yes

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog"):
            yield Static(escape(self._title), classes="title")
            yield SelectionList[int](*((escape(line), number) for number, line in enumerate(self._choices)))
            with Horizontal():
                yield Button("None of them", id="no")
                yield Button(self._yes, id="yes", variant="error")

    def on_button_pressed(self, event: Button.Pressed) -> None:
        self.dismiss(list(self.query_one(SelectionList).selected) if event.button.id == "yes" else [])


class Told(ModalScreen[None]):
    """Something long to read."""

    BINDINGS: ClassVar[list[BindingType]] = [("escape,q,enter", "dismiss", "Close")]

    def __init__(self, title: str, text: str) -> None:
        super().__init__()
        self._title, self._text = title, text

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog"):
            yield Static(escape(self._title), classes="title")
            with VerticalScroll():
                yield Static(escape(self._text), id="told")
            yield Static("Escape closes this.", classes="hint")
