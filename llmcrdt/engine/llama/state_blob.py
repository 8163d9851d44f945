"""Reads the frame of a llama.cpp state blob: which positions it holds. Pure; trusts nothing.

llama.cpp loads a blob with impossible positions without a word, and answers wrongly from then on. So every blob is read
here before C sees it: it must hold exactly the positions asked for, in every cache of the model, and not a byte more.
The layout is llama.cpp's own and may change with its version; a blob that can't be read is not stored and not loaded.
"""

from __future__ import annotations

import contextlib
import itertools
import struct
from collections.abc import Callable
from typing import Literal

Kind = Literal["attention", "window", "recurrent"]
"""Full attention; attention with sliding-window layers; recurrent layers."""

_MAGIC = 0xAF143CD8
_MAX_LAYERS = 4096
_CELLS = {0: struct.Struct("<iIi"), 12: struct.Struct("<iI12xi")}  # position, number of sequences, the sequence


class _Unreadable(Exception):
    pass


def holds_exactly(blob: bytes, kind: Kind, start: int, stop: int, sequence: int) -> bool:
    """Whether ``blob`` is the state of positions ``start`` to ``stop`` (recurrent: after ``stop - 1``) and no more.

    Fields that depend on the model (extra position data, layers without values) are tried both ways: only a reading
    that ends with the last byte counts.
    """
    return any(
        _reads(blob, kind, start, stop, sequence, extra, values)
        for extra, values in itertools.product((0, 12), (True, False))
    )


def _reads(blob: bytes, kind: Kind, start: int, stop: int, sequence: int, extra: int, values: bool) -> bool:
    reader = _Reader(blob)
    wanted = list(range(start, stop))
    try:
        if reader.u32() != _MAGIC or reader.i32() != sequence:
            return False
        if kind == "recurrent":
            return _recurrent(reader, stop) and reader.at_end
        if reader.u32() != 1 or _cells(reader, sequence, extra) != wanted:
            return False
        _rows(reader, len(wanted), values)
        if kind == "window":
            if reader.u32() != 1 or _cells(reader, sequence, extra) != wanted:
                return False
            _rows(reader, len(wanted), values)
        return reader.at_end
    except _Unreadable:
        return False


def for_streams(blob: bytes, kind: Kind, streams: int, tail: int, sequence: int) -> bytes | None:
    """The state of a whole ``sequence`` as a context with so many streams of cells reads it; None where it can't be
    read. ``tail``: how many of the last bytes are of recurrent layers (a hybrid's), which have no streams."""
    for extra, values in itertools.product((0, 12), (True, False)):
        with contextlib.suppress(_Unreadable):
            return _spread(blob[: len(blob) - tail], kind, streams, sequence, extra, values) + blob[len(blob) - tail :]
    return None


def _spread(blob: bytes, kind: Kind, streams: int, sequence: int, extra: int, values: bool) -> bytes:
    reader = _Reader(blob)
    parts = [reader.take(8)]
    for _ in range(2 if kind == "window" else 1):
        if reader.u32() != 1:
            raise _Unreadable
        start = reader.at
        _rows(reader, len(_cells(reader, sequence, extra)), values)
        parts += [struct.pack("<I", streams), blob[start : reader.at], bytes(4 * (streams - 1))]
    if not reader.at_end:
        raise _Unreadable
    return b"".join(parts)


class _Reader:
    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0
        self.u32, self.i32, self.u64 = self._number("<I"), self._number("<i"), self._number("<Q")

    @property
    def at(self) -> int:
        return self._at

    @property
    def at_end(self) -> bool:
        return self._at == len(self._data)

    def take(self, count: int) -> bytes:
        start = self._at
        self.skip(count)
        return self._data[start : self._at]

    def skip(self, count: int) -> None:
        if count > len(self._data) - self._at:
            raise _Unreadable
        self._at += count

    def _number(self, form: str) -> Callable[[], int]:
        layout = struct.Struct(form)

        def read() -> int:
            start = self._at
            self.skip(layout.size)
            return int(layout.unpack_from(self._data, start)[0])

        return read


def _cells(reader: _Reader, sequence: int, extra: int) -> list[int]:
    """The positions in the cell table, in the order of cells."""
    cell = _CELLS[extra]
    cells = list(cell.iter_unpack(reader.take(reader.u32() * cell.size)))
    if any(count != 1 or owner != sequence for _, count, owner in cells):
        raise _Unreadable
    return [position for position, _, _ in cells]


def _rows(reader: _Reader, cells: int, values: bool) -> None:
    transposed, layers = reader.u32(), reader.u32()
    if transposed > 1 or not 0 < layers <= _MAX_LAYERS:
        raise _Unreadable
    for _ in range(layers):
        _row(reader, cells)
    for _ in range(layers if values else 0):
        if transposed:
            reader.i32()
            size, width = reader.u32(), reader.u32()
            reader.skip(size * width * cells)
        else:
            _row(reader, cells)


def _row(reader: _Reader, cells: int) -> None:
    reader.i32()
    reader.skip(reader.u64() * cells)


def _recurrent(reader: _Reader, stop: int) -> bool:
    """One cell, standing after the last token; then rows of two tables (some models have a third, mixed in)."""
    if reader.u32() != 1 or reader.i32() != stop - 1 or reader.u32() != 0:
        return False
    transposed, layers = reader.u32(), reader.u32()
    if transposed or not 0 < layers <= _MAX_LAYERS:
        return False
    while not reader.at_end:
        _row(reader, 1)
    return True
