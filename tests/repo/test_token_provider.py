"""Tokens that expire: a link asks for another one, and says so where it gets none."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

import llmcrdt
from llmcrdt.cli import main
from llmcrdt.exceptions import InvalidContent, RelayRefused, TokenUnavailable
from llmcrdt.sync.messages import ErrorCode
from sync_server.auth.tokens import Tokens
from sync_server.thread import RelayThread

from ..waiting import PATIENCE, eventually

OpenRepo = Callable[..., llmcrdt.Repo]


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> Tokens:
    tokens = Tokens(tmp_path_factory.mktemp("relay"))
    tokens.make("ann", "append", ["*"])
    return tokens


@pytest.fixture(scope="module")
def relay(tokens: Tokens) -> Iterator[RelayThread]:
    with RelayThread(tokens._folder) as relay:
        yield relay


def fresh(tokens: Tokens) -> str:
    return tokens.make("ann", "append", ["*"])


def test_a_token_that_is_taken_back_is_replaced_and_nothing_else_is_asked_for(
    open_repo: OpenRepo, tokens: Tokens, relay: RelayThread
) -> None:
    """One question for each token that is needed, on a thread that is not the link's, with the reason."""
    asked: list[RelayRefused | None] = []

    def provider(refused: RelayRefused | None) -> str:
        assert threading.current_thread().name == "llmcrdt-token"
        asked.append(refused)
        return fresh(tokens)

    repo = open_repo("laptop")
    repo.create().append("user", "Hello")
    with repo.connect(relay.url, provider) as link:
        link.wait_synced(PATIENCE)
        assert asked == [None]
        states = link.observe()
        tokens.revoke(tokens.list()[-1][0].id)
        eventually(lambda: len(asked) == 2)
        assert asked[1] is not None and asked[1].code == ErrorCode.TOKEN_REFUSED
        repo.create().append("user", "with another token")
        link.wait_synced(PATIENCE)
        states()
        assert not any(status.state == "refused" for status in states)


def test_an_async_provider_is_awaited(open_repo: OpenRepo, tokens: Tokens, relay: RelayThread) -> None:
    async def provider(refused: RelayRefused | None) -> str:
        await asyncio.sleep(0.01)
        return fresh(tokens)

    async def main() -> None:
        for token in (provider, lambda refused: provider(refused)):
            async with open_repo("laptop").connect(relay.url, token) as link:
                await asyncio.wait_for(link.synced(), PATIENCE)

    asyncio.run(main())


def test_a_provider_that_has_nothing_better_ends_the_link(open_repo: OpenRepo, relay: RelayThread) -> None:
    asked: list[object] = []

    def provider(refused: RelayRefused | None) -> str:
        asked.append(refused)
        return "nonsense"

    with open_repo("laptop").connect(relay.url, provider) as link:
        with pytest.raises(RelayRefused, match="token") as error:
            link.wait_synced(PATIENCE)
        assert error.value.code == ErrorCode.TOKEN_REFUSED and link.status.state == "refused"
    assert len(asked) == 2, "once at first, and once because that was refused"


@pytest.mark.parametrize(
    ("answer", "words"),
    [(lambda: 1 / 0, "ZeroDivisionError: division by zero"), (lambda: 5, "gave int"), (lambda: next(iter(())), "Stop")],
)
def test_a_provider_that_fails_is_named_and_asked_again(
    open_repo: OpenRepo, tokens: Tokens, relay: RelayThread, answer: Callable[[], object], words: str
) -> None:
    works = threading.Event()

    def provider(refused: RelayRefused | None) -> object:
        return fresh(tokens) if works.is_set() else answer()

    with open_repo("laptop").connect(relay.url, provider) as link:  # type: ignore[arg-type]
        with pytest.raises(TokenUnavailable, match=words):
            link.wait_synced(0.2)
        assert eventually(lambda: link.status, lambda status: status.state == "offline").code is None
        works.set()
        link.wait_synced(PATIENCE)


def test_closing_does_not_wait_for_a_provider(open_repo: OpenRepo, relay: RelayThread) -> None:
    never, asked = threading.Event(), threading.Event()

    def provider(refused: RelayRefused | None) -> str:
        asked.set()
        never.wait()
        return ""

    link = open_repo("laptop").connect(relay.url, provider)
    assert asked.wait(PATIENCE)
    link.close()
    assert link.state == "closed"
    never.set()


def test_what_is_no_token_is_refused_at_once(open_repo: OpenRepo) -> None:
    with pytest.raises(InvalidContent, match="token is int"):
        open_repo("laptop").connect("ws://127.0.0.1:9", 5)  # type: ignore[arg-type]


def test_a_command_prints_the_token(open_repo: OpenRepo, tokens: Tokens, relay: RelayThread, tmp_path: Path) -> None:
    open_repo("laptop").create("Trip")
    script = tmp_path / "token.py"
    script.write_text(
        "import os, pathlib\n"
        f"log = pathlib.Path({str(tmp_path / 'log')!r})\n"
        "said = os.environ.get('LLMCRDT_TOKEN_REFUSED', 'first')\n"
        "log.write_text((log.read_text() if log.exists() else '') + said + '|')\n"
        f"print('nonsense' if 'token' not in log.read_text() else {fresh(tokens)!r})\n"
    )
    command = f"{sys.executable} {script}"

    def run(*words: str, **env: str) -> tuple[int, str]:
        done = CliRunner().invoke(main, ["--db", str(tmp_path / "laptop.db"), "sync", relay.url, *words], env=env)
        return done.exit_code, done.output

    assert run("--token-command", command)[0] == 0
    first, second, _ = (tmp_path / "log").read_text().split("|")
    assert first == "first" and "token" in second
    assert run(LLMCRDT_TOKEN_COMMAND=command, LLMCRDT_TOKEN="nonsense")[0] == 0
    code, output = run("--token", fresh(tokens), LLMCRDT_TOKEN_COMMAND="false")
    assert code == 0, output
    code, output = run("--token-command", "exit 3", "--timeout", "0.5")
    assert code == 1 and "ended with status 3" in output and "Run it alone" in output
    code, output = run("--token-command", "true", "--timeout", "0.5")
    assert code == 1 and "printed no token" in output
    code, output = run("--token-command", "true", "--token", "x")
    assert code == 2 and "not both" in output
