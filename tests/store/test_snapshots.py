"""Rows lean on the pieces of snapshots, and say the same as before, whatever became of these."""

from __future__ import annotations

import random
import sqlite3
import zlib
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest

import llmcrdt
from llmcrdt.document.projection import RULES, unpack_fields
from llmcrdt.repo.journal import StoreJournal
from llmcrdt.repo.repo import repo_core
from llmcrdt.store.deflate import Blocks, Leaning, deflate, inflate, inflate_leaning
from llmcrdt.store.store import SqliteStore
from tests.store.test_entry_index import forget, rows

SMALL = 6_000


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("llmcrdt.repo.journal", "llmcrdt.store.base"):
        monkeypatch.setattr(f"{module}.SMALL", SMALL)
    for name, size in (("LEAST", 2_000), ("MOST", 3_000), ("BLOCK", 700), ("HEAD", 300)):
        monkeypatch.setattr(f"llmcrdt.store.deflate.{name}", size)


def store_of(repo: llmcrdt.Repo) -> SqliteStore:
    return repo_core(repo).store


def finish(repo: llmcrdt.Repo) -> None:
    """Do what was begun in the background."""
    core = repo_core(repo)
    with core.resources.lock:
        core.resources.upkeep.close()
    core.resources.upkeep.join(60)
    core.resources.upkeep.__init__(core.resources.lock)  # type: ignore[misc]


def inside(path: Path) -> Iterator[bytes]:
    """All that a file holds, inflated: pieces, and rows with and without the piece that they lean on."""
    for file in path.parent.glob(f"{path.name}*"):
        yield file.read_bytes()
    with closing(sqlite3.connect(path)) as db:
        pieces = dict(db.execute("SELECT number, data FROM pieces"))
        yield from map(inflate, pieces.values())
        for piece, fields in db.execute("SELECT piece, fields FROM short_fields"):
            yield fields_of(fields, pieces[piece])
        for (fields,) in db.execute("SELECT fields FROM fields UNION ALL SELECT data FROM updates"):
            yield fields
        yield from (
            zlib.decompress(row[0]) for row in db.execute("SELECT data FROM snapshots WHERE typeof(data)='blob'")
        )


def fields_of(short: bytes, piece: bytes) -> bytes:
    """The fields of a row that leans on a piece."""
    return inflate_leaning(short[1:], Blocks(piece).read(short[0]))


def check(repo: llmcrdt.Repo) -> None:
    """Every row is as its document says, and nothing is in the file that nobody needs."""
    db = store_of(repo)._connection.db
    before = rows(repo)
    orphans = "SELECT count(*) FROM short_fields WHERE piece NOT IN (SELECT number FROM pieces)"
    twice = "SELECT count(*) FROM short_fields JOIN fields USING (number)"
    lost = "SELECT count(*) FROM (SELECT number FROM fields UNION ALL SELECT number FROM short_fields)"
    assert db.execute(orphans).fetchone()[0] == db.execute(twice).fetchone()[0] == 0
    assert db.execute(f"{lost} WHERE number NOT IN (SELECT number FROM entries)").fetchone()[0] == 0
    ids = [item.id for item in repo.list(limit=99)]
    for id_ in ids:
        repo.get(id_).close()
    forget(repo)
    repo.search("linden", wait=None)
    assert rows(repo) == before
    db.execute("INSERT INTO entry_words (entry_words, rank) VALUES ('integrity-check', 1)")


@pytest.mark.parametrize("seed", range(12))
def test_rows_say_what_their_documents_say(tmp_path: Path, seed: int) -> None:
    """Through compactions, erases, forks and deletions, by two processes on one file, ended at any moment."""
    rng, path = random.Random(seed), tmp_path / "a.db"
    repos = [llmcrdt.open(path)]
    repos.append(llmcrdt.open(path))
    ids = [repos[0].create("one").id]
    erased: set[str] = set()
    for n in range(120):
        repo = rng.choice(repos)
        conversation = repo.get(rng.choice(ids))
        shown = [entry for entry in conversation.transcript() if entry.status != "erased"]
        match rng.choice(
            ["say"] * 8 + ["answer"] * 3 + ["edit", "erase", "fork", "delete", "finish", "search", "open"]
        ):
            case "answer":
                conversation.append("assistant", f"linden answer {n}", frame=conversation.transcript())
            case "edit" if shown:
                conversation.edit(rng.choice(shown), f"linden edited {n} {rng.randbytes(30).hex()}")
            case "erase" if len(shown) > 4 and len(ids) == 1:
                conversation.erase(entry := rng.choice(shown))
                if entry.text.split()[-1].startswith("x"):
                    erased.add(entry.text.split()[-1])
            case "fork" if shown and len(ids) < 4:
                ids.append(repo.fork(conversation, at=rng.choice(shown)).id)
            case "delete" if len(ids) > 1:
                repo.delete(ids.pop(rng.randrange(len(ids))))
            case "finish":
                finish(repo)
            case "search":
                repo.search("linden")
            case "open":
                at = repos.index(repo)
                repo.close()
                repos[at] = llmcrdt.open(path)
            case _:
                conversation.append("user", f"linden {n} {rng.randbytes(60).hex()} x{rng.randbytes(8).hex()}")
    for repo in repos:
        finish(repo)
        repo.search("linden", wait=None)
    assert store_of(repos[0])._connection.one("SELECT count(*) FROM short_fields") > 0
    check(repos[0])
    for repo in repos:
        repo.close()
    assert not [word for data in inside(path) for word in erased if word.encode() in data]


def test_settled_rows_hold_nothing_of_their_own(tmp_path: Path) -> None:
    """A long conversation, closed: of nearly all rows the fields stand in the snapshot, and there alone."""
    rng, path = random.Random(1), tmp_path / "a.db"
    with llmcrdt.open(path) as repo:
        conversation = repo.create("one")
        for n in range(300):
            conversation.append("user", f"{n} " + rng.randbytes(150).hex())
            finish(repo)  # so that it is no matter of speed which rows lean
        ids = {entry.text.split()[1]: entry.id for entry in conversation.transcript()}
    with llmcrdt.open(path) as repo:
        db = store_of(repo)._connection
        settled = db.one("SELECT count(*) FROM short_fields")
        assert settled > 240 and db.one("SELECT count(*) FROM fields") == 300 - settled
        assert db.one("SELECT sum(length(fields)) FROM short_fields") < 120 * settled
        left = (
            "SELECT count(*) FROM pieces, snapshots WHERE number NOT IN (SELECT value FROM json_each(snapshots.data))"
        )
        assert db.one(left) == 0
        assert {entry.text.split()[1]: entry.id for entry in repo.get(conversation.id).entries(last=300)} == ids
        page = store_of(repo).entries.page(conversation.id, RULES, 300, None)
        assert page is not None and all("head" in unpack_fields(fields) for _, _, fields in page)


@pytest.mark.parametrize("forked", [False, True])
def test_an_erase_leaves_nothing_in_pieces_nor_in_what_leans_on_them(tmp_path: Path, forked: bool) -> None:
    rng, path = random.Random(2), tmp_path / "a.db"
    secret = "Rumpelstilzchen" + rng.randbytes(6).hex()
    with llmcrdt.open(path) as repo:
        conversation = repo.create("one")
        for n in range(80):
            said = f"{n} {secret if n == 40 else ''} {rng.randbytes(60).hex()}"
            conversation.append("user", said)
            finish(repo)  # so that it is no matter of speed which rows lean
        assert store_of(repo)._connection.one("SELECT count(*) FROM short_fields") > 60
        fork = repo.fork(conversation, at=conversation.transcript()[60]) if forked else None
        conversation.erase(conversation.transcript()[40])
        assert len(repo.search(secret)) == bool(fork)
        if fork is not None:
            assert secret in fork.entries(last=30)[9].text, "the fork's own words are its own"
            fork.erase(fork.transcript()[40])
        assert not repo.search(secret)
        assert len(conversation.entries(last=80)) == 80
    assert not [1 for data in inside(path) if secret.encode() in data]


def test_a_fork_outlives_the_conversation_whose_pieces_it_leans_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with llmcrdt.open(tmp_path / "a.db") as repo:
        conversation = repo.create("one")
        for n in range(80):
            conversation.append("user", f"linden {n} " + "words and more " * 5)
            finish(repo)  # so that it is no matter of speed which rows lean
        with monkeypatch.context() as patched:  # it has no pieces of its own yet
            patched.setattr(StoreJournal, "compact", lambda *_: None)
            fork = repo.fork(conversation, at=conversation.transcript()[-1])
        db = store_of(repo)._connection
        leaning = "SELECT count(*) FROM short_fields JOIN entries USING (number) WHERE document = ?"
        assert db.one(leaning, fork.id) > 60
        texts = [entry.text for entry in conversation.transcript()]
        repo.delete(conversation.id)
        assert db.one("SELECT count(*) FROM pieces") == 0
        assert [entry.text for entry in fork.entries(last=80)] == texts
        assert len(repo.search("linden", limit=99)) == 80
        check(repo)


def test_a_snapshot_of_an_older_version_is_read_and_gives_way(tmp_path: Path) -> None:
    """It was one zlib stream."""
    path = tmp_path / "a.db"
    with llmcrdt.open(path) as repo:
        conversation = repo.create("one")
        for n in range(60):
            conversation.append("user", f"linden {n} " + "words and more " * 5)
        before = tuple(conversation.transcript())
    with closing(sqlite3.connect(path)) as db, db:
        kept = dict(db.execute("SELECT number, data FROM pieces"))
        ((numbers,),) = db.execute(
            "SELECT value FROM (SELECT json_group_array(value) AS value FROM snapshots, json_each(data))"
        )
        whole = b"".join(inflate(kept[int(number)]) for number in numbers.strip("[]").split(","))
        db.create_function("fields_of", 2, lambda fields, piece: fields_of(fields, kept[piece]))
        db.execute("INSERT INTO fields SELECT number, fields_of(fields, piece) FROM short_fields")
        db.execute("DELETE FROM short_fields")
        db.execute("DELETE FROM pieces")
        db.execute("UPDATE snapshots SET data = ?", [zlib.compress(whole)])
    with llmcrdt.open(path) as repo:
        again = repo.get(conversation.id)
        assert again.entries(last=60) == before and tuple(again.transcript()) == before
        for n in range(60):
            again.append("user", f"linden {60 + n} " + "words and more " * 5)
        finish(repo)
        assert store_of(repo)._connection.one("SELECT typeof(data) FROM snapshots") == "text"
        assert store_of(repo)._connection.one("SELECT count(*) FROM short_fields") > 60
        check(repo)
        assert tuple(repo.get(conversation.id).transcript())[:60] == before


def test_pieces_of_an_older_version_are_read_and_give_way(tmp_path: Path) -> None:
    """Each was one zlib stream, and rows leaned on all of it."""
    path = tmp_path / "a.db"
    with llmcrdt.open(path) as repo:
        conversation = repo.create("one")
        for n in range(80):
            conversation.append("user", f"linden {n} " + "words and more " * 5)
            finish(repo)  # so that it is no matter of speed which rows lean
        before = tuple(conversation.transcript())
    with closing(sqlite3.connect(path)) as db, db:
        for number, data in db.execute("SELECT number, data FROM pieces").fetchall():
            piece, query = inflate(data), "SELECT number, fields FROM short_fields WHERE piece = ?"
            leaning = Leaning(piece)
            for row, short in db.execute(query, [number]).fetchall():
                older = leaning.deflate(fields_of(short, data))
                db.execute("UPDATE short_fields SET fields = ? WHERE number = ?", [older, row])
            db.execute("UPDATE pieces SET data = ? WHERE number = ?", [zlib.compress(piece), number])
        assert db.execute("SELECT count(*) FROM short_fields").fetchone()[0] > 60
    with llmcrdt.open(path) as repo:
        again = repo.get(conversation.id)
        assert again.entries(last=80) == before and len(repo.search("linden", limit=99)) == 80
        assert tuple(again.transcript()) == before
        for n in range(80):
            again.append("user", f"linden {80 + n} " + "words and more " * 5)
            finish(repo)
        assert not store_of(repo)._connection.one("SELECT count(*) FROM pieces WHERE substr(data, 1, 1) = x'78'")
        assert store_of(repo)._connection.one("SELECT count(*) FROM short_fields") > 120
        check(repo)
        assert tuple(repo.get(conversation.id).transcript())[:80] == before


def test_a_piece_of_a_transaction_that_failed_is_not_remembered(tmp_path: Path) -> None:
    """Its number is given to another one."""
    with llmcrdt.open(tmp_path / "a.db") as repo:
        connection, numbers = store_of(repo)._connection, []
        query = "INSERT INTO pieces (document, digest, data) VALUES ('d', x'00', ?)"
        for said in (b"before", b"after"):
            with suppress(OSError), connection.writing() as db:
                numbers.append(db.execute(query, [deflate(said)]).lastrowid)
                assert connection.pieces.blocks(numbers[-1]).join() == said
                raise OSError("the disk is full")
        assert numbers[0] == numbers[1]
