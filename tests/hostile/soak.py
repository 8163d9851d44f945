"""``make hostile``: each attack against a relay of its own, with a bystander, and a table of what that cost him.

    python tests/hostile/soak.py [--seconds 4] [--only pings]

Budgets: while an attack goes on the relay's loop takes less than 100 ms of processor time for 99 of 100 of the
bystander's records and never more than 300 ms; its memory grows by 256 MiB at most, and half of that is given back. It
is processor time, for another program that keeps the machine busy changes what the clock says (which the table shows
too) and not that. Ends with 1 where a budget is exceeded. Linux only.
"""

from __future__ import annotations

import argparse
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pycrdt

sys.path.insert(0, str(Path(__file__).parents[2]))

from llmcrdt.sync.messages import PATH, Ack, Push
from llmcrdt.varint import write_uint
from sync_server.doors import yjs
from tests.hostile import attacks
from tests.hostile.attacks import YJS, D, S, frame, upgrade
from tests.hostile.bystander import Bystander
from tests.sync_server.core.test_validation import ask, edits, native

P99, LONGEST, MEMORY = 0.1, 0.3, 256 << 20
MIB = 1 << 20
BYSTANDER = b"z" * 16


def memory(pid: int) -> int:
    """Bytes of a process that are in memory."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def worked(pid: int) -> float:
    """Seconds of processor time of a process's first thread: a relay's loop."""
    return int(Path(f"/proc/{pid}/task/{pid}/schedstat").read_text().split()[0]) / 1e9


_PATHS = os.pathsep.join(filter(None, (str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH"))))


@contextmanager
def relay(*options: str) -> Iterator[tuple[int, str, Path]]:
    """A relay in a process of its own, with an empty folder: the process, its URL, and what it logs."""
    with tempfile.TemporaryDirectory() as folder:
        data = str(Path(folder, "data"))
        command = [sys.executable, "-m", "sync_server", "--data", data, "--port", "0", *options]
        environment = {**os.environ, "PYTHONPATH": _PATHS}
        with (
            Path(folder, "log").open("w") as log,
            subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, env=environment) as child,
        ):
            assert child.stdout is not None
            try:
                yield child.pid, child.stdout.readline().split()[-1], Path(folder, "log")
            finally:
                child.terminate()


class Most:
    """The most memory of a process, sampled."""

    def __init__(self, pid: int) -> None:
        self._pid, self._stop = pid, threading.Event()
        self.before = self.most = memory(pid)
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        while not self._stop.wait(0.02):
            self.most = max(self.most, memory(self._pid))

    def __enter__(self) -> Most:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    @property
    def grown(self) -> int:
        return self.most - self.before


Attack = Callable[[str, float], str]
"""Against a relay at a URL, for about some seconds. Returns what it was, in words."""


def flood(name: str) -> Attack:
    def attack(url: str, seconds: float) -> str:
        command = [sys.executable, "-m", "tests.hostile.attacks", name, url.rsplit(":", 1)[1], str(seconds)]
        environment = {**os.environ, "PYTHONPATH": _PATHS}
        found = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True).stdout.split()
        return f"{int(found[0]) / MIB:.1f} MiB, {found[1]} connections"

    return attack


def connected(url: str, path: str | None = None) -> socket.socket:
    """A connection, upgraded where there is a path. Little of what it is sent fits into the system's memory."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.settimeout(20)
    client.connect(("127.0.0.1", int(url.rsplit(":", 1)[1])))
    if path:
        client.sendall(upgrade(path))
        client.recv(300)
    return client


def push(client: socket.socket, data: bytes) -> int:
    """Send what goes within a moment. How many bytes that was."""
    client.settimeout(0.05)
    sent = 0
    with suppress(OSError):
        while sent < len(data):
            sent += client.send(data[sent : sent + MIB])
    return sent


def unfinished(url: str, seconds: float) -> str:
    """Frames of 63 MiB that lack their last bytes."""
    size = 63 * MIB
    data = frame(bytes(size))[:-1]
    with ExitStack() as stack:
        clients = [stack.enter_context(connected(url, YJS)) for _ in range(30)]
        left, end = dict.fromkeys(clients, 0), time.monotonic() + max(seconds, 10)
        while time.monotonic() < end:
            for client in clients:
                left[client] += push(client, data[left[client] : left[client] + 8 * MIB])
        return f"30 frames of 63 MiB, {sum(left.values()) / MIB:.0f} MiB taken"


def silent_readers(url: str, seconds: float) -> str:
    """A document of 40 MB, and 40 who ask for it from different places and read nothing."""
    with connected(url, YJS) as writer:
        writer.settimeout(60)
        doc = pycrdt.Doc()
        doc["t"] = text = pycrdt.Text()
        letters = "".join(chr(97 + n % 26) for n in range(4 * MIB))
        seen = doc.get_state()
        for _ in range(10):
            text.insert(0, letters)
            writer.sendall(frame(yjs.encode(yjs.Update(doc.get_update(seen)))))
            seen = doc.get_state()
        time.sleep(3)
    with ExitStack() as stack:
        for n in range(40):
            client = stack.enter_context(connected(url, YJS))
            # Somebody who knows of another client: each one's answer is another for the relay, and the whole document.
            client.sendall(frame(yjs.encode(yjs.StepOne(b"\x01" + write_uint(1000 + n) + write_uint(n + 1)))))
        time.sleep(max(seconds, 10))
    return "40 readers of 40 MB"


def silent_strangers(url: str, seconds: float) -> str:
    """Half of them have upgraded, and nobody says who it is."""
    with ExitStack() as stack:
        for n in range(1_100):
            with suppress(OSError):
                stack.enter_context(connected(url, PATH if n % 2 else None))
        time.sleep(seconds)
    return "1,100 silent connections"


def come_and_go(url: str, seconds: float) -> str:
    for _ in range(4):
        with ExitStack() as stack:
            for _ in range(500):
                client = stack.enter_context(connected(url, PATH))
                client.sendall(attacks.HELLO)
    return "2,000 connections"


def waits_for_ever(url: str, seconds: float) -> str:
    """Updates of which each waits for one that never comes."""
    doc = pycrdt.Doc()
    doc["t"] = text = pycrdt.Text()
    updates = []
    for _ in range(8_001):
        seen = doc.get_state()
        text.insert(0, "x")
        updates.append(doc.get_update(seen))
    with native(url, D) as client:
        for n, update in enumerate(updates[1::2], 1):
            answer = ask(client, Push(D, S, n, (update,)))
            assert isinstance(answer, Ack), answer
    return "4,000 updates"


def refused(url: str, seconds: float) -> str:
    """Records that can't be applied."""
    with native(url, D) as client:
        ask(client, Push(D, S, 1, tuple(edits(1))))
        for n in range(500):
            ask(client, Push(D, S, 2, (b"\x01\x01" + bytes([n % 250]) * 40,)))
    return "500 records"


ATTACKS: dict[str, Attack] = {
    **{name: flood(name) for name in attacks.FLOODS},
    "unfinished frames": unfinished,
    "silent readers": silent_readers,
    "silent strangers": silent_strangers,
    "connections that come and go": come_and_go,
    "updates that wait for ever": waits_for_ever,
    "records that can't be applied": refused,
}


def quantile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else float("inf")


def run(name: str, seconds: float) -> bool:
    """One attack; whether all stayed within its budget."""
    with relay() as (pid, url, _), Bystander(url, BYSTANDER, lambda: worked(pid)) as bystander:
        while bystander.read < 20 and bystander.failed is None:
            time.sleep(0.01)
        with Most(pid) as most:
            start = bystander.read
            load = ATTACKS[name](url, seconds)
            # Until one that began in it has been read.
            after = bystander.read
            while bystander.read < after + 2 and bystander.failed is None:
                time.sleep(0.01)
        times, work = bystander.times[start:], bystander.work[start:]
        time.sleep(2)
        left = memory(pid) - most.before
    within = quantile(work, 0.99) < P99 and max(work) < LONGEST and most.grown < MEMORY and left < MEMORY / 2
    clock = [f"{1000 * t:6.1f}" for t in (quantile(times, 0.5), quantile(times, 0.99), max(times))]
    loop = [f"{1000 * t:6.1f}" for t in (quantile(work, 0.5), quantile(work, 0.99), max(work))]
    print(
        f"{name:38} {load:34} {len(times):6} {' '.join(clock)}   {' '.join(loop)}   {most.grown / MIB:5.0f}"
        f" {left / MIB:5.0f}   {'' if within else 'EXCEEDED'}",
        flush=True,
    )
    return within


def main() -> int:
    parser = argparse.ArgumentParser(description="Attack relays, and print what that costs a bystander.")
    parser.add_argument("--seconds", type=float, default=4.0, help="of each flood")
    parser.add_argument("--only", default="", help="attacks whose names have this in them")
    options = parser.parse_args()
    print(
        f"{'':38} {'':34} {'':6} {'ms on the clock':^20}   {'ms of the loop':^20}   {'MiB more':^11}\n"
        f"{'attack':38} {'load':34} {'reads':>6} {'p50':>6} {'p99':>6} {'most':>6}   {'p50':>6} {'p99':>6} {'most':>6}"
        f"   {'most':>5} {'left':>5}"
    )
    exceeded = [name for name in ATTACKS if options.only in name and not run(name, options.seconds)]
    return 1 if exceeded else 0


if __name__ == "__main__":
    sys.exit(main())
