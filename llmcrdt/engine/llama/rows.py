"""Several sequences that each go on by one token at a time, evaluated together. For the engine's thread only.

Prompts are evaluated in the engine's own context, which holds one live sequence. To go on beside others, its state is
copied into a *stream* here: cells of its own, in which position p stands in cell p as it does there. So a token that is
evaluated alone here has the same bits as there. Whether it has them beside others depends on the kernels that a batch
of so many rows takes: ``widths.py`` tries it.
"""

from __future__ import annotations

import ctypes
import itertools
from collections.abc import Callable, Collection, Sequence
from typing import Any

from ...exceptions import DecodeFailed, EngineError
from .context import Aborted, AbortFlag

_ROUND = 256  # cells


def neighbours(streams: Sequence[int], widths: Collection[int]) -> list[list[int]]:
    """These streams in groups whose numbers follow each other, each as long as the widest of ``widths`` that fits."""
    groups: list[list[int]] = []
    for _, run in itertools.groupby(enumerate(sorted(streams)), lambda each: each[1] - each[0]):
        rest = [stream for _, stream in run]
        while rest:
            width = max((each for each in widths if each <= len(rest)), default=1)
            groups.append(rest[:width])
            rest = rest[width:]
    return groups


class Rows:
    """``make(size, streams)`` gives a llama_context with so many streams of ``size`` cells each, or None; ``limit`` is
    the most cells a stream may have, ``least`` the fewest. Nothing is allocated before the first ``take``.
    ``decoded`` counts calls of llama_decode here."""

    def __init__(
        self,
        lib: Any,
        make: Callable[[int, int], Any],
        streams: int,
        *,
        least: int,
        limit: int,
        abort: AbortFlag,
    ) -> None:
        self._lib, self._make, self._abort = lib, make, abort
        self._least, self._limit = least, limit
        self._pointer: Any = None
        self._size = 0
        self._batch = lib.llama_batch_init(max(2, streams), 0, 1)
        self._streams = streams
        self._free = list(reversed(range(streams)))
        self._lengths: dict[int, int] = {}
        self.decoded = 0

    @property
    def pointer(self) -> Any:
        """The context, whose logits are those of the last ``step``, by row."""
        return self._pointer

    def take(self, blob: bytes, length: int) -> int | None:
        """Copy in a sequence of ``length`` tokens, as ``Context.export_sequence`` gives it. Its stream; None where
        none is free, or llama.cpp doesn't take it."""
        if not self._free or not self._reserve(length + 1):
            return None
        stream = self._free[-1]
        if not self._write(blob, stream, length):
            return None
        self._lengths[stream] = length
        return self._free.pop()

    def step(self, rows: Sequence[tuple[int, int]]) -> None:
        """Append one token to each of some streams: (stream, token), in one batch. llama.cpp computes them together
        where their numbers follow each other. Raises Aborted or DecodeFailed: then nothing is known of them any more.
        """
        if not self._reserve(max(self._lengths[stream] for stream, _ in rows) + 1):
            raise DecodeFailed("llama.cpp did not take its own state back.", hint="Open the engine with fewer slots.")
        batch = self._batch
        batch.n_tokens = len(rows)
        for i, (stream, token) in enumerate(rows):
            batch.token[i], batch.pos[i], batch.logits[i] = token, self._lengths[stream], 1
            batch.n_seq_id[i] = 1
            batch.seq_id[i][0] = stream
        self.decoded += 1
        code = self._lib.llama_decode(self._pointer, batch)
        if code == 2:
            raise Aborted
        if code:
            raise DecodeFailed(f"llama_decode returned {code} for {len(rows)} sequences.")
        for stream, _ in rows:
            self._lengths[stream] += 1

    def logits(self, row: int) -> Any:
        """A copy of the logits of a row of the last ``step``: numpy float32."""
        import numpy as np

        vocab = self._lib.llama_model_get_vocab(self._lib.llama_get_model(self._pointer))
        pointer = self._lib.llama_get_logits_ith(self._pointer, row)
        return np.ctypeslib.as_array(pointer, shape=(self._lib.llama_vocab_n_tokens(vocab),)).copy()

    def drop(self, stream: int) -> None:
        """Free a stream."""
        del self._lengths[stream]
        self._free = sorted([*self._free, stream], reverse=True)  # the next one has the lowest number
        self._lib.llama_memory_seq_rm(self._lib.llama_get_memory(self._pointer), stream, -1, -1)

    def clear(self) -> None:
        """Free all streams, and overwrite what they held."""
        for stream in list(self._lengths):
            self.drop(stream)
        if self._pointer is not None:
            self._lib.llama_memory_clear(self._lib.llama_get_memory(self._pointer), True)

    def close(self) -> None:
        if self._pointer is not None:
            self._lib.llama_free(self._pointer)
            self._pointer = None
        if self._batch is not None:
            self._lib.llama_batch_free(self._batch)
            self._batch = None

    def _reserve(self, tokens: int) -> bool:
        """Make each stream at least so long; to grow moves all. False if llama.cpp refuses."""
        if tokens <= self._size:
            return True
        wanted = min(max(self._least, 2 * self._size, tokens), max(self._limit, tokens))
        size = -(-wanted // _ROUND) * _ROUND
        kept = {stream: self._read(stream) for stream in self._lengths}
        pointer = self._make(size, self._streams)
        if not pointer:
            raise EngineError(
                f"llama.cpp could not make a context of {self._streams} times {size} tokens.",
                hint="Open the engine with fewer slots, or a smaller n_ctx.",
            )
        if self._pointer is not None:
            self._lib.llama_free(self._pointer)
        self._pointer, self._size = pointer, size
        self._abort.install(self._lib, pointer)
        return all(self._write(blob, stream, self._lengths[stream]) for stream, blob in kept.items())

    def _read(self, stream: int) -> bytes:
        size = self._lib.llama_state_seq_get_size(self._pointer, stream)
        buffer = (ctypes.c_uint8 * size)()
        return ctypes.string_at(buffer, self._lib.llama_state_seq_get_data(self._pointer, buffer, size, stream))

    def _write(self, blob: bytes, stream: int, length: int) -> bool:
        lib = self._lib
        data = ctypes.cast(ctypes.c_char_p(blob), ctypes.POINTER(ctypes.c_uint8))
        if lib.llama_state_seq_set_data(self._pointer, data, len(blob), stream) != len(blob):
            return False
        return bool(lib.llama_memory_seq_pos_max(lib.llama_get_memory(self._pointer), stream) == length - 1)
