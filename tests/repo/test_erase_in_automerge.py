"""O7 in Automerge documents, whose history keeps all that was ever written: after an erase neither a file nor the
history that is stored in it, on any device or relay, holds the words, and nothing that was said meanwhile is lost."""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

import llmcrdt
from llmcrdt.crdt.automerge.replica import AutomergeReplica
from llmcrdt.crdt.registry import backend
from llmcrdt.document.conversation import core_of
from llmcrdt.document.entry import TOKENS
from llmcrdt.ids import document_bytes
from llmcrdt.repo.repo import repo_core
from sync_server.thread import RelayThread

from ..sync_server.core.test_compaction import stored
from .test_erase_everywhere import files_with

sys.path.insert(0, str(Path(__file__).parents[1] / "crdt" / "automerge"))
from needs_automerge import needs_automerge

pytestmark = needs_automerge

OpenRepo = Callable[..., llmcrdt.Repo]
SECRET = "Rumpelstilzchen lives behind the seventh hill"
OTHER = "and his brother in the house with the crooked door"
NEEDLES = [SECRET.encode(), OTHER.encode(), SECRET.encode("utf-16-le"), b"tokens that spell it"]


def history(updates: Sequence[bytes]) -> bytes:
    """All that updates say, whatever was deleted since, with nothing deflated."""
    replica, aside = backend("automerge").load_all(updates)
    assert isinstance(replica, AutomergeReplica)
    return b"\0".join((*updates, *aside, *(change.raw for change in replica.changes())))


def kept_by(repo: llmcrdt.Repo, conversation: str) -> bytes:
    kept = repo_core(repo).store.updates.since(conversation, 0)
    return history([*([kept.snapshot] if kept.snapshot else []), *kept.updates])


def wait_until_gone(read: Callable[[], bytes]) -> None:
    until = time.monotonic() + 60
    while any(needle in read() for needle in NEEDLES) and time.monotonic() < until:
        time.sleep(0.1)
    assert [needle for needle in NEEDLES if needle in read()] == []


def told(conversation: llmcrdt.Conversation) -> tuple[object, ...]:
    transcript = conversation.transcript()
    return transcript.hash, transcript.ids, [(entry.status, entry.text) for entry in transcript]


@pytest.mark.parametrize("seed", range(1))
def test_no_history_holds_the_words_and_what_was_said_meanwhile_stays(
    open_repo: OpenRepo, tmp_path: Path, seed: int
) -> None:
    """Two devices erase beside each other, and a third one comes back that had heard of neither."""
    rng = random.Random(seed)
    laptop = open_repo("laptop")
    phone, tablet = (open_repo(name, laptop.library) for name in ("phone", "tablet"))
    here = laptop.create(crdt="automerge")
    here.append("system", "Be brief.")
    with here.stream("user") as streaming:
        streaming.write(SECRET)
    secret = here.transcript()[-1]
    also = here.append("user", OTHER, hidden={"raw": OTHER.encode()})
    answer = here.append("assistant", "Noted.", frame=here.transcript(), hidden={TOKENS: b"tokens that spell it"})
    fork = laptop.fork(here, at=answer)
    fork.append("user", "in the fork")
    with RelayThread(tmp_path / "relay") as relay:
        for repo in (laptop, phone, tablet):
            with repo.connect(relay.url) as link:
                link.wait_synced(30)
        there, third = phone.get(here.id), tablet.get(here.id)
        assert told(here) == told(there) == told(third)
        assert all(SECRET.encode() in kept_by(repo, here.id) for repo in (laptop, phone, tablet))
        # Nobody hears of anybody.
        said = []
        for n in range(3):
            said.append(third.append("user", f"said offline {n}").id)
            third.edit(third.entry(said[-1]), f"said offline {n}, I meant")
        third.append("assistant", "Later.", frame=third.transcript(), hidden={TOKENS: b"tokens that spell it"})
        here.erase(secret)
        there.erase(also)
        with there.stream("assistant") as going_on:
            going_on.write("meanwhile")
        laptop.get(fork.id).erase(also.id)
        laptop.get(fork.id).erase(secret.id)
        everybody = [laptop, phone, tablet]
        for repo in rng.sample(everybody, 3) + rng.sample(everybody, 3):
            with repo.connect(relay.url) as link:
                link.wait_synced(30)
        for repo in everybody:
            with repo.connect(relay.url) as link:
                link.wait_synced(30)
                wait_until_gone(lambda: history(stored(relay.url, "automerge", document_bytes(here.id))))
                wait_until_gone(lambda: b"".join(p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()))
        late = open_repo("late", laptop.library)
        with late.connect(relay.url) as link:
            link.wait_synced(30)
        here.adopt(laptop.get(fork.id))
        for repo in (laptop, phone, tablet, late) * 2:
            with repo.connect(relay.url) as link:
                link.wait_synced(30)
        everywhere = [repo.get(here.id) for repo in (laptop, phone, tablet, late)]
        assert all(told(one) == told(here) for one in everywhere)
        wait_until_gone(lambda: history(stored(relay.url, "automerge", document_bytes(here.id))))
    for one in everywhere:
        assert [one.entry(entry).status for entry in (secret, also)] == ["erased", "erased"]
        assert {"Noted.", "Later.", "meanwhile", "in the fork"} <= {entry.text for entry in one.transcript()}
        assert {f"said offline {n}, I meant" for n in range(3)} <= {entry.text for entry in one.transcript()}
        assert set(one.entry(answer).hidden) == set()
        assert one.verify() == []
        assert not core_of(one).replica.snapshot()[1], "nothing waits for what nobody has"
    for repo in (laptop, phone, tablet, late):
        for id_ in (here.id, fork.id):
            assert not any(needle in kept_by(repo, id_) for needle in NEEDLES)
    assert files_with(tmp_path, NEEDLES) == []


def test_a_document_as_bytes_of_before_an_erase_brings_nothing_back(open_repo: OpenRepo, tmp_path: Path) -> None:
    laptop = open_repo("laptop")
    here = laptop.create(crdt="automerge")
    secret = here.append("user", SECRET)
    phone = open_repo("phone", laptop.library)
    there = phone.join(here.id, crdt="automerge")
    before = here.diff()
    there.apply(before)
    here.erase(secret)
    there.append("user", "said offline")
    for _ in range(2):
        for update in (before, there.diff(), there.diff(since=here.version())):
            here.apply(update)
    assert [entry.text for entry in here.transcript()] == ["", "said offline"]
    assert not any(needle in kept_by(laptop, here.id) for needle in NEEDLES)
    assert not any(needle in (tmp_path / "laptop.db").read_bytes() for needle in NEEDLES)
    blank = open_repo("tablet", laptop.library).join(here.id, crdt="automerge")
    for update in (here.diff(), before, there.diff()):
        blank.apply(update)
    assert told(blank) == told(here)


def test_the_erase_of_somebody_who_only_deletes_is_completed(open_repo: OpenRepo) -> None:
    """A plain Automerge client marks an entry as erased and deletes its fields: its history still has the words."""
    laptop = open_repo("laptop")
    here = laptop.create(crdt="automerge")
    secret = here.append("user", SECRET)
    stranger = backend("automerge").make_replica(("meta", "entries", "acts"))
    stranger.load(None, [here.diff()])
    with stranger.edit() as edit:
        for name in stranger.node("entries", secret.id) or ():
            if name.startswith("version:"):
                edit.delete_field("entries", secret.id, name)
        edit.put_field("entries", secret.id, "erased:stranger", "{}")
    here.apply(edit.update)
    assert here.entry(secret).status == "erased"
    assert not any(needle in kept_by(laptop, here.id) for needle in NEEDLES)
