"""Many schedules, in several processes."""

from __future__ import annotations

import logging
import os
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from multiprocessing import get_context
from typing import NamedTuple, NoReturn

_PROGRESS = 20.0
"""Seconds between two words on how far it is."""


class Failure(NamedTuple):
    seed: int
    trace: str


class Outcome(NamedTuple):
    """``ran`` schedules held, and did all that in ``done``. ``failure`` ended it, or somebody did: then ``next`` is the
    seed to go on with, all before it having held."""

    ran: int
    done: Counter[str]
    failure: Failure | None
    next: int


def same_hashes() -> None:
    """Sets of strings have another order in each process, unless it is told which: start this one anew so. A seed
    decides nothing without."""
    if os.environ.get("PYTHONHASHSEED") != "0":
        sys.stdout.flush()
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, "PYTHONHASHSEED": "0"})


def run_many(run: Callable[[int], Counter[str]], first: int, count: int, jobs: int, share: int = 250) -> Outcome:
    """Run schedules from the seed ``first`` on, until all have, one fails, or the process is asked to end."""
    start = told = time.monotonic()
    ran, done, ahead, next_ = 0, Counter[str](), dict[int, int](), first
    shares = [range(seed, min(seed + share, first + count)) for seed in range(first, first + count, share)]
    with suppress(KeyboardInterrupt), _interrupted_by_sigterm(), _results(partial(_run, run), shares, jobs) as results:
        for seeds, some, what, failure in results:
            ran += some
            done += what
            if failure:
                return Outcome(ran, done, failure, failure.seed)
            ahead[seeds.start] = seeds.stop
            while next_ in ahead:
                next_ = ahead.pop(next_)
            if time.monotonic() - told > _PROGRESS:
                told = time.monotonic()
                left = (told - start) / ran * (count - ran)
                print(
                    f"{ran:,} of {count:,}, {told - start:.0f} s, {left:.0f} s left; all below {next_} held", flush=True
                )
    return Outcome(ran, done, None, next_)


def go_on(ran: int, next_: int, end: int) -> str:
    """How far a run came that somebody ended."""
    return f"ended after {ran:,} schedules, which held; go on with --seed {next_} --schedules {end - next_}"


@contextmanager
def _results(run: Callable[[range], tuple[object, ...]], shares: Iterable[range], jobs: int) -> Iterator[Iterable]:  # type: ignore[type-arg]
    if jobs == 1:
        yield map(run, shares)
        return
    with get_context("spawn").Pool(jobs, initializer=_begin) as pool:
        yield pool.imap_unordered(run, shares)


def _begin() -> None:
    """In a process of the pool: whoever started it ends it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    logging.disable()


@contextmanager
def _interrupted_by_sigterm() -> Iterator[None]:
    def interrupt(*_: object) -> NoReturn:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _run(run: Callable[[int], Counter[str]], seeds: range) -> tuple[range, int, Counter[str], Failure | None]:
    ran, done = 0, Counter[str]()
    for seed in seeds:
        try:
            done += run(seed)
        except Exception:
            return seeds, ran, done, Failure(seed, traceback.format_exc())
        ran += 1
    return seeds, ran, done, None
