"""The chat on a whole terminal, driven by keys: through Textual's pilot, and once in a real terminal."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("textual")

from textual.pilot import Pilot
from textual.widgets import OptionList

import llmcrdt
from llmcrdt import HiddenField
from llmcrdt.kvcache import NullCache
from llmcrdt.testing.engine import MemoryEngine
from llmcrdt.testing.tokenizer import ByteTokenizer
from llmcrdt.tui import ChatApp
from llmcrdt.tui.turn import TurnView
from llmcrdt.tui.words import details, words

OpenRepo = Callable[..., llmcrdt.Repo]
TEMPLATE = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}assistant: "
SIZE = (110, 40)


@pytest.fixture
def engine() -> Iterator[MemoryEngine]:
    made = MemoryEngine(ByteTokenizer(TEMPLATE), NullCache())
    yield made
    made.close()


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("llama_cpp")
    from llmcrdt.testing.models import write_model

    return Path(write_model(tmp_path_factory.mktemp("models") / "tiny.gguf", n_layer=2))


@pytest.fixture
def repo(open_repo: OpenRepo) -> llmcrdt.Repo:
    return open_repo("laptop")


def answer(conversation: llmcrdt.Conversation, engine: Any, **more: Any) -> llmcrdt.Generation:
    return llmcrdt.generate(conversation, engine, max_tokens=8, seed=1, **more)


def drive(app: ChatApp, story: Callable[[Pilot[Any]], Awaitable[None]]) -> None:
    async def run() -> None:
        async with app.run_test(size=SIZE) as pilot:
            await story(pilot)

    asyncio.run(run())


async def until(pilot: Pilot[Any], true: Callable[[], Any], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it never came"
        await pilot.pause(0.02)


def turns(app: ChatApp) -> list[str]:
    return [view.entry.text for view in app._transcript.query(TurnView)]


def test_what_is_typed_or_pasted_is_said_and_answered(repo: llmcrdt.Repo, engine: MemoryEngine) -> None:
    app = ChatApp(repo, engine, answer=answer, system="Be brief.")

    async def story(pilot: Pilot[Any]) -> None:
        await pilot.press(*"Hello", "ctrl+j", *"you", "enter")
        await until(pilot, lambda: len(turns(app)) == 3 and not app.answering.busy)
        assert turns(app)[:2] == ["Be brief.", "Hello\nyou"] and app.conversation.title == "Hello you"
        assert app._composer.text == ""
        app._composer.insert("one\ntwo\nthree")
        await pilot.press("enter")
        await until(pilot, lambda: "one\ntwo\nthree" in turns(app))
        await until(pilot, lambda: "evaluated" in str(app._status.render()))
        await pilot.press("up")
        assert app._composer.text == "one\ntwo\nthree"

    drive(app, story)


def test_the_history_gives_half_typed_words_back(repo: llmcrdt.Repo, engine: MemoryEngine) -> None:
    app = ChatApp(repo, engine, answer=answer)

    async def story(pilot: Pilot[Any]) -> None:
        composer = app._composer
        composer.sent("first")
        composer.sent("second")
        await pilot.press(*"half")
        await pilot.press("up", "up")
        assert composer.text == "first"
        await pilot.press("down", "down")
        assert composer.text == "half"

    drive(app, story)


def test_an_edit_asks_again_and_arrows_walk_between_both(repo: llmcrdt.Repo, engine: MemoryEngine) -> None:
    conversation = repo.create(title="Trip")
    question = conversation.append("user", "In May?")
    app = ChatApp(repo, engine, conversation=conversation, answer=answer)

    async def story(pilot: Pilot[Any]) -> None:
        await until(pilot, lambda: turns(app) == ["In May?"])
        app._transcript.query(TurnView).first().focus()
        await pilot.press("e")
        await until(pilot, lambda: app.screen.query("#words"))
        app.screen.query_one("#words").text = "In June?"  # type: ignore[attr-defined]
        await pilot.press("ctrl+s")
        await until(pilot, lambda: turns(app)[:1] == ["In June?"] and len(turns(app)) == 2)
        await until(pilot, lambda: conversation.transcript()[-1].sealed)
        app._transcript.query(TurnView).first().focus()
        await pilot.press("left")
        await until(pilot, lambda: turns(app)[0] == "In May?")
        assert [entry.text for entry in conversation.alternatives(question)] == ["In May?", "In June?"]

    drive(app, story)


def test_an_erase_is_asked_for_and_tells_what_still_holds_the_words(repo: llmcrdt.Repo, engine: MemoryEngine) -> None:
    conversation = repo.create(title="Trip")
    secret = conversation.append("user", "the secret word")
    copy = conversation.append("user", "they said: the secret word")
    app = ChatApp(repo, engine, conversation=conversation, answer=answer)

    async def story(pilot: Pilot[Any]) -> None:
        await until(pilot, lambda: len(turns(app)) == 2)
        app._transcript.query(TurnView).first().focus()
        await pilot.press("x")
        await until(pilot, lambda: app.screen.query("#no"))
        await pilot.press("escape")
        assert conversation.entry(secret).status == "complete", "Escape means no"
        app._transcript.query(TurnView).first().focus()
        await pilot.press("x")
        await until(pilot, lambda: app.screen.query("#yes"))
        await pilot.click("#yes")
        await until(pilot, lambda: conversation.entry(secret).status == "erased")
        await until(pilot, lambda: app.screen.query("SelectionList"))
        await pilot.press("space")
        await pilot.click("#yes")
        await until(pilot, lambda: conversation.entry(copy).status == "erased")

    drive(app, story)


def test_another_device_is_seen_and_half_typed_words_stay(
    repo: llmcrdt.Repo, open_repo: OpenRepo, engine: MemoryEngine
) -> None:
    conversation = repo.create(title="Trip")
    conversation.append("user", "Here")
    phone = open_repo("phone", repo.library)
    there = phone.join(conversation.id)
    there.apply(conversation.diff())
    there.append("user", "From the phone")
    app = ChatApp(repo, engine, conversation=conversation, answer=answer)

    async def story(pilot: Pilot[Any]) -> None:
        await until(pilot, lambda: turns(app) == ["Here"])
        await pilot.press(*"half")
        conversation.apply(there.diff(since=conversation.version()))
        await until(pilot, lambda: turns(app) == ["Here", "From the phone"])
        assert app._composer.text == "half"
        assert [view.new for view in app._transcript.query(TurnView)] == [False, True]

    drive(app, story)


class _Held(ByteTokenizer):
    """Reads six tokens of an answer, then no more until it may: an answer that lasts as long as a test wants."""

    def __init__(self) -> None:
        super().__init__(TEMPLATE)
        self.may, self.read = threading.Event(), 0

    def decode(self, ids: Sequence[int]) -> bytes:
        self.read += 1
        if self.read > 6:
            self.may.wait(60)
        return super().decode(ids)


def test_ctrl_c_stops_an_answer_and_keeps_the_words(repo: llmcrdt.Repo) -> None:
    tokenizer = _Held()
    engine = MemoryEngine(tokenizer, NullCache())
    app = ChatApp(repo, engine, answer=answer)

    async def story(pilot: Pilot[Any]) -> None:
        await pilot.press(*"Go", "enter")
        await until(pilot, lambda: tokenizer.read > 6)
        await pilot.press(*"next")
        await pilot.press("ctrl+c")
        tokenizer.may.set()
        await until(pilot, lambda: not app.answering.busy)
        assert app.conversation is not None and app.conversation.transcript()[-1].status == "stopped"
        assert app._composer.text == "next"
        await pilot.press("ctrl+c")
        assert app.is_running and app._composer.text == "next"

    with closing(engine):
        drive(app, story)


def test_the_side_searches_and_goes_to_a_branch_that_is_not_shown(repo: llmcrdt.Repo, engine: MemoryEngine) -> None:
    conversation = repo.create(title="Trip")
    old = conversation.append("user", "needle")
    conversation.edit(old, "hay")
    repo.create(title="Other")
    app = ChatApp(repo, engine, answer=answer)

    async def story(pilot: Pilot[Any]) -> None:
        options = app._side.query_one(OptionList)
        await until(pilot, lambda: options.option_count == 2)
        await pilot.press("ctrl+f", *"needle")
        await until(pilot, lambda: options.option_count == 1)
        options.focus()
        await pilot.press("down", "enter")
        await until(pilot, lambda: turns(app) == ["needle"])

    drive(app, story)


def test_an_error_is_told_and_the_words_stay(repo: llmcrdt.Repo, engine: MemoryEngine) -> None:
    conversation = repo.create(title="Trip")
    conversation.stream("assistant", frame=conversation.transcript())
    app = ChatApp(repo, engine, conversation=conversation, answer=answer)

    async def story(pilot: Pilot[Any]) -> None:
        await pilot.press(*"Hello", "enter")
        await until(pilot, lambda: app._composer.text != "Hello" or list(app._notifications))
        assert list(app._notifications)

    drive(app, story)


def test_details_tell_hidden_fields_and_controls_of_strangers_reach_no_terminal(repo: llmcrdt.Repo) -> None:
    conversation = repo.create()
    conversation.append("user", "Where?")
    entry = conversation.append(
        "assistant",
        "\x1b[2J[red]Rome[/red]",
        frame=conversation.transcript(),
        hidden={"old": HiddenField(b"x", {"provider": "p", "expires": 1})},
    )
    assert "stays here: it has expired" in details(conversation, entry)
    from rich.console import Console

    console = Console(width=80, force_terminal=True, color_system=None)
    with console.capture() as shown:
        console.print(words(entry))
    assert "\x1b[2J" not in shown.get() and "[red]Rome[/red]" in shown.get()


@pytest.mark.skipif(shutil.which("tmux") is None, reason="tmux is not installed: no real terminal is tried")
def test_in_a_real_terminal(tmp_path: Path, tiny: Path) -> None:
    socket = str(tmp_path / "tmux")
    command = (
        f"{sys.executable} -m llmcrdt --db {tmp_path}/a.db chat --model {tiny} --cache {tmp_path}/kv --max-tokens 6"
    )

    def tmux(*words: str) -> str:
        return subprocess.run(["tmux", "-S", socket, *words], check=True, capture_output=True, text=True).stdout

    def screen(wanted: str) -> None:
        deadline = time.monotonic() + 60
        while wanted not in (shown := tmux("capture-pane", "-p")):
            assert time.monotonic() < deadline, shown
            time.sleep(0.1)

    tmux("-f", "/dev/null", "new-session", "-d", "-x", "100", "-y", "30", f"{command}; echo it ended with $?; sleep 60")
    try:
        screen("Enter sends")
        tmux("send-keys", "Hello there", "Enter")
        screen("evaluated")
        screen("Answer")
        tmux("send-keys", "C-q")
        screen("it ended with 0")
    finally:
        tmux("kill-server")
    with llmcrdt.open(tmp_path / "a.db") as repo:
        (row,) = repo.list()
        said = repo.get(row.id).transcript()
        assert row.title == "Hello there" and [entry.role for entry in said] == ["user", "assistant"] and said[1].sealed
