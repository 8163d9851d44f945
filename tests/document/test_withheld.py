"""O7: what somebody said in the place of an erased entry, without knowing of the erase, waits until people decide."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pycrdt
import pytest

import llmcrdt
from llmcrdt.document.conversation import core_of
from llmcrdt.exceptions import Withheld
from llmcrdt.ids import EntryId
from llmcrdt.prompt.messages import messages

from ..replicas import exchange, stands

OpenRepo = Callable[..., llmcrdt.Repo]
SECRET = "Rumpelstilzchen"


def texts(conversation: llmcrdt.Conversation) -> list[str]:
    return [entry.text for entry in conversation.transcript()]


def aside(conversation: llmcrdt.Conversation) -> list[tuple[str, EntryId]]:
    return [(e.entry.text, e.hidden_by) for e in conversation.transcript().elsewhere if e.way == "withheld"]


Said = tuple[llmcrdt.Repo, llmcrdt.Conversation, llmcrdt.Repo, llmcrdt.Conversation, llmcrdt.Entry]


@pytest.fixture
def said(open_repo: OpenRepo) -> Said:
    """Two devices, and an entry on both that will be erased."""
    laptop = open_repo("laptop")
    here = laptop.create()
    here.append("system", "Be brief.")
    entry = here.append("user", f"My name is {SECRET}")
    phone = open_repo("phone", laptop.library)
    there = phone.join(here.id)
    exchange(here, there)
    return laptop, here, phone, there, entry


def test_o7_an_edit_beside_an_erase_is_withheld_until_somebody_keeps_it(said: Said) -> None:
    laptop, here, phone, there, entry = said
    heard: list[EntryId] = []
    edit = there.edit(entry, f"My name is {SECRET}, I said")
    there.append("user", "Do you hear?")
    assert texts(there)[1].endswith("I said")
    core_of(there).observers.dispatch = lambda call: call()
    there.observe(lambda change: heard.extend(change.removed))
    here.erase(entry)
    exchange(here, there)
    follower = there.transcript().elsewhere[-1].entry
    assert set(heard) == {edit.id, follower.id}, "observers are told that it left"
    for repo, conversation in ((laptop, here), (phone, there)):
        assert texts(conversation) == ["Be brief.", ""]
        assert aside(conversation) == [(f"My name is {SECRET}, I said", entry.id), ("Do you hear?", edit.id)]
        assert all(found.unseen for found in conversation.transcript().elsewhere)
        assert [e.id for e in conversation.alternatives(entry)] == [entry.id]
        assert SECRET not in str(messages(conversation.transcript()))
        assert repo.search(SECRET, elsewhere=True) == []
        assert repo.search("hear", elsewhere=True) == [], "nor what may answer the words"
        with pytest.raises(Withheld, match=edit.id):
            conversation.select(edit)
        with pytest.raises(Withheld, match=edit.id):
            conversation.select(follower)
    assert here.transcript().hash == there.transcript().hash
    here.keep(edit)
    exchange(here, there)
    for repo, conversation in ((laptop, here), (phone, there)):
        assert texts(conversation) == ["Be brief.", f"My name is {SECRET}, I said", "Do you hear?"]
        assert aside(conversation) == []
        assert [hit.entry for hit in repo.search(SECRET)] == [edit.id]
    there.erase(edit)
    exchange(here, there)
    assert texts(here) == texts(there) == ["Be brief.", "", "Do you hear?"]


def test_o7_an_edit_that_comes_a_year_after_the_erase_is_withheld(open_repo: OpenRepo, said: Said) -> None:
    """Also where the erase was long forgotten, the process is another one, and much was said since."""
    laptop, here, _, there, entry = said
    for n in range(3):
        there.edit(entry, f"{SECRET} {n}")
    there.append("assistant", f"Hello {SECRET}", frame=there.transcript())
    here.erase(entry)
    for n in range(20):
        here.append("user", f"later {n}")
    laptop.close()
    laptop = open_repo("laptop")
    here = laptop.get(here.id)
    here.apply(there.diff())
    laptop.close()
    laptop = open_repo("laptop")
    here = laptop.get(here.id)
    assert [e.text for e in here.entries(last=50)] == ["Be brief.", "", *(f"later {n}" for n in range(20))]
    assert not core_of(here).document.loaded, "the tables say so"
    assert laptop.search(SECRET, elsewhere=True) == []
    assert texts(here)[1:3] == ["", "later 0"]
    assert [words for words, _ in aside(here)] == [*(f"{SECRET} {n}" for n in range(3)), f"Hello {SECRET}"]
    there.apply(here.diff())
    assert there.transcript().hash == here.transcript().hash
    assert aside(there) == aside(here)


def test_o7_a_branch_lives_no_longer_through_what_an_erase_withholds(said: Said, open_repo: OpenRepo) -> None:
    """A device that had counted the edit before the erase came shows the same as one that hears of both at once."""
    _, here, _, there, entry = said
    answer = here.append("user", f"Once more: {SECRET}")
    tablet = open_repo("tablet").join(here.id)
    exchange(here, there, tablet)
    here.edit(entry, "My name doesn't matter")
    late = there.edit(there.edit(answer, SECRET), f"{SECRET}!")
    exchange(here, there)
    shown = ["Be brief.", entry.text, f"{SECRET}!"]
    assert texts(here) == texts(there) == shown, "the branch on which somebody wrote last"
    tablet.erase(answer)
    exchange(here, there, tablet)
    assert texts(here) == texts(there) == texts(tablet) == ["Be brief.", "My name doesn't matter"]
    assert stands(here) == stands(there) == stands(tablet)
    here.keep(late)
    exchange(here, there, tablet)
    assert texts(here) == texts(there) == texts(tablet) == shown
    assert stands(here) == stands(there) == stands(tablet)


def test_o7_what_whoever_erased_had_seen_is_not_withheld(said: Said) -> None:
    _, here, _, there, entry = said
    better = there.edit(entry, "My name is a secret")
    exchange(here, there)
    here.erase(entry)
    exchange(here, there)
    for conversation in (here, there):
        assert texts(conversation)[1] == "My name is a secret"
        assert aside(conversation) == []
    later = there.edit(better, "My name doesn't matter")
    last = here.edit(entry, "I have no name")
    exchange(here, there)
    for conversation in (here, there):
        assert {e.id for e in conversation.alternatives(entry)} == {entry.id, better.id, later.id, last.id}
        assert aside(conversation) == []


def test_o7_to_erase_once_more_brings_nothing_back(said: Said, open_repo: OpenRepo) -> None:
    """An erase says which alternatives were seen and left. A withheld one was not left by that."""
    _, here, _, there, entry = said
    edit = there.edit(entry, f"Call me {SECRET}")
    here.erase(entry)
    tablet = open_repo("tablet").join(here.id)
    exchange(here, there, tablet)
    for conversation in (there, tablet, here):
        conversation.erase(entry)
        exchange(here, there, tablet)
        assert aside(conversation) == [(f"Call me {SECRET}", entry.id)]
    assert here.erase(edit).entries == (edit.id,)
    exchange(here, there, tablet)
    assert [aside(conversation) for conversation in (here, there, tablet)] == [[], [], []]
    assert texts(there) == texts(here) == ["Be brief.", ""]


def test_o7_an_edit_of_an_edit_is_withheld_as_well(said: Said) -> None:
    """It was made of the words all the same. An editor of a withheld entry has seen that it is."""
    _, here, _, there, entry = said
    first = there.edit(entry, f"{SECRET}!")
    second = there.edit(first, f"{SECRET}!!")
    here.erase(entry)
    exchange(here, there)
    assert aside(here) == [(f"{SECRET}!", entry.id), (f"{SECRET}!!", entry.id)]
    third = here.edit(second, "Nobody!")
    exchange(here, there)
    assert texts(there) == texts(here) == ["Be brief.", "Nobody!"]
    assert aside(there) == [(f"{SECRET}!", entry.id), (f"{SECRET}!!", entry.id)]
    here.keep(third)
    here.keep(entry)
    exchange(here, there)
    assert here.transcript().ids == (here.transcript()[0].id, third.id)


def test_o7_an_answer_that_grows_beside_its_erase_is_withheld(said: Said) -> None:
    _, here, _, there, _ = said
    answer = here.append("assistant", f"Hello {SECRET}", frame=here.transcript())
    exchange(here, there)
    with there.stream("assistant", instead_of=answer) as stream:
        stream.write(f"Good day {SECRET}")
        stream.flush()
        here.erase(answer)
        exchange(here, there)
    exchange(here, there)
    assert texts(here) == texts(there) == ["Be brief.", f"My name is {SECRET}", ""]
    assert aside(here) == aside(there) == [(f"Good day {SECRET}", answer.id)]


def test_o7_an_edited_tool_result_beside_its_erase_is_withheld(said: Said) -> None:
    _, here, _, there, entry = said
    asked = here.append("assistant", [llmcrdt.ToolCall("c", "who", "{}")], frame=here.transcript())
    result = here.append("tool", SECRET, call=asked.tool_calls[0])
    exchange(here, there)
    there.edit(result, f"It was {SECRET}")
    here.erase(result)
    exchange(here, there)
    for conversation in (here, there):
        assert [e.id for e in conversation.results(asked.tool_calls[0])] == [result.id]
        assert texts(conversation) == ["Be brief.", entry.text, "", ""]
        assert aside(conversation) == [(f"It was {SECRET}", result.id)]


def test_o7_two_erases_at_once_withhold_only_what_neither_had_seen(said: Said, open_repo: OpenRepo) -> None:
    _, here, _, there, entry = said
    tablet = open_repo("tablet").join(here.id)
    exchange(here, tablet)
    there.edit(entry, "seen by one")
    exchange(there, tablet)
    here.edit(entry, "seen by the other")
    tablet.erase(entry)
    here.erase(entry)
    there.edit(entry, "seen by none")
    exchange(here, there, tablet)
    for conversation in (here, there, tablet):
        assert [words for words, _ in aside(conversation)] == ["seen by none"]
        assert len(conversation.alternatives(entry)) == 3


def strip(conversation: llmcrdt.Conversation, entry: llmcrdt.Entry) -> None:
    """Marks and heads as they were written before they said what their authors had seen."""
    doc: Any = pycrdt.Doc()
    doc.apply_update(conversation.diff())
    start = doc.get_state()
    entries = doc.get("entries", type=pycrdt.Map)
    for name in list(entries[entry.id]):
        if name.startswith("erased:"):
            mark = json.loads(entries[entry.id][name])
            del mark["seen"]
            entries[entry.id][name] = json.dumps(mark)
    for fields in entries.values():
        head = json.loads(fields["head"])
        if head.pop("saw_erased", None):
            fields["head"] = json.dumps(head)
    conversation.apply(doc.get_update(start))


def test_o7_a_mark_that_does_not_say_what_was_seen_withholds_what_may_be_beside_it(said: Said) -> None:
    """The one who erased may have seen anything older; what that session wrote afterwards knew of the erase."""
    _, here, _, there, entry = said
    here.edit(entry, "before")
    here.erase(entry)
    here.edit(entry, "after")
    strip(here, entry)
    assert aside(here) == []
    for n in range(3):
        there.append("user", f"on the way {n}")
    there.edit(entry, f"beside it, {SECRET}")
    exchange(here, there)
    assert aside(here) == aside(there) == [(f"beside it, {SECRET}", entry.id)]


def test_o7_a_fork_withholds_the_same(said: Said) -> None:
    laptop, here, _, there, entry = said
    edit = there.edit(entry, f"Call me {SECRET}")
    here.erase(entry)
    exchange(here, there)
    here.edit(edit, "Call me nobody")
    fork = laptop.fork(here, at=here.transcript()[-1])
    assert texts(fork) == texts(here) == ["Be brief.", "Call me nobody"]
    assert aside(fork) == aside(here)
    here.keep(edit)
    again = laptop.fork(here, at=here.transcript()[-1])
    assert aside(again) == aside(here) == []


def test_o7_whatever_strangers_write_of_it_every_replica_withholds_the_same(said: Said, open_repo: OpenRepo) -> None:
    """Marks, heads and acts with values of any shape: a live object, a reopened one and another replica agree."""
    laptop, here, _, there, entry = said
    edit = there.edit(entry, f"Call me {SECRET}")
    here.erase(entry)
    exchange(here, there)
    doc: Any = pycrdt.Doc()
    doc.apply_update(here.diff())
    entries, acts = doc.get("entries", type=pycrdt.Map), doc.get("acts", type=pycrdt.Map)
    session = "S" * 22
    keep = f"keep:{edit.id}:{session}"
    marks = ["", "[]", "{}", '{"seen":1}', '{"seen":[1,null,{}],"lamport":true}', '{"lamport":1}', '{"seen":[]}', 7.0]
    heads = [{"saw_erased": [edit.id]}, {"saw_erased": [1]}, {"saw_erased": entry.id}, {"saw_erased": []}]
    lets_go = [f'{{"seen":["{edit.id}"]}}', f'{{"lamport":{1 << 40}}}']
    head = json.loads(entries[edit.id]["head"])
    seen: set[bool] = set()
    for n, mark in enumerate([*marks, *lets_go]):
        start = doc.get_state()
        entries[entry.id][f"erased:{session}"] = mark
        entries[f"{n:016d}"] = pycrdt.Map(
            {"head": json.dumps({**head, **heads[n % 4]}), "live:0:text": pycrdt.Text("x")}
        )
        acts[keep if n % 2 else "keep:x:y"] = ["{}", "", '{"lamport":0}', "null"][n % 4]
        here.apply(doc.get_update(start))
        assert {e.entry.id for e in here.transcript().elsewhere} <= set(entries)
        seen.add(edit.id in {e.entry.id for e in here.transcript().elsewhere if e.way == "withheld"})
        other = open_repo(f"other{n}").join(here.id)
        other.apply(doc.get_update())
        live = stands(here)
        laptop.close()
        laptop = open_repo("laptop")
        here = laptop.get(here.id)
        assert live == stands(here) == stands(other)
    assert seen == {True, False}


def test_o7_an_edit_whose_own_erase_a_stranger_takes_away_is_withheld_again(said: Said, open_repo: OpenRepo) -> None:
    """An edit that is erased as well has nothing to withhold; without that mark, and with text, it has."""
    laptop, here, _, there, entry = said
    edit = there.edit(entry, f"Call me {SECRET}")
    here.erase(entry)
    exchange(here, there)
    here.erase(edit)
    assert aside(here) == []
    doc: Any = pycrdt.Doc()
    doc.apply_update(here.diff())
    start = doc.get_state()
    fields = doc.get("entries", type=pycrdt.Map)[edit.id]
    for name in [name for name in fields if name.startswith("erased:")]:
        del fields[name]
    fields["live:0:text"] = pycrdt.Text("Call me again")
    here.apply(doc.get_update(start))
    assert aside(here) == [("Call me again", entry.id)]
    live = stands(here)
    laptop.close()
    assert live == stands(open_repo("laptop").get(here.id))
