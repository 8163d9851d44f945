"""The hashes that tie a log together: each place in it is named by all records up to it (docs/protocol.md, 1)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Final

from .messages import Cursor, Record

START: Final = bytes(32)
"""The chain hash of position 0."""


def digest(document: bytes, record: Record) -> bytes:
    """The hash of a record: its name and its data."""
    return hashlib.sha256(b"".join((document, record.session, record.n.to_bytes(8, "big"), record.data))).digest()


def next_chain(chain: bytes, record_digest: bytes) -> bytes:
    return hashlib.sha256(chain + record_digest).digest()


def extend_chain(chain: bytes, document: bytes, session: bytes, n: int, data: Iterable[bytes]) -> list[bytes]:
    """The chain hash after each of some records of one session, the ``n``-th and those after it."""
    chains = []
    name, sha256 = document + session, hashlib.sha256
    for number, piece in enumerate(data, n):
        chain = sha256(chain + sha256(name + number.to_bytes(8, "big") + piece).digest()).digest()
        chains.append(chain)
    return chains


def advance(cursor: Cursor, record_digest: bytes) -> Cursor:
    """The cursor one record further on."""
    return Cursor(cursor.log, cursor.position + 1, next_chain(cursor.chain, record_digest))
