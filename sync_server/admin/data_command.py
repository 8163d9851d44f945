"""``python -m sync_server inspect | verify | compact | backup | restore``: what an operator does with a relay's folder.

``inspect``, ``verify`` and ``backup`` work beside a relay that runs; ``compact`` and ``restore`` need it stopped.
"""

from __future__ import annotations

import argparse
import json
import os
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

from llmcrdt.ids import document_id

from ..core.compaction import COMPACTED_KINDS
from ..core.events import CatchUpResult, CompactRequest, CompactResult
from ..core.limits import Limits
from ..log.base import LogError
from ..log.file import DATABASE, check_age, explained, is_log
from ..log.sqlite import SqliteStorage
from ..log.verify import faults
from ..workers.compactor import Compactor

OK, WRONG, DATA = 0, 1, 4


def add_to(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Teach a command line these words."""
    words = {
        inspect: "count what a relay holds, document by document",
        verify: "check every name, hash and size in the log",
        compact: "fold every log that can be folded, and give the space back",
        backup: "copy the log to a file, also while a relay runs",
        restore: "put a copy in place of the log",
    }
    for run, words_of_help in words.items():
        parser = commands.add_parser(run.__name__, help=words_of_help, description=words_of_help)
        parser.add_argument("--data", type=Path, required=True, help="the relay's folder")
        if run in (backup, restore):
            parser.add_argument("file", type=Path)
        if run in (inspect, verify):
            parser.add_argument("--json", action="store_true", help="print JSON: an object, or one a line")
        parser.set_defaults(run=lambda options, run=run: _guarded(run, options))


def _guarded(run: Any, options: argparse.Namespace) -> int:
    try:
        code: int = run(options)
        return code
    except BrokenPipeError:  # whoever reads has seen enough
        raise
    except (LogError, OSError) as e:
        print(f"sync_server: {e}", file=sys.stderr)
        return DATA


def inspect(options: argparse.Namespace) -> int:
    """One line for each document: name, kind, position, folded position, bytes behind the fold, bytes of the
    snapshot, owner, and how many of its records were refused lately. Documents that were deleted are left out."""
    sql = (
        "SELECT id, kind,"
        " max(coalesce((SELECT max(key) FROM records WHERE key BETWEEN number << 36 AND ((number + 1) << 36) - 1), 0)"
        "     - (number << 36), coalesce(folds.position, 0)),"
        " coalesce(folds.position, 0), documents.size, coalesce(folds.size, 0), owner,"
        " (SELECT count(*) FROM refused WHERE refused.document = documents.id)"
        " FROM documents LEFT JOIN folds ON folds.document = number WHERE gone = 0 ORDER BY id"
    )
    names = ("document", "kind", "records", "folded", "tail_bytes", "snapshot_bytes", "owner", "refused")
    with _reading(options.data / DATABASE) as db:
        if not options.json:
            print(*names, sep="\t")
        for id_, *rest in db.execute(sql):
            row = (document_id(id_), *rest)
            print(json.dumps(dict(zip(names, row, strict=True))) if options.json else "\t".join(map(str, row)))
    return OK


def verify(options: argparse.Namespace) -> int:
    """Exit code 1, and a line for each fault, where there are any."""
    with _reading(options.data / DATABASE) as db:
        found = list(faults(db))
    if options.json:
        print(json.dumps({"sound": not found, "faults": found}))
        return WRONG if found else OK
    for fault in found:
        print(fault)
    print(f"{len(found)} faults" if found else "sound", file=sys.stderr)
    return WRONG if found else OK


def compact(options: argparse.Namespace) -> int:
    """Exit code 1 where a document could not be folded."""
    limits, failed = Limits(), 0
    storage = SqliteStorage(_existing(options.data / DATABASE))
    with closing(storage):
        answers: list[CompactResult | CatchUpResult] = []
        compactor = Compactor(storage.snapshots, limits, answers.append)
        for document in storage.documents():
            head, snapshot = storage.records.head(document), storage.snapshots.get(document)
            if head is None or head.kind not in COMPACTED_KINDS:
                continue
            if snapshot is not None and snapshot.position == head.cursor.position:
                continue
            answer = compactor.fold(CompactRequest(document, head.cursor))
            if answer is None:
                failed += 1
                continue
            storage.snapshots.put(document, head.cursor, os.urandom(16), answer, limits.batch)
            for error in storage.records.commit().values():
                raise error
        compactor.stop()
        while storage.sweeper.sweep(limits.sweep):
            pass
        storage.vacuum()
    return WRONG if failed else OK


def backup(options: argparse.Namespace) -> int:
    if options.file.exists():
        raise LogError(f"{options.file} is there already.", hint="Give the name of a new file.")
    aside = options.file.with_name(options.file.name + ".part")
    with _reading(options.data / DATABASE) as source:
        try:
            os.close(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600))  # as closed to others as the log is
            with closing(sqlite3.connect(aside)) as target:
                source.backup(target, pages=256, sleep=0.001)
                target.execute("PRAGMA journal_mode=DELETE")
            aside.replace(options.file)
        except BaseException as e:
            with suppress(OSError):
                aside.unlink(missing_ok=True)
            if isinstance(e, OSError):
                raise LogError(f"{options.file} can't be written: {e.strerror}.", hint="Name another file.") from e
            raise
    return OK


def restore(options: argparse.Namespace) -> int:
    """Clients notice that the log went back, and fill in what they have. Documents that were deleted here since stay
    deleted."""
    with _reading(options.file) as source:
        wrong = next(faults(source), None)
        if wrong:
            raise LogError(f"{options.file} is no sound copy: {wrong}.", hint="Try another one.")
        options.data.mkdir(parents=True, exist_ok=True)
        with closing(SqliteStorage(options.data / DATABASE)) as storage:
            storage.replace_with(source)
    return OK


@contextmanager
def _reading(path: Path) -> Iterator[sqlite3.Connection]:
    """A relay's log, or a copy of one. Raises LogError, also for what goes wrong while it is read."""
    uri = _existing(path).absolute().as_uri()
    try:
        with closing(sqlite3.connect(f"{uri}?mode=ro", uri=True, isolation_level=None)) as db:
            if not is_log(db):
                raise LogError(f"{path} is no log of a relay.", hint=_LOOK[path.name == DATABASE])
            check_age(db, path)
            yield db
    except sqlite3.Error as e:
        raise explained(path, e) from e


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise LogError(f"There is no {path}.", hint=_LOOK[path.name == DATABASE])
    return path


_LOOK = {True: "Is it the folder of a relay?", False: 'Give the file that "backup" made.'}
