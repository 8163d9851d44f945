"""Run many schedules and print how many held:  python tests/sim/soak.py --schedules 100000 --seed 1 --jobs 2

A failure prints its seed; ``--seed SEED --schedules 1`` runs that one again.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from collections import Counter
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
sys.path.append(str(Path(__file__).parents[2]))
from asks_world import run_asks
from sim_checks import check_device, merge_all
from sim_kinds import KINDS
from sim_many import go_on, run_many, same_hashes
from sim_world import OPERATIONS, WEIGHTS, World

_WEIGHTS = [WEIGHTS.get(name, 1) for name in OPERATIONS]


def run_schedule(
    seed: int, *, folder: Path | None = None, steps: int | None = None, trace: bool = False, crdt: str = "yjs"
) -> Counter[str]:
    """One schedule, decided by its seed. Raises AssertionError where a rule is broken. Returns what was done."""
    rng = random.Random(seed)
    world = World(rng, rng.randint(2, 4), folder, crdt)
    done: Counter[str] = Counter()
    try:
        for _ in range(rng.randint(6, 26) if steps is None else steps):
            name = rng.choices(OPERATIONS, _WEIGHTS)[0]
            device = rng.choice(world.devices)
            done[name] += 1
            if trace:
                print(f"{device.name} {name[3:]}", flush=True)
            world.step(name, device)
            if rng.random() < 0.08 or trace:
                check_device(world, device)
        merge_all(world)
    finally:
        world.close()
    return done


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--schedules", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1, help="of the first schedule; the others follow")
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    parser.add_argument("--crdt", default="yjs", choices=sorted(KINDS), help="the kind of the documents")
    parser.add_argument("--asks", action="store_true", help="of asks, workers, claims and leases alone (asks_world.py)")
    parser.add_argument("--files", action="store_true", help="on real SQLite files, one after the other (slow)")
    parser.add_argument(
        "--trace", action="store_true", help="print each operation of one schedule, and check after each"
    )
    args = parser.parse_args(arguments)
    if args.trace:
        run_schedule(args.seed, trace=True, crdt=args.crdt)
        return 0
    start, count, done = time.monotonic(), 0, Counter[str]()
    if args.files:
        for seed in range(args.seed, args.seed + args.schedules):
            with tempfile.TemporaryDirectory() as folder:
                done += run_schedule(seed, folder=Path(folder), crdt=args.crdt)
            count += 1
        return _report(count, done, time.monotonic() - start)
    run = run_asks if args.asks else partial(run_schedule, crdt=args.crdt)
    ran, done, failure, next_ = run_many(run, args.seed, args.schedules, args.jobs)
    if failure:
        print(f"after {ran:,} schedules: seed {failure.seed}\n{failure.trace}", file=sys.stderr)
        return 1
    if ran < args.schedules:
        print(go_on(ran, next_, args.seed + args.schedules), file=sys.stderr)
        return 130
    return _report(ran, done, time.monotonic() - start)


def _report(count: int, done: Counter[str], seconds: float) -> int:
    print(f"{count:,} schedules, {sum(done.values()):,} operations, {seconds:.0f} s: every rule held")
    print("  ".join(f"{name.removeprefix('do_')} {n:,}" for name, n in sorted(done.items())))
    return 0


if __name__ == "__main__":
    same_hashes()
    sys.exit(main())
