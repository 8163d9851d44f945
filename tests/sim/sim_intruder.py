"""A client without a repo, which pushes what it likes into a document: sound records among bad ones."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

import pycrdt
from sim_network import Clock, Wire
from sim_relay import RelayProcess
from sim_validator import DEADLY, PANIC

from llmcrdt.sync import codec
from llmcrdt.sync.messages import Error, ErrorCode, Hello, Message, Open, Opened, Push
from tests.sync_server.hostile_updates import UPDATES

_BAD = tuple(UPDATES.values())


def says(rng: Random, text: bytes) -> bytes:
    """A sound update that depends on no other."""
    doc: pycrdt.Doc = pycrdt.Doc(client_id=rng.getrandbits(31))  # type: ignore[type-arg]
    doc.get("intruder", type=pycrdt.Map)[rng.randbytes(4).hex()] = text.decode()
    return bytes(doc.get_update())


def records(rng: Random, number: int) -> tuple[list[bytes], set[bytes]]:
    """Some records to push, and which of them are bad: bytes that are no update, that make the CRDT core panic, or that
    kill whoever looks at them."""
    data: list[bytes] = []
    bad: set[bytes] = set()
    for n in range(rng.randint(1, 5)):
        text = b"%d.%d" % (number, n)
        match rng.randrange(6):
            case 0:
                found = rng.choice(_BAD)
            case 1:
                found = says(rng, DEADLY + text)
            case 2:
                found = says(rng, PANIC + text)
            case _:
                data.append(says(rng, text))
                continue
        data.append(found)
        bad.add(found)
    return data, bad


class Intruder:
    """One connection. It leaves out what is refused, and goes on with the rest in a new session."""

    def __init__(
        self, clock: Clock, rng: Random, relay: RelayProcess, document: bytes, data: Sequence[bytes], bad: set[bytes]
    ) -> None:
        self.rng, self.document, self.bad = rng, document, bad
        self._waiting = list(data)
        self._session = b""
        self._pushed: dict[bytes, tuple[bytes, ...]] = {}
        self.wire = Wire(clock, rng, self, relay)
        self._say(Hello("intruder"), Open(document, "yjs"))
        clock.after(rng.uniform(1, 30), lambda: self.wire.cut(client_after=0, relay_after=0))

    def _say(self, *messages: Message) -> None:
        for message in messages:
            self.wire.send_up(codec.encode(message))

    def arrived(self, frame: bytes) -> None:
        message = codec.decode(frame)
        match message:
            case Opened():
                self._push()
            case Error(ErrorCode.BAD_RECORD, session=session, n=n):
                data = self._pushed[session or b""]
                assert data[n - 1] in self.bad, "a record is refused only where something is wrong with it"
                if session == self._session:
                    self._waiting = list(data[n:])
                    self._push()
            case Error(ErrorCode.GAP, session=session):
                assert session != self._session, "only what stood behind a bad record is not the next"
            case Error(code, document=document):
                assert document is None or code == ErrorCode.GONE, message

    def _push(self) -> None:
        self._session = self.rng.randbytes(16)
        self._pushed[self._session] = tuple(self._waiting)
        n = 1
        while self._waiting:
            some = self._waiting[: self.rng.randint(1, 3)]
            del self._waiting[: len(some)]
            self._say(Push(self.document, self._session, n, tuple(some)))
            n += len(some)

    def closed(self, wire_: Wire) -> None:
        pass
