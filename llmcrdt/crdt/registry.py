"""The backends by kind. The names are known without loading any of them."""

from __future__ import annotations

from importlib import import_module

from ..exceptions import InvalidContent
from .backend import Backend

_HOMES = {"yjs": "yjs.backend:YjsBackend"}
"""The class of each kind's backend, seen from here. A new backend is one more line."""

DEFAULT = "yjs"
"""The kind of every repo that ``llmcrdt.open`` opens."""


def kinds() -> frozenset[str]:
    """The kinds that have a backend: their records can be checked, and their logs compacted."""
    return frozenset(_HOMES)


def backend(kind: str) -> Backend:
    """The backend of a kind; loads it. Raises InvalidContent."""
    if kind not in _HOMES:
        raise InvalidContent(
            f"Documents of kind {kind!r} can't be read here.", hint=f"Known kinds: {', '.join(sorted(_HOMES))}."
        )
    module, _, name = _HOMES[kind].partition(":")
    made: Backend = getattr(import_module(f".{module}", __package__), name)()
    return made
