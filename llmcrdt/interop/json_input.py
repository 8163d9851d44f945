"""JSON from outside. Errors name the path of the bad value."""

from __future__ import annotations

import json
import math
import re

from ..document.canonical import JSON
from ..exceptions import FormatError

MAX_DEPTH = 100
"""How deeply JSON may nest here."""

_SURROGATE = re.compile("[\ud800-\udfff]")


def parse(text: str) -> JSON:
    """The JSON value of a file's text. Raises FormatError with line and column."""
    try:
        return json.loads(text.removeprefix("\ufeff"), parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        raise FormatError(
            f"The text is not JSON: {error.msg} at line {error.lineno}, column {error.colno}.",
            hint="Check the file there; was it cut short?",
        ) from None
    except RecursionError:
        raise FormatError("The JSON nests too deeply.", hint=f"Keep it below {MAX_DEPTH} levels.") from None
    except ValueError as error:
        raise FormatError(f"The text is not JSON: {error}.", hint="Write numbers that JSON has.") from None


def check_json(value: JSON) -> None:
    """Raises FormatError unless all of ``value`` can be stored: JSON types, finite numbers, whole characters, no deeper
    than MAX_DEPTH."""
    todo: list[tuple[JSON, str, int]] = [(value, "", 0)]
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
