"""docs/api.md and the classes that people touch have the same names."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

import llmcrdt
from llmcrdt.kvcache import ChunkCache, DiskCache, MemoryCache, NullCache, TieredCache
from llmcrdt.testing.engine import MemoryEngine
from llmcrdt.testing.tokenizer import ByteTokenizer

PAGE = Path(__file__).parents[1] / "docs" / "api.md"
OpenRepo = Callable[..., llmcrdt.Repo]


def documented(page: str) -> dict[str, list[str]]:
    """The names that the page has of each class, as they stand there."""
    found: dict[str, list[str]] = {}
    for section in page.split("\n## ")[1:]:
        title, _, text = section.partition("\n")
        found[title] = re.findall(r"^\| `(\w+)", text, re.M)
    return found


def public(thing: object) -> list[str]:
    return sorted(name for name in dir(thing) if not name.startswith("_"))


@pytest.fixture
def things(open_repo: OpenRepo) -> dict[str, object]:
    """One object of each class."""
    repo = open_repo("laptop")
    conversation = repo.create()
    entry = conversation.append("user", "Hello")
    call = llmcrdt.ToolCall("1", "clock", "{}")
    calling = conversation.append("assistant", call)
    claim = conversation.claim(calling.tool_calls[0])
    conversation.edit(entry, "Hello there")
    hidden = conversation.transcript().elsewhere[0]
    erased = conversation.erase(entry)
    change = llmcrdt.Change((), (), (), local=True)
    stream = conversation.stream()
    present = llmcrdt.Present(1, {})
    target, field = llmcrdt.Target("p"), llmcrdt.FieldReport(entry.id, "p/x")
    request, ask = conversation.messages("openai-chat"), conversation.ask(valid_while="always")
    answer = conversation.stream_response(request, [])
    made = (repo, conversation, conversation.transcript(), entry, stream, present, claim, change, hidden, erased)
    made += (llmcrdt.LibraryChange(),)
    return {type(thing).__name__: thing for thing in (*made, target, field, request, answer, ask)}


NAMES = (
    "Repo Conversation Transcript Entry Stream Present ToolClaim Ask Change Elsewhere Erased Target FieldReport Request"
    " StreamedResponse LibraryChange"
)


@pytest.mark.parametrize("name", NAMES.split())
def test_every_public_name_has_its_line_and_every_line_its_name(name: str, things: dict[str, object]) -> None:
    lines = documented(PAGE.read_text(encoding="utf-8"))[name]
    assert sorted(lines) == public(things[name])


def test_the_same_of_attachments(open_repo: OpenRepo) -> None:
    repo = open_repo("laptop")
    conversation = repo.create()
    entry = conversation.append("user", [llmcrdt.Blob(b"a picture")])
    transfer = repo.attachments.fetch(conversation.id, entry.parts[0].hash)  # type: ignore[union-attr]
    for thing in (repo.attachments, transfer):
        assert sorted(documented(PAGE.read_text(encoding="utf-8"))[type(thing).__name__]) == public(thing)


@pytest.mark.parametrize("name", ["Link", "LinkStatus", "Progress", "Generation", "Plan", "CacheMiss", "Prefetch"])
def test_the_same_of_links_and_generations(name: str, open_repo: OpenRepo) -> None:
    repo, engine = open_repo("laptop"), MemoryEngine(ByteTokenizer("{{ messages[0].content }}"), NullCache())
    conversation = repo.create()
    conversation.append("user", "Hello")
    with repo.connect("ws://127.0.0.1:1") as link, llmcrdt.prefetch(conversation, engine) as prefetch:
        generation = llmcrdt.generate(conversation, engine, max_tokens=1)
        generation.result(30)
        plan = llmcrdt.plan(conversation, engine)
        made: tuple[object, ...] = (link, link.status, link.progress, generation, plan, plan.why, prefetch)
        thing = next(each for each in made if type(each).__name__ == name)
        assert sorted(documented(PAGE.read_text(encoding="utf-8"))[name]) == public(thing)
    engine.close()


def test_the_same_of_repos(open_repo: OpenRepo) -> None:
    page, repo = documented(PAGE.read_text(encoding="utf-8")), open_repo("laptop")
    for thing in (repo, repo.blobs, repo.keyring):
        assert sorted(page[type(thing).__name__]) == public(thing)


def test_the_same_of_caches(tmp_path: Path) -> None:
    page = documented(PAGE.read_text(encoding="utf-8"))
    caches: tuple[ChunkCache, ...] = (MemoryCache(1), DiskCache(tmp_path / "a", 1), NullCache())
    caches += (TieredCache(MemoryCache(1), DiskCache(tmp_path / "b", 1)),)
    for cache in caches:
        assert sorted(page["ChunkCache"] + page.get(type(cache).__name__, [])) == public(cache)
        cache.close()


def test_names_are_found_in_a_page() -> None:
    page = "# x\n\n| `a` | |\n\n## One\n\n| name | |\n|---|---|\n| `b(c)` | d |\n| `e` | `f` |\n\n## Two\n"
    assert documented(page) == {"One": ["b", "e"], "Two": []}
