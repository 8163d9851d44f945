"""The ``llmcrdt`` command. Thin: it parses, calls the library, and prints.

Results go to stdout, as text for people or with ``--json`` as one JSON document; errors go to stderr as one line. Exit
codes: 0 done, 1 it failed, 2 wrong usage, 130 interrupted.
"""

from __future__ import annotations

from .answers import chat, generate
from .backups import backup, restore
from .conversations import archive, delete, list_, new, rename, search, show
from .demo import demo
from .entries import append, edit, erase, fork, others, seal, select
from .files import export, import_, verify
from .group import default_db, main
from .kv import kv
from .relays import pair, sync

__all__ = ["default_db", "main"]

for _command in (
    *(new, list_, search, show, rename, archive, delete),
    *(append, edit, others, select, erase, fork, seal),
    *(generate, chat),
    *(sync, pair),
    *(import_, export, verify, backup, restore),
    *(kv, demo),
):
    main.add_command(_command)
