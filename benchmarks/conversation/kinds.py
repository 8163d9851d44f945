"""The same conversation in a document of each kind, beside the bare library that it stands on, with the same bytes.

Times are of this process's CPU, but for appends: those are by the clock, beside a commit of the same bytes.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pycrdt

import llmcrdt
from llmcrdt.crdt.registry import kinds
from llmcrdt.document.conversation import core_of

from ..report import Report, median, seconds
from .talk import HIDDEN, content_of, say, words

ROUNDS = 5


def measure(report: Report, folder: Path, *, size: int, appends: int) -> None:
    """``size``: entries of the conversation, said one at a time."""
    for kind in sorted(kinds(), reverse=True):
        _measure(report, folder / f"{kind}.db", kind, size, appends)


def _measure(report: Report, path: Path, kind: str, size: int, appends: int) -> None:
    load, tell = _BARE[kind]
    with llmcrdt.open(path) as repo:
        conversation = repo.create("long", crdt=kind)
        say(conversation, size, words(1))
        append, commit = _append(conversation, path, appends)
        content, whole = content_of(conversation), conversation.diff()
        version = conversation.version()
        conversation.append("user", "one more")
        change = conversation.diff(since=version)
        told = _cpu(conversation.diff)
        library, id_ = repo.library, conversation.id
    opened, taken, merged, bare_loads, bare_tells = [], [], [], [], []
    for n in range(ROUNDS):  # the bare library between: a busy machine is busy for both
        with llmcrdt.open(path) as repo:
            opened.append(_cpu(core_of(repo.get(id_)).document.load, 1))
        with llmcrdt.open(path.with_suffix(f".device{n}"), library) as device:
            copy = device.join(id_, crdt=kind)
            taken.append(_cpu(partial(_take, copy, whole), 1))
            merged.append(_cpu(partial(copy.apply, change), 1))
        bare_loads.append(_cpu(partial(load, whole), 1))
        bare_tells.append(_cpu(tell(load(whole)), 1))
    bare_load, bare_tell = median(bare_loads), median(bare_tells)
    with llmcrdt.open(path) as repo:
        conversation = repo.get(id_)
        ids = conversation.transcript().ids
        last = _cpu(partial(conversation.erase, ids[-1]), 1)
        middle = [_cpu(partial(conversation.erase, ids[len(ids) // 2 + n]), 1) for n in range(3)]
    ours = kind.capitalize()
    report.add(f"{ours}, {size:,} entries said one at a time: append, durable", append * 1e3, "ms")
    report.add(f"  {ours}: append / bare SQLite", append / commit, "x", 4)
    report.add(f"  {ours}: document loaded", median(opened) * 1e3, "ms")
    report.add(f"    {ours}: / bare load", median(opened) / bare_load, "x", 3 if kind == "automerge" else None)
    report.add(f"  {ours}: told whole", told * 1e3, "ms")
    report.add(f"    {ours}: / bare save", told / bare_tell, "x", 3 if kind == "automerge" else None)
    report.add(f"  {ours}: a new device takes it whole, last page shown", median(taken) * 1e3, "ms")
    report.add(f"    {ours}: / bare load of what came", median(taken) / bare_load, "x")
    report.add(f"  {ours}: a change from elsewhere", median(merged) * 1e3, "ms")
    report.add(f"  {ours}: erase the last entry", last * 1e3, "ms")
    report.add(f"  {ours}: erase a middle entry", median(middle) * 1e3, "ms")
    report.add(f"  {ours}: told whole / content", len(whole) / content, "x")
    report.add(f"  {ours}: one append told", len(change), "bytes")


def _take(copy: llmcrdt.Conversation, whole: bytes) -> None:
    copy.apply(whole)
    assert copy.entries(last=50)


def _append(conversation: llmcrdt.Conversation, path: Path, count: int) -> tuple[float, float]:
    """The seconds of an append, and of a commit of the same bytes."""
    bare = sqlite3.connect(path.with_suffix(".bare"), isolation_level=None)
    for query in ("PRAGMA journal_mode=WAL", "PRAGMA synchronous=FULL", "CREATE TABLE updates (data BLOB)"):
        bare.execute(query)
    took, commits = [], []
    hidden, said = bytes(HIDDEN), words(2)
    for _ in range(count):
        version, content = conversation.version(), next(said)
        took.append(seconds(partial(conversation.append, "user", content, hidden={"h/h": hidden})))
        update = conversation.diff(since=version)
        commits.append(seconds(partial(bare.execute, "INSERT INTO updates VALUES (?)", [update])))
    bare.close()
    return median(took), median(commits)


def _cpu(do: Callable[[], object], rounds: int = ROUNDS) -> float:
    took = []
    for _ in range(rounds):
        before = time.process_time()
        do()
        took.append(time.process_time() - before)
    return median(took)


def _load_yjs(whole: bytes) -> object:
    document: pycrdt.Doc[pycrdt.Map[object]] = pycrdt.Doc()
    document.apply_update(whole)
    return document


def _load_automerge(whole: bytes) -> object:
    from llmcrdt.crdt.automerge.package import load_core

    return load_core().Document.load(whole)


_BARE: dict[str, tuple[Callable[[bytes], object], Callable[[object], Callable[[], object]]]] = {
    "yjs": (_load_yjs, lambda document: document.get_update),  # type: ignore[attr-defined]
    "automerge": (_load_automerge, lambda document: document.save),  # type: ignore[attr-defined]
}
