"""Updates whose structure is near a limit of what is let through, given to the real core in a process of their own:

    python tests/fuzz/structures.py --schedules 20000 --seed 1

A schedule is some updates of a few clients: items of every content in and beside any others, at clocks, depths, counts
and numbers at and around each limit, with deletes that cut them, and what the core itself makes of several at once.
Device, worker and compaction take them in turn. Each is taken or refused; the process lives, and takes no longer than
was estimated. A failure names its seed: ``--seed N --schedules 1`` repeats it.
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import pycrdt

sys.path.append(str(Path(__file__).parents[2]))
from llmcrdt.crdt.backend import Replica
from llmcrdt.crdt.registry import backend
from llmcrdt.crdt.yjs.update import (
    CLIENT_END,
    CLOCK_END,
    DEPTH,
    Id,
    Struct,
    read_state_vector,
    read_structs,
    read_update,
)
from llmcrdt.exceptions import MalformedUpdate
from llmcrdt.varint import write_uint
from sync_server.workers.validator_worker import ValidatorWorker

ROOTS = ("entries", "meta", "acts")
YJS = backend("yjs")
SECONDS = 0.25
"""That an update may take whatever it is; and ``FACTOR`` times as long as was estimated."""
FACTOR = 4.0
_VALUE_DEPTH = 64


class Chooser(Protocol):
    """The source of choices: random.Random, or what a fuzzer gives."""

    def randrange(self, stop: int) -> int: ...


@dataclass
class Maker:
    """Makes updates. ``ids``: of what was written before; ``types`` of them are shared types."""

    choose: Chooser
    ids: list[Id] = field(default_factory=list)
    types: list[Id] = field(default_factory=list)
    ends: dict[int, int] = field(default_factory=dict)

    def schedule(self) -> list[bytes]:
        """The updates of a schedule, in an order that may not be theirs."""
        made = [self.update() for _ in range(1 + self._below(8))]
        if self._one_in(3):
            for at in range(len(made) - 1, 0, -1):
                other = self._below(at + 1)
                made[at], made[other] = made[other], made[at]
        if self._one_in(4) and len(made) > 1:
            # yrs panics here on some bytes that were never given to it: whoever merges is a stranger.
            with suppress(BaseException):
                made.append(pycrdt.merge_updates(*made[: 1 + self._below(len(made))]))
        if self._one_in(4):
            made.append(made[self._below(len(made))])
        return made

    def update(self) -> bytes:
        if self._one_in(12):
            return self._chain()
        lines = [self._line() for _ in range(self._pick((1, 1, 1, 2, 3, 0)))]
        return _uint(len(lines)) + b"".join(lines) + self._deletes()

    def _line(self) -> bytes:
        client = self._client()
        clock = self._clock(client)
        structs = []
        start = clock
        for _ in range(self._pick((1, 1, 2, 3, 10, 60))):
            body, length, is_type = self._struct(client, clock)
            structs.append(body)
            if clock + length >= CLOCK_END and not self._one_in(8):
                break
            self.ids.append((client, clock + self._below(max(1, length)) if length < CLOCK_END else clock))
            if is_type:
                self.types.append((client, clock))
            clock += length
        self.ends[client] = max(self.ends.get(client, 0), clock)
        return _uint(len(structs)) + _uint(client) + _uint(start) + b"".join(structs)

    def _chain(self) -> bytes:
        """Types inside each other, about as deep as they may be; now and then in what was there before."""
        client = self._client()
        clock = self._clock(client)
        levels = DEPTH - 2 + self._below(5) if self._one_in(2) else 1 + self._below(2 * DEPTH)
        out, inside = [], self.types[self._below(len(self.types))] if self.types and self._one_in(2) else None
        for at in range(levels):
            place = b"\x00" + _id(inside) if inside else b"\x01" + _text(ROOTS[0])
            out.append(bytes((0x27,)) + place + _text("k") + bytes((self._below(2),)))
            inside = (client, clock + at)
            self.types.append(inside)
        self.ends[client] = max(self.ends.get(client, 0), clock + levels)
        gone = b"\x01" + _uint(client) + b"\x01" + _uint(clock) + b"\x01" if self._one_in(3) else b"\x00"
        return b"\x01" + _uint(levels) + _uint(client) + _uint(clock) + b"".join(out) + gone

    # ---------------------------------------------------------------- structs

    def _struct(self, client: int, clock: int) -> tuple[bytes, int, bool]:
        """Bytes, length, and whether it is a shared type."""
        kind = self._pick((4, 4, 4, 8, 8, 7, 7, 1, 2, 3, 5, 6, 9, 0, 10))
        if kind in (0, 10):
            length = self._length(clock)
            return bytes((kind,)) + _uint(length), length, False
        content, length = self._content(kind, clock)
        flags = self._pick((0, 0, 0x80, 0x80, 0x40, 0xC0))
        place = b""
        if flags & 0x80:
            place += _id((client, clock - 1) if clock and self._one_in(2) else self._some_id())
        if flags & 0x40:
            place += _id(self._some_id())
        if not flags:
            key = self._one_in(2)
            flags |= 0x20 * key
            inside = self.types if self.types and not self._one_in(4) else self.ids
            if inside and not self._one_in(3):
                place = b"\x00" + _id(inside[self._below(len(inside))])
            else:
                place = b"\x01" + _text(self._pick((*ROOTS, "list", "")))
            place += _text(self._pick(("k", "l", "", "é" * 9))) if key else b""
        elif self._one_in(8):
            flags |= 0x20  # says nothing there
        return bytes((flags | kind,)) + place + content, length, kind == 7

    def _content(self, kind: int, clock: int) -> tuple[bytes, int]:
        match kind:
            case 1:
                length = self._length(clock)
                return _uint(length), length
            case 2:
                count = 1 + self._below(4)
                texts = (self._pick(("1", '"a"', "undefined", "{", "[" * 500, "é")) for _ in range(count))
                return _uint(count) + b"".join(map(_text, texts)), count
            case 3:
                size = self._pick((0, 1, 100))
                return _uint(size) + bytes(size), 1
            case 4:
                text = self._pick(("", "a", "word ", "é", "😀", "a😀b", "😀" * 20, "x" * 300, "\0", "\u2028"))
                return _text(text), len(text.encode("utf-16-le")) // 2
            case 5:
                return _text(self._pick(("1", "{}", "", "nothing"))), 1
            case 6:
                return _text(self._pick(("b", ""))) + _text(self._pick(("true", "null", "", "{"))), 1
            case 7:
                ref = self._below(7)
                return bytes((ref,)) + (_text("n") if ref in (3, 5) else b""), 1
            case 8:
                count = 1 + self._below(3)
                return _uint(count) + b"".join(self._any() for _ in range(count)), count
        return _text(self._pick(("sub", ""))) + self._any(), 1

    def _any(self) -> bytes:
        match self._below(9):
            case 0:
                return bytes((self._pick((127, 126, 121, 120)),))
            case 1:  # an integer of as many bytes as are read, and more
                return b"\x7d" + bytes([0x80 | self._below(128)] * self._pick((0, 1, 4, 7, 8, 9))) + b"\x01"
            case 2:
                return b"\x7c" + bytes(self._below(256) for _ in range(4))
            case 3:
                return b"\x7b" + bytes(self._below(256) for _ in range(8))
            case 4:
                return b"\x7a" + bytes(self._below(256) for _ in range(8))
            case 5:
                levels = self._pick((1, _VALUE_DEPTH - 1, _VALUE_DEPTH, _VALUE_DEPTH + 1))
                return b"\x75\x01" * levels + b"\x7e" if self._one_in(2) else b"\x76\x01\x01k" * levels + b"\x7e"
            case 6:
                return b"\x74" + _uint(size := self._pick((0, 1, 50))) + bytes(size)
            case 7:
                return b"\x76" + _uint(2) + _text("k") + b"\x7e" + _text("k") + b"\x78"
        return b"\x77" + _text(self._pick(("", "v", "é😀")))

    def _deletes(self) -> bytes:
        clients = self._pick((0, 0, 1, 1, 2))
        out = [_uint(clients)]
        for _ in range(clients):
            client, at = self._some_id()
            ranges = self._pick((1, 1, 2, 5))
            out += (_uint(client), _uint(ranges))
            start = max(0, at - 1)
            for _ in range(ranges):
                start += self._below(4)
                length = self._pick((1, 1, 2, 5, 400, 0, max(1, CLOCK_END - 1 - start), CLOCK_END))
                out += (_uint(start), _uint(length))
                start += 0 if self._one_in(8) else length
        return b"".join(out)

    # ---------------------------------------------------------------- numbers

    def _client(self) -> int:
        return self._pick((1, 2, 3, 4, 5, CLIENT_END - 1, (1 << 32) - 1, 1 << 32, 127, 128))

    def _clock(self, client: int) -> int:
        end = self.ends.get(client, 0)
        if self._one_in(12):
            return self._pick((CLOCK_END - 1, CLOCK_END - 2, CLOCK_END - 70, CLOCK_END, 1 << 30, 1 << 16))
        return max(0, end + self._pick((0, 0, 0, 0, 0, 0, 1, 2, -1, -2, -end)))

    def _length(self, clock: int) -> int:
        rest = max(1, CLOCK_END - 1 - clock)
        return self._pick((1, 1, 2, 5, 40)) if not self._one_in(10) else self._pick((rest, rest - 1 or 1, rest + 1, 1))

    def _some_id(self) -> Id:
        if self.ids and not self._one_in(10):
            client, clock = self.ids[max(0, len(self.ids) - 1 - self._below(30))]
            return client, max(0, clock + self._pick((0, 0, 0, 0, 1, -1)))
        return self._client(), self._pick((0, 1, 5, CLOCK_END - 1, CLOCK_END - 2))

    def _below(self, stop: int) -> int:
        return self.choose.randrange(stop)

    def _one_in(self, n: int) -> bool:
        return self._below(n) == 0

    def _pick(self, of: Sequence[Any]) -> Any:
        return of[self._below(len(of))]


_uint = write_uint


def _id(id_: Id) -> bytes:
    return _uint(id_[0]) + _uint(id_[1])


def _text(text: str) -> bytes:
    data = text.encode()
    return _uint(len(data)) + data


# ---------------------------------------------------------------- what takes them


class Broken(AssertionError):
    """Something took longer than it may, or went wrong in another way than by refusing."""


@dataclass
class Report:
    """``beyond``: the longest that something took of what it may, and in seconds."""

    updates: int = 0
    taken: int = 0
    beyond: float = 0.0
    seconds: float = 0.0

    def timed(self, estimated: float, act: Callable[[], object]) -> bool:
        """Whether it was taken, and not refused. Raises Broken where it takes too long, also when asked again."""
        start = time.process_time()
        done = True
        try:
            act()
        except MalformedUpdate:
            done = False
        took = time.process_time() - start
        self.seconds = max(self.seconds, took)
        self.beyond = max(self.beyond, took / (SECONDS + FACTOR * estimated))
        if self.beyond > 1:
            raise Broken(f"took {took:.2f} s, where {estimated:.2f} s were estimated")
        return done


def take(updates: Sequence[bytes], report: Report) -> None:
    """Give the updates of a schedule to all that take updates of strangers. Raises Broken."""
    for update in updates:
        _as_core(update)
    _as_device(updates, report)
    _as_worker(updates, report)
    blocks = sum(YJS.estimate_work(update, 0).blocks for update in updates)
    estimated = sum(YJS.estimate_work(update, blocks).seconds for update in updates)
    report.timed(3 * estimated, lambda: _as_compaction(updates))


def _as_core(update: bytes) -> None:
    """The core reads an update that is let through as it was read here. Raises Broken: else anything may hide in it."""
    merged = b""
    try:
        structs, _ = read_structs(update)
    except MalformedUpdate:
        return
    with suppress(ValueError):  # it can't read it at all
        merged = pycrdt.merge_updates(update, YJS.empty)
    if not read_update(update).odd and merged and _ranges(structs) != _ranges(read_structs(merged)[0]):
        raise Broken(f"the core reads other structs than were checked: {update.hex()}")


def _ranges(structs: Sequence[Struct]) -> dict[int, list[int]]:
    """Per client the clocks at which what is written begins and ends."""
    found: dict[int, list[int]] = {}
    for struct in structs:
        if struct.clock == struct.end:
            continue  # an empty text, which the core leaves out where nothing follows
        bounds = found.setdefault(struct.client, [struct.clock, struct.clock])
        if struct.clock == bounds[-1]:
            bounds[-1] = struct.end
        else:
            bounds += (struct.clock, struct.end)
    return found


def _as_device(updates: Sequence[bytes], report: Report) -> None:
    """As a conversation that is open: what can't be applied is set aside, and the document is loaded again."""
    replica: Replica = YJS.make_replica(ROOTS)
    kept: list[bytes] = []
    blocks = 0
    for update in updates:
        report.updates += 1
        work = YJS.estimate_work(update, blocks)
        taken = report.timed(work.seconds, partial(replica.apply, update))
        if taken:
            report.taken += 1
            kept.append(update)
            blocks += work.blocks
        if replica.broken:
            replica = YJS.make_replica(ROOTS)
            replica.load(None, kept)
        for root in ROOTS:
            for key in replica.keys(root):
                replica.node(root, key)
                replica.get(root, key)
    whole, waiting = replica.snapshot()
    again: Replica = YJS.make_replica(ROOTS)
    again.load(whole, waiting)
    replica.diff(again.version())
    # A snapshot isn't read where it is kept, and only for this: what the core makes of what passed the check passes it.
    fresh: Replica = YJS.make_replica(ROOTS)
    fresh.load(None, [whole])
    if not read_state_vector(fresh.version()) == read_update(whole).written == read_state_vector(replica.version()):
        raise Broken("a new device does not have what a device holds")
    YJS.redact(whole, list(updates[:3]))
    with replica.edit() as edit:
        edit.put("meta", "k", "v")
        edit.put_node("entries", "k", {"head": "x"})
    assert replica.get("meta", "k") == "v"


def _as_worker(updates: Sequence[bytes], report: Report) -> None:
    """As a relay's worker: in one order, then each alone; as records and as updates of a page."""
    worker = ValidatorWorker(1 << 20)
    for order in (b"check", b"merge"):
        kept: list[bytes] = []
        worker.obey(b"loaded", b"yjs", b"d", [])
        for batch in (list(updates), *([update] for update in updates)):
            state = worker.obey(order, b"yjs", b"d", batch)[0]
            if state == b"ok" and len(batch) == 1:
                kept += batch
            if state not in (b"ok", b"bad", b"broken", b"which", b"part"):
                raise Broken(f"a worker answers {state!r} to {order!r}")
            if state in (b"broken", b"which"):
                worker.obey(b"drop", b"yjs", b"d", [])
                if worker.obey(b"loaded", b"yjs", b"d", kept)[0] != b"ok":
                    worker.obey(b"healed", b"yjs", b"d", kept)
        for each in updates[:2]:
            worker.obey(b"cover", b"yjs", b"d", [each])
        worker.obey(b"diff", b"yjs", b"d", [b"\x00"])
        worker.obey(b"drop", b"yjs", b"d", [])


def _as_compaction(updates: Sequence[bytes]) -> None:
    compacted = YJS.compact(updates)
    YJS.begin(compacted[0] if compacted else YJS.empty)
    for update in updates:
        YJS.cut(update)
        with suppress(MalformedUpdate):
            YJS.split(update, 100)
        with suppress(MalformedUpdate):
            YJS.catch_up([], [], [update])


def run(seed: int, report: Report) -> None:
    """One schedule. Raises Broken; may end the process."""
    take(Maker(random.Random(seed)).schedule(), report)


# ---------------------------------------------------------------- processes


def in_a_process(seed: int, schedules: int) -> str:
    """So many schedules in a process of their own; its report. Raises Broken, with the seed, where it fails or dies."""
    command = [sys.executable, __file__, "--here", "--seed", str(seed), "--schedules", str(schedules)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        last = next((line for line in reversed(done.stdout.splitlines()) if line.isdigit()), "none")
        raise Broken(f"seed {last}: the process ended with {done.returncode}\n{done.stderr[-3000:]}")
    return done.stdout.splitlines()[-1]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--schedules", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=1, help="of the first; the others follow")
    parser.add_argument("--here", action="store_true", help="in this process, which may end")
    args = parser.parse_args(arguments)
    if not args.here:
        for start in range(0, args.schedules, 1000):
            print(in_a_process(args.seed + start, min(1000, args.schedules - start)), flush=True)
        return 0
    report = Report()
    for seed in range(args.seed, args.seed + args.schedules):
        print(seed, flush=True)
        run(seed, report)
    taken = f"{report.taken:,} of {report.updates:,} updates taken"
    longest = f"longest {report.seconds * 1000:.0f} ms, {report.beyond:.0%} of what may be"
    print(f"{args.schedules:,} schedules from seed {args.seed}: {taken}; {longest}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
