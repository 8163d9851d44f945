"""kill -9 of relays and of clients at random moments under load: nothing acknowledged is lost, nothing is there twice.

    python tests/sync_server/relay_kills.py --kills 300 --seed 1

Half of the kills hit a relay that clients push to without waiting, one acknowledged record after the other noted. The
other half hit clients, now and then the relay too: repos in processes of their own, two of them on one file, that
write and sync; now and then the relay's data is put back to an old copy under them.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path

from websockets.exceptions import ConnectionClosed, InvalidHandshake
from websockets.sync.client import connect
from websockets.typing import Subprotocol

sys.path.append(str(Path(__file__).parents[2]))

import llmcrdt
from llmcrdt.sync import wire
from llmcrdt.sync.wire import Ack, Hello, Open, Opened, Push, Records

WRITERS = 3
# Not a kind that the relay looks into: every record is asked for at the end, as it was sent.
KIND = "opaque"
ROOT = Path(__file__).parents[2]
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
                    ws.send(wire.encode(Open(document, KIND)))
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


def start(data: Path, port: int = 0, *more: str) -> tuple[subprocess.Popen[str], str]:
    """A relay, and its address."""
    command = [sys.executable, "-m", "sync_server", "--port", str(port), "--data", str(data), *more]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
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
        for message in (Hello(), Open(document, KIND)):
            ws.send(wire.encode(message))
        records: list[tuple[bytes, int, bytes]] = []
        while True:
            message = wire.decode(ws.recv(timeout=120))
            if isinstance(message, Opened):
                head = message.head.position
                if head == 0:
                    return []
            elif isinstance(message, Records):
                records += message.records
                if len(records) >= head:
                    return records


def kill_relay(kills: int, seed: int, folder: Path) -> str:
    """Kill a relay so often while clients push to it; what was acknowledged is in its log, once, as it was sent."""
    rng = random.Random(seed)
    n = [dict.fromkeys(DOCUMENTS, 0) for _ in range(WRITERS)]
    acked: dict[tuple[bytes, bytes, int], int] = {}
    child, url = start(folder)
    try:
        for _ in range(kills):
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
                writer.join(120)
            acked.update({(d, w.session, k): p for w in writers for d in DOCUMENTS for k, p in w.acked[d].items()})
            child, url = start(folder)
        assert len(acked) >= kills * 20
        for document in DOCUMENTS:
            records = read_all(url, document)
            names = [(session, k) for session, k, _ in records]
            assert len(set(names)) == len(names), "no record is there twice"
            for (d, session, k), position in acked.items():
                if d == document:
                    assert records[position - 1][:2] == (session, k), "what was acknowledged is where the ack said"
            for writer in writers:
                ours = [(k, data) for session, k, data in records if session == writer.session]
                assert ours == [(k, writer.data(document, k)) for k in range(1, len(ours) + 1)]
    finally:
        child.kill()
        child.communicate()
    return f"{kills} kills of the relay, seed {seed}: {len(acked):,} acknowledged records are there, none twice"


# ---------------------------------------------------------------- clients


_CLIENT = """
import sys, time, llmcrdt
path, library, conversation, url, name = sys.argv[1:]
repo = llmcrdt.open(path, library)
conv = repo.join(conversation)
print("ready", flush=True)
with repo.connect(url) as link:
    n = 0
    while True:
        n += 1
        conv.append("user", f"{name}-{n}")
        print("said", f"{name}-{n}", flush=True)
        if n % 5 == 0:
            said = n
            try:
                link.wait_synced(5)
                print("synced", *(f"{name}-{i}" for i in range(1, said + 1)), flush=True)
            except llmcrdt.SyncError:
                pass
        time.sleep(0.002)
"""


class Client:
    """A process that writes into a repo and syncs it, started again whenever it was killed."""

    def __init__(self, number: int, path: Path, library: str, conversation: str) -> None:
        self.number, self.path, self.ids = number, path, (library, conversation)
        self.said: set[str] = set()
        self.synced: set[str] = set()
        self._starts = 0

    def start(self, url: str) -> None:
        self._starts += 1
        command = [sys.executable, "-c", _CLIENT, str(self.path), *self.ids, url, f"c{self.number}.{self._starts}"]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment
        )
        assert self.process.stdout
        assert self.process.stdout.readline() == "ready\n"
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout
        for line in self.process.stdout:
            what, *words = line.split()
            if line.endswith("\n") and what in ("said", "synced"):
                (self.said if what == "said" else self.synced).update(words)

    def kill(self) -> None:
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self._reader.join(120)
        self.process.stdout.close()  # type: ignore[union-attr]


def kill_clients(kills: int, seed: int, folder: Path) -> str:
    """Kill clients and their relay so often; what a client said is in its file, what it synced is on the relay, unless
    that was put back to an old copy: then it is there again once everybody is connected."""
    rng = random.Random(seed)
    limits = ("--limit", "fold=20000", "--limit", "fold_tail=4000")
    relay, url = start(folder / "relay", 0, *limits)
    port = int(url.rpartition(":")[2])
    with llmcrdt.open(folder / "first.db") as repo:
        library, conversation = repo.library, repo.create("under load").id
    paths = [folder / name for name in ("first.db", "first.db", "second.db", "third.db")]
    clients = [Client(i, path, library, conversation) for i, path in enumerate(paths)]
    of_relay = rollbacks = 0
    try:
        for client in clients:
            client.start(url)
        for killed in range(kills):
            time.sleep(rng.uniform(0, 0.5))
            if rng.random() < 0.2:
                relay.kill()
                relay.communicate()
                of_relay += 1
                if killed % 10 == 9 and (folder / "copy").exists():
                    shutil.rmtree(folder / "relay")
                    shutil.move(folder / "copy", folder / "relay")
                    rollbacks += 1
                elif not (folder / "copy").exists():
                    shutil.copytree(folder / "relay", folder / "copy")
                relay, url = start(folder / "relay", port, *limits)
            else:
                client = rng.choice(clients)
                client.kill()
                client.start(url)
        for client in clients:
            client.kill()
        said = set().union(*(client.said for client in clients))
        synced = set().union(*(client.synced for client in clients))
        if not rollbacks:
            _check(folder / "before.db", library, conversation, url, synced)
        for path in sorted({client.path for client in clients}):
            _check(path, library, conversation, url, {w for c in clients if c.path == path for w in c.said})
        _check(folder / "fresh.db", library, conversation, url, said)
        assert synced <= said and synced
    finally:
        for client in clients:
            with suppress(AttributeError, ProcessLookupError):
                client.process.kill()
                client.process.wait()
        relay.kill()
        relay.communicate()
    told = f"{len(said):,} entries, {len(synced):,} of them synced, are there, none twice"
    return f"{kills} kills ({of_relay} of the relay, {rollbacks} put back), seed {seed}: {told}"


def _check(path: Path, library: str, conversation: str, url: str, words: set[str]) -> None:
    """A repo has these entries, each once, before it is synced if it is one that was there, and after."""
    with llmcrdt.open(path, library) as repo:
        conv = repo.join(conversation)
        before = [entry.text for entry in conv.transcript()]
        assert path.stem in ("before", "fresh") or words <= set(before), "what was said is on the disk"
        with repo.connect(url) as link:
            link.wait_synced(120)
        texts = [entry.text for entry in conv.transcript()]
        assert words <= set(texts), "what was synced is there"
        assert len(texts) == len(set(texts)), "no entry is there twice"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=300)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args(arguments)
    for kill in (kill_relay, kill_clients):
        with tempfile.TemporaryDirectory() as folder:
            print(kill(args.kills // 2, args.seed, Path(folder)), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
