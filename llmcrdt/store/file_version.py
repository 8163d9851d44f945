"""How a repo's file says what it is, and which steps made its tables. Light: whoever opens a file reads it."""

from __future__ import annotations

APPLICATION_ID = 0x6C6C6D63  # "llmc": tells our files from other people's SQLite files

BACKUP_DIGEST = "backup"
"""The setting of a copy that nobody has opened yet: a digest of its rows."""

MIGRATION_SET = "llmcrdt"

NAMES = (
    "m001_documents",
    "m002_tables",
    "m003_no_indexed",
    "m004_relay_tasks",
    "m005_no_copies",
    "m006_runs",
    "m007_pieces",
    "m008_blocks",
    "m009_attachments",
)
"""The steps of ``migrations``, which is loaded where one of them is still to be done."""

DONE = "SELECT name FROM _sqlite_migrations WHERE migration_set = ?"
"""The steps that a file has had; sqlite-utils, which does them, writes that table."""
