"""The cells of one llama_context: state of sequences read as bytes, written, shared, removed. ``lib`` is the low-level
llama-cpp-python module. Nothing is checked here; ``Context`` does that.

The scratch sequence is empty between calls: a range of positions goes out and in through it, since llama.cpp reads and
writes whole sequences.
"""

from __future__ import annotations

import ctypes
from typing import Any

LIVE, SCRATCH = 0, 1
_PARTIAL = 1  # LLAMA_STATE_SEQ_FLAGS_PARTIAL_ONLY: of a hybrid, the recurrent layers alone
_BLOB_HEAD = 8  # magic and sequence


class Cells:
    """Of the context at ``pointer``, for the engine's thread. ``recurrent``: whether the model has recurrent layers."""

    def __init__(self, lib: Any, pointer: Any, *, recurrent: bool) -> None:
        self._lib, self._pointer, self._recurrent = lib, pointer, recurrent
        self._memory = lib.llama_get_memory(pointer)
        self._no_state = self.read_state(SCRATCH)[_BLOB_HEAD:] if recurrent else b""

    def clear(self, *, data: bool) -> None:
        """Empty all sequences; ``data``: overwrite the buffers as well."""
        self._lib.llama_memory_clear(self._memory, data)

    def remove(self, sequence: int, start: int = -1) -> bool:
        """Remove a sequence from position ``start`` on. False where llama.cpp can't; cells of others stay theirs."""
        return bool(self._lib.llama_memory_seq_rm(self._memory, sequence, start, -1))

    def share(self, sequence: int, other: int) -> None:
        """Let ``other`` have all cells of ``sequence``. Copies none."""
        self._lib.llama_memory_seq_cp(self._memory, sequence, other, -1, -1)

    def ends(self, sequence: int) -> tuple[int, int]:
        """The lowest and the highest position of a sequence; -1 where it is empty."""
        lib, memory = self._lib, self._memory
        return lib.llama_memory_seq_pos_min(memory, sequence), lib.llama_memory_seq_pos_max(memory, sequence)

    def read(self, start: int, stop: int) -> bytes:
        """The attention state of these positions."""
        lib, memory = self._lib, self._memory
        lib.llama_memory_seq_cp(memory, LIVE, SCRATCH, start, stop)
        try:
            size = lib.llama_state_seq_get_size(self._pointer, SCRATCH)
            buffer = (ctypes.c_uint8 * size)()
            written = lib.llama_state_seq_get_data(self._pointer, buffer, size, SCRATCH)
            if self._recurrent:  # it stands at the end of the blob, and is that of the moment
                written -= lib.llama_state_seq_get_size_ext(self._pointer, SCRATCH, _PARTIAL) - _BLOB_HEAD
            return ctypes.string_at(buffer, written)
        finally:
            lib.llama_memory_seq_rm(memory, SCRATCH, -1, -1)

    def read_whole(self, sequence: int) -> tuple[bytes, int]:
        """All state of a sequence, and how many of its last bytes are of recurrent layers beside others (a hybrid's).
        Of layers with a sliding window it holds what their window still covers."""
        size = self._lib.llama_state_seq_get_size(self._pointer, sequence)
        buffer = (ctypes.c_uint8 * size)()
        written = self._lib.llama_state_seq_get_data(self._pointer, buffer, size, sequence)
        tail = 0
        if self._recurrent:
            tail = self._lib.llama_state_seq_get_size_ext(self._pointer, sequence, _PARTIAL) - _BLOB_HEAD
        return ctypes.string_at(buffer, written), tail

    def write(self, blob: bytes, start: int, stop: int) -> bool:
        lib, memory = self._lib, self._memory
        blob += self._no_state
        try:
            data = ctypes.cast(ctypes.c_char_p(blob), ctypes.POINTER(ctypes.c_uint8))
            if lib.llama_state_seq_set_data(self._pointer, data, len(blob), SCRATCH) != len(blob):
                return False
            lib.llama_memory_seq_cp(memory, SCRATCH, LIVE, start, stop)
            return True
        finally:
            lib.llama_memory_seq_rm(memory, SCRATCH, -1, -1)

    def read_state(self, sequence: int) -> bytes:
        """The recurrent state of a sequence, as it stands."""
        size = self._lib.llama_state_seq_get_size_ext(self._pointer, sequence, _PARTIAL)
        buffer = (ctypes.c_uint8 * size)()
        written = self._lib.llama_state_seq_get_data_ext(self._pointer, buffer, size, sequence, _PARTIAL)
        return ctypes.string_at(buffer, written)

    def write_state(self, blob: bytes) -> bool:
        data = ctypes.cast(ctypes.c_char_p(blob), ctypes.POINTER(ctypes.c_uint8))
        taken = self._lib.llama_state_seq_set_data_ext(self._pointer, data, len(blob), LIVE, _PARTIAL)
        return bool(taken == len(blob))
