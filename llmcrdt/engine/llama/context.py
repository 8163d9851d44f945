"""One llama.cpp context: a live sequence, a scratch sequence, and nothing else. For the engine's thread only.

``lib`` is the low-level llama-cpp-python module, handed in by the door (``library.py``). Three things are kept true:
position p of the live sequence stands in cell p (evaluation into other cells gives other bits), the scratch sequence is
empty between calls, and ``llama_decode`` is called in one place.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, cast

from ...exceptions import DecodeFailed, EngineError
from .cells import LIVE, SCRATCH, Cells
from .state_blob import Kind, for_streams, holds_exactly

BATCH = 512
_ROUND = 256

Purpose = Literal["prompt", "settled", "sampled"]


_T = TypeVar("_T")


def finished(steps: Generator[None, None, _T]) -> _T:
    """Take all steps; what they return."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return cast("_T", end.value)


class Aborted(Exception):
    """The abort flag stopped a decode. The batch has left the live sequence undefined; cut it back."""


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
    """A model's kind of memory. ``kinds``: the readings of an attention state to try, none for a model without
    attention layers. ``recurrent``: whether there are recurrent layers; both: a hybrid."""

    kinds: tuple[Kind, ...]
    window: int
    recurrent: bool = False

    @property
    def can_cut(self) -> bool:
        """Whether the live sequence can be shortened; recurrent state stands where it stands."""
        return not self.recurrent

    @property
    def attention(self) -> bool:
        """Whether there is state for each token, to be kept in chunks."""
        return bool(self.kinds)


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
            self._batch.seq_id[i][0] = LIVE
        self._size = 0
        self._length = 0
        self._open(min(size, limit))

    @property
    def length(self) -> int:
        """Tokens in the live sequence."""
        return self._length

    @property
    def size(self) -> int:
        """Cells there are now, for all sequences."""
        return self._size

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
        self._cells.clear(data=data)
        self._length = 0

    def cut(self, length: int) -> bool:
        """Shorten the live sequence. False, and nothing is known of it any more, where that can't be done exactly."""
        if not length:
            self.clear()
            return True
        if length < self._length:
            if not self.shape.can_cut or not self._cells.remove(LIVE, length):
                return False
            self._length = length
        return self._stands_at(length)

    def cut_live(self, length: int, *, stopped: bool = False) -> bool:
        """As ``cut`` (``stopped``: as ``undo``), beside parked sequences: those stay."""
        if stopped:
            self._length = length + 1
        if length:
            return self.cut(length)
        self.drop(LIVE)
        self._length = 0
        return True

    def park(self, sequence: int) -> None:
        """Let another sequence have all that the live one has. Copies no cell."""
        self.drop(sequence)
        self._cells.share(LIVE, sequence)

    def resume(self, sequence: int) -> None:
        """Let the live sequence be what another one is; that stays as well."""
        self.drop(LIVE)
        self._cells.share(sequence, LIVE)
        self._length = self._cells.ends(LIVE)[1] + 1

    def whole(self, sequence: int = LIVE) -> bool:
        """Whether a sequence has all its cells from the first on, so that it can be cut (without recurrent layers)."""
        return self._cells.ends(sequence)[0] == 0

    def drop(self, sequence: int) -> None:
        """Empty one sequence; cells that others hold too stay theirs."""
        self._cells.remove(sequence)

    def undo(self, length: int) -> bool:
        """Remove what a stopped evaluation left after ``length``, the end of the live sequence before it."""
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
        """The attention state of positions ``start`` to ``stop`` as bytes, or None where its layout can't be read."""
        blob = self._cells.read(start, stop)
        return self._counted(blob) if _is_attention(self.shape, blob, start, stop) else None

    def export_state(self) -> bytes | None:
        """The recurrent state after all of the live sequence, or None where its layout can't be read."""
        blob = self._cells.read_state(LIVE)
        return self._counted(blob) if holds_exactly(blob, "recurrent", 0, self._length, LIVE) else None

    def export_sequence(self, streams: int) -> bytes | None:
        """All of the live sequence, as a context with so many streams of cells takes it, or None where its layout can't
        be read. Good for going on from its end, and for nothing else."""
        blob, tail = self._cells.read_whole(LIVE)
        if not self.shape.attention:
            return blob
        spread = (for_streams(blob, kind, streams, tail, LIVE) for kind in self.shape.kinds)
        return next((each for each in spread if each is not None), None)

    def load(self, blob: bytes, start: int, stop: int) -> bool:
        """Append exported attention state to the live sequence, which ends at ``start``. False on any surprise: then
        clear. Recurrent state is gone then: ``load_state`` must follow the last."""
        if not _is_attention(self.shape, blob, start, stop):
            return False
        self.reserve(stop)
        if not self._cells.write(blob, start, stop):
            return False
        self._length = stop
        self.counters["imported_bytes"] += len(blob)
        return self.shape.recurrent or self._stands_at(stop)

    def load_state(self, blob: bytes, stop: int) -> bool:
        """Set the recurrent state after ``stop`` tokens; attention state, where there is any, ends there already.
        False on any surprise: then clear."""
        if not holds_exactly(blob, "recurrent", 0, stop, LIVE):
            return False
        self.reserve(stop)
        if not self._cells.write_state(blob):
            return False
        self._length = stop
        self.counters["imported_bytes"] += len(blob)
        return self._stands_at(stop)

    def reserve(self, tokens: int) -> None:
        """Make room for that many tokens, up to the limit. The live sequence stays, bit for bit, cell for cell."""
        if tokens <= self._size:
            return
        length, pieces = self._length, []
        for start in range(0, length if self.shape.attention else 0, self._piece):
            stop = min(start + self._piece, length)
            pieces.append((start, stop, self._cells.read(start, stop)))
        state = self._cells.read_state(LIVE) if self.shape.recurrent and length else None
        self._open(min(self._limit, max(2 * self._size, tokens)))
        taken = all(self._cells.write(blob, start, stop) for start, stop, blob in pieces)
        if not taken or (state is not None and not self._cells.write_state(state)):
            raise DecodeFailed("llama.cpp did not take its own state back.", hint="Pass n_ctx to avoid growth.")
        self._length = length

    def _open(self, size: int) -> None:
        pointer = self._make(max(BATCH, -(-size // _ROUND) * _ROUND))
        if not pointer:
            raise EngineError(f"llama.cpp could not make a context of {size} tokens.", hint="Pass a smaller n_ctx.")
        if self._pointer is not None:
            self._lib.llama_free(self._pointer)
        self._pointer, self._size, self._length = pointer, size, 0
        self._abort.install(self._lib, pointer)
        self._cells = Cells(self._lib, pointer, recurrent=self.shape.recurrent)

    def _counted(self, blob: bytes) -> bytes:
        self.counters["exported_bytes"] += len(blob)
        return blob

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

    def _stands_at(self, length: int) -> bool:
        """Whether llama.cpp agrees on what the live sequence holds. A lost window shows here, and nowhere else."""
        low, high = self._cells.ends(LIVE)
        return high == length - 1 and low == (0 if self.shape.can_cut else high)


def _is_attention(shape: Shape, blob: bytes, start: int, stop: int) -> bool:
    return any(holds_exactly(blob, kind, start, stop, SCRATCH) for kind in shape.kinds)


def _array(pointer: Any, kind: Any, n: int) -> Any:
    return (kind * n).from_address(ctypes.addressof(pointer.contents))
