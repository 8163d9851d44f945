"""A few named texts in the file."""

from __future__ import annotations

from .connection import Connection


class SqliteSettings:
    """Implements ``base.Settings``."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def get(self, name: str) -> str | None:
        value = self._connection.one("SELECT value FROM settings WHERE name = ?", name)
        return None if value is None else str(value)

    def put(self, name: str, value: str) -> None:
        with self._connection.writing() as db:
            db.execute("INSERT OR REPLACE INTO settings VALUES (?, ?)", [name, value])

    def put_first(self, name: str, value: str) -> str:
        with self._connection.writing() as db:
            db.execute("INSERT OR IGNORE INTO settings VALUES (?, ?)", [name, value])
        return str(self.get(name))
