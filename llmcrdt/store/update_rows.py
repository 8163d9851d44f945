"""The rows of updates. Each function is part of its caller's transaction."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from sqlite3 import Connection as Database

logger = logging.getLogger("llmcrdt.store")

ASIDE_ROWS, ASIDE = 1_000, 16 << 20
"""Updates of one document that are set aside, and their bytes; then no more are kept."""
ALL_ASIDE_ROWS, ALL_ASIDE = 10_000, 64 << 20
"""The same for all documents."""


def insert(
    db: Database,
    document: str,
    data: bytes,
    *,
    keys: str = "",
    writer: str | None = None,
    name: tuple[str, int] | tuple[None, None] = (None, None),
) -> int:
    """Keep an update; a record that is here already is left as it is. The seq of the row inserted last."""
    done = db.execute(
        "INSERT OR IGNORE INTO updates (document, writer, session, n, keys, data) VALUES (?, ?, ?, ?, ?, ?)",
        [document, writer, *name, keys, data],
    )
    return int(done.lastrowid or 0)


def insert_pieces(
    db: Database, document: str, pieces: Sequence[bytes], keys: Iterable[str], writer: str | None = None
) -> list[int]:
    """Keep an update in pieces; their seqs. ``keys`` go with the last."""
    *parts, last = pieces
    seqs = [insert(db, document, part, writer=writer) for part in parts]
    return [*seqs, insert(db, document, last, keys=" ".join(keys), writer=writer)]


def delete_unqueued(db: Database, document: str, seq: int) -> None:
    """Delete the updates of a document, up to ``seq``, that wait for no relay."""
    waiting = "SELECT place FROM outbox WHERE outbox.document = updates.document"
    db.execute(f"DELETE FROM updates WHERE document = ? AND place <= ? AND place NOT IN ({waiting})", [document, seq])


def delete_some_unqueued(db: Database, document: str, seq: int, most: int) -> bool:
    """The same for the oldest ``most`` of them; whether there may be more."""
    waiting = "SELECT place FROM outbox WHERE outbox.document = updates.document"
    some = f"SELECT place FROM updates WHERE document = ? AND place <= ? AND place NOT IN ({waiting}) LIMIT ?"
    done = db.execute(f"DELETE FROM updates WHERE place IN ({some})", [document, seq, most])
    return done.rowcount == most


def last_update(db: Database, document: str) -> int:
    """The seq of the last update; 0 where there is none."""
    found = db.execute("SELECT max(place) FROM updates WHERE document = ?", [document]).fetchone()
    return int(found[0] or 0)


def last_seq(db: Database, document: str) -> int:
    """The seq of the last update that was kept, in a row of its own or in the snapshot."""
    query = """
        SELECT max(coalesce((SELECT max(place) FROM updates WHERE document = ?), 0),
                   coalesce((SELECT place FROM snapshots WHERE document = ?), 0))
    """
    return int(db.execute(query, [document, document]).fetchone()[0])


def set_aside(db: Database, document: str, refused: Sequence[tuple[bytes, str]]) -> None:
    """Keep copies of updates apart from their document, each once, as far as there is room: they come from others, who
    may send as many as they like. Those that have no room are logged."""
    query = "SELECT count(*), coalesce(sum(length(data)), 0) FROM set_aside"
    rows, size = db.execute(query).fetchone()
    own_rows, own_size = db.execute(f"{query} WHERE document = ?", [document]).fetchone()
    left_out = 0
    for data, reason in refused:
        full = own_rows >= ASIDE_ROWS or rows >= ALL_ASIDE_ROWS
        if full or own_size + len(data) > ASIDE or size + len(data) > ALL_ASIDE:
            left_out += 1
            continue
        known = "SELECT 1 FROM set_aside WHERE document = ? AND data = ?"
        if db.execute(known, [document, data]).fetchone() is None:
            db.execute("INSERT INTO set_aside (document, reason, data) VALUES (?, ?, ?)", [document, reason, data])
            own_rows, own_size, rows, size = own_rows + 1, own_size + len(data), rows + 1, size + len(data)
    if left_out:
        why = "so many updates can't be applied that no copies of others are kept"
        logger.warning("%s: %s (%d just now). Its relay may be broken or hostile.", document, why, left_out)


def want_purge(db: Database, document: str) -> None:
    """Note that old bytes of a document are to be purged."""
    db.execute("INSERT OR REPLACE INTO purges VALUES (?, -1)", [document])
