"""Blob: an attachment. The document holds its hash, size, media type and name; the content is kept apart from it.

The hash is the SHA-256 of the content, in lower-case hex, so it is checked wherever the content is read, and the same
content is kept once. The name comes from whoever wrote the entry: show it, but never use it as a path.
"""

from __future__ import annotations

import io
import mimetypes
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import BinaryIO, ClassVar, Protocol

from ..crdt.backend import Replica
from ..exceptions import BlobMissing, InvalidContent
from .canonical import JSON, parse_json
from .checks import whole_number

Source = str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO
_HASH = re.compile(r"[0-9a-f]{64}", re.ASCII)
_SIZE_END = 1 << 53  # JavaScript's integers end here
_UNKNOWN_TYPE = "application/octet-stream"


def is_blob_hash(text: object) -> bool:
    return isinstance(text, str) and _HASH.fullmatch(text) is not None


class BlobStorage(Protocol):
    """Keeps contents by their hash."""

    def put(self, source: BinaryIO) -> tuple[str, int]:
        """Keep what ``source`` holds from where it stands; its hash and size. It is on disk when this returns."""
        ...

    def has(self, hash: str) -> bool: ...

    def get(self, hash: str) -> Path | None:
        """The file that holds this content, checked; None where it is missing."""
        ...

    def open(self, hash: str) -> BinaryIO:
        """The content, checked. Raises BlobMissing."""
        ...

    def named(self, hashes: set[str]) -> None:
        """Entries are about to name these, or do now: relays are to have those that are here."""
        ...

    def release(self, hashes: set[str]) -> None:
        """Entries that named these were erased: remove those that no entry names any more."""
        ...


@dataclass(frozen=True, init=False)
class Blob:
    """An attachment: ``Blob("cat.png")``, ``Blob(data, "image/png", "cat.png")``, ``Blob(open(..., "rb"))``.

    ``source`` is a path, bytes, or a binary file, which is read to its end when the entry is appended, a piece at a
    time. ``media_type`` and ``name`` are taken from the path where they are not given. Equal by content.
    """

    type: ClassVar[str] = "blob"
    hash: str
    size: int
    media_type: str
    name: str
    extra: Mapping[str, JSON] = field(repr=False)
    source: Source | None = field(repr=False)

    def __init__(self, source: Source, media_type: str | None = None, name: str | None = None) -> None:
        if name is None and isinstance(source, (str, os.PathLike)):
            name = os.path.basename(os.fspath(source))
        if media_type is None:
            media_type = mimetypes.guess_type(name or "")[0] or _UNKNOWN_TYPE
        self._set("", 0, media_type, name or "", {}, source)

    @classmethod
    def kept(
        cls,
        hash: str,
        size: int,
        media_type: str = "",
        name: str = "",
        extra: Mapping[str, JSON] | None = None,
        storage: BlobStorage | None = None,
    ) -> Blob:
        """One whose content has a hash already. Raises InvalidContent where that is not a hash."""
        if not is_blob_hash(hash):
            raise InvalidContent("A blob's hash is 64 lower-case hex digits.")
        blob = object.__new__(cls)
        blob._set(hash, size, media_type, name, extra or {}, None)
        object.__setattr__(blob, "_storage", storage)
        return blob

    def _set(self, *values: object) -> None:
        for each, value in zip(fields(self), values, strict=True):
            object.__setattr__(self, each.name, value)

    def __deepcopy__(self, memo: object) -> Blob:
        return self

    def __getstate__(self) -> dict[str, object]:
        """Another process has a storage of its own."""
        return {name: value for name, value in self.__dict__.items() if name != "_storage"}

    @property
    def storage(self) -> BlobStorage | None:
        """The storage of its content; None before it is appended."""
        return self.__dict__.get("_storage")

    def kept_by(self, storage: BlobStorage | None) -> Blob:
        """The same attachment, read from this storage."""
        return Blob.kept(self.hash, self.size, self.media_type, self.name, self.extra, storage)

    @property
    def present(self) -> bool:
        """Whether the content is on this device. It may come later: ``repo.blobs.put`` takes it in."""
        return self.storage is not None and self.storage.has(self.hash)

    @property
    def path(self) -> Path | None:
        """The file that holds the content, checked against the hash; None where it is missing. Read it, never write."""
        return self.storage.get(self.hash) if self.storage is not None else None

    def open(self) -> BinaryIO:
        """The content, checked against the hash. Raises BlobMissing."""
        if self.storage is None:
            raise BlobMissing(
                "This attachment is not kept anywhere yet.", hint="Append it, and use what append returns."
            )
        return self.storage.open(self.hash)

    def read(self) -> bytes:
        """The whole content in memory. Raises BlobMissing."""
        with self.open() as file:
            return file.read()


def keep(blob: Blob, storage: BlobStorage | None) -> Blob:
    """Bring the content to this storage; the part to write. Raises InvalidContent, OSError."""
    if storage is None:
        raise InvalidContent("There is no place for attachments here.", hint="Append through a repo's conversation.")
    if blob.source is None:
        if blob.storage not in (None, storage) and not storage.has(blob.hash) and blob.present:
            with blob.open() as file:
                storage.put(file)
        storage.named({blob.hash})
        return blob.kept_by(storage)
    match blob.source:
        case bytes() | bytearray() | memoryview():
            hash_, size = storage.put(io.BytesIO(blob.source))
        case str() | os.PathLike():
            with open(blob.source, "rb") as file:
                hash_, size = storage.put(file)
        case source:
            hash_, size = storage.put(source)
    storage.named({hash_})
    return Blob.kept(hash_, size, blob.media_type, blob.name, blob.extra, storage)


def blob_to_json(blob: Blob) -> dict[str, JSON]:
    if not blob.hash:
        raise InvalidContent("The attachment has no hash yet.", hint="Append it to a repo's conversation.")
    value: dict[str, JSON] = {**blob.extra, "type": blob.type, "hash": blob.hash, "size": blob.size}
    for name in ("media_type", "name"):
        if getattr(blob, name):
            value[name] = getattr(blob, name)
    return value


def blob_from_json(rest: Mapping[str, JSON]) -> Blob | None:
    """None for what is no sound blob: strangers write documents too, and no name of theirs is ever a path."""
    left = dict(rest)
    hash_, size = left.pop("hash", None), whole_number(left.pop("size", None))
    media_type, name = left.pop("media_type", ""), left.pop("name", "")
    if not is_blob_hash(hash_) or size is None or not 0 <= size < _SIZE_END:
        return None
    if not isinstance(media_type, str) or not isinstance(name, str):
        return None
    return Blob.kept(hash_, size, media_type, name, left)


def named_in(replica: Replica, entries: str) -> dict[str, Blob | None]:
    """All blobs in all versions of all entries (root map ``entries``), shown or not, by their hashes; None for one that
    is not sound."""
    return named_by(replica.node(entries, key) or {} for key in replica.keys(entries))


def named_by(nodes: Iterable[Mapping[str, object]]) -> dict[str, Blob | None]:
    """The same for the fields of entries."""
    found: dict[str, Blob | None] = {}
    for node in nodes:
        for name, text in node.items():
            if name.startswith("version:") and isinstance(text, str) and '"blob"' in text:
                for hash_, blob in _named_by(text).items():
                    found[hash_] = found.get(hash_) or blob
    return found


def _named_by(text: str) -> dict[str, Blob | None]:
    try:
        value = parse_json(text)
    except InvalidContent:
        return {}
    parts = value.get("parts") if isinstance(value, dict) else None
    blobs = [part for part in parts if isinstance(part, dict)] if isinstance(parts, list) else []
    named = [part for part in blobs if part.get("type") == "blob" and is_blob_hash(part.get("hash"))]
    return {part["hash"]: blob_from_json({name: part[name] for name in part if name != "type"}) for part in named}
