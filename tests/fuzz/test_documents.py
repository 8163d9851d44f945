"""A sample of the documents of ``make fuzz``."""

from __future__ import annotations

import random
import sys
from pathlib import Path

import pycrdt
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from documents import BATCH, Broken, World, run, same
from strangers import Stranger


@pytest.mark.parametrize("first", [1, 2])
def test_documents_of_strangers_stop_nothing(first: int) -> None:
    seeds = range(first * BATCH, (first + 1) * BATCH)
    run(seeds, stop=True)


def test_a_stranger_writes_what_follows_from_its_seed() -> None:
    documents = []
    for _ in range(2):
        stranger, doc = Stranger(random.Random(7)), pycrdt.Doc()
        for n in range(20):
            doc.apply_update(stranger.conversation(doc.get_update(), n + 1))
        entries = doc.get("entries", type=pycrdt.Map)
        shown = {key: sorted(value) if isinstance(value, pycrdt.Map) else type(value) for key, value in entries.items()}
        documents.append((shown, stranger.touched))
    assert documents[0] == documents[1]
    assert len(documents[0][0]) > 5


def test_two_replicas_that_differ_are_noticed(tmp_path: Path) -> None:
    world = World(tmp_path)
    try:
        with pytest.raises(Broken, match=r"here: hash: a is not b"):
            same("here", {"hash": "a", "entries": [1]}, {"hash": "b", "entries": [1]})
        with pytest.raises(Broken, match="does not stay"):
            conv = world.repo.create()
            entry = conv.append("user", "words")
            conv.erase(entry)
            world._stays(conv, {entry.id: entry})
    finally:
        world.close()
