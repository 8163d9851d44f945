"""Documents without a cursor are opened a few at a time, in order, and every one that stays has its turn."""

from __future__ import annotations

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from llmcrdt.ids import document_id
from llmcrdt.sync.document_sync import DocumentSync
from llmcrdt.sync.opening_queue import FILLING, OpeningQueue


def made(count: int) -> list[DocumentSync]:
    raw = [n.to_bytes(16, "big") for n in range(count)]
    return [DocumentSync(document_id(r), r) for r in raw]


@given(st.integers(0, 40), st.sets(st.integers(0, 39)), st.randoms(use_true_random=False))
def test_all_that_stay_have_their_turn(count: int, left: set[int], rng: Random) -> None:
    docs, queue = made(count), OpeningQueue()
    for doc in docs:
        queue.add(doc)
    gone = [docs[n] for n in left if n < count]
    for doc in gone:  # not followed any more, before its turn
        queue.done(doc)
    filling, turns = list[DocumentSync](), list[DocumentSync]()
    while True:
        for doc in queue.ready():
            queue.opened(doc, from_start=True)
            filling.append(doc)
            turns.append(doc)
        assert len(filling) <= FILLING
        assert queue.pending == {doc.id for doc in docs if doc not in gone and (doc in filling or doc not in turns)}
        if not filling:
            break
        queue.done(filling.pop(rng.randrange(len(filling))))
    assert turns == [doc for doc in docs if doc not in gone]


def test_documents_with_a_cursor_take_no_place() -> None:
    queue = OpeningQueue()
    for doc in made(FILLING * 2):
        queue.opened(doc, from_start=False)
    assert len(queue.pending) == FILLING * 2
    (more,) = made(1)
    queue.add(more)
    assert list(map(id, queue.ready())) == [id(more)]
