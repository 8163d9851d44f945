"""Devices, workers and a relay as processes that are killed, stopped and cut off while asks are made; then what must
hold: every ask ends in an answer or a told failure, none is answered twice but as alternatives, and all replicas are
equal."""

from __future__ import annotations

import contextlib
import json
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import llmcrdt
from llmcrdt.document.asks import ENDED
from llmcrdt.document.conversation import core_of

PEER = Path(__file__).parent / "asks_peer.py"
_START = 120.0  # seconds that a process may take to start on a busy machine


class Forwarder:
    """A way to the relay that can be cut. Threads; ends with the process."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._cut = threading.Event()
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self._listener.getsockname()[1]}"

    def cut(self) -> None:
        self._cut.set()
        with self._lock:
            for each in self._open:
                with contextlib.suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)

    def heal(self) -> None:
        self._cut.clear()

    def close(self) -> None:
        self.cut()
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                try:
                    if self._cut.is_set():
                        raise OSError
                    far = socket.create_connection(("127.0.0.1", self._port), 5)
                except OSError:
                    near.close()
                    continue
                threading.Thread(target=self._carry, args=(near, far), daemon=True).start()

    def _carry(self, near: socket.socket, far: socket.socket) -> None:
        with near, far:
            with self._lock:
                self._open |= {near, far}
            back = threading.Thread(target=self._pump, args=(far, near), daemon=True)
            back.start()
            self._pump(near, far)
            back.join()
            with self._lock:
                self._open -= {near, far}

    def _pump(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                target.sendall(data)
        for each in (source, target):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)


class Peer:
    """One device or worker, through all its lives, on one database."""

    def __init__(self, kind: str, path: Path, library: str, port: int) -> None:
        self.kind, self.path, self._library = kind, path, library
        self.way = Forwarder(port)
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        if self._process is not None:
            return
        command = [sys.executable, str(PEER), self.kind, str(self.path), self._library, self.way.url]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.hear() == {"ready": True}

    def hear(self) -> dict[str, object] | None:
        """A line that it says; None where it died."""
        assert self._process is not None and self._process.stdout is not None
        line = self._process.stdout.readline()
        return json.loads(line) if line.endswith("\n") else None

    def tell(self, **what: object) -> dict[str, object] | None:
        assert self._process is not None and self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(what) + "\n")
            self._process.stdin.flush()
        except OSError:
            return None
        return self.hear()

    def send(self, number: int) -> None:
        if self._process is not None:
            self._process.send_signal(number)

    def end(self, number: int = signal.SIGKILL, seconds: float = 60) -> None:
        """Have it end by this signal, and wait for it."""
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(signal.SIGCONT)
        process.send_signal(number)
        if process.stdin is not None:
            with contextlib.suppress(OSError):
                process.stdin.close()
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise AssertionError(f"{self.path.stem} does not end") from None
        finally:
            if process.stdout is not None:
                process.stdout.close()


class Relay:
    def __init__(self, data: Path) -> None:
        self._data, self.port = data, 0
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        if self._process is not None:
            return
        command = [sys.executable, "-m", "sync_server", "--port", str(self.port), "--data", str(self._data)]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline().rsplit(":", 1)[1])

    def kill(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            if process.stdout is not None:
                process.stdout.close()


@dataclass(frozen=True)
class Asked:
    """An ask that a device has kept. ``fails``: it can't be followed."""

    conversation: str
    id: str
    fails: bool


@dataclass
class World:
    """``asks`` of them are made, and about ``troubles`` times something happens."""

    folder: Path
    seed: int
    asks: int
    devices: int = 3
    workers: int = 3
    conversations: int = 4
    trouble: float = 0.6
    say: Callable[[str], None] = lambda text: None
    happened: Counter[str] = field(default_factory=Counter)

    def run(self) -> Counter[str]:
        """Counts states of asks at the end, and what happened. Raises AssertionError if a rule is broken."""
        self.rng = random.Random(self.seed)
        self.relay = Relay(self.folder / "relay")
        self.relay.start()
        self.auditor = llmcrdt.open(self.folder / "auditor.db", author="auditor")
        library = self.auditor.library
        self.link = self.auditor.connect(f"ws://127.0.0.1:{self.relay.port}")
        self.ids = [self.auditor.create(f"c{n}").id for n in range(self.conversations)]
        self.link.wait_synced(_START)
        names = [("device", f"device{n}") for n in range(self.devices)]
        names += [("worker", f"worker{n}") for n in range(self.workers)]
        self.peers = [Peer(kind, self.folder / f"{name}.db", library, self.relay.port) for kind, name in names]
        self.asked: list[Asked] = []
        self.later: list[tuple[float, Callable[[], object]]] = []
        try:
            for peer in self.peers:
                peer.start()
            while len(self.asked) < self.asks:
                self._mend()
                self._ask()
                if self.rng.random() < self.trouble:
                    self._trouble()
                time.sleep(self.rng.choice((0.0, 0.1, 0.4)))
            self._settle()
            self._check()
        finally:
            for peer in self.peers:
                with contextlib.suppress(AssertionError):
                    peer.end()
                peer.way.close()
            self.link.close()
            self.auditor.close()
            self.relay.kill()
        return self.happened

    def _ask(self) -> None:
        device = self.rng.choice([peer for peer in self.peers if peer.kind == "device"])
        device.start()
        conversation = self.rng.choice(self.ids)
        fails = self.rng.random() < 0.08
        answer = device.tell(
            conversation=conversation,
            text=f"Question {len(self.asked)}?",
            model=self.rng.choice(["small", "sm*", ""]),
            settings={"max_tokens": 0 if fails else self.rng.choice([1, 8, 60])},
            valid_while=self.rng.choice(["always", "always", "frame"]),
        )
        if answer is None:
            device.end()
        elif "ask" in answer:
            self.asked.append(Asked(conversation, str(answer["ask"]), fails))
            if len(self.asked) % 20 == 0:
                self.say(f"{len(self.asked)} asks; so far: {dict(self.happened)}")
        else:
            self.happened["refused while an answer was written"] += 1

    def _mend(self) -> None:
        now = time.monotonic()
        due = [mend for at, mend in self.later if at <= now]
        self.later = [each for each in self.later if each[0] > now]
        for mend in due:
            mend()

    def _trouble(self) -> None:
        rng, peer = self.rng, self.rng.choice(self.peers)
        worker = rng.choice([peer for peer in self.peers if peer.kind == "worker"])
        back = time.monotonic() + rng.choice((0.2, 1.0, 4.0))
        what = rng.choice(("kill a worker", "kill a worker", "kill", "end a worker", "kill the relay", "cut", "stop"))
        self.happened[what] += 1
        if what in ("kill a worker", "end a worker"):
            worker.end(signal.SIGKILL if what == "kill a worker" else signal.SIGTERM)
            self.later.append((back, worker.start))
        elif what == "kill":
            peer.end()
            self.later.append((back, peer.start))
        elif what == "kill the relay":
            self.relay.kill()
            self.later.append((back, self.relay.start))
        elif what == "cut":
            peer.way.cut()
            self.later.append((back, peer.way.heal))
        else:
            worker.send(signal.SIGSTOP)
            self.later.append((back, lambda: worker.send(signal.SIGCONT)))

    def _settle(self) -> None:
        """Everything works again; wait until every ask is over."""
        for _, mend in self.later:
            mend()
        self.relay.start()
        for peer in self.peers:
            peer.way.heal()
            peer.send(signal.SIGCONT)
            peer.start()
        left, seen, deadline = -1, {asked.id: "" for asked in self.asked}, 0.0
        while left:
            states = self._states()
            open_ = {asked.id: states.get(asked.id, "not here") for asked in self.asked}
            left = sum(state not in ENDED for state in open_.values())
            if open_ != seen:
                seen, deadline = open_, time.monotonic() + 120
            stuck = {ask: state for ask, state in open_.items() if state not in ENDED}
            assert time.monotonic() < deadline, f"nothing goes on: {stuck}"
            time.sleep(0.2)

    def _states(self) -> dict[str, str]:
        return {ask.id: ask.state for id in self.ids for ask in self.auditor.get(id).asks()}

    def _check(self) -> None:
        for peer in self.peers:
            peer.end(signal.SIGTERM)
        seen = self._replica(self.auditor)
        for peer in self.peers:
            with llmcrdt.open(peer.path) as repo, repo.connect(f"ws://127.0.0.1:{self.relay.port}") as link:
                link.wait_synced(_START)
                self.link.wait_synced(_START)
                assert self._replica(repo) == self._replica(self.auditor), f"{peer.path.stem} says otherwise"
        assert self._replica(self.auditor) == seen, "a peer still had something to say"
        for asked in self.asked:
            conversation = self.auditor.get(asked.conversation)
            (ask,) = (each for each in conversation.asks() if each.id == asked.id)
            status = ask.status()
            self.happened[status.state] += 1
            if status.state == "failed":
                assert status.code and asked.fails, (asked, status)
            elif status.state == "answered":
                assert status.answer is not None and not asked.fails
            self._check_once(conversation, asked)

    def _check_once(self, conversation: llmcrdt.Conversation, asked: Asked) -> None:
        replies = core_of(conversation).view.acts.replies.get(asked.id, {})  # type: ignore[call-overload]
        entries = {reply.entry for reply in replies.values() if reply.entry is not None}
        complete = [entry for entry in map(conversation.entry, sorted(entries)) if entry.status == "complete"]
        if len(complete) < 2:
            return
        # Both may be shown: rivals that nobody chose between stay, once they were written on (O6).
        alternatives = {entry.id for entry in conversation.alternatives(complete[0])}
        assert {entry.id for entry in complete} <= alternatives, f"{asked} is answered twice"
        self.happened["answered by two, as alternatives"] += 1
        self.happened["on different lists"] += len({entry.frame and entry.frame.hash for entry in complete}) > 1

    def _replica(self, repo: llmcrdt.Repo) -> list[object]:
        said: list[object] = []
        for id in self.ids:
            conversation = repo.get(id)
            assert conversation.verify() == []
            states = [(ask.id, ask.state, ask.answer and ask.answer.id) for ask in conversation.asks()]
            said.append((conversation.transcript().hash, states))
        return said
