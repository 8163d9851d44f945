"""The tables of a relay's log, one step per release that changed them. A step is never edited once released.

They bring older files up to date; a new one is made at once (new_file.py), as they would make it.
"""

from __future__ import annotations

from sqlite_utils import Database, Migrations

from .file_version import MIGRATION_SET

migrations = Migrations(MIGRATION_SET)


@migrations()
def m001_log(db: Database) -> None:
    db.conn.execute("CREATE TABLE documents (number INTEGER PRIMARY KEY, id BLOB UNIQUE, kind TEXT, log BLOB) STRICT")
    db.conn.execute(
        "CREATE TABLE sessions (number INTEGER PRIMARY KEY, document INTEGER, id BLOB, UNIQUE (document, id)) STRICT"
    )
    db.conn.execute(
        "CREATE TABLE records (key INTEGER PRIMARY KEY, session INTEGER, n INTEGER, chain BLOB, data BLOB) STRICT"
    )
    db.conn.execute("CREATE UNIQUE INDEX names ON records (session, n)")


@migrations()
def m002_folds(db: Database) -> None:
    for statement in (
        "ALTER TABLE documents ADD COLUMN size INTEGER NOT NULL DEFAULT 0",
        "ALTER TABLE documents ADD COLUMN wanted INTEGER NOT NULL DEFAULT 0",
        "ALTER TABLE sessions ADD COLUMN folded INTEGER NOT NULL DEFAULT 0",
        "CREATE TABLE folds (document INTEGER PRIMARY KEY, position INTEGER, chain BLOB, session BLOB, parts INTEGER,"
        " size INTEGER, digest BLOB, swept INTEGER) STRICT",
        "CREATE TABLE parts (key INTEGER PRIMARY KEY, n INTEGER, count INTEGER, size INTEGER, start INTEGER,"
        " data BLOB) STRICT",
        "CREATE TABLE marks (key INTEGER PRIMARY KEY, chains BLOB) STRICT",
        "UPDATE documents SET size = (SELECT coalesce(sum(length(data)), 0) FROM records"
        " WHERE key BETWEEN documents.number << 36 AND ((documents.number + 1) << 36) - 1)",
    ):
        db.conn.execute(statement)


@migrations()
def m003_tombstones(db: Database) -> None:
    for statement in (
        "ALTER TABLE documents ADD COLUMN owner TEXT NOT NULL DEFAULT ''",
        # 0: there; 1: deleted, and rows of it remain; 2: deleted; 3: deleted, and it was never there
        "ALTER TABLE documents ADD COLUMN gone INTEGER NOT NULL DEFAULT 0",
        "CREATE INDEX documents_by_owner ON documents (owner) WHERE owner != ''",
        "CREATE INDEX documents_to_sweep ON documents (number) WHERE gone = 1",
    ):
        db.conn.execute(statement)


@migrations()
def m004_refused(db: Database) -> None:
    db.conn.execute(
        "CREATE TABLE refused (number INTEGER PRIMARY KEY, document BLOB, session BLOB, n INTEGER, reason TEXT,"
        " digest BLOB, size INTEGER, data BLOB, UNIQUE (document, digest)) STRICT"
    )


@migrations()
def m005_unknown(db: Database) -> None:
    db.conn.execute("CREATE INDEX documents_unknown ON documents (owner) WHERE gone = 3")


@migrations()
def m006_attachments(db: Database) -> None:
    for statement in (
        "CREATE TABLE attachments (number INTEGER PRIMARY KEY AUTOINCREMENT, document INTEGER NOT NULL,"
        " form INTEGER NOT NULL, hash BLOB NOT NULL, size INTEGER NOT NULL, held INTEGER NOT NULL DEFAULT 0,"
        " whole INTEGER NOT NULL DEFAULT 0, UNIQUE (document, form, hash)) STRICT",
        "CREATE TABLE pieces (key INTEGER PRIMARY KEY, data BLOB NOT NULL) STRICT",
        "CREATE TABLE doomed (number INTEGER PRIMARY KEY) STRICT",
    ):
        db.conn.execute(statement)
