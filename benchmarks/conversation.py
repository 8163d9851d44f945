"""Conversations at real sizes: open, page, append, transcript, search, stream, and the bytes of it all.

Ratios are taken in one run: every append here is timed next to one of bare pycrdt and a durable insert of the same
bytes into bare SQLite.
"""

from __future__ import annotations

import argparse
import random
import resource
import sqlite3
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pycrdt

import llmcrdt
from llmcrdt.document.conversation import core_of
from llmcrdt.store.store import Store

from .report import Report, median, seconds

CHARS, HIDDEN = 240, 256
ROUNDS = 7


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--size", type=int, default=10_000, help="entries of the conversation (default 10,000)")
    parser.add_argument("--search", type=int, default=100_000, help="entries to search in (default 100,000)")
    parser.add_argument("--conversations", type=int, default=1_000, help="conversations to list (default 1,000)")
    parser.add_argument("--appends", type=int, default=200, help="appends that are timed (default 200)")
    parser.add_argument("--tokens", type=int, default=2_000, help="tokens of the streamed answer (default 2,000)")


def run(options: argparse.Namespace) -> Report:
    report = Report("conversation")
    with tempfile.TemporaryDirectory(prefix="llmcrdt-bench-") as folder:
        path = Path(folder)
        id_ = _fill(path / "big.db", options.size, 1)
        _opening(report, path / "big.db", id_, options.size)
        _listing(report, path / "many.db", options.conversations)
        _appends(report, path, id_, options)
        _sizes(report, path / "big.db", id_)
        _searching(report, path / "search.db", options.search)
        _streaming(report, path, options.tokens)
    report.add("peak memory of this process", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, "MiB")
    return report


def words(seed: int) -> Iterator[str]:
    """Texts of 240 characters, out of words that nobody else uses often."""
    draw = random.Random(seed)
    vocabulary = ["".join(draw.choices("abcdefghijklmnopqrstuvwxyz", k=draw.randint(3, 9))) for _ in range(20_000)]
    while True:
        yield " ".join(draw.choices(vocabulary, k=60))[:CHARS]


def _fill(path: Path, size: int, seed: int, hidden: bool = True) -> str:
    text, draw = words(seed), random.Random(seed)
    with llmcrdt.open(path) as repo:
        conversation = repo.create("big")
        with conversation.batch():
            for n in range(size):
                fields = {"bench/signature": draw.randbytes(HIDDEN)} if hidden else None
                conversation.append("assistant" if n % 2 else "user", next(text), hidden=fields)
        return conversation.id


def _opening(report: Report, path: Path, id_: str, size: int) -> None:
    tables, whole, load = [], [], []
    for _ in range(ROUNDS):
        start: list[llmcrdt.Repo] = []

        def page(start: list[llmcrdt.Repo] = start) -> None:
            start.append(llmcrdt.open(path))
            assert len(start[0].get(id_).entries(last=50)) == min(50, size)

        first = seconds(page)
        conversation = start[0].get(id_)
        rest = seconds(core_of(conversation).document.load)
        assert len(conversation.transcript()) == size
        tables.append(first)
        load.append(rest)
        whole.append(first + rest)
        start[0].close()
    kept = _bare_bytes(path, id_)
    bare = [seconds(lambda: _bare_load(kept)) for _ in range(ROUNDS)]
    report.add(f"open {size:,} entries, last 50, from the tables", median(tables) * 1e3, "ms", 50)
    report.add(f"open {size:,} entries, last 50, replica ready", median(whole) * 1e3, "ms", 150)
    report.add("  of that: the replica and its order", median(load) * 1e3, "ms")
    report.add("  bare pycrdt: apply the same bytes", median(bare) * 1e3, "ms")
    idle, opened = _memory(path, id_, ""), _memory(path, id_, "core_of(conversation).document.load()")
    report.add("  memory of a process that shows a page", idle, "MiB")
    report.add("  memory of a process that has loaded it", opened, "MiB")


def _listing(report: Report, path: Path, size: int) -> None:
    with llmcrdt.open(path) as repo:
        for n in range(size):
            repo.create(f"conversation {n}").append("user", "Hello")
    whole = []
    for _ in range(ROUNDS):
        opened: list[llmcrdt.Repo] = []

        def list_all(opened: list[llmcrdt.Repo] = opened) -> None:
            opened.append(llmcrdt.open(path))
            assert len(opened[0].list(limit=size)) == size

        whole.append(seconds(list_all))
        again = seconds(partial(opened[0].list, size))
        assert not opened[0]._open
        opened[0].close()
    report.add(f"open and list {size:,} conversations", median(whole) * 1e3, "ms", 50)
    report.add("  list them again", again * 1e3, "ms", 50)


def _appends(report: Report, folder: Path, id_: str, options: argparse.Namespace) -> None:
    text, draw = words(2), random.Random(2)
    small = _fill(folder / "small.db", max(1, options.size // 10), 3)
    bare = sqlite3.connect(folder / "bare.db", isolation_level=None)
    bare.execute("PRAGMA journal_mode=WAL")
    bare.execute("PRAGMA synchronous=FULL")
    bare.execute("CREATE TABLE updates (place INTEGER PRIMARY KEY, data BLOB)")
    with llmcrdt.open(folder / "big.db") as repo, llmcrdt.open(folder / "small.db") as other:
        big, little = repo.get(id_), other.get(small)
        document: pycrdt.Doc[pycrdt.Map[object]] = pycrdt.Doc()
        entries: pycrdt.Map[object] = document.get("entries", type=pycrdt.Map)
        ours, inserts, crdt, fresh, fresh_small = [], [], [], [], []
        big.append("user", "warm")
        little.append("user", "warm")
        for _ in range(options.appends):
            said, hidden = next(text), draw.randbytes(HIDDEN)
            before = big.version()
            ours.append(seconds(partial(big.append, "user", said, hidden={"h/h": hidden})))
            update = big.diff(since=before)
            inserts.append(seconds(partial(bare.execute, "INSERT INTO updates (data) VALUES (?)", [update])))
            fields: dict[str, object] = {"head": "x" * 200, "version": said, "hidden": hidden}
            crdt.append(seconds(partial(_bare_append, document, entries, fields)))
            fresh.append(seconds(big.transcript))
            little.append("user", said)
            fresh_small.append(seconds(little.transcript))
    bare.close()
    report.add("append, durable", median(ours) * 1e3, "ms")
    report.add("  bare SQLite, the same bytes, durable", median(inserts) * 1e3, "ms")
    report.add("  bare pycrdt, a transaction", median(crdt) * 1e3, "ms")
    report.add("  append / bare SQLite", median(ours) / median(inserts), "x", 2)
    report.add("transcript after one more append", median(fresh) * 1e6, "us")
    report.add("  the same at a tenth of the size", median(fresh_small) * 1e6, "us")
    report.add("  ratio", median(fresh) / median(fresh_small), "x", 2)


def _sizes(report: Report, path: Path, id_: str) -> None:
    with llmcrdt.open(path) as repo:
        transcript = repo.get(id_).transcript()
        content = sum(len(e.text.encode()) + sum(len(h.data) for h in e.hidden.values()) for e in transcript)
        whole = repo.get(id_).diff()
        rows, index = _table_bytes(repo.store)
        stored = _stored_bytes(repo.store, id_)
    report.add("content of the conversation", content, "bytes")
    report.add("document, as one Yjs update / content", len(whole) / content, "x")
    report.add("document as it is kept after compaction / content", len(zlib.compress(whole, 6)) / content, "x", 1.15)
    report.add("  kept now (snapshot and the updates after it) / content", stored / content, "x")
    report.add("tables / content, apart", rows / content, "x")
    report.add("  search index / content, apart", index / content, "x")


def _searching(report: Report, path: Path, size: int) -> None:
    each = 10_000
    for n in range(0, size, each):
        _fill(path, min(each, size - n), 100 + n, hidden=False)
    text = words(100)
    queries = [next(text).split()[3] for _ in range(25)]
    with llmcrdt.open(path) as repo:
        repo.search("warm")
        times = [seconds(partial(repo.search, query)) for query in queries]
        pairs = [seconds(partial(repo.search, f"{query} {query[:2]}")) for query in queries]
        begun = [seconds(partial(repo.search, two)) for two in ("ab", "de", "hi", "op", "tu")]
        conversation = repo.get(repo.list()[0].id)
        with llmcrdt.open(path.with_suffix(".other.db"), repo.library) as device:
            copy = device.join(conversation.id)
            copy.apply(conversation.diff())
            copy.append("user", "oneverynewword")
            conversation.apply(copy.diff(since=conversation.version()))
        merged = seconds(lambda: repo.search("oneverynewword"))
        assert len(repo.search("oneverynewword")) == 1
    report.add(f"search {size:,} entries, one word", median(times) * 1e3, "ms", 20)
    report.add("  slowest of 25", max(times) * 1e3, "ms", 20)
    report.add("  a word and the beginning of one", median(pairs) * 1e3, "ms", 20)
    report.add("  the two letters that a word begins with", median(begun) * 1e3, "ms", 20)
    report.add("  the first search after a merge", merged * 1e3, "ms", 20)


def _streaming(report: Report, folder: Path, tokens: int) -> None:
    """The wire is a real relay's; the clock is the stream's own, so that 50 tokens a second take no minute."""
    from sync_server.thread import RelayThread

    now = [1_700_000_000.0]
    text = " ".join(next(words(7)) for _ in range(tokens * 6 // CHARS + 1))
    pieces = [text[n * 5 : n * 5 + 5] for n in range(tokens)]
    with (
        RelayThread(folder / "relay") as relay,
        llmcrdt.open(folder / "stream.db", clock=lambda: now[0]) as repo,
        repo.connect(relay.url) as link,
    ):
        conversation = repo.create()
        conversation.append("user", "go on")
        link.wait_synced(30)
        sent, stream = link.bytes_sent, conversation.stream("assistant", frame=conversation.transcript())
        for piece in pieces:
            stream.write(piece)
            now[0] += 0.02
            if stream.waiting == 0:
                link.wait_synced(30)
        stream.flush()
        link.wait_synced(30)
        streamed = link.bytes_sent - sent
        stream.seal()
        link.wait_synced(30)
        sealed = link.bytes_sent - sent - streamed
        document = len(conversation.diff())
    report.add(f"wire, {tokens:,} tokens of 5 letters streamed at 50 a second", streamed / tokens, "bytes/token", 25)
    report.add("  at the seal, once", sealed, "bytes")
    report.add("  document after it / its text", document / len("".join(pieces)), "x")


def _bare_bytes(path: Path, id_: str) -> bytes:
    with llmcrdt.open(path) as repo:
        return repo.get(id_).diff()


def _bare_load(data: bytes) -> None:
    document: pycrdt.Doc[pycrdt.Map[object]] = pycrdt.Doc()
    document.get("entries", type=pycrdt.Map)
    document.apply_update(data)


def _bare_append(
    document: pycrdt.Doc[pycrdt.Map[object]], entries: pycrdt.Map[object], fields: dict[str, object]
) -> None:
    with document.transaction():
        entries[f"e{len(entries)}"] = pycrdt.Map(fields)


def _table_bytes(store: Store) -> tuple[int, int]:
    """Bytes of the rows and of the search index."""
    with store._reading() as db:
        rows = "SELECT sum(length(fields) + length(node) + coalesce(length(words), 0) + 60) FROM entries"
        index = "SELECT sum(length(block)) FROM entry_words_data"
        return int(db.execute(rows).fetchone()[0] or 0), int(db.execute(index).fetchone()[0] or 0)


def _stored_bytes(store: Store, id_: str) -> int:
    with store._reading() as db:
        found = 0
        for table in ("snapshots", "updates"):
            query = f"SELECT coalesce(sum(length(data)), 0) FROM {table} WHERE document = ?"
            found += int(db.execute(query, [id_]).fetchone()[0])
        return found


def _memory(path: Path, id_: str, do: str) -> float:
    """Peak resident memory of a process of its own that opens the conversation, MiB."""
    script = (
        "import llmcrdt\n"
        "from llmcrdt.document.conversation import core_of\n"
        f"with llmcrdt.open({str(path)!r}) as repo:\n"
        f"    conversation = repo.get({id_!r})\n"
        "    conversation.entries(last=50)\n"
        f"    {do or 'pass'}\n"
        "    status = open('/proc/self/status').read()\n"
        "    print(int(status.split('VmHWM:')[1].split()[0]) / 1024)\n"
    )
    return float(subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout)
