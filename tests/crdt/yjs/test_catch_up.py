"""Condensing: what some updates add to others, without what they say and delete again."""

from __future__ import annotations

import random
from typing import NamedTuple

import pycrdt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmcrdt.crdt.yjs.compact import begin, catch_up_updates, compact_updates, load_all
from llmcrdt.crdt.yjs.replica import YjsReplica
from llmcrdt.crdt.yjs.update import less_ranges, read_state_vector, read_structs, read_update, write_deletes
from llmcrdt.exceptions import MalformedUpdate

ROOTS = ("one", "two")


def edit(rng: random.Random, writer: YjsReplica, name: str) -> bytes:
    """One random change: words in a text, a value, a node, or one of them deleted."""
    nodes = sorted(key for key in writer.keys("one") if writer.node("one", key))
    with writer.edit() as edit:
        match rng.randrange(6) if nodes else 0:
            case 0:
                edit.put_node("one", f"k{name}", {"f": f"field-{name}"})
                edit.put_text("one", f"k{name}", "t")
            case 1:
                edit.delete_field("one", rng.choice(nodes), rng.choice("tf"))
            case 2:
                # Over what is there: a whole node, with its words, goes.
                edit.put("one", rng.choice(nodes), f"over-{name}")
            case 3:
                edit.put("two", f"s{rng.randrange(4)}", f"scalar-{name}")
            case _:
                edit.append_text("one", rng.choice(nodes), "t", f"words-{name} ")
    return edit.update


def whole_history(seed: int, count: int) -> list[bytes]:
    """Updates of three writers who see each other's now and then, in an order in which a relay may get them."""
    rng = random.Random(seed)
    writers = [YjsReplica(ROOTS, client_id=n) for n in (1, 200, 1 << 40)]
    unsent: list[list[bytes]] = [[] for _ in writers]
    log: list[bytes] = []
    for i in range(count):
        number = rng.randrange(len(writers))
        if update := edit(rng, writers[number], str(i)):
            unsent[number].append(update)
        if rng.random() < 0.4:
            number = rng.randrange(len(writers))
            log += unsent[number]
            unsent[number] = []
            for update in log:
                writers[number].apply(update)
    log += [update for updates in unsent for update in updates]
    return log


def history(seed: int, count: int) -> list[bytes]:
    """The same; of some histories a few updates come late, or never, and others wait for them."""
    rng, log = random.Random(seed), whole_history(seed, count)
    if rng.random() < 0.5:
        for _ in range(rng.randint(1, 3)):
            late = log.pop(rng.randrange(len(log))) if log else b""
            if late and rng.random() < 0.5:
                log.insert(rng.randrange(len(log) + 1), late)
    return log


class State(NamedTuple):
    version: dict[int, int]
    deletes: dict[int, list[tuple[int, int]]]
    content: list[object]
    waiting: set[bytes]


def state(replica: YjsReplica) -> State:
    whole, waiting = replica.snapshot()
    content = [
        (root, key, replica.get(root, key), replica.node(root, key))
        for root in ROOTS
        for key in sorted(replica.keys(root))
    ]
    return State(read_state_vector(replica.version()), read_update(whole).deletes, content, set(waiting))


def replica_of(updates: list[bytes], client: int = 77) -> YjsReplica:
    replica = YjsReplica(ROOTS, client_id=client)
    for update in updates:
        replica.apply(update)
    return replica


def cut_somewhere(log: list[bytes], data: st.DataObject) -> tuple[list[bytes], list[bytes], list[bytes]]:
    """A snapshot, what came behind it, and a tail."""
    folded = data.draw(st.integers(0, len(log)))
    cursor = data.draw(st.integers(folded, len(log)))
    return compact_updates(log[:folded]), log[folded:cursor], log[cursor:]


def waits(updates: list[bytes]) -> bool:
    return bool(replica_of(updates).snapshot()[1])


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 1 << 32), st.integers(1, 40), st.data())
def test_a_device_has_the_same_as_with_the_records(seed: int, count: int, data: st.DataObject) -> None:
    log = history(seed, count)
    snapshot, before, tail = cut_somewhere(log, data)
    had = [*snapshot, *before]
    if waits(had) or waits([*had, *tail]):
        with pytest.raises(MalformedUpdate):
            catch_up_updates(snapshot, before, tail)
        return
    condensed = catch_up_updates(snapshot, before, tail)
    # The device made something itself since, that the relay does not know.
    rng = random.Random(seed)
    for i in range(rng.randrange(3)):
        had += filter(None, [edit(rng, replica_of(had, 300 + i), f"own-{i}")])
    with_records, with_less = replica_of([*had, *tail]), replica_of([*had, condensed])
    assert state(with_less) == state(with_records)
    # Nor does it make a difference when others write on.
    later = [made for i in range(rng.randrange(5)) if (made := edit(rng, replica_of(log, 400 + i), f"later-{i}"))]
    for update in later:
        with_records.apply(update)
        with_less.apply(update)
    assert state(with_less) == state(with_records)


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 1 << 32), st.integers(10, 40), st.data())
def test_a_device_that_has_some_of_it_from_elsewhere_has_the_same(seed: int, count: int, data: st.DataObject) -> None:
    """If some of its structs wait for others, one run of structs comes for both, from a fold as well."""
    log = whole_history(seed, count)
    snapshot, before, tail = cut_somewhere(log, data)
    rng = random.Random(seed)
    had = [*snapshot, *before, *(update for update in tail if rng.random() < 0.3)]
    expected = state(replica_of(log))
    for update in (catch_up_updates(snapshot, before, tail), *compact_updates(log)):
        assert state(replica_of([*had, update])) == expected
        loaded, _ = load_all([*had, update])
        assert read_state_vector(loaded.version()) == expected.version
        assert read_update(loaded.snapshot()[0]).deletes == expected.deletes


def test_a_first_record_of_which_some_waits_is_no_document() -> None:
    """As where a device sends what several wrote as one update."""
    first, second = (list[bytes](), list[bytes]())
    for client, updates in ((1, first), (2, second)):
        writer = YjsReplica(ROOTS, client_id=client)
        for n in range(2):
            with writer.edit() as edit:
                edit.put("two", f"{client}-{n}", "said")
            updates.append(edit.update)
    mixed = bytes(pycrdt.merge_updates(first[0], second[1]))
    replica = begin(mixed, lambda _: YjsReplica(ROOTS))
    there = YjsReplica(ROOTS)
    there.apply(first[0])
    assert replica.snapshot() == (there.diff(), [mixed])
    assert compact_updates([mixed]) == [there.diff(), mixed]
    assert read_update(replica.diff()).written == read_update(mixed).written
    with pytest.raises(MalformedUpdate, match="wait"):
        catch_up_updates([mixed], [], [second[0]])
    replica.load(None, [second[0]])
    assert state(replica) == state(replica_of([mixed, second[0]]))


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 1 << 32), st.integers(2, 40), st.data())
def test_several_pieces_of_a_tail_say_the_same_as_it_does(seed: int, count: int, data: st.DataObject) -> None:
    log = history(seed, count)
    places = sorted(data.draw(st.lists(st.integers(0, len(log)), max_size=4)))
    got: list[bytes] = []
    for start, end in zip([0, *places], [*places, len(log)], strict=True):
        with_records = waits(log[:start]) or waits(log[:end])
        got += log[start:end] if with_records else [catch_up_updates([], log[:start], log[start:end])]
    assert state(replica_of(got)) == state(replica_of(log))


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 1 << 32), st.integers(2, 30), st.data())
def test_only_what_is_new_is_in_it(seed: int, count: int, data: st.DataObject) -> None:
    """No struct and no delete that the device has."""
    log = history(seed, count)
    snapshot, before, tail = cut_somewhere(log, data)
    had = [*snapshot, *before]
    if not waits(had) and not waits([*had, *tail]):
        condensed = read_update(catch_up_updates(snapshot, before, tail))
        known = state(replica_of(had))
        assert less_ranges(condensed.deletes, known.deletes) == condensed.deletes
        assert not condensed.repeats(known.version)


def test_what_was_said_and_deleted_again_is_not_in_it_nor_what_was_there() -> None:
    writer = YjsReplica(ROOTS, client_id=1)
    log: list[bytes] = []

    def make(root: str, key: str, text: str) -> None:
        with writer.edit() as edit:
            edit.put_node(root, key, {})
            edit.put_text(root, key, "t")
        log.append(edit.update)
        for word in text.split():
            with writer.edit() as edit:
                edit.append_text(root, key, "t", word + " ")
            log.append(edit.update)

    make("one", "before", "what was there")
    cursor = len(log)
    make("one", "after", "SECRET words of a stream " * 20)
    for field in ("before", "after"):
        with writer.edit() as edit:
            edit.put_field("one", field, "sealed", "sealed words")
            edit.delete_field("one", field, "t")
        log.append(edit.update)
    condensed = catch_up_updates([], log[:cursor], log[cursor:])
    assert b"SECRET" not in condensed and b"what" not in condensed
    assert len(condensed) < 200 < sum(map(len, log[cursor:]))
    assert state(replica_of([*log[:cursor], condensed])) == state(replica_of(log))


def test_bytes_that_cant_be_applied_are_left_to_the_records() -> None:
    log = whole_history(3, 10)
    for bad in (b"\xff\xff", b"\x01\x01\x01"):
        for snapshot, before, tail in (([], [], [bad]), ([], [bad], log), (compact_updates(log), [], [log[0], bad])):
            with pytest.raises(MalformedUpdate):
                catch_up_updates(snapshot, before, tail)


def test_nothing_new_is_nothing() -> None:
    log = whole_history(4, 12)
    assert catch_up_updates([], log, [log[0]]) == b"\x00\x00"


ranges = st.dictionaries(
    st.integers(0, 3),
    st.lists(st.tuples(st.integers(0, 30), st.integers(1, 8)).map(lambda r: (r[0], sum(r))), max_size=5),
)


@given(ranges, ranges)
def test_ranges_less_others_are_what_only_they_cover(own: dict, others: dict) -> None:
    def clocks(of: dict) -> set[tuple[int, int]]:
        return {(client, clock) for client, found in of.items() for start, end in found for clock in range(start, end)}

    left = less_ranges(own, others)
    assert clocks(left) == clocks(own) - clocks(others)
    update = b"\x00" + write_deletes(left)
    assert read_update(update).deletes == left
    assert read_structs(update) == ([], update[1:])
