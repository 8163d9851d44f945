"""Hidden values are shown nowhere by accident: not on the page, in the terminal, to agents or by servers, nor by
commands and searches, whichever provider's they are."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

import llmcrdt
from llmcrdt.cli import main
from llmcrdt.interop.registry import names, sources
from llmcrdt.repo.importer import Imported

VECTORS = Path(__file__).parents[1] / "vectors" / "interop"
SECRET = "OPAQUE"
"""The word in every opaque value of the vectors."""
WITH_OPAQUE = [
    file
    for form in sorted({*names(), *sources()})
    for file in [path for path in sorted((VECTORS / form).glob("*.json*")) if SECRET in path.read_text("utf-8")][:2]
]


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Iterator[llmcrdt.Repo]:
    """Files of each format whose answers have opaque values, and one conversation with fields of its own."""
    with llmcrdt.open(tmp_path_factory.mktemp("surfaces") / "a.db") as repo:
        for file in WITH_OPAQUE:
            (result,) = llmcrdt.import_files(repo, [file], format=file.parent.name)
            assert isinstance(result, Imported)
        conversation = repo.create(title="Of its own")
        bound = {"provider": "p", "account": "acct-of-mine"}
        for sealed in (True, False):
            field = llmcrdt.HiddenField(f"{SECRET}!".encode(), bound, sealed=sealed)
            conversation.append("user", "Hello", hidden={"p/token": field})
        yield repo


def conversations(repo: llmcrdt.Repo) -> list[llmcrdt.Conversation]:
    found = [repo.get(row.id) for row in repo.list(limit=1000)]
    assert len(found) == len(WITH_OPAQUE) + 1 >= 20
    for conversation in found:
        entries = [*conversation.transcript(), *(other.entry for other in conversation.transcript().elsewhere)]
        assert any(SECRET.encode() in field.data for entry in entries for field in entry.hidden.values())
    return found


def entries_of(conversation: llmcrdt.Conversation) -> list[llmcrdt.Entry]:
    return [*conversation.transcript(), *(other.entry for other in conversation.transcript().elsewhere)]


def on_the_page(repo: llmcrdt.Repo) -> Iterator[str]:
    pytest.importorskip("starlette")
    pytest.importorskip("nh3")
    from starlette.testclient import TestClient

    from llmcrdt.page.app import PageApp

    app = PageApp(repo, link=None, models={}, stopping=lambda: False)
    with TestClient(app.routes(), base_url="http://127.0.0.1") as client:
        yield client.get("/api/library").text
        yield client.get("/api/search", params={"text": SECRET}).text.replace(SECRET, "", 1)  # it says what was asked
        for conversation in conversations(repo):
            at = f"/api/conversations/{conversation.id}"
            yield from (client.get(f"{at}{path}").text for path in ("", "/tree", "/elsewhere"))
            for entry in entries_of(conversation):
                answer = client.post(f"{at}/detail", json={"entry": entry.id})
                assert answer.status_code == 200
                yield answer.text


def in_the_terminal(repo: llmcrdt.Repo) -> Iterator[str]:
    pytest.importorskip("textual")
    from rich.console import Console

    from llmcrdt.tui.words import details, first_words, words

    for conversation in conversations(repo):
        for entry in entries_of(conversation):
            console = Console(width=200)
            with console.capture() as shown:
                console.print(words(entry))
            yield details(conversation, entry) + first_words(entry) + shown.get()


def to_agents(repo: llmcrdt.Repo) -> Iterator[str]:
    pytest.importorskip("mcp")
    from llmcrdt.mcp.library import AgentLibrary

    library = AgentLibrary(repo)
    yield repr(library.conversations(100, None)) + repr(library.search("the", 100))
    for conversation in conversations(repo):
        told = repr(library.read(conversation.id, 50, None))
        assert not any(name in told for entry in conversation.transcript() for name in entry.hidden)
        assert "acct-of-mine" not in told
        yield told


def by_servers(repo: llmcrdt.Repo) -> Iterator[str]:
    pytest.importorskip("starlette")
    from llmcrdt.serve.http.responses import items_of
    from llmcrdt.serve.http.said import said_by

    for conversation in conversations(repo):
        for entry in conversation.transcript():
            yield json.dumps(items_of(conversation.id, entry)) + str(said_by(entry))


def by_commands(repo: llmcrdt.Repo) -> Iterator[str]:
    def run(*command: str) -> str:
        return CliRunner().invoke(main, ["--db", str(repo._core.store.path), *command]).output

    yield run("list", "--json") + run("search", "Hello", "--json")
    for conversation in conversations(repo):
        yield run("show", conversation.id) + run("show", "--json", "--elsewhere", conversation.id)
        yield run("export", conversation.id, "--format", "ollama") + run(
            "export", conversation.id, "--provider", "another"
        )
        yield repr(list(conversation.transcript())) + str(list(conversation.transcript()))


@pytest.mark.parametrize(
    "shown", [on_the_page, in_the_terminal, to_agents, by_servers, by_commands], ids=lambda shown: shown.__name__
)
def test_no_hidden_value_is_shown_by_accident(
    library: llmcrdt.Repo, shown: Callable[[llmcrdt.Repo], Iterator[str]]
) -> None:
    texts = list(shown(library))
    assert len(texts) > len(WITH_OPAQUE) and [text for text in texts if SECRET in text] == []


def test_no_hidden_value_is_found(library: llmcrdt.Repo) -> None:
    assert [len(library.search(words)) for words in ("Hello", SECRET, f"{SECRET}*", "acct-of-mine")] == [2, 0, 0, 0]
