"""Types with plain fields are read in a way of their own, for they are nearly all that updates consist of. That way and
the general one say the same of any bytes."""

from __future__ import annotations

import random

import pycrdt
import pytest

from llmcrdt.crdt.yjs.update import Struct, UpdateRange, _Plain, read_structs, read_update
from llmcrdt.exceptions import MalformedUpdate
from tests.fuzz.mutate_bytes import mutant

Said = tuple[UpdateRange | str, list[Struct] | str]


def said(update: bytes) -> Said:
    answers: list[object] = []
    for read in (read_update, lambda data: read_structs(data)[0]):
        try:
            answers.append(read(update))
        except MalformedUpdate as error:
            answers.append(str(error))
    return answers[0], answers[1]  # type: ignore[return-value]


def said_in_general(update: bytes) -> Said:
    """The same where no struct is read as a plain one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_Plain, "follow", lambda *args: None)
        return said(update)


def document(rng: random.Random) -> bytes:
    """Nodes with fields of all kinds and lengths, under keys of any text, written by several in turns."""
    docs: list[pycrdt.Doc[pycrdt.Map[object]]] = [
        pycrdt.Doc(client_id=client) for client in (5, 1 << rng.choice((10, 31, 50)))
    ]
    for n in range(rng.randint(1, 25)):
        doc = rng.choice(docs)
        roots = [doc.get(root, type=pycrdt.Map) for root in ("entries", "acts")]
        root = rng.choices(roots, (9, 1))[0]
        key = rng.choice(("k", "été", "x" * rng.choice((0, 5, 127, 128, 300)))) + str(n)
        match rng.randrange(12):
            case 0 if len(root):
                del root[rng.choice(list(root.keys()))]
            case 1:
                docs[0].apply_update(docs[1].get_update(docs[0].get_state()))
                docs[1].apply_update(docs[0].get_update(docs[1].get_state()))
            case 2:
                root[key] = "act"
            case _:
                root[key] = pycrdt.Map({f"f{i}": value(rng) for i in range(rng.randrange(4))})
    docs[0].apply_update(docs[1].get_update(docs[0].get_state()))
    return bytes(docs[0].get_update())


def value(rng: random.Random) -> object:
    size = rng.choice((0, 1, 20, 127, 128, 200, 16383, 16384))
    plain: tuple[object, ...] = ("a" * size, "é" * (size // 2), b"\xff" * size, 5, 1.5, None, True, ["l"], {"d": "e"})
    return rng.choice((*plain, pycrdt.Text("live"), pycrdt.Map({"inner": pycrdt.Map({"x": "y"})})))


@pytest.mark.parametrize("seed", range(60))
def test_both_ways_say_the_same_of_sound_updates(seed: int) -> None:
    update = document(random.Random(seed))
    found = said(update)
    assert isinstance(found[0], UpdateRange)
    assert found == said_in_general(update)


@pytest.mark.parametrize("seed", range(20))
def test_both_ways_say_the_same_of_anything(seed: int) -> None:
    rng = random.Random(seed)
    updates = [document(rng) for _ in range(5)]
    for _ in range(150):
        update = mutant(rng.choice(updates), updates, rng)
        assert said(update) == said_in_general(update)


def test_no_clock_comes_past_the_highest() -> None:
    """Also not by plain structs: a type and its field at the two clocks that are left, and at one."""
    node = b"\x27\x01\x01e\x01k\x01"
    for clock, fits in (((1 << 31) - 3, True), ((1 << 31) - 2, False)):
        high = bytes((clock >> shift) & 0x7F | (0x80 if shift < 28 else 0) for shift in range(0, 35, 7))
        update = b"\x01\x02\x05" + high + node + b"\x28\x00\x05" + high + b"\x01f\x01\x77\x01v" + b"\x00"
        found = said(update)
        assert isinstance(found[0], UpdateRange) == fits
        assert found == said_in_general(update)


def test_a_client_may_be_named_with_more_bytes_than_it_takes() -> None:
    node, field = b"\x27\x01\x01e\x01k\x01", b"\x01f\x01\x77\x01v"
    for told in (b"\x85\x00", b"\x05"):
        for named in (b"\x85\x00", b"\x05", b"\x06"):
            update = b"\x01\x02" + told + b"\x00" + node + b"\x28\x00" + named + b"\x00" + field + b"\x00"
            assert said(update) == said_in_general(update)


def test_types_of_all_kinds_may_follow_a_plain_one() -> None:
    """But for XML hooks, which are refused; an XML element alone has a name."""
    node = b"\x27\x01\x01e\x01k"
    for kind in range(9):
        for name in (b"", b"\x02xy"):
            update = b"\x01\x03\x05\x00" + node + b"\x01" + 2 * (node + bytes((kind,)) + name) + b"\x00"
            assert said(update) == said_in_general(update)
            assert isinstance(said(update)[0], UpdateRange) == (
                kind in {0, 1, 2, 3, 4, 6} and (kind == 3) == bool(name)
            )
