"""A new log has the tables that the steps make."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing

from sqlite_utils import Database

from sync_server.log.file_version import DONE, MIGRATION_SET, NAMES
from sync_server.log.migrations import migrations
from sync_server.log.new_file import make_tables


def made(make: Callable[[sqlite3.Connection], None]) -> tuple[object, set[str]]:
    """All that a file made so says of its tables, and of the steps that it has had."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as db:
        make(db)
        tables = db.execute("SELECT type, name, tbl_name, sql FROM sqlite_master").fetchall()
        said = {(kind, name, table): "".join((sql or "").split()) for kind, name, table, sql in tables}
        return said, {name for (name,) in db.execute(DONE, [MIGRATION_SET])}


def test_a_new_file_is_what_the_steps_make() -> None:
    by_steps = made(lambda db: migrations.apply(Database(db)))
    assert made(make_tables) == by_steps
    assert by_steps[1] == set(NAMES)
