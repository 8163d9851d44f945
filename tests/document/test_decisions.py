"""Decisions: what counts of the acts and marks, in whatever order they come."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from llmcrdt.document.decisions import Decisions
from llmcrdt.document.nodes import REACH, Erase, Selection
from llmcrdt.ids import EntryId

acts = st.builds(
    Selection,
    group=st.sampled_from(["g", "h"]),
    session=st.sampled_from(["s", "t"]),
    lamport=st.integers(1, 3),
    entry=st.sampled_from([EntryId("a"), EntryId("b")]),
)


@given(st.lists(acts))
def test_of_one_session_s_selections_the_latest_counts(given_acts: list[Selection]) -> None:
    decisions, latest = Decisions(), dict[tuple[str, str], Selection]()
    for act in given_acts:
        known = latest.get((act.group, act.session))
        news = known is None or (act.lamport, act.entry) > (known.lamport, known.entry)
        assert decisions.select(act) is news
        if news:
            latest[act.group, act.session] = act
            assert act.group in decisions.groups_naming(act.entry)
    for group in ("g", "h"):
        assert set(decisions.selections({group})) == {act for act in latest.values() if act.group == group}
    for act in given_acts:
        counts = latest.get((act.group, act.session)) == act
        assert decisions.unselect(act) is counts
        if counts:
            del latest[act.group, act.session]
    assert list(decisions.selections({"g", "h"})) == []


def test_a_change_says_whether_it_changed_anything() -> None:
    decisions, a, b = Decisions(), EntryId("a"), EntryId("b")
    marks = (Erase("s", 1, None),)
    assert not decisions.erase(a, ())
    assert decisions.erase(a, marks)
    assert not decisions.erase(a, marks)
    assert decisions.erase(a, ())
    assert decisions.erases == {}
    assert decisions.keep("act", a) == {a}
    assert decisions.keep("act", a) == set()
    assert decisions.keep("act", b) == {a, b}
    assert decisions.kept() == {b}
    assert decisions.keep("act", None) == {b}
    assert decisions.kept() == set()


def test_an_act_out_of_reach_takes_no_lamport_away() -> None:
    decisions = Decisions()
    decisions.note_lamport(5, youngest=3)
    decisions.note_lamport(4, youngest=3)
    decisions.note_lamport(3 + REACH, youngest=3)
    assert decisions.latest == 5
