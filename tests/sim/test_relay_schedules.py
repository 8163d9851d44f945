"""The promises of relay and client, over seeded schedules of broken connections, crashes and lost power.

``make soak`` runs 10,000. A schedule that fails is run again by ``python tests/sim/relay_soak.py --trace --seed SEED``.
"""

from __future__ import annotations

import random
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from relay_operations import OPERATIONS
from relay_soak import run_schedule
from sim_disk import Disks, library

from llmcrdt.sync.messages import Barrier, Open, Push, Reached
from sync_server.core.events import Joined, Send, Tick
from sync_server.core.rooms import Rooms
from sync_server.core.validation import Received
from sync_server.log.file import DATABASE
from sync_server.log.sqlite import SqliteStorage

pytestmark = pytest.mark.skipif(library() is None, reason="Python's sqlite3 has SQLite built in: no disk to simulate")


@pytest.mark.parametrize("first", range(1, 81, 20))
def test_every_promise_holds_over_seeded_schedules(first: int) -> None:
    """In a process of its own, where a seed decides everything."""
    command = [sys.executable, Path(__file__).with_name("relay_soak.py"), "--jobs", "1"]
    options = ["--seed", str(first), "--schedules", "20"]
    ran = subprocess.run([*command, *options], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr


def test_all_operations_are_drawn_and_goals_are_met() -> None:
    """A schedule that never does a thing proves nothing of it."""
    done = sum((run_schedule(seed) for seed in range(10_001, 10_014)), start=run_schedule(10_000))
    assert set(done) >= {*OPERATIONS}
    assert done["goals met"] and done["deletions done"] and done["records refused"] and done["workers lost"]
    assert done["parts of logs condensed"]


def test_a_schedule_is_decided_by_its_seed() -> None:
    assert run_schedule(20_000) == run_schedule(20_000)


@pytest.mark.parametrize("synchronous", ["FULL", "NORMAL"])
def test_a_disk_that_loses_power_keeps_what_was_fsynced_and_no_more(tmp_path: Path, synchronous: str) -> None:
    """The simulation's own disks: with FULL a commit is kept; with NORMAL the last ones can go."""
    lost = 0
    for seed in range(20):
        rng, machine = random.Random(seed), tmp_path / str(seed)
        machine.mkdir()
        with Disks(tmp_path) as disks:
            with disks.running("before"):
                db = sqlite3.connect(machine / "x.db", isolation_level=None)
                for text in ("journal_mode=WAL", f"synchronous={synchronous}", "wal_autocheckpoint=20"):
                    db.execute(f"PRAGMA {text}")
                db.execute("CREATE TABLE t (text TEXT)")
                db.execute("PRAGMA wal_checkpoint")
                disks.lose_power_after(machine, rng.randint(1, 100))
                committed = 0
                with pytest.raises(sqlite3.OperationalError):
                    for i in range(200):
                        db.execute("INSERT INTO t VALUES (?)", [str(i) * 50])
                        committed += 1
                db.close()
            disks.restore_power(machine, rng)
            with disks.running("after"):
                db = sqlite3.connect(machine / "x.db", isolation_level=None)
                (there,) = db.execute("SELECT count(*) FROM t").fetchone()
                assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
                db.close()
        lost += there < committed
    assert (lost == 0) == (synchronous == "FULL")


def test_a_disk_that_is_full_drops_no_reader(tmp_path: Path) -> None:
    """Folded records can't be scrubbed then; that can wait."""
    machine = tmp_path / "relay"
    machine.mkdir()
    with Disks(tmp_path) as disks:
        log = SqliteStorage(machine / DATABASE)
        rooms = Rooms(log)
        rooms.step([Joined(1), Received(1, Open(b"d" * 16, "yjs"))])
        log.database.connection.execute("CREATE TABLE large (data)")
        rooms.step([Received(1, Push(b"d" * 16, b"s" * 16, 1, (b"one",)))])
        rooms._compaction._scrubbing = True
        disks.fill(machine, True)
        outputs = rooms.step([Received(1, Barrier(1))])
        assert [output.message for output in outputs if isinstance(output, Send)] == [Reached(1)]
        assert rooms.stuck
        disks.fill(machine, False)
        rooms.step([Tick()])
        assert not rooms.stuck
        log.close()
