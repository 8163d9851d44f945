"""The scenarios. Each runs on a fresh server of each kind, in turns, so that a machine that is busy with
something else is busy for all of them."""

from __future__ import annotations

import os
import sqlite3
import tempfile
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from statistics import median

from ..report import Report
from . import unloading
from .generator import Failed, Found, run
from .servers import AUTOMERGE_KINDS, KINDS, OURS, YARDSTICK, Kind, Server, running

MB = 1_000_000
DOORS = {OURS: "native", f"{OURS}, Yjs door": "yjs-door", f"{OURS}, mixed": "mixed"}
"""Our doors: what a row is called, and what is spoken there. Mixed: the writer is native, the readers are Yjs."""
_WINDOW = 48
"""Entries of 1,000 letters that are written and not yet with all followers: fewer than a fold leaves behind
(``limits.compaction_tail``), so that a follower, who compares records, never needs a snapshot."""


@dataclass(frozen=True)
class Sizes:
    """How much of everything."""

    rounds: int = 3
    seconds: float = 3.0
    readers: int = 500
    idle: int = 1_000
    clients: int = 200
    document: int = 10_000  # entries of 1,000 letters
    silent: int = 50
    traffic: int = 16_000  # entries of 1,000 letters
    growing: tuple[int, ...] = (8_000, 16_000, 32_000, 64_000)
    many_silent: int = 1_000
    documents: int = 10_000
    rest: float = 2.0  # seconds that idle connections do nothing
    alone: float = 1.0  # seconds of acks beside which nothing is compacted


QUICK = Sizes(1, 0.2, 20, 40, 5, 100, 3, 300, (600,), 10, 100, 0.2, 0.2)

Values = dict[str, list[Found]]
"""Kind -> what was found, round by round."""


class Bench:
    """One run of the benchmark: the kinds that can run here, the report, and what went wrong. ``doors``: the dialects
    of those of our doors that have a row where each may have one."""

    def __init__(
        self, report: Report, kinds: Sequence[Kind], sizes: Sizes, doors: Collection[str] = tuple(DOORS.values())
    ) -> None:
        self.report, self.kinds, self.sizes, self.doors = report, kinds, sizes, doors
        self.fsyncs: list[float] = []
        self.commits: list[float] = []

    def by_door(self) -> Bench:
        """The same, with a row for each of our doors."""
        kinds: list[Kind] = []
        for kind in self.kinds:
            if kind.name == OURS:
                chosen = ((name, dialect) for name, dialect in DOORS.items() if dialect in self.doors)
                kinds += (replace(kind, name=name, dialect=dialect) for name, dialect in chosen)
            else:
                kinds.append(kind)
        return Bench(self.report, kinds, self.sizes, self.doors)

    def rounds(
        self, what: str, measure: Callable[[Server], Found], rounds: int | None = None, limits: Sequence[str] = ()
    ) -> Values:
        """Every kind in turn, round after round. A kind that fails has no figures, and a note says why."""
        found: Values = {kind.name: [] for kind in self.kinds}
        for _ in range(rounds or self.sizes.rounds):
            self.fsyncs += bare_fsyncs()
            self.commits += durable_commits()
            for kind in self.kinds:
                if kind.name not in found:
                    continue
                try:
                    with running(kind, *limits) as server:
                        found[kind.name].append(measure(server))
                except Failed as e:
                    del found[kind.name]
                    self.report.notes.append(f"{what}: {kind.name} has no figure: {e}")
        return found

    def lines(self, what: str, unit: str, found: Values, value: Callable[[Found], float]) -> dict[str, float]:
        """A line for each kind: the median over the rounds."""
        values = {name: median(map(value, rounds)) for name, rounds in found.items()}
        for name, figure in values.items():
            self.report.add(f"{what}: {name}", figure, unit)
        return values

    def ratio(self, what: str, values: dict[str, float], budget: float | None = None, least: bool = False) -> None:
        """Ours / the yardstick's, at each door that was measured."""
        bound = "least" if least else "most"
        for name in DOORS if YARDSTICK in values else ():
            if name in values:
                line = f"  {what}{name.removeprefix(OURS)} / {YARDSTICK}"
                self.report.add(line, values[name] / values[YARDSTICK], "x", budget, bound)  # type: ignore[arg-type]

    def beside_commits(self, what: str, values: dict[str, float], times: int) -> None:
        """Ours in ms beside so many times the yardstick's and as many durable commits, at each door."""
        if YARDSTICK in values:
            allowed = times * (values[YARDSTICK] + median(self.commits) * 1e3)
            for name in DOORS:
                if name in values:
                    line = f"  {what}{name.removeprefix(OURS)} / {times} x ({YARDSTICK} and a durable commit)"
                    self.report.add(line, values[name] / allowed, "x", 1)


def streamed(bench: Bench) -> None:
    """10 rooms, each with a writer and 4 followers, words of a streamed answer: as fast as it goes; at each door."""
    bench, seconds = bench.by_door(), bench.sizes.seconds
    task = {"rooms": 10, "followers": 4, "updates": int(15_000 * seconds), "rate": 0, "window": 1_000}
    what = "10 rooms x 4, as fast as it goes"
    found = bench.rounds(what, lambda server: run(server, "stream", seconds=seconds, **task))
    values = bench.lines(what, "delivered/s", found, _delivered)
    bench.ratio("delivered/s", values, 4, least=True)
    values = bench.lines("  per second of the server's processor time", "delivered", found, _for_cpu)
    bench.ratio("that", values)
    bench.lines("  the server's share of a core", "", found, lambda f: f.cpu)
    bench.lines("  the generator's", "", found, lambda f: f.counted["cpu"])


def automerge(bench: Bench) -> None:
    """The same rooms at the Automerge door, and at automerge-repo's own server: a change for each word, and each reader
    says what it has, as clients do. That server keeps documents in files, and sends at most every 100 ms."""
    kinds, seconds = [*choose(bench.report, [kind.name for kind in AUTOMERGE_KINDS])], bench.sizes.seconds
    bench = Bench(bench.report, kinds, bench.sizes)
    task = {"rooms": 10, "followers": 4, "updates": int(2_000 * seconds), "rate": 0, "window": 1_000}
    what = "Automerge, 10 rooms x 4, as fast as it goes"
    found = bench.rounds(what, lambda server: run(server, "stream", seconds=seconds, **task))
    values = bench.lines(what, "delivered/s", found, _delivered)
    per_second = bench.lines("  per second of the server's processor time", "delivered", found, _for_cpu)
    if len(values) == len(AUTOMERGE_KINDS):
        ours, theirs = (kind.name for kind in AUTOMERGE_KINDS)
        bench.report.add(f"  delivered/s / {theirs}", values[ours] / values[theirs], "x", 2, "least")
        bench.report.add(f"  that / {theirs}", per_second[ours] / per_second[theirs], "x")
    bench.lines("  the server's share of a core", "", found, lambda f: f.cpu)
    bench.lines("  the generator's", "", found, lambda f: f.counted["cpu"])


def paced(bench: Bench) -> None:
    """The same rooms at 1,000 updates a second in all, at each door."""
    bench, seconds = bench.by_door(), bench.sizes.seconds
    task = {"rooms": 10, "followers": 4, "updates": int(100 * seconds) + 1, "rate": 1_000, "window": 0}
    what = "10 rooms x 4, 1,000 updates/s, p50"
    found = bench.rounds(what, lambda server: run(server, "stream", seconds=seconds, **task))
    bench.beside_commits("p50", bench.lines(what, "ms", found, lambda f: f.counted["p50"] * 1e3), 1)
    bench.beside_commits("p99", bench.lines("  p99", "ms", found, lambda f: f.counted["p99"] * 1e3), 2)
    bench.lines("  the server's share of a core", "", found, lambda f: f.cpu)
    bench.report.add("  a bare write and fsync on this disk, p50", median(bench.fsyncs) * 1e3, "ms")
    bench.report.add("  a durable commit of one row, p50", median(bench.commits) * 1e3, "ms")


def bursts(bench: Bench) -> None:
    """The same, but all ten rooms at once, every 10 ms: answers that a model decodes in one batch."""
    seconds = bench.sizes.seconds
    task = {"rooms": 10, "followers": 4, "updates": int(100 * seconds) + 1, "rate": 1_000, "burst": 10, "window": 0}
    what = "10 rooms x 4, 1,000 updates/s, ten at once, p50"
    found = bench.rounds(what, lambda server: run(server, "stream", seconds=seconds, **task))
    bench.ratio("p50", bench.lines(what, "ms", found, lambda f: f.counted["p50"] * 1e3))
    bench.lines("  p99", "ms", found, lambda f: f.counted["p99"] * 1e3)


def crowd(bench: Bench) -> None:
    """A writer and 500 readers: 20 updates a second, then as fast as it goes."""
    readers, seconds = bench.sizes.readers, bench.sizes.seconds
    task = {"rooms": 1, "followers": readers, "window": 16}
    what = f"1 writer, {readers} readers, 20 updates/s, p50"
    slow = bench.rounds(what, lambda s: run(s, "stream", seconds=seconds, rate=20, updates=1_000, **task))
    bench.ratio("p50", bench.lines(what, "ms", slow, lambda f: f.counted["p50"] * 1e3))
    bench.lines("  p99", "ms", slow, lambda f: f.counted["p99"] * 1e3)
    what = f"1 writer, {readers} readers, as fast as it goes"
    fast = bench.rounds(what, lambda s: run(s, "stream", seconds=seconds, rate=0, updates=20_000, **task))
    bench.ratio("delivered/s", bench.lines(what, "delivered/s", fast, _delivered), 4, least=True)
    bench.lines("  the generator's share of a core", "", fast, lambda f: f.counted["cpu"])


def idle(bench: Bench) -> None:
    """1,000 connections that do nothing, 10 to a document."""
    count = bench.sizes.idle
    what = f"{count:,} idle connections, memory of each"
    found = bench.rounds(what, lambda server: run(server, "idle", connections=count, each=10, rest=bench.sizes.rest), 1)
    bench.ratio("memory", bench.lines(what, "kB", found, lambda f: (f.after - f.before) / count / 1e3))


def storm(bench: Bench) -> None:
    """200 clients that come at once to a document of 10 MB."""
    sizes = bench.sizes

    task = {"clients": sizes.clients, "updates": sizes.document, "size": 1_000, "window": _WINDOW}
    what = f"{sizes.clients} clients join a document of {sizes.document / 1_000:g} MB, until all have it"
    found = bench.rounds(what, lambda server: run(server, "storm", **task), 1)
    bench.ratio("time", bench.lines(what, "s", found, lambda f: f.counted["seconds"]))
    bench.lines("  the server's memory at most, beyond what it had", "MB", found, lambda f: (f.peak - f.before) / MB)
    bench.lines("  the generator's share of a core", "", found, lambda f: f.counted["cpu"])


def slow(bench: Bench) -> None:
    """Readers that don't read, while a writer and a reader go on; then 1,000 of them at either door of ours, with ever
    more traffic."""
    sizes = bench.sizes
    task = {"rooms": 1, "followers": 1, "seconds": 600, "rate": 0, "window": _WINDOW, "size": 1_000}

    def measure(silent: int, updates: int = sizes.traffic) -> Callable[[Server], Found]:
        return lambda server: run(server, "stream", silent=silent, updates=updates, **task)

    traffic = f"{sizes.traffic / 1_000:g} MB"
    what = f"{sizes.silent} clients that don't read, {traffic}: memory more"
    found = bench.rounds(what, measure(sizes.silent), 1)
    bench.lines(what, "MB", found, _grown)
    for name, (round_,) in found.items():
        _note_gone(bench, f"{traffic}, {name}", round_, sizes.silent)
    for kind in bench.kinds:
        if kind.name == OURS:
            for dialect, door in (("native", "native door"), ("yjs-door", "Yjs door")):
                ours = Bench(bench.report, [replace(kind, name=door, dialect=dialect)], sizes)
                _growing(ours, door, measure)


def _growing(bench: Bench, door: str, measure: Callable[[int, int], Callable[[Server], Found]]) -> None:
    """The relay's own process: what it has more with many who don't read than with none, by what was written. Its log
    isn't folded meanwhile, for a Yjs page that falls behind a fold is sent away."""
    many, unfolded = bench.sizes.many_silent, ("compaction_bytes=1099511627776",)
    beyond: list[float] = []
    for updates in bench.sizes.growing:
        found = []
        what = f"{updates / 1_000:g} MB"
        for silent in (many, 0):
            values = bench.rounds(f"{silent:,} silent, {what}", measure(silent, updates), 1, unfolded)
            if door not in values:
                return
            found.append(values[door][0])
            _note_gone(bench, f"{what}, {door}", found[-1], silent)
        beyond.append((found[0].own - found[1].own) / MB)
        bench.report.add(f"{many:,} clients that don't read, {what}, {door}: memory more", found[0].own / MB, "MB")
        bench.report.add("  of that, not with none", beyond[-1], "MB")
    if beyond[0] > 0:
        bench.report.add("  that, with the most traffic / the least", beyond[-1] / beyond[0], "x")


def _note_gone(bench: Bench, what: str, found: Found, silent: int) -> None:
    """The figure leaves out what was kept for clients that were sent away."""
    if (gone := silent - found.counted["silent"]) > 0:
        bench.report.notes.append(f"{what}: {gone} who don't read were sent away.")


def unload(bench: Bench) -> None:
    """Documents that were opened, written and closed again."""
    for kind in bench.kinds:
        if kind.name == OURS:
            try:
                with running(kind) as server:
                    unloading.measure(bench.report, server, bench.sizes.documents)
            except Failed as e:
                bench.report.notes.append(f"unload: no figures: {e}")


SCENARIOS = {f.__name__: f for f in (streamed, automerge, paced, bursts, crowd, idle, storm, slow, unload)}


def choose(report: Report, names: Sequence[str]) -> Iterator[Kind]:
    """The kinds with these names that can run here; a note for each that can't."""
    for kind in (*KINDS, *AUTOMERGE_KINDS):
        if kind.name in names:
            why = kind.missing()
            if why is None:
                yield kind
            else:
                report.notes.append(f"{kind.name} is left out: {why}")


def bare_fsyncs(count: int = 20) -> list[float]:
    """Seconds that a write of 100 bytes and an fsync take: what an ack waits for at least."""
    times = []
    with tempfile.TemporaryFile(prefix="llmcrdt-bench-") as file:
        for _ in range(count):
            began = time.perf_counter()
            os.write(file.fileno(), b"x" * 100)
            os.fsync(file.fileno())
            times.append(time.perf_counter() - began)
    return times


def durable_commits(count: int = 20) -> list[float]:
    """Seconds that SQLite takes to commit a row of 100 bytes as the relay's log does: in a write-ahead log, with
    fsync."""
    times = []
    with tempfile.TemporaryDirectory(prefix="llmcrdt-bench-") as folder:
        database = sqlite3.connect(os.path.join(folder, "log.db"), isolation_level=None)
        with closing(database):
            database.execute("PRAGMA journal_mode=WAL")
            database.execute("PRAGMA synchronous=FULL")
            database.execute("CREATE TABLE records (data BLOB)")
            for _ in range(count):
                began = time.perf_counter()
                database.execute("INSERT INTO records VALUES (?)", (b"x" * 100,))
                times.append(time.perf_counter() - began)
    return times


def _delivered(found: Found) -> float:
    return float(found.counted["delivered"] / found.counted["seconds"])


def _for_cpu(found: Found) -> float:
    return _delivered(found) / found.cpu if found.cpu else 0.0


def _grown(found: Found) -> float:
    return (found.peak - found.before) / MB
