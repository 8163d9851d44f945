"""The load generator, a process of its own: one for all servers, so that what it costs is the same for all.

``python -m benchmarks.relay.load`` takes a task as one line of JSON and answers with one line of JSON for each thing
that happened; the last has the figures. Plain sockets and epoll; frames are made before the clock starts, and what
comes is compared, not decoded.
"""

from __future__ import annotations

import json
import select
import sys
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from llmcrdt.crdt.yjs.compact import compact_updates

from .connection import STALLED, Connection
from .dialects import Dialect, WrongContent, dialect
from .material import Material, Replica, changes, entries, tokens

HANDSHAKES = 40
"""Upgrades under way at once, fewer than what waits at a listening socket."""


class Stalled(Exception):
    """The server sends nothing any more, and not all has come."""


class Load:
    """All connections of one task, and the loop that serves them."""

    def __init__(self, task: dict[str, Any]) -> None:
        parts = urlsplit(task["url"])
        self.address = (parts.hostname or "", parts.port or 0)
        self.task = task
        self.poll = select.epoll()
        self.connections: dict[int, Connection] = {}
        self.heard = time.perf_counter()

    def open(self, spoken: Dialect, **options: Any) -> Connection:
        """A new connection; ``settle`` waits until it is open."""
        connection = Connection(self.address, spoken, deflate=self.task.get("deflate", False), **options)
        self.poll.register(connection.socket, select.EPOLLIN)
        self.connections[connection.socket.fileno()] = connection
        self.heard = time.perf_counter()
        return connection

    def open_all(self, spoken: list[Dialect], **options: Any) -> list[Connection]:
        """Many at a time, but no more than a listening socket keeps waiting."""
        opened: list[Connection] = []
        for one in spoken:
            opened.append(self.open(one, **options))
            while sum(not c.upgraded for c in opened[-HANDSHAKES * 2 :]) >= HANDSHAKES:
                self.turn()
        self.until(lambda: all(c.opened for c in opened))
        return opened

    def turn(self, timeout: float = 0.25) -> None:
        """Take what has come."""
        for fd, events in self.poll.poll(timeout):
            connection = self.connections[fd]
            if events & select.EPOLLIN:
                before = connection.received
                connection.receive(now := time.perf_counter())
                # A ping is no progress.
                if connection.received > before:
                    self.heard = now
            if events & select.EPOLLOUT and connection.flush():
                self.poll.modify(fd, select.EPOLLIN)
        if time.perf_counter() - self.heard > STALLED:
            raise Stalled(f"Nothing came for {STALLED:g} s.")

    def until(self, done: Callable[[], bool]) -> None:
        while not done():
            self.turn()

    def write(self, connection: Connection, data: bytes) -> None:
        if not connection.write(data):
            self.poll.modify(connection.socket, select.EPOLLIN | select.EPOLLOUT)

    def mute(self, connection: Connection) -> None:
        """Read from this one no more."""
        self.poll.unregister(connection.socket)
        del self.connections[connection.socket.fileno()]


class Room:
    """A writer and its followers."""

    def __init__(self, load: Load, name: str, material: Material, followers: int) -> None:
        self.load = load
        self.spoken = dialect(load.task["dialect"], name, material, reads=True)
        writer = dialect(load.task["dialect"], name, material)
        self.frames = writer.pushed
        # The writer comes first: some servers lose the second of two that open a new room at once.
        (self.writer,) = load.open_all([writer])
        self.followers = load.open_all([self.spoken.another() for _ in range(followers)], follow=True)
        self.sent = 0
        self.sent_at: list[float] = []

    @property
    def have(self) -> int:
        return min(f.have for f in self.followers)

    def send(self, upto: int) -> None:
        upto = min(upto, len(self.frames.ends) - 1)
        if upto > self.sent:
            ends = self.frames.ends
            self.load.write(self.writer, self.frames.blob[ends[self.sent] : ends[upto]])
            self.sent_at += [time.perf_counter()] * (upto - self.sent)
            self.sent = upto

    def check(self) -> None:
        """Raises WrongContent unless every follower has all that was sent, and nothing else."""
        for follower in self.followers:
            if follower.have != self.sent:
                raise WrongContent(f"A follower has {follower.have} updates of {self.sent}.")
            follower.check()

    def delays(self) -> list[float]:
        """Seconds from the sending of an update to its arrival, for each follower."""
        out = []
        for follower in self.followers:
            for at, before, after in follower.arrivals:
                out += [at - sent for sent in self.sent_at[before:after]]
        return out


def stream(load: Load) -> dict[str, Any]:
    """Rooms in which one writes and others follow: as fast as it goes (``rate`` 0), or so many updates a second in
    all rooms together. As fast as it goes means that in each room at most ``window`` updates are not everywhere yet."""
    task = load.task
    words = changes if task["dialect"].startswith("automerge") else tokens
    material = entries(task["updates"], task["size"]) if task.get("size") else words(task["updates"])
    rooms = [Room(load, f"{task['name']}-{n}", material, task["followers"]) for n in range(task["rooms"])]
    silent = load.open_all([rooms[0].spoken] * task.get("silent", 0), buffer=64 << 10)
    for connection in silent:
        load.mute(connection)
    tell({"at": "open"})
    sys.stdin.readline()
    began, cpu = time.perf_counter(), time.process_time()
    late = 0.0
    if task["rate"]:
        late = _at_a_rate(load, rooms, task["rate"], task["seconds"], task.get("burst", 1))
    else:
        ends = began + task["seconds"]
        while time.perf_counter() < ends and any(room.have < len(material.updates) for room in rooms):
            for room in rooms:
                room.send(room.have + task["window"])
            load.turn(0.05)
    load.until(lambda: all(room.have >= room.sent for room in rooms))
    took, cpu = time.perf_counter() - began, time.process_time() - cpu
    tell({"at": "done"})
    sys.stdin.readline()
    for room in rooms:
        room.check()
    delivered = sum(f.have for room in rooms for f in room.followers)
    delays = sorted(delay for room in rooms for delay in room.delays())
    return {
        "sent": sum(room.sent for room in rooms),
        "delivered": delivered,
        "seconds": took,
        "cpu": cpu / took,
        "p50": delays[len(delays) // 2],
        "p99": delays[int(len(delays) * 0.99)],
        "late": late,
        "bytes": sum(c.received for c in load.connections.values()),
        "silent": sum(c.established for c in silent),
    }


def _at_a_rate(load: Load, rooms: list[Room], rate: float, seconds: float, burst: int) -> float:
    """One update after the other, room by room, or some at once and then nothing for as long. The most that the
    generator itself was late."""
    began, late, count = time.perf_counter(), 0.0, 0
    while count < rate * seconds:
        now = time.perf_counter()
        due = began + count // burst * burst / rate
        if now >= due:
            late = max(late, now - due)
            room = rooms[count % len(rooms)]
            room.send(room.sent + 1)
            count += 1
        load.turn(max(0.0, min(0.05, began + count // burst * burst / rate - time.perf_counter())))
    return late


def idle(load: Load) -> dict[str, Any]:
    """Connections that do nothing, so many to a document."""
    task, material = load.task, Material((), ())
    tell({"at": "open"})
    sys.stdin.readline()
    names = [f"{task['name']}-{n // task['each']}" for n in range(task["connections"])]
    spoken = [dialect(task["dialect"], name, material) for name in names]
    load.open_all(spoken[:: task["each"]])
    load.open_all([s for n, s in enumerate(spoken) if n % task["each"]])
    ends = time.perf_counter() + task["rest"]
    while time.perf_counter() < ends:
        load.turn()
    tell({"at": "done"})
    sys.stdin.readline()
    return {"connections": len(load.connections)}


def storm(load: Load) -> dict[str, Any]:
    """Many clients that come at once to one long document. They need not get it in the same messages: one that
    a compaction overtakes gets the snapshot after the records that came before. Each way that it came is checked."""
    task = load.task
    material = entries(task["updates"], task["size"])
    # Its writer stays, for some servers forget a document that nobody has open.
    room = Room(load, task["name"], material, 1)
    while room.have < len(material.updates):
        room.send(room.have + task["window"])
        load.turn()
    spoken = room.spoken
    tell({"at": "open"})
    sys.stdin.readline()
    began, cpu = time.perf_counter(), time.process_time()
    joining: list[Connection] = []
    messages: dict[bytes, bytes] = {}
    done: list[float] = []
    for _ in range(task["clients"]):
        joining.append(load.open(spoken, storm=messages))
        while sum(not c.upgraded for c in joining[-HANDSHAKES * 2 :]) >= HANDSHAKES:
            load.turn()
    while len(done) < len(joining):
        load.turn()
        finished = sum(c.complete for c in joining)
        done += [time.perf_counter() - began] * (finished - len(done))
    took, cpu = time.perf_counter() - began, time.process_time() - cpu
    tell({"at": "done"})
    sys.stdin.readline()
    check_documents(spoken, [c.came for c in joining])
    return {"seconds": took, "first": done[0], "median": done[len(done) // 2], "cpu": cpu / took}


def check_documents(spoken: Dialect, joined: list[list[bytes]]) -> None:
    """Raises WrongContent unless the messages of each who joined make the document that was written, and nothing in
    them waits for something else."""
    written = Replica(spoken.material.updates)
    for messages in {tuple(came) for came in joined}:
        document, *waiting = compact_updates(spoken.contents(messages))
        if waiting or not Replica([document]).equals(written):
            raise WrongContent("A client's document is not what was written.")


def tell(event: dict[str, Any]) -> None:
    print(json.dumps(event), flush=True)


def main() -> int:
    task = json.loads(sys.stdin.readline())
    load = Load(task)
    try:
        tell({"at": "end", **{"stream": stream, "idle": idle, "storm": storm}[task["do"]](load)})
    except (WrongContent, Stalled, ConnectionError) as e:
        tell({"at": "failed", "why": f"{type(e).__name__}: {e}"})
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
