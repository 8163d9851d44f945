"""How long the CRDT core will take for an Automerge update, told from its structure before it gets it."""

from __future__ import annotations

from ...exceptions import MalformedUpdate
from ..backend import Work
from .chunks import Whole, read_update

CHANGE = 0.2e-3
"""Seconds for one change, reading it included."""
OPERATION = 12e-6
BLOCK = 0.2e-6
"""Seconds for one operation of the document, which the core looks through once for each update."""
BYTE = 10e-9


def estimate_work(update: bytes, blocks: int) -> Work:
    """``Backend.estimate_work``. ``blocks`` are operations."""
    try:
        chunks = read_update(update).structure
    except MalformedUpdate:
        return Work(len(update) * BYTE, 0)
    operations = sum(chunk.count for chunk in chunks)
    changes = sum(chunk.number if isinstance(chunk, Whole) else 1 for chunk in chunks)
    seconds = changes * CHANGE + operations * OPERATION + blocks * BLOCK + len(update) * BYTE
    return Work(seconds, operations)
