"""Canonical JSON: the text that hashes are taken over, and the only form in which structured values enter a document.

Keys sorted by code point, no white space, no escapes beyond those JSON needs, numbers as Python writes them: ``1`` and
``1.0`` differ, and so do 2**53 + 1 and its neighbours. A reader never re-encodes: it hashes the stored text.
(CRDT backends turn 5 into 5.0 and fail on 2**64; text they leave alone.)

Strangers write any JSON, and it must read the same on every device, whatever its stack and its settings: half of a
surrogate pair is read as U+FFFD, a number past the greatest double as that one, and nesting has a limit of its own.

A number that Python would write otherwise than it stands there (``1.10``, ``1e400``, ``-0``) is read as one that
keeps its text. ``exact_json`` writes that text again; it is for the content of entries.
"""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Callable
from typing import Any

from ..exceptions import InvalidContent

JSON = Any
"""None, bool, int, float, str, list or dict with str keys, nested."""


MAX_DEPTH = 128
"""How many objects and lists may stand inside each other. Python's own limit hangs on how deep its caller stands."""


class MinusZero(int):
    """The whole number 0, written as ``-0``."""

    text = "-0"


class WrittenNumber(float):
    """A number, with its text where Python would write another one: ``1.10``, ``1e400``."""

    __slots__ = ("text",)
    text: str

    def __reduce__(self) -> tuple[Callable[[str], float], tuple[str]]:
        return number_of, (self.text,)


def number_of(text: str) -> float:
    """The number of a JSON text: finite, and one that keeps its text."""
    number = float(text)
    if math.isinf(number):
        number = math.copysign(sys.float_info.max, number)
    elif repr(number) == text:
        return number
    written = WrittenNumber(number)
    written.text = text
    return written


def exact_json(value: JSON) -> str:
    """The canonical text of ``value``, in which each number stands as it was written. Raises InvalidContent."""
    return with_written_numbers(value, canonical_json)


def with_written_numbers(value: JSON, write: Callable[[JSON], str]) -> str:
    """The text that ``write`` makes of a JSON value, in which each number stands as it was written."""
    text = write(value)  # first: it refuses what refers to itself
    if not _holds_written(value):
        return text
    mark = "#"
    while mark in text:
        mark += "#"
    numbers: list[str] = []

    def marked(item: JSON) -> JSON:
        if isinstance(item, (WrittenNumber, MinusZero)):
            numbers.append(item.text)
            return f"{mark}{len(numbers) - 1}{mark}"
        if isinstance(item, dict):
            return {key: marked(inner) for key, inner in item.items()}
        return [marked(inner) for inner in item] if isinstance(item, (list, tuple)) else item

    return re.sub(f'"{mark}([0-9]+){mark}"', lambda found: numbers[int(found[1])], write(marked(value)))


def _holds_written(value: JSON) -> bool:
    todo = [value]
    while todo:
        item = todo.pop()
        if isinstance(item, dict):
            todo += item.values()
        elif isinstance(item, (list, tuple)):
            todo += item
        elif isinstance(item, (WrittenNumber, MinusZero)):
            return True
    return False


def canonical_json(value: JSON) -> str:
    """The canonical text of ``value``. Raises InvalidContent for what JSON or UTF-8 can't hold, or readers would read
    as something else."""
    try:
        text = _ENCODER.encode(value)
        text.encode("utf-8")
        _check_depth(text)
        if len(text) >= _LONG and _DIGITS.search(text[::_STEP]):
            _CHECKER.decode(text)
    except UnicodeEncodeError:
        raise InvalidContent(
            "The text holds half of a surrogate pair, which UTF-8 can't store.",
            hint="Decode the bytes it came from again, or replace the character.",
        ) from None
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidContent(f"The value can't be stored as JSON: {error}.") from None
    return text


def parse_json(text: object) -> JSON:
    """The value of a JSON text. Raises InvalidContent for anything else, NaN and Infinity included. All text in it can
    be written as UTF-8, and all numbers are finite. Of a key that stands twice the last one counts."""
    if not isinstance(text, str):
        raise InvalidContent(f"Expected JSON text, got {type(text).__name__}.")
    try:
        if "\\ud" in text or "\\uD" in text:
            text = _ESCAPE.sub(_whole_escape, text)
        _check_depth(text)
        odd = len(text) >= _LONG or ("-0" in text and _MINUS_ZERO.search(text))
        decoder = _DECODER if odd else _SHORT_DECODER
        if text[:1] in _BEGINS:
            value, end = decoder.raw_decode(text)
            if end == len(text):
                return value
        return decoder.decode(text)  # there is white space around it, or more than that
    except (ValueError, RecursionError) as error:
        raise InvalidContent(f"The text is not JSON: {error}.") from None


_STRING = r'"[^"\\]*+(?:\\.[^"\\]*+)*+"?'
_BEGINS = frozenset("{[")
_BRACKET = re.compile(_STRING + r"|[\[\]{}]", re.DOTALL)
_ESCAPE = re.compile(
    r"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(u[dD][89a-fA-F][0-9a-fA-F]{2})|.)", re.DOTALL
)
_LONG = 309
"""Digits of the least whole number that is greater than any double. Most texts are shorter."""
# Of so many digits 8 stand this far from each other, wherever they begin.
_STEP, _DIGITS = 38, re.compile(r"[0-9]{8}")
_MINUS_ZERO = re.compile(r"(?<![^\s\[:,])-0(?![^\s\],}])")


def _check_depth(text: str) -> None:
    """Raises ValueError where JSON nests too deeply."""
    if text.count("[") + text.count("{") <= MAX_DEPTH:
        return
    depth = 0
    for found in _BRACKET.finditer(text):
        bracket = text[found.start()]
        if bracket in "[{":
            depth += 1
            if depth > MAX_DEPTH:
                raise ValueError(f"it nests deeper than {MAX_DEPTH} levels")
        elif bracket in "]}":
            depth -= 1


def _whole_escape(escape: re.Match[str]) -> str:
    """An escape as it stands, but U+FFFD for half of a surrogate pair."""
    return "\\ufffd" if escape[1] else escape[0]


def whole_number_of(text: str) -> JSON:
    """The whole number of a JSON text; one that no double holds is the greatest of its sign, and keeps its text."""
    if text == "-0":
        return MinusZero()
    return number_of(text) if len(text) > 308 and math.isinf(float(text)) else int(text)


def _storable(text: str) -> int:
    """Raises ValueError for a whole number that readers would read as another one."""
    if math.isinf(float(text)):
        raise ValueError("a number is greater than any double")
    return 0


def refuse_constant(name: str) -> JSON:
    """NaN and Infinity are not JSON: raises ValueError."""
    raise ValueError(f"{name} is not JSON")


# json.dumps and json.loads would make one for each text
_ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False, sort_keys=True, separators=(",", ":"))
_SHORT_DECODER = json.JSONDecoder(parse_float=number_of, parse_constant=refuse_constant)
_DECODER = json.JSONDecoder(parse_int=whole_number_of, parse_float=number_of, parse_constant=refuse_constant)
_CHECKER = json.JSONDecoder(parse_int=_storable)
