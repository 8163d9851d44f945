"""Checks of values that strangers wrote."""

from __future__ import annotations

from typing import TypeGuard

from ..exceptions import InvalidContent

_LAMPORT_END = 1 << 53  # JavaScript's integers end here


def is_int(value: object) -> TypeGuard[int]:
    """A whole number; True and False are none."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_lamport(value: object) -> TypeGuard[int]:
    """A whole number above 0 that every language holds."""
    return is_int(value) and 0 < value < _LAMPORT_END


def need(condition: object, reason: str) -> None:
    """Raises InvalidContent with the reason unless the condition holds."""
    if not condition:
        raise InvalidContent(reason)
