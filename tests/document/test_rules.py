"""Each rule of docs/semantics.md by itself: the smallest case that fails when that rule alone is broken.

``make mutate`` breaks each rule in the code and checks that its test here (or the one it names) fails.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pycrdt
import pytest

import llmcrdt
from llmcrdt.document.conversation import core_of
from llmcrdt.document.frame import EMPTY_FRAME, extend_frame_hash
from llmcrdt.document.transcript import Elsewhere, EntryReader, Ids, Transcript
from llmcrdt.document.view import ConversationView
from llmcrdt.ids import tagged_hash

from ..replicas import exchange

OpenRepo = Callable[..., llmcrdt.Repo]


def texts(conversation: llmcrdt.Conversation) -> list[str]:
    return [entry.text for entry in conversation.transcript()]


@pytest.fixture
def two(open_repo: OpenRepo) -> tuple[llmcrdt.Conversation, llmcrdt.Conversation]:
    laptop = open_repo("laptop")
    here = laptop.create()
    here.append("user", "Hello")
    there = open_repo("phone", laptop.library).join(here.id)
    exchange(here, there)
    return here, there


Two = tuple[llmcrdt.Conversation, llmcrdt.Conversation]


def test_o1_the_version_shown_does_not_depend_on_what_was_shown_before(two: Two) -> None:
    """While a frame pins the stopped version, it is shown; when that generation is hidden, the complete one is, also on
    the device that showed the other one before."""
    here, there = two
    stream = here.stream("assistant", frame=here.transcript(), interval=0)
    stream.write("half")
    exchange(here, there)
    there.seal(there.unsealed()[0])
    answer = there.append("assistant", "on the half", frame=there.transcript())
    assert there.transcript()[1].text == "half"
    stream.write(" and half")
    stream.seal()
    exchange(here, there)
    assert [e.text for e in there.transcript()] == ["Hello", "half", "on the half"]
    there.edit(answer, "by hand")
    exchange(here, there)
    assert texts(here) == texts(there) == ["Hello", "half and half", "by hand"]
    assert here.transcript().hash == there.transcript().hash


def test_o6_what_is_said_in_the_place_of_something_shown_is_shown(two: Two) -> None:
    """A selection made before must not hide what the same person says next."""
    here, _ = two
    first = here.append("user", "first")
    here.edit(first, "second")
    here.select(first)
    here.edit(first, "third")
    assert texts(here) == ["Hello", "third"]
    one = here.append("assistant", "one", frame=here.transcript())
    here.append("assistant", "two", instead_of=one)
    here.select(one)
    with here.stream("assistant", instead_of=one) as stream:
        stream.write("three")
    assert texts(here) == ["Hello", "third", "three"]


def test_observers_hear_nothing_of_what_is_not_on_disk(two: Two, monkeypatch: pytest.MonkeyPatch) -> None:
    """A write that fails is taken back; whoever heard of it would show what is not there."""
    here, there = two
    heard: list[llmcrdt.Change] = []
    monkeypatch.setattr(core_of(here).observers, "dispatch", lambda call: call())
    here.observe(heard.append)

    def full(*_: object) -> None:
        raise OSError("the disk is full")

    with monkeypatch.context() as broken:
        broken.setattr(core_of(here).document.journal, "append", full)
        with pytest.raises(OSError, match="full"):
            here.append("user", "never")
        with pytest.raises(OSError, match="full"), here.batch():
            here.append("user", "never")
            here.append("user", "never either")
    assert heard == []
    there.append("user", "from elsewhere")
    exchange(here, there)
    with here.batch():
        here.append("user", "one")
        here.append("user", "two")
    assert [[e.text for e in change.added] for change in heard] == [["from elsewhere"], ["one", "two"]]
    assert [change.local for change in heard] == [False, True]


def test_o7_words_that_arrive_again_after_their_erase_are_in_no_file(open_repo: OpenRepo) -> None:
    """Another device may send them once more inside a bigger update, which waits there for something else."""
    laptop = open_repo("laptop")
    here = laptop.create()
    start = here.version()
    secret = here.append("user", "a secret word")
    first, middle = here.diff(since=start), here.version()
    here.append("user", "missing elsewhere")
    second, end = here.diff(since=middle), here.version()
    here.append("user", "and on")
    there = open_repo("phone", laptop.library).join(here.id)
    there.apply(pycrdt.merge_updates(first, here.diff(since=end)))
    there.append("user", "from the phone")
    here.erase(secret)
    here.apply(there.diff(since=here.version()))
    there.apply(second)
    exchange(here, there)
    for conversation in (here, there):
        assert sorted(texts(conversation)) == ["", "and on", "from the phone", "missing elsewhere"]
        snapshot, updates = core_of(conversation).document.journal.load()
        assert not any(b"secret" in data for data in (snapshot or b"", *updates))


def test_o1_the_greatest_lamport_there_is_stops_nobody(two: Two) -> None:
    """A stranger's entry or act at the end of the numbers must leave some for everybody else."""
    here, there = two
    first = here.append("user", "first")
    here.edit(first, "second")
    doc: Any = pycrdt.Doc()
    doc.apply_update(here.diff())
    end, session = (1 << 53) - 1, "S" * 22
    head = {"role": "user", "author": "", "session": session, "parents": [], "created_at": 1}
    entries = doc.get("entries", type=pycrdt.Map)
    for n, lamport in enumerate((end, 1 << 32)):
        fields = {"head": json.dumps({**head, "lamport": lamport}), "live:0:text": pycrdt.Text("junk")}
        entries[str(n) * 16] = pycrdt.Map(fields)
    act = json.dumps({"lamport": end, "entry": first.id, "after": []})
    doc.get("acts", type=pycrdt.Map)[f"select:{first.id}:{session}"] = act
    here.apply(doc.get_update())
    assert list(here.transcript().malformed) == ["0" * 16]
    assert [e.text for e in here.transcript()] == ["Hello", "second", "junk"]
    here.append("user", "third")
    here.edit(here.transcript()[1], "fourth")
    here.select(first)
    assert first.id in here.transcript().ids
    here.append("user", "fifth")
    exchange(here, there)
    assert there.transcript()[-1].text == "fifth"
    assert there.transcript().hash == here.transcript().hash


def stranger(conversation: llmcrdt.Conversation, entry: str, **head: Any) -> None:
    """A plain Yjs client writes an entry with some text."""
    doc: Any = pycrdt.Doc()
    doc.apply_update(conversation.diff())
    start = doc.get_state()
    whole = {"role": "user", "author": "", "session": "S" * 22, "parents": [], "lamport": 1, "created_at": 1, **head}
    fields = {"head": json.dumps(whole), "live:0:text": pycrdt.Text("junk")}
    doc.get("entries", type=pycrdt.Map)[entry] = pycrdt.Map(fields)
    conversation.apply(doc.get_update(start))


def test_o1_an_entry_stands_after_what_it_refers_to(two: Two) -> None:
    here, _ = two
    hello = here.transcript()[0]
    for entry in ("-" * 16, "z" * 16):  # one id before that of the parent, and one after it
        stranger(here, entry, parents=[hello.id], lamport=hello.lamport)
    stranger(here, "K" * 16, parents=[hello.id], lamport=hello.lamport + 1)
    assert sorted(here.transcript().malformed) == ["-" * 16, "z" * 16]
    assert here.transcript().ids == (hello.id, "K" * 16)


def test_o1_a_whole_number_may_be_written_with_a_point(two: Two) -> None:
    """To JavaScript 3.0 and 3 are one number, and so they are to whoever reads what it wrote."""
    here, there = two
    hello = here.transcript()[0]
    for lamport, created_at in ((2.0, 1e3), (2, -0.0)):
        stranger(here, f"{lamport}".ljust(16, "A").replace(".", "-"), lamport=lamport, created_at=created_at)
    for lamport in (2.5, 0.0, 2.0**53, float(2**60)):
        stranger(here, f"{lamport:.1f}".ljust(16, "B").replace(".", "-")[:16], lamport=lamport)
    assert len(here.transcript().malformed) == 4
    assert [(e.lamport, e.created_at) for e in here.transcript()[1:]] == [(2, 1.0), (2, 0.0)]
    edited = here.edit(hello, "edited")
    doc: Any = pycrdt.Doc()
    doc.apply_update(here.diff())
    start, acts = doc.get_state(), doc.get("acts", type=pycrdt.Map)
    acts[f"select:{hello.id}:{'S' * 22}"] = json.dumps({"lamport": 90.0, "entry": hello.id})
    here.apply(doc.get_update(start))
    assert edited.id not in here.transcript().ids, "the same of acts"
    exchange(here, there)
    assert here.transcript().hash == there.transcript().hash


def test_o1_nothing_stands_in_the_place_of_what_it_follows(two: Two) -> None:
    here, _ = two
    hello = here.transcript()[0]
    stranger(here, "J" * 16, parents=[hello.id], alternative_of=hello.id, lamport=5)
    assert list(here.transcript().malformed) == ["J" * 16]
    assert here.transcript().ids == (hello.id,)


def test_o6_what_is_said_in_the_place_of_something_shown_is_shown_where_lamports_end(two: Two) -> None:
    """A stranger's lamport at the end of the reach leaves an edit none that is younger than a selection."""
    here, there = two
    hello = here.transcript()[0]
    stranger(here, "J" * 16, lamport=1 << 32)
    here.edit(hello, "second")
    here.select(hello)
    assert sorted(texts(here)) == ["Hello", "junk"]
    here.edit(hello, "third")
    exchange(here, there)
    assert texts(here) == texts(there)
    assert sorted(texts(here)) == ["junk", "third"]


def test_o6_a_stale_edit_does_not_hide_a_branch_that_lives(two: Two) -> None:
    here, there = two
    hello = here.transcript()[0]
    for n in range(3):
        here.append("user", f"written on {n}")
    there.edit(hello, "edited elsewhere")
    exchange(here, there)
    for conversation in two:
        assert texts(conversation)[0] == "Hello"
        assert [(e.entry.text, e.unseen) for e in conversation.transcript().elsewhere] == [("edited elsewhere", True)]


def test_o6_a_stale_edit_hides_no_living_branch_where_somebody_has_chosen(two: Two) -> None:
    """A selection of long ago makes an edit neither younger nor more: what is written on goes on being shown."""
    here, there = two
    hello = here.transcript()[0]
    here.edit(hello, "second thoughts")
    here.select(hello)
    for n in range(4):
        here.append("user", f"seen {n}")
    exchange(here, there)
    for n in range(20):
        here.append("user", f"unseen {n}")
    there.edit(hello, "a stale edit")
    assert texts(there) == ["a stale edit"]
    exchange(here, there)
    for conversation in two:
        assert len(conversation.transcript()) == 25
        assert texts(conversation)[-1] == "unseen 19"
        aside = {found.entry.text: found.unseen for found in conversation.transcript().elsewhere}
        assert aside == {"second thoughts": False, "a stale edit": True}


def test_o6_what_was_chosen_against_stays_hidden_when_it_is_written_on(two: Two) -> None:
    """A selection rules out what was there: also for a device that had not seen it, and went on there."""
    here, there = two
    hello = here.transcript()[0]
    edited = here.edit(hello, "edited")
    exchange(here, there)
    here.select(hello)
    for n in range(3):
        there.append("user", f"on the edit {n}")
    exchange(here, there)
    for conversation in two:
        assert texts(conversation) == ["Hello"]
        assert [found.hidden_by for found in conversation.transcript().elsewhere] == [hello.id] * 4
    there.edit(hello, "once more")
    exchange(here, there)
    assert texts(here) == texts(there) == ["once more"]
    there.select(edited)
    exchange(here, there)
    assert texts(here)[0] == "edited"
    assert len(here.transcript()) == 4


@pytest.mark.parametrize("framed", [True, False])
def test_o3_what_each_device_said_offline_stays_together(open_repo: OpenRepo, framed: bool) -> None:
    first = open_repo("laptop").create()
    first.append("user", "Hello")
    devices = [first, *(open_repo(name).join(first.id) for name in ("phone", "tablet"))]
    exchange(*devices)
    for n, device in enumerate(devices):
        for turn in range(3):
            device.append("user", f"{n} q{turn}")
            device.append("assistant", f"{n} a{turn}", frame=device.transcript() if framed else None)
    before = [device.transcript().ids for device in devices]
    exchange(*devices)
    said = texts(first)
    assert [len({text[0] for text in said[1 + 6 * n : 7 + 6 * n]}) for n in range(3)] == [1, 1, 1]
    assert all(f"{n} {what}" == said[said.index(f"{n} q0") + i] for n in range(3) for i, what in enumerate(TURNS))
    assert {device.transcript().hash for device in devices} == {first.transcript().hash}
    if framed:
        assert any(first.transcript().ids[:7] == ids for ids in before), "nothing comes into the used prefix"


TURNS = ("q0", "a0", "q1", "a1", "q2", "a2")


def test_o3_what_was_said_before_the_first_sync_stands_after_the_system_prompt(open_repo: OpenRepo) -> None:
    for n in range(8):  # ids are random, and both are as old
        laptop = open_repo(f"laptop{n}").create()
        phone = open_repo(f"phone{n}").join(laptop.id)
        laptop.append("system", "Be brief.")
        phone.append("user", "on the train")
        exchange(laptop, phone)
        assert texts(laptop) == texts(phone) == ["Be brief.", "on the train"]


def test_o6_to_edit_a_system_entry_hides_nothing_but_it(open_repo: OpenRepo) -> None:
    conversation = open_repo("laptop").create()
    conversation.append("user", "Hello")
    brief = conversation.append("system", "Be brief.")
    for n in range(3):
        conversation.append("user", f"{n}")
    long = conversation.edit(brief, "Be long.")
    assert texts(conversation) == ["Hello", "Be long.", "0", "1", "2"]
    assert [found.entry.id for found in conversation.transcript().elsewhere] == [brief.id]
    conversation.append("user", "and on")
    conversation.select(brief)
    assert texts(conversation) == ["Hello", "Be brief.", "0", "1", "2", "and on"]
    assert [found.entry.id for found in conversation.transcript().elsewhere] == [long.id]


def test_o6_an_edit_of_a_system_entry_that_was_used_counts_from_there_on(two: Two) -> None:
    """The model saw the old one: it stays in the prefix, and nothing has to be computed again."""
    here, there = two
    brief = here.append("system", "Be brief.", tools=[1], date="2026-01-01")
    here.append("assistant", "Hi", frame=here.transcript())
    here.append("system", tools=[2])
    before = here.transcript().ids
    here.edit(brief, "Be long.")
    exchange(here, there)
    for conversation in two:
        assert texts(conversation) == ["Hello", "Be brief.", "Hi", "", "Be long."]
        assert conversation.transcript().ids[:4] == before
        assert conversation.transcript()[-1].config == {"date": "2026-01-01"}
        assert conversation.transcript().elsewhere == ()
    answer = there.append("assistant", "At length", frame=there.transcript())
    there.edit(there.transcript()[-2], "Be short.")
    exchange(here, there)
    assert texts(here) == texts(there) == ["Hello", "Be brief.", "Hi", "", "Be long.", "At length", "Be short."]
    assert [e.text for e in here.frame_entries(answer)] == ["Hello", "Be brief.", "Hi", "", "Be long."]


def test_o5_a_result_stands_where_its_call_does(two: Two) -> None:
    """A device that runs a tool may have been shown another branch meanwhile, or while it ran somebody wrote on."""
    here, there = two
    asked = here.append("assistant", [llmcrdt.ToolCall("1", "f", "{}")], frame=here.transcript())
    exchange(here, there)
    there.append("assistant", "without any tool", instead_of=asked)
    said = there.append("user", "go on")
    exchange(here, there)
    result = here.append("tool", "late", call=asked.tool_calls[0])
    assert result.parents == (asked.id,)
    for conversation in two:
        exchange(here, there)
        assert texts(conversation) == ["Hello", "without any tool", "go on"]
        assert {found.entry.id for found in conversation.transcript().elsewhere} == {asked.id, result.id}
    there.select(asked)
    exchange(here, there)
    assert here.transcript().ids[1:] == there.transcript().ids[1:] == (asked.id, result.id)
    there.select(said)
    there.select(result)
    assert there.transcript().ids[1:] == (asked.id, result.id)


def test_o5_a_result_is_not_lost_with_what_was_said_beside_it(two: Two) -> None:
    here, there = two
    asked = here.append("assistant", [llmcrdt.ToolCall("1", "f", "{}")], frame=here.transcript())
    beside = here.append("user", "quickly")
    result = here.append("tool", "done", call=asked.tool_calls[0])
    here.edit(beside, "slowly")
    exchange(here, there)
    for conversation in two:
        assert texts(conversation) == ["Hello", "", "done", "slowly"]
        assert conversation.transcript().ids[1:3] == (asked.id, result.id)


def test_o5_a_result_that_an_older_writer_put_on_another_branch_is_with_its_call(two: Two) -> None:
    here, _ = two
    asked = here.append("assistant", [llmcrdt.ToolCall("1", "f", "{}")], frame=here.transcript())
    other = here.append("assistant", "without any tool", instead_of=asked)
    stranger(here, "R" * 16, role="tool", parents=[other.id], answers=[asked.id, "1"], lamport=9)
    assert here.transcript().ids[1:] == (other.id,)
    here.select("R" * 16)
    assert here.transcript().ids[1:] == (asked.id, "R" * 16)


def elsewhere(conversation: llmcrdt.Conversation) -> list[tuple[str, str, bool, str]]:
    """The entries that are not shown, each with why, as whoever reads the document anew has it. It must be the same
    here."""
    fresh = ConversationView(lambda entry: "local", threading.RLock())
    fresh.read_all(core_of(conversation).replica)
    now, anew = conversation.transcript(), fresh.transcript()
    listed = [[(e.entry.text, e.hidden_by, e.unseen, e.way) for e in t.elsewhere] for t in (now, anew)]
    assert listed[0] == listed[1] and now.elsewhere_hash == anew.elsewhere_hash
    return listed[1]


def test_o4_elsewhere_is_the_same_for_an_object_in_use_and_a_fresh_one(two: Two) -> None:
    """The branch that hides grows; whoever was there before sees nothing else than whoever comes later."""
    here, there = two
    hello = here.transcript()[0]
    edited = here.edit(hello, "edited")
    here.append("user", "and on")
    there.edit(hello, "edited elsewhere")
    exchange(here, there)
    assert [found[:2] for found in elsewhere(here)] == [("Hello", edited.id), ("edited elsewhere", edited.id)]
    before = here.transcript().elsewhere_hash
    for n in range(3):
        here.append("user", f"written on {n}")
        assert elsewhere(here) == [
            ("Hello", edited.id, False, "replaced"),
            ("edited elsewhere", edited.id, True, "replaced"),
        ]
    exchange(here, there)
    assert elsewhere(there) == elsewhere(here)
    assert here.transcript().elsewhere_hash == before


def test_o4_whoever_edits_an_edit_has_seen_what_that_was_made_of(two: Two) -> None:
    here, there = two
    hello = here.transcript()[0]
    here.append("user", "and on")
    here.edit(here.edit(hello, "second"), "third")
    there.edit(hello, "edited elsewhere")
    here.append("user", "younger than that")
    exchange(here, there)
    unseen = {text: unseen for text, _, unseen, _ in elsewhere(here)}
    assert unseen == {"Hello": False, "and on": False, "second": False, "edited elsewhere": True}


def test_o4_the_hash_of_elsewhere_covers_all_of_it(two: Two) -> None:
    here, _ = two
    here.edit(here.transcript()[0], "edited")
    transcript = here.transcript()
    (listed,) = transcript.elsewhere

    def hash_of(*found: Elsewhere) -> str:
        made = Transcript(
            Ids([], []), EntryReader(here.entry), lock=threading.RLock(), tips=(), base=None, malformed={},
            elsewhere=lambda: found,
        )  # fmt: skip
        return made.elsewhere_hash

    assert hash_of(listed) == transcript.elsewhere_hash
    others = [
        (),
        (listed, listed),
        (replace(listed, entry=transcript[0]),),
        (replace(listed, entry=replace(listed.entry, hash=None)),),
        (replace(listed, hidden_by=listed.entry.id),),
        (replace(listed, unseen=True),),
        (replace(listed, way="withheld"),),
    ]
    assert len({hash_of(*other) for other in others} | {transcript.elsewhere_hash}) == len(others) + 1
    pieces = (listed.entry.id, str(listed.entry.hash), listed.hidden_by, "seen", "replaced")
    assert hash_of(listed) == tagged_hash("llmcrdt/elsewhere/1", *(piece.encode() for piece in pieces))


def test_o4_a_transcript_goes_on_saying_what_was_elsewhere(two: Two) -> None:
    here, _ = two
    first = here.append("user", "first")
    here.edit(first, "second")
    transcript = here.transcript()
    here.erase(first)
    assert [e.entry.text for e in transcript.elsewhere] == ["first"]
    assert [e.entry.status for e in here.transcript().elsewhere] == ["erased"]


def test_o6_of_two_selections_under_one_key_the_one_that_stands_there_counts(two: Two) -> None:
    """Strangers write one key at once: the replica that had the other one before forgets it."""
    here, there = two
    first = here.append("user", "first")
    second = here.edit(first, "second")
    exchange(here, there)
    updates = []
    for client, lamport, chosen in ((5, 90, first), (6, 80, second)):
        doc: Any = pycrdt.Doc(client_id=client)
        doc.apply_update(here.diff())
        start, value = doc.get_state(), {"lamport": lamport, "entry": chosen.id, "after": []}
        doc.get("acts", type=pycrdt.Map)[f"select:{first.id}:{'S' * 22}"] = json.dumps(value)
        updates.append(doc.get_update(start))
    for device, order in ((here, updates), (there, updates[::-1])):
        for update in order:
            device.apply(update)
            device.transcript().ids  # noqa: B018  # it is read in between
    elsewhere(here)
    assert here.transcript().hash == there.transcript().hash
    assert texts(here) == texts(there) == ["Hello", "second"]


def test_o6_rival_answers_that_were_written_on_all_stay(two: Two) -> None:
    here, there = two
    here.append("assistant", "here", frame=here.transcript())
    here.append("user", "and on here")
    there.append("assistant", "there", frame=there.transcript())
    there.append("user", "and on there")
    exchange(here, there)
    for conversation in two:
        assert sorted(texts(conversation)) == ["Hello", "and on here", "and on there", "here", "there"]
        assert conversation.transcript().elsewhere == ()


def test_o10_a_summary_covers_only_what_it_follows(two: Two) -> None:
    here, there = two
    unseen = there.append("user", "not seen by the one who summarizes")
    exchange(here, there)
    hello = here.transcript()[0]
    pins = [[unseen.id, unseen.hash]]
    covers = {"appended": pins, "hash": extend_frame_hash(EMPTY_FRAME, [(unseen.id, str(unseen.hash))])}
    stranger(here, "J" * 16, parents=[hello.id], covers=covers, lamport=9)
    assert list(here.transcript().malformed) == ["J" * 16]


def test_o6_the_latest_selection_wins(two: Two) -> None:
    here, there = two
    hello = here.transcript()[0]
    edited = here.edit(hello, "edited")
    for conversation, chosen in ((here, hello), (there, edited), (here, hello), (there, edited)):
        exchange(here, there)
        conversation.select(chosen)
        exchange(here, there)
        assert texts(here) == texts(there) == [chosen.text]


def test_o7_words_that_arrive_after_their_erase_are_in_no_file(two: Two) -> None:
    """The erase waits for what it erases, and shows already; then the words come."""
    here, there = two
    start = here.version()
    stream = here.stream("assistant", interval=0)
    stream.write("a secret word")
    stream.seal(hidden={"provider/signature": b"a secret blob"})
    words, middle = here.diff(since=start), here.version()
    here.erase(stream.id)
    there.apply(here.diff(since=middle))
    there.apply(words)
    for conversation in (here, there):
        assert [e.status for e in conversation.transcript()] == ["complete", "erased"]
        assert conversation.entry(stream.id).hidden == {}
        snapshot, updates = core_of(conversation).document.journal.load()
        assert not any(b"secret" in data for data in (snapshot or b"", *updates))


def test_o7_words_in_an_update_that_waits_go_when_it_need_not_wait_any_more(two: Two) -> None:
    here, there = two
    start = here.version()
    secret = here.append("user", "a secret word")
    first, middle = here.diff(since=start), here.version()
    here.append("user", "comes late")
    second, end = here.diff(since=middle), here.version()
    here.append("user", "and on")
    third = here.diff(since=end)
    there.apply(first)
    there.erase(secret)
    there.apply(pycrdt.merge_updates(first, third))
    there.apply(second)
    assert texts(there) == ["Hello", "", "comes late", "and on"]
    snapshot, updates = core_of(there).document.journal.load()
    assert not any(b"secret" in data for data in (snapshot or b"", *updates))


def test_o7_an_erase_is_written_once(two: Two) -> None:
    """Written again, its mark would be deleted and put anew: gone, where only the deletion has arrived."""
    here, _ = two
    here.erase(here.transcript()[0])
    before = here.version(), here.diff()
    here.erase(here.transcript()[0])
    assert (here.version(), here.diff()) == before
