"""A relay whose machine's power fails: what it sent, and what must be in its log afterwards."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
sys.path.append(str(Path(__file__).parents[2]))

import pycrdt
from power_recording import Event, Recorder
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Subprotocol

from llmcrdt.exceptions import MalformedUpdate
from llmcrdt.sync import codec
from llmcrdt.sync.messages import (
    DELETE_DONE,
    FOLD_DONE,
    MAX_FRAME,
    SUBPROTOCOL,
    Ack,
    Delete,
    Deleted,
    Fold,
    Folded,
    Hello,
    Message,
    Open,
    Push,
    Record,
    Records,
)
from sync_server.log import operator
from sync_server.log.base import Origin
from sync_server.log.file import DATABASE
from sync_server.log.sqlite import SqliteStorage
from sync_server.thread import RelayThread

DATA = "var/relay"
"""The relay's folder, which it makes itself."""
SESSIONS = [bytes([100 + n]) * 16 for n in range(3)]
_LIMITS = ("compaction_bytes=6000", "compaction_tail=1000")
_DOCUMENTS = 4
_SIZES = (1, 1, 1, 10, 200)


def kind_of(document: bytes) -> str:
    """Every other document is one that the relay looks into and compacts."""
    return "yjs" if document[0] % 2 else "opaque"


@dataclass
class Wire:
    """All that a relay sent to one peer: the answer to its upgrade, then frames."""

    left: bytes = b""
    upgraded: bool = False

    def take(self, data: bytes) -> Iterator[Message]:
        self.left += data
        if not self.upgraded and b"\r\n\r\n" in self.left:
            self.upgraded, self.left = True, self.left.partition(b"\r\n\r\n")[2]
        while self.upgraded and len(self.left) >= 2:
            size, head = self.left[1], 2
            if size >= 126:
                wide = 2 if size == 126 else 8
                size, head = int.from_bytes(self.left[2 : 2 + wide], "big"), 2 + wide
            if len(self.left) < head + size:
                return
            opcode, frame = self.left[0], self.left[head : head + size]
            self.left = self.left[head + size :]
            if opcode == 0x82:
                with suppress(MalformedUpdate):
                    yield codec.decode(frame)


@dataclass
class Promised:
    """All that the relay sent: to writers that a record is on disk, to readers the records themselves; names and
    positions, and the bytes of each name."""

    positions: dict[tuple[bytes, int], tuple[bytes, int]] = field(default_factory=dict)
    deleted: set[bytes] = field(default_factory=set)
    _wires: dict[tuple[int, int], Wire] = field(default_factory=dict)
    _offered: dict[int, bytes] = field(default_factory=dict)

    def take(self, event: Event) -> None:
        if event.kind == "S":
            self._offered[event.process] = event.data
        elif event.kind == "s" and event.at > 0:
            data = self._offered[event.process][: event.at]
            if data.startswith(b"HTTP/1.1 "):
                self._wires.pop((event.process, event.file), None)
            for message in self._wires.setdefault((event.process, event.file), Wire()).take(data):
                self._take(message)

    def _take(self, message: Message) -> None:
        match message:
            case Ack(document, session, n, count, position):
                for at in range(count):
                    self.positions[document, position + at] = (session, n + at)
            case Records(document, position, records):
                for at, record in enumerate(records):
                    self.positions[document, position + at] = (record.session, record.n)
            case Deleted(document, outcome):
                assert outcome == DELETE_DONE
                self.deleted.add(document)
            case Folded(document, outcome):
                assert outcome == FOLD_DONE or kind_of(document) != "yjs"


@dataclass
class Load:
    """All that was pushed, by document, session and n; and what was asked to be deleted."""

    data: dict[tuple[bytes, bytes, int], bytes] = field(default_factory=dict)
    doomed: set[bytes] = field(default_factory=set)


class _Writer:
    """One connection that pushes in one session, and reads what it is sent."""

    def __init__(self, socket: ClientConnection, session: bytes, load: Load, docs: dict[bytes, pycrdt.Doc]) -> None:
        self._socket, self._session, self._load, self._docs = socket, session, load, docs
        self._opened: set[bytes] = set()
        self._waits = 0
        self._socket.send(codec.encode(Hello()))

    def open(self, document: bytes) -> None:
        if document not in self._opened:
            self._opened.add(document)
            self._socket.send(codec.encode(Open(document, kind_of(document))))

    def push(self, document: bytes, n: int, rng: random.Random) -> int:
        """Push some records; the n of the next one."""
        self.open(document)
        count = rng.choice((1, 1, 2, 5))
        data = [self._data(document, n + at, rng) for at in range(count)]
        self._load.data |= {(document, self._session, n + at): piece for at, piece in enumerate(data)}
        self._socket.send(codec.encode(Push(document, self._session, n, data)))
        self._waits += count
        return n + count

    def _data(self, document: bytes, n: int, rng: random.Random) -> bytes:
        text = f"{document[0]} {self._session[0]} {n} " * rng.choice(_SIZES)
        if kind_of(document) != "yjs":
            return text.encode()
        doc = self._docs.setdefault(document, pycrdt.Doc())
        before = doc.get_state()
        doc.get("words", type=pycrdt.Map)[name(self._session, n)] = text
        return doc.get_update(before)

    def ask(self, message: Fold | Delete) -> None:
        self.open(message.document)
        self._socket.send(codec.encode(message))
        while not isinstance(answer := self._next(), Folded | Deleted) or answer.document != message.document:
            pass

    def drain(self) -> None:
        """Until everything pushed is acknowledged."""
        while self._waits:
            self._next()

    def _next(self) -> Message:
        message = codec.decode(self._socket.recv(timeout=60))
        if isinstance(message, Ack):
            self._waits -= message.count
        return message


def _connected(url: str) -> ClientConnection:
    return connect(
        url + "/sync", subprotocols=[Subprotocol(SUBPROTOCOL)], compression=None, proxy=None, max_size=MAX_FRAME
    )


def name(session: bytes, n: int) -> str:
    return f"{session[0]}-{n}"


def start(recorder: Recorder) -> tuple[subprocess.Popen[str], str]:
    limits = [word for limit in _LIMITS for word in ("--limit", limit)]
    command = [sys.executable, "-m", "sync_server", "--port", "0", "--data", str(recorder.root / DATA), *limits]
    environment = recorder.environment(sockets=True)
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment)
    assert child.stdout
    return child, child.stdout.readline().split()[-1]


def record(recorder: Recorder, seed: int, steps: int) -> tuple[Sequence[Event], Load]:
    """A relay that is stopped or killed now and then, and its writers."""
    rng, load = random.Random(seed), Load()
    docs: dict[int, dict[bytes, pycrdt.Doc]] = {}
    documents = [bytes([n]) * 16 for n in range(_DOCUMENTS)]
    done = 0
    ns: dict[tuple[int, bytes], int] = {}
    while done < steps:
        child, url = start(recorder)
        with ExitStack() as stack:
            stack.callback(child.communicate)
            stack.callback(child.send_signal, rng.choice((signal.SIGTERM, signal.SIGKILL)))
            writers = [
                _Writer(stack.enter_context(_connected(url)), session, load, docs.setdefault(at, {}))
                for at, session in enumerate(SESSIONS)
            ]
            for _ in range(rng.randint(20, 80)):
                done += 1
                at, document = rng.randrange(len(writers)), rng.choice(documents)
                ns[at, document] = writers[at].push(document, ns.get((at, document), 1), rng)
                if rng.random() < 0.3:
                    writers[at].drain()
                if rng.random() < 0.05:
                    writers[at].ask(Fold(document))
                if rng.random() < 0.04:
                    for writer in writers:
                        writer.drain()
                    load.doomed.add(document)
                    writers[at].ask(Delete(document))
                    documents.remove(document)
                    documents.append(bytes([_DOCUMENTS + len(load.doomed)]) * 16)
            for writer in writers:
                writer.drain()
    return recorder.events(), load


def check(folder: Path, promised: Promised, load: Load, *, serve: bool = False) -> None:
    """All that was promised is there, and the log works on. ``serve``: under a relay, with its own checks. Raises
    AssertionError, or whatever the relay raises."""
    data = folder / DATA
    if not (data / DATABASE).exists():
        assert not promised.positions and not promised.deleted, "the log is there"
        data.mkdir(parents=True, exist_ok=True)
    ends: dict[bytes, int] = {}
    with closing(SqliteStorage(data / DATABASE)) as storage:
        _check_log(storage, promised, load)
        while storage.sweeper.sweep(512):
            pass
        for document in {document for document, _ in promised.positions} - load.doomed:
            ends[document] = storage.records.last(document, SESSIONS[0])
            n = ends[document] + 1
            origin = Origin(kind_of(document), b"l" * 16)
            if kind_of(document) != "yjs":
                storage.records.append(document, SESSIONS[0], n, [b"it works on"], origin)
                ends[document] = n
        assert storage.records.commit() == {}
    assert not operator.verify(data / DATABASE), "the log is what its hashes say"
    if serve:
        _serve(data, ends)
    with closing(SqliteStorage(data / DATABASE)) as storage:
        _check_log(storage, promised, load)
        for document, n in ends.items():
            assert storage.records.last(document, SESSIONS[0]) == n, "what came after that is there, too"


def _check_log(storage: SqliteStorage, promised: Promised, load: Load) -> None:
    words: dict[bytes, set[str]] = {}
    for (document, position), (session, n) in promised.positions.items():
        if document in promised.deleted or (document in load.doomed and storage.tombstones.is_deleted(document)):
            continue
        head = storage.records.head(document)
        assert head and head.cursor.position >= position, "what was acknowledged is there"
        assert storage.records.last(document, session) >= n
        for found in storage.records.read(document, position - 1, 1, 1)[:1]:
            if found.position == position:
                expected = Record(session, n, load.data[document, session, n])
                assert found.record == expected, "where the ack said, as it was sent"
        if kind_of(document) == "yjs":
            if document not in words:
                doc: pycrdt.Doc = pycrdt.Doc()
                for update in storage.snapshots.contents(document, head.cursor.position):
                    doc.apply_update(update)
                words[document] = set(doc.get("words", type=pycrdt.Map))
            assert name(session, n) in words[document], "also where a snapshot stands for it"
    for document in promised.deleted:
        assert storage.tombstones.is_deleted(document), "what was deleted is gone"
        assert storage.records.head(document) is None


def _serve(data: Path, ends: dict[bytes, int]) -> None:
    with RelayThread(data) as relay, _connected(relay.url) as socket:
        writer = _Writer(socket, SESSIONS[0], Load(), {})
        for document, last in tuple(ends.items()):
            ends[document] = writer.push(document, last + 1, random.Random(0)) - 1
        writer.drain()
