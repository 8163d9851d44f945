"""The relay that a repo belongs to, with the token for it, in a file beside the database that its owner alone reads."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

from ..exceptions import KeyringUnusable
from .private_files import locked, open_private, replace_private

_FORMAT = "llmcrdt-relay/1"


@dataclass(frozen=True)
class KnownRelay:
    """A relay's address, and the token that opens it."""

    url: str
    token: str | None = field(default=None, repr=False)


class RelayFile:
    """Any thread, any process. Methods raise KeyringUnusable where the file can't be used."""

    def __init__(self, path: str) -> None:
        self.path = Path(path)

    def read(self) -> KnownRelay | None:
        """The relay that was remembered last."""
        file = open_private(self.path)
        if file is None:
            return None
        with file:
            try:
                value = json.loads(file.read().decode("utf-8"))
            except (ValueError, RecursionError):
                value = None
        found = value if isinstance(value, dict) and value.get("format") == _FORMAT else {}
        url, token = found.get("url"), found.get("token")
        if not isinstance(url, str) or not (token is None or isinstance(token, str)):
            hint = "Delete it, and pair again or connect by an address."
            raise KeyringUnusable(f"{self.path} is damaged, or of a newer version.", hint=hint)
        return KnownRelay(url, token)

    def write(self, relay: KnownRelay) -> None:
        """Remember a relay in the place of the one before."""
        value = {"format": _FORMAT, "url": relay.url, "token": relay.token}
        with locked(self.path):
            replace_private(self.path, json.dumps(value, indent=1).encode("utf-8"))
