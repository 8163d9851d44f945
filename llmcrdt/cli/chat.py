"""A chat in the terminal: one person, one model at a time, and all others who write in the conversation.

Every line that is said, and every answer, is in the document before the next prompt appears; what arrives from other
devices is shown between turns. A line that begins with a slash is a command (``HELP``).
"""

from __future__ import annotations

import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import partial
from typing import Any

import click

from ..document.conversation import Conversation
from ..document.entry import Entry
from ..document.observers import Change
from ..engine.base import Engine
from ..exceptions import EntryNotFound, LLMCRDTError, NotSealed
from ..generation.generate import generate
from ..generation.generation import Generation
from ..generation.plan import Plan, plan
from ..ids import EntryId
from ..providers.base import Provider
from ..terminal_text import safe
from .terminal import heading, print_entry

PROMPT = "> "
HELP = """\
/retry       answer again, beside the answer that is there; or answer what nobody has answered yet
/edit TEXT   say your last message differently, and have that answered
/others      list what else was said in the place of the last answer and of your last message
/take ID     show one of those, with all that followed it
/seal        end what nobody goes on writing, as after a crash; then answer what nobody has answered yet
/plan        show the cost of the next answer, or what a provider would be sent and what not
/model NAME  go on with another model: a GGUF file, anthropic/NAME, gemini/NAME, openai/NAME, ...
/quit        leave (also Ctrl-D); Ctrl-C stops an answer
A line that ends with \\ goes on in the next; // begins a message with a slash.\
"""


class Chat:
    """``answer(conversation, engine, ...)`` begins an answer: ``generate``, with what was chosen beforehand. ``use``
    opens a model by its name.

    ``conversation`` may be a function that makes one of its first message: it is called when something is said, so that
    somebody who leaves without a word leaves no conversation. ``begun`` is the conversation, if there is one.
    """

    def __init__(
        self,
        conversation: Conversation | Callable[[str], Conversation],
        engine: Engine | Provider,
        answer: Callable[..., Generation] = generate,
        use: Callable[[str], Engine | Provider] | None = None,
    ) -> None:
        self._begin = conversation if not isinstance(conversation, Conversation) else None
        self.begun = conversation if isinstance(conversation, Conversation) else None
        self._engine = engine
        self._answer = answer
        self._use = use
        self._told: set[tuple[str, str]] = set()
        self._unobserve: Callable[[], None] = lambda: None
        self._lock = threading.Lock()
        self._answering = False
        self._seen: set[EntryId] = set()
        self._arrived: list[Entry] = []

    def run(self, lines: Iterable[str], *, last: int = 10) -> None:
        """Show the ``last`` entries, then take lines until they end. An error of one turn is told, and ends nothing."""
        try:
            if self.begun is not None:
                self._unobserve = self.begun.observe(self._notice)
                for entry in self.begun.entries(last=last):
                    print_entry(entry)
            for line in lines:
                try:
                    if not self._turn(line):
                        return
                except NotSealed as error:
                    hint = "Wait for it; or /seal ends what nobody goes on writing."
                    click.echo(f"llmcrdt: {safe(error.message)} {hint}", err=True)
                except LLMCRDTError as error:
                    click.echo(f"llmcrdt: {safe(str(error))}", err=True)
        finally:
            self._unobserve()

    @property
    def _conversation(self) -> Conversation:
        if self.begun is None:
            raise EntryNotFound("Nothing was said yet.", hint="Say something first.")
        return self.begun

    def _append(self, words: str) -> None:
        """Keep what a person said; the first words make the conversation."""
        if self.begun is None and self._begin is not None:
            self.begun = self._begin(words)
            self._unobserve = self.begun.observe(self._notice)
        else:
            self._conversation.append("user", words)

    def _turn(self, line: str) -> bool:
        """One line. Whether to go on."""
        command, _, rest = line.partition(" ")
        rest = rest.strip()
        match command:
            case "/quit" | "/exit":
                return False
            case "/help":
                click.echo(HELP)
            case "/retry":
                self._say(instead_of=None if self._unanswered() else self._last_answer())
            case "/seal":
                self._seal()
            case "/edit" if rest:
                self._conversation.edit(self._last("user"), rest)
                self._say()
            case "/others":
                self._show_others()
            case "/take" if rest:
                self._take(rest)
            case "/plan":
                self._show_plan()
            case "/model" if rest and self._use:
                self._engine = self._use(rest)
                self._told.clear()
            case _ if line.startswith("/") and not line.startswith("//"):
                click.echo(f"{safe(command)} is no command, or lacks something. /help lists them.", err=True)
            case _ if line.strip():
                self._append(line[1:] if line.startswith("//") else line)
                self._say()
        return True

    def _show_plan(self) -> None:
        planned = plan(self._conversation, self._engine)
        if isinstance(planned, Plan):
            click.echo(f"{planned.total} tokens: {planned.reused} reused, {planned.evaluate} to evaluate.")
            click.echo(safe(str(planned.why)))
        else:
            click.echo(safe(str(planned)))

    def _tell_left_out(self, instead_of: Entry | None) -> None:
        """Tell which hidden fields a provider is not sent, and why; each kind once for each model."""
        if not isinstance(self._engine, Provider):
            return
        left = plan(self._conversation, self._engine, instead_of=instead_of).left_out
        counts = Counter((line.name, line.why) for line in left)
        for (name, why), count in counts.items():
            if (name, why) not in self._told:
                self._told.add((name, why))
                click.echo(f"llmcrdt: not sent: {count} x hidden field {name!r}: {safe(why)}", err=True)

    def _say(self, *, instead_of: Entry | None = None) -> None:
        """Have an answer written, and print it as it comes. Ctrl-C stops it; what was said by then stays."""
        with self._lock:
            self._answering = True
        try:
            self._tell_left_out(instead_of)
            generation = self._answer(self._conversation, self._engine, instead_of=instead_of)
            try:
                for piece in generation:
                    click.echo(safe(piece), nl=False)
            except KeyboardInterrupt:
                generation.cancel()
            entry = generation.result()
            click.echo(click.style(" [stopped]" if entry.status == "stopped" else "", dim=True))
            for call in entry.tool_calls:
                click.echo(f"→ {safe(call.name)}({safe(call.arguments)})")
            click.echo()
        finally:
            with self._lock:
                self._answering = False
                arrived, self._arrived = self._arrived, []
            for entry in arrived:
                print_entry(entry)

    def _notice(self, change: Change) -> None:
        """Print what other devices and processes wrote, when it is whole; during an answer, after it."""
        if change.local:
            return
        with self._lock:
            whole = [e for e in (*change.added, *change.changed) if e.sealed and e.id not in self._seen]
            self._seen.update(entry.id for entry in whole)
            if self._answering:
                self._arrived += whole
                return
        for entry in whole:
            click.echo()
            print_entry(entry)

    def _last(self, role: str) -> Entry:
        found = next((e for e in reversed(self._conversation.transcript()) if e.role == role), None)
        if found is None:
            raise EntryNotFound(f"There is no {role} entry yet.", hint="Say something first.")
        return found

    def _last_answer(self) -> Entry:
        found = next((e for e in reversed(self._conversation.transcript()) if e.frame is not None), None)
        if found is None:
            raise EntryNotFound("There is no answer yet.", hint="Say something first.")
        return found

    def _unanswered(self) -> bool:
        """Whether the last thing said is not an answer."""
        roles = (e.role for e in reversed(self._conversation.transcript()) if e.role != "system")
        return next(roles, "assistant") != "assistant"

    def _seal(self) -> None:
        unsealed = self._conversation.unsealed()
        for entry in unsealed:
            print_entry(self._conversation.seal(entry))
        if not unsealed:
            click.echo("Nothing is unfinished.")
        elif self._unanswered():
            self._say()

    def _others(self) -> list[Entry]:
        """The entries that stand for the same turn as the last message or the last answer, and are not shown."""
        transcript = self._conversation.transcript()
        shown = {entry.id for entry in transcript}
        roles = ("user", "assistant")
        turns = (next((e for e in reversed(transcript) if e.role == role), None) for role in roles)
        found = {other.id: other for turn in turns if turn for other in self._conversation.alternatives(turn)}
        return [entry for entry in found.values() if entry.id not in shown]

    def _show_others(self) -> None:
        others = self._others()
        for entry in others:
            words = " ".join(safe(entry.text).split())
            click.echo(f"{entry.id}  {heading(entry)}: {words if len(words) < 70 else words[:69] + '…'}")
        if not others:
            click.echo("Nothing else was said there.")

    def _take(self, beginning: str) -> None:
        found = [entry for entry in self._others() if entry.id.startswith(beginning)]
        if len(found) != 1:
            raise EntryNotFound(f"{len(found)} of the others begin with {beginning!r}.", hint="/others lists them.")
        self._conversation.select(found[0])
        for entry in self._conversation.entries(last=2):
            print_entry(entry)


def typed_lines() -> Iterator[str]:
    """The lines that are typed, with a prompt on a terminal; one that ends with a backslash is joined with the next."""
    asks = sys.stdin.isatty()
    if asks:
        with suppress(ImportError):
            import readline  # noqa: F401  (lines can be edited then)
    read: Callable[[str], str] = input if asks else partial(_next_line, iter(sys.stdin))
    while True:
        try:
            line = read(PROMPT)
            while line.endswith("\\"):
                line = line[:-1] + "\n" + read("  ")
        except EOFError:
            if asks:
                click.echo()
            return
        yield line


def _next_line(lines: Iterator[str], prompt: Any) -> str:
    try:
        return next(lines).rstrip("\n")
    except StopIteration:
        raise EOFError from None
