"""The rules over schedules: a few hundred seeded ones in memory, some on real SQLite files, and Hypothesis's own.

``make soak`` runs 100,000. A schedule that fails is run again by ``python tests/sim/soak.py --trace --seed SEED``.
"""

from __future__ import annotations

import random
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "crdt" / "automerge"))
from asks_world import run_asks
from needs_automerge import needs_automerge
from sim_checks import check_device, merge_all
from sim_world import OPERATIONS, World
from soak import run_schedule


@pytest.mark.parametrize("first", range(0, 400, 50))
def test_every_rule_holds_over_seeded_schedules(first: int) -> None:
    for seed in range(first, first + 50):
        run_schedule(seed)


@pytest.mark.parametrize("seed", range(900_000, 900_020))
def test_every_rule_holds_on_real_files(seed: int, tmp_path: Path) -> None:
    run_schedule(seed, folder=tmp_path)


@needs_automerge
@pytest.mark.parametrize("first", range(0, 30, 10))
def test_every_rule_holds_in_automerge_documents(first: int) -> None:
    """``make automerge`` runs thousands."""
    for seed in range(first, first + 10):
        run_schedule(seed, crdt="automerge")


@needs_automerge
@pytest.mark.parametrize("seed", range(900_000, 900_003))
def test_every_rule_holds_in_automerge_documents_on_real_files(seed: int, tmp_path: Path) -> None:
    run_schedule(seed, folder=tmp_path, crdt="automerge")


def test_every_ask_ends_once_over_seeded_schedules() -> None:
    """``make soak`` runs 10,000: devices that ask, workers that die, fall silent and are cut off."""
    done = sum((run_asks(seed) for seed in range(15)), start=run_asks(15))
    assert done["asks answered"] > 30 and done["answered twice"] > 0


def test_all_operations_are_drawn() -> None:
    """A schedule that never does a thing proves nothing of it."""
    done = sum((run_schedule(seed) for seed in range(10_000, 10_060)), start=run_schedule(10_060))
    assert set(done) == set(OPERATIONS)


class Replicas(RuleBasedStateMachine):
    """Three to five replicas; Hypothesis chooses what happens, and makes what fails shorter."""

    world: World

    on_files = False

    @initialize(devices=st.integers(3, 5), seed=st.integers(0, 2**32))
    def begin(self, devices: int, seed: int) -> None:
        self.folder = tempfile.TemporaryDirectory() if self.on_files else None
        self.world = World(random.Random(seed), devices, Path(self.folder.name) if self.folder else None)

    @rule(name=st.sampled_from(OPERATIONS), at=st.integers(0, 4), seed=st.integers(0, 2**16))
    def act(self, name: str, at: int, seed: int) -> None:
        self.world.rng.seed(seed)
        self.world.rng.random()
        self.world.step(name, self.world.devices[at % len(self.world.devices)])

    @rule(at=st.integers(0, 4))
    def look(self, at: int) -> None:
        check_device(self.world, self.world.devices[at % len(self.world.devices)])

    @rule()
    def meet(self) -> None:
        merge_all(self.world)

    def teardown(self) -> None:
        merge_all(self.world)
        self.world.close()
        if self.folder:
            self.folder.cleanup()


class ReplicasOnFiles(Replicas):
    """The same with real repos on real SQLite files."""

    on_files = True


bounds = settings(deadline=None, suppress_health_check=list(HealthCheck), derandomize=True, stateful_step_count=30)
TestReplicas = Replicas.TestCase
TestReplicas.settings = settings(bounds, max_examples=40)
TestReplicasOnFiles = ReplicasOnFiles.TestCase
TestReplicasOnFiles.settings = settings(bounds, max_examples=6)
