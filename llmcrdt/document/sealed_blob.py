"""Attachments as a relay gets them, where the conversation has a key: pieces that are encrypted each by itself.

The content is cut into chunks of 64 KiB; the last one is shorter, and there is at least one. Each is encrypted with
XChaCha20-Poly1305 (PyNaCl), under a key that is derived from the conversation's key, the conversation, and the
content's hash and size. So one key never encrypts two contents, and the nonce can be the chunk's number: every device
that has the key makes the same bytes, and any of them can go on where another one stopped. The tag of a chunk covers
its number, the content's hash and its size: chunks can't be moved, left out or exchanged unnoticed.

The name that the relay sees is derived in the same way, and tells nothing of the content's hash to whoever lacks the
key. The size of the content can be read off the size of what is encrypted.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterator
from typing import BinaryIO, Final

from ..exceptions import CannotOpen
from ..ids import DocumentId
from .canonical import canonical_json
from .encryption import EncryptionKey, aead, crypto_error

CHUNK: Final = 64 << 10
TAG: Final = 16
_SEALED_CHUNK: Final = CHUNK + TAG


def sealed_size(size: int) -> int:
    """The bytes of a content of ``size`` bytes when it is encrypted."""
    return size + TAG * _chunks(size)


class BlobCipher:
    """Encrypts and decrypts one content, by its conversation, hash and size. Raises SealingMissing without PyNaCl."""

    def __init__(self, key: EncryptionKey, conversation: DocumentId, hash: str, size: int) -> None:
        aead()
        self.size = size
        self._conversation, self._hash = conversation, hash
        self._key = _derived(key, "llmcrdt/attachment-key/1", conversation, hash, str(size))
        self.name = _derived(key, "llmcrdt/attachment-name/1", conversation, hash)
        """32 bytes: the name that the relay sees."""
        self._last: tuple[int, bytes] = -1, b""

    def read_sealed(self, file: BinaryIO, offset: int, length: int) -> bytes:
        """Bytes of the encrypted form; ``file`` has the content."""
        out, end = [], min(offset + length, sealed_size(self.size))
        while offset < end:
            number, skip = divmod(offset, _SEALED_CHUNK)
            piece = self._sealed_chunk(file, number)[skip : skip + end - offset]
            out.append(piece)
            offset += len(piece)
        return b"".join(out)

    def open(self, file: BinaryIO) -> Iterator[bytes]:
        """The content, chunk by chunk; ``file`` has the encrypted form. Raises CannotOpen where that is not what was
        encrypted."""
        decrypt = aead().crypto_aead_xchacha20poly1305_ietf_decrypt
        error = crypto_error()
        for number in range(_chunks(self.size)):
            sealed = file.read(_SEALED_CHUNK)
            try:
                chunk = bytes(decrypt(sealed, self._bound(number), _nonce(number), self._key))
            except (error, ValueError):
                raise CannotOpen(
                    f"The attachment {self._hash} does not open: what the relay has is not what was encrypted.",
                    hint="Have a device that has it send it anew.",
                ) from None
            if len(chunk) != self._length(number):
                raise CannotOpen(f"The attachment {self._hash} has another size than its entry says.")
            yield chunk
        if file.read(1):
            raise CannotOpen(f"The attachment {self._hash} is longer than its entry says.")

    def _sealed_chunk(self, file: BinaryIO, number: int) -> bytes:
        if self._last[0] != number:
            file.seek(number * CHUNK)
            plain = file.read(self._length(number))
            encrypt = aead().crypto_aead_xchacha20poly1305_ietf_encrypt
            self._last = number, bytes(encrypt(plain, self._bound(number), _nonce(number), self._key))
        return self._last[1]

    def _length(self, number: int) -> int:
        return min(CHUNK, self.size - number * CHUNK)

    def _bound(self, number: int) -> bytes:
        place = ["llmcrdt/attachment/1", self._conversation, self._hash, self.size, number]
        return canonical_json([*place]).encode("utf-8")


def _chunks(size: int) -> int:
    return max(1, -(-size // CHUNK))


def _nonce(number: int) -> bytes:
    return number.to_bytes(24, "little")


def _derived(key: EncryptionKey, *pieces: str) -> bytes:
    return hmac.digest(key.data, "\0".join(pieces).encode("ascii"), "sha256")
