"""One long conversation: to say it, open it, read it, change it, fork it, hand it to another device; and its bytes."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
import zlib
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pycrdt

import llmcrdt
from llmcrdt.document.conversation import core_of
from llmcrdt.document.entry import Entry

from ..report import Report, growth, median, seconds
from .talk import content_of, say, say_beside_others, words

ROUNDS = 5
SHORT = 40


class Row(NamedTuple):
    """One line of the table. ``scale`` makes of seconds, or of a ratio, what is printed."""

    name: str
    unit: str
    scale: float
    budget: float | None = None


ROWS = {
    "append": Row("append, durable, the last ones", "ms", 1e3),
    "append-sqlite": Row("  bare SQLite, the same bytes, durable", "ms", 1e3),
    "append-pycrdt": Row("  bare pycrdt, a transaction", "ms", 1e3),
    "append-ratio": Row("  append / bare SQLite", "x", 1, 2),
    "append-stall": Row("  longest of all appends", "ms", 1e3, 50),
    "append-transcript": Row("  transcript after it", "us", 1e6),
    "open": Row("open, last page, from the tables", "ms", 1e3, 10),
    "open-whole": Row("open, last page, replica ready", "ms", 1e3, 150),
    "open-bare": Row("  bare pycrdt: apply the same bytes", "ms", 1e3),
    "open-memory": Row("  memory of a process that shows a page", "MiB", 1),
    "load-memory": Row("  memory of a process that has loaded it", "MiB", 1),
    "read": Row("transcript read entry by entry", "ms", 1e3, 300),
    "read-again": Row("  a second transcript, read", "ms", 1e3),
    "read-pycrdt": Row("  bare pycrdt: all fields", "ms", 1e3),
    "read-sqlite": Row("  bare SQLite: all rows", "ms", 1e3),
    "edit-last": Row("edit of the last entry, then its transcript", "ms", 1e3, 5),
    "edit-middle": Row("edit of a middle entry", "ms", 1e3, 50),
    "select-last": Row("select among the last answers", "ms", 1e3, 5),
    "select-middle": Row("select back what the middle edit hid", "ms", 1e3, 50),
    "regenerate": Row("regenerate the last answer", "ms", 1e3, 5),
    "summarize": Row("summarize all", "ms", 1e3, 5),
    "erase": Row("erase the last entry", "ms", 1e3, 50),
    "erase-append": Row("  the append after it", "ms", 1e3, 5),
    "erase-middle": Row("erase a middle entry", "ms", 1e3, 50),
    "erase-search": Row("  the first search after it", "ms", 1e3),
    "fork": Row("fork at the end", "ms", 1e3, 500),
    "fork-page": Row("  its last page", "ms", 1e3, 10),
    "fork-append": Row("  its first append", "ms", 1e3),
    "device-page": Row("a new device takes it: last page shown", "ms", 1e3, 200),
    "device": Row("a new device takes it: all", "ms", 1e3, 600),
    "device-bare": Row("  / bare pycrdt", "x", 1, 15),
    "hidden-turn": Row("regenerate a turn, of a quarter of the entries each", "ms", 1e3, 5),
    "hidden-len": Row("len(t.elsewhere) with a quarter of the entries hidden", "ms", 1e3, 50),
    "hidden-read": Row("  and their texts read", "ms", 1e3),
    "file": Row("file / content", "x", 1, 3),
    "file-search": Row("file without what search needs / content", "x", 1, 1.5),
    "kept": Row("document, compacted / content", "x", 1, 1.15),
    "kept-short": Row(f"  of entries of {SHORT} letters", "x", 1, 1.6),
}


class Rows:
    """The values of the rows by size, and those that were left out because they would take too long."""

    def __init__(self, patience: float) -> None:
        self._patience = patience
        self._values: dict[str, dict[int, float]] = {}
        self._left_out: dict[str, str] = {}

    def note(self, row: str, size: int, value: float) -> None:
        self._values.setdefault(row, {})[size] = value

    def take(self, row: str, size: int, do: Callable[[], object], rounds: int = 1) -> float:
        """Time it; the median of several rounds."""
        took = median([seconds(do) for _ in range(rounds)])
        self.note(row, size, took)
        return took

    def bearable(self, row: str, size: int, times: float = 1) -> bool:
        """Whether a row is to be taken at a size, if it grows as it did so far. ``times``: so many of it are done."""
        values = self._values.get(row, {})
        if row not in self._left_out and values:
            largest = max(values)
            expected = values[largest] * (size / largest) ** (growth(values) or 1) * times
            if expected > self._patience:
                line = f"{ROWS[row].name.strip()}: left out at {size:,} entries; it would take about {expected:,.0f} s"
                self._left_out[row] = line
        return row not in self._left_out

    def report(self, report: Report) -> None:
        for name, row in ROWS.items():
            by_size = {size: value * row.scale for size, value in self._values.get(name, {}).items()}
            report.add_growing(row.name, by_size, row.unit, row.budget)
        report.notes += self._left_out.values()


def measure(report: Report, folder: Path, sizes: Sequence[int], *, appends: int, patience: float) -> None:
    rows = Rows(patience)
    for size in sizes:
        path = folder / f"history-{size}.db"
        id_ = _say(rows, path, size, appends)
        _open(rows, path, id_, size)
        _read(rows, path, id_, size)
        _weigh(rows, path, id_, size)
        _change(rows, _copy(path), id_, size)
        _fork(rows, _copy(path), id_, size)
        _hand_over(rows, path, id_, size)
        _hide(rows, folder / f"hidden-{size}.db", size)
    rows.report(report)


def _say(rows: Rows, path: Path, size: int, appends: int) -> str:
    text = words(1)
    with llmcrdt.open(path) as repo:
        conversation = repo.create("long")
        took = say(conversation, size, text)
        id_ = conversation.id
    said = say_beside_others(path, id_, appends, text)
    rows.note("append", size, median(said.last))
    rows.note("append-sqlite", size, median(said.sqlite))
    rows.note("append-pycrdt", size, median(said.pycrdt))
    rows.note("append-ratio", size, median(said.last) / median(said.sqlite))
    rows.note("append-stall", size, max(took))
    rows.note("append-transcript", size, median(said.transcript))
    return id_


def _open(rows: Rows, path: Path, id_: str, size: int) -> None:
    tables, whole = [], []
    for _ in range(ROUNDS):
        opened: list[llmcrdt.Repo] = []

        def page(opened: list[llmcrdt.Repo] = opened) -> None:
            opened.append(llmcrdt.open(path))
            assert opened[0].get(id_).entries(last=50)

        first = seconds(page)
        conversation = opened[0].get(id_)
        rest = seconds(core_of(conversation).document.load)
        assert len(conversation.transcript()) > size
        tables.append(first)
        whole.append(first + rest)
        opened[0].close()
    rows.note("open", size, median(tables))
    rows.note("open-whole", size, median(whole))
    kept = _bytes(path, id_)
    rows.take("open-bare", size, partial(bare_load, kept), ROUNDS)
    rows.note("open-memory", size, _memory(path, id_, ""))
    rows.note("load-memory", size, _memory(path, id_, "core_of(conversation).document.load()"))


def _read(rows: Rows, path: Path, id_: str, size: int) -> None:
    first, again = [], []
    for _ in range(3):
        with llmcrdt.open(path) as repo:
            conversation = repo.get(id_)
            conversation.transcript()
            first.append(seconds(lambda: _texts(conversation)))  # noqa: B023 - used at once
            again.append(seconds(lambda: _texts(conversation)))  # noqa: B023
    rows.note("read", size, median(first))
    rows.note("read-again", size, median(again))
    document = bare_load(_bytes(path, id_))
    rows.take("read-pycrdt", size, lambda: [dict(node.items()) for node in document["entries"].values()], 3)
    bare = sqlite3.connect(path)
    query = "SELECT node, fields FROM entries LEFT JOIN short_fields USING (number) ORDER BY number"
    rows.take("read-sqlite", size, lambda: bare.execute(query).fetchall(), 3)
    bare.close()


def _change(rows: Rows, path: Path, id_: str, size: int) -> None:
    with llmcrdt.open(path) as repo:
        conversation = repo.get(id_)
        conversation.transcript()
        conversation.append("assistant", "I see.", frame=conversation.transcript())
        say(conversation, 2, words(3))
        number = iter(range(1_000))

        def then(change: Callable[[], object]) -> Callable[[], object]:
            """A change, and what a person sees then."""
            return lambda: (change(), conversation.transcript()[-1].text)

        def question() -> Entry:
            return next(e for e in reversed(conversation.transcript()) if e.role == "user")

        def asked_otherwise() -> None:
            conversation.edit(question(), f"Otherwise: {next(number)}")

        def answered() -> None:
            conversation.append("assistant", "Again.", frame=conversation.transcript())

        def answered_otherwise() -> None:
            conversation.append("assistant", f"Or: {next(number)}", instead_of=conversation.transcript()[-1])

        if rows.bearable("edit-last", size, ROUNDS):
            rows.take("edit-last", size, then(asked_otherwise), ROUNDS)
        answered()
        if rows.bearable("regenerate", size, ROUNDS):
            rows.take("regenerate", size, then(answered_otherwise), ROUNDS)
            others = iter(conversation.alternatives(conversation.transcript()[-1])[:-1] * ROUNDS)
            rows.take("select-last", size, then(lambda: conversation.select(next(others))), ROUNDS)
        if rows.bearable("summarize", size, ROUNDS):
            everything = then(lambda: conversation.summarize(until=conversation.transcript()[-1], text="In short."))
            rows.take("summarize", size, everything, ROUNDS)
        if rows.bearable("erase", size, 3):
            erased = then(lambda: conversation.erase(conversation.transcript()[-1]))
            after = then(lambda: conversation.append("user", "And now?"))
            took = [(seconds(erased), seconds(after)) for _ in range(3)]
            rows.note("erase", size, median([first for first, _ in took]))
            rows.note("erase-append", size, median([second for _, second in took]))
        if rows.bearable("erase-middle", size, 3):
            repo.search("a word that nobody said")
            later = iter(conversation.transcript().ids[size // 2 :])
            took = [
                (seconds(then(lambda: conversation.erase(next(later)))), seconds(lambda: repo.search("nobody")))
                for _ in range(3)
            ]
            rows.note("erase-middle", size, median([first for first, _ in took]))
            rows.note("erase-search", size, median([second for _, second in took]))
        if rows.bearable("edit-middle", size, 3):
            took = []
            for _ in range(3):
                before = conversation.transcript()
                middle, last = before[size // 2], before[-1]
                edited = seconds(then(partial(conversation.edit, middle, f"Otherwise: {next(number)}")))
                assert len(conversation.transcript()) == size // 2 + 1
                took.append((edited, seconds(then(partial(conversation.select, last)))))
                assert len(conversation.transcript()) == len(before)
            rows.note("edit-middle", size, median([first for first, _ in took]))
            rows.note("select-middle", size, median([second for _, second in took]))


def _fork(rows: Rows, path: Path, id_: str, size: int) -> None:
    if rows.bearable("fork", size):
        with llmcrdt.open(path) as repo:
            conversation = repo.get(id_)
            transcript = conversation.transcript()
            forks: list[llmcrdt.Conversation] = []
            rows.take("fork", size, lambda: forks.append(repo.fork(conversation, at=transcript[-1])))
            rows.take("fork-page", size, lambda: forks[0].entries(last=50))
            rows.take("fork-append", size, lambda: forks[0].append("user", "And then?"))
            assert len(forks[0].transcript()) == len(transcript) + 1


def _hand_over(rows: Rows, path: Path, id_: str, size: int) -> None:
    if not rows.bearable("device", size):
        return
    with llmcrdt.open(path) as repo:
        library, whole = repo.library, repo.get(id_).diff()
    shown, done = [], []
    for n in range(3):
        with llmcrdt.open(path.with_suffix(f".device{n}"), library) as device:
            conversation = device.join(id_)

            def page(conversation: llmcrdt.Conversation = conversation) -> None:
                conversation.apply(whole)
                assert conversation.entries(last=50)[-1].text

            shown.append(seconds(page))
        # what closing it left to do is part of it
        done.append(shown[-1] + seconds(partial(_opened_and_closed, path.with_suffix(f".device{n}"))))
    bare = median([seconds(partial(bare_load, whole)) for _ in range(3)])
    rows.note("device-page", size, median(shown))
    rows.note("device", size, median(done))
    rows.note("device-bare", size, median(done) / bare)


def _hide(rows: Rows, path: Path, size: int) -> None:
    """A conversation where somebody asked again for every answer."""
    turns = max(1, size // 4)
    if not rows.bearable("hidden-turn", size, turns):
        return
    text = words(4)
    took = []
    with llmcrdt.open(path) as repo:
        conversation = repo.create("again and again")
        for _ in range(turns):
            say(conversation, 2, text)

            def again(said: str) -> None:
                conversation.append("assistant", said, instead_of=conversation.transcript()[-1])
                assert conversation.transcript()[-1].text == said

            took.append(seconds(partial(again, next(text))))
        rows.note("hidden-turn", size, sum(took) / turns)
        if rows.bearable("hidden-len", size):
            rows.take("hidden-len", size, lambda: len(conversation.transcript().elsewhere))
            assert len(conversation.transcript().elsewhere) == turns
            rows.take("hidden-read", size, lambda: [e.entry.text for e in conversation.transcript().elsewhere])


def _weigh(rows: Rows, path: Path, id_: str, size: int) -> None:
    with llmcrdt.open(path) as repo:
        conversation = repo.get(id_)
        content, whole = content_of(conversation), conversation.diff()
    tables = _table_sizes(path)
    searching = sum(size for name, size in tables.items() if name.startswith("entry_words"))
    rows.note("file", size, path.stat().st_size / content)
    rows.note("file-search", size, (path.stat().st_size - searching) / content)
    rows.note("kept", size, len(zlib.compress(whole, 6)) / content)
    with llmcrdt.open(path.with_suffix(".short")) as repo:
        conversation = repo.create("short")
        with conversation.batch():
            say(conversation, size, words(5), SHORT)
        short = conversation.diff()
        rows.note("kept-short", size, len(zlib.compress(short, 6)) / content_of(conversation))


def bare_load(data: bytes) -> pycrdt.Doc[pycrdt.Map[pycrdt.Map[object]]]:
    document: pycrdt.Doc[pycrdt.Map[pycrdt.Map[object]]] = pycrdt.Doc()
    document.get("entries", type=pycrdt.Map)
    document.apply_update(data)
    return document


def _texts(conversation: llmcrdt.Conversation) -> int:
    return sum(len(entry.text) for entry in conversation.transcript())


def _bytes(path: Path, id_: str) -> bytes:
    with llmcrdt.open(path) as repo:
        return repo.get(id_).diff()


def _opened_and_closed(path: Path) -> None:
    with llmcrdt.open(path) as repo:
        repo.search("a word that nobody said")


def _copy(path: Path) -> Path:
    return Path(shutil.copy(path, path.with_suffix(".copy")))


def _table_sizes(path: Path) -> dict[str, int]:
    """Bytes of each table and index in a file."""
    with sqlite3.connect(path) as db:
        return dict(db.execute("SELECT name, sum(pgsize) FROM dbstat GROUP BY name"))


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
