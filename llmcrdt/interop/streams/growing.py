"""Values that grow piece by piece, in time that is linear in the pieces. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from ...document.canonical import JSON, parse_json
from ...exceptions import InvalidContent


class Growing:
    """A text in pieces; stands in a JSON value where the text will stand."""

    __slots__ = ("_pieces",)

    def __init__(self, text: str = "") -> None:
        self._pieces = [text] if text else []

    def add(self, text: str) -> None:
        if text:
            self._pieces.append(text)

    def __bool__(self) -> bool:
        return bool(self._pieces)

    def __str__(self) -> str:
        if len(self._pieces) > 1:
            self._pieces = ["".join(self._pieces)]
        return self._pieces[0] if self._pieces else ""


def settled(value: JSON) -> JSON:
    """A copy with the texts that have grown."""
    if isinstance(value, Growing):
        return str(value)
    if isinstance(value, dict):
        return {key: settled(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [settled(inner) for inner in value]
    return value


def put(target: dict[str, JSON], members: Mapping[str, JSON]) -> None:
    """Set members; one that is null says nothing about what is there."""
    for key, value in members.items():
        if value is not None or key not in target:
            target[key] = value


def add(target: dict[str, JSON], members: Mapping[str, JSON]) -> None:
    """Like ``put``, but text goes on after the text that is there."""
    for key, value in members.items():
        old = target.get(key)
        if isinstance(value, str) and isinstance(old, (str, Growing)):
            if isinstance(old, str):
                target[key] = old = Growing(old)
            old.add(value)
        elif value is not None or key not in target:
            target[key] = Growing(value) if isinstance(value, str) else value


def object_in(text: str) -> dict[str, JSON] | None:
    """The object that a text holds; None where it is another text, or part of one. No object's text goes on as that of
    a longer one, so this one is whole."""
    try:
        value = parse_json(text)
    except InvalidContent:
        return None
    return value if isinstance(value, dict) else None
