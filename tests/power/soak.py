"""Lose the power of clients, relays and operators' commands:  python tests/power/soak.py --states 6000 --seed 1

Each recording has so many steps and gives so many disks. A failure names its seed: with ``--only``, ``--seed`` and
``--steps`` as they were, one recording of the same steps is made; how its threads take turns is not in the seed.
"""

from __future__ import annotations

import argparse
import logging
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from power_loss import RECORDINGS, recorder


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--states", type=int, default=6_000, help="disks to look at, in all")
    parser.add_argument("--each", type=int, default=250, help="disks of one recording")
    parser.add_argument("--steps", type=int, default=80, help="of one recording")
    parser.add_argument("--seed", type=int, default=1, help="of the first recordings; the others follow")
    parser.add_argument("--only", choices=RECORDINGS, action="append", help="(default: all)")
    args = parser.parse_args(arguments)
    logging.disable()
    began, left, seed = time.monotonic(), args.states, args.seed
    while left > 0:
        for name in args.only or RECORDINGS:
            states = min(args.each, left)
            if states > 0:
                with recorder() as record:
                    print(RECORDINGS[name](record, seed, args.steps).lose_power(states), flush=True)
                left -= states
        seed += 1
    print(f"{args.states:,} power failures in {time.monotonic() - began:.0f} s: every promise held")
    return 0


if __name__ == "__main__":
    sys.exit(main())
