"""The real order held against the executable statement of the rules (order_model.py), over random schedules.

The model recomputes everything from bare sets; the real one adds incrementally. Both see the same entries, delivered
to each replica in another order, some twice, some malformed.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from llmcrdt.document.arrangement import Arrangement
from llmcrdt.document.frame import EMPTY_FRAME, Frame, Pin, extend_frame_hash
from llmcrdt.document.nodes import Erase, Node, Selection, ancestors, group_of, turn_after
from llmcrdt.document.order import Order
from llmcrdt.document.rearrange import recount
from llmcrdt.ids import ContentHash, EntryId, SessionId

sys.path.insert(0, str(Path(__file__).parent))
import order_model as model


def pin(entry: str) -> Pin:
    return EntryId(entry), ContentHash(f"version of {entry}")


def frame_of(names: tuple[str, ...], entries: dict[str, model.Entry]) -> Frame:
    """The model's frame (a whole list) as the real one: from the longest generation whose frame begins it."""
    hash_ = extend_frame_hash(EMPTY_FRAME, [pin(i) for i in names])
    for at in range(len(names) - 1, -1, -1):
        inner = entries[names[at]].frame if names[at] in entries else None
        if inner is not None and inner == names[:at]:
            return Frame(pin(names[at]), tuple(pin(i) for i in names[at + 1 :]), hash_)
    return Frame(None, tuple(pin(i) for i in names), hash_)


def node_of(entry: model.Entry, entries: dict[str, model.Entry]) -> Node:
    return Node(
        EntryId(entry.id),
        tuple(EntryId(i) for i in entry.parents),
        entry.lamport,
        EntryId(entry.alternative_of) if entry.alternative_of else None,
        EntryId(entry.answers) if entry.answers else None,
        frame_of(entry.frame, entries) if entry.frame is not None else None,
        session=SessionId(entry.session) if entry.alternative_of else None,
        saw_erased=tuple(EntryId(i) for i in sorted(entry.saw_erased)),
        system=entry.role == "system",
        turn=turn_of(entry.turn) if entry.turn else None,
    )


def turn_of(name: str) -> str:
    """The real group of the model's: of what stands after a list."""
    parts = name.removeprefix("frame:").split("/")
    at = parts.index("|")
    frame = extend_frame_hash(EMPTY_FRAME, [pin(i) for i in parts[at + 1 :] if i])
    return turn_after(frame, [EntryId(i) for i in parts[:at] if i])


def groups_of_all(nodes: dict[EntryId, Node]) -> dict[EntryId, str]:
    """The group of each entry."""
    found: dict[EntryId, str] = {}
    groups: dict[str, list[EntryId]] = {}
    for i in sorted(nodes, key=lambda i: nodes[i].age):
        with suppress(KeyError):  # it names one that isn't here
            found[i] = group_of(nodes[i], nodes, groups)
            groups.setdefault(found[i], []).append(i)
    return found


def selections_of(document: model.Document) -> list[Selection]:
    found = []
    nodes = {EntryId(i): node_of(e, document.entries) for i, e in document.entries.items()}
    real = groups_of_all(nodes)
    groups = {document.group(i): real[EntryId(i)] for i in document.entries if EntryId(i) in real}
    for (group, session), (lamport, entry) in document.selection.items():
        if group in groups:
            found.append(Selection(groups[group], session, lamport, EntryId(entry)))
    return found


def feed(order: Order, document: model.Document, rng: random.Random) -> None:
    entries = list(document.entries.values())
    rng.shuffle(entries)
    for entry in entries + entries[: len(entries) // 3]:
        order.put(node_of(entry, document.entries))
        if rng.random() < 0.1:
            order.now()
    feed_acts(order, document)


def feed_acts(order: Order, document: model.Document) -> None:
    for act in selections_of(document):
        order.select(act)
    marks: dict[str, list[Erase]] = {}
    for (entry, session), (lamport, seen) in sorted(document.erased.items()):
        known = None if seen is None else frozenset(EntryId(i) for i in seen)
        marks.setdefault(entry, []).append(Erase(session, lamport, known))
    for entry, erases in marks.items():
        order.erase(EntryId(entry), tuple(erases))
    for entry in document.kept:
        order.keep(f"keep:{entry}:s", EntryId(entry))


def transcript(order: Order) -> tuple[str, ...]:
    now = order.now()
    return (*now.head, *now.tail)


def places(order: Order) -> list[tuple[str, str | None]]:
    return [(i, order.now().pins.get(EntryId(i))) for i in transcript(order)]


def grow(rng: random.Random, replicas: int, steps: int, *, near: int = 100) -> tuple[list[model.Document], list[Order]]:
    """One schedule: every replica has a model document and an incrementally kept real order. ``near``: how many of the
    last entries are edited and selected."""
    documents = [model.Document() for _ in range(replicas)]
    orders = [Order() for _ in range(replicas)]
    asked: list[str] = []  # turns that answers were asked for, on whatever list
    for n in range(steps):
        k = rng.randrange(replicas)
        document, order, act = documents[k], orders[k], rng.random()
        new, lamport, before = f"{rng.randrange(10**6):06d}.{n}", document.next_lamport(), document.transcript()
        stood, order.steady = places(order), len(before)
        entry: model.Entry | None = None
        if act < 0.3:
            entry = model.Entry(new, rng.choice(("user", "user", "system")), document.tips(), lamport)
        elif act < 0.5:
            turn = rng.choice(asked) if asked and rng.random() < 0.4 else None
            entry = model.Entry(new, "assistant", document.tips(), lamport, frame=before, turn=turn)
        elif act < 0.6 and (calls := [i for i in document.sound() if document.entries[i].role == "assistant"]):
            call = rng.choice(calls)  # it may be hidden by now; an older writer took the tips for parents
            entry = model.Entry(new, "tool", (call,) if rng.random() < 0.8 else document.tips(), lamport, answers=call)
        elif act < 0.7 and before:
            old = document.entries[rng.choice(before[-near:])]
            if old.role != "tool":
                saw = document.known_erased(old.id) if rng.random() < 0.8 else frozenset()
                entry = model.Entry(
                    new, old.role, old.parents, lamport, old.id, old.frame, None, f"session{k}", saw, old.turn
                )
        elif act < 0.74 and document.sound():
            document.select(rng.choice(document.by_age(document.sound())[-near:]), f"session{k}")
        elif act < 0.84 and document.sound():
            edited = {e.alternative_of for d in documents for e in d.entries.values()} & document.sound().keys()
            chosen = rng.choice(document.by_age(edited or document.sound())[-near:])
            new_mark = (chosen, f"session{k}") not in document.erased
            document.erase(chosen, f"session{k}")
            if new_mark and rng.random() < 0.2:  # as marks were before they said what had been seen
                document.erased[chosen, f"session{k}"] = (document.next_lamport(), None)
            elif rng.random() < 0.3:
                entry = model.Entry(new, "user", document.tips(), document.next_lamport())
        elif act < 0.9 and document.withheld():
            document.kept.add(rng.choice(sorted(document.withheld())))
        elif act < 0.87:
            entry = model.Entry(f"junk.{n}", "user", (f"nowhere{rng.randrange(2)}",), rng.randrange(10**6), None)
        else:
            document.merge(documents[rng.randrange(replicas)])
        if rng.random() < 0.15:
            asked.append(model.turn_after(document.tips(), document.transcript()))
        if entry is not None:
            document.entries[entry.id] = entry
            order.put(node_of(entry, document.entries))
        else:
            feed(order, document, rng)
        feed_acts(order, document)
        check(order, document)
        assert places(order)[: order.steady] == stood[: order.steady]
    return documents, orders


def check(order: Order, document: model.Document) -> None:
    assert transcript(order) == document.transcript()
    assert order.now().visible == document.visible()
    assert tuple(order.now().tips) == document.tips()
    assert sorted(order.now().malformed) == document.malformed()
    assert {i: [x] for i, x in order.now().withheld.items()} == {i: x[:1] for i, x in document.withheld().items()}
    assert {i for i, hider in order.now().hidden_by.items() if hider.withheld} == document.dark()
    fresh = Order()
    feed(fresh, document, random.Random(1))
    assert transcript(fresh) == transcript(order)
    assert fresh.now().hidden_by == order.now().hidden_by
    assert (fresh.now().pins, fresh.now().tips) == (order.now().pins, order.now().tips)
    assert (fresh.now().malformed, fresh.newest()) == (order.now().malformed, order.newest())
    assert fresh.sound() == order.sound()
    places_of = {i: place for place, i in enumerate(order.sound())}
    assert all(places_of[i] < place for i, place in places_of.items() for i in order.sound()[i].references)
    for entry in document.sound():
        assert fresh.members(EntryId(entry)) == order.members(EntryId(entry))
        assert fresh.branch_points_on_path(EntryId(entry)) == order.branch_points_on_path(EntryId(entry))
    assert sorted({*order.now().visible, *order.now().hidden_by, *order.now().malformed}) == sorted(document.entries)
    if order.now().generation:
        latest = order.sound()[order.now().generation]
        ids, pins = order.frame_list(latest.frame)
        assert order.now().head == [*ids, latest.id]
        assert order.now().pins == pins


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 4), st.integers(1, 40))
@example(1060, 1, 13)  # an entry that follows what stands before another branch
def test_the_order_is_the_one_the_rules_state(seed: int, replicas: int, steps: int) -> None:
    grow(random.Random(seed), replicas, steps)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 3))
def test_what_is_counted_again_is_what_the_rules_state(seed: int, near: int) -> None:
    """Changes near the end of a longer conversation: most of it is not looked at again."""
    grow(random.Random(seed), 2, 60, near=near)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32))
def test_one_document_has_one_order_whatever_the_delivery(seed: int) -> None:
    rng = random.Random(seed)
    documents, _ = grow(rng, 3, 25)
    for a in documents:
        for b in documents:
            a.merge(b)
    seen = set()
    for document in documents:
        order = Order()
        feed(order, document, rng)
        seen.add(transcript(order))
    assert len(seen) == 1


def test_the_schedules_withhold_and_keep() -> None:
    """The rules are not blamed for what never happens in them."""
    withheld = kept = followed = 0
    for seed in range(60):
        documents, _ = grow(random.Random(seed), 3, 40)
        withheld += any(document.withheld() for document in documents)
        followed += any(len(document.dark()) > len(document.withheld()) for document in documents)
        kept += any(document.kept for document in documents)
    assert withheld > 4
    assert followed > 0
    assert kept > 0


def test_a_long_linear_conversation_is_never_recounted() -> None:
    """The incremental path must carry the usual case: a chat of turns, on whoever receives it in order."""
    order, names = Order(), []
    for n in range(200):
        names.append(f"{n:06d}")
        frame = frame_of_list(names[:-1]) if n % 2 else None
        order.put(Node(EntryId(names[-1]), tuple(EntryId(i) for i in names[-2:-1]), n + 1, frame=frame))
        assert not order._stale
        assert transcript(order) == tuple(names)


def test_a_change_near_the_end_looks_at_nothing_before_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same cost in a long conversation as in a short one: edits, answers in place of others, selections."""
    order, names, counted = Order(), list[str](), list[int]()

    def counting(low: dict[EntryId, Node], *rest: Any) -> tuple[Arrangement, int]:
        counted.append(len(low))
        return recount(low, *rest)

    monkeypatch.setattr("llmcrdt.document.order.recount", counting)
    for n in range(300):
        frame = frame_of_list(names) if n % 2 else None
        parents = tuple(EntryId(i) for i in names[-1:])
        names.append(f"{n:06d}")
        node = Node(EntryId(names[-1]), parents, 3 * n + 1, frame=frame)
        order.put(node)
        order.put(Node(EntryId(f"{n:06d}again"), parents, 3 * n + 2, alternative_of=node.id, frame=frame))
        assert transcript(order) == (*names[:-1], f"{n:06d}again")
        order.select(Selection(order.group(node.id), "s", 3 * n + 3, node.id))
        assert transcript(order) == tuple(names)
    assert max(counted) <= 4
    assert len(order.now().hidden_by) == 300


def frame_of_list(names: list[str]) -> Frame:
    hash_ = extend_frame_hash(EMPTY_FRAME, [pin(i) for i in names])
    if len(names) < 2:
        return Frame(None, tuple(pin(i) for i in names), hash_)
    return Frame(pin(names[-2]), (pin(names[-1]),), hash_)


def test_a_person_s_edit_of_an_answer_stands_in_its_place() -> None:
    """The edit has no frame (a person made it), and yet belongs to the answer's group."""
    order = Order()
    order.put(Node(EntryId("u"), (), 1))
    order.put(Node(EntryId("a"), (EntryId("u"),), 2, frame=frame_of_list(["u"])))
    order.put(Node(EntryId("b"), (EntryId("u"),), 3, alternative_of=EntryId("a")))
    assert transcript(order) == ("u", "b")
    assert order.members(EntryId("a")) == ["a", "b"]


def test_results_of_several_calls_are_never_recounted() -> None:
    """They stand beside each other, each on its call, and not one on the other."""
    order = Order()
    order.put(Node(EntryId("a"), (), 1))
    for n in range(3):
        order.put(Node(EntryId(f"r{n}"), (EntryId("a"),), n + 2, answers=EntryId("a")))
        assert not order._stale
    order.put(Node(EntryId("u"), (EntryId("r0"), EntryId("r1"), EntryId("r2")), 5))
    order.put(Node(EntryId("r3"), (EntryId("a"),), 6, answers=EntryId("a")))
    assert not order._stale
    assert transcript(order) == ("a", "r0", "r1", "r2", "r3", "u")
    assert order.now().tips == ("u", "r3")


def test_what_an_erase_withholds_decides_no_branch_point_above_it() -> None:
    """``late`` was the entry written last on the branch of ``u``; withheld, it says nothing of which branch lives.

    All was shown and counted before the erase came, and of that only the end is below a waist."""
    order = Order()
    order.put(Node(EntryId("u"), (), 1))
    order.put(Node(EntryId("v"), (EntryId("u"),), 2))
    order.put(Node(EntryId("other"), (), 3, alternative_of=EntryId("u")))
    order.put(Node(EntryId("late"), (EntryId("u"),), 4, alternative_of=EntryId("v")))
    assert transcript(order) == ("u", "late")
    order.erase(EntryId("v"), (Erase("s", 5, frozenset()),))
    assert transcript(order) == ("other",)
    order.keep("keep:late:s", EntryId("late"))
    assert transcript(order) == ("u", "late")
    order.keep("keep:late:s", None)
    assert transcript(order) == ("other",)
    order.erase(EntryId("late"), (Erase("s", 6, frozenset()),))
    assert transcript(order) == ("u", "late"), "an erased entry is withheld no more"


def test_a_selection_of_a_withheld_entry_counts_again_when_somebody_keeps_it() -> None:
    """It was chosen at a branch point above: the reason why another branch is hidden is the selection."""
    order = Order()
    order.put(Node(EntryId("u"), (), 1))
    order.put(Node(EntryId("other"), (), 2, alternative_of=EntryId("u")))
    order.put(Node(EntryId("v"), (EntryId("u"),), 3))
    order.put(Node(EntryId("late"), (EntryId("u"),), 4, alternative_of=EntryId("v")))
    order.select(Selection("u", "s", 5, EntryId("late")))
    hidden = order.now().hidden_by
    assert (transcript(order), hidden[EntryId("other")].way) == (("u", "late"), "late")
    order.erase(EntryId("v"), (Erase("s", 6, frozenset()),))
    assert (transcript(order), order.now().hidden_by[EntryId("other")].way) == (("u", "v"), "u")
    order.keep("keep:late:s", EntryId("late"))
    assert (transcript(order), order.now().hidden_by) == (("u", "late"), hidden)


def happen(rng: random.Random, steps: int) -> list[Callable[[Order], None]]:
    """Deeds of people and strangers, in an order in which they may arrive: edits beside erases above all, keeps, marks
    that are taken away, selections. Each as the call that tells an order."""
    nodes: dict[EntryId, Node] = {}
    found: list[Callable[[Order], None]] = []
    for n in range(steps):
        names, act = [*nodes], rng.random()
        some = rng.choice(names) if names else None
        if act < 0.5 or some is None:
            old = nodes[some] if some is not None and rng.random() < 0.6 else None
            parents = (
                old.parents if old else tuple(sorted(rng.sample(names, min(len(names), rng.choice((1, 1, 1, 2))))))
            )
            above = max((nodes[i].lamport for i in (*parents, *([old.id] if old else []))), default=0)
            origin = old.id if old else None
            node = Node(EntryId(f"{n:02d}"), parents, above + rng.randint(1, 4), origin, session=SessionId("s"))
            nodes[node.id] = node
            found.append(partial(Order.put, node=node))
        elif act < 0.8:
            mark = Erase("s", 50, frozenset(i for i in names if rng.random() < 0.2))
            marks = () if rng.random() < 0.2 else (mark,)
            found.append(partial(Order.erase, entry=some, marks=marks))
        elif act < 0.9:
            key, kept = f"keep:{rng.randrange(3)}", some if rng.random() < 0.7 else None
            found.append(partial(Order.keep, act=key, entry=kept))
        else:
            group = group_of(nodes[rng.choice([some, *sorted(ancestors(nodes[some], nodes))])], nodes, {})
            chosen = Selection(group, rng.choice("ab"), nodes[some].lamport + rng.randint(0, 5), some)
            found.append(partial(Order.select, act=chosen))
    return found


def test_what_is_counted_on_the_way_changes_nothing_of_what_is_found() -> None:
    """To ask after each change finds the same as to ask once at the end."""
    for seed in range(400):
        asked, happened = Order(), happen(random.Random(seed), 9)
        for n, tell in enumerate(happened):
            tell(asked)
            later = Order()
            for each in happened[: n + 1]:
                each(later)
            assert asked.now() == later.now(), seed


def test_what_is_selected_is_shown_whatever_a_stranger_made_it_follow() -> None:
    """An entry and its edit are never shown together; a stranger can write on both all the same."""
    order = Order()
    order.put(Node(EntryId("u"), (), 1))
    order.put(Node(EntryId("v"), (), 2, alternative_of=EntryId("u")))
    order.put(Node(EntryId("x"), (EntryId("u"), EntryId("v")), 3))
    order.put(Node(EntryId("y"), (EntryId("u"),), 4))
    assert transcript(order) == ("u", "y")
    order.select(Selection("u", "s", 5, EntryId("x")))
    assert transcript(order) == ("u", "y", "v", "x")


def test_malformed_frames_take_no_part() -> None:
    """A stranger may write any frame: repeated entries, a wrong hash, entries it does not follow."""
    u, v = Node(EntryId("u"), (), 1), Node(EntryId("v"), (), 1)
    bad = [
        Frame(None, (pin("u"), pin("u")), extend_frame_hash(EMPTY_FRAME, [pin("u"), pin("u")])),
        Frame(None, (pin("u"),), extend_frame_hash(EMPTY_FRAME, [pin("v")])),
        Frame(None, (pin("v"),), extend_frame_hash(EMPTY_FRAME, [pin("v")])),
        Frame(pin("u"), (), extend_frame_hash(EMPTY_FRAME, [pin("u")])),
    ]
    for n, frame in enumerate(bad):
        order = Order()
        order.put(u)
        order.put(v)
        order.put(Node(EntryId(f"bad{n}"), (EntryId("u"),), 5, frame=frame))
        assert transcript(order) == ("u", "v")
        assert list(order.now().malformed) == [f"bad{n}"]


def test_a_frame_that_repeats_what_its_base_holds_is_malformed() -> None:
    order = Order()
    order.put(Node(EntryId("u"), (), 1))
    order.put(Node(EntryId("a"), (EntryId("u"),), 2, frame=frame_of_list(["u"])))
    pins = [pin("a"), pin("u")]
    hash_ = extend_frame_hash(extend_frame_hash(EMPTY_FRAME, [pin("u")]), pins)
    order.put(Node(EntryId("b"), (EntryId("a"),), 3, frame=Frame(pins[0], (pins[1],), hash_)))
    assert list(order.now().malformed) == ["b"]
