"""Asks while processes of every kind are killed: ``python tests/serve/asks_soak.py --asks 200 --seed 1``."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

sys.path.append(str(Path(__file__).parents[2]))

from tests.serve.asks_world import World


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--asks", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=1)
    given = parser.parse_args()
    for seed in range(given.seed, given.seed + given.rounds):
        began = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="llmcrdt-asks-") as folder:
            world = World(Path(folder), seed, given.asks, say=lambda text: print(text, flush=True))
            happened = world.run()
        print(f"seed {seed}: {given.asks} asks in {time.monotonic() - began:.0f} s held: {dict(happened)}", flush=True)


if __name__ == "__main__":
    main()
