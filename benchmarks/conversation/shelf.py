"""Many conversations on one device: list them, search them."""

from __future__ import annotations

import random
from functools import partial
from pathlib import Path

import llmcrdt

from ..report import Report, median, seconds
from .talk import words

ROUNDS = 7


def measure(report: Report, folder: Path, *, search: int, conversations: int) -> None:
    _listing(report, folder / "many.db", conversations)
    _searching(report, folder / "search.db", search)


def _listing(report: Report, path: Path, size: int) -> None:
    with llmcrdt.open(path) as repo:
        for n in range(size):
            repo.create(f"conversation {n}").append("user", "Hello")
    whole = []
    for _ in range(ROUNDS):
        opened: list[llmcrdt.Repo] = []

        def list_all(opened: list[llmcrdt.Repo] = opened) -> None:
            opened.append(llmcrdt.open(path))
            assert len(opened[0].list(limit=size)) == size

        whole.append(seconds(list_all))
        again = seconds(partial(opened[0].list, size))
        assert not opened[0]._core.documents._conversations
        opened[0].close()
    report.add(f"open and list {size:,} conversations", median(whole) * 1e3, "ms", 50)
    report.add("  list them again", again * 1e3, "ms", 50)


def _fill(path: Path, size: int, seed: int) -> None:
    text = words(seed)
    with llmcrdt.open(path) as repo:
        conversation = repo.create("big")
        with conversation.batch():
            for n in range(size):
                conversation.append("assistant" if n % 2 else "user", next(text))


def _searching(report: Report, path: Path, size: int) -> None:
    each = 10_000
    for n in range(0, size, each):
        _fill(path, min(each, size - n), 100 + n)
    text = words(100)
    draw = random.Random(8)
    queries = [draw.choice(next(text).split()) for _ in range(25)]
    with llmcrdt.open(path) as repo:
        repo.search("warm")
        times = [seconds(partial(repo.search, query)) for query in queries]
        pairs = [seconds(partial(repo.search, f"{query} {query[:2]}")) for query in queries]
        begun = [seconds(partial(repo.search, two)) for two in ("ab", "de", "hi", "op", "tu")]
        conversation = repo.get(repo.list()[0].id)
        with llmcrdt.open(path.with_suffix(".other.db"), repo.library) as device:
            copy = device.join(conversation.id)
            copy.apply(conversation.diff())
            copy.append("user", "oneverynewword")
            conversation.apply(copy.diff(since=conversation.version()))
        merged = seconds(lambda: repo.search("oneverynewword"))
        assert len(repo.search("oneverynewword")) == 1
    report.add(f"search {size:,} entries, one word", median(times) * 1e3, "ms", 20)
    report.add("  slowest of 25", max(times) * 1e3, "ms", 20)
    report.add("  a word and the beginning of one", median(pairs) * 1e3, "ms", 20)
    report.add("  the two letters that a word begins with", median(begun) * 1e3, "ms", 20)
    report.add("  the first search after a merge", merged * 1e3, "ms", 20)
