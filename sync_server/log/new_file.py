"""The tables of a new log, made at once: what all steps of ``migrations`` come to.

Each step that is added there changes them here, and is added to ``NAMES``; a test compares both ways to a file. So a
relay that makes a log loads neither the steps nor what does them, which takes longer than all else.
"""

from __future__ import annotations

import sqlite3
from datetime import UTC, datetime

from .file_version import MIGRATION_SET, NAMES

_TABLES = """
    CREATE TABLE "_sqlite_migrations" ("id" INTEGER PRIMARY KEY, "migration_set" TEXT, "name" TEXT, "applied_at" TEXT);
    CREATE UNIQUE INDEX "idx__sqlite_migrations_migration_set_name"
        ON "_sqlite_migrations" ("migration_set", "name");
    CREATE TABLE documents (
        number INTEGER PRIMARY KEY, id BLOB UNIQUE, kind TEXT, log BLOB, size INTEGER NOT NULL DEFAULT 0,
        wanted INTEGER NOT NULL DEFAULT 0, owner TEXT NOT NULL DEFAULT '', gone INTEGER NOT NULL DEFAULT 0
    ) STRICT;
    CREATE TABLE sessions (
        number INTEGER PRIMARY KEY, document INTEGER, id BLOB, folded INTEGER NOT NULL DEFAULT 0, UNIQUE (document, id)
    ) STRICT;
    CREATE TABLE records (key INTEGER PRIMARY KEY, session INTEGER, n INTEGER, chain BLOB, data BLOB) STRICT;
    CREATE UNIQUE INDEX names ON records (session, n);
    CREATE TABLE folds (
        document INTEGER PRIMARY KEY, position INTEGER, chain BLOB, session BLOB, parts INTEGER, size INTEGER,
        digest BLOB, swept INTEGER
    ) STRICT;
    CREATE TABLE parts (
        key INTEGER PRIMARY KEY, n INTEGER, count INTEGER, size INTEGER, start INTEGER, data BLOB
    ) STRICT;
    CREATE TABLE marks (key INTEGER PRIMARY KEY, chains BLOB) STRICT;
    CREATE INDEX documents_by_owner ON documents (owner) WHERE owner != '';
    CREATE INDEX documents_to_sweep ON documents (number) WHERE gone = 1;
    CREATE TABLE refused (
        number INTEGER PRIMARY KEY, document BLOB, session BLOB, n INTEGER, reason TEXT, digest BLOB, size INTEGER,
        data BLOB, UNIQUE (document, digest)
    ) STRICT;
    CREATE INDEX documents_unknown ON documents (owner) WHERE gone = 3;
    CREATE TABLE attachments (
        number INTEGER PRIMARY KEY AUTOINCREMENT, document INTEGER NOT NULL, form INTEGER NOT NULL, hash BLOB NOT NULL,
        size INTEGER NOT NULL, held INTEGER NOT NULL DEFAULT 0, whole INTEGER NOT NULL DEFAULT 0,
        UNIQUE (document, form, hash)
    ) STRICT;
    CREATE TABLE pieces (key INTEGER PRIMARY KEY, data BLOB NOT NULL) STRICT;
    CREATE TABLE doomed (number INTEGER PRIMARY KEY) STRICT
"""


def make_tables(db: sqlite3.Connection) -> None:
    """In the transaction that is going on; the file has no tables. All steps count as done."""
    for statement in _TABLES.split(";\n"):  # executescript would commit the transaction
        db.execute(statement)
    now = str(datetime.now(UTC))
    db.executemany(
        "INSERT INTO _sqlite_migrations (migration_set, name, applied_at) VALUES (?, ?, ?)",
        [(MIGRATION_SET, name, now) for name in NAMES],
    )
