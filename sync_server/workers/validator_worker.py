"""A process that holds documents and checks records that are to be added:
``python -m sync_server.workers.validator_worker BYTES RECORD SECONDS``.

It reads batches of orders and answers each with a batch of answers, both as pieces (pieces.py). A stranger's bytes
reach the CRDT core here, and only here and in the folds: should it crash, hang or eat memory, the relay starts another,
which gets the documents from the log again.

order   = name, document, count, count × bytes
answer  = state, reason, count, count × bytes          state: "ok", "bad", "gone", "broken" (bad, and now gone), or
                                                       "which" (one of several is bad; gone: ask for each alone)

load    updates of the log, more to come          check   records -> how many are good, as a decimal number
loaded  the last of them; now it is held          glance  records, on an empty document -> as check
heal    as load, but some updates are bad         merge   one update -> what the document emitted, cut to records
healed  the last of those                         cover   one update that must say nothing new
drop    hold it no longer                         diff    a version -> what lies beyond it, the document's own version
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence

from llmcrdt.crdt.yjs.compact import begin, load_all
from llmcrdt.crdt.yjs.replica import YjsReplica
from llmcrdt.crdt.yjs.split import split_update
from llmcrdt.crdt.yjs.update import read_update
from llmcrdt.exceptions import MalformedUpdate

from . import framing as pieces
from . import process

NOTHING = b"\x00\x00"
"""The update that says nothing; some client may send it as often as it likes."""


class _OneByOne(Exception):
    """The core refused one of several records, and doesn't say which."""


class ValidatorWorker:
    """``record``: the bytes of one record at most."""

    def __init__(self, record: int) -> None:
        self._record = record
        self._held: dict[bytes, YjsReplica] = {}
        self._loading: dict[bytes, YjsReplica] = {}
        self._healing: dict[bytes, list[bytes]] = {}
        self._orders: dict[bytes, Callable[[YjsReplica, Sequence[bytes]], Sequence[bytes]]] = {
            b"check": self._check, b"merge": self._merge, b"cover": self._cover, b"diff": self._diff,
        }  # fmt: skip

    def obey(self, order: bytes, document: bytes, data: Sequence[bytes]) -> list[bytes]:
        """The answer to one order."""
        match order:
            case b"drop":
                for held in (self._held, self._loading, self._healing):
                    held.pop(document, None)
                return _answer(b"ok")
            case b"load" | b"loaded":
                return self._load(document, data, order == b"loaded")
            case b"heal" | b"healed":
                self._healing.setdefault(document, []).extend(data)
                if order == b"healed":
                    self._held[document], _ = load_all(self._healing.pop(document))
                return _answer(b"ok")
        replica = YjsReplica(()) if order == b"glance" else self._held.get(document)
        if replica is None:
            return _answer(b"gone")
        try:
            return _answer(b"ok", b"", self._orders[b"check" if order == b"glance" else order](replica, data))
        except _OneByOne:
            self._held.pop(document, None)
            return _answer(b"which")
        except MalformedUpdate as error:
            state = b"bad"
            if replica.broken:
                self._held.pop(document, None)
                state = b"broken"
            good = [b"%d" % self._good] if order in (b"check", b"glance") else []
            return _answer(state, str(error).encode(), good)

    def _load(self, document: bytes, data: Sequence[bytes], last: bool) -> list[bytes]:
        replica, first = self._loading.get(document), document not in self._loading
        if replica is None:
            replica = self._loading[document] = YjsReplica(())
        try:
            if first and data:
                replica = self._loading[document] = begin(data[0], YjsReplica)
                data = data[1:]
            replica.load(None, data)
            if last:
                replica.snapshot()
        except MalformedUpdate as error:
            del self._loading[document]
            return _answer(b"bad", str(error).encode())
        if last:
            self._held[document] = self._loading.pop(document)
        return _answer(b"ok")

    def _check(self, replica: YjsReplica, data: Sequence[bytes]) -> Sequence[bytes]:
        self._good, wrong = 0, None
        read = []
        for record in data:
            try:
                read.append((record, read_update(record)))
            except MalformedUpdate as error:
                wrong = error
                break
        if read:
            try:
                replica.take_in(read)
            except MalformedUpdate:
                if len(read) > 1:
                    raise _OneByOne from None
                raise
        self._good = len(read)
        if wrong is not None:
            raise wrong
        return [b"%d" % self._good]

    def _merge(self, replica: YjsReplica, data: Sequence[bytes]) -> Sequence[bytes]:
        if data[0] == NOTHING:
            return []
        if len(data[0]) > self._record:
            split_update(data[0], self._record)  # refused before it is applied, where it can't be cut
        applied = replica.apply(data[0])
        return split_update(applied.update, self._record) if applied.news else []

    def _cover(self, replica: YjsReplica, data: Sequence[bytes]) -> Sequence[bytes]:
        if data[0] != NOTHING and replica.adds(data[0]):
            raise MalformedUpdate("Nothing may be added here.")
        return []

    def _diff(self, replica: YjsReplica, data: Sequence[bytes]) -> Sequence[bytes]:
        return [replica.diff(data[0]), replica.version()]


def _answer(state: bytes, reason: bytes = b"", data: Sequence[bytes] = ()) -> list[bytes]:
    return [state, reason, b"%d" % len(data), *data]


def orders(batch: Sequence[bytes]) -> Iterator[tuple[bytes, bytes, Sequence[bytes]]]:
    """(name, document, bytes) of each order."""
    at = 0
    while at < len(batch):
        name, document, count = batch[at : at + 3]
        stop = at + 3 + int(count)
        yield name, document, batch[at + 3 : stop]
        at = stop


def main() -> None:
    memory, record, seconds = (int(argument) for argument in sys.argv[1:])
    process.bound(memory)
    # Whatever is printed by accident must not get between the answers.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    keeper = ValidatorWorker(record)
    while True:
        batch = list(pieces.read(sys.stdin.buffer))
        process.allow(seconds + sum(map(len, batch)) / (1 << 20))
        pieces.write(answers, (piece for order in orders(batch) for piece in keeper.obey(*order)))


if __name__ == "__main__":
    sys.exit(process.serve(main))
