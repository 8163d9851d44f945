"""The chat in the terminal, with a real model of random weights; one test sits at a real terminal."""

from __future__ import annotations

import functools
import io
import os
import re
import select
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import llmcrdt
from llmcrdt.cli import main
from llmcrdt.cli.chat import Chat
from llmcrdt.testing.models import write_model
from sync_server.auth.tokens import Tokens
from sync_server.thread import RelayThread

OpenRepo = Callable[..., llmcrdt.Repo]
ENDLESS = """
from llmcrdt.cli import main
from llmcrdt.engine.llama.tokenizer import LlamaTokenizer
LlamaTokenizer.is_end = lambda self, token: False  # the model of noise would end its turn at any moment
main()
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model") / "tiny.gguf")


@pytest.fixture
def engine(model: Path, tmp_path: Path) -> Iterator[llmcrdt.LlamaEngine]:
    with llmcrdt.LlamaEngine(model, cache=tmp_path / "kv") as engine:
        yield engine


@pytest.fixture
def chat(open_repo: OpenRepo, engine: llmcrdt.LlamaEngine) -> Chat:
    conversation = open_repo("laptop").create("Trip")
    return Chat(conversation, engine, functools.partial(llmcrdt.generate, max_tokens=8, seed=1))


def shown(chat: Chat) -> list[tuple[str, str]]:
    return [(entry.role, entry.text) for entry in chat._conversation.transcript()]


def test_what_is_said_and_answered_is_in_the_document(chat: Chat, capsys: pytest.CaptureFixture[str]) -> None:
    chat.run(["Hello", "", "//slash", "/quit", "never said"])
    said = shown(chat)
    assert [role for role, _ in said] == ["user", "assistant", "user", "assistant"]
    assert (said[0][1], said[2][1]) == ("Hello", "/slash")
    out = capsys.readouterr().out
    assert said[1][1] in out and said[3][1] in out


def test_retry_edit_others_and_take(chat: Chat, capsys: pytest.CaptureFixture[str]) -> None:
    chat.run(["Hello"])
    first = chat._conversation.transcript()[-1]
    chat._answer = functools.partial(llmcrdt.generate, max_tokens=8, seed=2)
    chat.run(["/retry"])
    second = chat._conversation.transcript()[-1]
    assert second.id != first.id and len(shown(chat)) == 2
    capsys.readouterr()
    chat.run(["/others", f"/take {first.id[:6]}"], last=0)
    assert first.id in capsys.readouterr().out
    assert chat._conversation.transcript()[-1].id == first.id
    chat.run(["/edit Good morning"])
    assert shown(chat)[0] == ("user", "Good morning") and len(shown(chat)) == 2
    assert len(chat._conversation.alternatives(chat._conversation.transcript()[0])) == 2


def test_retry_answers_a_message_that_nobody_answered(chat: Chat) -> None:
    chat.run(["Hello"])
    chat._conversation.append("user", "And you?")
    chat.run(["/retry"])
    assert [role for role, _ in shown(chat)] == ["user", "assistant", "user", "assistant"]
    assert chat._conversation.transcript().elsewhere == ()
    chat.run(["/retry"])
    assert [role for role, _ in shown(chat)] == ["user", "assistant", "user", "assistant"]
    assert len(chat._conversation.transcript().elsewhere) == 1


def test_a_conversation_whose_writer_died_goes_on(
    chat: Chat, open_repo: OpenRepo, capsys: pytest.CaptureFixture[str]
) -> None:
    here = chat._conversation
    here.append("user", "Hello")
    phone = open_repo("phone").join(here.id)
    phone.apply(here.diff())
    stream = phone.stream(frame=phone.transcript(), interval=0)
    stream.write("I was about to")
    here.apply(phone.diff())
    stream.abandon()
    chat.run(["Are you there?"])
    assert "/seal ends what nobody goes on writing" in capsys.readouterr().err
    chat.run(["/seal", "/seal"])
    assert "Nothing is unfinished." in capsys.readouterr().out
    assert [role for role, _ in shown(chat)] == ["user", "assistant", "user", "assistant"]
    assert shown(chat)[1:3] == [("assistant", "I was about to"), ("user", "Are you there?")]


def test_a_slip_says_so_and_ends_nothing(chat: Chat, capsys: pytest.CaptureFixture[str]) -> None:
    chat.run(["/nonsense", "/retry", "/edit", "/take xyz", "/plan", "/help", "Hello"])
    out, err = capsys.readouterr()
    for text in (
        "/nonsense is no command",
        "There is no answer yet",
        "/edit is no command, or lacks",
        "0 of the others",
    ):
        assert text in err
    assert "tokens: 0 reused" in out and "/retry" in out
    assert len(shown(chat)) == 2


def test_what_others_write_is_shown_between_turns(
    chat: Chat, open_repo: OpenRepo, capsys: pytest.CaptureFixture[str]
) -> None:
    here = chat._conversation
    phone = open_repo("phone").join(here.id)

    def lines() -> Iterator[str]:
        yield "Hello"
        phone.apply(here.diff())
        phone.append("user", "From the phone \x1b[31m")
        here.apply(phone.diff(since=here.version()))
        deadline = time.monotonic() + 30
        while "From the phone" not in (out := capsys.readouterr().out):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert "user (phone)" in out and "\x1b[31m" not in out

    chat.run(lines())
    assert [text for _, text in shown(chat)][-1] == "From the phone \x1b[31m"


def test_who_leaves_without_a_word_leaves_no_conversation(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def talk(said: str) -> str:
        monkeypatch.setattr(sys, "stdin", io.StringIO(said))
        arguments = ["--db", str(tmp_path / "a.db"), "chat", "--model", str(model), "--cache", str(tmp_path / "kv")]
        with pytest.raises(SystemExit) as ended:
            main([*arguments, "--system", "Be brief.", "--title", "Trip", "--max-tokens", "4"])
        assert ended.value.code == 0
        return capsys.readouterr().err

    said = talk("/retry\n/plan\n/edit no\n/others\n\n/quit\n")
    assert said.count("Say something first.") == 4 and "Go on with" not in said
    with llmcrdt.open(tmp_path / "a.db") as repo:
        assert repo.list() == []
    assert "Go on with" in talk("Hello\nAnd you?\n")
    with llmcrdt.open(tmp_path / "a.db") as repo:
        (row,) = repo.list()
        roles = [(entry.role, entry.text) for entry in repo.get(row.id).transcript() if entry.role != "assistant"]
        assert (row.title, roles) == ("Trip", [("system", "Be brief."), ("user", "Hello"), ("user", "And you?")])


def test_a_chat_is_in_step_with_a_relay_that_has_tokens_or_says_why_not(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def talk(url: str, *more: str) -> str:
        monkeypatch.setattr(sys, "stdin", io.StringIO("Hello\n"))
        arguments = ["--db", str(tmp_path / "a.db"), "chat", "--model", str(model), "--cache", str(tmp_path / "kv")]
        with pytest.raises(SystemExit) as ended:
            main([*arguments, "--max-tokens", "2", "--sync", url, *more])
        assert ended.value.code == 0
        return capsys.readouterr().err

    token = Tokens(tmp_path / "relay").make("ann", "append", ["*"])
    with RelayThread(tmp_path / "relay") as relay:
        assert "token" in (refused := talk(relay.url)) and "goes on" not in refused
        assert "llmcrdt: " not in talk(relay.url, "--token", token)
    with llmcrdt.open(tmp_path / "a.db") as repo:
        assert len(repo.list()) == 2
        assert {e.sync for row in repo.list() for e in repo.get(row.id).transcript()} == {"durable"}
    assert "Nothing is lost; sync again." in talk(relay.url, "--token", token)


@pytest.mark.skipif(sys.platform == "win32", reason="there are no terminals of that kind")
def test_at_a_terminal_ctrl_c_stops_an_answer_and_ctrl_d_leaves(tmp_path: Path) -> None:
    import pty

    model = write_model(tmp_path / "long.gguf", context=32768)
    process, terminal = pty.fork()
    if process == 0:
        signal.signal(signal.SIGINT, signal.default_int_handler)  # it may be ignored where the tests run
        arguments = ["-c", ENDLESS, "--db", str(tmp_path / "a.db"), "chat", "--plain", "--model", str(model)]
        more = ["--cache", str(tmp_path / "kv"), "--max-tokens", "100000"]
        os.execv(sys.executable, [sys.executable, *arguments, *more])
    seen = ""

    def until(pattern: str) -> None:
        nonlocal seen
        deadline = time.monotonic() + 120
        while not re.search(pattern, seen):
            assert time.monotonic() < deadline, seen
            if select.select([terminal], [], [], 1)[0]:
                seen += os.read(terminal, 4096).decode("utf-8", "replace")

    until("> ")
    seen = ""
    os.write(terminal, b"Hello\n")
    until(r"Hello\s+\S+\s+\S+")  # the answer has begun
    os.write(terminal, b"\x03")
    until(r"\[stopped\][^>]*> ")
    seen = ""
    os.write(terminal, b"\x04")
    until("Go on with")
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 0
    os.close(terminal)
    with llmcrdt.open(tmp_path / "a.db") as repo:
        (row,) = repo.list()
        transcript = repo.get(row.id).transcript()
        assert [entry.status for entry in transcript] == ["complete", "stopped"]
        assert transcript[1].text
