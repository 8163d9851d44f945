"""The heads of Automerge documents that clients were told of late: a client that says it has these needs no answer."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice

MOST = 65_536
"""Heads, of all documents together; those that were told first are forgotten."""


class ToldHeads:
    """One thread notes heads, another may look for them."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._told: dict[bytes, None] = {}

    def note(self, document: bytes, heads: Iterable[bytes]) -> None:
        told = self._told
        for head in heads:
            told[document + head] = None
        if len(told) > self._most:
            for key in list(islice(told, self._most // 8)):
                del told[key]

    def holds(self, document: bytes, heads: Iterable[bytes]) -> bool:
        """Whether all of these were told."""
        return all(document + head in self._told for head in heads)
