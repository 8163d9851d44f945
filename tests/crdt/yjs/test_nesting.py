"""No bytes nest shared types so deep that the core's recursion ends the process; and nothing else is refused."""

from __future__ import annotations

import random
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pycrdt
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from llmcrdt.crdt.yjs import nesting as yjs_nesting
from llmcrdt.crdt.yjs import update as yjs_update
from llmcrdt.crdt.yjs.replica import YjsReplica
from llmcrdt.crdt.yjs.update import CLIENTS, DEPTH, RANGES, STRUCTS, read_update
from llmcrdt.exceptions import MalformedUpdate
from llmcrdt.varint import write_uint

from .hostile_nesting import ARRAY, MAP, any_update, deep, deeper, delete_all, depth_of, item, update

ROOTS = ("meta", "entries", "acts")


def test_a_hundred_thousand_nested_maps_in_one_update_are_refused() -> None:
    replica = YjsReplica(ROOTS)
    for refused in (deep(100_000), deep(DEPTH + 1)):
        for give in (replica.apply, read_update, lambda data: YjsReplica(ROOTS).load(None, [data])):
            with pytest.raises(MalformedUpdate, match="deep"):
                give(refused)
    assert not replica.broken
    assert replica.diff() == b"\x00\x00"


@pytest.mark.parametrize("order", ["in order", "the first one last", "shuffled", "as one load", "with loads between"])
def test_updates_that_each_add_a_level_stop_at_the_limit(order: str) -> None:
    """An update that waits for its parent is looked at when that is there."""
    levels = list(range(1_500))
    if order == "the first one last":
        levels.reverse()
    if order == "shuffled":
        random.Random(1).shuffle(levels)
    updates = [deeper(level) for level in levels]
    replica = YjsReplica(ROOTS)
    if order == "as one load":
        with pytest.raises(MalformedUpdate):
            replica.load(None, updates)
    else:
        for index, each in enumerate(updates):
            if order == "with loads between" and index % 100 == 0:
                whole, waiting = replica.snapshot()
                replica = YjsReplica(ROOTS)
                replica.load(whole, waiting)
            with suppress(MalformedUpdate):
                replica.apply(each)
    assert not replica.broken
    assert depth_of(replica.snapshot()[0]) == DEPTH
    replica.apply(delete_all())
    assert depth_of(replica.snapshot()[0]) == 0


def test_a_type_that_only_names_its_neighbour_lies_as_deep_as_that() -> None:
    """A text in each map, and the next map behind that text: no update says what it stands in."""
    replica = YjsReplica(ROOTS)
    replica.apply(update((1, 0, [item(ARRAY, root="entries", key="k")])))
    refused = 0
    for level in range(2 * DEPTH):
        at = 1 + 2 * level
        try:
            inside = (1, at - 1) if level else (1, 0)
            replica.apply(update((1, at, [item(b"text", inside=inside)])))
            replica.apply(update((1, at + 1, [item(ARRAY, left=(1, at))])))
        except MalformedUpdate:
            refused += 1
            break
    assert refused
    assert depth_of(replica.snapshot()[0]) == DEPTH


def test_an_id_that_is_told_twice_lies_where_it_lay_first() -> None:
    """The second one says that the type stands in a root, and puts the next into it: the core has the first."""
    replica = YjsReplica(ROOTS)
    replica.apply(deep(DEPTH))
    for level in range(DEPTH - 1, 3 * DEPTH):
        again = item(MAP, root="entries", key=f"other {level}")
        with suppress(MalformedUpdate):
            replica.apply(update((1, level, [again, item(MAP, inside=(1, level), key="k")])))
    assert depth_of(replica.snapshot()[0]) == DEPTH


def test_what_waits_for_itself_is_refused() -> None:
    replica = YjsReplica(ROOTS)
    circle = update((1, 0, [item(b"a", inside=(2, 0), key="k")]), (2, 0, [item(MAP, inside=(1, 0), key="k")]))
    with pytest.raises(MalformedUpdate):
        replica.apply(circle)
    for itself in ((1, 0), (1, 1)):
        with pytest.raises(MalformedUpdate):
            read_update(update((1, 0, [item(MAP, inside=itself, key="k")])))


def content(whole: bytes) -> tuple[object, ...]:
    doc = pycrdt.Doc()
    array, shared = doc.get("array", type=pycrdt.Array), doc.get("map", type=pycrdt.Map)
    xml = doc.get("xml", type=pycrdt.XmlFragment)
    doc.apply_update(whole)
    return array.to_py(), shared.to_py(), str(xml), doc.get_state()


def test_documents_of_other_programs_may_hold_any_number_of_types() -> None:
    """Types behind types, one key that is a text and a map by turns, all as updates of their own, in any order; and one
    more when they are loaded."""
    doc = pycrdt.Doc(client_id=1)
    updates: list[bytes] = []
    doc.observe(lambda event: updates.append(bytes(event.update)))
    array, shared = doc.get("array", type=pycrdt.Array), doc.get("map", type=pycrdt.Map)
    xml = doc.get("xml", type=pycrdt.XmlFragment)
    for number in range(300):
        array.append(pycrdt.Map({"n": str(number)}))
        array.insert(number // 2, "between")
        shared["key"] = "text" if number % 2 else pycrdt.Map({"in": pycrdt.Array()})
        xml.children.append(pycrdt.XmlElement("p", {}, [pycrdt.XmlText("hi")]))
    before, expected = len(updates), content(doc.get_update())
    array.append(pycrdt.Map({}))
    for order in (updates[:before], updates[before - 1 :: -1], random.Random(1).sample(updates[:before], before)):
        replica = YjsReplica(ROOTS)
        for each in order:
            replica.apply(each)
        whole, waiting = replica.snapshot()
        assert (content(whole), waiting) == (expected, [])
        loaded = YjsReplica(ROOTS)
        loaded.load(whole, ())
        loaded.apply(updates[before])
        assert content(loaded.diff()) == content(doc.get_update())


def test_an_update_holds_so_many_things_and_no_more() -> None:
    """Each is refused for its count, whatever comes behind it."""
    for counts in (
        write_uint(CLIENTS + 1),
        b"\x01" + write_uint(STRUCTS + 1) + b"\x01\x00",
        b"\x00" + write_uint(CLIENTS + 1),
        b"\x00\x01\x01" + write_uint(RANGES + 1),
    ):
        with pytest.raises(MalformedUpdate, match="more than one may"):
            read_update(counts + bytes(3 << 20))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32))
@example(42635)  # updates that wait for each other in a circle, loaded together
def test_nothing_lies_deeper_than_the_limit_whatever_comes(seed: int) -> None:
    """With a limit of 4, so that a few updates come to it. A replica that is broken is loaded again."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (yjs_nesting, yjs_update):
            patch.setattr(module, "DEPTH", 4)
        rng = random.Random(seed)
        replica = YjsReplica(ROOTS)
        reached = 0
        for step in range(80):
            whole, waiting = replica.snapshot()
            try:
                replica.apply(any_update(rng, clients=4, reach=3 + step // 4))
            except MalformedUpdate:
                if replica.broken:
                    replica = YjsReplica(ROOTS)
                    replica.load(whole, waiting)
            if rng.random() < 0.05:
                with replica.edit() as edit:
                    edit.put_node("entries", f"own {step}", {"head": "h"})
                    edit.put_text("entries", f"own {step}", "live")
            reached = max(reached, depth_of(replica.snapshot()[0]))
        assert reached <= 4


SURVIVES = """
import random, sys, threading, time
from llmcrdt.crdt.yjs.replica import YjsReplica
from llmcrdt.exceptions import MalformedUpdate
from tests.crdt.yjs.hostile_nesting import MAP, any_update, deep, deeper, delete_all, item, update

def go():
    rng = random.Random(int(sys.argv[1]))
    end = time.process_time() + float(sys.argv[2])
    rounds = 0
    while time.process_time() < end:
        replica = YjsReplica(("meta", "entries"))
        rounds += 1
        chain = [deeper(level) for level in range(rng.randrange(1_000, 2_000))]
        match rng.randrange(4):
            case 0:
                chain.reverse()
            case 1:
                rng.shuffle(chain)
            case 2:
                chain = [deep(rng.randrange(100, 5_000)), deep(rng.randrange(1, 200)), *chain]
        for n in range(0, len(chain), 50):
            some = [*chain[n : n + 50], any_update(rng, 3, 200)]
            for each in some:
                try:
                    replica.apply(each)
                except MalformedUpdate:
                    if replica.broken:
                        replica = YjsReplica(("meta", "entries"))
        replica.apply(delete_all())
        whole, waiting = replica.snapshot()
        again = YjsReplica(("meta", "entries"))
        again.load(whole, waiting)
        again.apply(update(deletes=[(1, 0, 100), (2, 0, 100), (3, 0, 100)]))
    assert rounds > 1
    print("survived")

threading.stack_size(256 << 10)
thread = threading.Thread(target=go)
thread.start()
thread.join()
"""


@pytest.mark.parametrize("seed", [1, 2])
def test_whatever_is_let_through_the_core_survives_on_a_small_stack(seed: int) -> None:
    """If it does not, the process ends: so it is another one."""
    command = [sys.executable, "-c", SURVIVES, str(seed), "3"]
    root = Path(__file__).parents[3]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=root)
    assert done.stdout == "survived\n", done.stderr[-2_000:]
