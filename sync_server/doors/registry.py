"""The doors of a relay, by path. A protocol more is a module that implements ``base.Door``, and a line here."""

from __future__ import annotations

from collections.abc import Sequence

from . import automerge, cbor, native, yjs
from .base import DoorType

DOORS: Sequence[DoorType] = (native.DOOR, yjs.DOOR, *([automerge.DOOR] if cbor.installed() else []))
"""Without the package cbor2 (extra ``relay``) there is no door for Automerge clients."""


def find(doors: Sequence[DoorType], path: str) -> DoorType | None:
    """The door at a request's path; parameters don't matter."""
    return next((door for door in doors if door.is_at(path)), None)


def describe(doors: Sequence[DoorType]) -> str:
    """One sentence about which protocol is where."""
    first, *others = doors
    return ", ".join((f"{first.name} is at {first.path}", *(f"{door.name} at {door.path}" for door in others))) + "."
