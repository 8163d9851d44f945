"""The plan: which KV state is at hand, what is loaded, what is evaluated, in which batches. Pure.

Bits of KV state depend on the shape of the batch that made it. So there is one canonical way to make it: batches that
start at a multiple of C and are multiples of C long. Only what was made that way is stored or built upon. The tail that
gives the logits begins at the last multiple of C that leaves it two tokens or more (a batch of one token takes other
kernels): C * floor((total - 2) / C). It is 2 to C + 1 tokens long.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import pairwise


@dataclass(frozen=True)
class Batch:
    """Tokens ``start`` to ``stop``, evaluated together. ``canonical``: its chunks may be stored and built upon."""

    start: int
    stop: int
    canonical: bool

    def __len__(self) -> int:
        return self.stop - self.start


@dataclass(frozen=True)
class Live:
    """The content of the context: canonical state of ``ids``. ``extra``: more tokens after them, not canonical.

    A context that can't be cut (``can_cut`` False: recurrent state) is of use only as it stands.
    """

    ids: tuple[int, ...] = ()
    extra: bool = False
    can_cut: bool = True


@dataclass(frozen=True)
class Steps:
    """Keep ``live`` tokens of the context (cut off the rest), load chunks up to ``reused``, evaluate ``batches``."""

    total: int
    live: int
    reused: int
    batches: tuple[Batch, ...]

    @property
    def evaluate(self) -> int:
        return self.total - self.reused


def reusable(total: int, chunk: int) -> int:
    """The most tokens of ``total`` that may come from stored state, where logits are wanted: at least two are left."""
    return chunk * ((total - 2) // chunk) if total >= 2 else 0


def keep_live(live: Live, ids: Sequence[int], chunk: int, limit: int) -> int:
    """How many tokens of the context can stand: a multiple of ``chunk``, at most ``limit``."""
    kept = 0
    top = min(limit, len(live.ids), len(ids))
    while kept + chunk <= top and tuple(ids[kept : kept + chunk]) == live.ids[kept : kept + chunk]:
        kept += chunk
    if not live.can_cut and (live.extra or kept != len(live.ids)):
        return 0
    return kept


def plan_prompt(total: int, live: int, cached: int, chunk: int, widest: int, stops: Collection[int] = ()) -> Steps:
    """Steps to the logits after ``total`` tokens.

    ``live`` and ``cached`` are tokens (multiples of ``chunk``) that the context and the cache have from the start on;
    ``widest`` is the longest canonical batch, a multiple of ``chunk``. No batch goes past one of ``stops``, multiples
    of ``chunk``: what stands there is wanted.
    """
    base = reusable(total, chunk)
    kept = min(live, base)
    reused = max(kept, min(cached, base))
    tail = (Batch(base, total, total - base == chunk),) if total else ()
    return Steps(total, kept, reused, (*_canonical(reused, base, widest, stops), *tail))


def plan_settle(total: int, live: int, cached: int, chunk: int, widest: int, stops: Collection[int] = ()) -> Steps:
    """Steps to canonical state of every whole chunk in ``total`` tokens, where no logits are wanted."""
    whole = chunk * (total // chunk)
    kept = min(live, whole)
    reused = max(kept, min(cached, whole))
    return Steps(whole, kept, reused, _canonical(reused, whole, widest, stops))


def chunks_of(batch: Batch, chunk: int) -> list[tuple[int, int]]:
    """The ranges of tokens to store once ``batch`` was evaluated."""
    return [(at, at + chunk) for at in range(batch.start, batch.stop, chunk)] if batch.canonical else []


def chunk_length(window: int, default: int = 64) -> int:
    """Tokens per chunk for a model with a sliding window of ``window`` (0: none); 0 where no chunk is safe.

    A chunk longer than the window would lose its first tokens on the way out of llama.cpp, silently.
    """
    if window <= 0 or window >= default:
        return default
    length = 1 << (window.bit_length() - 1)
    return length if length >= 8 else 0


def _canonical(start: int, stop: int, widest: int, stops: Collection[int]) -> tuple[Batch, ...]:
    edges = sorted({start, stop, *(at for at in stops if start < at < stop)})
    return tuple(
        Batch(at, min(at + widest, last), True) for first, last in pairwise(edges) for at in range(first, last, widest)
    )
