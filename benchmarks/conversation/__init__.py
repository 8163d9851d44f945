"""Conversations at real sizes, said one entry at a time: how long each thing takes, and how that grows.

Ratios are taken in one run, next to bare pycrdt and bare SQLite with the same bytes. A figure that was taken at several
sizes is that of the largest (10,000 entries, unless ``--full`` or ``--sizes`` says otherwise); beside it stands the
exponent of n with which it grows, fitted over the sizes.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
from pathlib import Path

from ..report import Report
from . import history, kinds, library, shelf, wire
from .talk import words

__all__ = ["add_arguments", "run", "words"]

SIZES = (1_000, 2_000, 5_000, 10_000)
FULL = 50_000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--sizes", type=_sizes, default=SIZES, help="entries of the conversations (default 1000,...)")
    parser.add_argument("--full", action="store_true", help=f"one of {FULL:,} entries too")
    parser.add_argument("--quick", action="store_true", help="everything small: whether it runs, no figures to read")
    parser.add_argument("--only", default="", help="groups of rows: history,kinds,shelf,library,wire")
    parser.add_argument(
        "--patience", type=float, default=20, help="seconds that one row may take before it is left out at larger sizes"
    )
    parser.add_argument("--search", type=int, default=100_000, help="entries to search in (default 100,000)")
    parser.add_argument("--conversations", type=int, default=2_000, help="conversations of a library (default 2,000)")
    parser.add_argument("--entries", type=int, default=20, help="entries of each of them (default 20)")
    parser.add_argument("--megabytes", type=float, default=100, help="of an export that is imported (default 100)")
    parser.add_argument("--appends", type=int, default=200, help="appends that are timed beside SQLite (default 200)")
    parser.add_argument("--tokens", type=int, default=2_000, help="tokens of the streamed answer (default 2,000)")


def run(options: argparse.Namespace) -> Report:
    if options.quick:
        options.sizes, options.full = (40, 80), False
        options.search, options.conversations, options.appends, options.tokens = 50, 3, 3, 20
        options.entries, options.megabytes = 4, 0.1
    sizes = (*options.sizes, FULL) if options.full else options.sizes
    report = Report("conversation")
    chosen = set(options.only.split(",")) if options.only else {"history", "kinds", "shelf", "library", "wire"}
    with tempfile.TemporaryDirectory(prefix="llmcrdt-bench-") as folder:
        path = Path(folder)
        if "history" in chosen:
            history.measure(report, path, sizes, appends=options.appends, patience=options.patience)
        if "kinds" in chosen:
            kinds.measure(report, path, size=max(options.sizes), appends=options.appends)
        if "shelf" in chosen:
            shelf.measure(report, path, search=options.search, conversations=options.conversations)
        if "wire" in chosen:
            wire.measure(report, path, tokens=options.tokens)
        if "library" in chosen:
            many = options.conversations
            library.measure(report, path, conversations=many, entries=options.entries, megabytes=options.megabytes)
    report.add("peak memory of this process", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, "MiB")
    return report


def _sizes(text: str) -> tuple[int, ...]:
    return tuple(sorted(int(size) for size in text.split(",")))
