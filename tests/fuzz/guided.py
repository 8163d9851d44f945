"""Fuzz every decoder, and what applies updates, guided by the code that a frame reaches:

    python tests/fuzz/guided.py --seconds 60 --only updates

Each target is a process of its own, begins with valid frames and with what corpus/ keeps of it, and ends after so many
seconds. A crash, a hang, an error that it must not raise or too much time or memory fails; the frame is printed as hex.
``--keep`` writes into corpus/ the short frames that reached new code. Needs atheris, which ``make fuzz`` installs where
it can (extra ``fuzz``).
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).parent))
sys.path.append(str(Path(__file__).parents[2]))

CORPUS = Path(__file__).parent / "corpus"
SECONDS = 1.0
"""Processor time of one frame, in code that counts where it goes."""
_KEPT, _KEPT_BYTES = 40, 300
_STRUCTURES = "structures"
_RECORDS = "records that a worker checks"
_CONVERSATION = "a conversation's updates"


class Target(NamedTuple):
    """``take`` raises AssertionError where something is wrong."""

    name: str
    seeds: Callable[[], Sequence[bytes]]
    take: Callable[[bytes], object]


def names() -> list[str]:
    from decoders import DECODERS

    return [*(decoder.name for decoder in DECODERS), *_WHOLE]


def kept(name: str) -> list[bytes]:
    """The frames of a target in corpus/."""
    file = _file(name)
    return [bytes.fromhex(line) for line in file.read_text().split()] if file.exists() else []


def target(name: str) -> Target:
    if name in _WHOLE:
        return _WHOLE[name]()
    import fuzz
    from decoders import DECODERS

    decoder = next(decoder for decoder in DECODERS if decoder.name == name)

    def seeds() -> list[bytes]:
        from hypothesis import Phase, given, settings

        found: list[bytes] = []
        run = settings(max_examples=60, database=None, derandomize=True, phases=(Phase.generate,))(
            given(decoder.frames)(lambda frame: found.append(frame))
        )
        run()
        return [frame for frame in found if len(frame) <= 4096]

    return Target(name, seeds, lambda data: fuzz._refused(decoder, data))


def _structures() -> Target:
    import structures

    def take(data: bytes) -> None:
        report = structures.Report()
        structures.take(structures.Maker(Chosen(data)).schedule(), report)

    return Target(_STRUCTURES, lambda: [random.Random(seed).randbytes(400) for seed in range(50)], take)


def _records() -> Target:
    """Records, and updates of a Yjs page, at a worker of the relay, which holds a document."""
    from decoders import GOOD, updates

    from sync_server.workers.validator_worker import ValidatorWorker

    def take(data: bytes) -> None:
        for order in (b"check", b"merge", b"cover"):
            worker = ValidatorWorker(1 << 20)
            worker.obey(b"loaded", b"yjs", b"d", [GOOD])
            batches = [[data], [data[: len(data) // 2], data]] if order != b"cover" else [[data]]
            for batch in batches:
                state, _, count, *kept = worker.obey(order, b"yjs", b"d", batch)
                assert state in (b"ok", b"bad", b"broken", b"which", b"gone"), state
                assert int(count) == len(kept)
                if state != b"ok":
                    worker.obey(b"loaded", b"yjs", b"d", [GOOD])
                elif order == b"check":
                    assert worker.obey(b"loaded", b"yjs", b"d", [GOOD, *batch])[0] == b"ok", "it can be loaded again"
            worker.obey(b"diff", b"yjs", b"d", [b"\x00"])

    return Target(_RECORDS, lambda: [update for update in updates() if len(update) <= 4096], take)


def _conversation() -> Target:
    """Updates that a device takes into an open conversation. It reads them, writes on, and so does another device."""
    from documents import CLIENT, _merged, facts, sound_document
    from strangers import Stranger

    import llmcrdt
    from llmcrdt.exceptions import LLMCRDTError
    from llmcrdt.ids import new_document_id

    id_ = new_document_id(random.Random(1).randbytes)
    base = _merged(sound_document()[0], facts(id_))

    def take(data: bytes) -> None:
        with llmcrdt.open(":memory:") as repo, llmcrdt.open(":memory:") as other:
            conv, there = repo.join(id_), other.join(id_)
            conv.apply(base)
            conv.transcript()
            try:
                conv.apply(data)
            except LLMCRDTError:
                assert conv.transcript().hash
                return
            assert all(isinstance(entry.text, str) for entry in conv.transcript())
            entry = conv.append("user", "on we go")
            there.apply(conv.diff())
            assert there.transcript().hash == conv.transcript().hash and entry.id in {e.id for e in there.transcript()}

    def seeds() -> list[bytes]:
        found = [Stranger(random.Random(seed)).conversation(base, CLIENT + seed) for seed in range(40)]
        return [update for update in found if len(update) <= 4096]

    return Target(_CONVERSATION, seeds, take)


_WHOLE = {_STRUCTURES: _structures, _RECORDS: _records, _CONVERSATION: _conversation}
"""Targets that are more than a decoder."""


class Chosen:
    """Choices that bytes make; all are the first one when these are at their end."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def randrange(self, stop: int) -> int:
        size = (max(1, stop - 1).bit_length() + 7) // 8
        piece = self._data[self._at : self._at + size]
        self._at += size
        return int.from_bytes(piece, "little") % stop


def _file(name: str) -> Path:
    return CORPUS / f"{name.replace(' ', '-').replace(chr(39), '')}.hex"


# ---------------------------------------------------------------- the process of a target


def _fuzz(name: str, flags: Sequence[str]) -> None:
    import atheris

    with atheris.instrument_imports(include=["llmcrdt", "sync_server"]):
        chosen = target(name)

    def test(data: bytes) -> None:
        for _ in range(3):
            start = time.process_time()
            chosen.take(data)
            took = time.process_time() - start
            if took <= SECONDS:
                return
        raise AssertionError(f"{name} takes {took:.1f} s for {len(data)} bytes, three times")

    atheris.Setup([sys.argv[0], *flags], test)
    atheris.Fuzz()


def run(name: str, seconds: int, *, keep: bool = False) -> str:
    """Fuzz one target; what was done. Raises AssertionError with the frame that it fails on."""
    with tempfile.TemporaryDirectory() as folder:
        seeds, found, wrong = (Path(folder) / each for each in ("seeds", "found", "wrong"))
        for each in (seeds, found, wrong):
            each.mkdir()
        for number, frame in enumerate((*target(name).seeds(), *kept(name))):
            (seeds / str(number)).write_bytes(frame)
        flags = [f"-max_total_time={seconds}", "-timeout=20", "-rss_limit_mb=3000", "-max_len=8192", "-verbosity=0"]
        flags += ["-print_final_stats=1", f"-artifact_prefix={wrong}/", str(found), str(seeds)]
        done = _process(name, flags)
        artifacts = [file for file in wrong.iterdir() if not file.name.startswith("slow-unit")]
        if done.returncode or artifacts:
            frames = "".join(f"{file.name}: {file.read_bytes().hex()}\n" for file in artifacts)
            raise AssertionError(f"{name}: the process ended with {done.returncode}\n{frames}{done.stderr[-3000:]}")
        if keep:
            _keep(name, sorted(found.iterdir(), key=lambda file: file.stat().st_size))
        stats = dict(line[6:].split(": ", 1) for line in done.stderr.splitlines() if line.startswith("stat::"))
        units = int(stats.get("number_of_executed_units", 0))
        return f"{name:30} {units:>9,} frames, {len([*found.iterdir()]):>5} of them reached new code"


def _process(name: str, flags: Sequence[str]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, __file__, "--target", name, "--flags", json.dumps(list(flags))]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    return subprocess.run(command, capture_output=True, text=True, errors="replace", env=environment)


def _keep(name: str, files: Sequence[Path]) -> None:
    """Those that say most in the fewest bytes: of what was kept and what was found, as many as there may be."""
    frames = dict.fromkeys((*kept(name), *(file.read_bytes() for file in files)))
    short = [frame for frame in frames if 0 < len(frame) <= _KEPT_BYTES]
    step = max(1, len(short) // _KEPT)
    CORPUS.mkdir(exist_ok=True)
    _file(name).write_text("".join(f"{frame.hex()}\n" for frame in short[::step][:_KEPT]))


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=60, help="for each target")
    parser.add_argument("--only", default="", help="targets whose name holds this")
    parser.add_argument("--keep", action="store_true", help="write into corpus/")
    parser.add_argument("--target", help=argparse.SUPPRESS)
    parser.add_argument("--flags", type=json.loads, default=[], help=argparse.SUPPRESS)
    args: Any = parser.parse_args(arguments)
    if find_spec("atheris") is None:
        print("atheris is not here (pip install atheris): nothing is fuzzed by what it reaches")
        return 0
    if args.target:
        _fuzz(args.target, args.flags)
    failed = 0
    for name in names():
        if args.only in name:
            try:
                print(run(name, args.seconds, keep=args.keep), flush=True)
            except AssertionError as error:
                failed += 1
                print(error, flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
