"""kill -9 of relays and of clients at random moments under load: nothing acknowledged is lost, nothing is there twice.

    python tests/sync_server/relay_kills.py --kills 300 --rollbacks 20 --seed 1

Half of the kills hit a relay that clients push to without waiting, one acknowledged record after the other noted. The
other half hit clients, now and then the relay too: repos in processes of their own, two of them on one file, that
write, delete and sync; now and then the relay's data is put back to an old copy under them. The rollbacks do that each
time, to a copy that was made while the relay ran, and clients write on all the while.
"""

from __future__ import annotations

import argparse
import logging
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from websockets.exceptions import ConnectionClosed, InvalidHandshake
from websockets.sync.client import connect
from websockets.typing import Subprotocol

sys.path.append(str(Path(__file__).parents[2]))

import llmcrdt
from llmcrdt.exceptions import RelayRefused
from llmcrdt.ids import document_bytes
from llmcrdt.sync import codec
from llmcrdt.sync.messages import MAX_FRAME, SUBPROTOCOL, Ack, ErrorCode, Hello, Open, Opened, Push, Records

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
                self.url + "/sync", subprotocols=[Subprotocol(SUBPROTOCOL)], compression=None, proxy=None
            ) as ws:
                ws.send(codec.encode(Hello()))
                for document in DOCUMENTS:
                    ws.send(codec.encode(Open(document, KIND)))
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
                            ws.send(codec.encode(Push(document, self.session, first, data)))
                            sent[document] += count
        except (ConnectionClosed, InvalidHandshake, OSError, EOFError):
            return

    def listen(self, ws: object) -> None:
        try:
            for frame in ws:  # type: ignore[attr-defined]
                message = codec.decode(frame)
                if isinstance(message, Ack):
                    for i in range(message.count):
                        self.acked[message.document][message.n + i] = message.position + i
                    self.n[message.document] = max(self.n[message.document], message.n + message.count - 1)
        except (ConnectionClosed, OSError):
            return


def start(data: Path, port: int = 0, *more: str) -> tuple[subprocess.Popen[str], str]:
    """A relay, and its address."""
    command = [sys.executable, "-m", "sync_server", "--port", str(port), "--data", str(data), *more]
    paths = filter(None, (str(ROOT), os.environ.get("PYTHONPATH")))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    assert child.stdout
    return child, child.stdout.readline().split()[-1]


def read_all(url: str, document: bytes) -> list[tuple[bytes, int, bytes]]:
    with connect(
        url + "/sync",
        subprotocols=[Subprotocol(SUBPROTOCOL)],
        compression=None,
        proxy=None,
        max_size=MAX_FRAME,
    ) as ws:
        for message in (Hello(), Open(document, KIND)):
            ws.send(codec.encode(message))
        records: list[tuple[bytes, int, bytes]] = []
        while True:
            message = codec.decode(ws.recv(timeout=120))
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
        for _ in told(kills, "kills of relays"):
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
        if n % 40 == 20:
            doomed = repo.create("doomed")
            doomed.append("user", f"{name}-{n}-doomed")
            print("created", doomed.id, flush=True)
        if n % 40 == 0:
            print("deletes", doomed.id, flush=True)
            repo.delete(doomed.id)
            print("deleted", doomed.id, flush=True)
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
        self.created: set[str] = set()
        self.deletes: set[str] = set()
        self.deleted: set[str] = set()
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
            if line.endswith("\n"):
                getattr(self, what).update(words)

    def kill(self) -> None:
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self._reader.join(120)
        self.process.stdout.close()  # type: ignore[union-attr]


def union(clients: Sequence[Client], what: str) -> set[str]:
    return set().union(*(getattr(client, what) for client in clients))


class Load:
    """A relay and four clients that write and sync, two of them on one file."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.data = folder, folder / "relay"
        self._limits = ("--limit", "compaction_bytes=20000", "--limit", "compaction_tail=4000")
        self.relay, self.url = start(self.data, 0, *self._limits)
        with llmcrdt.open(folder / "first.db") as repo:
            self.library, self.conversation = repo.library, repo.create("under load").id
        paths = [folder / name for name in ("first.db", "first.db", "second.db", "third.db")]
        self.clients = [Client(i, path, self.library, self.conversation) for i, path in enumerate(paths)]

    def __enter__(self) -> Load:
        for client in self.clients:
            client.start(self.url)
        return self

    def __exit__(self, *_: object) -> None:
        for client in self.clients:
            with suppress(AttributeError, ProcessLookupError):
                client.process.kill()
                client.process.wait()
        self.kill_relay()

    def kill_relay(self) -> None:
        assert self.relay.stdout
        self.relay.kill()
        self.relay.wait()
        self.relay.stdout.close()

    def start_relay(self) -> None:
        """Again, at the same address."""
        self.relay, self.url = start(self.data, int(self.url.rpartition(":")[2]), *self._limits)

    def all(self, what: str) -> set[str]:
        """All that clients said they did."""
        return union(self.clients, what)

    def check(self, *, rolled_back: bool) -> str:
        """The clients are killed. Each one's word is in its file, and everything everywhere once all are in step, also
        on a device that has nothing yet; what was deleted is nowhere."""
        for client in self.clients:
            client.kill()
        if not rolled_back:
            self._check(self.folder / "before.db", self.all("synced"), set())
        paths = sorted({client.path for client in self.clients})
        for path in paths:
            here = [client for client in self.clients if client.path == path]
            self._check(path, union(here, "said"), union(here, "deleted"), on_disk=True)
        for path in [*paths, self.folder / "fresh.db"]:
            self._check(path, self.all("said"), self.all("deleted"))
        assert self.all("synced") and self.all("synced") <= self.all("said")
        self.kill_relay()
        with sqlite3.connect(self.data / "relay.db") as db:
            for document in self.all("deleted"):
                found = db.execute("SELECT gone FROM documents WHERE id = ?", [document_bytes(document)]).fetchall()
                assert found in ([(2,)], [(3,)]), f"what was deleted has a tombstone at the relay: {found}"
        db.close()
        said, synced, deleted = (len(self.all(what)) for what in ("said", "synced", "deleted"))
        return f"{said:,} entries, {synced:,} of them synced, are there, none twice; {deleted:,} deletions held"

    def _check(self, path: Path, words: set[str], deleted: set[str], *, on_disk: bool = False) -> None:
        """A repo has these entries, each once, and does not have these conversations: when it is in step, and before,
        if they were said there."""
        with llmcrdt.open(path, self.library) as repo:
            conv = repo.join(self.conversation)
            before = [entry.text for entry in conv.transcript()]
            assert not on_disk or words <= set(before), "what was said is on the disk"
            assert not on_disk or not deleted & {row.id for row in repo.list(1 << 30)}, "what was deleted is not"
            with repo.connect(self.url) as link:
                try:
                    link.wait_synced(120)
                except RelayRefused as refused:
                    # After a restore the relay knows what was deleted, and may lack the library's word for it until the
                    # device that deleted has been here.
                    if not on_disk or refused.code != ErrorCode.GONE:
                        raise
                end = time.monotonic() + 120
                while repo._core.store.relay_tasks.deletions(self.url) and time.monotonic() < end:
                    time.sleep(0.02)
            assert not repo._core.store.relay_tasks.deletions(self.url), "the relay has deleted what it was asked to"
            texts = [entry.text for entry in conv.transcript()]
            assert words <= set(texts), "what was synced is there"
            assert len(texts) == len(set(texts)), "no entry is there twice"
            listed = {row.id for row in repo.list(1 << 30)}
            assert not listed & deleted, "what was deleted is gone"
            assert path.stem != "fresh" or listed >= self.all("created") - self.all("deletes"), "and nothing else"


def kill_clients(kills: int, seed: int, folder: Path) -> str:
    """Kill clients and their relay so often; what a client said is in its file, what it synced is on the relay, unless
    that was put back to an old copy: then it is there again once everybody is connected."""
    rng = random.Random(seed)
    of_relay = rollbacks = 0
    with Load(folder) as load:
        for killed in told(kills, "kills of clients"):
            time.sleep(rng.uniform(0, 0.5))
            if rng.random() < 0.2:
                load.kill_relay()
                of_relay += 1
                if killed % 10 == 9 and (folder / "copy").exists():
                    shutil.rmtree(load.data)
                    shutil.move(folder / "copy", load.data)
                    rollbacks += 1
                elif not (folder / "copy").exists():
                    shutil.copytree(load.data, folder / "copy")
                load.start_relay()
            else:
                client = rng.choice(load.clients)
                client.kill()
                client.start(load.url)
        held = load.check(rolled_back=rollbacks > 0)
    return f"{kills} kills ({of_relay} of the relay, {rollbacks} put back), seed {seed}: {held}"


def roll_back(rollbacks: int, seed: int, folder: Path) -> str:
    """Put the relay's data back so often, to a copy made while it ran, under clients that write on; the first client
    is killed now and then too. At the end every device has all that any of them said, once, and what was deleted is
    gone."""
    rng = random.Random(seed)
    copies: list[Path] = []
    restored = 0
    with Load(folder) as load:
        for n in told(rollbacks, "rollbacks"):
            time.sleep(rng.uniform(0.1, 1))
            copies.append(folder / f"copy-{n}.db")
            data_command("backup", load.data, copies[-1])
            time.sleep(rng.uniform(0.2, 1.5))
            load.kill_relay()
            copy = rng.choice(copies[-3:])
            if rng.random() < 0.3:  # the operator's way, by which deletions stay
                data_command("restore", load.data, copy)
                restored += 1
            else:
                shutil.rmtree(load.data)
                load.data.mkdir()
                shutil.copyfile(copy, load.data / "relay.db")
            if rng.random() < 0.5:
                load.clients[0].kill()
                load.clients[0].start(load.url)
            load.start_relay()
        held = load.check(rolled_back=True)
    return f"{rollbacks} rollbacks ({restored} by restore), seed {seed}: {held}"


def data_command(word: str, data: Path, file: Path) -> None:
    command = [sys.executable, "-m", "sync_server", word, "--data", str(data), str(file)]
    subprocess.run(command, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=True)


def told(count: int, what: str) -> Iterator[int]:
    """0, 1, ... with a word now and then on how far it is."""
    began = time.monotonic()
    for n in range(count):
        if n and n % 25 == 0:
            print(f"{n} of {count} {what}, {time.monotonic() - began:.0f} s", flush=True)
        yield n


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=300, help="half of them of relays, half of clients")
    parser.add_argument("--rollbacks", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args(arguments)
    logging.getLogger("websockets").setLevel(logging.CRITICAL + 1)  # its threads tell of each connection that is killed
    for run, count in ((kill_relay, args.kills // 2), (kill_clients, args.kills // 2), (roll_back, args.rollbacks)):
        if count:
            with tempfile.TemporaryDirectory() as folder:
                print(run(count, args.seed, Path(folder)), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
