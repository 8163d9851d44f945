"""The contents of attachments, as one conversation uses them: relays are to have what it names, and no longer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from ..ids import DocumentId
from ..store.base import AttachmentTasks
from ..store.blobs import BlobStore


class ConversationBlobs:
    """Implements ``document.blob.BlobStorage``. ``changed`` is called where relays are to hear of something."""

    def __init__(
        self, conversation: DocumentId, blobs: BlobStore, tasks: AttachmentTasks, changed: Callable[[], None]
    ) -> None:
        self._conversation, self._blobs, self._tasks, self._changed = conversation, blobs, tasks, changed

    def put(self, source: BinaryIO) -> tuple[str, int]:
        return self._blobs.put(source)

    def has(self, hash: str) -> bool:
        return self._blobs.has(hash)

    def get(self, hash: str) -> Path | None:
        return self._blobs.get(hash)

    def open(self, hash: str) -> BinaryIO:
        return self._blobs.open(hash)

    def named(self, hashes: set[str]) -> None:
        here = [hash_ for hash_ in sorted(hashes) if self._blobs.has(hash_)]
        if here:
            self._tasks.want(self._conversation, here)
            self._changed()

    def release(self, hashes: set[str]) -> None:
        self._tasks.unwant(self._conversation, sorted(hashes))
        self._blobs.release(hashes)
        self._changed()
