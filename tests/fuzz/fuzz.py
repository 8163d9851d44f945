"""Feed every decoder with valid frames that were changed, and a repo with strangers' documents (documents.py):

    python tests/fuzz/fuzz.py --frames 1000000 --only wire

Hypothesis makes the valid frames; each is changed in many ways. A failure prints the frame as hex. ``--only NAME``
takes the decoders whose names hold that word ("documents": just those). Printed of each is how many frames it
refused, the longest that it took, and the most memory it needed.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent))
sys.path.append(str(Path(__file__).parents[2]))
import documents
from decoders import DECODERS, Decoder
from mutate_bytes import mutant

MUTANTS = 100
"""Of each valid frame."""
_SAMPLE = 50
"""Of so many frames one is watched for memory and for work, which takes a hundred times as long."""
LIMIT_MS = 10.0


@dataclass
class Report:
    """The most seen of one decoder: the longest that a frame took, best of five; the most memory beyond four times the
    frame, and where frames are large, in frames; the most calls of functions, beyond the ones each byte may take."""

    frames: int = 0
    refused: int = 0
    worst_ms: float = 0.0
    worst: bytes = b""
    memory: int = 0
    calls: int = 0
    kinds: set[str] = field(default_factory=set)


class Broken(AssertionError):
    """A decoder did what it must not. Says with which bytes."""


def feed(decoder: Decoder, frame: bytes, report: Report, *, clock: bool, watch: bool) -> None:
    """One frame. Raises Broken."""
    report.frames += 1
    if watch:
        _watch(decoder, frame, report)
        return
    start = time.process_time_ns() if clock else 0
    report.refused += _refused(decoder, frame)
    if clock and (took := (time.process_time_ns() - start) / 1e6) > max(report.worst_ms, 1.0):
        # A busy machine makes one call slow, but hardly five.
        took = min(took, *(_timed(decoder, frame) for _ in range(4)))
        if took > report.worst_ms:
            report.worst_ms, report.worst = took, frame


def _refused(decoder: Decoder, frame: bytes) -> bool:
    try:
        decoder.decode(frame)
    except decoder.refusals:
        return True
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        raise Broken(f"{decoder.name}: {type(error).__name__}: {error}; frame {frame.hex()}") from error
    return False


def _timed(decoder: Decoder, frame: bytes) -> float:
    start = time.process_time_ns()
    _refused(decoder, frame)
    return (time.process_time_ns() - start) / 1e6


def _watch(decoder: Decoder, frame: bytes, report: Report) -> None:
    calls = _calls(lambda: _refused(decoder, frame))
    beyond = int(calls - decoder.per_byte * len(frame))
    if beyond > decoder.calls:
        raise Broken(f"{decoder.name}: {calls} calls for {len(frame)} bytes; frame {frame.hex()}")
    report.calls = max(report.calls, beyond)
    tracemalloc.start()
    try:
        report.refused += _refused(decoder, frame)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    more = peak - 4 * len(frame)
    if more > decoder.memory:
        raise Broken(f"{decoder.name}: {peak} bytes of memory for {len(frame)}; frame {frame.hex()}")
    report.memory = max(report.memory, more)


def _calls(run: Callable[[], object]) -> int:
    """How many functions of Python are called: work that no other process changes."""
    count = 0

    def on(frame: object, event: str, argument: object) -> None:
        nonlocal count
        count += event == "call"

    sys.setprofile(on)
    try:
        run()
    finally:
        sys.setprofile(None)
    return count


def fuzz(decoder: Decoder, frames: int, *, clock: bool = False) -> Report:
    """So many frames, about: valid ones of Hypothesis, each with its mutants. Raises Broken."""
    report = Report()
    others = [bytes([0])]

    @settings(
        max_examples=max(1, frames // MUTANTS), deadline=None, database=None, derandomize=True,
        suppress_health_check=list(HealthCheck), phases=(Phase.generate,),
    )  # fmt: skip
    @given(decoder.frames, st.integers(0, 2**32))
    def run(frame: bytes, seed: int) -> None:
        rng = random.Random(seed)
        others.append(frame)
        del others[:-50]
        if _refused(decoder, frame):
            report.kinds.add("a valid frame was refused")
        feed(decoder, frame, report, clock=clock, watch=True)
        for n in range(MUTANTS):
            feed(decoder, mutant(frame, others, rng), report, clock=clock, watch=n % _SAMPLE == 0)

    _refused(decoder, b"")  # whatever is made once
    while report.frames < frames:
        before = report.frames
        run()
        if report.frames - before >= frames or frames < MUTANTS:
            break
    return report


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=1_000_000, help="for the wire; a tenth for each of the others")
    parser.add_argument("--only", default="", help="decoders whose name holds this, or documents")
    parser.add_argument("--documents", type=int, default=2000, help="whole documents of strangers")
    args = parser.parse_args(arguments)
    slow = False
    for decoder in DECODERS:
        if args.only in decoder.name:
            start = time.monotonic()
            frames = args.frames if decoder.name == "wire" or args.only else args.frames // 10
            report = fuzz(decoder, frames, clock=True)
            late = report.worst_ms > LIMIT_MS
            slow = slow or late
            print(
                f"{decoder.name:26} {report.frames:>9,} frames, {report.refused / report.frames:4.0%} refused; longest"
                f" {report.worst_ms:6.2f} ms ({len(report.worst):,} bytes); memory 4x frame {report.memory:+,} bytes;"
                f" {time.monotonic() - start:.0f} s{'  TOO LONG' if late else ''}",
                flush=True,
            )
    broken = args.only in "documents" and documents.main(["--documents", str(args.documents)])
    return 1 if slow or broken else 0


if __name__ == "__main__":
    sys.exit(main())
