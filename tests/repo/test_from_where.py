"""docs/servers.md says what may be called from where; this holds it to its word."""

from __future__ import annotations

import asyncio
import inspect
import re
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import llmcrdt

OpenRepo = Callable[..., llmcrdt.Repo]
PAGE = Path(__file__).parents[2] / "docs" / "servers.md"
HOMES = (llmcrdt.Repo, llmcrdt.Conversation, llmcrdt.Link, llmcrdt)


def rows() -> dict[str, list[str]]:
    """The names that each row of the page's table has."""
    table = [line.split("|")[1:3] for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| ")]
    return {place.strip(): re.findall(r"`(?:\w+\.)?(\w+)(?:\(\))?`", names) for place, names in table if names.strip()}


def found(name: str) -> Any:
    return next((getattr(home, name) for home in HOMES if hasattr(home, name)), None)


def test_the_page_names_what_is_there() -> None:
    named = rows()
    assert len(named) == 5
    assert [name for names in named.values() for name in names if found(name) is None] == []
    awaited = named["`await` and `async for`"]
    assert {"generate", "ask", "stream_response", "synced"} <= set(awaited)


def calls(repo: llmcrdt.Repo, conversation: llmcrdt.Conversation, folder: Path) -> dict[str, Callable[[], object]]:
    """A call of each method that the page's second and third rows name."""
    file = folder / "import.json"
    file.write_text('{"messages": [{"role": "user", "content": "Hello"}]}')
    first = conversation.append("user", "first")
    return {
        "entries": conversation.entries,
        "transcript": conversation.transcript,
        "entry": lambda: conversation.entry(first.id),
        "asks": conversation.asks,
        "append": lambda: conversation.append("user", "more"),
        "import_files": lambda: list(llmcrdt.import_files(repo, [file])),
        "erase": lambda: conversation.erase(conversation.append("user", "gone")),
        "fork": lambda: repo.fork(conversation, at=first),
        "convert": lambda: repo.convert(conversation, "yjs"),
        "verify": conversation.verify,
        "backup": lambda: repo.backup(folder / f"copy{threading.get_ident()}.db"),
        "search": lambda: repo.search("first"),
    }


def test_each_of_them_works_from_a_coroutine_and_from_threads_at_once(open_repo: OpenRepo, tmp_path: Path) -> None:
    """Every method of the table's second and third rows, called in a coroutine, by to_thread, and by four threads while
    others write: none raises, and no word is lost."""
    named = rows()
    wanted = [*named["a coroutine, directly"], *named["a coroutine, through `asyncio.to_thread`"]]
    wanted = [name for name in wanted if not hasattr(asyncio, name)]
    repo = open_repo("laptop")
    conversation = repo.create("Trip")
    made = calls(repo, conversation, tmp_path)
    assert sorted(made) == sorted({*wanted})

    async def main() -> None:
        for name in named["a coroutine, directly"]:
            made[name]()
        assert not any(inspect.iscoroutinefunction(found(name)) for name in wanted)
        await asyncio.gather(*(asyncio.to_thread(call) for call in made.values()))

    asyncio.run(main())
    before = len(conversation.transcript())
    with ThreadPoolExecutor(4) as pool:
        writes = [pool.submit(conversation.append, "user", f"word {n}") for n in range(20)]
        others = [pool.submit(call) for name, call in made.items() if name != "backup"]
        for each in (*writes, *others):
            each.result(60)
    assert len(conversation.transcript()) == before + 20 + 2, "each append, and the one whose words were erased"
    assert {e.text for e in conversation.transcript()} >= {f"word {n}" for n in range(20)}
    assert conversation.verify() == []


def test_a_copy_of_an_open_repo_opens(open_repo: OpenRepo, tmp_path: Path) -> None:
    repo = open_repo("laptop")
    conversation = repo.create("Trip")
    conversation.append("user", "Hello")
    with repo.observe(), conversation.stream() as stream:
        stream.write("half")
        stream.flush()
        repo.backup(tmp_path / "copy.db")
        stream.write(" and whole")
    with llmcrdt.open(tmp_path / "copy.db") as other:
        assert [e.text for e in other.get(conversation.id).transcript()] == ["Hello", "half"]
    assert conversation.transcript()[-1].text == "half and whole"
