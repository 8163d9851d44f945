"""``Backend.foreign_key``."""

from __future__ import annotations

from ..backend import ParsedUpdate
from .chunks import DELETE
from .derive import root_object


def find_foreign_key(update: ParsedUpdate, root: str, prefix: str, own: str) -> str | None:
    wanted, found = prefix.encode(), None
    for chunk in update.structure:
        if not chunk.holds(wanted):
            continue
        for inside, key, action in chunk.operations():
            if key is None or inside != root_object(root) or action == DELETE:
                continue
            if key == own:
                return None
            if found is None and key.startswith(prefix):
                found = key
    return found
