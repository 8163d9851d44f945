"""An update in pieces says what it said whole."""

from __future__ import annotations

import random

import pycrdt
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from llmcrdt.crdt.yjs.replica import YjsReplica
from llmcrdt.crdt.yjs.split import Most, cut_document, cut_update, split_update
from llmcrdt.crdt.yjs.update import read_stretches, read_structs, read_update
from llmcrdt.exceptions import MalformedUpdate


def document(seed: int, edits: int) -> bytes:
    """Two writers who type, delete and nest, with characters of one to four bytes."""
    rng = random.Random(seed)
    docs = [pycrdt.Doc(client_id=client) for client in (3, 1 << 40)]
    for step in range(edits):
        doc = rng.choice(docs)
        text, words = doc.get("text", type=pycrdt.Text), doc.get("words", type=pycrdt.Map)
        plain = doc.get("plain", type=pycrdt.Text)
        match rng.randrange(6):
            case 0:
                text += "".join(rng.choices("aé€😀", k=rng.randint(1, 60)))
            case 1:
                plain.insert(rng.randint(0, len(plain)), "abc" * rng.randint(1, 90))
            case 2 if len(plain) > 4:
                at = rng.randrange(len(plain) - 2)
                del plain[at : at + 2]
            case 3:
                words[f"w{step}"] = pycrdt.Map({"text": "x" * rng.randint(0, 50), "data": b"y" * 20})
            case _:
                docs[0].apply_update(docs[1].get_update(docs[0].get_state()))
                docs[1].apply_update(docs[0].get_update(docs[1].get_state()))
    docs[0].apply_update(docs[1].get_update(docs[0].get_state()))
    return bytes(docs[0].get_update())


def said(update: bytes) -> tuple[object, ...]:
    """All that an update says: contents, what was written, what was deleted. Not how its bytes are cut: yrs joins
    neighbours or doesn't, depending on the order in which they came."""
    doc = pycrdt.Doc()
    contents = (doc.get("text", type=pycrdt.Text), doc.get("plain", type=pycrdt.Text))
    words = doc.get("words", type=pycrdt.Map)
    doc.apply_update(update)
    found = read_update(update)
    deleted = {
        (client, n) for client, ranges in found.deletes.items() for start, end in ranges for n in range(start, end)
    }
    return (*map(str, contents), words.to_py(), found.begun, found.written, deleted)


@settings(max_examples=60, deadline=None)
@example(seed=2255756, most=150, edits=19, shuffled=True)
@given(seed=st.integers(0, 1 << 30), most=st.integers(150, 400), edits=st.integers(1, 40), shuffled=st.booleans())
def test_pieces_are_small_and_make_the_same_document(seed: int, most: int, edits: int, shuffled: bool) -> None:
    whole = document(seed, edits)
    pieces = split_update(whole, most)
    assert all(len(piece) <= most for piece in pieces)
    if shuffled:
        random.Random(seed).shuffle(pieces)
    replica = YjsReplica(())
    for piece in pieces:
        read_update(piece)
        replica.apply(piece)
    once = YjsReplica(())
    once.apply(whole)
    assert said(replica.snapshot()[0]) == said(once.snapshot()[0]) == said(whole)
    assert replica.snapshot()[1] == once.snapshot()[1] == []


def of_many(seed: int, clients: int) -> bytes:
    """A document of so many clients, each of which writes beside and over others, and deletes."""
    rng = random.Random(seed)
    whole = pycrdt.Doc(client_id=1 << 41)
    for client in rng.sample(range(1, 1 << 40), clients):
        doc = pycrdt.Doc(client_id=client)
        doc.apply_update(whole.get_update())
        text, words = doc.get("text", type=pycrdt.Text), doc.get("words", type=pycrdt.Map)
        text.insert(rng.randint(0, len(text)), "ab" * rng.randint(1, 3))
        words[f"k{rng.randrange(5)}"] = str(client)
        if len(text) > 9:
            at = rng.randrange(len(text) - 3)
            del text[at : at + rng.randint(1, 3)]
        whole.apply_update(doc.get_update(whole.get_state()))
    return bytes(whole.get_update())


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 1 << 30), most=st.builds(Most, *([st.integers(1, 9)] * 3)), clients=st.integers(1, 30))
def test_a_document_of_many_things_is_cut_into_updates_that_others_take(seed: int, most: Most, clients: int) -> None:
    whole = of_many(seed, clients)
    pieces = cut_document(whole, most)
    for piece in pieces:
        found = read_update(piece)
        structs, _ = read_structs(piece)
        assert len({struct.client for struct in structs}) <= most.clients and len(found.deletes) <= most.clients
        assert len(structs) <= max(most.structs, 64), "structs that were read together stay together"
        assert sum(map(len, found.deletes.values())) <= most.ranges
    random.Random(seed).shuffle(pieces)
    replica = YjsReplica(())
    for piece in pieces:
        replica.apply(piece)
    assert replica.snapshot()[1] == [] and said(replica.snapshot()[0]) == said(whole)
    assert cut_document(whole) == [whole], "else it stays as it is"


def test_a_value_that_can_not_be_cut_is_refused() -> None:
    doc = pycrdt.Doc()
    doc.get("m", type=pycrdt.Map)["key"] = b"x" * 1000
    with pytest.raises(MalformedUpdate):
        split_update(doc.get_update(), 500)


def test_a_value_that_is_too_large_has_a_piece_of_its_own_where_that_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    doc = pycrdt.Doc(client_id=1)
    doc["text"] = text = pycrdt.Text()
    doc["words"] = words = pycrdt.Map()
    text += "a" * 500
    words["large"] = "x" * 1_000
    words["small"] = "y"
    update = bytes(doc.get_update())
    with pytest.raises(MalformedUpdate, match="larger than a record"):
        split_update(update, 300)
    monkeypatch.setattr("llmcrdt.crdt.yjs.split.RECORD", 300)
    pieces = cut_update(update)
    assert sorted(len(piece) > 300 for piece in pieces)[-2:] == [False, True]
    assert said(pycrdt.merge_updates(*pieces)) == said(update)


@pytest.mark.parametrize("seed", range(12))
def test_pieces_between_stretches_say_what_was_said(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = random.Random(seed)
    doc = pycrdt.Doc(client_id=4)
    doc.apply_update(document(seed, 20))
    words = doc.get("words", type=pycrdt.Map)
    for n in range(rng.randint(1, 300)):
        words[f"n{n}"] = pycrdt.Map({f"f{i}": rng.choice(("x", b"y")) * rng.randint(0, 200) for i in range(3)})
    whole = bytes(doc.get_update())
    record = rng.choice((50_000, 100_000))
    monkeypatch.setattr("llmcrdt.crdt.yjs.split.RECORD", record)
    pieces = cut_update(whole)
    assert max(map(len, pieces)) <= record
    assert len(pieces) <= len(read_stretches(whole)[0]) + 1
    assert said(pycrdt.merge_updates(*pieces)) == said(whole)
    replica = YjsReplica(())
    for piece in pieces:
        replica.apply(piece)
    assert said(replica.snapshot()[0]) == said(whole)
    assert not replica.snapshot()[1]


@pytest.mark.parametrize("seed", range(12))
def test_stretches_hold_all_structs(seed: int) -> None:
    whole = document(seed, 30)
    structs, deletes = read_structs(whole)
    stretches, same = read_stretches(whole)
    assert same == deletes
    at = 0
    for client, clock, count, start, stop in stretches:
        within = structs[at : at + count]
        assert (within[0].client, within[0].clock, within[0].start, within[-1].stop) == (client, clock, start, stop)
        assert {struct.client for struct in within} == {client}
        at += count
    assert at == len(structs)
