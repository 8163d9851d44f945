"""Reads the members of a request's body: each is of its type, or the error names it."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any

from ...document.canonical import JSON
from ...document.checks import whole_number
from .errors import HttpError, bad_request


class Fields:
    """The members of one object. A member that is null counts as missing. ``end`` refuses those that nobody took."""

    def __init__(self, body: JSON, path: str = "") -> None:
        if not isinstance(body, dict):
            raise bad_request(f"{path or 'The body'} is not a JSON object.", path or None)
        self._all: Mapping[str, JSON] = body
        self._left = {name: value for name, value in body.items() if value is not None}
        self._path = path

    def path(self, name: str) -> str:
        """The place of a member in the body, as errors name it."""
        return f"{self._path}.{name}" if self._path else name

    def has(self, name: str) -> bool:
        """Whether it is there and was not taken yet."""
        return name in self._left

    def any(self, name: str, default: JSON = None) -> JSON:
        """A member of any type."""
        return self._left.pop(name, default)

    def text(self, name: str, default: str | None = None) -> str | None:
        """A text."""
        return self._typed(name, str, "a text", default)  # type: ignore[no-any-return]

    def needed_text(self, name: str) -> str:
        """A text that has to be there."""
        found = self.text(name)
        if not found:
            raise bad_request(f"Missing required parameter: '{self.path(name)}'.", self.path(name))
        return found

    def flag(self, name: str, default: bool = False) -> bool:
        """True or false."""
        return bool(self._typed(name, bool, "true or false", default))

    def whole(self, name: str, least: int, most: int | None = None) -> int | None:
        """A whole number."""
        value = self._left.pop(name, None)
        if value is None:
            return None
        found = whole_number(value)
        if found is None or found < least or (most is not None and found > most):
            span = f"from {least} to {most}" if most is not None else f"of {least} or more"
            raise self._odd(name, f"a whole number {span}")
        return found

    def number(self, name: str, least: float, most: float) -> float | None:
        """A number."""
        value = self._left.pop(name, None)
        if value is None:
            return None
        usable = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
        if not usable or not least <= value <= most:
            raise self._odd(name, f"a number from {least:g} to {most:g}")
        return float(value)

    def object(self, name: str) -> dict[str, JSON] | None:
        """An object."""
        found: dict[str, JSON] | None = self._typed(name, dict, "an object", None)
        return found

    def list(self, name: str) -> list[JSON] | None:
        """A list."""
        found: list[JSON] | None = self._typed(name, list, "a list", None)
        return found

    def texts(self, name: str, most: int) -> tuple[str, ...]:
        """A text, or a list of texts."""
        value = self._left.pop(name, None)
        some = [value] if isinstance(value, str) else [] if value is None else value
        if not isinstance(some, list) or len(some) > most or not all(isinstance(each, str) for each in some):
            raise self._odd(name, f"a text, or a list of {most} at most")
        return tuple(each for each in some if each)

    def ignore(self, *names: str) -> None:
        """Members that change nothing here."""
        for name in names:
            self._left.pop(name, None)

    def only(self, name: str, allowed: Collection[JSON], why: str) -> JSON:
        """A member that has to be one of these, if it is there; ``why`` says why no other."""
        value = self._left.pop(name, None)
        if value is not None and not any(value == each and type(value) is type(each) for each in allowed):
            raise bad_request(f"{self.path(name)}: {why}", self.path(name), "unsupported_value")
        return value

    def end(self, words: str) -> None:
        """Refuse what nobody took; ``words``: the API's, with {} for the name."""
        for name in self._left:
            path = self.path(str(name))[:200]
            raise bad_request(words.format(path), path, "unknown_parameter")

    def _typed(self, name: str, kind: type, words: str, default: Any) -> Any:
        value = self._left.pop(name, None)
        if value is None:
            return default
        if not isinstance(value, kind):
            raise self._odd(name, words)
        return value

    def _odd(self, name: str, words: str) -> HttpError:
        path = self.path(name)
        return bad_request(f"Invalid value for '{path}': expected {words}.", path, "invalid_value")
