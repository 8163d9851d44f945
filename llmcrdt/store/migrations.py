"""The tables of a repo's SQLite file, one step per release that changed them. A step is never edited once released.

They bring older files up to date; a new one is made at once (new_file.py), as they would make it.
"""

from __future__ import annotations

from sqlite_utils import Database, Migrations

from .file_version import MIGRATION_SET

migrations = Migrations(MIGRATION_SET)

# updates.place is never used again, also not after a restart: hence AUTOINCREMENT.
# updates.writer: the session of this file that wrote it; session and n: its name as a record, if it came from a relay.
# cursors.refills: how often this relay had to be filled anew; names of records begin anew with it.
_DOCUMENTS = """
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
    CREATE INDEX listing_by_age ON listing (created_at, id)
"""


# Derived from the documents: may be emptied at any moment. entries.words is what entry_words is an index of.
# tables.place: the last update that a conversation's rows are made of.
_TABLES = """
    CREATE TABLE tables (document TEXT PRIMARY KEY, place INTEGER NOT NULL, rules TEXT NOT NULL) WITHOUT ROWID;
    CREATE TABLE entries (
        number INTEGER PRIMARY KEY, document TEXT NOT NULL, entry TEXT NOT NULL, position INTEGER, pin TEXT,
        node TEXT NOT NULL, erased INTEGER NOT NULL, indexed INTEGER NOT NULL DEFAULT 0, words TEXT,
        fields BLOB NOT NULL
    );
    CREATE UNIQUE INDEX entries_by_name ON entries (document, entry);
    CREATE INDEX entries_by_position ON entries (document, position) WHERE position IS NOT NULL;
    CREATE INDEX entries_erased ON entries (document) WHERE erased;
    CREATE INDEX entries_to_index ON entries (number) WHERE NOT indexed AND words IS NOT NULL;
    CREATE VIRTUAL TABLE entry_words USING fts5 (
        words, content='entries', content_rowid='number', tokenize='unicode61 remove_diacritics 2', prefix='2 3'
    )
"""

# Which rows are in the index shows in the index itself: each append writes one page less.
_NO_INDEXED = """
    DROP INDEX entries_to_index;
    ALTER TABLE entries DROP COLUMN indexed
"""

# Tasks left for relays, which stood in settings as "fold:DOCUMENT:RELAY", "delete:DOCUMENT:RELAY" (value: the
# credential that was refused), "deleted-last:RELAY" (value: documents) and "purged:DOCUMENT" (value: a number).
_RELAY_TASKS = """
    CREATE TABLE relay_compactions (document TEXT, relay TEXT, PRIMARY KEY (document, relay)) WITHOUT ROWID;
    CREATE TABLE relay_deletions (
        document TEXT, relay TEXT, refused TEXT NOT NULL, PRIMARY KEY (document, relay)
    ) WITHOUT ROWID;
    CREATE TABLE relay_deleted (number INTEGER PRIMARY KEY, relay TEXT NOT NULL, document TEXT NOT NULL);
    CREATE TABLE purges (document TEXT PRIMARY KEY, erased INTEGER NOT NULL) WITHOUT ROWID
"""


# An index of beginnings of words took more room than that of words, and found them no faster. Words are not kept beside
# the fields that they stand in: '' in entries.words says that they are to be read there (Connection has words_of). It
# used to stand in rows without words, and their fields may be packed as no version reads them any more.
_NO_COPIES = """
    DROP TABLE entry_words;
    UPDATE entries SET words = NULL WHERE words = '';
    CREATE VIEW entry_texts AS
        SELECT number, CASE words WHEN '' THEN words_of(fields, pin) ELSE words END AS words FROM entries;
    CREATE VIRTUAL TABLE entry_words USING fts5 (
        words, content='entry_texts', content_rowid='number', tokenize='unicode61 remove_diacritics 2'
    );
    INSERT INTO entry_words (rowid, words) SELECT number, words FROM entries ORDER BY number
"""


# Rows don't say where they stand: transcripts are runs of rows. A run is named by the number of its first row.
# entries.pin: where there is a choice; it used to stand in other rows too, and says nothing there.
_RUNS = """
    CREATE TABLE shown (
        number INTEGER PRIMARY KEY, document TEXT NOT NULL, position INTEGER NOT NULL, length INTEGER NOT NULL
    );
    INSERT INTO shown
        SELECT min(number), document, min(position), count(*) FROM (
            SELECT number, document, position, number - position AS apart,
                position - row_number() OVER (PARTITION BY document, number - position ORDER BY position) AS run
            FROM entries WHERE position IS NOT NULL
        ) GROUP BY document, apart, run;
    CREATE UNIQUE INDEX shown_by_position ON shown (document, position);
    DROP INDEX entries_by_position;
    ALTER TABLE entries DROP COLUMN position
"""


# A snapshot is made of pieces: snapshots.data is the list of their numbers in JSON, as text. A blob is one of an older
# version: a zlib stream. The fields of a row are in fields, or short in short_fields: deflated with a piece, see
# deflate.Leaning. entry_rows has all of a row; it needs the functions of Connection.
_PIECES = """
    CREATE TABLE pieces (
        number INTEGER PRIMARY KEY AUTOINCREMENT, document TEXT NOT NULL, digest BLOB NOT NULL, data BLOB NOT NULL
    );
    CREATE INDEX pieces_by_document ON pieces (document, digest);
    CREATE TABLE fields (number INTEGER PRIMARY KEY, fields BLOB NOT NULL);
    CREATE TABLE short_fields (number INTEGER PRIMARY KEY, piece INTEGER NOT NULL, fields BLOB NOT NULL);
    CREATE INDEX short_fields_by_piece ON short_fields (piece);
    INSERT INTO fields SELECT number, fields FROM entries WHERE fields != x'' ORDER BY number;
    CREATE TABLE entries_anew (
        number INTEGER PRIMARY KEY, document TEXT NOT NULL, entry TEXT NOT NULL, pin TEXT, node TEXT NOT NULL,
        erased INTEGER NOT NULL, words TEXT
    );
    INSERT INTO entries_anew SELECT number, document, entry, pin, node, erased, words FROM entries ORDER BY number;
    DROP VIEW entry_texts;
    DROP TABLE entries;
    ALTER TABLE entries_anew RENAME TO entries;
    CREATE UNIQUE INDEX entries_by_name ON entries (document, entry);
    CREATE INDEX entries_erased ON entries (document) WHERE erased;
    CREATE VIEW entry_rows AS
        SELECT number, document, entry, pin, node, erased, words, coalesce(
            (SELECT fields FROM fields WHERE fields.number = entries.number),
            (SELECT fields_of(fields, piece) FROM short_fields WHERE short_fields.number = entries.number), x''
        ) AS fields FROM entries;
    CREATE VIEW entry_texts AS
        SELECT number, CASE words WHEN '' THEN words_of(fields, pin) ELSE words END AS words FROM entry_rows
"""
# Statements that hold a ; of their own.
_WITH_FIELDS = """
    CREATE TRIGGER entries_gone AFTER DELETE ON entries BEGIN
        DELETE FROM fields WHERE number = old.number; DELETE FROM short_fields WHERE number = old.number;
    END
"""


@migrations(name="m001_documents")
def m001_documents(db: Database) -> None:
    _run(db, _DOCUMENTS)


@migrations(name="m002_tables")
def m002_tables(db: Database) -> None:
    _run(db, _TABLES)


@migrations(name="m003_no_indexed")
def m003_no_indexed(db: Database) -> None:
    _run(db, "INSERT INTO entry_words (entry_words) VALUES ('rebuild')")  # rows that waited would not be found again
    _run(db, _NO_INDEXED)


@migrations(name="m004_relay_tasks")
def m004_relay_tasks(db: Database) -> None:
    _run(db, _RELAY_TASKS)
    for name, value in db.execute("SELECT name, value FROM settings").fetchall():
        what, _, rest = name.partition(":")
        document, _, relay = rest.partition(":")
        match what:
            case "fold":
                db.execute("INSERT INTO relay_compactions VALUES (?, ?)", [document, relay])
            case "delete":
                db.execute("INSERT INTO relay_deletions VALUES (?, ?, ?)", [document, relay, value])
            case "purged":
                db.execute("INSERT INTO purges VALUES (?, ?)", [document, int(value)])
            case "deleted-last":
                for each in value.split():
                    db.execute("INSERT INTO relay_deleted (relay, document) VALUES (?, ?)", [rest, each])
            case _:
                continue
        db.execute("DELETE FROM settings WHERE name = ?", [name])


@migrations(name="m005_no_copies")
def m005_no_copies(db: Database) -> None:
    _run(db, _NO_COPIES)


@migrations(name="m006_runs")
def m006_runs(db: Database) -> None:
    _run(db, _RUNS)


@migrations(name="m007_pieces")
def m007_pieces(db: Database) -> None:
    _run(db, _PIECES)
    db.execute(_WITH_FIELDS)


@migrations(name="m008_blocks")
def m008_blocks(db: Database) -> None:
    """No table changes, and what is there is read as it is. From now on pieces are written in blocks (deflate.py), and
    rows lean on those: the step keeps versions that can't read them from the file."""


@migrations(name="m009_attachments")
def m009_attachments(db: Database) -> None:
    _run(
        db,
        "CREATE TABLE relay_attachments (document TEXT, hash TEXT, relay TEXT, state TEXT NOT NULL,"
        " PRIMARY KEY (document, hash, relay)) WITHOUT ROWID",
    )


def _run(db: Database, script: str) -> None:
    """Statement by statement: sqlite3's own executescript would commit the transaction that this runs in."""
    for statement in script.split(";\n"):
        db.execute(statement)
