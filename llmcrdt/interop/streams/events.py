"""Bytes of a response's body -> the texts of its events, however the bytes are cut. Pure.

``EventParser`` reads server-sent events by the rules of the HTML standard, as far as they make the data of an event;
``LineParser`` reads a JSON text a line. Time and memory are linear in the bytes.
"""

from __future__ import annotations

import codecs
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator

from ...exceptions import FormatError

MAX_EVENT = 64 << 20
"""Characters that an event may have, pictures included."""

_LINE_END = re.compile("\r\n|\r|\n")


class Parser(ABC):
    """Takes pieces of bytes and gives texts. A character that is cut in two is put together again; bytes that are no
    UTF-8 become U+FFFD, as the standard wants."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")("replace")  # drops a byte order mark
        self._line: list[str] = []  # pieces of the line that has not ended
        self._size = 0  # characters of these, and of the event before them
        self._after_return = False  # a line feed may come that belongs to the line end before it

    def feed(self, piece: bytes) -> Iterator[str]:
        """The texts that a piece completes, one at a time. Raises FormatError for one that is too long."""
        text = self._decoder.decode(piece)
        if self._after_return and text:
            text, self._after_return = text.removeprefix("\n"), False
        if text.endswith("\r"):
            self._after_return = True
        at = 0
        for end in _LINE_END.finditer(text):
            self._keep(text[at : end.start()])
            line, self._line = "".join(self._line), []
            at = end.end()
            yield from self._ended(line)
        self._keep(text[at:])

    def close(self) -> Iterator[str]:
        """The texts that the end of the body completes."""
        return iter(())

    @abstractmethod
    def _ended(self, line: str) -> Iterator[str]:
        """The text that a line completes."""

    def _keep(self, text: str) -> None:
        self._size += len(text)
        if self._size > MAX_EVENT:
            raise FormatError(
                f"An event of the stream has more than {MAX_EVENT} characters.",
                hint="Is this the body of a streamed response?",
            )
        if text:
            self._line.append(text)


class EventParser(Parser):
    """Server-sent events: the data of each. An event without an empty line after it when the body ends is none."""

    def __init__(self) -> None:
        super().__init__()
        self._data: list[str] = []

    def _ended(self, line: str) -> Iterator[str]:
        if not line:
            data, self._data, self._size = self._data, [], 0
            if data:
                yield "\n".join(data)
            return
        name, _, value = line.partition(":")
        if name == "data":
            self._data.append(value.removeprefix(" "))
        else:
            self._size -= len(line)  # a comment, or a field that says nothing here


class LineParser(Parser):
    """A text a line; empty lines are none."""

    def close(self) -> Iterator[str]:
        line, self._line = "".join(self._line), []
        yield from self._ended(line)

    def _ended(self, line: str) -> Iterator[str]:
        self._size = 0
        if line.strip():
            yield line
