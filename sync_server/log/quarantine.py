"""The documents that can't be loaded: workers died of them again and again. They are known after a restart, too.

One JSON file in the relay's folder: by the id of a document, since when (seconds since 1970) and why. An operator's
command lifts a mark, also while the relay runs. A file that can't be written or read costs nothing but that: it is said
in the log of the relay's process, and the document is tried again after a restart.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from llmcrdt.files import aside_name, replace_file
from llmcrdt.ids import document_bytes, document_id

FILE = "quarantine.json"

logger = logging.getLogger(__name__)


class Mark(NamedTuple):
    """``since``: seconds since 1970."""

    since: int
    why: str


class Quarantine:
    """``path`` None: in memory only. Any method from any thread."""

    def __init__(self, path: Path | None = None, clock: Callable[[], float] = time.time) -> None:
        self._path, self._clock = path, clock
        self._lock = threading.Lock()
        self._marks: dict[bytes, Mark] = {}
        self._read_as: tuple[int, int] | None = None

    def __contains__(self, document: object) -> bool:
        return document in self.marks()

    def marks(self) -> Mapping[bytes, Mark]:
        """All there are now; costs a look at the file where it hasn't changed."""
        with self._lock:
            self._refresh()
            return self._marks

    def put(self, document: bytes, why: str) -> None:
        """From now on nobody loads this document."""
        with self._lock:
            self._refresh()
            self._write({**self._marks, document: Mark(int(self._clock()), why)})

    def lift(self, document: bytes) -> bool:
        """It may be loaded again. False where it had no mark. Raises OSError where the file can't be written."""
        with self._lock:
            self._refresh()
            if document not in self._marks:
                return False
            self._write({each: mark for each, mark in self._marks.items() if each != document}, strict=True)
            return True

    def _refresh(self) -> None:
        if self._path is None:
            return
        try:
            info = self._path.stat()
            if (info.st_size, info.st_mtime_ns) == self._read_as:
                return
            self._marks = _read(self._path.read_bytes())
            self._read_as = (info.st_size, info.st_mtime_ns)
        except FileNotFoundError:
            if self._read_as is not None:
                self._marks, self._read_as = {}, None
        except (OSError, ValueError) as error:
            logger.error("%s can't be read: %s", self._path, error)

    def _write(self, marks: dict[bytes, Mark], *, strict: bool = False) -> None:
        if self._path is not None:
            try:
                replace_file(self._path, _written(marks), aside_name(self._path.parent))
                info = self._path.stat()
                self._read_as = (info.st_size, info.st_mtime_ns)
            except OSError as error:
                if strict:
                    raise
                logger.error("%s can't be written: %s", self._path, error)
        self._marks = marks


def _written(marks: Mapping[bytes, Mark]) -> bytes:
    rows = {document_id(document): mark._asdict() for document, mark in sorted(marks.items())}
    return json.dumps(rows, indent=1).encode()


def _read(content: bytes) -> dict[bytes, Mark]:
    """Raises ValueError."""
    found = {}
    rows = json.loads(content)
    for document, mark in rows.items() if isinstance(rows, dict) else ():
        if not isinstance(mark, dict) or not isinstance(mark.get("since"), int) or not isinstance(mark.get("why"), str):
            raise ValueError("a mark says neither since when nor why")
        found[document_bytes(document)] = Mark(mark["since"], mark["why"])
    return found
