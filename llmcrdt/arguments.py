"""Arguments of another type than a method takes are told before anything begins."""

from __future__ import annotations

from collections.abc import Callable
from types import NoneType

from .exceptions import InvalidContent, LLMCRDTError


def check_type(
    value: object,
    *kinds: type,
    name: str,
    hint: str,
    error: Callable[..., LLMCRDTError] = InvalidContent,
) -> None:
    """Raises ``error`` (InvalidContent) unless ``value`` is of one of ``kinds``; ``name``: the argument's."""
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
        names = ["None" if kind is NoneType else kind.__name__ for kind in kinds]
        raise error(f"{name} is {type(value).__name__}, not {' or '.join(names)}.", hint=hint)


def check_callback(callback: object) -> None:
    """Raises InvalidContent unless an observer can be called, or is None."""
    if callback is not None and not callable(callback):
        raise InvalidContent(
            f"callback is {type(callback).__name__}.", hint="Give a function of one argument, the change."
        )
