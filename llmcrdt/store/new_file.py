"""The tables of a new repo's file, made at once: what all steps of ``migrations`` come to.

Each step that is added there changes them here, and is added to ``NAMES``; a test compares both ways to a file. So
whoever makes a file loads neither the steps nor what does them, which takes longer than all else.
"""

from __future__ import annotations

import sqlite3
from datetime import UTC, datetime

from .file_version import MIGRATION_SET, NAMES

_TABLES = """
    CREATE TABLE "_sqlite_migrations" ("id" INTEGER PRIMARY KEY, "migration_set" TEXT, "name" TEXT, "applied_at" TEXT);
    CREATE UNIQUE INDEX "idx__sqlite_migrations_migration_set_name"
        ON "_sqlite_migrations" ("migration_set", "name");
    CREATE TABLE settings (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
    CREATE TABLE documents (id TEXT PRIMARY KEY, kind TEXT NOT NULL) WITHOUT ROWID;
    CREATE TABLE snapshots (
        document TEXT PRIMARY KEY, place INTEGER NOT NULL, size INTEGER NOT NULL, data BLOB NOT NULL
    );
    CREATE TABLE updates (
        place INTEGER PRIMARY KEY AUTOINCREMENT, document TEXT NOT NULL, writer TEXT, session TEXT, n INTEGER,
        keys TEXT NOT NULL DEFAULT '', data BLOB NOT NULL
    );
    CREATE INDEX updates_by_document ON updates (document, place);
    CREATE UNIQUE INDEX updates_by_name ON updates (document, session, n) WHERE session IS NOT NULL;
    CREATE TABLE cursors (
        relay TEXT, document TEXT, log BLOB NOT NULL, position INTEGER NOT NULL, chain BLOB NOT NULL,
        refills INTEGER NOT NULL DEFAULT 0, PRIMARY KEY (relay, document)
    ) WITHOUT ROWID;
    CREATE TABLE outbox (
        relay TEXT, document TEXT, place INTEGER, session TEXT NOT NULL, n INTEGER NOT NULL,
        PRIMARY KEY (relay, document, place)
    ) WITHOUT ROWID;
    CREATE INDEX outbox_by_place ON outbox (document, place);
    CREATE TABLE set_aside (
        number INTEGER PRIMARY KEY, document TEXT NOT NULL, reason TEXT NOT NULL, data BLOB NOT NULL
    );
    CREATE TABLE listing (
        id TEXT PRIMARY KEY, title TEXT NOT NULL, created_at REAL NOT NULL, archived INTEGER NOT NULL,
        deleted INTEGER NOT NULL
    ) WITHOUT ROWID;
    CREATE INDEX listing_by_age ON listing (created_at, id);
    CREATE TABLE tables (document TEXT PRIMARY KEY, place INTEGER NOT NULL, rules TEXT NOT NULL) WITHOUT ROWID;
    CREATE TABLE relay_compactions (document TEXT, relay TEXT, PRIMARY KEY (document, relay)) WITHOUT ROWID;
    CREATE TABLE relay_deletions (
        document TEXT, relay TEXT, refused TEXT NOT NULL, PRIMARY KEY (document, relay)
    ) WITHOUT ROWID;
    CREATE TABLE relay_deleted (number INTEGER PRIMARY KEY, relay TEXT NOT NULL, document TEXT NOT NULL);
    CREATE TABLE relay_attachments (
        document TEXT, hash TEXT, relay TEXT, state TEXT NOT NULL, PRIMARY KEY (document, hash, relay)
    ) WITHOUT ROWID;
    CREATE TABLE purges (document TEXT PRIMARY KEY, erased INTEGER NOT NULL) WITHOUT ROWID;
    CREATE VIRTUAL TABLE entry_words USING fts5 (
        words, content='entry_texts', content_rowid='number', tokenize='unicode61 remove_diacritics 2'
    );
    CREATE TABLE shown (
        number INTEGER PRIMARY KEY, document TEXT NOT NULL, position INTEGER NOT NULL, length INTEGER NOT NULL
    );
    CREATE UNIQUE INDEX shown_by_position ON shown (document, position);
    CREATE TABLE pieces (
        number INTEGER PRIMARY KEY AUTOINCREMENT, document TEXT NOT NULL, digest BLOB NOT NULL, data BLOB NOT NULL
    );
    CREATE INDEX pieces_by_document ON pieces (document, digest);
    CREATE TABLE fields (number INTEGER PRIMARY KEY, fields BLOB NOT NULL);
    CREATE TABLE short_fields (number INTEGER PRIMARY KEY, piece INTEGER NOT NULL, fields BLOB NOT NULL);
    CREATE INDEX short_fields_by_piece ON short_fields (piece);
    CREATE TABLE "entries" (
        number INTEGER PRIMARY KEY, document TEXT NOT NULL, entry TEXT NOT NULL, pin TEXT, node TEXT NOT NULL,
        erased INTEGER NOT NULL, words TEXT
    );
    CREATE UNIQUE INDEX entries_by_name ON entries (document, entry);
    CREATE INDEX entries_erased ON entries (document) WHERE erased;
    CREATE VIEW entry_rows AS
        SELECT number, document, entry, pin, node, erased, words, coalesce(
            (SELECT fields FROM fields WHERE fields.number = entries.number),
            (SELECT fields_of(fields, piece) FROM short_fields WHERE short_fields.number = entries.number), x''
        ) AS fields FROM entries;
    CREATE VIEW entry_texts AS
        SELECT number, CASE words WHEN '' THEN words_of(fields, pin) ELSE words END AS words FROM entry_rows;
    CREATE TRIGGER entries_gone AFTER DELETE ON entries BEGIN
        DELETE FROM fields WHERE number = old.number; DELETE FROM short_fields WHERE number = old.number; END
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
