"""Bugs that other projects made public, as cases for this one. Each docstring says what happened there."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import llmcrdt

OpenRepo = Callable[..., llmcrdt.Repo]
Three = tuple[llmcrdt.Conversation, llmcrdt.Conversation, llmcrdt.Conversation]
DAY = 86_400.0


def texts(conversation: llmcrdt.Conversation) -> list[str]:
    return [entry.text for entry in conversation.transcript()]


def exchange(*conversations: llmcrdt.Conversation) -> None:
    for _ in range(2):
        for a in conversations:
            for b in conversations:
                if a is not b:
                    a.apply(b.diff(since=a.version()))
    assert len({conversation.transcript().hash for conversation in conversations}) == 1


@pytest.fixture
def three(open_repo: OpenRepo) -> Three:
    """One conversation on three devices; the phone's clock is a day slow, the tablet's a day fast."""
    laptop = open_repo("laptop", clock=lambda: 1.8e9)
    here = laptop.create()
    here.append("user", "Hello")
    phone = open_repo("phone", laptop.library, clock=lambda: 1.8e9 - DAY).join(here.id)
    tablet = open_repo("tablet", laptop.library, clock=lambda: 1.8e9 + DAY).join(here.id)
    exchange(here, phone, tablet)
    return here, phone, tablet


def test_a_prompt_does_not_sink_below_its_reply(three: Three) -> None:
    """A chat over yrs (briantakita.me, March 2026) merged a prompt below the agent's reply to it: the data was all
    there, the order meant nothing."""
    here, phone, tablet = three
    phone.append("user", "What is it?")
    exchange(here, phone)
    here.append("assistant", "This.", frame=here.transcript())
    tablet.append("user", "meanwhile")
    exchange(here, phone, tablet)
    assert texts(tablet) == ["Hello", "What is it?", "This.", "meanwhile"]


def test_two_writers_of_one_chat_lose_no_message(open_repo: OpenRepo) -> None:
    """Open WebUI #28742: the chat was one JSON value, read, changed and written back; a message stayed in the model's
    context and vanished from the screen."""
    laptop = open_repo("laptop")
    first = laptop.create()
    second = llmcrdt.open(laptop._core.store.path)
    try:
        other = second.get(first.id)
        for n in range(10):
            (first if n % 2 else other).append("user", f"message {n}")
        assert texts(first) == texts(other) == [f"message {n}" for n in range(10)]
    finally:
        second.close()


def test_a_stale_client_s_message_erases_nothing(three: Three) -> None:
    """codex #46746: what a desktop that had been asleep sent replaced the newer turns of the phone."""
    here, phone, _ = three
    for n in range(5):
        phone.append("user", f"from the phone {n}")
    here.append("user", "from a stale desktop")
    exchange(here, phone)
    assert sorted(texts(here)) == sorted(["Hello", *(f"from the phone {n}" for n in range(5)), "from a stale desktop"])


def test_regenerate_overwrites_nothing(three: Three) -> None:
    """conduit #443: a regenerate wrote two messages over 35 KB of history."""
    here, phone, _ = three
    answer = here.append("assistant", "first", frame=here.transcript())
    for n in range(20):
        here.append("user", f"on it {n}")
    here.append("assistant", "second", instead_of=answer)
    exchange(here, phone)
    assert texts(phone) == ["Hello", "second"]
    assert [e.entry.text for e in phone.transcript().elsewhere] == ["first", *(f"on it {n}" for n in range(20))]
    phone.select(phone.transcript().elsewhere[-1].entry)
    assert len(phone.transcript()) == 22


def test_resuming_goes_on_from_the_branch_that_was_written_on(three: Three) -> None:
    """claude-code #80427 and #48270: forks nobody had asked for, and a resume that took a stale one of many leaves."""
    here, phone, tablet = three
    hello = here.transcript()[0]
    for n in range(3):
        phone.edit(hello, f"abandoned {n}")
    for n in range(5):
        here.append("user", f"alive {n}")
    exchange(here, phone, tablet)
    tablet.append("user", "and on")
    exchange(here, phone, tablet)
    assert texts(phone) == ["Hello", *(f"alive {n}" for n in range(5)), "and on"]
    assert [found.entry.text for found in phone.transcript().elsewhere] == [f"abandoned {n}" for n in range(3)]


def test_a_second_terminal_s_continuation_can_be_reached(three: Three) -> None:
    """codex #23472: two terminals went on from one point; what the second one wrote could not be opened any more."""
    here, phone, _ = three
    a = here.append("assistant", "in one terminal", frame=here.transcript())
    b = phone.append("assistant", "in the other", frame=phone.transcript())
    exchange(here, phone)
    assert {e.id for e in here.alternatives(a)} == {a.id, b.id}
    for chosen in (a, b):
        here.select(chosen)
        exchange(here, phone)
        assert phone.transcript()[-1].id == chosen.id


def test_a_pointer_to_nothing_hides_nothing(three: Three) -> None:
    """Open WebUI #27618: the current message named one that was not there, and the chat looked empty."""
    here, phone, tablet = three
    start = phone.version()
    edited = phone.edit(phone.transcript()[0], "edited")
    unseen = phone.version()
    phone.select(edited)
    here.apply(phone.diff(since=unseen))  # the selection comes before what it shows
    assert texts(here) == ["Hello"]
    here.apply(phone.diff(since=start))
    assert texts(here) == ["edited"]
    assert texts(tablet) == ["Hello"]


@pytest.mark.parametrize("order", ["user first", "result first"])
def test_a_user_message_does_not_part_a_call_from_its_result(three: Three, order: str) -> None:
    """opencode #5750 and #10616, goose #2951, openclaw #10911, livekit #1977: something between call and result, and
    the provider refused the conversation for ever."""
    here, phone, tablet = three
    asked = here.append("assistant", [llmcrdt.ToolCall("1", "f", "{}")], frame=here.transcript())
    exchange(here, phone, tablet)
    if order == "user first":
        phone.append("user", "still there?")
        exchange(phone, tablet)
    tablet.append("tool", "done", call=asked.tool_calls[0])
    if order == "result first":
        phone.append("user", "still there?")
    exchange(here, phone, tablet)
    assert texts(here)[-2:] == ["done", "still there?"]


def test_results_of_parallel_calls_stay_with_their_own_call(three: Three) -> None:
    """copilot-cli #2543: events of a sub-agent stood among those of its caller, and every later request failed."""
    here, phone, tablet = three
    first = here.append("assistant", [llmcrdt.ToolCall("1", "f", "{}"), llmcrdt.ToolCall("2", "g", "{}")])
    nested = here.append("assistant", [llmcrdt.ToolCall("1", "h", "{}")])
    exchange(here, phone, tablet)
    phone.append("tool", "of the nested call", call=nested.tool_calls[0])
    tablet.append("tool", "g", call=first.tool_calls[1])
    here.append("tool", "f", call=first.tool_calls[0])
    exchange(here, phone, tablet)
    transcript = here.transcript()
    at = {entry.text: index for index, entry in enumerate(transcript) if entry.role == "tool"}
    assert {at["f"], at["g"]} == {transcript.ids.index(first.id) + 1, transcript.ids.index(first.id) + 2}
    assert at["of the nested call"] == transcript.ids.index(nested.id) + 1


def test_a_call_answered_twice_keeps_both_results(three: Three) -> None:
    """livekit #6785: a result was taken for missing, the call was made again, and its side effect happened twice;
    nobody could see that."""
    here, phone, _ = three
    (call,) = here.append("assistant", [llmcrdt.ToolCall("1", "pay", "{}")], frame=here.transcript()).tool_calls
    exchange(here, phone)
    here.append("tool", "paid", call=call)
    phone.append("tool", "paid again", call=call)
    exchange(here, phone)
    assert sorted(e.text for e in here.results(call)) == ["paid", "paid again"]
    assert sorted(texts(here)[-2:]) == ["paid", "paid again"]


def test_a_call_that_is_never_answered_blocks_nobody(three: Three) -> None:
    """letta-code #885, lettabot #180: an approval that nobody gave made every later message fail."""
    here, phone, _ = three
    here.append("assistant", [llmcrdt.ToolCall("1", "f", "{}")], frame=here.transcript())
    exchange(here, phone)
    phone.append("user", "never mind")
    phone.append("assistant", "All right.", frame=phone.transcript())
    exchange(here, phone)
    assert texts(here)[-2:] == ["never mind", "All right."]


def test_wall_clocks_decide_no_order(three: Three) -> None:
    """opencode #11863, #14236, #28618: ids held the time; 2.8 % of pairs on one host were in the wrong order. agi-cli
    #344 sorted transcripts by time stamps."""
    here, phone, tablet = three
    said = []
    for n in range(12):
        writer = (tablet, here, phone)[n % 3]
        writer.append("user", f"{n}")
        said.append(f"{n}")
        exchange(here, phone, tablet)
    assert texts(here) == ["Hello", *said]


def test_a_slow_clock_does_not_make_an_answer_look_missing(three: Three) -> None:
    """opencode PR #38213: an answer that was older than its question by the clock counted as none, so the next one was
    asked for: 699 answers to one message."""
    here, phone, tablet = three
    tablet.append("user", "asked in the future")
    exchange(here, phone, tablet)
    answer = phone.append("assistant", "answered in the past", frame=phone.transcript())
    exchange(here, phone, tablet)
    transcript = here.transcript()
    assert transcript[-1].id == answer.id
    assert transcript.generation is not None and transcript.generation.id == answer.id
    assert transcript[-1].created_at < transcript[-2].created_at


def test_the_same_words_twice_are_two_entries(three: Three) -> None:
    """Stores that name a message by the hash of its words (agi-cli #344) keep one of two equal ones."""
    here, phone, _ = three
    here.append("user", "yes")
    phone.append("user", "yes")
    here.append("user", "yes")
    exchange(here, phone)
    assert texts(here) == ["Hello", "yes", "yes", "yes"]


def test_what_is_erased_stays_erased(three: Three) -> None:
    """Sets that only grow (agi-cli) can't delete; llm 0.36 deletes no message at all."""
    here, phone, tablet = three
    secret = here.append("user", "a secret")
    exchange(here, phone)
    phone.erase(secret)
    phone.append("user", "gone")
    exchange(here, phone, tablet)
    exchange(here, phone, tablet)
    for conversation in three:
        assert texts(conversation) == ["Hello", "", "gone"]
        assert b"a secret" not in conversation.diff()


def test_hidden_bytes_come_back_as_they_were(three: Three) -> None:
    """claude-code #63203 and a dozen like it: a thinking block that was not sent back exactly made every later request
    fail; blocks with empty words were dropped."""
    here, phone, _ = three
    signature = bytes(range(256))
    answer = here.append(
        "assistant",
        [llmcrdt.Reasoning(""), llmcrdt.Text("Hi")],
        frame=here.transcript(),
        hidden={"anthropic/signature": llmcrdt.HiddenField(signature, {"provider": "anthropic"})},
    )
    exchange(here, phone)
    there = phone.entry(answer.id)
    assert there.parts == (llmcrdt.Reasoning(""), llmcrdt.Text("Hi"))
    assert there.hidden["anthropic/signature"].data == signature


def test_numbers_and_arguments_come_back_as_they_were(three: Three) -> None:
    """Clients that read arguments into numbers and write them again change 1.0, 2**53 + 1 and white space."""
    here, phone, _ = three
    arguments = '{"id": 9007199254740993,  "x": 1.0, "é": "\\u00e9"}'
    answer = here.append("assistant", [llmcrdt.ToolCall("1", "f", arguments)], frame=here.transcript())
    exchange(here, phone)
    assert phone.entry(answer.id).tool_calls[0].arguments == arguments


def test_compaction_takes_no_frame_away(three: Three) -> None:
    """pi #9391: after a compaction fifteen signed blocks no longer fitted what stood before them, in every later
    turn."""
    here, phone, _ = three
    answer = here.append("assistant", "Hi", frame=here.transcript(), hidden={"p/signature": b"s"})
    before = [(e.id, e.hash) for e in here.frame_entries(answer)]
    phone_said = phone.append("user", "not summarized")
    here.summarize(until=answer, text="They said hello.")
    exchange(here, phone)
    assert [(e.id, e.hash) for e in phone.frame_entries(answer)] == before
    assert set(texts(phone)) == {"Hello", "Hi", "They said hello.", "not summarized"}
    assert phone_said.id in phone.transcript().ids


def test_the_screen_and_the_model_saw_can_be_told_apart(three: Three) -> None:
    """claudecodeui #1148: people saw a history that the model had never seen, and could not know it."""
    here, phone, _ = three
    phone.append("user", "never seen by the model")
    answer = here.append("assistant", "Hi", frame=here.transcript())
    exchange(here, phone)
    seen = {e.id for e in here.frame_entries(answer)}
    assert [e.text for e in here.transcript() if e.id not in seen and e.id != answer.id] == ["never seen by the model"]


def test_an_edit_while_an_answer_grows_leaves_the_answer_its_frame(three: Three) -> None:
    """A history that is changed under a running generation makes its result belong to nothing; clients put the edit off
    or drop the answer."""
    here, phone, _ = three
    hello = here.transcript()[0]
    with here.stream("assistant", frame=here.transcript(), interval=0) as stream:
        stream.write("It is ")
        exchange(here, phone)
        phone.edit(hello, "Good evening")
        exchange(here, phone)
        stream.write("day.")
    exchange(here, phone)
    assert texts(phone) == ["Good evening"]
    answer = phone.entry(stream.id)
    assert answer.text == "It is day."
    assert [e.text for e in phone.frame_entries(answer)] == ["Hello"]


def test_a_lost_connection_is_not_a_stop(three: Three) -> None:
    """vercel/ai #6502, #7665: closing the page and pressing stop looked the same to the server."""
    here, phone, _ = three
    stream = here.stream("assistant", frame=here.transcript(), interval=0)
    stream.write("still ")
    exchange(here, phone)  # and then the phone hears nothing for a while
    stream.write("writing")
    assert not here.stop_asked(stream.id)
    phone.stop(stream.id)
    exchange(here, phone)
    assert here.stop_asked(stream.id)
    stream.seal("stopped")
    exchange(here, phone)
    assert (phone.entry(stream.id).text, phone.entry(stream.id).status) == ("still writing", "stopped")


def test_devices_need_not_be_there_at_the_same_time(three: Three) -> None:
    """LobeChat PR #2611: devices met over WebRTC only while both were there; sync was taken out again (#9002)."""
    here, phone, tablet = three
    here.append("user", "from the laptop")
    phone.apply(here.diff(since=phone.version()))  # the laptop goes to sleep
    tablet.apply(phone.diff(since=tablet.version()))
    assert texts(tablet) == ["Hello", "from the laptop"]


def test_a_turn_costs_what_it_says_not_what_was_said_before(three: Three) -> None:
    """SillyTavern #5265: 800 KB were saved again for each message."""
    here, _, _ = three
    sizes = []
    for n in range(200):
        before = here.version()
        here.append("user", f"{n:03} " + "x" * 200)
        sizes.append(len(here.diff(since=before)))
    assert max(sizes[-20:]) <= max(sizes[:20]) + 16  # lamports grow by a digit
    assert max(sizes) < 1000


def test_a_copied_file_and_its_original_both_go_on(open_repo: OpenRepo, tmp_path: Path) -> None:
    """claude-code #37130: people put sessions into iCloud or Dropbox; copies that were both written to conflicted."""
    laptop = open_repo("laptop")
    original = laptop.create()
    original.append("user", "before the copy")
    laptop.close()
    shutil.copy(tmp_path / "laptop.db", tmp_path / "copy.db")
    original = open_repo("laptop").get(original.id)
    copy = open_repo("copy").get(original.id)
    for n in range(3):
        original.append("user", f"original {n}")
        copy.append("user", f"copy {n}")
    exchange(original, copy)
    assert sorted(texts(copy)) == sorted(
        ["before the copy", *(f"original {n}" for n in range(3)), *(f"copy {n}" for n in range(3))]
    )
    assert original.verify() == copy.verify() == []
