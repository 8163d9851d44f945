"""A compaction of one document: its updates give way to a snapshot of all that they say.

The snapshot is deflated between two transactions, for that takes longer than all else, and nobody has to wait for it.
At any moment in between the document is in the file as it was.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence

from . import update_rows
from .connection import Connection
from .deflate import deflated

AT_ONCE = 500
"""Updates that are deleted, or pages that are freed, in one transaction: others wait for it."""


class SqliteCompaction:
    """Implements ``base.Compaction``. ``seq``: the snapshot holds all up to it; ``old``: the place of the snapshot that
    was there before, which is ``before``, as it is stored."""

    def __init__(
        self,
        connection: Connection,
        document: str,
        *,
        writer: str | None,
        seq: int,
        old: int | None,
        before: bytes,
        snapshot: bytes,
        pending: Sequence[bytes],
    ) -> None:
        self._connection = connection
        self._document, self._writer, self._seq, self._old = document, writer, seq, old
        self._before, self._snapshot, self._size, self._pending = before, snapshot, len(snapshot), pending
        self._deflated: bytes | None = None
        self._done = False
        self._preparing = threading.Lock()

    @property
    def seq(self) -> int:
        return self._seq

    def prepare(self) -> None:
        with self._preparing:
            if self._deflated is None:
                self._deflated = deflated(self._snapshot, self._before)
                self._snapshot = self._before = b""

    def finish(self) -> bool:
        self.prepare()
        assert self._deflated is not None
        document, seq = self._document, self._seq
        with self._connection.writing() as db:
            if self._done:
                return True
            known = db.execute("SELECT place FROM snapshots WHERE document = ?", [document]).fetchone()
            deleted = self._connection.one("SELECT count(*) FROM listing WHERE id = ? AND deleted", document)
            if deleted or (known[0] if known else None) != self._old:
                return False
            last = update_rows.last_seq(db, document)
            update_rows.put_snapshot(db, document, seq, self._size, self._deflated)
            for update in self._pending:
                update_rows.insert(db, document, update, writer=self._writer)
            place = update_rows.last_seq(db, document)
            db.execute("UPDATE tables SET place = ? WHERE document = ? AND place = ?", [place, document, last])
        self._done = True
        return True

    def trim(self) -> bool:
        with self._connection.writing() as db:
            if update_rows.delete_some_unqueued(db, self._document, self._seq, AT_ONCE):
                return True
        return self._connection.shrink(AT_ONCE)
