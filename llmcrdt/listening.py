"""The sockets at which HTTP servers of the library listen."""

from __future__ import annotations

import os
import socket

from .exceptions import InvalidContent


def listen(host: str, port: int, backlog: int, hint: str = "Give another port, or 0 for a free one.") -> socket.socket:
    """Listens there; port 0 draws one. Raises InvalidContent, with ``hint``, where nothing can."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        made = socket.create_server((host, port), family=family, backlog=backlog)
    except OSError as error:
        raise InvalidContent(
            f"Nothing can listen at {host}. Port {port}: {os.strerror(error.errno or 0)}.", hint=hint
        ) from None
    # Named as TCP, for asyncio then sends at once (TCP_NODELAY): else a small answer may wait 40 ms.
    return socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP, fileno=made.detach())


def url_at(host: str, port: int) -> str:
    """The address of what listens there."""
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"
