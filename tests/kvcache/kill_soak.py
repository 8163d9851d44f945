"""Kill writers of one chunk folder at random moments, and look at what is left:

    python tests/kvcache/kill_soak.py --kills 200 --seed 1
    python tests/kvcache/kill_soak.py --kills 40 --engine

Two processes write and read in one folder; one of them is killed with signal 9, the other goes on, a third looks: every
file is a whole chunk or state that was written, noted by its owner before; what a dead writer was told is stored is
stored; nothing lies there but these, notes, and half-written files of the dead. The same in a folder that is too small,
where both evict; and in one where a writer is alone: there nothing is ever left without what it needs. The moments are
drawn by the seed; where they fall the machine decides.

``--engine``: the writers are engines with a tiny model; in the end another engine answers from their folder, and its
logits are those of one that keeps nothing.
"""

from __future__ import annotations

import argparse
import os
import random
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))
from llmcrdt.kvcache import Chunk, ChunkKey, DiskCache
from llmcrdt.kvcache.owners import NAME, FileOwners
from llmcrdt.testing.chunk_cache_suite import FINGERPRINT, chain, keys_of

CHAINS, LENGTH, PAYLOAD = 60, 8, 40_000
SIZE = chain(1, payload=PAYLOAD)[0].size
ROOMY, TIGHT = 1 << 30, 40 * SIZE
OWNERS = ("one", "other")


def chains() -> list[list[Chunk]]:
    """The writers' material, the same in every process: chunks, and after some of them the recurrent state there."""
    made = [chain(LENGTH, seed=seed, payload=PAYLOAD) for seed in range(CHAINS)]
    for seed, chunks in enumerate(made):
        for at in range(4, LENGTH + 1, 4):
            ids = tuple(token for chunk in chunks[:at] for token in chunk.ids)
            payload, link = random.Random(f"{seed} {at}").randbytes(PAYLOAD), len(chunks[0].ids)
            chunks.append(Chunk.state(FINGERPRINT, ids, payload, link=link, rests=True))
    return made


def write(folder: Path, budget: int, seed: int, told: int) -> None:
    """A writer: puts chains, reads some back, and says on ``told`` (a pipe) what is stored. Never returns."""
    rng, cache, everything = random.Random(seed), DiskCache(folder, budget), chains()
    while True:
        owner, chunks = rng.choice(OWNERS), rng.choice(everything)
        cache.owners.claim(owner, keys_of(chunks))
        for chunk in chunks:
            found = cache.get(chunk.key) if rng.random() < 0.3 else chunk
            if found not in (None, chunk):
                os._exit(3)
            if chunk.needs and not cache.match([ChunkKey(chunk.needs)]):
                continue  # as an engine does: it stores after what it stands on
            if cache.put(chunk):
                os.write(told, chunk.key)


def fork(work: Callable[[int], None]) -> tuple[int, int]:
    """A child at ``work``; its id, and the pipe it writes to. It never comes back from here."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.close(reading)
        try:
            work(writing)
        except BaseException as error:
            print(f"a writer failed: {error!r}", file=sys.stderr, flush=True)
        os._exit(4)
    os.close(writing)
    return child, reading


class Folder:
    """One folder, and what its writers were told."""

    def __init__(self, path: Path, budget: int, writers: int) -> None:
        self.path, self.budget, self.writers = path, budget, writers
        self.known = {chunk.key: chunk for chunks in chains() for chunk in chunks}
        self.told: set[ChunkKey] = set()
        self.killed = 0

    def write_and_kill(self, rng: random.Random) -> None:
        """The writers begin; one after the other is killed, while the rest goes on for a moment."""
        seeds = [rng.randrange(1 << 30) for _ in range(self.writers)]
        writers = [fork(lambda told, seed=seed: write(self.path, self.budget, seed, told)) for seed in seeds]  # type: ignore[misc]
        try:
            for _, pipe in writers:
                self.hear(pipe, wait=30)
            while writers:
                time.sleep(rng.random() * 0.02)
                self.end(*writers.pop(0))
                self.look(others=bool(writers))
        finally:
            for writer in writers:
                self.end(*writer)

    def end(self, child: int, pipe: int) -> None:
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        self.hear(pipe)
        os.close(pipe)
        self.killed += 1
        assert os.WIFSIGNALED(status), f"a writer ended by itself, with {os.waitstatus_to_exitcode(status)}"

    def hear(self, pipe: int, wait: float = 0) -> None:
        """Take what a writer said; ``wait``: until it says something at all."""
        assert not wait or select.select([pipe], [], [], wait)[0], "a writer says nothing"
        while select.select([pipe], [], [], 0)[0] and (data := os.read(pipe, 32 * 1024)):
            self.told |= {ChunkKey(data[at : at + 32]) for at in range(0, len(data), 32)}

    def look(self, *, others: bool = False) -> None:
        """Check all of it, by a cache that has seen nothing yet. ``others``: writers are still at work."""
        cache = DiskCache(self.path, self.budget)
        before = set(self.told)
        present = {key for key in self.known if cache.match([key])}
        for key in present:
            found = cache.get(key)
            assert found == self.known[key] or (found is None and others and self.budget == TIGHT), "a wrong hit"
        assert cache.stats()["bad"] == 0, "a file that is no whole chunk"
        if self.budget == ROOMY:
            assert before <= present, "a chunk that was stored is lost"
        elif not others:
            assert cache.stats()["held_bytes"] <= self.budget * 1.1
        if self.writers == 1:
            needed = {self.known[key].needs for key in present} - {None}
            assert needed <= present, "a chunk or state without what it needs"
        noted = set().union(*(FileOwners(self.path).owned(owner) for owner in OWNERS))
        assert present <= noted, "a chunk that nobody owns"
        strange = [
            path.name
            for path in self.path.iterdir()
            if path.suffix not in (".kv", ".tmp") and not NAME.match(path.name)
        ]
        assert strange == [], "there is no index, nor anything else"
        halves = len(list(self.path.glob("*.tmp")))
        assert others or halves <= self.killed, "a half-written file for each kill at most"


def soak(kills: int, seed: int) -> str:
    """Kill that many writers, a third of them in each kind of folder."""
    rng = random.Random(seed)
    with tempfile.TemporaryDirectory() as made:
        kinds = (("roomy", ROOMY, 2), ("tight", TIGHT, 2), ("alone", TIGHT, 1))
        folders = [Folder(Path(made) / name, budget, writers) for name, budget, writers in kinds]
        while sum(folder.killed for folder in folders) < kills:
            folder = min(folders, key=lambda folder: folder.killed)
            folder.write_and_kill(rng)
        halves = sum(len(list(folder.path.glob("*.tmp"))) for folder in folders)
        told = ", ".join(f"{len(folder.told)} of {len(folder.known)} chunks ({folder.path.name})" for folder in folders)
    return f"{kills} kills, seed {seed}: nothing lost, no bad hit; stored {told}; {halves} writes were cut short"


ENGINE = """
import random, sys
from pathlib import Path
from llmcrdt.engine.llama.engine import LlamaEngine
engine = LlamaEngine(Path(sys.argv[1]), Path(sys.argv[2]), n_threads=1, cache_memory=0)
rng = random.Random(int(sys.argv[3]))
print("ready", flush=True)
while True:
    base = random.Random(rng.randrange(6))
    ids = [base.randrange(261, 780) for _ in range(400)]
    engine.logits(ids[: rng.randrange(100, 400)]).result()
"""


def soak_engines(kills: int, seed: int, arch: str) -> str:
    """Kill engines; then answer from what they left."""
    import numpy as np

    from llmcrdt.engine.llama.engine import LlamaEngine
    from llmcrdt.kvcache import NullCache
    from llmcrdt.testing.models import write_model

    rng = random.Random(seed)
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    with tempfile.TemporaryDirectory() as made:
        model, cache = write_model(Path(made) / "model.gguf", arch, quant="F16"), Path(made) / "cache"
        for n in range(0, kills, 2):
            command = [sys.executable, "-c", ENGINE, str(model), str(cache)]
            writers = [
                subprocess.Popen([*command, str(seed + n + i)], stdout=subprocess.PIPE, env=env) for i in range(2)
            ]
            for writer in writers:
                assert writer.stdout is not None
                assert writer.stdout.readline() == b"ready\n"
            for writer in writers:
                time.sleep(rng.random() * 0.05)
                writer.send_signal(signal.SIGKILL)
                assert writer.wait() == -signal.SIGKILL
                assert writer.stdout is not None
                writer.stdout.close()
                assert DiskCache(cache / "chunks").verify()["bad"] == 0, "a file that is no whole chunk"
        reused = 0
        with LlamaEngine(model, cache, n_threads=1) as left, LlamaEngine(model, NullCache(), n_threads=1) as cold:
            for base in map(random.Random, range(6)):
                ids = [base.randrange(261, 780) for _ in range(400)]
                reused += left.plan(ids).reused
                assert np.array_equal(left.logits(ids).result(), cold.logits(ids).result()), "other logits"
    return f"{kills} engines killed ({arch}), seed {seed}: {reused} tokens of 2400 reused, every logit the same"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--engine", action="store_true", help="kill engines, not bare caches (a second for each)")
    parser.add_argument("--arch", default="llama", help="of the engines' model: llama, gemma3, mamba2, lfm2")
    args = parser.parse_args()
    began = time.monotonic()
    found = soak_engines(args.kills, args.seed, args.arch) if args.engine else soak(args.kills, args.seed)
    print(f"{found}; {time.monotonic() - began:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
