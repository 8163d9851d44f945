"""A process that holds documents and checks records that are to be added:
``python -m sync_server.workers.validator_worker MEMORY RECORD MILLISECONDS EACH HEAVY FILE``.

The arguments: bytes of memory, and of a record; processor time for an order, and more for each MiB of it, then the
system ends it; from how many estimated milliseconds on an order is heavy (0: none is); and the file that it shares with
the relay (process.Progress).

It reads batches of orders and answers each with a batch of answers, both as pieces (framing.py). A stranger's bytes
reach the CRDT core here, and only here and in compactions: should it crash, hang or eat memory, the relay starts
another, which gets the documents from the log again.

order   = name, kind, document, count, count × bytes
answer  = state, reason, count, count × bytes          state: see below

load    updates of the log, more to come          check   records -> how many are good, in digits, and a mark
loaded  the last of them; now it is held          merge   updates -> the same, and what the document emitted
heal    as load, but some updates are bad         cover   one update that must say nothing new
healed  the last of those                         diff    a version -> what lies beyond it, its own version and mark
drop    hold it no longer

ok      it is done                                part    so many records are good, the others were not looked at
bad     it can't be                               heavy   it would take long; nothing was done
broken  bad, and now the document is gone         later   nothing was done, for what came before took its time
gone    the document isn't held                   which   one of several is bad, and the document is gone: ask for each
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence

from llmcrdt.crdt.backend import Backend, ParsedUpdate, Replica
from llmcrdt.crdt.registry import backend, kinds
from llmcrdt.exceptions import MalformedUpdate

from ..memory import keep_what_is_there
from . import framing, process

_JOBS = frozenset({b"check", b"merge", b"cover", b"diff"})
_CUT = frozenset({b"check", b"merge"})
"""Orders that can be done in part."""
_UNDONE = frozenset({b"part", b"heavy", b"later"})


class _Heavy(Exception):
    """An order would take long."""


class _OneByOne(Exception):
    """The core refused one of several records, and doesn't say which."""


_TURN = 0.02
"""Seconds after which what is left of a batch is left for the next; and an order in it that can be cut, too."""
_TOGETHER = 0.01
"""Estimated seconds of records that are applied in one transaction, unless one takes longer."""


class _Held:
    """A document of a backend, and how many blocks it has at most."""

    def __init__(self, backend: Backend, replica: Replica) -> None:
        self.backend, self.replica, self.blocks = backend, replica, 0

    def count(self, updates: Sequence[bytes]) -> None:
        """Count the blocks of updates, as far as they can be told from these alone."""
        self.blocks += sum(self.backend.estimate_work(update, 0).blocks for update in updates)


class ValidatorWorker:
    """``record``: the bytes of one record at most; ``heavy``: an order that is estimated to take so many seconds isn't
    done (0: all are). ``clock`` tells the processor time."""

    def __init__(
        self,
        record: int,
        heavy: float = 0,
        progress: process.Progress | None = None,
        clock: Callable[[], float] = time.process_time,
    ) -> None:
        self._record, self._heavy, self._clock = record, heavy or float("inf"), clock
        self._progress = progress or process.Progress(-1)
        self._at = self._good = 0
        self._emitted: list[bytes] = []
        self._backends: dict[bytes, Backend] = {}
        self._held: dict[bytes, _Held] = {}
        self._loading: dict[bytes, _Held] = {}
        self._healing: dict[bytes, list[bytes]] = {}
        self._orders: dict[bytes, Callable[[_Held, Sequence[bytes]], Sequence[bytes]]] = {
            b"check": self._check, b"merge": self._merge, b"cover": self._cover, b"diff": self._diff,
        }  # fmt: skip

    def work(self, batch: Sequence[bytes], allow: Callable[[int], None] = lambda _: None) -> Iterator[bytes]:
        """The answers to a batch of orders. ``allow`` is told the bytes of each before it is done."""
        now = self._clock()
        end = float("inf")
        waiting: set[bytes] = set()
        for self._at, (order, kind, document, data) in enumerate(orders(batch)):
            self._progress.begin(self._at, 0, len(data))
            if order in _JOBS:
                # Slices of logs come first; they don't count.
                end = min(end, now + _TURN)
            if order in _JOBS and (document in waiting or now > end):
                # The messages of a peer about a document keep their order.
                answer = _answer(b"later")
            else:
                allow(sum(map(len, data)))
                answer = self.obey(order, kind, document, data)
            if answer[0] in _UNDONE:
                waiting.add(document)
            before, now = now, self._clock()
            self._progress.end(self._at, now - before)
            yield from answer

    def obey(self, order: bytes, kind: bytes, document: bytes, data: Sequence[bytes]) -> list[bytes]:
        """The answer to one order."""
        match order:
            case b"drop":
                for mine in (self._held, self._loading, self._healing):
                    mine.pop(document, None)
                return _answer(b"ok")
            case b"load" | b"loaded":
                return self._load(kind, document, data, order == b"loaded")
            case b"heal" | b"healed":
                self._healing.setdefault(document, []).extend(data)
                if order == b"healed":
                    updates, crdt = self._healing.pop(document), self._backend(kind)
                    held = self._held[document] = _Held(crdt, crdt.load_all(updates)[0])
                    held.count(updates)
                return _answer(b"ok")
        there = self._held.get(document)
        return _answer(b"gone") if there is None else self._look(order, document, there, data)

    def _look(self, order: bytes, document: bytes, held: _Held, data: Sequence[bytes]) -> list[bytes]:
        """The answer to an order about a document that is held."""
        try:
            done = self._orders[order](held, data)
            if order in _CUT and self._good < len(data):
                return _answer(b"part", b"", done)
            return _answer(b"ok", b"", done)
        except _OneByOne:
            self._held.pop(document, None)
            return _answer(b"which")
        except _Heavy:
            return _answer(b"heavy")
        except MalformedUpdate as error:
            state = b"bad"
            if held.replica.broken:
                self._held.pop(document, None)
                state = b"broken"
            return _answer(state, str(error).encode(), self._so_far(held) if order in _CUT else ())

    def load_backends(self) -> None:
        """Load the backends now, and the core of each, which comes with a replica: so no first record waits for it."""
        for kind in kinds():
            self._backend(kind.encode()).make_replica(())

    def _backend(self, kind: bytes) -> Backend:
        if kind not in self._backends:
            self._backends[kind] = backend(kind.decode())
        return self._backends[kind]

    def _load(self, kind: bytes, document: bytes, data: Sequence[bytes], last: bool) -> list[bytes]:
        held, first = self._loading.get(document), document not in self._loading
        if held is None:
            crdt = self._backend(kind)
            held = self._loading[document] = _Held(crdt, crdt.make_replica(()))
        try:
            held.count(data)
            if first and data:
                held.replica = held.backend.begin(data[0])
                data = data[1:]
            held.replica.load(None, data)
            if last:
                held.replica.snapshot()
        except MalformedUpdate as error:
            del self._loading[document]
            return _answer(b"bad", str(error).encode())
        if last:
            self._held[document] = self._loading.pop(document)
        return _answer(b"ok")

    def _check(self, held: _Held, data: Sequence[bytes]) -> Sequence[bytes]:
        return self._do_all(held, data, held.replica.apply_together)

    def _merge(self, held: _Held, data: Sequence[bytes]) -> Sequence[bytes]:
        """The same, and what the document emitted, cut to records."""

        def merge(read: Sequence[ParsedUpdate]) -> None:
            crdt, most = held.backend, self._record
            if len(read) == 1 and len(read[0].data) > most:
                crdt.split(read[0].data, most)  # refused before it is applied, where it can't be cut
            self._emitted += [piece for kept in held.replica.merge(read) for piece in crdt.split(kept, most)]

        return self._do_all(held, data, merge, self._record // 2)

    def _so_far(self, held: _Held) -> list[bytes]:
        return [b"%d" % self._good, _mark(held), *self._emitted]

    def _do_all(
        self,
        held: _Held,
        data: Sequence[bytes],
        act: Callable[[Sequence[ParsedUpdate]], None],
        most: float = float("inf"),
    ) -> Sequence[bytes]:
        """As many updates as a turn has room for, in as few transactions as their work allows, of so many bytes at
        most."""
        self._good, self._emitted, began = 0, [], self._clock()
        while self._good < len(data) and (not self._good or self._clock() - began < _TURN):
            if not self._do_some(held, data, act, most):
                break
        return self._so_far(held)

    def _do_some(
        self, held: _Held, data: Sequence[bytes], act: Callable[[Sequence[ParsedUpdate]], None], most: float
    ) -> bool:
        """The next updates that are applied together. False where the first of them is heavy."""
        read: list[ParsedUpdate] = []
        crdt = held.backend
        wrong, seconds, size, first, records = None, 0.0, 0, self._good, 0
        while first + records < len(data):
            update, count = crdt.join(data, first + records, most)
            work = crdt.estimate_work(update, held.blocks)
            seconds, size = seconds + work.seconds, size + len(update)
            if work.seconds > self._heavy and not read:
                if not first:
                    raise _Heavy
                return False
            if read and (seconds > _TOGETHER or size > most):
                break
            try:
                read.append(crdt.read(update))
            except MalformedUpdate as error:
                wrong = error
                break
            held.blocks += work.blocks
            records += count
        if read:
            self._progress.begin(self._at, first, records)
            try:
                act(read)
            except MalformedUpdate:
                if records > 1:
                    raise _OneByOne from None
                raise
        self._good += records
        if wrong is not None:
            raise wrong
        return True

    def _cover(self, held: _Held, data: Sequence[bytes]) -> Sequence[bytes]:
        (update,) = data
        if update == held.backend.empty:  # some client may send it as often as it likes
            return []
        self._weigh(held, update)
        if held.replica.adds(update):
            raise MalformedUpdate("Nothing may be added here.")
        return []

    def _diff(self, held: _Held, data: Sequence[bytes]) -> Sequence[bytes]:
        return [held.backend.reply(held.replica, data[0]), held.replica.version(), _mark(held)]

    def _weigh(self, held: _Held, update: bytes) -> None:
        """Count what an update adds. Raises _Heavy where it would take long."""
        work = held.backend.estimate_work(update, held.blocks)
        if work.seconds > self._heavy:
            raise _Heavy
        held.blocks += work.blocks


def _mark(held: _Held) -> bytes:
    try:
        return b"" if held.replica.broken else held.backend.mark(held.replica)
    except MalformedUpdate:
        return b""


def _answer(state: bytes, reason: bytes = b"", data: Sequence[bytes] = ()) -> list[bytes]:
    return [state, reason, b"%d" % len(data), *data]


def orders(batch: Sequence[bytes]) -> Iterator[tuple[bytes, bytes, bytes, Sequence[bytes]]]:
    """(name, kind, document, bytes) of each order."""
    at = 0
    while at < len(batch):
        name, kind, document, count = batch[at : at + 4]
        stop = at + 4 + int(count)
        yield name, kind, document, batch[at + 4 : stop]
        at = stop


def prepare() -> None:
    """Load the backends, for the workers that are forked from this process."""
    ValidatorWorker(0).load_backends()


def main() -> None:
    memory, record, milliseconds, each, heavy, file = (int(argument) for argument in sys.argv[1:7])
    process.bound(memory, nice=0 if heavy else 10)
    # Text that is printed by accident must not get between the answers.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    worker = ValidatorWorker(record, heavy / 1000, process.Progress(file))
    worker.load_backends()
    keep_what_is_there()

    def allow(size: int) -> None:
        process.allow((milliseconds + each * size / (1 << 20)) / 1000)

    while True:
        framing.write(answers, worker.work(list(framing.read(sys.stdin.buffer)), allow))


if __name__ == "__main__":
    sys.exit(process.serve(main))
