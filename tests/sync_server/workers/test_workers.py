"""Worker processes end when their relay does, however that ends, and say nothing of it."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import pytest

from llmcrdt.sync import codec
from llmcrdt.sync.messages import Ack, Push
from sync_server.core.limits import Limits
from sync_server.thread import RelayThread
from sync_server.workers import framing, process
from sync_server.workers.documents import Lane
from sync_server.workers.starter import COMPACTOR, VALIDATOR
from sync_server.workers.validator import _Hands

from ...waiting import PATIENCE, eventually
from ..core.test_validation import ask, edits, native
from ..core.test_validation import workers as running

D, S = b"d" * 16, b"s" * 16
ROOT = Path(__file__).parents[3]


def batch(*data: bytes) -> bytes:
    written = io.BytesIO()
    framing.write(written, data)
    return written.getvalue()


@pytest.mark.parametrize(
    ("module", "arguments", "orders"),
    [
        (VALIDATOR, (1 << 32, 1 << 20, 10_000, 1_000, 0, -1), batch(b"load", b"yjs", D, b"0")),
        (COMPACTOR, (1 << 32, 60), batch(b"fold", b"yjs", *edits(3))),
    ],
    ids=["validator", "compactor"],
)
@pytest.mark.parametrize("cut", [0, 5, None], ids=["told nothing", "told half", "told all"])
def test_a_worker_whose_relay_is_gone_ends_without_a_word(
    module: str, arguments: tuple[int, ...], orders: bytes, cut: int | None
) -> None:
    command = [sys.executable, "-m", module, *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment
    ) as worker:
        assert worker.stdin and worker.stdout and worker.stderr
        worker.stdout.close()
        worker.stdin.write(orders[:cut])
        worker.stdin.close()
        assert worker.stderr.read() == b""
        worker.wait(PATIENCE)


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
@pytest.mark.parametrize(("jobs", "workers"), [(1, 1), (0, 0)])
def test_a_relay_that_condenses_nothing_has_no_worker_for_it(tmp_path: Path, jobs: int, workers: int) -> None:
    before = {*running(os.getpid(), COMPACTOR)}  # of other tests in this process, if one was left

    def mine() -> list[int]:
        return [pid for pid in running(os.getpid(), COMPACTOR) if pid not in before]

    with RelayThread(tmp_path, limits=Limits(catch_up_jobs=jobs)) as relay, native(relay.url, D) as client:
        assert isinstance(ask(client, Push(D, S, 1, tuple(edits(1, 10)))), Ack)
        eventually(lambda: len(mine()), lambda found: found == workers)


@pytest.fixture
def killed(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], str, Path]]:
    """A relay to be killed, its address, and what it and its workers said."""
    said = tmp_path / "said"
    command = [
        sys.executable,
        "-m",
        "sync_server",
        "--port",
        "0",
        "--data",
        str(tmp_path),
        "--limit",
        "compaction_bytes=1024",
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with said.open("wb") as stderr:
        child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, text=True, env=environment)
    assert child.stdout
    try:
        yield child, child.stdout.readline().split()[-1], said
    finally:
        child.kill()
        child.communicate()


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
@pytest.mark.parametrize("module", [VALIDATOR, COMPACTOR], ids=["validator", "compactor"])
def test_a_relay_that_is_killed_leaves_no_worker(killed: tuple[subprocess.Popen[str], str, Path], module: str) -> None:
    """Each is stopped in the middle of its work, and goes on when the relay is gone."""
    child, url, said = killed

    def mine(module: str) -> list[int]:
        return running(child.pid, module)

    with native(url, D) as client:
        made = edits(300, 1000)
        (validator,) = eventually(lambda: mine(VALIDATOR))
        if module == VALIDATOR:
            os.kill(validator, signal.SIGSTOP)
            client.send(codec.encode(Push(D, S, 1, tuple(made))))
            workers = [validator]
        else:
            batches = [made[n : n + 60] for n in range(0, len(made), 60)]
            pushed = [0.0]

            def compactors() -> list[int]:
                """A fold may be over before anybody looks: then more is written, and the next one begins."""
                found = mine(COMPACTOR)
                if len(found) < 2 and batches and time.monotonic() > pushed[-1] + 3:
                    first = len(made) - sum(map(len, batches)) + 1
                    assert isinstance(ask(client, Push(D, S, first, tuple(batches.pop(0)))), Ack)
                    pushed.append(time.monotonic())
                return found

            def stopped() -> list[int]:
                """Both, stopped; none where one was done before that."""
                found = compactors()
                held: list[int] = []
                with suppress(ProcessLookupError):
                    for worker in found if len(found) == 2 else []:
                        os.kill(worker, signal.SIGSTOP)
                        held.append(worker)
                    return held
                for worker in held:
                    os.kill(worker, signal.SIGCONT)
                return []

            # One that folds, and the one that condenses.
            workers = eventually(stopped)
        os.kill(child.pid, signal.SIGKILL)
        child.wait(PATIENCE)
    try:
        for worker in workers:
            with suppress(ProcessLookupError):  # the relay had ended it, for it stood still
                os.kill(worker, signal.SIGCONT)
    finally:
        eventually(lambda: [*filter(_runs, {validator, *workers})], lambda left: not left)
    lines = said.read_text().splitlines()
    assert not [line for line in lines if "Traceback" in line or "Broken" in line], lines


def test_what_ends_all_processes_of_a_relay_lets_it_finish_first(
    killed: tuple[subprocess.Popen[str], str, Path],
) -> None:
    child, url, said = killed
    with native(url, D) as client:
        assert isinstance(ask(client, Push(D, S, 1, tuple(edits(1)))), Ack)
        (validator,) = running(child.pid, VALIDATOR)
        for number in (signal.SIGINT, signal.SIGTERM):
            os.kill(validator, number)
        assert isinstance(ask(client, Push(D, S, 2, tuple(edits(1, key="l")))), Ack)
        os.kill(child.pid, signal.SIGINT)
        assert child.wait(PATIENCE) == 0
    assert said.read_text() == ""


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_worker_has_loaded_the_core_before_its_first_record() -> None:
    """It took 50 ms of the first record's time."""
    code = "import sys; from sync_server.workers.validator_worker import ValidatorWorker\n"
    code += "ValidatorWorker(1 << 20).load_backends(); print('pycrdt' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "True\n"


@pytest.mark.skipif(not Path("/proc/self/schedstat").exists(), reason="needs /proc")
def test_a_worker_that_is_late_hangs_only_where_it_gets_nothing_done() -> None:
    """On a busy machine one may need far more real time than usual."""
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as child:
        try:
            hands = _Hands(Lane(slow=True), lambda file: [], 1.0)
            hands.worker, hands.deadline = SimpleNamespace(pid=child.pid), 10.0  # type: ignore[assignment]
            assert not hands.hangs(1e6), "it has nothing to do"
            hands.batch = []
            for now in range(0, 1000, 100):
                had = process.processor_time(child.pid)
                eventually(lambda had=had: process.processor_time(child.pid) > had)  # type: ignore[misc]
                assert not hands.hangs(now), "it works"
            os.kill(child.pid, signal.SIGSTOP)
            eventually(lambda: Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T")
            hands.hangs(2000)
            assert not hands.hangs(2005) and hands.hangs(2007)
        finally:
            child.kill()
