"""JSON from outside. Errors name the path of the bad value."""

from __future__ import annotations

import io
import json
import math
import re
from collections.abc import Collection, Iterable, Iterator
from typing import Final, TextIO

from ..document.canonical import JSON, number_of, whole_number_of
from ..exceptions import FormatError

MAX_DEPTH = 100
"""How deeply JSON may nest here."""

Member = tuple[str | None, JSON]
LIST: Final = object()
"""Comes before the items of a list that is streamed."""

_SURROGATE = re.compile("[\ud800-\udfff]")
_SPACE = re.compile(r"[ \t\n\r]*")
_PIECE = 1 << 18
_NEAR_END = 16  # what is said of a value that goes on beyond the text at hand is said of a place so near to its end


def parse(text: str) -> JSON:
    """The JSON value of a file's text. Raises FormatError with line and column."""
    return JsonReader(io.StringIO(text)).whole()


def read_members(file: TextIO, streamed: Collection[str]) -> Iterator[Member]:
    """The members of the object that a file holds, as they stand there; of the members ``streamed`` the items of
    their lists, one at a time, after ``LIST``. A list is streamed likewise, under None, and so is any other value. Only
    what was read last is in memory. Raises FormatError with line and column."""
    yield from JsonReader(file).members(streamed)


def members_of(value: JSON, streamed: Collection[str]) -> Iterator[Member]:
    """The same of a value that is in memory."""
    members: Iterable[Member] = value.items() if isinstance(value, dict) else [(None, value)]
    for key, item in members:
        if isinstance(item, list) and (key is None or key in streamed):
            yield key, LIST
            yield from ((key, inner) for inner in item)
        else:
            yield key, item


class JsonReader:
    """Reads the JSON of a text file, of which it holds about a piece of ``_PIECE`` characters, or one value.
    ``longest``: so many characters a value may have, about; None: any."""

    def __init__(self, file: TextIO, longest: int | None = None) -> None:
        self._file = file
        self._longest = longest
        self._text, self._at, self._ended = "", 0, False
        self._line, self._column = 1, 1  # of the beginning of the text at hand

    def whole(self) -> JSON:
        """The one value that the file holds."""
        if self._peek() == "\ufeff":
            self._at += 1
        value = self._value()
        self._end()
        return value

    def members(self, streamed: Collection[str]) -> Iterator[Member]:
        """``read_members``."""
        if self._peek() == "\ufeff":
            self._at += 1
        match self._peek():
            case "[":
                yield None, LIST
                yield from ((None, item) for item in self._items())
            case "{":
                yield from self._object(streamed)
            case _:
                yield None, self._value()
        self._end()

    def _object(self, streamed: Collection[str]) -> Iterator[Member]:
        self._at += 1
        seen: set[str] = set()
        if self._take("}"):
            return
        while True:
            if self._peek() != '"':
                raise self._bad("Expecting property name enclosed in double quotes")
            key = self._value()
            if key in seen:
                raise bad(key, "stands twice", "Leave one of them out.")
            seen.add(key)
            if not self._take(":"):
                raise self._bad("Expecting ':' delimiter")
            if key in streamed and self._peek() == "[":
                yield key, LIST
                yield from ((key, item) for item in self._items())
            else:
                yield key, self._value()
            if self._take("}"):
                return
            if not self._take(","):
                raise self._bad("Expecting ',' delimiter")

    def _items(self) -> Iterator[JSON]:
        self._at += 1
        if self._take("]"):
            return
        while True:
            yield self._value()
            if self._take("]"):
                return
            if not self._take(","):
                raise self._bad("Expecting ',' delimiter")

    def _end(self) -> None:
        if self._peek():
            raise self._bad("Extra data")

    def _peek(self) -> str:
        """The next character that is no white space; "" at the end."""
        while True:
            self._at = _SPACE.match(self._text, self._at).end()  # type: ignore[union-attr]
            if self._at < len(self._text) or not self._more():
                return self._text[self._at : self._at + 1]

    def _take(self, sign: str) -> bool:
        found = self._peek() == sign
        self._at += found
        return found

    def _value(self) -> JSON:
        self._peek()
        while True:
            try:
                value, end = _DECODER.raw_decode(self._text, self._at)
            except json.JSONDecodeError as error:
                cut = error.pos >= len(self._text) - _NEAR_END or error.msg.startswith("Unterminated")
                if cut and self._more():
                    continue
                self._at = error.pos
                raise self._bad(error.msg) from None
            except RecursionError:
                raise FormatError("The JSON nests too deeply.", hint=f"Keep it below {MAX_DEPTH} levels.") from None
            except ValueError as error:
                raise FormatError(f"The text is not JSON: {error}.", hint="Write numbers that JSON has.") from None
            if end == len(self._text) and self._more():
                continue  # a number may go on
            self._at = end
            return value

    def _more(self) -> bool:
        """Read on: at least as much as is at hand, so that a long value is not read again and again."""
        if self._ended:
            return False
        gone = self._text[: self._at]
        lines = gone.count("\n")
        self._line += lines
        self._column = len(gone) - gone.rfind("\n") if lines else self._column + len(gone)
        left = self._text[self._at :]
        if self._longest is not None and len(left) > self._longest:
            raise FormatError(
                f"A value has more than {self._longest} characters.", hint="Nothing so long can be one conversation."
            )
        piece = self._file.read(max(_PIECE, len(left)))
        self._text, self._at, self._ended = left + piece, 0, not piece
        return bool(piece)

    def _bad(self, message: str) -> FormatError:
        before = self._text[: self._at]
        lines = before.count("\n")
        column = len(before) - before.rfind("\n") if lines else self._column + len(before)
        return FormatError(
            f"The text is not JSON: {message} at line {self._line + lines}, column {column}.",
            hint="Check the file there; was it cut short?",
        )


def check_json(value: JSON, at: str = "") -> None:
    """Raises FormatError unless all of ``value`` can be stored: JSON types, finite numbers, whole characters, no deeper
    than MAX_DEPTH. ``at``: where the value stands."""
    todo: list[tuple[JSON, str, int]] = [(value, at, 0)]
    while todo:
        item, path, depth = todo.pop()
        if depth > MAX_DEPTH:
            raise bad(path[:200], "nests too deeply", f"Keep it below {MAX_DEPTH} levels.")
        if isinstance(item, str):
            if _SURROGATE.search(item):
                raise bad(path, "holds half of a surrogate pair", "Decode the text it came from again.")
        elif isinstance(item, dict):
            for key, inner in item.items():
                if not isinstance(key, str) or _SURROGATE.search(key):
                    raise bad(path, f"has a key that JSON can't hold, {key!r}", "Keys are text.")
                todo.append((inner, f"{path}.{key}" if path else key, depth + 1))
        elif isinstance(item, list):
            todo += [(inner, f"{path}[{i}]", depth + 1) for i, inner in enumerate(item)]
        elif isinstance(item, float) and not math.isfinite(item):
            raise bad(path, f"is {item}", "JSON has no such number.")
        elif item is not None and not isinstance(item, (bool, int, float)):
            raise bad(path, f"is {kind_of(item)}", "Pass what json.loads returns.")


def object_at(value: JSON, path: str) -> dict[str, JSON]:
    """``value``, which must be an object; ``path`` says where it stands. Raises FormatError."""
    if not isinstance(value, dict):
        raise bad(path, f"is {kind_of(value)}", "An object is expected here.")
    return value


def list_at(value: JSON, path: str) -> list[JSON]:
    """``value``, which must be a list. Raises FormatError."""
    if not isinstance(value, list):
        raise bad(path, f"is {kind_of(value)}", "A list is expected here.")
    return value


def text_at(value: JSON, path: str, hint: str = "Text is expected here.") -> str:
    """``value``, which must be text. Raises FormatError with this hint."""
    if not isinstance(value, str):
        raise bad(path, f"is {kind_of(value)}", hint)
    return value


def kind_of(value: object) -> str:
    """The type of a value, in words."""
    if value is None:
        return "missing or null"
    names = {bool: "a boolean", int: "a number", float: "a number", str: "text", list: "a list", dict: "an object"}
    return names.get(type(value), f"a Python {type(value).__name__}")


def bad(path: str, what: str, hint: str) -> FormatError:
    """The error for the value at ``path``."""
    return FormatError(f"{path or 'The value'} {what}.", hint=hint)


def _no_constant(name: str) -> JSON:
    raise ValueError(f"{name} is not a number of JSON")


_DECODER = json.JSONDecoder(parse_int=whole_number_of, parse_float=number_of, parse_constant=_no_constant)
