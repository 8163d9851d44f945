"""The relay's certificate, read anew when its files change."""

from __future__ import annotations

import logging
import ssl
from pathlib import Path

logger = logging.getLogger(__name__)


class Certificate:
    """``context`` for a server: TLS 1.2 or newer. ``chain`` holds the certificate and those above it, ``key`` its
    private key, both PEM. Raises ValueError where they can't be used."""

    def __init__(self, chain: Path, key: Path) -> None:
        self._chain, self._key = chain, key
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.minimum_version = ssl.TLSVersion.TLSv1_2
        self._seen = self._stamps()
        self._load(self.context)

    def refresh(self) -> None:
        """Take another certificate where the files are others now; connections that are open keep theirs. A pair that
        can't be used, half of it written say, leaves things as they are."""
        now = self._stamps()
        if now == self._seen:
            return
        self._seen = now
        try:
            self._load(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))  # a context that fails in the middle holds half of each
            self._load(self.context)
        except ValueError as e:
            logger.error("%s; the certificate from before is used on", e)
        else:
            logger.info("a new certificate is used")

    def _load(self, context: ssl.SSLContext) -> None:
        try:
            context.load_cert_chain(self._chain, self._key)
        except (OSError, ssl.SSLError) as e:
            raise ValueError(f"{self._chain} and {self._key} are no certificate and its key: {e}") from e

    def _stamps(self) -> list[tuple[int, int]]:
        stamps = []
        for path in (self._chain, self._key):
            try:
                info = path.stat()
                stamps.append((info.st_mtime_ns, info.st_size))
            except OSError:
                stamps.append((0, 0))
        return stamps
