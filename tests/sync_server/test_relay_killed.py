"""kill -9 in the middle of writing: nothing that was acknowledged is lost, and nothing is there twice."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
from pathlib import Path

from websockets.exceptions import ConnectionClosed, InvalidHandshake
from websockets.sync.client import connect
from websockets.typing import Subprotocol

from llmcrdt.sync import wire
from llmcrdt.sync.wire import Ack, Hello, Open, Opened, Push, Records

ROUNDS = 20
WRITERS = 3
DOCUMENTS = [bytes([n]) * 16 for n in range(2)]


class Writer(threading.Thread):
    """Pushes records, without waiting for acks, until the relay is gone; starts again where the acks ended."""

    def __init__(self, number: int, url: str, n: dict[bytes, int]) -> None:
        super().__init__(daemon=True)
        self.session, self.url, self.n = bytes([100 + number]) * 16, url, n
        self.acked: dict[bytes, dict[int, int]] = {d: {} for d in DOCUMENTS}

    def data(self, document: bytes, n: int) -> bytes:
        return b"%s %s %d " % (document[:1], self.session[:1], n) * (1 + n % 50)

    def run(self) -> None:
        try:
            with connect(
                self.url + "/sync", subprotocols=[Subprotocol(wire.SUBPROTOCOL)], compression=None, proxy=None
            ) as ws:
                ws.send(wire.encode(Hello()))
                for document in DOCUMENTS:
                    ws.send(wire.encode(Open(document, "yjs")))
                listener = threading.Thread(target=self.listen, args=(ws,), daemon=True)
                listener.start()
                sent = dict(self.n)
                while listener.is_alive():
                    for document in DOCUMENTS:
                        # A little ahead of the acks, so that the relay always has something half done.
                        if sent[document] < self.n[document] + 40:
                            count = 1 + sent[document] % 3
                            first = sent[document] + 1
                            data = tuple(self.data(document, first + i) for i in range(count))
                            ws.send(wire.encode(Push(document, self.session, first, data)))
                            sent[document] += count
        except (ConnectionClosed, InvalidHandshake, OSError, EOFError):
            return

    def listen(self, ws: object) -> None:
        try:
            for frame in ws:  # type: ignore[attr-defined]
                message = wire.decode(frame)
                if isinstance(message, Ack):
                    for i in range(message.count):
                        self.acked[message.document][message.n + i] = message.position + i
                    self.n[message.document] = max(self.n[message.document], message.n + message.count - 1)
        except (ConnectionClosed, OSError):
            return


def start(data: Path) -> tuple[subprocess.Popen[str], str]:
    # These records are no Yjs updates, and every one of them is asked for at the end: nothing is folded here.
    command = [sys.executable, "-m", "sync_server", "--port", "0", "--data", str(data), "--limit", "fold=1000000000"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    assert child.stdout
    return child, child.stdout.readline().split()[-1]


def read_all(url: str, document: bytes) -> list[tuple[bytes, int, bytes]]:
    with connect(
        url + "/sync",
        subprotocols=[Subprotocol(wire.SUBPROTOCOL)],
        compression=None,
        proxy=None,
        max_size=wire.MAX_FRAME,
    ) as ws:
        for message in (Hello(), Open(document, "yjs")):
            ws.send(wire.encode(message))
        records: list[tuple[bytes, int, bytes]] = []
        while True:
            message = wire.decode(ws.recv(timeout=20))
            if isinstance(message, Opened):
                head = message.head.position
                if head == 0:
                    return []
            elif isinstance(message, Records):
                records += message.records
                if len(records) >= head:
                    return records


def test_nothing_acknowledged_is_lost_or_doubled(tmp_path: Path) -> None:
    rng = random.Random(7)
    n = [dict.fromkeys(DOCUMENTS, 0) for _ in range(WRITERS)]
    acked: dict[tuple[bytes, bytes, int], int] = {}
    child, url = start(tmp_path)
    try:
        for _ in range(ROUNDS):
            writers = [Writer(i, url, n[i]) for i in range(WRITERS)]
            for writer in writers:
                writer.start()
            enough = len(acked) + rng.randrange(20, 400)
            while len(acked) < enough and any(w.is_alive() for w in writers):
                writers[0].join(0.005)
                acked.update(
                    {(d, w.session, k): p for w in writers for d in DOCUMENTS for k, p in list(w.acked[d].items())}
                )
            child.kill()
            child.communicate()
            for writer in writers:
                writer.join(20)
            acked.update({(d, w.session, k): p for w in writers for d in DOCUMENTS for k, p in w.acked[d].items()})
            child, url = start(tmp_path)
        assert len(acked) >= ROUNDS * 20
        for document in DOCUMENTS:
            records = read_all(url, document)
            names = [(session, k) for session, k, _ in records]
            assert len(set(names)) == len(names)
            for (d, session, k), position in acked.items():
                if d == document:
                    assert records[position - 1][:2] == (session, k)
            for writer in writers:
                ours = [(k, data) for session, k, data in records if session == writer.session]
                assert ours == [(k, writer.data(document, k)) for k in range(1, len(ours) + 1)]
    finally:
        child.kill()
        child.communicate()
