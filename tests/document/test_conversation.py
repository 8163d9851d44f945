"""A conversation from the outside: what is written is read again, by every replica, in the order of the rules."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Callable
from pathlib import Path

import pytest

import llmcrdt
from llmcrdt.document.conversation import core_of
from llmcrdt.exceptions import (
    AlreadySealed,
    EntryNotFound,
    InvalidContent,
    MalformedUpdate,
    NewerDocument,
    NotSealed,
    RepoClosed,
)

from ..replicas import exchange

OpenRepo = Callable[..., llmcrdt.Repo]


def texts(conversation: llmcrdt.Conversation) -> list[str]:
    return [entry.text for entry in conversation.transcript()]


@pytest.fixture
def two(open_repo: OpenRepo) -> tuple[llmcrdt.Conversation, llmcrdt.Conversation]:
    """One conversation on a laptop and on a phone."""
    laptop = open_repo("laptop")
    here = laptop.create("Trip")
    here.append("system", "Be brief.")
    here.append("user", "Hello")
    there = open_repo("phone", laptop.library).join(here.id)
    exchange(here, there)
    return here, there


def test_everything_an_entry_has_survives_a_restart(open_repo: OpenRepo) -> None:
    repo = open_repo("laptop")
    conversation = repo.create("Trip")
    conversation.append("system", "Be brief.", tools=[{"name": "trains", "n": 2**60 + 1, "x": 1.0}], date="2026-11-22")
    user = conversation.append("user", [llmcrdt.Text("see "), llmcrdt.Unknown({"type": "map", "zoom": 5})])
    call = llmcrdt.ToolCall("call 1", "trains", '{"to": "Ghent" }')
    binding = llmcrdt.HiddenField(b"\x00\xffopaque", {"provider": "anthropic"})
    answer = conversation.append(
        "assistant",
        [llmcrdt.Reasoning("hm"), llmcrdt.Text("Looking."), call],
        frame=conversation.transcript(),
        hidden={"anthropic/signature": binding, "plain": b"x"},
        model={"name": "m"},
    )
    conversation.append("tool", "one at ten", call=answer.tool_calls[0])
    before = tuple(conversation.transcript())
    repo.close()
    again = open_repo("laptop").get(conversation.id)
    after = tuple(again.transcript())
    assert after == before
    assert after[2].hidden["anthropic/signature"] == binding
    assert after[2].hidden["plain"].data == b"x"
    assert after[0].config["tools"] == [{"name": "trains", "n": 2**60 + 1, "x": 1.0}]
    assert isinstance(after[0].config["tools"][0]["x"], float)
    assert after[1].parts == user.parts
    assert after[2].tool_calls[0].arguments == '{"to": "Ghent" }'
    assert after[3].answers == (answer.id, "call 1")
    assert again.title == "Trip"
    assert again.verify() == []


def test_a_frame_keeps_its_list_when_others_wrote_meanwhile(two: tuple[llmcrdt.Conversation, ...]) -> None:
    """A merge never puts anything into what a model has seen (public bug: a merged prompt sorted below its answer)."""
    here, there = two
    there.append("user", "from the phone")
    frame = here.transcript()
    answer = here.append("assistant", "Hi!", frame=frame)
    exchange(here, there)
    for conversation in two:
        assert texts(conversation) == ["Be brief.", "Hello", "Hi!", "from the phone"]
        assert [e.id for e in conversation.frame_entries(answer)] == list(frame.ids)
        assert conversation.entry(answer).frame == answer.frame
    assert here.transcript().hash == there.transcript().hash


def test_two_devices_that_answer_at_once_lose_nothing(two: tuple[llmcrdt.Conversation, ...]) -> None:
    here, there = two
    a = here.append("assistant", "one", frame=here.transcript())
    b = there.append("assistant", "two", frame=there.transcript())
    exchange(here, there)
    assert here.transcript().hash == there.transcript().hash
    assert {e.id for e in here.alternatives(a)} == {a.id, b.id}
    (hidden,) = here.transcript().elsewhere
    assert hidden.unseen
    here.append("user", "go on")
    there.select(hidden.entry)
    exchange(here, there)
    assert hidden.entry.id in here.transcript().ids
    assert here.transcript().hash == there.transcript().hash


def test_an_edit_shows_its_branch_and_select_brings_the_old_one_back(two: tuple[llmcrdt.Conversation, ...]) -> None:
    here, there = two
    user = here.transcript()[1]
    answer = here.append("assistant", "Hi!", frame=here.transcript())
    edited = here.edit(user, "Good evening")
    assert texts(here) == ["Be brief.", "Good evening"]
    assert [e.entry.text for e in here.transcript().elsewhere] == ["Hello", "Hi!"]
    assert not any(e.unseen for e in here.transcript().elsewhere)
    assert [e.text for e in here.alternatives(edited)] == ["Hello", "Good evening"]
    here.select(answer)
    exchange(here, there)
    assert texts(there) == ["Be brief.", "Hello", "Hi!"]


def test_an_edit_keeps_the_parts_that_are_not_text(open_repo: OpenRepo) -> None:
    conversation = open_repo("laptop").create()
    system = conversation.append("system", "Be brief.", tools=[1])
    assert conversation.edit(system, "Be long.").config == {"tools": [1]}


def test_a_regenerated_answer_stands_on_the_same_frame(two: tuple[llmcrdt.Conversation, ...]) -> None:
    here, _ = two
    first = here.append("assistant", "one", frame=here.transcript())
    here.append("user", "hm")
    second = here.append("assistant", "two", instead_of=first)
    assert second.frame == first.frame
    assert texts(here) == ["Be brief.", "Hello", "two"]


def test_a_stream_grows_elsewhere_and_is_sealed_once(two: tuple[llmcrdt.Conversation, ...]) -> None:
    here, there = two
    with here.stream("assistant", frame=here.transcript(), interval=0) as stream:
        stream.write("thinking", part="reasoning")
        stream.write("Hel")
        exchange(here, there)
        (growing,) = there.unsealed()
        assert (growing.text, growing.reasoning, growing.status) == ("Hel", "thinking", "streaming")
        assert here.unsealed() == ()
        with pytest.raises(NotSealed):
            _then(there, growing).frame()
        stream.write("lo")
    exchange(here, there)
    sealed = there.entry(growing.id)
    assert (sealed.text, sealed.reasoning, sealed.status) == ("Hello", "thinking", "complete")
    assert there.verify() == []
    with pytest.raises(AlreadySealed):
        stream.write("more")
    fields = core_of(there).replica.node("entries", growing.id)
    assert fields is not None
    assert not any(name.startswith("live:") for name in fields)


@pytest.mark.parametrize("speed", [1, 5, 20, 100])
def test_a_stream_waits_for_a_piece_that_is_worth_it_and_never_for_long(tmp_path: Path, speed: int) -> None:
    """Tokens of 5 letters, so many a second: whoever watches pays for each piece."""
    now = [1_700_000_000.0]
    with llmcrdt.open(tmp_path / "a.db", clock=lambda: now[0]) as repo:
        stream = repo.create("talk").stream("assistant")
        flushed, pieces = now[0], 0
        for n in range(400):
            before = stream.waiting
            stream.write("abcd ")
            if stream.waiting == 0:
                assert n == 0 or before + 5 >= min(30, speed * 5)
                flushed, pieces = now[0], pieces + 1
            assert now[0] - flushed < 1.5
            now[0] += 1 / speed
        assert speed < 5 or pieces <= 400 * 5 / 30 + 1
        stream.seal()


def test_tool_calls_grow_in_a_stream_part_by_part(two: tuple[llmcrdt.Conversation, ...]) -> None:
    here, there = two
    with here.stream("assistant", frame=here.transcript(), interval=0) as stream:
        stream.write("Let me look.")
        for call in ("c1", "c2"):
            stream.call(call, "trains")
            stream.write('{"to": ', part="tool_call")
            stream.write('"Ghent"}', part="tool_call")
        exchange(here, there)
        (growing,) = there.unsealed()
        assert [part.arguments for part in growing.tool_calls] == ['{"to": "Ghent"}'] * 2
        assert growing.text == "Let me look."
    exchange(here, there)
    sealed = there.entry(growing.id)
    assert [(c.id, c.name, c.arguments) for c in sealed.tool_calls] == [
        ("c1", "trains", '{"to": "Ghent"}'), ("c2", "trains", '{"to": "Ghent"}'),
    ]  # fmt: skip


def _then(conversation: llmcrdt.Conversation, entry: llmcrdt.Entry) -> llmcrdt.Transcript:
    conversation.append("user", "already on it?")
    assert conversation.transcript()[-1].parents == (entry.id,)
    return conversation.transcript()


def test_an_unfinished_entry_is_in_no_frame(two: tuple[llmcrdt.Conversation, ...]) -> None:
    here, there = two
    here.stream("assistant", frame=here.transcript()).flush()
    exchange(here, there)
    transcript = there.transcript()
    assert transcript[-1].status == "streaming"
    answer = there.append("assistant", "meanwhile", frame=transcript)
    assert [e.text for e in there.frame_entries(answer)] == ["Be brief.", "Hello"]


def test_a_crashed_stream_is_sealed_by_another_device_and_the_writer_may_still_come_back(
    two: tuple[llmcrdt.Conversation, ...],
) -> None:
    """Both seals stay as versions; the complete one is shown everywhere, whatever the CRDT's client ids."""
    here, there = two
    stream = here.stream("assistant", frame=here.transcript(), interval=0)
    stream.write("Half an ans")
    exchange(here, there)
    (unfinished,) = there.unsealed()
    stopped = there.seal(unfinished)
    assert (stopped.text, stopped.status) == ("Half an ans", "stopped")
    stream.write("wer")
    done = stream.seal()
    assert (done.text, done.status) == ("Half an answer", "complete")
    exchange(here, there)
    assert here.transcript().hash == there.transcript().hash
    assert there.entry(unfinished).text == "Half an answer"


def test_a_frame_pins_the_version_it_saw(two: tuple[llmcrdt.Conversation, ...]) -> None:
    """A better version that comes later does not change what an answer was computed on (O2)."""
    here, there = two
    stream = here.stream("assistant", frame=here.transcript(), interval=0)
    stream.write("Half")
    exchange(here, there)
    stopped = there.seal(there.unsealed()[0])
    there.append("user", "and?")
    answer = there.append("assistant", "on the half one", frame=there.transcript())
    stream.write(" and half")
    stream.seal()
    exchange(here, there)
    for conversation in two:
        assert texts(conversation) == ["Be brief.", "Hello", "Half", "and?", "on the half one"]
        assert conversation.frame_entries(answer)[2].hash == stopped.hash
    assert here.transcript().hash == there.transcript().hash


def test_an_exception_in_a_stream_seals_it_as_failed_and_ctrl_c_as_stopped(open_repo: OpenRepo) -> None:
    conversation = open_repo("laptop").create()
    for error, status in ((ValueError, "failed"), (KeyboardInterrupt, "stopped")):
        with pytest.raises(error), conversation.stream("assistant") as stream:
            stream.write("so far")
            raise error
        assert (conversation.transcript()[-1].text, conversation.transcript()[-1].status) == ("so far", status)


def test_tool_results_stand_after_their_call_before_other_input(two: tuple[llmcrdt.Conversation, ...]) -> None:
    """Public bug class: a user message between a call and its result makes the prompt invalid for ever."""
    here, there = two
    calls = [llmcrdt.ToolCall("1", "f", "{}"), llmcrdt.ToolCall("2", "g", "{}")]
    asked = here.append("assistant", calls, frame=here.transcript())
    exchange(here, there)
    there.append("user", "in between")
    here.append("tool", "second", call=asked.tool_calls[1])
    here.append("tool", "first", call=asked.tool_calls[0])
    exchange(here, there)
    for conversation in two:
        assert texts(conversation)[-3:] == ["second", "first", "in between"]


def test_a_call_from_elsewhere_is_refused(two: tuple[llmcrdt.Conversation, ...]) -> None:
    with pytest.raises(InvalidContent, match="tool_calls"):
        two[0].append("tool", "x", call=llmcrdt.ToolCall("1", "f", "{}"))


def test_an_entry_page_is_the_end_of_the_transcript(open_repo: OpenRepo) -> None:
    conversation = open_repo("laptop").create()
    for n in range(30):
        conversation.append("user", str(n))
    page = conversation.entries(last=10)
    assert [e.text for e in page] == [str(n) for n in range(20, 30)]
    assert [e.text for e in conversation.entries(last=10, before=page[0])] == [str(n) for n in range(10, 20)]


def test_what_can_t_be_stored_is_refused_before_anything_is_written(open_repo: OpenRepo) -> None:
    conversation = open_repo("laptop").create()
    before = conversation.version()
    for content in ("half a pair \ud800", [llmcrdt.Unknown({"type": "x", "n": float("nan")})], [object()], 5, None):
        with pytest.raises(InvalidContent):
            conversation.append("user", content)  # type: ignore[arg-type]
    with pytest.raises(InvalidContent, match="int can't be"):
        conversation.append("user", 5)  # type: ignore[arg-type]
    with pytest.raises(InvalidContent, match="tool_calls"):
        conversation.append("tool", "x")
    with pytest.raises(InvalidContent):
        conversation.append("wizard", "x")  # type: ignore[arg-type]
    with pytest.raises(InvalidContent):
        conversation.append("user", "x", tools=[])
    with pytest.raises(InvalidContent):
        conversation.append("user", "x", hidden={"a": "text"})  # type: ignore[dict-item]
    with pytest.raises(InvalidContent, match="author"):
        conversation.append("user", "x", author=5)  # type: ignore[arg-type]
    with pytest.raises(EntryNotFound):
        conversation.edit("AAAAAAAAAAAAAAAA", "x")  # type: ignore[arg-type]
    assert conversation.version() == before


def test_a_batch_is_one_update_or_none(open_repo: OpenRepo) -> None:
    conversation = open_repo("laptop").create()
    with conversation.batch():
        first = conversation.append("user", "one")
        conversation.append("assistant", "two", frame=conversation.transcript())
    assert texts(conversation) == ["one", "two"]
    assert first.id in conversation.transcript().ids
    with pytest.raises(RuntimeError), conversation.batch():
        conversation.append("user", "never")
        raise RuntimeError
    assert texts(conversation) == ["one", "two"]
    conversation.append("user", "and on")
    assert texts(conversation) == ["one", "two", "and on"]


def test_observers_hear_of_local_and_remote_changes_in_order(two: tuple[llmcrdt.Conversation, ...]) -> None:
    here, there = two
    heard: list[tuple[list[str], list[str], int, bool]] = []
    threads: set[int] = set()
    done = threading.Event()

    def callback(change: llmcrdt.Change) -> None:
        threads.add(threading.get_ident())
        heard.append(
            ([e.text for e in change.added], [e.text for e in change.changed], len(change.removed), change.local)
        )
        if any(e.text == "last" for e in change.added):
            done.set()

    stop = here.observe(callback)
    user = here.append("user", "mine")
    there.append("user", "theirs")
    exchange(here, there)
    here.edit(user, "edited")
    here.append("user", "last")
    assert done.wait(10)
    stop()
    here.append("user", "unheard")
    assert heard[0] == (["mine"], [], 0, True)
    assert heard[1] == (["theirs"], [], 0, False)
    assert heard[2][0] == ["edited"]
    assert heard[2][2] >= 1
    assert heard[-1][0] == ["last"]
    assert len(threads) == 1
    assert threads != {threading.get_ident()}


@pytest.mark.parametrize("whole", [False, True])
def test_a_closed_conversation_leaves_no_garbage(open_repo: OpenRepo, whole: bool) -> None:
    """Its memory is free when it is closed, or its repo, without a look for garbage; a transcript goes on."""
    repo = open_repo("laptop")
    conversation = repo.create("Trip")
    conversation.append("user", "Hello")
    conversation.append("assistant", "Hi", frame=conversation.transcript())
    conversation.append("assistant", "Or: hi", instead_of=conversation.transcript()[-1])
    core, transcript = core_of(conversation), conversation.transcript()
    left = [weakref.ref(thing) for thing in (core.view, core.replica)]
    gc.disable()
    try:
        (repo if whole else conversation).close()
        assert [entry.text for entry in transcript] == ["Hello", "Or: hi"]
        assert [each.entry.text for each in transcript.elsewhere] == ["Hi"]
        del transcript
        assert [thing() for thing in left] == [None, None]
    finally:
        gc.enable()


def test_a_closed_conversation_says_so_and_can_be_opened_again(open_repo: OpenRepo) -> None:
    repo = open_repo("laptop")
    conversation = repo.create()
    conversation.append("user", "kept")
    conversation.close()
    with pytest.raises(RepoClosed):
        conversation.append("user", "x")
    assert texts(repo.get(conversation.id)) == ["kept"]


def test_a_document_of_a_newer_major_version_is_refused_and_kept(open_repo: OpenRepo) -> None:
    repo = open_repo("laptop")
    conversation = repo.create()
    conversation.append("user", "from the future")
    with core_of(conversation).editing() as edit:
        edit.put("meta", "schema", "1.7")
    assert texts(conversation) == ["from the future"]  # a newer minor version is fine
    with core_of(conversation).editing() as edit:
        edit.put("meta", "schema", "2.0")
    for action in (conversation.transcript, conversation.unsealed, lambda: conversation.append("user", "x")):
        with pytest.raises(NewerDocument, match="Update llmcrdt"):
            action()
    carried = open_repo("phone").join(conversation.id)
    carried.apply(conversation.diff())  # carried on all the same
    with pytest.raises(NewerDocument):
        carried.transcript()
    assert [row.id for row in repo.list()] == [conversation.id]


def test_a_malformed_update_changes_nothing(open_repo: OpenRepo) -> None:
    conversation = open_repo("laptop").create()
    conversation.append("user", "here")
    good = conversation.diff()
    for bad in (b"", b"\x00", good[:-3], good + b"\x00", bytes.fromhex("010207feffffff0f040101740161440700016200")):
        with pytest.raises(MalformedUpdate):
            conversation.apply(bad)
    assert texts(conversation) == ["here"]
    assert conversation.diff() == good


def test_an_update_that_came_early_waits_through_a_restart(open_repo: OpenRepo) -> None:
    writer = open_repo("laptop").create()
    first = writer.version()
    writer.append("user", "one")
    middle = writer.version()
    one = writer.diff(since=first)
    writer.append("user", "two")
    two_ = writer.diff(since=middle)
    whole = writer.diff(since=None)
    repo = open_repo("phone")
    reader = repo.join(writer.id)
    reader.apply(two_)
    repo.close()
    reader = open_repo("phone").get(writer.id)
    assert texts(reader) == []
    reader.apply(one)
    reader.apply(whole)
    assert texts(reader) == ["one", "two"]
