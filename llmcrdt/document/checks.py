"""Checks of values that strangers wrote."""

from __future__ import annotations

from ..exceptions import InvalidContent

_LAMPORT_END = 1 << 53  # JavaScript's integers end here


def whole_number(value: object) -> int | None:
    """A whole number, also one that a language wrote as 3.0; None for anything else, True and False included."""
    if isinstance(value, float):
        return int(value) if value.is_integer() else None
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def lamport_of(value: object) -> int | None:
    """A whole number above 0 that every language holds; None for anything else."""
    number = whole_number(value)
    return number if number is not None and 0 < number < _LAMPORT_END else None


def need(condition: object, reason: str) -> None:
    """Raises InvalidContent with the reason unless the condition holds."""
    if not condition:
        raise InvalidContent(reason)
