"""Rights of clients: signed tokens (JWT, HS256 or EdDSA), a list of those that were made, and of those taken back.

The folder of a relay with tokens holds ``token.key``, the secret that signs them, and ``tokens.jsonl``: one line for
each token made or revoked, without the token itself. Both are readable by their owner only. Tokens that others sign
with a private key are checked with its public half (public_keys.py). A relay whose folder has neither is *open*:
whoever knows a document's id can use it.

Claims: ``jti`` the token's id, ``sub`` whose it is, ``may`` one of LEVELS, ``doc`` a list of patterns, ``exp`` seconds
since 1970 (absent: until it is revoked). A pattern is a document's name, the beginning of one and ``*``, ``*``, or
``own``: what belongs to the token's subject, and what isn't there yet. To whom a document belongs the rooms know.
"""

from __future__ import annotations

import json
import logging
import math
import os
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmcrdt.files import append_file, make_folder, replace_file
from llmcrdt.ids import document_id, is_document_id

from .public_keys import ALGORITHM, AccessError, PublicKeys, okp, pyjwt

logger = logging.getLogger(__name__)

LEVELS = ("read", "append", "admin")
"""Each may what those before it may. read: open a document. append: push, and ask for compaction. admin: see the
metrics."""
KEY, TOKENS = "token.key", "tokens.jsonl"
OWN = "own"
_CUT = b" #cut"  # ends a line that a crash cut short
_ALGORITHM = "HS256"


class TokenRefused(Exception):
    """It is none of ours, expired, or was revoked."""


@dataclass(frozen=True)
class Grant:
    """The rights of a token. ``expires``: seconds since 1970; None: never. ``key``: the id of the public key it was
    checked with; empty: this relay made it."""

    id: str
    subject: str
    level: str
    patterns: tuple[str, ...]
    expires: float | None = None
    key: str = ""

    @property
    def own(self) -> bool:
        """Whether it is also for what belongs to its subject."""
        return OWN in self.patterns

    def allows(self, level: str, document: bytes | None = None) -> bool:
        """Of a document that only ``own`` may allow the rooms ask to whom it belongs."""
        if LEVELS.index(self.level) < LEVELS.index(level):
            return False
        return document is None or self.own or self.names(document)

    def names(self, document: bytes) -> bool:
        """Whether it is for a document whoever that belongs to."""
        return "*" in self.patterns or self._matches(document_id(document))

    def _matches(self, name: str) -> bool:
        return any(name.startswith(p[:-1]) if p.endswith("*") else name == p for p in self.patterns)


EVERYTHING = Grant("", "", "admin", ("*",))
"""The rights of everybody at an open relay."""


class Tokens:
    """The tokens of one relay's folder. ``clock`` gives seconds since 1970. Raises AccessError."""

    def __init__(self, folder: str | os.PathLike[str], clock: Callable[[], float] = time.time) -> None:
        self._folder, self._clock = Path(folder), clock
        self._revoked: set[str] = set()
        self._read = (0, 0)
        self._key = self._load_key()
        self._public = PublicKeys(self._folder)
        self._on = self._key is not None or self._public.on
        self.refresh()

    @property
    def on(self) -> bool:
        """Whether tokens are asked for."""
        return self._on

    def check(self, token: bytes) -> Grant:
        """The rights of a token. Raises TokenRefused."""
        if not self._on:
            return EVERYTHING
        if not token:
            raise TokenRefused("This relay asks for a token.")
        jwt = pyjwt()
        try:
            # Which algorithm may be used follows from the key, never from what the token says.
            kid = jwt.get_unverified_header(token).get("kid")
            key, algorithm = (self._key, _ALGORITHM) if kid is None else (self._public.find(kid), ALGORITHM)
            if key is None:
                raise ValueError("a key that is not known")
            grant = _grant(jwt.decode(token, key, algorithms=[algorithm], options={"verify_exp": False}), kid or "")
            if not grant.subject:  # what belongs to nobody counts for nobody, and anybody may delete it
                raise ValueError("a token without a subject")
        except (jwt.PyJWTError, ValueError):
            raise TokenRefused("The token is none of this relay's.") from None
        self.confirm(grant)
        return grant

    def confirm(self, grant: Grant) -> None:
        """Raises TokenRefused where a grant is past its time, or was revoked by the last ``refresh``."""
        if grant.expires is not None and self._clock() >= grant.expires:
            raise TokenRefused("The token has expired.")
        if grant.id in self._revoked:
            raise TokenRefused("The token was revoked.")
        if grant.key and self._public.find(grant.key) is None:
            raise TokenRefused("The key of the token was removed.")

    def refresh(self) -> None:
        """Look for tokens that were revoked since, and keys that were removed. Costs a look at two files where nothing
        changed."""
        self._public.refresh()
        try:
            info = (self._folder / TOKENS).stat()
        except FileNotFoundError:
            return
        if (info.st_size, info.st_mtime_ns) != self._read:
            self._revoked = {line["revoked"] for line in self._lines() if "revoked" in line}
            self._read = (info.st_size, info.st_mtime_ns)

    def make(self, subject: str, level: str, patterns: Sequence[str], seconds: float | None = None) -> str:
        """A new token; its text is kept nowhere. The first one turns tokens on. ``seconds``: how long it is good."""
        claims = _claims(subject, level, patterns, None if seconds is None else int(self._clock() + seconds))
        if self._key is None:
            self._key, self._on = self._make_key(), True
        self._append({"made": int(self._clock()), **claims})
        return str(pyjwt().encode(claims, self._key, algorithm=_ALGORITHM))

    def list(self) -> Sequence[tuple[Grant, str]]:
        """Every token that was made, and "good", "expired" or "revoked"."""
        self.refresh()
        found = []
        for grant in (_grant(line) for line in self._lines() if "made" in line):
            try:
                self.confirm(grant)
                state = "good"
            except TokenRefused:
                state = "revoked" if grant.id in self._revoked else "expired"
            found.append((grant, state))
        return found

    def revoke(self, id: str) -> None:
        """Take a token back; a relay that runs ends its connections within a second. One that was made elsewhere is not
        listed, and is taken back by its ``jti``."""
        if not self._public.on and id not in {grant.id for grant, _ in self.list()}:
            raise AccessError(f"There is no token {id!r}.", hint="List them.")
        self._append({"revoked": id, "at": int(self._clock())})

    # ---------------------------------------------------------------- the files

    def _load_key(self) -> bytes | None:
        path = self._folder / KEY
        try:
            if os.name == "posix" and path.stat().st_mode & 0o077:
                raise AccessError(f"Others may read {path}.", hint=f"Run: chmod 600 {path}. Then make new tokens.")
            key = path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as e:
            raise AccessError(f"{path} can't be read: {e.strerror}.", hint="Check its owner.") from e
        if len(key) < 32:
            raise AccessError(f"{path} is damaged.", hint="Restore it from a backup, or move it away.")
        pyjwt()
        return key

    def _make_key(self) -> bytes:
        key = secrets.token_bytes(32)
        with self._writing(KEY) as path:
            make_folder(self._folder)
            replace_file(path, key, must_be_new=True)
        return key

    def _append(self, line: dict[str, Any]) -> None:
        before = self._end()
        with self._writing(TOKENS) as path:
            append_file(path, before + json.dumps(line, separators=(",", ":")).encode() + b"\n")

    @contextmanager
    def _writing(self, name: str) -> Iterator[Path]:
        path = self._folder / name
        try:
            yield path
        except OSError as e:
            raise AccessError(f"{path} can't be written: {e.strerror}.") from e

    def _lines(self) -> Sequence[dict[str, Any]]:
        """Without what a crash left of a line: nobody was told that it is there. It ends early, or has zeros where
        bytes did not reach the disk."""
        path = self._folder / TOKENS
        try:
            *lines, last = path.read_bytes().split(b"\n")
            if last and _is_cut(last):
                logger.warning("%s ends in the middle of a line, which is left out.", path)
                last = b""
            return [
                _read_line(path, number, line)
                for number, line in enumerate((*lines, last), 1)
                if line and not line.endswith(_CUT) and b"\0" not in line
            ]
        except FileNotFoundError:
            return []
        except OSError as e:
            raise AccessError(f"{path} can't be read: {e.strerror}.", hint="Check its owner.") from e

    def _end(self) -> bytes:
        """The end of the last line, where that has none. Nothing is taken away: another process may write as well."""
        try:
            last = (self._folder / TOKENS).read_bytes().rpartition(b"\n")[2]
        except OSError:  # it is not there, or the write will say why
            return b""
        return b"" if not last else _CUT + b"\n" if _is_cut(last) else b"\n"


def _read_line(path: Path, number: int, line: bytes) -> dict[str, Any]:
    try:
        read = json.loads(line)
    except ValueError:
        read = None
    if not isinstance(read, dict):
        # It may have been the word that a token is revoked, so it is not passed over.
        raise AccessError(f"Line {number} of {path} is damaged.", hint="Restore it from a backup.")
    return read


def _is_cut(line: bytes) -> bool:
    try:
        json.loads(line)
    except ValueError:
        return True
    return False


def sign(private: bytes, kid: str, subject: str, level: str, patterns: Sequence[str], expires: int | None) -> str:
    """A token for a relay that has the public half of ``private`` (Ed25519, PEM) as ``kid``. Raises AccessError."""
    okp()
    jwt = pyjwt()
    try:
        made = jwt.encode(
            _claims(subject, level, patterns, expires), private, algorithm=ALGORITHM, headers={"kid": kid}
        )
    except (jwt.PyJWTError, ValueError, TypeError, AttributeError) as e:  # AttributeError: a public key can't sign
        why = "it is a public key." if isinstance(e, AttributeError) else str(e)
        raise AccessError(
            f"That is no private key: {why}", hint="openssl genpkey -algorithm ed25519 makes one."
        ) from None
    return str(made)


def _claims(subject: str, level: str, patterns: Sequence[str], expires: int | None) -> dict[str, Any]:
    if not subject:
        raise AccessError("A token needs a subject.", hint="Documents belong to it, and its bytes are counted.")
    if not subject.isprintable():
        raise AccessError(f"{subject!r} is no subject.", hint="It is one line of text: it is listed by it.")
    for pattern in patterns:
        if pattern not in ("*", OWN) and not pattern.endswith("*") and not is_document_id(pattern):
            raise AccessError(f"{pattern!r} is no document id.", hint="Give a whole id, a beginning and *, *, or own.")
    claims = {"jti": secrets.token_hex(8), "sub": subject, "may": level, "doc": list(patterns)}
    return claims if expires is None else {**claims, "exp": expires}


def _grant(claims: dict[str, Any], key: str = "") -> Grant:
    """Raises ValueError for claims of another shape."""
    id_, subject, level, patterns = (claims.get(name) for name in ("jti", "sub", "may", "doc"))
    expires = claims.get("exp")
    if not isinstance(id_, str) or not isinstance(subject, str) or level not in LEVELS:
        raise ValueError("claims are missing")
    if not isinstance(patterns, list) or not all(isinstance(p, str) for p in patterns):
        raise ValueError("doc is no list of patterns")
    if expires is not None and not _is_time(expires):
        raise ValueError("exp is no time")
    return Grant(id_, subject, level, tuple(patterns), expires, key)


def _is_time(value: object) -> bool:
    """JSON as Python reads it has NaN, which no clock ever passes, and infinite numbers."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < math.inf
