"""Export many merged logs to every format and print how many were valid:
python tests/interop/logs_soak.py --logs 100000 --seed 1 --jobs 2

A failure prints the seed of its schedule; ``--seed SEED --logs 1`` runs that one again.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(1, str(Path(__file__).parents[1] / "sim"))
sys.path.append(str(Path(__file__).parents[2]))
from merged_logs import run_schedule
from sim_many import run_many, same_hashes

_SHARE = 100
"""Schedules that a process runs before it tells of them."""


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--logs", type=int, default=100_000, help="at least so many")
    parser.add_argument("--seed", type=int, default=1, help="of the first schedule; the others follow")
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    args = parser.parse_args(arguments)
    start, seed, done = time.monotonic(), args.seed, Counter[str]()
    while done["logs"] < args.logs:
        count = max(1, min(20 * _SHARE, (args.logs - done["logs"]) // 5))
        ran, more, failure, next_ = run_many(run_schedule, seed, count, args.jobs, share=_SHARE)
        done += more
        if failure:
            print(f"after {done['logs']:,} logs: seed {failure.seed}\n{failure.trace}", file=sys.stderr)
            return 1
        if ran < count:
            print(f"ended after {done['logs']:,} logs, which were valid; go on with --seed {next_}", file=sys.stderr)
            return 130
        seed = next_
        print(f"{done['logs']:,} logs, {time.monotonic() - start:.0f} s, all seeds below {seed}", flush=True)
    print(f"{done['logs']:,} merged logs, {done['exports']:,} exports, seeds {args.seed} to {seed - 1}: 0 invalid")
    print("  ".join(f"{name[3:]} {n:,}" for name, n in sorted(done.items()) if name.startswith("do_")))
    return 0


if __name__ == "__main__":
    same_hashes()
    sys.exit(main())
