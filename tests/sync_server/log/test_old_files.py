"""A log that an older relay wrote opens, says the same, and goes on.

``relay_log_0_1.sql`` is what version 0.1 wrote before rooms and log were divided: records of two sessions, a snapshot
in two parts, a deleted document, a tombstone of an unknown one, a rejected record, and a compaction that was asked for.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from llmcrdt.crdt.yjs.replica import YjsReplica
from llmcrdt.sync.messages import Record
from sync_server.log.base import Origin, Stored
from sync_server.log.file import DATABASE
from sync_server.log.sqlite import SqliteStorage
from sync_server.log.verify import faults

DUMP = Path(__file__).parents[2] / "vectors" / "relay_log_0_1.sql"
D, E, F, G, S, T = (letter * 16 for letter in (b"D", b"E", b"F", b"G", b"S", b"T"))
CHAIN = bytes.fromhex("3ad34dfe30da4ec42e9691246822d33db3eeab0402e56188bd3af5dd371ba826")


def restored(folder: Path) -> Path:
    with closing(sqlite3.connect(folder / DATABASE)) as db:
        db.execute("PRAGMA application_id = 1280135769")
        db.executescript(DUMP.read_text(encoding="utf-8"))
    return folder / DATABASE


def test_a_log_of_version_0_1_says_the_same_and_goes_on(tmp_path: Path) -> None:
    path = restored(tmp_path)
    with closing(SqliteStorage(path)) as storage:
        records, snapshots = storage.records, storage.snapshots
        head = records.head(D)
        assert head is not None and (head.kind, head.cursor.position, head.cursor.chain) == ("yjs", 8, CHAIN)
        assert records.holds(D, head.cursor) and records.chain_at(D, 3) is None
        snapshot = snapshots.get(D)
        assert snapshot is not None and (snapshot.position, snapshot.parts) == (5, 2)
        replica = YjsReplica(["m"])
        replica.load(None, list(snapshots.contents(D, 8)))
        assert sorted(replica.keys("m")) == ["k10", "k11", "k12", "k13", "k14", "k15", "k20", "k21"]
        assert (records.last(D, S), records.last(D, T)) == (6, 2)
        assert records.read(E, 0, 1000, 10) == [Stored(1, Record(S, 1, b"opaque"))]
        assert [storage.tombstones.is_deleted(document) for document in (D, E, F, G)] == [False, False, True, True]
        assert (storage.quotas.owner(D), storage.quotas.used("bob")) == ("ann", 0)
        assert storage.quotas.unknown_tombstones("bob") == 1
        assert list(snapshots.requested()) == [E]
        (new,) = records.append(D, S, 7, [b"new"], Origin("yjs", b"X" * 16))
        assert new.position == 9 and not records.commit()
    with closing(sqlite3.connect(path)) as db:
        assert list(faults(db)) == []
