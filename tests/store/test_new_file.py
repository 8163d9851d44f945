"""A new file has the tables that the steps make, and no file needs what does them."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from sqlite_utils import Database

from llmcrdt.store.file_version import DONE, MIGRATION_SET, NAMES
from llmcrdt.store.migrations import migrations
from llmcrdt.store.new_file import make_tables


def made(make: Callable[[sqlite3.Connection], None]) -> dict[str, object]:
    """All that a file made so says of its tables, and the rows of its search index."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as db:
        db.create_function("words_of", 2, lambda fields, pin: "", deterministic=True)
        db.create_function("fields_of", 2, lambda fields, piece: b"", deterministic=True)
        make(db)
        tables = db.execute("SELECT type, name, tbl_name, sql FROM sqlite_master").fetchall()
        said = {(kind, name, table): "".join((sql or "").split()) for kind, name, table, sql in tables}
        rows = [db.execute(f"SELECT * FROM entry_words_{table}").fetchall() for table in ("data", "config")]
        return {"tables": said, "rows": rows, "steps": {name for (name,) in db.execute(DONE, [MIGRATION_SET])}}


def test_a_new_file_is_what_the_steps_make() -> None:
    by_steps = made(lambda db: migrations.apply(Database(db)))
    assert made(make_tables) == by_steps
    assert by_steps["steps"] == set(NAMES)


def test_who_makes_a_file_does_not_load_what_does_the_steps(tmp_path: Path) -> None:
    script = """
import sys, llmcrdt
from sync_server.log.sqlite import SqliteStorage
from pathlib import Path
llmcrdt.open(sys.argv[1] + "/a.db").close()
SqliteStorage(Path(sys.argv[1]) / "relay.db").close()
print([name for name in sys.modules if "sqlite_utils" in name or name.endswith(".migrations")])
"""
    ended = subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, timeout=60)
    assert (ended.stdout, ended.stderr) == ("[]\n", "")
