"""The steps that make the tables of a relay's log. Light: whoever opens a log reads it."""

from __future__ import annotations

MIGRATION_SET = "sync_server"

NAMES = ("m001_log", "m002_folds", "m003_tombstones", "m004_refused", "m005_unknown", "m006_attachments")
"""The steps of ``migrations``, which is loaded where one of them is still to be done."""

DONE = "SELECT name FROM _sqlite_migrations WHERE migration_set = ?"
"""The steps that a file has had; sqlite-utils, which does them, writes that table."""
