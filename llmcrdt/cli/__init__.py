"""The ``llmcrdt`` command. Thin: it parses, calls the library, and prints.

Results go to stdout, as text for people or with ``--json`` as one JSON document; errors go to stderr as one line. Exit
codes: 0 done, 1 it failed, 2 wrong usage, 130 interrupted.
"""

from __future__ import annotations

from .group import default_db, main

__all__ = ["default_db", "main"]
