"""A protocol, as a relay needs to know it: ``Door``, one for each connection.

state       enters with                          and may
NEW         the door is made                     begin, close_frame
BEGUN       begin                                receive what greets the relay, close_frame
GREETED     begin, or receive gave Welcome       receive, encode, ask_back, confirm, close_frame
REFUSED     any of these raised Refused          close_frame
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol, TypeAlias, TypeVar
from urllib.parse import parse_qs, unquote

from llmcrdt.exceptions import InvalidContent
from llmcrdt.ids import document_bytes
from llmcrdt.sync.messages import Deleted, Error, ErrorCode, Welcome

from ..auth.tokens import Grant, TokenRefused, Tokens
from ..core.events import PeerMessage
from ..core.limits import Limits
from ..core.validation import DiffResponse, Request
from .told_heads import ToldHeads

Answer: TypeAlias = Welcome | Deleted | Error
"""An answer that needs no room. Welcome: the client is greeted now."""
_Asked = TypeVar("_Asked")
_Answer = TypeVar("_Answer")


class Refused(Exception):
    """The connection has to end with this error."""

    def __init__(self, error: Error) -> None:
        super().__init__(error.text)
        self.error = error


class CloseFrame(NamedTuple):
    """The end of a connection: a last frame, if there is one, then the WebSocket close code and its words."""

    last: bytes | None
    code: int
    words: str


class Keepalive(NamedTuple):
    """A frame that is sent where nothing else was for so many seconds."""

    seconds: float
    frame: bytes


class Door(Protocol):
    """One connection's protocol: frames of a client to messages for the rooms, and messages of the rooms to frames.

    No sockets and no clocks. All is called on one thread, but for ``encode``, which any thread may call.

    Invariants:

    1. ``receive`` and ``begin`` raise Refused and nothing else, whatever a client sends.
    2. A message that the client's token does not allow gets an Answer or Refused; it is never given to the rooms.
    3. A message names only documents that the token lets the client read. Of a token that is for what belongs to its
       subject (``Grant.own``) the rooms decide which those are.
    4. The kind in a message is one (``messages.KIND``), whatever a client calls it.
    5. ``encode`` depends on the message alone: doors with the same ``protocol`` give the same payloads, so that a relay
       encodes once what goes to many.
    6. A token that expired or was revoked is noticed by ``confirm`` and by ``receive``, before anything is done with
       what came.
    """

    protocol: str
    greeted: bool
    """Whether the client has said what it may: other messages come only then."""
    features: int
    """Bits of ``messages.FEATURES`` that both sides know."""
    grant: Grant | None
    """The rights of the client; None before it is greeted."""
    max_frame: int
    """Bytes of a frame of a client that is greeted."""
    keepalive: Keepalive | None

    def begin(self) -> None:
        """The connection is there. Raises Refused where its address alone is enough to refuse it."""

    def receive(self, frame: bytes | str) -> Answer | Request | None:
        """A message for the rooms, an answer to send back, or None where nothing is to be done. Raises Refused."""

    def join_following(
        self, message: Request, frame: bytes | str, unread: deque[bytes | str]
    ) -> tuple[Request, int, int]:
        """A message, just received as ``frame``, together with those after it that continue it, which are taken from
        ``unread``; and how many frames and bytes that were. May take none."""

    def encode(self, message: PeerMessage) -> Sequence[bytes]:
        """The frames of a message; none where the protocol does not show it. Raises Refused where the protocol has no
        word for it, and the connection ends."""

    def ask_back(self, answer: DiffResponse) -> bytes | None:
        """A frame that asks the client for what it has itself; it is sent before the answer to its own question."""

    def confirm(self) -> None:
        """Raises Refused where the token is no longer good."""

    def close_frame(self, error: Error) -> CloseFrame:
        """The bytes that the client gets before the connection ends with an error."""


class Upgrade(NamedTuple):
    """A client's request: its path with parameters, and the token of its headers, empty without one."""

    path: str
    bearer: bytes = b""


@dataclass(frozen=True, slots=True)
class DoorContext:
    """The things of its relay that a door needs; all doors share them. ``agent``: the relay's own name and version;
    ``name``: a name that no other relay has; ``told``: heads of documents that clients were told."""

    limits: Limits
    tokens: Tokens
    agent: str
    name: str = field(default_factory=lambda: f"llmcrdt-relay-{os.urandom(8).hex()}")
    told: ToldHeads = field(default_factory=ToldHeads)


class DoorType(NamedTuple):
    """A protocol that a relay speaks at a path; a path that ends with a slash has all below it. ``subprotocol``: the
    WebSocket subprotocol that a client has to offer; None: it offers none. ``deflate``: whether the relay agrees to
    compression, which is done for each connection again."""

    name: str
    path: str
    subprotocol: str | None
    make: Callable[[Upgrade, DoorContext], Door]
    deflate: bool = True

    def is_at(self, path: str) -> bool:
        path = path.partition("?")[0]
        return path.startswith(self.path) if self.path.endswith("/") else path == self.path


def enter(upgrade: Upgrade, before: str, tokens: Tokens) -> tuple[bytes, Grant]:
    """The document that an address names behind ``before``, and the rights of the token in a header or in ``?token=``.
    Raises Refused where there is no such document, or it is not for this client."""
    name = upgrade.path.removeprefix(before).partition("?")[0]
    grant = permitted(tokens.check, token_of(upgrade))
    try:
        document = document_bytes(unquote(name))
    except InvalidContent as e:
        raise Refused(Error(ErrorCode.NOT_OPEN, e.message)) from None
    if not grant.allows("read", document):
        raise Refused(Error(ErrorCode.FORBIDDEN, "The token is not for this document."))
    return document, grant


def token_of(upgrade: Upgrade) -> bytes:
    """The token in a header or in ``?token=``; empty without one."""
    query = upgrade.path.partition("?")[2]
    return upgrade.bearer or parse_qs(query).get("token", [""])[0].encode()


def permitted(ask: Callable[[_Asked], _Answer], asked: _Asked) -> _Answer:
    """The answer to a question about a token. Raises Refused where the token is refused."""
    try:
        return ask(asked)
    except TokenRefused as e:
        raise Refused(Error(ErrorCode.TOKEN_REFUSED, str(e))) from None
