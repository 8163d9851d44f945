"""An update that waits to be sent says the same without what was deleted since."""

from __future__ import annotations

import random
from unittest import mock

import pycrdt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmcrdt.crdt.yjs.redact import redact_updates
from llmcrdt.crdt.yjs.update import read_update

SECRET = "secret"


class Writers:
    """Two writers who type, nest, overwrite and delete. Only what is deleted in the end holds the secret."""

    def __init__(self, seed: int, edits: int) -> None:
        self.rng = random.Random(seed)
        self.updates: list[bytes] = []
        self.docs = [pycrdt.Doc(client_id=client) for client in (3, 1 << 40)]
        for doc in self.docs:
            doc.observe(lambda event: self.updates.append(bytes(event.update)) if not self.merging else None)
        self.merging = False
        for step in range(edits):
            self._edit(step)
        self._merge()
        for doc in self.docs[:1]:
            with doc.transaction():
                self._take_secrets(doc)
        self._merge()

    def _edit(self, step: int) -> None:
        doc = self.rng.choice(self.docs)
        text, words = doc.get("text", type=pycrdt.Text), doc.get("words", type=pycrdt.Map)
        match self.rng.randrange(6):
            case 0:
                text += "".join(self.rng.choices("aé€😀", k=self.rng.randint(1, 60)))
            case 1:
                text.insert(0, SECRET)
            case 2 if len(words):
                del words[self.rng.choice(sorted(words))]
            case 3:
                words[f"w{step}"] = pycrdt.Map({"text": pycrdt.Text(SECRET), "data": SECRET.encode()})
            case 4:
                words["same"] = self.rng.choice((SECRET, "plain"))
            case _:
                self._merge()

    def _merge(self) -> None:
        self.merging = True
        for one, two in (self.docs, self.docs[::-1]):
            one.apply_update(two.get_update(one.get_state()))
        self.merging = False

    def _take_secrets(self, doc: pycrdt.Doc) -> None:
        text, words = doc.get("text", type=pycrdt.Text), doc.get("words", type=pycrdt.Map)
        while (at := str(text).encode().find(SECRET.encode())) >= 0:
            del text[at : at + len(SECRET)]
        for key in sorted(words):
            if words[key] != "plain":
                del words[key]

    def whole(self) -> bytes:
        return bytes(self.docs[0].get_update())


def said(updates: list[bytes]) -> tuple[object, ...]:
    doc = pycrdt.Doc()
    text, words = doc.get("text", type=pycrdt.Text), doc.get("words", type=pycrdt.Map)
    for update in updates * len(updates):  # the core forgets some of what waits (docs/decisions/0003)
        doc.apply_update(update)
    found = read_update(bytes(doc.get_update()))
    deleted = {
        (client, n) for client, ranges in found.deletes.items() for start, end in ranges for n in range(start, end)
    }
    return str(text), words.to_py(), found.begun, found.written, deleted


@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 1 << 30), edits=st.integers(1, 40), record=st.sampled_from((200, 1 << 20)), data=st.data())
def test_who_has_the_rest_has_the_same_document(seed: int, edits: int, record: int, data: st.DataObject) -> None:
    writers = Writers(seed, edits)
    waits = data.draw(st.lists(st.booleans(), min_size=len(writers.updates), max_size=len(writers.updates)))
    waiting = [update for update, waits_ in zip(writers.updates, waits, strict=True) if waits_]
    rest = [update for update, waits_ in zip(writers.updates, waits, strict=True) if not waits_]
    whole = writers.whole()
    with mock.patch("llmcrdt.crdt.yjs.split.RECORD", record):
        pieces = redact_updates(whole, waiting)
        if pieces is None:
            assert not any(SECRET.encode() in update for update in waiting)
            return
        assert not any(SECRET.encode() in piece for piece in pieces)
        assert said([*rest, *pieces]) == said([whole])
        random.Random(seed).shuffle(pieces)
        assert said([*pieces, *rest]) == said([whole])
        assert redact_updates(whole, pieces) is None, "it would be sent again and again"


def test_only_what_waits_is_sent() -> None:
    """And not the whole document."""
    doc, updates = pycrdt.Doc(client_id=7), list[bytes]()
    words = doc.get("words", type=pycrdt.Map)
    doc.observe(lambda event: updates.append(bytes(event.update)))
    for n in range(100):
        words[f"w{n}"] = f"{SECRET}{n:03}" * 10
    del words["w99"]
    pieces = redact_updates(bytes(doc.get_update()), updates[98:])
    assert pieces
    assert sum(map(len, pieces)) < 200
    assert f"{SECRET}098".encode() in b"".join(pieces)
    assert f"{SECRET}099".encode() not in b"".join(pieces)


@pytest.mark.parametrize("waiting", [[], [b"\x00\x00"]])
def test_nothing_that_waits_stays_as_it_is(waiting: list[bytes]) -> None:
    assert redact_updates(b"\x00\x00", waiting) is None


def test_what_cannot_be_read_gives_way_to_the_document() -> None:
    whole = Writers(1, 30).whole()
    assert redact_updates(whole, [b"no update"]) == [whole]
