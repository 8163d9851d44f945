"""The documents of a file, and the listing of conversations."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from .base import Listed
from .connection import Connection

LOCAL = "local:"
"""With a document's id, the setting that says that the document is never told to any relay."""


class SqliteCatalog:
    """Implements ``base.Catalog``."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def add(self, document: str, kind: str) -> None:
        with self._connection.writing() as db:
            db.execute("INSERT OR IGNORE INTO documents VALUES (?, ?)", [document, kind])

    def documents(self, kind: str) -> list[str]:
        with self._connection.reading() as db:
            return [row[0] for row in db.execute("SELECT id FROM documents WHERE kind = ? ORDER BY id", [kind])]

    def kind(self, document: str) -> str | None:
        value = self._connection.one("SELECT kind FROM documents WHERE id = ?", document)
        return None if value is None else str(value)

    def put(self, rows: Iterable[Listed]) -> None:
        with self._connection.writing() as db:
            for row in rows:
                db.execute("INSERT OR REPLACE INTO listing VALUES (?, ?, ?, ?, ?)", list(row))

    def page(self, limit: int, before: str | None) -> list[Listed]:
        query = "SELECT * FROM listing WHERE NOT deleted"
        values: list[Any] = []
        if before is not None:
            query += " AND (created_at, id) < (SELECT created_at, id FROM listing WHERE id = ?)"
            values.append(before)
        with self._connection.reading() as db:
            found = db.execute(query + " ORDER BY created_at DESC, id DESC LIMIT ?", [*values, limit]).fetchall()
        return [_listed(row) for row in found]

    def everything(self) -> set[Listed]:
        with self._connection.reading() as db:
            return {_listed(row) for row in db.execute("SELECT * FROM listing").fetchall()}

    def get(self, document: str) -> Listed | None:
        with self._connection.reading() as db:
            found = db.execute("SELECT * FROM listing WHERE id = ?", [document]).fetchone()
        return _listed(found) if found else None

    def set_local(self, document: str, local: bool) -> None:
        with self._connection.writing() as db:
            if local:
                db.execute("INSERT OR REPLACE INTO settings VALUES (?, 'yes')", [LOCAL + document])
            else:
                db.execute("DELETE FROM settings WHERE name = ?", [LOCAL + document])

    def is_local(self, document: str) -> bool:
        return self._connection.one("SELECT 1 FROM settings WHERE name = ?", LOCAL + document) is not None

    def locals(self) -> set[str]:
        query = "SELECT name FROM settings WHERE substr(name, 1, ?) = ?"
        with self._connection.reading() as db:
            return {row[0].removeprefix(LOCAL) for row in db.execute(query, [len(LOCAL), LOCAL])}


def _listed(row: Sequence[Any]) -> Listed:
    return Listed(str(row[0]), str(row[1]), float(row[2]), bool(row[3]), bool(row[4]))
