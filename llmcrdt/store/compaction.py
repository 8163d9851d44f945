"""A compaction of one document: its updates give way to a snapshot of all that they say.

The snapshot is deflated between two transactions, for that takes longer than all else, and nobody has to wait for it.
At any moment in between the document is in the file as it was. Afterwards the rows of the entry index come to lean on
the snapshot, some at a time.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Sequence
from sqlite3 import Connection as Database

from . import snapshots, update_rows
from .connection import Connection

AT_ONCE = 500
"""Updates that are deleted, or pages that are freed, in one transaction: others wait for it."""
ROWS_AT_ONCE = 400
"""The same for rows that come to lean on a snapshot."""


class SqliteCompaction:
    """Implements ``base.Compaction``. ``seq``: the snapshot holds all up to it; ``old``: the place of the snapshot that
    was there before; ``known``: the digests of pieces that the file has."""

    def __init__(
        self,
        connection: Connection,
        document: str,
        *,
        writer: str | None,
        seq: int,
        old: int | None,
        known: Collection[bytes],
        snapshot: bytes,
        pending: Sequence[bytes],
        locate: snapshots.Locate,
    ) -> None:
        self._connection = connection
        self._document, self._writer, self._seq, self._old = document, writer, seq, old
        self._known, self._snapshot, self._pending, self._locate = known, snapshot, pending, locate
        self._ready: snapshots.Snapshot | None = None
        self._numbers: list[int] | None = None
        self._places: dict[str, snapshots.Place] = {}
        self._unsettled: list[int] | None = None
        self._preparing = threading.Lock()

    @property
    def seq(self) -> int:
        return self._seq

    def prepare(self) -> None:
        with self._preparing:
            if self._ready is None:
                self._ready = snapshots.prepare(self._snapshot, self._known, self._locate, only_new=False)
                self._snapshot, self._known = b"", ()

    def finish(self) -> bool:
        self.prepare()
        assert self._ready is not None
        document, seq = self._document, self._seq
        if self._numbers is not None:
            return True
        with self._connection.writing() as db:
            known = db.execute("SELECT place FROM snapshots WHERE document = ?", [document]).fetchone()
            deleted = self._connection.one("SELECT count(*) FROM listing WHERE id = ? AND deleted", document)
            if deleted or (known[0] if known else None) != self._old:
                return False
            last = update_rows.last_seq(db, document)
            numbers = snapshots.put(db, document, seq, self._ready)
            for update in self._pending:
                update_rows.insert(db, document, update, writer=self._writer)
            place = update_rows.last_seq(db, document)
            db.execute("UPDATE tables SET place = ? WHERE document = ? AND place = ?", [place, document, last])
        self._numbers = numbers
        self._places = self._ready.places_in(numbers)
        self._ready = snapshots.Snapshot(0, [], {})
        return True

    def trim(self) -> bool:
        with self._connection.writing() as db:
            if update_rows.delete_some_unqueued(db, self._document, self._seq, AT_ONCE):
                return True
            if self._settle(db):
                return True
        return self._connection.shrink(AT_ONCE)

    def _settle(self, db: Database) -> bool:
        """Have some rows lean on the snapshot; whether there may be more."""
        pieces, document = self._connection.pieces, self._document
        if self._numbers is None or not snapshots.stands(db, document, self._numbers):
            return False  # another one came meanwhile, and sees to them
        if self._unsettled is None:
            self._unsettled = snapshots.unsettled(db, document)
        if self._unsettled:
            rows, self._unsettled = self._unsettled[:ROWS_AT_ONCE], self._unsettled[ROWS_AT_ONCE:]
            snapshots.settle(db, pieces, document, self._places, rows)
            return True
        return snapshots.release(db, pieces, document, self._places, ROWS_AT_ONCE)
