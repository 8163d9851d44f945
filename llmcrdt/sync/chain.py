"""The hashes that tie a log together: each place in it is named by all records up to it (docs/protocol.md, 1)."""

from __future__ import annotations

import hashlib
from typing import Final

from .messages import Cursor, Record

START: Final = bytes(32)
"""The chain hash of position 0."""


def digest(document: bytes, record: Record) -> bytes:
    """The hash of a record: its name and its data."""
    return hashlib.sha256(b"".join((document, record.session, record.n.to_bytes(8, "big"), record.data))).digest()


def next_chain(chain: bytes, record_digest: bytes) -> bytes:
    return hashlib.sha256(chain + record_digest).digest()


def advance(cursor: Cursor, record_digest: bytes) -> Cursor:
    """The cursor one record further on."""
    return Cursor(cursor.log, cursor.position + 1, next_chain(cursor.chain, record_digest))
