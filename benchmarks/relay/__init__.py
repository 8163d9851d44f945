"""The relay beside the servers people use: throughput, latency, memory, joining; and what compaction costs.

Every server is a process of its own on loopback, fresh for each run; one load generator, another process, speaks to
all: the y-websocket protocol to y-websocket and pycrdt-websocket, Hocuspocus's framing to Hocuspocus, the relay's own
to ours; without compression, but for the kind "deflated", which is what the library's client asks for; Yjs clients
offer it, as browsers do. Ours commits with fsync before it acknowledges or sends on; the others keep documents in
memory and acknowledge nothing. ``streamed`` and ``paced`` have a row for each of our doors: native, Yjs (the frames
that y-websocket gets), and mixed, where the writer is native and the readers are Yjs; ``--door`` leaves the others out.

Scenarios (``--only``):

- ``streamed``: 10 rooms, each a writer and 4 followers. A writer sends a word of 5 letters in each message, as an
  answer is streamed, and goes on while at most 1,000 of its updates are not with all followers. Delivered updates a
  second; also for each second of the server's processor time, which other work on the machine disturbs less.
- ``automerge``: the same rooms at our door for Automerge clients, beside automerge-repo's own server.
- ``paced``: the same rooms, 1,000 updates a second in all. Time from a message's leaving to its arrival, p50 and p99,
  beside a bare fsync of this disk, and a durable commit, which SQLite makes of one.
- ``bursts``: the same, but ten updates at once every 10 ms, as from a model that decodes ten answers in a batch.
- ``crowd``: one writer, 500 readers.
- ``idle``: resident memory of each of 1,000 connections, 10 to a document.
- ``storm``: 200 clients come at once to a document of 10 MB.
- ``slow``: clients that don't read while 16 MB are written: how much the server keeps for them; and whether ours keeps
  more for 1,000 of them, at either door, when 8, 16, 32 or 64 MB are written.
- ``unload``: documents that were opened, written and closed again.
- ``fold``: ours alone: what compacting a log costs, what it saves a new device, how long others wait meanwhile.

Every run is checked: each follower must have got each update once and in order, byte for byte; where a server merges
updates, the document they make must be equal. A run that fails has no figure; a note says why. Rounds are interleaved;
figures are medians over them. The generator compares bytes instead of decoding them; its share of a core is told.
"""

from __future__ import annotations

import argparse
from dataclasses import replace

from ..report import Report
from . import folding
from .generator import Failed
from .scenarios import DOORS, QUICK, SCENARIOS, Bench, Sizes, choose
from .servers import KINDS, has_proc


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--quick", action="store_true", help="small sizes, one round: whether it works")
    parser.add_argument("--rounds", type=int, help="rounds of the timed scenarios (default 3)")
    parser.add_argument("--only", action="append", choices=[*SCENARIOS, "fold"], help="this scenario; may be repeated")
    names = [kind.name for kind in KINDS]
    parser.add_argument("--server", action="append", choices=names, help="this server; may be repeated")
    doors = tuple(DOORS.values())
    parser.add_argument("--door", action="append", choices=doors, help="this door of ours; may be repeated")
    parser.add_argument("--records", type=int, default=20_000, help="records in the folded document (default 20,000)")


def run(options: argparse.Namespace) -> Report:
    report = Report("relay")
    sizes = QUICK if options.quick else Sizes()
    if options.rounds:
        sizes = replace(sizes, rounds=options.rounds)
    if not has_proc():
        report.notes.append("This system doesn't tell what a process uses: figures of memory and processor time are 0.")
    kinds = [*choose(report, options.server or [kind.name for kind in KINDS])]
    bench = Bench(report, kinds, sizes, options.door or tuple(DOORS.values()))
    for name, scenario in SCENARIOS.items():
        if not options.only or name in options.only:
            scenario(bench)
    if not options.only or "fold" in options.only:
        try:
            folding.measure(report, options.records, sizes.alone)
        except Failed as e:
            report.notes.append(f"fold: no more figures: {e}")
    return report
