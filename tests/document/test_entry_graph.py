"""EntryGraph: what takes part, whatever the order in which entries come."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from llmcrdt.document.entry_graph import EntryGraph
from llmcrdt.document.nodes import Node
from llmcrdt.ids import EntryId


def some_nodes(rng: random.Random, count: int) -> list[Node]:
    """Entries that follow older ones; some refer to entries that there are not, or to younger ones."""
    names = [EntryId(f"{n:03d}") for n in range(count)]
    found = []
    for n, name in enumerate(names):
        older = names[max(0, n - 4) : n]
        parents = tuple(rng.sample(older, min(len(older), rng.choice((1, 1, 1, 2)))))
        if rng.random() < 0.1:
            parents = (rng.choice((EntryId("missing"), names[-1])),)
        alternative = rng.choice(older) if older and rng.random() < 0.3 else None
        found.append(Node(name, parents, n + 1, alternative_of=alternative))
    return found


def graph_of(nodes: list[Node], rng: random.Random, batch: int) -> EntryGraph:
    """The nodes put in batches; those of a batch that are sound are moved to their places, as a recount does it."""
    graph, left = EntryGraph(), nodes.copy()
    rng.shuffle(left)
    while left:
        some, left = left[:batch], left[batch:]
        for node in some:
            assert not graph.put(node)
        if graph.add_sound(node.id for node in some):
            graph.move(dict(sorted(graph.sound.items(), key=lambda item: item[1].age)))
    return graph


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 30), st.integers(1, 10))
def test_what_takes_part_depends_on_no_order_of_arrival(seed: int, count: int, batch: int) -> None:
    rng = random.Random(seed)
    nodes = some_nodes(rng, count)
    graph, whole = graph_of(nodes, rng, batch), graph_of(nodes, rng, count)
    assert list(graph.sound) == list(whole.sound)
    assert graph.groups == whole.groups
    assert (graph.malformed.keys(), graph.newest, graph.youngest) == (
        whole.malformed.keys(),
        whole.newest,
        whole.youngest,
    )
    assert {*graph.sound, *graph.malformed} == {node.id for node in nodes}
    for i, node in graph.sound.items():
        assert all(reference in graph.sound for reference in node.references)
        assert i in graph.members(i)
        assert all(i in graph.children[other] for other in node.follows)
        assert graph.made_of(i).isdisjoint(graph.origins(i))
    assert sorted(i for members in graph.groups.values() for i in members) == sorted(graph.sound)


def test_an_entry_takes_part_once_the_one_it_waits_for_has_come() -> None:
    graph = EntryGraph()
    a, b, c = (EntryId(name) for name in "abc")
    for node in (Node(c, (b,), 3), Node(b, (a,), 2)):
        graph.put(node)
        assert graph.add_sound([node.id]) == {}
    assert graph.malformed.keys() == {b, c}
    graph.put(Node(a, (), 1))
    assert [*graph.add_sound([a])] == [a, b, c]
    assert (graph.malformed, graph.awaited, graph.newest) == ({}, {}, {c})


def test_put_says_whether_something_else_was_known() -> None:
    graph, a = EntryGraph(), EntryId("a")
    assert not graph.put(Node(a, (), 1))
    assert graph.put_unreadable(a, "no head")
    assert not graph.put_unreadable(a, "no head")
    assert graph.put(Node(a, (), 1))
    assert graph.put(Node(a, (), 2))
