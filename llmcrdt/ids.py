"""Typed ids and their makers. Randomness is an argument, so a test is decided by its seed.

=============  =====================================================  ==========================================
id             form                                                   why
=============  =====================================================  ==========================================
DocumentId     16 bytes, base58check (no version byte)                its name at every door; a typing slip is noticed
EntryId        12 bytes, base64url, 16 characters                     one per entry, many times in a document
SessionId      16 bytes, base64url, 22 characters                     one process writing one document; never reused
ContentHash    24 bytes of a SHA-256, base64url, 32 characters        names an immutable version
FrameHash      24 bytes of a SHA-256, base64url, 32 characters        names an exact ordered list of versions
KeyId          24 bytes of a SHA-256, base64url, 32 characters        names a conversation's secret key
=============  =====================================================  ==========================================

base58check is Bitcoin's: payload, then the first four bytes of SHA-256(SHA-256(payload)), in base 58. automerge-repo
names its documents in the same form.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import re
import struct
from collections.abc import Callable
from functools import cache
from typing import NewType

from .exceptions import InvalidContent

DocumentId = NewType("DocumentId", str)
EntryId = NewType("EntryId", str)
SessionId = NewType("SessionId", str)
ContentHash = NewType("ContentHash", str)
FrameHash = NewType("FrameHash", str)
KeyId = NewType("KeyId", str)

Random = Callable[[int], bytes]
"""n -> n random bytes."""

NO_LOG = bytes(16)
"""The id of no relay's log: a cursor gets it when records of another log than its own came in, until a refill."""

_ALPHABET = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_DIGIT = {c: i for i, c in enumerate(_ALPHABET)}
_ENTRY = re.compile(r"[A-Za-z0-9_-]{16}", re.ASCII)
_SESSION = re.compile(r"[A-Za-z0-9_-]{22}", re.ASCII)
_HASH = re.compile(r"[A-Za-z0-9_-]{32}", re.ASCII)
_URL_SAFE = bytes.maketrans(b"+/", b"-_")
_LENGTH = struct.Struct(">Q").pack


def text_of(data: bytes) -> str:
    """base64url without padding."""
    # As base64.urlsafe_b64encode does, in a third of its time: hashes are made by the ten thousand.
    return binascii.b2a_base64(data, newline=False).translate(_URL_SAFE, b"=").decode("ascii")


def new_document_id(random: Random = os.urandom) -> DocumentId:
    """Its bytes are a UUID (RFC 9562, version 4), for clients of automerge-repo before 2.4 take no others."""
    drawn = bytearray(random(16))
    drawn[6], drawn[8] = drawn[6] & 0x0F | 0x40, drawn[8] & 0x3F | 0x80
    return document_id(bytes(drawn))


def new_entry_id(random: Random = os.urandom) -> EntryId:
    return EntryId(text_of(random(12)))


def new_session_id(random: Random = os.urandom) -> SessionId:
    return SessionId(text_of(random(16)))


def key_id(key: bytes) -> KeyId:
    """The name of a secret key: its hash, so that a name can't stand for two keys."""
    return KeyId(tagged_hash("llmcrdt/key/1", key))


def key_bytes(id: KeyId) -> bytes:
    """The 24 bytes of a key's name."""
    return base64.urlsafe_b64decode(id)


def document_id(raw: bytes) -> DocumentId:
    """The name of a document from its 16 bytes."""
    if len(raw) != 16:
        raise InvalidContent(f"A document id has 16 bytes, not {len(raw)}.")
    return DocumentId(_base58(raw + _checksum(raw)))


def document_bytes(name: str) -> bytes:
    """The 16 bytes of a document's name. Raises InvalidContent where the name is not one."""
    data = _from_base58(name) if isinstance(name, str) else None
    if data is None or len(data) != 20 or _checksum(data[:16]) != data[16:]:
        raise InvalidContent(
            f"{name!r} is not a document id.", hint="Copy the whole id; its last characters are a checksum."
        )
    return data[:16]


def is_document_id(name: str) -> bool:
    try:
        document_bytes(name)
    except InvalidContent:
        return False
    return True


def is_entry_id(text: object) -> bool:
    return isinstance(text, str) and _ENTRY.fullmatch(text) is not None


def is_session_id(text: object) -> bool:
    return isinstance(text, str) and _SESSION.fullmatch(text) is not None


def is_hash(text: object) -> bool:
    return isinstance(text, str) and _HASH.fullmatch(text) is not None


def tagged_hash(tag: str, *pieces: bytes) -> str:
    """24 bytes of SHA-256 over the tag and the pieces, each with its length before it, as base64url.

    The tag keeps hashes of different things apart; the lengths keep ("ab", "c") and ("a", "bc") apart.
    """
    return text_of(tagged_digest(tag, *pieces)[:24])


def tagged_digest(tag: str, *pieces: bytes) -> bytes:
    """The SHA-256 that ``tagged_hash`` shortens, for ids that are derived from what they name."""
    framed = [_framed_tag(tag)]
    for piece in pieces:
        framed += (_LENGTH(len(piece)), piece)
    return hashlib.sha256(b"".join(framed)).digest()


@cache
def _framed_tag(tag: str) -> bytes:
    return _LENGTH(len(tag)) + tag.encode("ascii")


def _checksum(raw: bytes) -> bytes:
    return hashlib.sha256(hashlib.sha256(raw).digest()).digest()[:4]


def _base58(data: bytes) -> str:
    number, out = int.from_bytes(data, "big"), ""
    while number:
        number, digit = divmod(number, 58)
        out = _ALPHABET[digit] + out
    return "1" * (len(data) - len(data.lstrip(b"\0"))) + out


def _from_base58(text: str) -> bytes | None:
    if not text or len(text) > 40:
        return None
    number = 0
    for c in text:
        if c not in _DIGIT:
            return None
        number = number * 58 + _DIGIT[c]
    zeros = len(text) - len(text.lstrip("1"))
    return b"\0" * zeros + number.to_bytes((number.bit_length() + 7) // 8, "big")
