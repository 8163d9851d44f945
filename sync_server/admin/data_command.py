"""``python -m sync_server inspect | verify | compact | backup | restore | quarantine | assign``: what an operator does
with a relay's folder.

``compact``, ``restore`` and ``assign`` need the relay stopped; the others work beside one that runs.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any

from llmcrdt.ids import document_bytes, document_id, is_document_id

from ..core.compaction import COMPACTED_KINDS
from ..core.events import CatchUpResult, CompactRequest, CompactResult
from ..core.limits import Limits
from ..log import operator
from ..log.base import LogError
from ..log.file import DATABASE
from ..log.quarantine import FILE as QUARANTINE
from ..log.quarantine import Quarantine
from ..workers.compactor import Compactor

OK, WRONG, DATA = 0, 1, 4


def add_to(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Teach a command line these words."""
    words = {
        inspect: "count what a relay holds, document by document",
        verify: "check every name, hash and size in the log",
        compact: "compact every log that can be compacted, and give the space back",
        backup: "copy the log to a file, also while a relay runs",
        restore: "put a copy in place of the log",
        quarantine: "list the documents that are not loaded any more, or have one be tried again",
        assign: "give documents to a subject, with the relay stopped",
    }
    for run, words_of_help in words.items():
        parser = commands.add_parser(run.__name__, help=words_of_help, description=words_of_help)
        parser.add_argument("--data", type=Path, required=True, help="the relay's folder")
        if run in (backup, restore):
            parser.add_argument("file", type=Path)
        if run is quarantine:
            parser.add_argument("--lift", metavar="DOCUMENT", help="try this one again; a relay that runs does so too")
        if run is assign:
            parser.add_argument("--subject", required=True, help="to whom they belong from now on")
            parser.add_argument("documents", nargs="*", metavar="DOCUMENT", help="(default: all that belong to nobody)")
        if run in (inspect, verify, quarantine):
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
    """One line for each document that was not deleted."""
    with operator.inspect(options.data / DATABASE) as rows:
        if not options.json:
            print(*operator.Row._fields, sep="\t")
        for found in rows:
            row = (document_id(found.document), *found[1:])
            print(json.dumps(dict(zip(found._fields, row, strict=True))) if options.json else "\t".join(map(str, row)))
    return OK


def verify(options: argparse.Namespace) -> int:
    """Exit code 1, and a line for each fault, where there are any."""
    found = operator.verify(options.data / DATABASE)
    if options.json:
        print(json.dumps({"sound": not found, "faults": found}))
        return WRONG if found else OK
    for fault in found:
        print(fault)
    print(f"{len(found)} faults" if found else "sound", file=sys.stderr)
    return WRONG if found else OK


def assign(options: argparse.Namespace) -> int:
    """Exit code 1 where a document is not there."""
    wrong = [name for name in options.documents if not is_document_id(name)]
    if wrong or not options.subject or not options.subject.isprintable():
        what = f"{wrong[0]!r} is no document id" if wrong else f"{options.subject!r} is no subject"
        raise LogError(f"{what}.", hint="A subject is one line of text; inspect shows the ids.")
    documents = [document_bytes(name) for name in options.documents]
    count = operator.assign(options.data / DATABASE, options.subject, documents or None)
    print(f"{count} documents belong to {options.subject} now", file=sys.stderr)
    return WRONG if count < len(documents) else OK


def compact(options: argparse.Namespace) -> int:
    """Exit code 1 where a document could not be compacted."""
    limits, failed = Limits(), 0
    storage = operator.open_storage(options.data / DATABASE)
    with closing(storage):
        answers: list[CompactResult | CatchUpResult] = []
        compactor = Compactor(storage, limits, answers.append)
        for document in storage.documents():
            head, snapshot = storage.records.head(document), storage.snapshots.get(document)
            if head is None or head.kind not in COMPACTED_KINDS:
                continue
            if snapshot is not None and snapshot.position == head.cursor.position:
                continue
            answer = compactor.compact(CompactRequest(document, head.cursor))
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


def quarantine(options: argparse.Namespace) -> int:
    """One line for each document that workers died of: its id, since when, and why."""
    found = Quarantine(options.data / QUARANTINE)
    if options.lift is not None:
        if not is_document_id(options.lift) or not found.lift(document_bytes(options.lift)):
            raise LogError(f"{options.lift} is not in quarantine.", hint="List those that are, without --lift.")
        return OK
    for document, mark in found.marks().items():
        id_, since = document_id(document), time.strftime("%Y-%m-%dT%H:%MZ", time.gmtime(mark.since))
        row = {"document": id_, "since": mark.since, "why": mark.why}
        print(json.dumps(row) if options.json else "\t".join((id_, since, mark.why)))
    return OK


def backup(options: argparse.Namespace) -> int:
    """Exit code 0 when the copy is complete; there is no file until then."""
    operator.backup(options.data / DATABASE, options.file)
    return OK


def restore(options: argparse.Namespace) -> int:
    """Clients notice that the log went back, and fill in what they have."""
    operator.restore(options.file, options.data / DATABASE)
    return OK
