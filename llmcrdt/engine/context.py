"""One llama.cpp context: a live sequence, a scratch sequence, and nothing else. For the engine's thread only.

``lib`` is the low-level llama-cpp-python module, handed in by the door (``llama_cpp.py``). What is kept true here:
position p of the live sequence stands in cell p (evaluation into other cells gives other bits), the scratch sequence is
empty between calls, and ``llama_decode`` is called in one place.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ..exceptions import DecodeFailed, EngineError
from .state_blob import Kind, holds_exactly

_LIVE, _SCRATCH = 0, 1
BATCH = 512
_ROUND = 256

Purpose = Literal["prompt", "settled", "sampled"]


class Aborted(Exception):
    """The abort flag stopped a decode. What the batch had done to the live sequence is undefined until cut away."""


class AbortFlag:
    """A flag that C code reads between two operations of a running decode, without the interpreter lock.

    llama.cpp asks ``bool abort(void *data)`` hundreds of times per batch; a Python callback would wait for the lock
    each time. C's own ``strlen`` answers as well: 0 for an empty string, 1 for a string of one character.
    """

    def __init__(self) -> None:
        self._text = ctypes.create_string_buffer(b"\0\0", 2)
        library = ctypes.cdll.msvcrt if os.name == "nt" else ctypes.CDLL(None)
        self._ask = library.strlen

    def set(self) -> None:
        self._text[0] = b"!"

    def clear(self) -> None:
        self._text[0] = b"\0"

    def is_set(self) -> bool:
        return self._text[0] != b"\0"

    def install(self, lib: Any, context: Any) -> None:
        callback = ctypes.cast(self._ask, lib.ggml_abort_callback)
        lib.llama_set_abort_callback(context, callback, ctypes.cast(self._text, ctypes.c_void_p))


@dataclass(frozen=True)
class Shape:
    """What kind of memory a model has. ``kinds``: the readings of a state blob to try."""

    kinds: tuple[Kind, ...]
    window: int

    @property
    def can_cut(self) -> bool:
        """Whether the live sequence can be shortened; recurrent state stands where it stands."""
        return not {"recurrent", "hybrid"} & set(self.kinds)

    @property
    def only_last(self) -> bool:
        """Whether the last chunk alone restores everything."""
        return self.kinds == ("recurrent",)


class Context:
    """``make(n)`` gives a llama_context for n tokens, or None. It starts with ``size`` and grows up to ``limit``."""

    def __init__(
        self, lib: Any, make: Callable[[int], Any], shape: Shape, *, size: int, limit: int, piece: int, abort: AbortFlag
    ) -> None:
        self._lib, self._make, self.shape = lib, make, shape
        self._limit, self._piece, self._abort = limit, piece, abort
        self.counters = dict.fromkeys(
            ("prompt_tokens", "settled_tokens", "sampled_tokens", "decode_calls", "exported_bytes", "imported_bytes"), 0
        )
        self._pointer: Any = None
        self._batch = lib.llama_batch_init(BATCH, 0, 1)
        for i in range(BATCH):
            self._batch.n_seq_id[i] = 1
            self._batch.seq_id[i][0] = _LIVE
        self._size = 0
        self._length = 0
        self._open(min(size, limit))

    @property
    def length(self) -> int:
        """Tokens in the live sequence."""
        return self._length

    @property
    def pointer(self) -> Any:
        return self._pointer

    def close(self) -> None:
        if self._pointer is not None:
            self._lib.llama_free(self._pointer)
            self._lib.llama_batch_free(self._batch)
            self._pointer = None

    def clear(self, *, data: bool = False) -> None:
        """Empty the live sequence; ``data``: overwrite the buffers as well."""
        self._lib.llama_memory_clear(self._memory, data)
        self._length = 0

    def cut(self, length: int) -> bool:
        """Shorten the live sequence. False, and nothing is known of it any more, where that can't be done exactly."""
        if not length:
            self.clear()
            return True
        if length < self._length:
            if not self.shape.can_cut or not self._lib.llama_memory_seq_rm(self._memory, _LIVE, length, -1):
                return False
            self._length = length
        return self._stands_at(length)

    def undo(self, length: int) -> bool:
        """Remove what a stopped evaluation left behind ``length``, the end of the live sequence before it."""
        self._length = length + 1  # how much was done is unknown: cut must look
        return self.cut(length)

    def evaluate(self, tokens: Sequence[int], *, logits: bool, purpose: Purpose) -> None:
        """Append tokens to the live sequence in one batch. Raises Aborted or DecodeFailed; then cut or clear."""
        self.reserve(self._length + len(tokens))
        self._decode(tokens, logits)
        self._length += len(tokens)
        self.counters[f"{purpose}_tokens"] += len(tokens)

    def logits(self) -> Any:
        """A copy of the logits of the last evaluated token: numpy float32."""
        import numpy as np

        vocab = self._lib.llama_model_get_vocab(self._lib.llama_get_model(self._pointer))
        pointer = self._lib.llama_get_logits_ith(self._pointer, -1)
        return np.ctypeslib.as_array(pointer, shape=(self._lib.llama_vocab_n_tokens(vocab),)).copy()

    def export(self, start: int, stop: int) -> bytes | None:
        """The state of positions ``start`` to ``stop`` as bytes, or None where llama.cpp's layout can't be read.

        Recurrent state is that of the moment, so there ``stop`` must be the end of the live sequence.
        """
        blob = self._read(start, stop)
        if not any(holds_exactly(blob, kind, start, stop, _SCRATCH) for kind in self.shape.kinds):
            return None
        self.counters["exported_bytes"] += len(blob)
        return blob

    def load(self, blob: bytes, start: int, stop: int) -> bool:
        """Append exported state to the live sequence, which ends at ``start``. False on any surprise: then clear.

        ``start`` is not looked at where the last chunk restores everything.
        """
        if not any(holds_exactly(blob, kind, start, stop, _SCRATCH) for kind in self.shape.kinds):
            return False
        self.reserve(stop)
        if not self._write(blob, start, stop):
            return False
        self._length = stop
        self.counters["imported_bytes"] += len(blob)
        return self._stands_at(stop)

    def reserve(self, tokens: int) -> None:
        """Make room for that many tokens, up to the limit. What is live moves along, bit for bit, cell for cell."""
        if tokens <= self._size:
            return
        length, pieces = self._length, []
        step = max(1, length) if self.shape.only_last else self._piece
        for start in range(0, length, step):
            stop = min(start + step, length)
            pieces.append((start, stop, self._read(start, stop)))
        self._open(min(self._limit, max(2 * self._size, tokens)))
        for start, stop, blob in pieces:
            if not self._write(blob, start, stop):
                raise DecodeFailed("llama.cpp did not take its own state back.", hint="Pass n_ctx to avoid growth.")
        self._length = length

    @property
    def _memory(self) -> Any:
        return self._lib.llama_get_memory(self._pointer)

    def _open(self, size: int) -> None:
        pointer = self._make(max(BATCH, -(-size // _ROUND) * _ROUND))
        if not pointer:
            raise EngineError(f"llama.cpp could not make a context of {size} tokens.", hint="Pass a smaller n_ctx.")
        if self._pointer is not None:
            self._lib.llama_free(self._pointer)
        self._pointer, self._size, self._length = pointer, size, 0
        self._abort.install(self._lib, pointer)

    def _decode(self, tokens: Sequence[int], logits: bool) -> None:
        """The only caller of llama_decode."""
        n, batch = len(tokens), self._batch
        batch.n_tokens = n
        _array(batch.token, ctypes.c_int32, n)[:] = list(tokens)
        _array(batch.pos, ctypes.c_int32, n)[:] = list(range(self._length, self._length + n))
        _array(batch.logits, ctypes.c_int8, n)[:] = [0] * n
        batch.logits[n - 1] = int(logits)
        self.counters["decode_calls"] += 1
        code = self._lib.llama_decode(self._pointer, batch)
        if code == 2:
            raise Aborted
        if code:
            raise DecodeFailed(f"llama_decode returned {code} for {n} tokens at position {self._length}.")

    def _read(self, start: int, stop: int) -> bytes:
        lib, memory = self._lib, self._memory
        lib.llama_memory_seq_cp(memory, _LIVE, _SCRATCH, start, stop)
        try:
            size = lib.llama_state_seq_get_size(self._pointer, _SCRATCH)
            buffer = (ctypes.c_uint8 * size)()
            written = lib.llama_state_seq_get_data(self._pointer, buffer, size, _SCRATCH)
            return ctypes.string_at(buffer, written)
        finally:
            lib.llama_memory_seq_rm(memory, _SCRATCH, -1, -1)

    def _write(self, blob: bytes, start: int, stop: int) -> bool:
        lib, memory = self._lib, self._memory
        try:
            data = ctypes.cast(ctypes.c_char_p(blob), ctypes.POINTER(ctypes.c_uint8))
            if lib.llama_state_seq_set_data(self._pointer, data, len(blob), _SCRATCH) != len(blob):
                return False
            if self.shape.only_last:
                lib.llama_memory_seq_rm(memory, _LIVE, -1, -1)
            lib.llama_memory_seq_cp(memory, _SCRATCH, _LIVE, start, stop)
            return True
        finally:
            lib.llama_memory_seq_rm(memory, _SCRATCH, -1, -1)

    def _stands_at(self, length: int) -> bool:
        """Whether llama.cpp agrees on what the live sequence holds. A lost window shows here, and nowhere else."""
        low = self._lib.llama_memory_seq_pos_min(self._memory, _LIVE)
        high = self._lib.llama_memory_seq_pos_max(self._memory, _LIVE)
        return bool(high == length - 1 and low == (0 if self.shape.can_cut else high))


def _array(pointer: Any, kind: Any, n: int) -> Any:
    return (kind * n).from_address(ctypes.addressof(pointer.contents))
