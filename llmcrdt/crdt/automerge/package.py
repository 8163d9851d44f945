"""The one door to the ``automerge`` package, which is three unrelated things under one name: 0.1.x is somebody's
prototype, 1.0.0rc1 an older core without text edits, 0.2.0.dev4 the newest one (decision 0050)."""

from __future__ import annotations

from importlib import metadata
from typing import Any

from ...exceptions import CRDTMissing

PIN = "0.2.0.dev4"
_HINT = "Install it: pip install 'llmcrdt[automerge]'. Until then such documents are carried as they are."


def installed() -> bool:
    """Whether the package is there in the one version that is known to work. Loads nothing."""
    return _version() == PIN


def check() -> None:
    """Raises CRDTMissing where it is not ``installed``."""
    version = _version()
    if version is None:
        raise CRDTMissing("Automerge documents need the package automerge, which is not installed.", hint=_HINT)
    if version != PIN:
        other = "is an unrelated package" if version.startswith("0.1.") else "lacks what is needed"
        raise CRDTMissing(f"automerge {version} is installed, which {other}; {PIN} is needed.", hint=_HINT)


def load_core() -> Any:
    """The package's own types. Raises CRDTMissing."""
    check()
    try:
        from automerge import core
    except ImportError as error:
        raise CRDTMissing(f"The package automerge can't be used: {error}.", hint=_HINT) from None
    return core


def _version() -> str | None:
    try:
        return metadata.version("automerge")
    except metadata.PackageNotFoundError:
        return None
