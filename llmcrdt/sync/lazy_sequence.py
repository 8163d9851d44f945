"""Many small things in a frame, cut out of it when they are asked for.

To Python a record of two bytes is an object of a hundred, and a frame may hold thousands. So what a stranger's frame
costs when it is read is what it weighs: places in it, four bytes each.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from operator import eq
from typing import Generic, TypeVar, overload

T = TypeVar("T", covariant=True)


class LazySequence(Sequence[T], Generic[T]):
    """Things in a frame, in order. ``read(frame, starts, i)`` reads those from the ``i``-th on, one after the other;
    ``starts[i]`` says where. Equal to a tuple of the same things."""

    __slots__ = ("_frame", "_read", "_starts")

    def __init__(
        self, frame: bytes, starts: Sequence[int], read: Callable[[bytes, Sequence[int], int], Iterator[T]]
    ) -> None:
        self._frame, self._starts, self._read = frame, starts, read

    def __len__(self) -> int:
        return len(self._starts)

    def __iter__(self) -> Iterator[T]:
        return self._read(self._frame, self._starts, 0)

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[T, ...]: ...
    def __getitem__(self, index: int | slice) -> T | tuple[T, ...]:
        if isinstance(index, slice):
            start, stop, step = index.indices(len(self))
            if step != 1:
                return tuple(self)[index]
            return tuple(islice(self._read(self._frame, self._starts, start), max(0, stop - start)))
        place = index + len(self) if index < 0 else index
        if not 0 <= place < len(self):
            raise IndexError(index)
        return next(self._read(self._frame, self._starts, place))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, tuple | LazySequence) and len(self) == len(other) and all(map(eq, self, other))

    def __hash__(self) -> int:
        return hash(tuple(self))

    def __repr__(self) -> str:
        return repr(tuple(self))


def places() -> array[int]:
    """Room for places in a frame, which has less than 2^32 bytes."""
    return array("I")
