"""The limits of the HTTP server, with their numbers."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class HttpLimits:
    """``body``: bytes of a request's body. ``headers``: bytes of its head. ``arrival``: seconds for the body to arrive.
    ``requests``: requests that ask a model, at once; ``connections``: all connections. ``seconds``: for an answer, from
    the request on; then it is stopped, and kept as far as it came. ``tokens``: the longest answer. ``items``: messages
    of one request. ``kept``, ``kept_bytes``: how many answers that are over can still be read as they streamed.
    ``bodies``: bodies that are read at once. ``silence``: seconds without an event after which a
    stream says that it lives."""

    body: int = 8 << 20
    headers: int = 64 << 10
    arrival: float = 30.0
    requests: int = 64
    connections: int = 512
    seconds: float = 600.0
    tokens: int = 4096
    items: int = 10_000
    kept: int = 256
    kept_bytes: int = 32 << 20
    bodies: int = 128
    silence: float = 15.0
