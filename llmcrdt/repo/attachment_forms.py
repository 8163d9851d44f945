"""The forms of an attachment at a relay: plain, or encrypted under a key of its conversation."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, BinaryIO

from ..exceptions import SealingMissing
from ..ids import DocumentId
from ..store.blobs import PIECE
from ..store.keyring import Keyring

if TYPE_CHECKING:
    from ..sync.messages import AttachmentName


class Forms:
    """Every method may raise KeyringUnusable, and SealingMissing where there is a key and no PyNaCl."""

    def __init__(self, keyring: Keyring) -> None:
        self._keyring = keyring

    def newest(
        self, document: DocumentId, hash_: str, size: int, file: BinaryIO
    ) -> tuple[AttachmentName, int, Callable[[int, int], bytes]]:
        """The form in which one goes to a relay: its name there, its size, and what reads it."""
        from ..document.sealed_blob import BlobCipher, sealed_size
        from ..sync.messages import PLAIN, SEALED, AttachmentName

        keys = self._keyring.keys(document)
        if keys:
            cipher = BlobCipher(keys[-1], document, hash_, size)
            return (
                AttachmentName(SEALED, cipher.name),
                sealed_size(size),
                lambda offset, length: cipher.read_sealed(file, offset, length),
            )

        def read(offset: int, length: int) -> bytes:
            file.seek(offset)
            return file.read(length)

        return AttachmentName(PLAIN, bytes.fromhex(hash_)), size, read

    def all(
        self, document: DocumentId, hash_: str, size: int
    ) -> Iterator[tuple[AttachmentName, int, Callable[[BinaryIO], Iterator[bytes]]]]:
        """The forms in which one may be at a relay, the likeliest first: name, size, and what opens it."""
        from ..document.sealed_blob import BlobCipher, sealed_size
        from ..sync.messages import PLAIN, SEALED, AttachmentName

        for key in reversed(self._keyring.keys(document)):
            cipher = BlobCipher(key, document, hash_, size)
            yield AttachmentName(SEALED, cipher.name), sealed_size(size), cipher.open
        yield AttachmentName(PLAIN, bytes.fromhex(hash_)), size, lambda file: iter(lambda: file.read(PIECE), b"")

    def names(self, document: DocumentId, hash_: str) -> Iterator[AttachmentName]:
        try:
            yield from (name for name, _, _ in self.all(document, hash_, 0))
        except SealingMissing:
            from ..sync.messages import PLAIN, AttachmentName

            yield AttachmentName(PLAIN, bytes.fromhex(hash_))
