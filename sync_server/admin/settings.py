"""The relay's settings: from flags, else from the environment, else from a TOML file, else as they are.

LLMCRDT_RELAY_PORT=8765                  port = 8765
LLMCRDT_RELAY_LIMITS="log=1000,group=9"   [limits]
                                         log = 1000
"""

from __future__ import annotations

import argparse
import dataclasses
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..core.limits import Limits

PREFIX = "LLMCRDT_RELAY_"
LEVELS = ("debug", "info", "warning", "error")
FORMATS = ("text", "json")
_NAMES: Mapping[str, type] = {
    "host": str, "port": int, "data": str, "allow_remote": bool, "check": bool, "allow_origin": list,
    "log_level": str, "log_format": str, "tls_cert": str, "tls_key": str,
}  # fmt: skip

OLD_NAMES: Mapping[str, str] = {
    "parting": "close_timeout", "silence": "idle_timeout", "unknown": "max_unknown_tombstones",
    "fold": "compaction_bytes", "fold_tail": "compaction_tail", "fold_seconds": "compaction_seconds",
    "fold_memory": "compaction_memory", "condense_records": "catch_up_records", "condense_bytes": "catch_up_bytes",
    "condense_most": "catch_up_most", "condense_free": "catch_up_free", "condense_ratio": "catch_up_ratio",
    "condense_document": "catch_up_document", "condense_share": "catch_up_share", "condense_wait": "catch_up_wait",
    "condense_jobs": "catch_up_jobs", "condense_idle": "catch_up_idle", "condense_kept": "catch_up_kept",
}  # fmt: skip
"""Limits that had another name before, which goes on working."""


def defaults(file: Path | None, environment: Mapping[str, str]) -> dict[str, Any]:
    """Settings of the file and the environment, by the names of the flags; "limits" as a dict. Raises ValueError."""
    found = _from_file(file) if file else {}
    found.setdefault("limits", {})
    for name, kind in _NAMES.items():
        text = environment.get(PREFIX + name.upper())
        if text is not None:
            found[name] = _parsed(name, kind, text)
    found["limits"] = {**found["limits"], **limits(environment.get(PREFIX + "LIMITS", "").split(","))}
    for name, allowed in (("log_level", LEVELS), ("log_format", FORMATS)):
        if found.get(name, allowed[0]) not in allowed:
            raise ValueError(f"{name} is one of {', '.join(allowed)}")
    if "data" in found:
        found["data"] = Path(found["data"])
    return found


def limits(pairs: list[str]) -> dict[str, float]:
    """Limits from "name=number". Raises ValueError."""
    found: dict[str, float] = {}
    for pair in filter(None, map(str.strip, pairs)):
        name, _, text = pair.partition("=")
        try:
            found[name] = float(text) if "." in text else int(text)
        except ValueError:
            raise ValueError(f"a limit looks like name=number, not {pair!r}") from None
    return renamed(found)


def renamed(values: Mapping[str, Any]) -> dict[str, Any]:
    """Limits of one source by the names that they have now. Raises ValueError where one is given by both names."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        new = OLD_NAMES.get(name, name)
        if new != name and new in values:
            raise ValueError(f"{name} is the old name of {new}; give one of them")
        found[new] = value
    return found


def checked(values: Mapping[str, Any]) -> Limits:
    """Raises ValueError for a name that is none, or a number that can't be."""
    kinds = {field.name: field.type for field in dataclasses.fields(Limits)}
    for name, value in values.items():
        if name not in kinds:
            raise ValueError(f"there is no limit {name!r}; there are {', '.join(sorted(kinds))}")
        whole = kinds[name] == "int"
        if isinstance(value, bool) or not isinstance(value, int if whole else int | float) or value < 0:
            raise ValueError(f"{name} is a {'whole number' if whole else 'number'} of at least 0")
    return Limits(**values)


def add_logging(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--log-level", default="warning", choices=LEVELS)
    parser.add_argument("--log-format", default="text", choices=FORMATS)


def _from_file(file: Path) -> dict[str, Any]:
    try:
        found = tomllib.loads(file.read_text())
    except (OSError, ValueError, RecursionError) as e:
        raise ValueError(f"{file}: {e}") from None
    for name, value in found.items():
        if name == "limits" and isinstance(value, dict):
            found[name] = renamed(value)
            continue
        kind = _NAMES.get(name)
        if kind is None:
            raise ValueError(f"{file}: there is no setting {name!r}")
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise ValueError(f"{file}: {name} has a value of another kind")
    return found


def _parsed(name: str, kind: type, text: str) -> Any:
    if kind is bool:
        if text not in ("0", "1", "true", "false"):
            raise ValueError(f"{PREFIX}{name.upper()} is true or false")
        return text in ("1", "true")
    if kind is list:
        return text.split()
    try:
        return kind(text)
    except ValueError:
        raise ValueError(f"{PREFIX}{name.upper()} is no number") from None
