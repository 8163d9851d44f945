"""A fork begins as the other conversation stood at an entry, and goes its own way."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable
from importlib.util import find_spec

import pytest

import llmcrdt
from llmcrdt.document import schema
from llmcrdt.document.conversation import core_of
from llmcrdt.document.projection import RULES
from llmcrdt.exceptions import ConversationNotFound, EntryNotFound, NotSealed, OtherDocument
from llmcrdt.ids import SessionId
from llmcrdt.repo.sync_source import SyncSource
from llmcrdt.store.entry_index import POSITION
from llmcrdt.sync.local import Record

from ..replicas import plain_replica

OpenRepo = Callable[..., llmcrdt.Repo]


def grown(
    open_repo: OpenRepo, seed: int, *, erases: bool = False, sealed: llmcrdt.HiddenField | None = None
) -> tuple[llmcrdt.Repo, llmcrdt.Conversation]:
    rng = random.Random(seed)
    repo = open_repo("laptop")
    conversation = repo.create("Trip")
    other = open_repo("phone", repo.library).join(conversation.id)
    for n in range(rng.randrange(3, 16)):
        writer = rng.choice([conversation, other])
        shown = list(writer.transcript())
        if erases and shown and rng.random() < 0.15:
            writer.erase(rng.choice(shown))
            continue
        match rng.randrange(5):
            case 0:
                hidden = {"x/y": b"kept", **({"x/s": sealed} if sealed and rng.random() < 0.3 else {})}
                writer.append("assistant", f"a{n}", frame=writer.transcript(), hidden=hidden)
            case 1 if shown:
                writer.edit(rng.choice(shown), f"e{n}")
            case 2 if shown:
                writer.select(rng.choice([*shown, *(e.entry for e in writer.transcript().elsewhere)]))
            case 3:
                conversation.apply(other.diff())
                other.apply(conversation.diff())
            case _:
                writer.append("user", f"u{n}")
    conversation.apply(other.diff())
    if not len(conversation.transcript()):
        conversation.append("user", "something")
    return repo, conversation


@pytest.mark.parametrize("seed", range(25))
def test_a_fork_at_the_end_shows_the_same(open_repo: OpenRepo, seed: int) -> None:
    repo, conversation = grown(open_repo, seed)
    fork = repo.fork(conversation, at=conversation.transcript()[-1])
    assert [(e.id, e.hash) for e in fork.transcript()] == [(e.id, e.hash) for e in conversation.transcript()]
    assert fork.verify() == []
    assert not fork.transcript().malformed
    before = conversation.diff()
    fork.append("user", "only here")
    assert conversation.diff() == before


def rows(repo: llmcrdt.Repo, document: str) -> list[tuple[object, ...]]:
    query = f"SELECT entry, {POSITION}, pin, node, erased, fields, words FROM entry_rows AS entries WHERE document = ?"
    return repo._core.store._connection.db.execute(f"{query} ORDER BY entry", [document]).fetchall()


@pytest.mark.parametrize("seed", range(40))
def test_a_fork_is_in_the_tables_as_its_document_says(open_repo: OpenRepo, seed: int) -> None:
    """It is made without a replica of it; whoever makes the rows of its document finds the same."""
    key = llmcrdt.HiddenField(b"only for us", sealed=True) if find_spec("nacl") and seed % 2 else None
    repo, conversation = grown(open_repo, seed, erases=seed % 3 > 0, sealed=key)
    shown = list(conversation.transcript())
    for entry in {shown[0].id, random.Random(seed).choice(shown).id, shown[-1].id}:
        check_rows(open_repo, repo, repo.fork(conversation, at=entry), entry)


def check_rows(open_repo: OpenRepo, repo: llmcrdt.Repo, fork: llmcrdt.Conversation, at: str) -> None:
    assert repo._core.store.entries.stale(RULES, fork.id) == []
    copied, page = rows(repo, fork.id), fork.entries(last=100)
    assert tuple(e.id for e in page) == fork.transcript().ids and at in fork.transcript().ids
    fork.close()
    repo._core.store.entries.forget(fork.id)
    repo._core.documents.indexing.refresh()
    assert rows(repo, fork.id) == copied
    again = open_repo("tablet").join(fork.id)
    again.apply(repo.get(fork.id).diff())
    assert again.transcript().hash == repo.get(fork.id).transcript().hash
    assert {e.entry.id for e in again.transcript().elsewhere} | set(again.transcript().ids) == {r[0] for r in copied}


@pytest.mark.parametrize("older_file", [False, True])
def test_a_fork_at_an_entry_with_two_versions_has_the_words_of_its_own_one_in_the_tables(
    open_repo: OpenRepo, older_file: bool
) -> None:
    """A later frame pins the other version; in the fork nothing does. Rows of an older file have words of their own."""
    repo = open_repo("laptop")
    conversation = repo.create()
    stream = conversation.stream("user", interval=0)
    stream.write("begun")
    other = open_repo("phone", repo.library).join(conversation.id)
    other.apply(conversation.diff())
    entry = other.seal(other.transcript()[-1]).id
    other.append("assistant", "a", frame=other.transcript())
    stream.write(" and ended")
    stream.seal()
    conversation.apply(other.diff())
    assert conversation.transcript()[0].text == "begun"
    if older_file:
        repo.search("begun")
        with repo._core.store._connection.writing() as db:
            texts = "(SELECT words FROM entry_texts WHERE entry_texts.number = entries.number)"
            db.execute(f"UPDATE entries SET words = {texts} WHERE words = ''")
    fork = repo.fork(conversation, at=entry)
    assert [e.text for e in fork.transcript()] == ["begun and ended"]
    assert [hit.conversation for hit in repo.search("ended")] == [fork.id]
    if not older_file:
        check_rows(open_repo, repo, fork, entry)


def test_a_fork_says_nothing_of_what_is_withheld_in_the_tables(open_repo: OpenRepo) -> None:
    """An edit that an erase withholds is in the fork where an edit of it, which somebody kept, is shown."""
    repo = open_repo("laptop")
    conversation = repo.create()
    entry = conversation.append("user", "the secret")
    other = open_repo("phone", repo.library).join(conversation.id)
    other.apply(conversation.diff())
    again = other.edit(other.edit(entry, "the secret, again"), "harmless")
    conversation.erase(entry)
    conversation.apply(other.diff())
    conversation.keep(again)
    conversation.select(again)
    assert [e.text for e in conversation.transcript()] == ["harmless"]
    fork = repo.fork(conversation, at=again)
    withheld = {e.entry.text for e in fork.transcript().elsewhere if e.way == "withheld"}
    assert withheld == {"the secret, again"} and not repo.search("secret")
    check_rows(open_repo, repo, fork, again.id)


def test_a_fork_is_ready_to_be_written_in(open_repo: OpenRepo) -> None:
    """It is in memory, with its rows, and its compaction is no matter of its first words."""
    repo = open_repo("laptop")
    conversation = repo.create("Trip")
    conversation.append("user", "Rumpelstilzchen")
    answer = conversation.append("assistant", "a0", frame=conversation.transcript(), hidden={"x/y": b"kept"})
    fork = repo.fork(conversation, at=answer)
    assert core_of(fork).document.loaded
    assert [e.text for e in fork.entries()] == ["Rumpelstilzchen", "a0"]
    assert {hit.conversation for hit in repo.search("rumpelstilzchen")} == {conversation.id, fork.id}
    fork.close()
    fork = repo.get(fork.id)
    assert [e.text for e in fork.entries()] == ["Rumpelstilzchen", "a0"]
    assert {hit.conversation for hit in repo.search("rumpelstilzchen")} == {conversation.id, fork.id}
    assert not core_of(fork).document.loaded, "its rows were written without its replica"
    fork.append("user", "only here")
    assert [e.text for e in fork.transcript()] == ["Rumpelstilzchen", "a0", "only here"]
    assert fork.created_at > 0 and fork.verify() == []


def test_a_fork_in_the_middle_is_what_stood_there(open_repo: OpenRepo) -> None:
    repo = open_repo("laptop")
    conversation = repo.create("Trip")
    conversation.append("user", "u0")
    middle = conversation.append("assistant", "a0", frame=conversation.transcript(), hidden={"llmcrdt/tokens": b"t"})
    conversation.append("user", "u1")
    fork = repo.fork(conversation, at=middle, title="Another way")
    assert [e.text for e in fork.transcript()] == ["u0", "a0"]
    assert fork.transcript()[-1].frame == middle.frame
    assert fork.transcript()[-1].hidden["llmcrdt/tokens"].data == b"t"
    assert fork.title == "Another way"
    came = fork.forked_from
    assert came is not None
    assert (came["conversation"], came["entry"]) == (conversation.id, middle.id)
    assert conversation.forked_from is None


def test_what_can_t_be_forked_makes_no_conversation(open_repo: OpenRepo) -> None:
    repo = open_repo("laptop")
    conversation = repo.create()
    stream = conversation.stream("assistant", interval=0)
    stream.write("growing")
    with pytest.raises(NotSealed):
        repo.fork(conversation, at=conversation.transcript()[-1])
    with pytest.raises(EntryNotFound):
        repo.fork(conversation, at="AAAAAAAAAAAAAAAA")  # type: ignore[arg-type]
    assert [row.id for row in repo.list()] == [conversation.id]
    with pytest.raises(ConversationNotFound):
        repo.get("nowhere")


def test_the_entry_that_was_forked_at_is_shown_also_beside_a_rival(open_repo: OpenRepo) -> None:
    """Rivals stay side by side once both are written on (O6); what was written on them later is not in the fork."""
    repo = open_repo("laptop")
    conversation = repo.create()
    conversation.append("user", "u")
    other = open_repo("phone").join(conversation.id)
    other.apply(conversation.diff())
    answers = []
    for writer in (conversation, other):
        answers.append(writer.append("assistant", "a", frame=writer.transcript()))
        writer.append("user", "go on")
    conversation.apply(other.diff())
    assert {answer.id for answer in answers} <= set(conversation.transcript().ids)
    for answer in answers:
        fork = repo.fork(conversation, at=answer)
        assert answer.id in fork.transcript().ids
        before = conversation.transcript().ids.index(answer.id)
        assert len(fork.transcript()) + len(fork.transcript().elsewhere) == before + 1


def test_a_fork_is_not_merged_back(open_repo: OpenRepo) -> None:
    """Both hold a map under one entry id: the merge would keep one of them, and bring back what was erased."""
    repo = open_repo("laptop")
    conversation = repo.create()
    secret = conversation.append("user", "Rumpelstilzchen")
    key = llmcrdt.HiddenField(b"only for us", sealed=True)
    answer = conversation.append("assistant", "a", frame=conversation.transcript(), hidden={"provider/state": key})
    fork = repo.fork(conversation, at=answer)
    conversation.erase(secret)
    fork.append("user", "only in the fork")
    for into, other in ((conversation, fork), (fork, conversation)):
        before = into.diff(), into.version(), into.transcript().hash, repo._core.store.updates.last_seq(into.id)
        for update in (other.diff(), other.diff(since=into.version())):
            with pytest.raises(OtherDocument, match=other.id):
                into.apply(update)
            assert (
                into.diff(),
                into.version(),
                into.transcript().hash,
                repo._core.store.updates.last_seq(into.id),
            ) == before
    with pytest.raises(OtherDocument):
        open_repo("phone").join(conversation.id).apply(fork.diff())
    assert [e.status for e in conversation.transcript()] == ["erased", "complete"]
    for each in (conversation, fork):
        assert each.entry(answer).hidden["provider/state"].data == b"only for us"
        again = open_repo("tablet").join(each.id)
        again.apply(each.diff())
        assert again.transcript().hash == each.transcript().hash


def test_a_fork_that_a_relay_has_under_another_id_is_set_aside_and_told(
    open_repo: OpenRepo, caplog: pytest.LogCaptureFixture
) -> None:
    repo = open_repo("laptop")
    conversation = repo.create()
    fork = repo.fork(conversation, at=conversation.append("user", "hello"))
    fork.append("user", "only in the fork")
    phone = open_repo("phone").join(conversation.id)
    phone.apply(conversation.diff())
    at = phone.version()
    phone.append("user", "and on")
    records = [Record(SessionId("s" * 22), n, data) for n, data in ((1, fork.diff()), (2, phone.diff(since=at)))]
    with caplog.at_level(logging.WARNING, "llmcrdt"):
        SyncSource(repo._core, "ws://relay", None).received(conversation.id, records, None)
    assert fork.id in caplog.text
    assert repo._core.store.updates.set_aside_count(conversation.id) == 1
    assert [e.text for e in conversation.transcript()] == ["hello", "and on"]


def test_a_document_that_does_not_say_which_one_it_is_is_merged(open_repo: OpenRepo) -> None:
    """Those of before do not, and no update does that comes after the first one."""
    conversation = open_repo("laptop").create()
    older = plain_replica()
    with older.edit() as edit:
        edit.put(schema.META, "schema", schema.SCHEMA)
        edit.put(schema.META, "kind", "conversation")
    conversation.apply(older.diff())
    joined = open_repo("phone").join(conversation.id)
    joined.apply(older.diff())
    joined.append("user", "hello")
    conversation.apply(joined.diff())
    joined.apply(conversation.diff())
    assert [e.text for e in conversation.transcript()] == [e.text for e in joined.transcript()] == ["hello"]


def test_nobody_makes_a_conversation_refuse_its_own_updates(open_repo: OpenRepo) -> None:
    """A stranger may write that it is another one: that update is refused, and what others merged with it is not."""
    conversation = open_repo("laptop").create()
    conversation.append("user", "hello")
    stranger = plain_replica()
    stranger.apply(conversation.diff())
    at = stranger.version()
    with stranger.edit() as edit:
        edit.put(schema.META, schema.IDENTITY + "another", "1")
    with pytest.raises(OtherDocument, match="another"):
        conversation.apply(stranger.diff(since=at))
    with stranger.edit() as edit:
        edit.put(schema.META, schema.IDENTITY + conversation.id, "0")
    if core_of(conversation).replica.kind == "yjs":  # where it can't be told that the own one is written, too
        with pytest.raises(OtherDocument, match="another"):
            conversation.apply(stranger.diff(since=at))
    joined = open_repo("phone").join(conversation.id)
    joined.apply(stranger.diff())
    joined.append("user", "and on")
    conversation.apply(joined.diff())
    assert [e.text for e in conversation.transcript()] == ["hello", "and on"]
