"""Run many histories that hop between providers:  python tests/providers/hop_soak.py --histories 10000 --seed 1

A failure prints its seed; ``--seed SEED --histories 1`` runs that one again.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))
sys.path.insert(0, str(Path(__file__).parents[1] / "sim"))
from sim_many import go_on, run_many, same_hashes


def run(seed: int) -> Counter[str]:
    """One history, decided by its seed."""
    from tests.providers.hops import run_history

    return run_history(seed)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--histories", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1, help="of the first history; the others follow")
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    args = parser.parse_args(arguments)
    start = time.monotonic()
    ran, done, failure, next_ = run_many(run, args.seed, args.histories, args.jobs, share=50)
    if failure:
        print(f"after {ran:,} histories: seed {failure.seed}\n{failure.trace}", file=sys.stderr)
        return 1
    if ran < args.histories:
        print(go_on(ran, next_, args.seed + args.histories), file=sys.stderr)
        return 130
    print(f"{ran:,} histories, {time.monotonic() - start:.0f} s: nothing refused, nothing lost, every drop told")
    print("  ".join(f"{name} {n:,}" for name, n in sorted(done.items())))
    return 0


if __name__ == "__main__":
    same_hashes()
    sys.exit(main())
