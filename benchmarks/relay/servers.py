"""The servers that are compared, each a process of its own, and what one of them uses of the machine."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
PEERS = HERE.parent / ".peers"
"""The folder that ``install`` puts them into; git ignores it."""
NODE, PYTHON = PEERS / "node", PEERS / "python"
_LIMIT = "connections=4000"


@dataclass(frozen=True)
class Kind:
    """A server: what it is called, what is spoken to it, and how it is started in a folder and on a port. ``missing``
    says why it can't run."""

    name: str
    dialect: str
    command: Callable[[Path, int], list[str]]
    missing: Callable[[], str | None] = lambda: None
    deflate: bool = False


def _relay(data: Path, port: int) -> list[str]:
    return [sys.executable, "-m", "sync_server", "--port", str(port), "--data", str(data), "--limit", _LIMIT]


def _node(*arguments: str) -> Callable[[Path, int], list[str]]:
    return lambda data, port: ["node", *arguments, str(port)]


def _no_node(package: str) -> Callable[[], str | None]:
    def missing() -> str | None:
        if shutil.which("node") is None:
            return "Node.js is not here"
        return None if (NODE / "node_modules" / package).is_dir() else "not installed: make bench NAME=relay"

    return missing


def _no_python() -> str | None:
    return None if (PYTHON / "bin" / "python").exists() else "not installed: make bench NAME=relay"


OURS = "llmcrdt"
YARDSTICK = "y-websocket"
KINDS = (
    Kind(OURS, "native", _relay),
    Kind(
        YARDSTICK,
        "y-websocket",
        _node(str(NODE / "node_modules/y-websocket/bin/server.cjs")),
        _no_node("y-websocket"),
    ),
    Kind("Hocuspocus", "hocuspocus", _node(str(HERE / "peers/hocuspocus.mjs"), str(NODE)), _no_node("@hocuspocus")),
    Kind(
        "pycrdt-websocket",
        "y-websocket",
        lambda data, port: [str(PYTHON / "bin/python"), str(HERE / "peers/pycrdt_websocket.py"), str(port)],
        _no_python,
    ),
    Kind("llmcrdt, deflated", "native", _relay, deflate=True),
)
AUTOMERGE_KINDS = (
    Kind(f"{OURS}, Automerge door", "automerge-door", _relay),
    Kind(
        "automerge-repo-sync-server",
        "automerge-repo",
        lambda data, port: ["node", str(NODE / "node_modules/@automerge/automerge-repo-sync-server/src/index.js")],
        _no_node("@automerge/automerge-repo-sync-server"),
    ),
)
"""Those for Automerge documents: ours, and the yardstick."""


class Server:
    """A server that runs."""

    def __init__(self, kind: Kind, process: subprocess.Popen[bytes], url: str) -> None:
        self.kind, self.process, self.url = kind, process, url

    @property
    def memory(self) -> int:
        """Resident bytes, its children's included."""
        return sum(_status(pid, "VmRSS") for pid in _tree(self.process.pid))

    @property
    def own_memory(self) -> int:
        """Resident bytes of the process alone."""
        return _status(self.process.pid, "VmRSS")

    @property
    def cpu(self) -> float:
        """Seconds of processor time so far, its children's included."""
        return sum(_cpu(pid) for pid in _tree(self.process.pid))

    def settle(self) -> None:
        """Wait until it is done with what it does in the background: it takes no processor time, and waits for none, as
        a worker of low priority may for long."""
        for _ in range(100):
            before = self.cpu
            time.sleep(0.2)
            if self.cpu - before < 0.03 and not any(map(_wants_to_run, _tree(self.process.pid))):
                return

    @contextmanager
    def peak(self) -> Iterator[list[int]]:
        """The most memory while this lasts, looked at 20 times a second: the last of the list."""
        found, stop = [self.memory], threading.Event()

        def look() -> None:
            while not stop.wait(0.05):
                found.append(max(found[-1], self.memory))

        looking = threading.Thread(target=look)
        looking.start()
        try:
            yield found
        finally:
            stop.set()
            looking.join()


@contextmanager
def running(kind: Kind, *limits: str) -> Iterator[Server]:
    """A fresh server with an empty folder; ours with these limits."""
    with tempfile.TemporaryDirectory(prefix="llmcrdt-bench-") as folder:
        port = _free_port()
        environment = os.environ | {"HOST": "127.0.0.1", "PORT": str(port), "NODE_ENV": "production"}
        environment |= {"DATA_DIR": str(Path(folder) / "data")}
        with (Path(folder) / "log").open("wb") as log:
            command = kind.command(Path(folder) / "data", port) + [part for x in limits for part in ("--limit", x)]
            process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
            try:
                _wait(process, port, Path(folder) / "log")
                yield Server(kind, process, f"ws://127.0.0.1:{port}")
            finally:
                process.terminate()
                try:
                    process.wait(20)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


def _wait(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    for _ in range(600):
        if process.poll() is not None:
            raise RuntimeError(f"{process.args!r} ended:\n{log.read_text()}")
        with socket.socket() as attempt:
            if attempt.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise RuntimeError(f"{process.args!r} does not listen:\n{log.read_text()}")


def has_proc() -> bool:
    """Whether the system says what a process uses (Linux does)."""
    return Path("/proc/self/status").exists()


def _tree(pid: int) -> list[int]:
    """A process and its descendants: the system tells a thread's children, and every thread may have some."""
    found = [pid]
    for thread in _threads(pid):
        with suppress(OSError):  # it has ended
            children = Path(f"/proc/{pid}/task/{thread}/children").read_text().split()
            found += [p for child in children for p in _tree(int(child))]
    return found


def _threads(pid: int) -> list[str]:
    try:
        return os.listdir(f"/proc/{pid}/task")
    except OSError:
        return []


def _status(pid: int, name: str) -> int:
    """Bytes, from a line in kB."""
    try:
        found = re.search(rf"{name}:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    except OSError:
        return 0
    return int(found[1]) * 1024 if found else 0


def _wants_to_run(pid: int) -> bool:
    """Whether one of its threads runs, or waits for a processor or for the disk."""
    for thread in _threads(pid):
        with suppress(OSError):
            text = Path(f"/proc/{pid}/task/{thread}/stat").read_text()
            if text.rpartition(")")[2].split()[0] in "RD":
                return True
    return False


def _cpu(pid: int) -> float:
    """Of the process and of its children that have ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")
