"""Damage stored chunks in every way that comes to mind, and see that no answer changes:

    python tests/engine/llama/damage_soak.py --chunks 10000 --seed 1

Over four kinds of memory (full attention, sliding window, recurrent, hybrid), an engine without a memory tier is asked
again and again for the logits of one prompt, each time after one stored file was harmed:

- *damaged*: bits flip, ends go missing, blocks are zero or from elsewhere. Always noticed by key or digest.
- *forged frames*: the payload's frame or the header lies, and key and digest are made to fit, as somebody could who
  may write in the folder. Refused before llama.cpp sees them, or by llama.cpp.
- *forged numbers*: the KV numbers themselves are others, and the digest fits. No check can tell, and answers may
  change; nothing crashes, and once such files are gone and the context is emptied, the answers are right again.
"""

from __future__ import annotations

import argparse
import random
import struct
import sys
import tempfile
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[3]))
from llmcrdt.engine.llama.engine import LlamaEngine
from llmcrdt.kvcache.chunk_file import HEADER_BYTES, decode, encode
from llmcrdt.testing.models import write_model

KINDS = ("llama", "gemma3", "mamba2", "lfm2")
CELLS = 64
FRAME = 16 + 12 * CELLS
"""The first bytes of an attention payload: magic, sequence, streams, cells, and position and sequence of each cell."""
STATE_FRAME = 20
"""Of a recurrent one, shorter."""


def damaged(rng: random.Random, good: bytes) -> bytes:
    """One of the things that happen to files."""
    data = bytearray(good)
    at = rng.randrange(len(data) if rng.random() < 0.5 else min(len(data), HEADER_BYTES + 700))
    kind = rng.randrange(6)
    if kind == 0:
        data[at] ^= 1 << rng.randrange(8)
    elif kind == 1:
        del data[at:]
    elif kind == 2:
        data[at : at + 64] = bytes(len(data[at : at + 64]))
    elif kind == 3:
        data[at : at + 4] = struct.pack("<I", rng.choice([0, 1, 0xFFFFFFFF, 0x7FFFFFFF, 0x80000000]))
    elif kind == 4:
        data += rng.randbytes(rng.randrange(1, 100))
    else:
        block = good[at : at + rng.randrange(1, 200)]
        to = rng.randrange(len(data))
        data[to : to + len(block)] = block
    return bytes(data)


def forged_frame(rng: random.Random, good: bytes) -> bytes:
    """A chunk that lies about where it belongs or what it holds, with a key and a digest that fit."""
    chunk = decode(good)
    kind = rng.randrange(8)
    if kind == 0 and not chunk.link:
        chunk = replace(chunk, position=rng.choice([0, 1, 64, 128, 2**40]) + chunk.position)
    elif kind == 1:
        chunk = replace(chunk, payload=chunk.payload[: rng.randrange(len(chunk.payload))])
    elif kind == 2:
        chunk = replace(chunk, payload=chunk.payload + rng.randbytes(rng.randrange(1, 100)))
    else:
        payload = bytearray(chunk.payload)
        # Positions are what llama.cpp doesn't check; the type of a row, later on, it does.
        at = rng.randrange(STATE_FRAME if is_recurrent(payload) else FRAME)
        if kind < 5:
            payload[at] ^= 1 << rng.randrange(8)
        else:
            at -= at % 4
            payload[at : at + 4] = struct.pack("<I", rng.choice([0, 1, 5, 63, 64, 0xFFFFFFFF, 0x7FFFFFFF, 0x80000000]))
        chunk = replace(chunk, payload=bytes(payload))
    return encode(chunk)


def is_recurrent(payload: bytes | bytearray) -> bool:
    """Whether a payload has the one cell of recurrent state where attention has a stream of many."""
    return int.from_bytes(payload[12:16], "little") != CELLS


def forged_numbers(rng: random.Random, good: bytes) -> bytes:
    chunk = decode(good)
    payload = bytearray(chunk.payload)
    for _ in range(rng.choice([1, 10, 1000])):
        at = rng.randrange(FRAME + 200, len(payload) - 4) if len(payload) > FRAME + 204 else len(payload) - 4
        payload[at : at + 4] = rng.choice(
            [rng.randbytes(4), b"\xff\x7f\xff\x7f", b"\x00\x7e\x00\x7e", b"\xff\xff\xff\xff"]
        )
    return encode(replace(chunk, payload=bytes(payload)))


class Patient:
    """An engine that has only its folder to remember by, and a prompt whose logits are known."""

    def __init__(self, arch: str, folder: Path) -> None:
        rng = random.Random(arch)
        self.ids = [rng.randrange(261, 780) for _ in range(150)]
        self.other = [rng.randrange(261, 780) for _ in range(3)]
        model = write_model(folder / f"{arch}.gguf", arch, quant="F16")
        self.engine = LlamaEngine(model, folder / "cache", cache_memory=0, n_threads=1)
        self.truth = self.engine.logits(self.ids).result()
        self.settle()
        self.good = {file: file.read_bytes() for file in (folder / "cache" / "chunks").glob("*.kv")}
        self.files = sorted(self.good)
        self.count: Counter[str] = Counter()

    def settle(self) -> None:
        assert self.engine.settled(120)

    def noticed(self) -> int:
        stats = self.engine.stats()
        return int(
            stats["cache"]["disk_bad"] + sum(n for name, n in stats.items() if name.startswith("chunks_rejected"))
        )

    def suffer(self, kind: str, file: Path, bad: bytes) -> None:
        """Harm a file, ask, and heal. Raises AssertionError where an answer changes that mustn't."""
        if bad == self.good[file]:
            return
        before = self.noticed()
        file.write_bytes(bad)
        self.engine.logits(self.other).result()  # nothing of the prompt is live now
        answer = self.engine.logits(self.ids).result()
        self.settle()
        self.count[kind] += 1
        self.count[f"{kind}, noticed"] += self.noticed() > before
        if kind != "forged numbers":
            assert np.array_equal(answer, self.truth), f"{kind}: another answer, after {file.name}"
            assert self.noticed() > before or file.read_bytes() == bad, "neither noticed nor left alone"
            self.heal(file)
            return
        for each in self.files:  # what was computed from it is as false
            each.unlink(missing_ok=True)
        self.engine.forget("nobody").result()  # a NaN in a cell that is masked is a NaN all the same
        assert np.array_equal(self.engine.logits(self.ids).result(), self.truth), "it is gone, and still there"
        self.settle()
        for each in self.files:
            self.heal(each)

    def heal(self, file: Path) -> None:
        if not file.exists() or file.read_bytes() != self.good[file]:
            file.write_bytes(self.good[file])
            self.count["healed by hand"] += 1


def soak(arch: str, chunks: int, seed: int) -> Counter[str]:
    """Harm that many: 60 of 100 damaged, 35 with frames forged, 5 with numbers. Counts what was done, and noticed."""
    rng = random.Random(f"{arch} {seed}")
    with tempfile.TemporaryDirectory() as made:
        patient = Patient(arch, Path(made))
        try:
            for n in range(chunks):
                file = rng.choice(patient.files)
                kind, make = (
                    ("damaged", damaged) if n % 20 < 12 else
                    ("forged frames", forged_frame) if n % 20 < 19 else
                    ("forged numbers", forged_numbers)
                )  # fmt: skip
                patient.suffer(kind, file, make(rng, patient.good[file]))
        finally:
            patient.engine.close()
    return patient.count


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chunks", type=int, default=10_000, help="how many to harm, over all kinds of memory")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    began = time.monotonic()
    for arch in KINDS:
        count = soak(arch, args.chunks // len(KINDS), args.seed)
        print(f"{arch}: {', '.join(f'{name} {n}' for name, n in sorted(count.items()))}", flush=True)
    print(f"no crash, no other answer where none may be; seed {args.seed}, {time.monotonic() - began:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
