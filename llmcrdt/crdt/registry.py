"""The backends by kind. The names are known without loading any of them."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from ..exceptions import InvalidContent
from .backend import Backend

_HOMES = {"yjs": "yjs.backend:YjsBackend", "automerge": "automerge.backend:AutomergeBackend"}
"""The class of each kind's backend, seen from here. A new backend is one more line."""

_PACKAGES = {"automerge": "automerge.package"}
"""Of kinds whose core is an extra: the module that knows whether it is installed."""

DEFAULT = "yjs"
"""The kind of what is made where nobody says another."""


def known() -> frozenset[str]:
    """The kinds that ``backend`` knows, installed or not."""
    return frozenset(_HOMES)


def kinds() -> frozenset[str]:
    """The kinds that have a backend here: their records can be checked, and their logs compacted."""
    return frozenset(kind for kind in _HOMES if kind not in _PACKAGES or _package(kind).installed())


def backend(kind: str) -> Backend:
    """The backend of a kind; loads it. Raises InvalidContent; CRDTMissing where its package is not installed."""
    if kind not in _HOMES:
        raise InvalidContent(
            f"Documents of kind {kind!r} can't be read here.", hint=f"Known kinds: {', '.join(sorted(_HOMES))}."
        )
    if kind in _PACKAGES:
        _package(kind).check()
    module, _, name = _HOMES[kind].partition(":")
    made: Backend = getattr(import_module(f".{module}", __package__), name)()
    return made


def _package(kind: str) -> Any:
    return import_module(f".{_PACKAGES[kind]}", __package__)
