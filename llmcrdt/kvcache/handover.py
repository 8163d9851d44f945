"""The agreement of two processes that hand chunks over (normative: docs/kv.md, *Handed over*): a secret, and the wire.

From the secret come two keys. One is shown with each question, and lets in. The other vouches for chunks, and is never
sent: who listens, or sits at an address in a worker's place, learns the first, and still can't make a chunk that is
believed.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..exceptions import InvalidContent
from .chunk_hash import KEY_BYTES, ChunkKey

HAVE_PATH, CHUNK_PATH = "/llmcrdt/kv/1/have", "/llmcrdt/kv/1/chunks/"
MAC_HEADER = "llmcrdt-mac"
MOST_KEYS = 2048
"""Keys of one question."""
_SIZE = struct.Struct("<Q")
_SHORTEST = 32
_HINT = 'Make one: python -c "import secrets; print(secrets.token_urlsafe(32))"'


class HandoverKey:
    """A secret that workers of one person share. Raises InvalidContent for one that could be guessed."""

    def __init__(self, secret: str) -> None:
        if len(secret) < _SHORTEST or not secret.isascii() or not secret.isprintable() or " " in secret:
            raise InvalidContent(f"A key has {_SHORTEST} letters or more, and no spaces.", hint=_HINT)
        self.token = _derived(secret, b"llmcrdt/kv/ask/1").hex()
        self._vouch = _derived(secret, b"llmcrdt/kv/chunk/1")

    def mac(self, key: ChunkKey, digest: bytes) -> bytes:
        """Vouches for the chunk of this key whose file has this digest, which covers every byte of it."""
        return hmac.digest(self._vouch, key + digest, "sha256")

    def answer_mac(self, question: bytes, answer: bytes) -> bytes:
        """Vouches for what was answered to "which of these": so many bytes will be taken in."""
        return hmac.digest(self._vouch, b"have" + hashlib.sha256(question + answer).digest(), "sha256")

    def vouches(self, key: ChunkKey, digest: bytes, mac: bytes) -> bool:
        """Whether somebody who has the secret said this of the chunk."""
        return hmac.compare_digest(self.mac(key, digest), mac)


def read_handover_keys(file: Path | None, environment: Mapping[str, str] = os.environ) -> list[HandoverKey]:
    """The keys of a file, one a line (# begins a comment), and the one in LLMCRDT_KV_KEY before them. Raises
    InvalidContent, also where others may read the file."""
    lines = [environment.get("LLMCRDT_KV_KEY", "")]
    if file is not None:
        try:
            if os.name == "posix" and file.stat().st_mode & 0o077:
                raise InvalidContent(f"Others may read {file}.", hint=f"Run: chmod 600 {file}. Then make new keys.")
            lines += file.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidContent(f"The keys in {file} can't be read: {error}.", hint="Give a text file.") from None
    secrets = [line.split("#", 1)[0].strip() for line in lines]
    keys = [HandoverKey(secret) for secret in secrets if secret]
    if not keys:
        raise InvalidContent("KV state is handed over with a key alone, and there is none.", hint=_HINT)
    return keys


def pack_sizes(sizes: Sequence[int]) -> bytes:
    """An answer to "which of these": the bytes of each file, 0 where it isn't here."""
    return b"".join(map(_SIZE.pack, sizes))


def unpack_sizes(data: bytes, count: int) -> list[int]:
    """The inverse, for ``count`` keys. Raises ValueError."""
    if len(data) != count * _SIZE.size:
        raise ValueError("not an answer to that")
    return [size for (size,) in _SIZE.iter_unpack(data)]


def unpack_keys(data: bytes) -> list[ChunkKey]:
    """The keys of a question, one after the other. Raises ValueError."""
    if not data or len(data) % KEY_BYTES or len(data) > MOST_KEYS * KEY_BYTES:
        raise ValueError(f"1 to {MOST_KEYS} keys of {KEY_BYTES} bytes")
    return [ChunkKey(data[at : at + KEY_BYTES]) for at in range(0, len(data), KEY_BYTES)]


def _derived(secret: str, use: bytes) -> bytes:
    return hmac.digest(hashlib.sha256(secret.encode()).digest(), use, "sha256")
