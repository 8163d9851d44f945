"""A file that an older version wrote opens as it is: tests/vectors/database.db.gz is of the version in which tasks of
relays stood in settings; database.json says what is in it."""

from __future__ import annotations

import gzip
import json
import random
import sqlite3
import threading
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

import llmcrdt
from llmcrdt.document.conversation import core_of
from llmcrdt.document.projector import words_of_row
from llmcrdt.store.entry_index import POSITION
from llmcrdt.store.snapshots import Pieces
from llmcrdt.store.store import SqliteStore

VECTORS = Path(__file__).parents[1] / "vectors"
SAID = json.loads((VECTORS / "database.json").read_text())


@pytest.fixture
def old(tmp_path: Path) -> Path:
    path = tmp_path / "old.db"
    path.write_bytes(gzip.decompress((VECTORS / "database.db.gz").read_bytes()))
    return path


def rows(path: Path, query: str) -> list[Any]:
    with closing(sqlite3.connect(path)) as db:
        return db.execute(query).fetchall()


def test_tasks_of_relays_move_from_settings_to_their_tables(old: Path) -> None:
    relay, other, (gone, gone_too) = SAID["relay"], SAID["other"], SAID["gone"]
    assert len(rows(old, "SELECT name FROM settings")) == 8
    for _ in range(2):
        with closing(SqliteStore(old, lock=threading.RLock())) as store:
            tasks = store.relay_tasks
            assert tasks.compactions(relay) == tasks.compactions(other) == [SAID["erased"]]
            assert tasks.deletions(relay) == tasks.deletions(relay, "credential") == [gone_too]
            assert tasks.deletions(other) == [gone]
            assert tasks.deletions(other, "credential") == []
            assert (tasks.deleted_last(relay), tasks.deleted_last(other)) == ([gone], [gone_too])
            assert store.updates.purged(SAID["erased"]) == 1
            assert store.updates.purged(SAID["kept"]) == 0
        assert rows(old, "SELECT name FROM settings") == [("library",)]


def test_a_row_without_words_is_not_taken_for_one_whose_words_stand_in_its_fields(old: Path) -> None:
    """An answer that only calls a tool has none; its fields are packed as the older version did."""
    with closing(sqlite3.connect(old)) as db, db:
        packed = b"\x00\x04\x00\x00\x00\x00\x8ahead" + b"x" * 138
        assert db.execute("UPDATE entries SET words = '', fields = ? WHERE number = 2", [packed]).rowcount
        db.execute("INSERT INTO entry_words (entry_words) VALUES ('rebuild')")
    with llmcrdt.open(old) as repo:
        assert [hit.snippet for hit in repo.search("oak", wait=None)] == ["Where is the [oak]?"]
        assert repo.search("oak", wait=None).unread == 0
    with closing(sqlite3.connect(old)) as db:
        db.create_function("words_of", 2, words_of_row, deterministic=True)
        db.create_function("fields_of", 2, Pieces(db).fields, deterministic=True)
        db.execute("INSERT INTO entry_words (entry_words, rank) VALUES ('integrity-check', 1)")


def test_conversations_are_as_they_were(old: Path) -> None:
    with llmcrdt.open(old) as repo:
        assert repo.library == SAID["library"]
        assert {item.id for item in repo.list()} == {SAID["kept"], SAID["erased"]}
        kept = repo.get(SAID["kept"])
        assert [entry.text for entry in kept.transcript()] == SAID["texts"]
        assert kept.transcript().hash == SAID["hash"]
        assert repo.get(SAID["erased"]).transcript().hash == SAID["erased_hash"]
        assert [hit.snippet for hit in repo.search("oak")] == ["Where is the [oak]?"]
        assert not repo.search("never say")
        kept.append("user", "and on")
    with closing(SqliteStore(old, lock=threading.RLock())) as store:
        waiting = store.outboxes.rows(SAID["relay"], SAID["kept"], 0, 99)
        assert [[row.session, row.n] for row in waiting[:1]] == SAID["outbox"]
        assert len(waiting) == 2
        assert waiting[1].session != waiting[0].session, "no process goes on with another one's session"


@pytest.mark.parametrize("seed", range(6))
def test_positions_in_rows_become_runs(tmp_path: Path, seed: int) -> None:
    """Version 5 of the tables had a position in each row; rows of two conversations lie between each other."""
    rng, path = random.Random(seed), tmp_path / "a.db"
    with llmcrdt.open(path) as repo:
        ids = [repo.create(name).id for name in "ab"]
        for n in range(60):
            conversation = repo.get(ids[rng.random() < 0.3])
            shown = conversation.transcript()
            if len(shown) and rng.random() < 0.2:
                conversation.edit(rng.choice(shown), f"linden {n}")
            elif hidden := rng.random() < 0.2 and [found.entry for found in shown.elsewhere]:
                conversation.select(rng.choice(hidden))
            else:
                conversation.append("user", f"linden {n}")
        before = [tuple(repo.get(id_).transcript()) for id_ in ids]
        found = {hit.entry: hit.shown for hit in repo.search("linden", 99, elsewhere=True)}
    runs = rows(path, "SELECT * FROM shown ORDER BY number")
    assert len(runs) > 2
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("ALTER TABLE entries ADD COLUMN position INTEGER")
        db.execute(f"UPDATE entries SET position = {POSITION}")
        db.execute("CREATE INDEX entries_by_position ON entries (document, position) WHERE position IS NOT NULL")
        db.execute("DROP TABLE shown")
        db.execute("DELETE FROM _sqlite_migrations WHERE name = 'm006_runs'")
    with llmcrdt.open(path) as repo:
        for id_, entries in zip(ids, before, strict=True):
            assert tuple(repo.get(id_).entries(last=99)) == entries
            assert not core_of(repo.get(id_)).document.loaded
            assert tuple(repo.get(id_).transcript()) == entries
        assert {hit.entry: hit.shown for hit in repo.search("linden", 99, elsewhere=True)} == found
    assert rows(path, "SELECT * FROM shown ORDER BY number") == runs
