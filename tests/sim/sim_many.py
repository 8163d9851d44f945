"""Many schedules, in several processes."""

from __future__ import annotations

import logging
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable
from functools import partial
from multiprocessing import get_context
from typing import NamedTuple


class Failure(NamedTuple):
    seed: int
    trace: str


def run_many(
    run: Callable[[int], Counter[str]], first: int, count: int, jobs: int, share: int = 250
) -> tuple[int, Counter[str], Failure | None]:
    """Run schedules from the seed ``first`` on: how many ran, what was done, and a failure, at which it ends."""
    start, ran, done = time.monotonic(), 0, Counter[str]()
    shares = [range(seed, min(seed + share, first + count)) for seed in range(first, first + count, share)]
    with get_context("spawn").Pool(jobs, initializer=logging.disable) as pool:
        for some, what, failure in pool.imap_unordered(partial(_run, run), shares):
            before, ran = ran, ran + some
            done += what
            if failure:
                return ran, done, failure
            if ran // (40 * share) > before // (40 * share):
                print(f"{ran:,} schedules, {time.monotonic() - start:.0f} s", flush=True)
    return ran, done, None


def _run(run: Callable[[int], Counter[str]], seeds: Iterable[int]) -> tuple[int, Counter[str], Failure | None]:
    ran, done = 0, Counter[str]()
    for seed in seeds:
        try:
            done += run(seed)
        except Exception:
            return ran, done, Failure(seed, traceback.format_exc())
        ran += 1
    return ran, done, None
