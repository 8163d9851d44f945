"""Connections of which nobody knows yet who they are."""

from __future__ import annotations

import logging
from typing import Protocol

logger = logging.getLogger(__name__)


class Stranger(Protocol):
    def give_way(self) -> None:
        """Close at once."""
        ...


class Strangers:
    """From the TCP connection to the greeting. They have ``most`` places of their own, so that they take none of those
    who said who they are; where all are taken, the one that has been silent for longest gives way."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._places: dict[Stranger, None] = {}

    def __len__(self) -> int:
        return len(self._places)

    def add(self, stranger: Stranger) -> None:
        """Somebody has connected."""
        self._places[stranger] = None
        if len(self._places) > self._most:
            oldest = next(iter(self._places))
            del self._places[oldest]
            logger.warning("%d connections have not said who they are; the oldest give way", self._most)
            oldest.give_way()

    def remove(self, stranger: Stranger) -> None:
        """It has said who it is, or is gone."""
        self._places.pop(stranger, None)
