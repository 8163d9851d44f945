"""Keys: who may ask, and whose conversations they see."""

from __future__ import annotations

import hashlib
import hmac
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ...exceptions import InvalidContent

NOBODY = "http"
"""The author of what comes in without a name."""
_NAME = re.compile(r"[A-Za-z0-9._@-]{1,64}")
_SHORTEST = 16


@dataclass(frozen=True)
class Caller:
    """Somebody who asks. ``author`` signs what they say. ``only_own``: they see the conversations alone that they
    began; else all of the library."""

    author: str = NOBODY
    only_own: bool = False


class Keys:
    """The keys that are let in; none: everybody is. Only hashes of them stay in memory."""

    def __init__(self, keys: Mapping[str, str] | Iterable[str] = ()) -> None:
        """``keys``: keys, or each with the name of its holder. Raises InvalidContent."""
        named = dict(keys) if isinstance(keys, Mapping) else dict.fromkeys(keys, "")
        self._callers: list[tuple[bytes, Caller]] = []
        for key, name in named.items():
            if len(key) < _SHORTEST or not key.isascii() or not key.isprintable() or " " in key:
                raise InvalidContent(
                    f"A key has {_SHORTEST} letters or more, and no spaces.",
                    hint='Make one: python -c "import secrets; print(secrets.token_urlsafe(32))"',
                )
            if name and not _NAME.fullmatch(name):
                raise InvalidContent(f"{name[:70]!r} can't name the holder of a key.", hint="Use letters and digits.")
            caller = Caller(name, only_own=True) if name else Caller()
            self._callers.append((_digest(key), caller))

    def __bool__(self) -> bool:
        return bool(self._callers)

    def caller(self, key: str | None) -> Caller | None:
        """The holder of this key; None if nobody has it."""
        if not self._callers:
            return Caller()
        given = _digest(key or "")
        found = [caller for digest, caller in self._callers if hmac.compare_digest(digest, given)]
        return found[0] if found and key else None


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "replace")).digest()


def read_keys(file: Path | None, environment: Mapping[str, str] = os.environ) -> Keys:
    """The keys of a file, a line each: ``KEY``, or ``NAME KEY``; # begins a comment. And the one in LLMCRDT_HTTP_KEY.
    Raises InvalidContent."""
    keys: dict[str, str] = {}
    try:
        lines = file.read_text(encoding="utf-8").splitlines() if file is not None else []
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidContent(f"The keys in {file} can't be read: {error}.", hint="Give a text file.") from None
    for number, line in enumerate(lines, 1):
        words = line.split("#", 1)[0].split()
        if len(words) > 2:
            raise InvalidContent(f"Line {number} of {file} is no key.", hint="A line is KEY, or NAME KEY.")
        if words:
            keys[words[-1]] = words[0] if len(words) == 2 else ""
    if environment.get("LLMCRDT_HTTP_KEY"):
        keys[environment["LLMCRDT_HTTP_KEY"].strip()] = ""
    if file is not None and not keys:
        raise InvalidContent(f"There is no key in {file}.", hint="A line is KEY, or NAME KEY.")
    return Keys(keys)
