"""ChatApp: one repo and one model on a whole terminal."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

from textual import work
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.widgets import Footer

from ..document.blob import Blob
from ..document.conversation import Conversation
from ..document.entry import Entry, Part, Text
from ..document.observers import Change
from ..engine.base import Engine
from ..exceptions import ContextOverflow, LLMCRDTError, NotSealed
from ..generation.generate import generate
from ..generation.generation import Generation
from ..ids import EntryId
from ..providers.base import Provider
from ..repo.repo import Repo
from ..repo.titles import title_from
from ..sync.link import Link
from ..terminal_text import safe
from .answering import Answering
from .composer import Composer
from .dialogs import Told, Words
from .side import Side
from .status import StatusLine
from .transcript import TranscriptView
from .turn import TurnView

LOOK = 0.12  # seconds in which changes become one look
LIBRARY = 1.5  # seconds between two looks at the library and the link


class ChatApp(App[None]):
    """``answer(conversation, engine, ...)`` begins an answer: ``generate``, with what was chosen. For a new
    conversation: ``system`` is the first thing that the model is told, ``title`` stands in place of its first words,
    ``create`` makes it, as ``repo.create`` does."""

    TITLE = "llmcrdt"
    CSS = """
    #side { width: 30; border-right: solid $panel; }
    #list { border: none; height: 1fr; }
    #transcript { padding: 0 1; }
    .turn { padding: 0 1; margin-bottom: 1; border-left: outer transparent; }
    .turn.user { background: $boost; }
    .turn:focus { border-left: outer $accent; }
    #composer { height: auto; min-height: 4; max-height: 12; border: round $panel; }
    #composer:focus { border: round $accent; }
    #status { height: 1; padding: 0 1; color: $text-muted; }
    ModalScreen { align: center middle; }
    .dialog { width: 80%; max-width: 100; height: auto; max-height: 80%; background: $surface; border: round $accent;
        padding: 1 2; }
    .dialog .title { text-style: bold; margin-bottom: 1; }
    .dialog TextArea { height: 10; }
    .dialog VerticalScroll { height: auto; max-height: 24; }
    .dialog .hint { color: $text-muted; }
    .dialog Horizontal { height: auto; align-horizontal: right; margin-top: 1; }
    .dialog Button { margin-left: 2; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+c", "stop", "Stop", priority=True),
        Binding("ctrl+q", "quit", "Quit", priority=True),
        Binding("ctrl+n", "new", "New"),
        Binding("ctrl+f", "search", "Search"),
        Binding("ctrl+b", "side", "Side", show=False),
        Binding("ctrl+o", "attach", "Attach", show=False),
        Binding("ctrl+r", "again", "Again"),
        Binding("escape", "write", "Write", show=False),
        Binding("f1", "keys", "Keys"),
    ]

    def __init__(
        self,
        repo: Repo,
        engine: Engine | Provider,
        *,
        conversation: Conversation | None = None,
        link: Link | None = None,
        answer: Callable[..., Generation] = generate,
        system: str | None = None,
        title: str | None = None,
        create: Callable[..., Conversation] | None = None,
    ) -> None:
        super().__init__()
        self._repo, self._link = repo, link
        self.answering = Answering(engine, answer, self._answered)
        self._system, self._title, self._create = system, title, create or repo.create
        self.conversation = conversation
        # kept here, for a question on top of the screen hides them from queries
        self._side, self._transcript = Side(repo), TranscriptView(repo)
        self._composer, self._status = Composer(), StatusLine()
        self._unobserve: Callable[[], None] = lambda: None
        self._arrived: set[EntryId] = set()
        self._changed = True
        self._drafts: dict[str, str] = {}

    def compose(self) -> ComposeResult:
        with Horizontal():
            yield self._side
            with Vertical():
                yield self._transcript
                yield self._composer
                yield self._status
        yield Footer()

    def on_mount(self) -> None:
        self._observe()
        self._composer.focus()
        self._side.refresh_list()
        self.set_interval(LOOK, self._look)
        self.set_interval(LIBRARY, self._side.refresh_list)

    def on_unmount(self) -> None:
        self._unobserve()
        self.answering.stop()

    # what is shown

    def _observe(self) -> None:
        self._unobserve()
        self._changed = True
        if self.conversation is not None:
            self._unobserve = self.conversation.observe(self._heard)

    def _heard(self, change: Change) -> None:
        """On the repo's thread: only remember it."""
        if not change.local:
            self._arrived.update(entry.id for entry in change.added)
        self._changed = True

    async def _look(self) -> None:
        if self._changed:
            self._changed = False
            if self.conversation is not None:
                try:
                    await self._transcript.sync(self.conversation, self._arrived)
                except LLMCRDTError as error:
                    self._unobserve()
                    self.conversation = None
                    self._tell(error)
        self._status.show(self._link, self.conversation, self.answering.note)

    def _tell(self, error: Exception) -> None:
        text = str(error)
        if isinstance(error, ContextOverflow):
            text += " A summary of what is older makes room: choose a turn, and press c."
        self.notify(safe(text).replace("[", "\\["), severity="error", timeout=12)

    def open(self, id: str, entry: EntryId | None = None) -> None:
        """Show another conversation."""
        if self.conversation is not None:
            self._drafts[self.conversation.id] = self._composer.text
        try:
            self.conversation = self._repo.get(id)
            if entry is not None and entry not in set(self.conversation.transcript().ids):
                self.conversation.select(entry)
        except LLMCRDTError as error:
            self._tell(error)
            return
        self.sub_title = safe(self.conversation.title)
        self._composer.text = self._drafts.get(id, "")
        self._arrived = set()
        self._transcript.begin()
        self._observe()
        self._composer.focus()

    def on_side_chosen(self, message: Side.Chosen) -> None:
        self.open(message.conversation, message.entry)

    def on_turn_view_opened(self, message: TurnView.Opened) -> None:
        self.open(message.conversation)

    def on_turn_view_failed(self, message: TurnView.Failed) -> None:
        self._tell(message.error)

    # what a person says

    def on_turn_view_answer(self) -> None:
        self._begin(None)

    def on_composer_sent(self, message: Composer.Sent) -> None:
        if self._say([Text(message.text)], message.text):
            self._composer.sent(message.text)

    def _say(self, parts: list[Part], words: str) -> bool:
        def fill(made: Conversation) -> None:
            if self._system:
                made.append("system", self._system)

        if self.answering.busy:
            self.notify("An answer is being written; Ctrl+C stops it.", severity="warning")
            return False
        try:
            if self.conversation is None:
                title = title_from(words) if self._title is None else self._title
                self.conversation = self._create(title, fill=fill)
                self.sub_title = safe(self.conversation.title)
                self._observe()
            self.conversation.append("user", parts)
        except (NotSealed, LLMCRDTError) as error:
            self._tell(error)
            return False
        self._begin(None)
        return True

    def _begin(self, instead_of: Entry | None) -> None:
        if self.conversation is not None:
            try:
                self.answering.begin(self.conversation, instead_of)
            except LLMCRDTError as error:
                self._tell(error)

    def _answered(self, failed: LLMCRDTError | None) -> None:
        """On a thread of its own."""
        self._changed = True
        if failed is not None and self.is_running:
            self.call_from_thread(self._tell, failed)

    # keys

    def action_stop(self) -> None:
        """Stop the answer; where none is written, nothing is lost."""
        if not self.answering.stop():
            self.notify("Ctrl+Q leaves. Nothing was being written.")

    def action_new(self) -> None:
        if self.conversation is not None:
            self._drafts[self.conversation.id] = self._composer.text
        self._unobserve()
        self.conversation, self.sub_title = None, ""
        self._transcript.begin()
        self._composer.clear()
        self._composer.focus()

    def action_search(self) -> None:
        self._side.display = True
        self._side.query_one("#search").focus()

    def action_side(self) -> None:
        side = self._side
        side.display = not side.display

    def action_write(self) -> None:
        self._composer.focus()

    def action_again(self) -> None:
        if self.conversation is None or self.answering.busy:
            return
        last = next((entry for entry in reversed(self.conversation.entries(last=20)) if entry.role != "system"), None)
        if last is not None:
            self._begin(last if last.frame is not None else None)

    @work
    async def action_attach(self) -> None:
        name = await self.push_screen_wait(Words("Attach a file", lines=False))
        if not name:
            return
        text = self._composer.text
        path = Path(name).expanduser()
        if not path.is_file():
            self._tell(LLMCRDTError(f"There is no file {name}.", hint="Check its name."))
            return
        parts: list[Part] = [Text(text)] if text.strip() else []
        if self._say([*parts, Blob(path)], text or path.name):
            self._composer.sent(text)

    def action_keys(self) -> None:
        self.push_screen(Told("Keys", KEYS))


KEYS = """\
Enter        say it                       Ctrl+J    begin a line
Up, Down     what was said before, at the first and last line
Ctrl+C       stop the answer              Ctrl+Q    leave
Ctrl+N       a new conversation           Ctrl+F    search all words
Ctrl+R       answer again                 Ctrl+O    attach a file
Ctrl+B       the side, on and off         Escape    write

With Tab, or Up in an empty line, go to the turns; there
j, k         the next turn, the one before
Left, Right  the alternatives of this turn
e            edit                         f         fork
x            erase                        c         summarize all up to here
s            seal what nobody goes on writing
d            details: frame, hidden fields, reasoning
b            other branches               o         show more of what is older\
"""
