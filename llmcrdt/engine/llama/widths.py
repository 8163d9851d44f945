"""How many sequences may go on together so that each gets the bits that it gets alone: tried, for each model.

A row of a matrix product may depend on how many rows there are: kernels differ by it. Measured (llama.cpp on AVX-512,
F16 KV, no flash attention): with weights of 4 or 8 bits in blocks of 32, a row is the same beside any number of others;
with K-quants beside up to two; with F16 and F32 only alone. So in exact mode the widths are used that are alike here.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ...files import replace_file
from .context import Context
from .rows import Rows

_PROMPT, _LONG, _PIECE = 67, 259, 64  # tokens; the second sequence has more cells in use than the others
_STEPS = 6
_here: dict[str, frozenset[int]] = {}  # what this process has found


def try_widths(context: Context, rows: Rows, streams: int, n_vocab: int) -> Iterator[frozenset[int] | None]:
    """Work on an empty ``context``, and on ``rows``, a batch per step; last yields the numbers of sequences that may go
    on together. Empty where even one alone differs from what it is in ``context``: then none may leave that."""
    rng = random.Random(1)
    alone: list[_Alone] = []
    for stream in range(streams):
        context.clear()
        ids = [rng.randrange(n_vocab) for _ in range((_LONG if stream == 1 else _PROMPT) + stream)]
        for at in range(0, len(ids), _PIECE):
            context.evaluate(ids[at : at + _PIECE], logits=True, purpose="settled")
            yield None
        blob = context.export_sequence(streams)
        if blob is None:
            yield frozenset()
            return
        alone.append(_Alone(blob, len(ids), *_go_on(context)))
    alike = set()
    for width in range(1, streams + 1):
        rows.clear()
        taken = [rows.take(each.blob, each.length) for each in alone[:width]]
        equal = None not in taken
        for step in range(_STEPS if equal else 0):
            rows.step([(stream, alone[i].tokens[step]) for i, stream in enumerate(taken) if stream is not None])
            equal = equal and all(rows.logits(i).tobytes() == alone[i].logits[step] for i in range(width))
            yield None
        if equal:
            alike.add(width)
        elif width == 1:
            break
    yield frozenset(alike)


@dataclass(frozen=True)
class _Alone:
    """A sequence of ``length`` tokens, the likeliest ones after it, and the logits after each of those."""

    blob: bytes
    length: int
    tokens: list[int]
    logits: list[bytes]


def _go_on(context: Context) -> tuple[list[int], list[bytes]]:
    """The likeliest tokens: one that is drawn at random may mean nothing to the model, and hide what differs."""
    tokens: list[int] = []
    found: list[bytes] = []
    for _ in range(_STEPS):
        tokens.append(int(context.logits().argmax()))
        context.evaluate(tokens[-1:], logits=True, purpose="sampled")
        found.append(bytes(context.logits().tobytes()))
    return tokens, found


def remembered(name: str, folder: Path | None) -> frozenset[int] | None:
    """The finding under this name, by whatever process; None where there is none."""
    if name in _here:
        return _here[name]
    if folder is not None:
        with contextlib.suppress(OSError, ValueError):
            words = (folder / f"{name}.widths").read_text().split()
            return frozenset(map(int, words))
    return None


def remember(name: str, folder: Path | None, found: frozenset[int]) -> None:
    """Note what was found. A note that can't be written is no error: it only saves time."""
    _here[name] = found
    if folder is not None:
        with contextlib.suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            replace_file(folder / f"{name}.widths", " ".join(map(str, sorted(found))).encode() + b"\n")
