"""WaistSearch: what is counted again is all that a change can move, and no more where that can be told."""

from __future__ import annotations

import pytest

from llmcrdt.document.arrangement import Arrangement
from llmcrdt.document.decisions import Decisions
from llmcrdt.document.entry_graph import EntryGraph
from llmcrdt.document.nodes import Erase, Node
from llmcrdt.document.waist import WaistSearch
from llmcrdt.ids import EntryId

NAMES = [EntryId(f"{n:02d}") for n in range(20)]


@pytest.fixture
def chain() -> EntryGraph:
    """Entries that follow one another."""
    graph = EntryGraph()
    for n, name in enumerate(NAMES):
        graph.put(Node(name, tuple(NAMES[max(0, n - 1) : n]), n + 1))
    graph.add_all()
    return graph


def add(graph: EntryGraph, node: Node) -> tuple[list[EntryId], EntryId | None]:
    """Add an entry to the chain, all of which was shown: the entries below the waist, and the waist."""
    now = Arrangement(tail=NAMES.copy(), visible=set(NAMES), tips=(NAMES[-1],))
    graph.put(node)
    low, waist = WaistSearch(graph, Decisions(), now).find(graph.add_sound([node.id]), set())
    return [*low], waist


@pytest.mark.parametrize("n", range(1, 20))
def test_below_the_waist_stands_what_an_edit_moves(chain: EntryGraph, n: int) -> None:
    edit = Node(EntryId("edit"), (NAMES[n - 1],), 30, alternative_of=NAMES[n])
    assert add(chain, edit) == ([*NAMES[n:], "edit"], NAMES[n - 1])


@pytest.mark.parametrize("n", range(19))
def test_an_entry_that_goes_on_from_an_older_one_moves_all_that_follows_that(chain: EntryGraph, n: int) -> None:
    assert add(chain, Node(EntryId("late"), (NAMES[n],), 30)) == ([*NAMES[n + 1 :], "late"], NAMES[n])


def test_a_beginning_of_its_own_has_no_waist(chain: EntryGraph) -> None:
    assert add(chain, Node(EntryId("own"), (), 30)) == ([*NAMES, "own"], None)


def test_a_result_that_is_not_on_its_call_has_all_counted(chain: EntryGraph) -> None:
    result = Node(EntryId("result"), (NAMES[-1],), 30, answers=NAMES[5])
    assert add(chain, result) == ([*NAMES, "result"], None)


def test_what_stands_somewhere_else_in_the_transcript_is_no_waist(chain: EntryGraph) -> None:
    """Places are compared: what is shown below the waist has to stand at the end, right after it."""
    now = Arrangement(tail=[NAMES[-1], *NAMES[:-1]], visible=set(NAMES), tips=(NAMES[-1],))
    node = Node(EntryId("edit"), (NAMES[-2],), 30, alternative_of=NAMES[-1])
    chain.put(node)
    low, waist = WaistSearch(chain, Decisions(), now).find(chain.add_sound([node.id]), set())
    assert ([*low], waist) == ([*NAMES, "edit"], None)


@pytest.mark.parametrize(("seen", "expected"), [((), NAMES[2]), (("edit",), NAMES[14])])
def test_what_an_erase_withholds_is_counted_with_every_branch_point_above(
    chain: EntryGraph, seen: tuple[str, ...], expected: EntryId
) -> None:
    """A withheld entry no longer decides the branch there. An erase that withholds nothing moves nothing above."""
    chain.put(Node(EntryId("old"), (NAMES[2],), 5, alternative_of=NAMES[3]))
    chain.put(Node(EntryId("edit"), (NAMES[14],), 30, alternative_of=NAMES[15]))
    chain.group(chain.add_sound([EntryId("old"), EntryId("edit")]))
    decisions = Decisions()
    decisions.erase(NAMES[15], (Erase("s", 31, frozenset(map(EntryId, seen))),))
    shown = [*NAMES[:15], EntryId("edit")]
    now = Arrangement(tail=shown, visible=set(shown), tips=(shown[-1],))
    low, waist = WaistSearch(chain, decisions, now).find({}, {NAMES[15]})
    assert waist == expected
    assert [*low][-1] == "edit"
