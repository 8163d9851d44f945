"""Workers are forks of one process, where the system has what that needs, or programs of their own; each ends alone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from llmcrdt.crdt import registry
from sync_server.workers import framing, starter

from ...waiting import PATIENCE, eventually
from ..core.test_validation import edits
from .test_workers import _runs

ROOT = Path(__file__).parents[3]
FORKS = pytest.mark.skipif(starter.SERVER is None, reason="workers are no forks here")


@pytest.fixture
def server() -> Iterator[starter.ForkServer]:
    made = starter.ForkServer(())
    yield made
    made.close()


def worker(monkeypatch: pytest.MonkeyPatch, folder: Path, **modules: str) -> None:
    """Modules that can be started: what each says and how it ends is the body of its ``main``."""
    for name, code in modules.items():
        (folder / name).with_suffix(".py").write_text(
            "import os, signal, sys\n"
            "from sync_server.workers import process\n"
            f"def main():\n    {code}\n"
            "if __name__ == '__main__':\n    sys.exit(process.serve(main))\n"
        )
    monkeypatch.syspath_prepend(folder)


def hear(started: starter.Worker) -> bytes:
    """All that a worker says without being told anything."""
    assert started.stdin and started.stdout
    started.stdin.close()
    with started.stdout as output:
        return output.read()


@pytest.fixture(params=[pytest.param(True, marks=FORKS), False], ids=["forks", "programs"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if not request.param:
        monkeypatch.setattr(starter, "SERVER", None)


@pytest.mark.usefixtures("way")
def test_a_worker_does_its_work() -> None:
    data = edits(3)
    compactor = starter.start(starter.COMPACTOR, 1 << 32, 60)
    assert compactor.stdin and compactor.stdout
    with compactor.stdin as orders, compactor.stdout as answers:
        framing.write(orders, (b"fold", b"yjs", *data))
        assert list(framing.read(answers)) == registry.backend("yjs").compact(data)
    assert compactor.wait() == 0
    assert compactor.wait() == 0, "it is known"


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("sys.exit(7)", 7),
        ("os.abort()", -signal.SIGABRT),
        ("process.allow(0.01)\n    while True: pass", -signal.SIGPROF),
        ("sys.stderr.close(); raise ValueError", 1),
    ],
)
def test_how_a_worker_ended_is_known(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, code: str, status: int) -> None:
    worker(monkeypatch, tmp_path, ends=code)
    started = starter.start("ends")
    assert hear(started) == b""
    assert started.wait() == status


@pytest.mark.usefixtures("way")
def test_a_worker_is_killed_whatever_it_does(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    worker(monkeypatch, tmp_path, hangs="signal.pause()")
    started = starter.start("hangs")
    started.kill()
    assert hear(started) == b""
    assert started.wait() == -signal.SIGKILL
    started.kill()  # there is nothing left to kill, whatever has its number now


@pytest.mark.usefixtures("way")
def test_what_a_worker_is_given_is_its_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Its arguments, its limits, and no more open files than a program that was started."""
    say = "print(sys.argv[1:], resource.getrlimit(resource.RLIMIT_AS)[0] == 1 << 33, os.getpriority(0, 0), "
    say += "sorted(map(int, os.listdir('/proc/self/fd')))[:-1] if sys.platform == 'linux' else [0, 1, 2], flush=True)"
    worker(
        monkeypatch,
        tmp_path,
        bound=f"import resource; process.bound(1 << 33, nice=5); {say}",
        free=f"import resource; {say}",
    )
    nice = os.getpriority(os.PRIO_PROCESS, 0)
    others = [starter.start("bound", 1), starter.start("free", "a b")]
    said = [hear(other).decode().strip() for other in others]
    assert [other.wait() for other in others] == [0, 0]
    limited = sys.platform == "linux"
    assert said == [f"['1'] {limited} {min(nice + 5, 19)} [0, 1, 2]", f"['a b'] False {nice} [0, 1, 2]"]


@FORKS
def test_a_fork_server_that_was_killed_is_replaced(
    server: starter.ForkServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    worker(monkeypatch, tmp_path, waits="sys.stdin.read()", says="print('here', flush=True)")
    first = server.fork("waits", ())
    assert server._server is not None
    os.kill(server._server.pid, signal.SIGKILL)
    again = server.fork("says", ())
    assert hear(again) == b"here\n"
    assert again.wait() == 0
    assert first.wait() == -signal.SIGKILL, "nobody would hear how it ends"
    eventually(lambda: _runs(first.pid), lambda runs: not runs)
    first.stdin.close()
    first.stdout.close()


@FORKS
def test_a_fork_server_that_can_not_come_up_is_told(server: starter.ForkServer) -> None:
    broken = starter.ForkServer(("no_such_module",))
    with pytest.raises(OSError):
        broken.fork(starter.COMPACTOR, ())
    broken.close()


@FORKS
def test_a_fork_server_ends_with_its_process_and_is_not_that_of_a_fork_of_it() -> None:
    code = """
import os, sys
from sync_server.workers import starter
def start():
    worker = starter.start(starter.COMPACTOR, 1 << 32, 60)
    print(starter.SERVER._server.pid, worker.pid, flush=True)
    return worker
worker = start()
if os.fork() == 0:
    other = start()
sys.stdin.read()
"""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment,
    ) as process:  # fmt: skip
        assert process.stdin and process.stdout and process.stderr
        pids = [int(pid) for line in (process.stdout.readline(), process.stdout.readline()) for pid in line.split()]
        assert len({*pids}) == 4
        process.stdin.close()
        assert process.wait(PATIENCE) == 0
        eventually(lambda: [*filter(_runs, pids)], lambda left: not left)
        assert process.stderr.read() == ""
