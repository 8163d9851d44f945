"""The keyring: the secret keys of conversations, in a file beside the database.

The file is JSON, readable by its owner only. It is never changed in place: a new one is written aside, brought to disk,
and put in its place under a lock, so no process loses what another one added. Keys are never synced; an app hands them
to another device with ``export`` and ``add``.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..exceptions import InvalidContent, KeyringUnusable
from ..ids import DocumentId, KeyId, Random, document_bytes, key_id, text_of
from .private_files import locked, open_private, replace_private

_FORMAT = "llmcrdt-keys/1"
_KEY_BYTES = 32
_LATEST = 1 << 53


@dataclass(frozen=True)
class Key:
    """A conversation's secret. ``created``: milliseconds since 1970 on its maker's clock; the newest key seals."""

    id: KeyId
    created: int
    data: bytes = field(repr=False)


_Keys = dict[DocumentId, tuple[Key, ...]]


class Keyring:
    """Any method from any thread and any process. Every method may raise KeyringUnusable; nothing was changed then."""

    def __init__(
        self, path: str | os.PathLike[str], *, clock: Callable[[], float] = time.time, random: Random = os.urandom
    ) -> None:
        self.path = Path(path)
        self._clock = clock
        self._random = random
        self._mutex = threading.RLock()
        self._read_as: tuple[int, ...] | None = None
        self._known: _Keys = {}

    def keys(self, conversation: str) -> tuple[Key, ...]:
        """The keys of a conversation, oldest first."""
        with self._mutex:
            return self._read().get(DocumentId(conversation), ())

    def find(self, conversation: str, id: str) -> Key | None:
        """The key with this id, if it is here."""
        return next((key for key in self.keys(conversation) if key.id == id), None)

    def newest(self, conversation: str) -> Key:
        """The key that seals; made where there is none yet."""
        found = self.keys(conversation)
        return found[-1] if found else self._make(conversation, only_first=True)

    def rotate(self, conversation: str) -> Key:
        """Make a new key: it seals from now on, the old ones go on opening what they sealed."""
        return self._make(conversation, only_first=False)

    def export(self, conversation: str) -> str:
        """The keys of a conversation as text, for another device's ``add``. Anybody who reads it can open every sealed
        field of the conversation: hand it over on a safe way."""
        return json.dumps(_to_json({DocumentId(conversation): self.keys(conversation)}), separators=(",", ":"))

    def add(self, exported: str) -> int:
        """Take in keys that ``export`` gave; how many were new. Raises InvalidContent for anything else."""
        try:
            found = _from_json(exported)
        except ValueError as error:
            raise InvalidContent(f"This is not an exported key: {error}.", hint="Pass the whole text.") from None
        return self._add(found)

    def everything(self) -> Sequence[tuple[DocumentId, int, bytes]]:
        """All keys that are here, as (conversation, milliseconds since 1970, secret), for another device's
        ``add_all``."""
        with self._mutex:
            return [
                (conversation, key.created, key.data) for conversation, keys in self._read().items() for key in keys
            ]

    def add_all(self, keys: Iterable[tuple[DocumentId, int, bytes]]) -> int:
        """Take in what ``everything`` gave; how many were new."""
        found: dict[DocumentId, list[Key]] = {}
        for conversation, created, data in keys:
            found.setdefault(conversation, []).append(Key(key_id(data), created, data))
        return self._add({conversation: _in_order(own) for conversation, own in found.items()})

    def _add(self, found: _Keys) -> int:
        if not found:
            return 0
        with self._changing() as known:
            before = sum(map(len, known.values()))
            for conversation, keys in found.items():
                known[conversation] = _in_order([*known.get(conversation, ()), *keys])
            return sum(map(len, known.values())) - before

    def forget(self, conversations: Iterable[str]) -> None:
        """Destroy the keys of conversations; nobody with this file alone opens their sealed fields again."""
        doomed = [DocumentId(conversation) for conversation in conversations]
        with self._mutex:
            if doomed and not self._read().keys().isdisjoint(doomed):
                with self._changing() as known:
                    for conversation in doomed:
                        known.pop(conversation, None)

    # inside

    def _make(self, conversation: str, *, only_first: bool) -> Key:
        document_bytes(conversation)
        with self._changing() as known:
            keys = known.get(DocumentId(conversation), ())
            if keys and only_first:  # another process was faster
                return keys[-1]
            data = self._random(_KEY_BYTES)
            created = max(round(self._clock() * 1000), keys[-1].created + 1 if keys else 0)
            made = Key(key_id(data), created, data)
            known[DocumentId(conversation)] = (*keys, made)
            return made

    @contextmanager
    def _changing(self) -> Iterator[_Keys]:
        """The contents of the file, to be changed; written at the end."""
        with self._mutex, locked(self.path):
            self._read_as = None  # before a change the file itself counts, not how it looks from outside
            known = dict(self._read())
            yield known
            self._write(known)

    def _read(self) -> _Keys:
        file = open_private(self.path)
        if file is None:
            self._read_as, self._known = None, {}
            return self._known
        with file:
            info = os.fstat(file.fileno())
            state = (info.st_ino, info.st_size, info.st_mtime_ns)
            if state != self._read_as:
                try:
                    self._known = _from_json(file.read().decode("utf-8"))
                except ValueError as error:
                    raise KeyringUnusable(
                        f"{self.path} is damaged: {error}.", hint="Restore it from a backup, or move it away."
                    ) from None
                self._read_as = state
        return self._known

    def _write(self, known: _Keys) -> None:
        replace_private(self.path, json.dumps(_to_json(known), indent=1).encode("utf-8"))
        self._read_as = None


def _to_json(keys: _Keys) -> dict[str, Any]:
    rows = {
        conversation: [{"id": key.id, "created": key.created, "key": text_of(key.data)} for key in found]
        for conversation, found in keys.items()
        if found
    }
    return {"format": _FORMAT, "keys": rows}


def _from_json(text: str) -> _Keys:
    """Raises ValueError, whose message names no key."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        raise ValueError("it is not JSON") from None
    if not isinstance(value, dict) or value.get("format") != _FORMAT or not isinstance(value.get("keys"), dict):
        raise ValueError(f"it is not of the form {_FORMAT}")
    found: _Keys = {}
    for conversation, rows in value["keys"].items():
        document_bytes(conversation)
        if not isinstance(rows, list):
            raise ValueError("it holds something that is not a list of keys")
        found[DocumentId(conversation)] = _in_order([_key(row) for row in rows])
    return found


def _key(row: Any) -> Key:
    text, created = (row.get("key"), row.get("created")) if isinstance(row, dict) else (None, None)
    if not isinstance(created, int) or isinstance(created, bool) or not 0 <= created < _LATEST:
        raise ValueError("a key has no time")
    try:
        data = base64.b64decode(text + "=", altchars=b"-_", validate=True) if isinstance(text, str) else b""
    except (binascii.Error, ValueError):
        data = b""
    if len(data) != _KEY_BYTES or row.get("id") != key_id(data):
        raise ValueError("a key is not what its id says")
    return Key(key_id(data), created, data)


def _in_order(keys: Iterable[Key]) -> tuple[Key, ...]:
    """Oldest first, each once; of two times for one key, the earlier."""
    found: dict[KeyId, Key] = {}
    for key in sorted(keys, key=lambda key: (key.created, key.id)):
        found.setdefault(key.id, key)
    return tuple(found.values())
