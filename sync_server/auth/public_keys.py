"""Public keys (Ed25519) of those whose tokens a relay takes: it can check these, and make none.

``token-keys.json`` in the relay's folder is a JWK Set (RFC 7517, RFC 8037) of public keys, each with its ``kid``. A
token names its key by ``kid`` in its header. To rotate: add the new key, sign with it, remove the old one when its
tokens have expired. A key that is removed takes its tokens with it. Needs ``cryptography`` (extra ``eddsa``).
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from llmcrdt.exceptions import LLMCRDTError
from llmcrdt.files import make_folder, replace_file

KEYS = "token-keys.json"
ALGORITHM = "EdDSA"
_KID = re.compile(r"[A-Za-z0-9._-]{1,64}")


class AccessError(LLMCRDTError):
    """The files of tokens can't be used. ``hint`` says what to do."""


class PublicKeys:
    """The public keys in one relay's folder, by key id. Raises AccessError."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / KEYS
        self._read: tuple[int, int, int] | None = None
        self._jwks: dict[str, dict[str, str]] = {}
        self._keys: dict[str, Any] = {}
        self.refresh()

    @property
    def on(self) -> bool:
        """Whether there is a file of keys, if only an empty one: without any key nobody gets in, not everybody."""
        return self._path.exists()

    def refresh(self) -> None:
        """Look for keys that were added or removed since."""
        try:
            info = self._path.stat()
        except FileNotFoundError:
            self._read, self._jwks, self._keys = None, {}, {}
            return
        stamp = (info.st_ino, info.st_size, info.st_mtime_ns)
        if stamp != self._read:
            self._jwks = self._load()
            self._keys = {kid: _key(jwk) for kid, jwk in self._jwks.items()}
            self._read = stamp

    def find(self, kid: object) -> Any | None:
        """The key of this id, for PyJWT."""
        return self._keys.get(kid) if isinstance(kid, str) else None

    def ids(self) -> list[str]:
        return sorted(self._keys)

    def add(self, kid: str, pem: bytes) -> None:
        """Take tokens signed with the private half of this key. ``pem``: an Ed25519 public key, as OpenSSL has it."""
        if not _KID.fullmatch(kid):
            raise AccessError(f"{kid!r} is no key id.", hint="It has 1 to 64 of A-Z a-z 0-9 . _ and -.")
        if kid in self._jwks:
            raise AccessError(f"There is a key {kid!r} already.", hint="Give the new one another id.")
        if b"PRIVATE" in pem:
            raise AccessError("That is a private key.", hint="Keep it where tokens are signed; give its public half.")
        algorithm = okp()
        try:
            jwk = json.loads(algorithm.to_jwk(algorithm.prepare_key(pem)))
        except (ValueError, TypeError, LookupError) as e:
            raise AccessError(f"That is no public key: {e}.", hint="Make it with: openssl pkey -pubout.") from None
        except pyjwt().PyJWTError as e:
            raise AccessError(f"That is no public key: {e}.", hint="Make it with: openssl pkey -pubout.") from None
        jwk = {"kty": jwk["kty"], "crv": jwk["crv"], "x": jwk["x"], "kid": kid, "use": "sig", "alg": ALGORITHM}
        _key(jwk)
        self._write({**self._jwks, kid: jwk})

    def remove(self, kid: str) -> None:
        """Take no token that was signed with it any more; a relay that runs ends their connections within a second."""
        if kid not in self._jwks:
            raise AccessError(f"There is no key {kid!r}.", hint="List them.")
        self._write({k: jwk for k, jwk in self._jwks.items() if k != kid})

    def _write(self, jwks: dict[str, dict[str, str]]) -> None:
        aside = self._path.with_name(self._path.name + ".new")
        try:
            make_folder(self._path.parent)
            aside.unlink(missing_ok=True)  # of one that crashed
            replace_file(
                self._path, json.dumps({"keys": [jwks[kid] for kid in sorted(jwks)]}, indent=1).encode(), aside
            )
        except OSError as e:
            raise AccessError(f"{self._path} can't be written: {e.strerror}.") from e
        self.refresh()

    def _load(self) -> dict[str, dict[str, str]]:
        try:
            found = {jwk["kid"]: jwk for jwk in json.loads(self._path.read_text())["keys"]}
        except (OSError, ValueError, TypeError, KeyError) as e:
            raise AccessError(f"{self._path} can't be read: {e!r}.", hint="Restore it from a backup.") from e
        for jwk in found.values():
            if jwk.get("kty") != "OKP" or jwk.get("crv") != "Ed25519" or "d" in jwk:
                raise AccessError(f"{self._path} holds a key that is no public Ed25519 key.", hint="Remove it.")
        return found


def okp() -> Any:
    """PyJWT's Ed25519. Raises AccessError where cryptography is missing."""
    algorithms = pyjwt().algorithms
    if not algorithms.has_crypto:
        hint = "Install it: pip install 'llmcrdt[eddsa]'."
        raise AccessError("Public keys need cryptography, which is not installed.", hint=hint)
    return algorithms.OKPAlgorithm()


def _key(jwk: dict[str, str]) -> Any:
    jwt = pyjwt()
    try:
        key = okp().from_jwk(jwk)
    except (jwt.PyJWTError, ValueError, KeyError) as e:
        raise AccessError(f"The key {jwk.get('kid')!r} can't be used: {e}.", hint="Remove it.") from None
    if jwk.get("crv") != "Ed25519":
        raise AccessError("Only Ed25519 keys are taken.", hint="Make one: openssl genpkey -algorithm ed25519.")
    return key


def pyjwt() -> Any:
    """The library, loaded only where tokens are used. Raises AccessError where it is missing."""
    try:
        import jwt
        import jwt.algorithms
    except ImportError:
        hint = "Install it: pip install 'llmcrdt[relay]'."
        raise AccessError("Tokens need PyJWT, which is not installed.", hint=hint) from None
    return jwt
