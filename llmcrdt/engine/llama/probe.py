"""Whether a model is exact here: its state evaluated, cut back, restored and evaluated in other batches, bit for bit.

That state does not depend on how it came to be was measured for the kinds of models this library knows, on processors
it was tried on. So each model is asked once per machine, build and settings, with two chunks of tokens; the answer is
remembered by its fingerprint, which names all of these.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from ...files import replace_file
from .context import BATCH, Context

Exactness = Literal["exact", "approximate", "unknown"]
_TAIL = 3
_WORDS: dict[str, Exactness] = {"exact": "exact", "approximate": "approximate"}
_here: dict[bytes, Exactness] = {}  # what this process has found


def probe(context: Context, chunk: int, n_vocab: int) -> Iterator[bool | None]:
    """Work on an empty ``context`` for at least 2 * ``chunk`` + 3 tokens, a batch or less per step; last yields whether
    all that had to be equal was. State that can't be exported can't be restored wrongly either: that is left out."""
    ids = [(7919 * i + 11) % n_vocab for i in range(2 * chunk + _TAIL)]
    edge, recurrent = 2 * chunk, context.shape.recurrent

    def evaluate(start: int, stop: int, *, logits: bool = False) -> None:
        context.evaluate(ids[start:stop], logits=logits, purpose="settled")

    def answer() -> bytes:
        evaluate(edge, len(ids), logits=True)
        return bytes(context.logits().tobytes())

    def state() -> list[bytes | None]:
        pieces = [context.export(at, at + chunk) for at in (0, chunk)] if context.shape.attention else []
        return [*pieces, *([context.export_state()] if recurrent else [])]

    def restore(pieces: list[bytes | None]) -> bool:
        context.clear(data=True)
        chunks = pieces[:2] if context.shape.attention else []
        places = enumerate(chunks)
        whole = all(piece is not None and context.load(piece, chunk * i, chunk * (i + 1)) for i, piece in places)
        last = pieces[-1]
        return whole and (not recurrent or (last is not None and context.load_state(last, edge)))

    evaluate(0, chunk)
    yield None
    evaluate(chunk, edge)
    stored = state()
    truth = answer()
    yield None
    equal = []
    if context.shape.can_cut and context.cut(edge):
        equal.append(answer() == truth)
        yield None
    if None not in stored:
        equal.append(restore(stored) and answer() == truth)
        yield None
    context.clear(data=True)
    if chunk >= 64 and edge <= BATCH:  # narrower ones are never joined
        evaluate(0, edge)
        equal.append(state() == stored and answer() == truth)
    yield all(equal)


def remembered(fingerprint: bytes, folder: Path | None) -> Exactness:
    """The finding for this fingerprint, by whatever process."""
    if fingerprint in _here:
        return _here[fingerprint]
    if folder is not None:
        with contextlib.suppress(OSError, ValueError):
            text = (folder / fingerprint.hex()).read_text().strip()
            return _WORDS.get(text, "unknown")
    return "unknown"


def remember(fingerprint: bytes, folder: Path | None, found: Exactness) -> None:
    """Note what was found. A note that can't be written is no error: it only saves time."""
    _here[fingerprint] = found
    if folder is None:
        return
    with contextlib.suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        replace_file(folder / fingerprint.hex(), f"{found}\n".encode())
