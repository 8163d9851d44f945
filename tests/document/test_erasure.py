"""O7: an erase is terminal under every merge, and complete in every file of every device."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pycrdt
import pytest

import llmcrdt
from llmcrdt.document.conversation import core_of
from llmcrdt.document.entry import TOKENS
from llmcrdt.exceptions import InvalidContent

from ..replicas import exchange

OpenRepo = Callable[..., llmcrdt.Repo]
SECRET = "the password is Rumpelstilzchen-77"


def found_in(folder: Path, *needles: bytes) -> list[str]:
    return sorted(
        f"{path.name}: {needle!r}"
        for path in folder.rglob("*")
        if path.is_file()
        for needle in needles
        if needle in path.read_bytes()
    )


@pytest.fixture
def told(open_repo: OpenRepo) -> tuple[llmcrdt.Conversation, llmcrdt.Conversation, llmcrdt.Entry, llmcrdt.Entry]:
    """A secret that was edited, answered (with a token log), and synced to a second device."""
    laptop = open_repo("laptop")
    here = laptop.create()
    here.append("system", "Be brief.")
    secret = here.append("user", SECRET, hidden={"raw": SECRET.encode()})
    here.edit(secret, SECRET + "!")
    here.select(secret)
    answer = here.append(
        "assistant", "Noted.", frame=here.transcript(), hidden={TOKENS: b"tokens that spell it", "other": b"kept"}
    )
    here.append("user", "And on.")
    there = open_repo("phone", laptop.library).join(here.id)
    exchange(here, there)
    return here, there, secret, answer


def test_the_words_are_in_no_file_and_the_place_stays(
    told: tuple[llmcrdt.Conversation, llmcrdt.Conversation, llmcrdt.Entry, llmcrdt.Entry], tmp_path: Path
) -> None:
    here, there, secret, answer = told
    needles = (SECRET.encode(), SECRET.encode("utf-16-le"), b"tokens that spell it")
    assert found_in(tmp_path, SECRET.encode())
    before = [entry.id for entry in here.transcript()]
    here.erase(secret, also=here.alternatives(secret))
    exchange(here, there)
    for conversation in (here, there):
        assert [entry.id for entry in conversation.transcript()] == before
        entry = conversation.entry(secret)
        assert (entry.status, entry.text, entry.parts, dict(entry.hidden)) == ("erased", "", (), {})
        assert entry.hash == secret.hash
        assert [e.status for e in conversation.alternatives(secret)] == ["erased", "erased"]
        assert set(conversation.entry(answer).hidden) == {"other"}
        assert conversation.verify() == []
    assert here.transcript().hash == there.transcript().hash
    assert found_in(tmp_path, *needles) == []


def test_what_was_written_beside_an_erase_goes_again(
    told: tuple[llmcrdt.Conversation, llmcrdt.Conversation, llmcrdt.Entry, llmcrdt.Entry], tmp_path: Path
) -> None:
    """The other device had not heard of the erase, and generated on the secret meanwhile."""
    here, there, secret, _ = told
    here.erase(secret, also=here.alternatives(secret))
    late = there.append("assistant", "Later.", frame=there.transcript(), hidden={TOKENS: b"tokens that spell it"})
    exchange(here, there)
    exchange(here, there)
    for conversation in (here, there):
        assert TOKENS not in conversation.entry(late).hidden
        assert conversation.entry(late).text == "Later."
    assert found_in(tmp_path, SECRET.encode(), b"tokens that spell it") == []


@pytest.mark.parametrize("first", ["its base", "the answer"])
@pytest.mark.parametrize("erased_when", ["before", "between", "after"])
def test_a_token_log_goes_in_whatever_order_it_comes(
    open_repo: OpenRepo, tmp_path: Path, first: str, erased_when: str
) -> None:
    """Also where its answer waits for the one that it was computed on, and takes part only later."""
    laptop = open_repo("laptop")
    here = laptop.create()
    secret = here.append("user", SECRET)
    phone, tablet = (open_repo(name, laptop.library).join(here.id) for name in ("phone", "tablet"))
    exchange(here, phone)
    base = phone.append("assistant", "Noted.", frame=phone.transcript())
    exchange(phone, tablet)
    at = phone.version()
    answer = tablet.append(
        "assistant", "Once more.", frame=tablet.transcript(), hidden={TOKENS: b"tokens that spell it", "other": b"kept"}
    )
    updates = [phone.diff(since=here.version()), tablet.diff(since=at)]
    if first == "the answer":
        updates.reverse()
    if erased_when == "before":
        here.erase(secret)
    here.apply(updates[0])
    if erased_when == "between":
        here.erase(secret)
    here.apply(updates[1])
    if erased_when == "after":
        here.erase(secret)
    assert {base.id, answer.id} <= set(here.transcript().ids)
    assert set(here.entry(answer).hidden) == {"other"}
    assert not [found for found in found_in(tmp_path, b"tokens that spell it") if found.startswith("laptop")]


def test_an_erase_from_elsewhere_of_an_entry_that_nobody_has_read_yet(open_repo: OpenRepo) -> None:
    """Also where somebody holds a transcript of before: it can't show what was never read."""
    laptop = open_repo("laptop")
    here = laptop.create()
    said = [here.append("user", text) for text in ("Hello", SECRET, "And on.")]
    there = open_repo("phone", laptop.library).join(here.id)
    exchange(here, there)
    laptop.close()
    again = open_repo("laptop").get(here.id)
    core_of(again).document.load()
    before = again.transcript()
    there.erase(said[1])
    again.apply(there.diff(since=again.version()))
    assert [entry.status for entry in again.transcript()] == ["complete", "erased", "complete"]
    assert [entry.text for entry in before] == ["Hello", "", "And on."]


def test_token_logs_that_come_by_the_hundred_go(open_repo: OpenRepo, tmp_path: Path) -> None:
    """Then entries are read no further than their order needs."""
    laptop = open_repo("laptop")
    here = laptop.create()
    secret = here.append("user", SECRET)
    phone = open_repo("phone", laptop.library).join(here.id)
    exchange(here, phone)
    with phone.batch():
        for n in range(300):
            hidden = {TOKENS: b"tokens that spell it", "other": b"kept"}
            phone.append("assistant", f"a{n}", frame=phone.transcript(), hidden=hidden)
    here.erase(secret)
    tablet = open_repo("tablet", laptop.library).join(here.id)
    exchange(here, tablet)
    tablet.append("user", "meanwhile")
    here.apply(tablet.diff())
    here.apply(phone.diff())
    assert len(here.transcript()) == 302
    assert {name for entry in here.transcript() for name in entry.hidden} == {"other"}
    assert not [found for found in found_in(tmp_path, b"tokens that spell it") if found.startswith("laptop")]


def test_an_old_backup_does_not_bring_it_back(
    told: tuple[llmcrdt.Conversation, llmcrdt.Conversation, llmcrdt.Entry, llmcrdt.Entry], tmp_path: Path
) -> None:
    here, there, secret, _ = told
    old = there.diff()
    here.erase(secret, also=here.alternatives(secret))
    here.apply(old)
    assert here.entry(secret).status == "erased"
    assert found_in(tmp_path / "laptop.db", SECRET.encode()) == []
    stranger = here.diff()
    assert SECRET.encode() not in stranger


def test_what_only_contains_the_words_stays_and_is_listed(open_repo: OpenRepo) -> None:
    """Erasing a word must not take a good answer along in which it occurs."""
    repo = open_repo("laptop")
    conversation = repo.create()
    rome = conversation.append("user", "Rome")
    trip = conversation.edit(rome, "Please plan the whole trip to  rome, with a day in Ostia")
    same = conversation.edit(rome, "Rome")
    other = conversation.edit(rome, "Oslo")
    conversation.select(rome)
    summary = conversation.summarize(until=rome, text="They asked about a city.")
    again = conversation.append("assistant", [llmcrdt.ToolCall("c", "book", '{"to": "Rome"}')])
    conversation.append("user", "And on.")
    fork = repo.fork(conversation, at=again)
    open_repo("phone").create().append("user", "Rome")
    erased = conversation.erase(rome)
    assert set(erased.entries) == {rome.id, same.id}
    held = [(conversation.id, trip.id, "alternative"), (conversation.id, summary.id, "summary"),
            (conversation.id, again.id, "entry"), (fork.id, rome.id, "copy")]  # fmt: skip
    assert list(erased.still_held) == held
    assert conversation.entry(trip).text.startswith("Please plan")
    assert conversation.entry(other).text == "Oslo"
    with pytest.raises(InvalidContent, match=fork.id):
        conversation.erase(rome, also=erased.still_held)
    here = [found for found in erased.still_held if found.conversation == conversation.id]
    more = conversation.erase(rome, also=here)
    assert set(more.entries) == {rome.id, trip.id, summary.id, again.id}
    assert list(more.still_held) == [(fork.id, i, "copy") for i in more.entries if i in fork.transcript().ids]
    assert [e.status for e in conversation.transcript()] == ["erased", "erased", "erased", "complete"]
    back = fork.erase(rome)
    assert back.still_held[0] == (fork.id, summary.id, "summary")
    assert (conversation.id, rome.id, "copy") not in back.still_held


def test_what_a_fork_came_from_still_holds_the_words(open_repo: OpenRepo) -> None:
    """Its provenance says so, also where the other conversation is not in this repo."""
    repo = open_repo("laptop")
    conversation = repo.create()
    secret = conversation.append("user", SECRET)
    fork = repo.fork(conversation, at=secret)
    later = fork.append("user", "only here, about " + SECRET)
    phone = open_repo("phone").join(fork.id)
    phone.apply(fork.diff())
    assert phone.erase(later).still_held == ()
    assert phone.erase(secret).still_held == ((conversation.id, secret.id, "copy"),)


def test_a_short_answer_takes_no_other_one_along(open_repo: OpenRepo) -> None:
    conversation = open_repo("laptop").create()
    conversation.append("user", "Who is there?")
    good = conversation.append("assistant", "I am, and I have a long story to tell.", frame=conversation.transcript())
    short = conversation.append("assistant", "I", instead_of=good)
    empty = conversation.stream("assistant", instead_of=good, interval=0)
    other = conversation.stream("assistant", instead_of=good, interval=0)
    assert conversation.erase(short).entries == (short.id,)
    assert conversation.erase(empty.id).entries == (empty.id,), "to have said nothing yet is no content"
    assert conversation.entry(good).text.startswith("I am")
    assert conversation.entry(other.id).status == "streaming"


@pytest.mark.parametrize("seed", range(8))
def test_erased_stays_erased_whatever_is_merged(open_repo: OpenRepo, seed: int, tmp_path: Path) -> None:
    rng = random.Random(seed)
    repo = open_repo("r0")
    replicas = [repo.create()]
    replicas[0].append("user", SECRET)
    for n in range(1, 3):
        replicas.append(open_repo(f"r{n}", repo.library).join(replicas[0].id))
    exchange(*replicas)
    erased: set[str] = set()
    updates: list[bytes] = [replicas[0].diff()]
    for n in range(25):
        replica = rng.choice(replicas)
        shown = list(replica.transcript())
        match rng.randrange(6):
            case 0:
                replica.append("user", f"{SECRET} {n}")
            case 1:
                replica.append(
                    "assistant", f"about {SECRET}", frame=replica.transcript(), hidden={TOKENS: SECRET.encode()}
                )
            case 2 if shown:
                replica.edit(rng.choice(shown), f"now {SECRET} {n}")
            case 3 if shown:
                chosen = rng.choice(shown)
                replica.erase(chosen)
                erased.add(chosen.id)
            case 4:
                replica.apply(rng.choice(updates))
            case _:
                updates.append(replica.diff())
                replica.apply(rng.choice(replicas).diff())
    for _ in range(3):
        exchange(*replicas)
    assert len({replica.transcript().hash for replica in replicas}) == 1
    for replica in replicas:
        assert all(replica.entry(entry).status == "erased" for entry in erased)  # type: ignore[arg-type]
        assert replica.verify() == []
        assert not replica.transcript().malformed


def test_a_stream_that_is_erased_while_it_grows_leaves_nothing(open_repo: OpenRepo, tmp_path: Path) -> None:
    conversation = open_repo("laptop").create()
    stream = conversation.stream("assistant", interval=0)
    stream.write(SECRET)
    conversation.erase(conversation.transcript()[-1])
    stream.write(" and more of it")
    entry = stream.seal()
    assert entry.status == "erased"
    assert found_in(tmp_path, SECRET.encode(), b"and more of it") == []


def test_a_crash_between_erase_and_purge_is_made_up_for(
    open_repo: OpenRepo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repo = open_repo("laptop")
    conversation = repo.create()
    secret = conversation.append("user", SECRET)
    with monkeypatch.context() as patch:
        patch.setattr(core_of(conversation), "_purge", lambda: None)
        conversation.erase(secret)
    repo.close()
    assert found_in(tmp_path, SECRET.encode())
    open_repo("laptop").get(conversation.id)
    assert found_in(tmp_path, SECRET.encode()) == []


def test_the_first_answer_after_an_erase_begins_anew_and_says_why(open_repo: OpenRepo) -> None:
    conversation = open_repo("laptop").create()
    secret = conversation.append("user", SECRET)
    conversation.append("assistant", "a0", frame=conversation.transcript())
    conversation.append("user", "u1")
    before = conversation.append("assistant", "a1", frame=conversation.transcript())
    assert before.frame is not None
    assert before.frame.base is not None
    conversation.erase(secret)
    after = conversation.append("assistant", "a2", frame=conversation.transcript())
    assert after.frame is not None
    assert (after.frame.base, after.frame.restarts) == (None, "erased")
    assert [e.id for e in conversation.frame_entries(after)] == list(conversation.transcript().ids[:-1])
    next_ = conversation.append("assistant", "a3", frame=conversation.transcript())
    assert next_.frame is not None
    assert (next_.frame.base, next_.frame.restarts) == ((after.id, after.hash), "")
    assert conversation.verify() == []
    assert conversation.transcript().ids[-2:] == (after.id, next_.id)


def test_a_restart_can_be_asked_for(open_repo: OpenRepo) -> None:
    conversation = open_repo("laptop").create()
    conversation.append("user", "u0")
    conversation.append("assistant", "a0", frame=conversation.transcript())
    frame = conversation.transcript().frame(restart="another template")
    assert (frame.base, frame.restarts, len(frame.appended)) == (None, "another template", 2)
    assert frame.hash == conversation.transcript().hash


def test_a_stream_is_sealed_although_the_mark_of_its_erase_has_not_arrived(open_repo: OpenRepo, tmp_path: Path) -> None:
    """Updates may arrive in any order: first what removes the words, then what says that they are erased."""
    conversation = open_repo("laptop").create()
    stream = conversation.stream("assistant", interval=0)
    stream.write(SECRET)
    stranger = pycrdt.Doc()
    stranger.apply_update(conversation.diff())
    before = stranger.get_state()
    node = stranger.get("entries", type=pycrdt.Map)[stream.id]
    del node["live:0:text"]
    conversation.apply(stranger.get_update(before))
    stream.write(" and more")
    assert stream.seal().text == SECRET + " and more"
    node[f"erased:{'A' * 22}"] = '{"lamport":9,"versions":[]}'
    conversation.apply(stranger.get_update())
    assert conversation.entry(stream.id).status == "erased"
    assert found_in(tmp_path, SECRET.encode()) == []
