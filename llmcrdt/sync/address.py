"""Addresses of relays."""

from __future__ import annotations

import ipaddress
from typing import Final
from urllib.parse import urlsplit, urlunsplit

from ..exceptions import RelayUnreachable

PATH: Final = "/sync"
"""The end of a relay's address."""


def relay_address(url: str) -> str:
    """The URL at which a relay speaks the sync protocol. Raises RelayUnreachable for one that is no address."""
    try:
        parts = urlsplit(url)
        if parts.scheme not in ("ws", "wss") or not parts.hostname or parts.fragment or parts.port == 0:
            raise ValueError
    except ValueError:
        raise RelayUnreachable(
            f"{url!r} is not the address of a relay.", hint="It looks like ws://HOST:PORT."
        ) from None
    path = parts.path.rstrip("/")
    if not path.endswith(PATH):
        path += PATH
    return urlunsplit(parts._replace(path=path))


def is_loopback(url: str) -> bool:
    """Whether the relay is on this device, so that no other one reaches it by this address."""
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
