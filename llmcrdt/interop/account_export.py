"""Exports of accounts: a zip, or the ``conversations.json`` in it, which is a list of conversations.

They are read one at a time, out of the zip too: nothing is written to a disk, and no name in a zip is used but to find
the lists. The sizes that a zip names are not believed.
"""

from __future__ import annotations

import codecs
import os
import re
import struct
import zipfile
import zlib
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from typing import IO, BinaryIO, TextIO, cast

from ..document.canonical import JSON
from ..exceptions import FormatError
from .json_input import JsonReader, check_json, object_at
from .source import File, NotTold, Source, Tell, Told

MAX_CONVERSATION = 1 << 25
"""So many characters a conversation may have."""
MAX_RATIO = 100
"""So many times its size a zip may hold."""
FREE = 1 << 26
"""So many bytes any zip may hold."""
MAX_DIRECTORY = 1 << 23
"""So many bytes the list of names in a zip may have."""

_LIST = re.compile(r"(?:.*/)?conversations(?:-\d+)?\.json")
_END = b"PK\x05\x06"
_DAMAGED = (
    zipfile.BadZipFile, zlib.error, struct.error, EOFError, OSError, OverflowError, RuntimeError, ValueError,
)  # fmt: skip
"""All that reading a damaged zip may raise."""
_HINT = "Ask for the export again, or give the conversations.json in it."


class AccountExport(Source):
    """Exports of one service."""

    ends = (".json", ".zip")

    @abstractmethod
    def is_own(self, item: Mapping[str, JSON]) -> bool:
        """Whether a conversation is this service's."""

    @abstractmethod
    def told(self, item: Mapping[str, JSON], size: int, provider: str) -> Told:
        """A conversation. Raises FormatError."""

    def detect(self, file: File) -> int:
        if not file.head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith((b"[", b"PK")):
            return 0
        try:
            first = next((item for _, item, _ in _items(file, lambda done: None)), None)
        except FormatError:
            return 10 if file.head.startswith(b"PK") else 0  # which tells what is wrong with it
        return 90 if isinstance(first, dict) and self.is_own(first) else 0

    def conversations(self, file: File, provider: str | None, tell: Tell) -> Iterator[Told | NotTold]:
        for where, item, size in _items(file, tell):
            try:
                check_json(item)
                yield self.told(object_at(item, ""), size, provider or self.provider)
            except FormatError as error:
                yield NotTold(where, error)


def _items(file: File, tell: Tell) -> Iterator[tuple[str, JSON, int]]:
    """The items of the lists of an export, each with its place and its size, about. Raises FormatError."""
    with _lists(file) as lists:
        at = 0.0
        for name, opened, part in lists:
            with closing(opened):
                pieces = _Pieces(opened, file)
                reader = JsonReader(cast(TextIO, pieces), MAX_CONVERSATION)
                before = 0
                for n, (key, item) in enumerate(reader.members(())):
                    if key is not None:
                        raise FormatError(f"{name} is no list.", hint=_HINT)
                    if n:  # the first one is the mark of the list
                        size = pieces.count - before
                        before, at = pieces.count, at + 2 * size * part
                        tell(min(int(at), 2 * file.size))
                        yield f"{name}[{n - 1}]", item, size


@contextmanager
def _lists(file: File) -> Iterator[Iterator[tuple[str, IO[bytes], float]]]:
    """The lists of conversations in an export, each opened when it is asked for, with the part of the file that a byte
    of it is, as far as the file can be believed."""
    if not file.head.startswith(b"PK"):
        with open(file.path, "rb") as plain:
            yield iter([(os.path.basename(file.path), plain, 1.0)])
        return
    with open(file.path, "rb") as opened:
        try:
            _check_directory(opened, file.size)
            with zipfile.ZipFile(opened) as archive:
                infos = sorted((i for i in archive.infolist() if _LIST.fullmatch(i.filename)), key=lambda i: i.filename)
                if not infos:
                    raise FormatError("The zip holds no conversations.json.", hint=_HINT)
                part = file.size / max(1, sum(info.file_size for info in infos))
                yield ((os.path.basename(info.filename), archive.open(info), part) for info in infos)
        except FormatError:
            raise
        except _DAMAGED as error:
            raise FormatError(f"The zip can't be read: {error}.", hint=_HINT) from None


def _check_directory(file: BinaryIO, size: int) -> None:
    """Raises FormatError where a zip has so many names that to read them would take much memory."""
    start = max(0, size - (1 << 16) - 100)
    file.seek(start)
    tail = file.read()
    at = tail.rfind(_END)
    if at < 0:
        raise FormatError("The zip was cut short.", hint=_HINT)
    names = int.from_bytes(tail[at + 12 : at + 16], "little")
    if tail[at - 20 : at - 16] == b"PK\x06\x07":
        file.seek(int.from_bytes(tail[at - 12 : at - 4], "little") & (1 << 62) - 1)
        names = int.from_bytes(file.read(56)[40:48], "little")
    if names > MAX_DIRECTORY:
        raise FormatError("The zip holds too many files.", hint=_HINT)
    file.seek(0)


class _Pieces:
    """A file as text, as far as ``JsonReader`` reads files. ``count``: how many bytes were read."""

    def __init__(self, opened: IO[bytes], file: File) -> None:
        self.count = 0
        self._opened = opened
        self._size, self._is_zip = file.size, file.head.startswith(b"PK")
        self._decoder = codecs.getincrementaldecoder("utf-8")()

    def read(self, size: int) -> str:
        while True:
            piece = self._opened.read(size)
            self.count += len(piece)
            if self._is_zip and self.count > max(FREE, MAX_RATIO * self._size):
                raise FormatError(f"The zip holds more than {MAX_RATIO} times its size.", hint=_HINT)
            try:
                text = self._decoder.decode(piece, final=not piece)
            except UnicodeDecodeError:
                raise FormatError("The export is not UTF-8 text.", hint=_HINT) from None
            if text or not piece:
                return text
