"""Conversations whose documents are of another kind than the file's: the same layer above, the same hashes."""

from __future__ import annotations

import os
import random
import sqlite3
import sys
import time
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

import llmcrdt
from llmcrdt.exceptions import CRDTMissing, InvalidContent, MalformedUpdate
from llmcrdt.repo.repo import Repo, repo_core
from sync_server.thread import RelayThread

sys.path.insert(0, str(Path(__file__).parents[1] / "crdt" / "automerge"))
from needs_automerge import needs_automerge

pytestmark = needs_automerge

Open = Callable[..., Repo]


@pytest.fixture
def open_(tmp_path: Path) -> Iterator[Open]:
    opened: list[Repo] = []

    def make(name: str, library: str | None = None, seed: int = 1) -> Repo:
        rng, now = random.Random(f"{name} {seed}"), [1_700_000_000.0]

        def clock() -> float:
            now[0] += 1
            return now[0]

        made = llmcrdt.open(tmp_path / f"{name}.db", library, author=name, clock=clock, random=rng.randbytes)
        opened.append(made)
        return made

    yield make
    for repo in opened:
        repo.close()


def texts(repo: Repo, id_: str) -> list[str]:
    return [entry.text for entry in repo.get(id_).transcript()]


def say_at_random(rng: random.Random, conversation: llmcrdt.Conversation) -> None:
    """One operation, drawn."""
    shown = conversation.transcript()
    match rng.randrange(12):
        case 0 | 1:
            conversation.append("user", f"said {rng.randrange(1000)} é😀")
        case 2:
            conversation.append(
                "assistant", f"answer {rng.randrange(1000)}", frame=shown, hidden={"x/y": rng.randbytes(9)}
            )
        case 3:
            with conversation.stream("assistant", frame=shown) as stream:
                for _ in range(rng.randrange(1, 9)):
                    stream.write(rng.choice(("words ", "é", "😀", "\n")))
        case 4 if len(shown):
            conversation.edit(rng.choice(shown), f"edited {rng.randrange(1000)}")
        case 5 if shown.elsewhere:
            conversation.select(rng.choice(shown.elsewhere).entry)
        case 6 if len(shown):
            conversation.erase(rng.choice(shown))
        case 7 if len(shown) > 2:
            conversation.summarize(until=shown[rng.randrange(len(shown))], text=f"summary {rng.randrange(1000)}")
        case 8:
            call = llmcrdt.ToolCall(f"c{rng.randrange(1000)}", "look", "{}")
            conversation.append("assistant", [llmcrdt.Text("let me see"), call], frame=shown)
        case 9 if calls := [call for entry in shown for call in entry.tool_calls]:
            conversation.append("tool", f"found {rng.randrange(1000)}", call=rng.choice(calls))
        case 10 if answers := [entry for entry in shown if entry.role == "assistant" and entry.frame]:
            conversation.append("assistant", f"rather {rng.randrange(1000)}", instead_of=rng.choice(answers))
        case 11 if withheld := [other.entry for other in shown.elsewhere if other.way == "withheld"]:
            conversation.keep(rng.choice(withheld))
        case _:
            conversation.append("system", f"settings {rng.randrange(1000)}")


def facts(conversation: llmcrdt.Conversation) -> dict[str, Any]:
    """The hashes of transcript, contents and frames, and what else people see."""
    shown = conversation.transcript()
    return {
        "transcript": shown.hash,
        "entries": [(e.id, e.role, e.text, e.hash, e.frame.hash if e.frame else None, e.parents) for e in shown],
        "alternatives": [[(e.id, e.hash) for e in conversation.alternatives(e)] for e in shown],
        "hidden": [{name: field.data for name, field in e.hidden.items()} for e in shown],
        "elsewhere": sorted((e.entry.id, e.way, e.hidden_by) for e in shown.elsewhere),
    }


@pytest.mark.parametrize("seed", range(int(os.environ.get("LLMCRDT_KINDS", "4"))))
def test_the_same_operations_give_the_same_conversation_on_every_kind(open_: Open, seed: int) -> None:
    """Two devices that write apart and merge, three times."""
    found = []
    for kind in ("yjs", "automerge"):
        one, other = open_(f"{kind}-1", seed=seed), open_(f"{kind}-2", seed=seed)
        for repo, name in ((one, "one"), (other, "other")):  # the same draws, whatever the file is called
            core, rng = repo_core(repo), random.Random(f"{name} {seed}")
            core.resources.random = rng.randbytes
        first = one.create("Trip", crdt=kind)
        second = other.join(first.id, crdt=kind)
        rng = random.Random(seed)
        for _ in range(3):
            for conversation in (first, second):
                for _ in range(5):
                    say_at_random(rng, conversation)
            second.apply(first.diff(since=second.version()))
            first.apply(second.diff(since=first.version()))
            assert facts(first) == facts(second)
        assert not first.verify()
        found.append(facts(first))
    assert found[0] == found[1]


def test_a_conversation_is_kept_and_found_again(open_: Open) -> None:
    repo = open_("a")
    made = repo.create("Trip", crdt="automerge")
    made.append("user", "Hello")
    answer = made.append("assistant", "Hi", frame=made.transcript())
    fork = repo.fork(made, at=answer)
    fork.append("user", "in the fork")
    repo.create("plain").append("user", "Hello too")
    repo.close()
    again = open_("a")
    assert texts(again, made.id) == ["Hello", "Hi"]
    assert texts(again, fork.id) == ["Hello", "Hi", "in the fork"]
    assert {hit.conversation for hit in again.search("hello")} >= {made.id, fork.id}
    kinds = [repo_core(again).kind(listing.id) for listing in again.list()]
    assert sorted(kinds) == ["automerge", "automerge", "yjs"]
    with pytest.raises(InvalidContent, match="automerge, yjs"):
        again.create("x", crdt="loro")
    assert len(again.list()) == 3


def test_two_devices_and_a_relay(open_: Open, tmp_path: Path) -> None:
    """The library tells the other device of which kind it is."""
    one = open_("a")
    made = one.create("Trip", crdt="automerge")
    made.append("user", "Hello")
    with RelayThread(tmp_path / "relay") as relay:
        other = open_("b", one.library)
        with one.connect(relay.url) as here, other.connect(relay.url) as there:
            here.wait_synced(20)
            end = time.monotonic() + 20
            while not other.list() or not texts(other, made.id):
                assert time.monotonic() < end
                there.wait_synced(20)
            theirs = other.get(made.id)
            with theirs.stream("assistant", frame=theirs.transcript()) as stream:
                for word in ("some ", "words"):
                    stream.write(word)
            there.wait_synced(20)
            while texts(one, made.id) != ["Hello", "some words"]:
                assert time.monotonic() < end
                here.wait_synced(20)
        assert made.transcript().hash == theirs.transcript().hash


@pytest.mark.parametrize("seed", range(2))
def test_converting_keeps_ids_and_hashes_both_ways(open_: Open, seed: int) -> None:
    repo, rng = open_("a", seed=seed), random.Random(seed)
    one = repo.create("Trip", crdt="automerge")
    for _ in range(12):
        say_at_random(rng, one)
    with one.stream("assistant", frame=one.transcript()) as streaming:
        streaming.write("not sealed yet")
        other = repo.convert(one, "yjs")
        back = repo.convert(other, "automerge")
        assert facts(one) == facts(other) == facts(back)
    assert [repo_core(repo).kind(c.id) for c in (one, other, back)] == ["automerge", "yjs", "automerge"]
    assert not other.verify() and not back.verify()
    [left], [also] = other.unsealed(), back.unsealed()
    assert left.id == also.id and {*left.text} <= {*"not sealed yet"}
    other.seal(left)
    assert repo.get(other.id).title == "Trip"


def test_what_is_imported_is_of_the_kind_that_was_asked_for(open_: Open, tmp_path: Path) -> None:
    """To import it once more, with or without saying so, finds it; a device that imports it in another kind makes
    another conversation, not one document of two kinds."""
    chat = tmp_path / "chat.json"
    chat.write_text('{"messages": [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi"}]}')
    one, other = open_("a"), open_("b")
    [made] = llmcrdt.import_files(one, [chat], crdt="automerge")
    [again] = llmcrdt.import_files(one, [chat])
    assert isinstance(made, llmcrdt.Imported) and isinstance(again, llmcrdt.Imported)
    assert again.conversation == made.conversation and again.added == 0
    assert repo_core(one).kind(made.conversation) == "automerge"
    assert texts(one, made.conversation) == ["Hello", "Hi"]
    assert one.get(made.conversation).verify() == []
    third = open_("c", one.library)
    [plain] = llmcrdt.import_files(third, [chat])
    assert isinstance(plain, llmcrdt.Imported) and plain.conversation != made.conversation
    with pytest.raises(InvalidContent, match="sealed"):
        [*llmcrdt.import_files(other, [chat], crdt="sealed")]
    [yjs] = llmcrdt.import_files(other, [chat])
    assert isinstance(yjs, llmcrdt.Imported) and repo_core(other).kind(yjs.conversation) == "yjs"


def test_a_document_whose_package_is_missing_is_carried(
    open_: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = open_("a")
    made = one.create("Trip", crdt="automerge")
    made.append("user", "Hello")
    plain = one.create("plain")
    plain.append("user", "Hello too")
    with RelayThread(tmp_path / "relay") as relay:
        with one.connect(relay.url) as link:
            link.wait_synced(20)
        version = metadata.version

        def none(name: str) -> str:
            if name == "automerge":
                raise metadata.PackageNotFoundError(name)
            return version(name)

        with monkeypatch.context() as patch:
            patch.setattr(metadata, "version", none)
            other = open_("b", one.library)
            with other.connect(relay.url) as link:
                end = time.monotonic() + 20
                while len(other.list()) < 2 or not repo_core(other).store.updates.last_seq(made.id):
                    assert time.monotonic() < end
                    link.wait_synced(20)
            assert {listing.title for listing in other.list()} == {"Trip", "plain"}
            assert texts(other, plain.id) == ["Hello too"]
            hits = other.search("hello", wait=None)
            assert {hit.conversation for hit in hits} == {plain.id} and hits.unread == 1
            with pytest.raises(CRDTMissing, match="pip install"):
                other.get(made.id)
            other.close()
    assert texts(open_("b"), made.id) == ["Hello"]


@pytest.mark.parametrize(("here", "there"), [("yjs", "automerge"), ("automerge", "yjs")])
def test_bytes_of_a_document_of_another_kind_are_refused_by_name(open_: Open, here: str, there: str) -> None:
    repo = open_("a")
    mine, other = repo.create(crdt=here), repo.create(crdt=there)
    mine.append("user", "mine")
    other.append("user", "of the other kind")
    with pytest.raises(MalformedUpdate, match="Automerge") as refused:
        mine.apply(other.diff())
    assert f'crdt="{there}"' in (refused.value.hint or "")
    assert texts(repo, mine.id) == ["mine"] and not mine.verify()


@pytest.mark.parametrize("kind", ["automerge", "yjs"])
@pytest.mark.parametrize("damage", [lambda data: data[:-7], lambda data: bytes((data[0] ^ 0x7E, *data[1:]))])
def test_a_change_that_is_torn_or_damaged_in_the_file_is_set_aside_and_the_rest_is_read(
    open_: Open, tmp_path: Path, kind: str, damage: Callable[[bytes], bytes]
) -> None:
    """The entry index had been made of it."""
    repo = open_("a")
    made = repo.create("Trip", crdt=kind)
    for n in range(4):
        made.append("user", f"said {n}")
    repo.close()
    with sqlite3.connect(tmp_path / "a.db") as db:
        query = "SELECT place, data FROM updates WHERE document = ? ORDER BY place DESC LIMIT 1"
        place, data = db.execute(query, [made.id]).fetchone()
        db.execute("UPDATE updates SET data = ? WHERE place = ?", [damage(data), place])
    db.close()
    again = open_("a")
    assert texts(again, made.id) == ["said 0", "said 1", "said 2"]
    assert [hit.snippet for hit in again.search("said")] and again.search("3") == []
    assert repo_core(again).store.updates.set_aside_count(made.id) == 1
    again.get(made.id).append("user", "and on")
    again.close()
    assert texts(open_("a"), made.id) == ["said 0", "said 1", "said 2", "and on"]
