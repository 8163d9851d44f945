"""The door for the native protocol: frames of one connection to messages for the rooms, and back."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import TypeAlias

from llmcrdt.exceptions import MalformedFrame
from llmcrdt.sync import codec
from llmcrdt.sync.messages import (
    ATTACHMENTS,
    DELETE_REFUSED,
    FEATURES,
    MAX_FRAME,
    MAX_RECORDS,
    PATH,
    PRESENCE,
    SUBPROTOCOL,
    Barrier,
    Close,
    Data,
    Delete,
    Deleted,
    Discard,
    Error,
    ErrorCode,
    Fetch,
    Fold,
    Hello,
    Offer,
    Open,
    Presence,
    Push,
    Welcome,
)

from ..auth.tokens import Grant, Tokens
from ..core.events import PeerMessage
from ..core.limits import Limits
from ..core.validation import DiffResponse, Request, Updates
from .base import Answer, CloseFrame, DoorType, Keepalive, Refused, permitted

ClientMessage: TypeAlias = Open | Close | Push | Barrier | Fold | Presence | Delete | Offer | Data | Fetch | Discard
"""The messages that a client may send to the rooms."""


CLOSE_CODES: Mapping[int, int] = {
    ErrorCode.TOKEN_REFUSED: 4401,
    ErrorCode.STORAGE: 1011,
    ErrorCode.SHUTTING_DOWN: 1012,
    ErrorCode.TOO_MANY_CONNECTIONS: 1013,
}


_TOGETHER = 256 << 10
"""Bytes of frames that are taken as one."""


def take_following(push: Push, frame: bytes, unread: deque[bytes | str]) -> tuple[Push, int, int]:
    """A push together with those behind it that go on where it ends, taken from what is unread; and how many frames
    and bytes that were. Under load that saves most of what a record costs."""
    n, data = push.n, list(push.data)
    name, frames, size = frame[: codec.PUSH_NAME], 1, len(frame)
    n += len(data)
    while unread and size < _TOGETHER:
        following = unread[0]
        more = codec.read_following(name, n, following) if isinstance(following, bytes) else ()
        count = len(more)
        if not count or len(data) + count > MAX_RECORDS:
            break
        data += more
        n, frames, size = n + count, frames + 1, size + len(following)
        unread.popleft()
    return (push if frames == 1 else Push(push.document, push.session, push.n, tuple(data))), frames, size


class NativeDoor:
    """One connection that speaks docs/protocol.md. ``agent`` is the relay's own name and version. Without ``tokens``
    every client may do everything."""

    protocol = "native"
    max_frame = MAX_FRAME
    keepalive: Keepalive | None = None

    def __init__(self, limits: Limits, agent: str, tokens: Tokens | None = None) -> None:
        self._limits = limits
        self._agent = agent
        self._tokens = tokens
        self.greeted = False
        self.features = 0
        self.grant: Grant | None = None

    def begin(self) -> None:
        """HELLO says who it is."""

    def receive(self, frame: bytes | str) -> Answer | ClientMessage:
        """A message for the rooms, or the answer to send back. Raises Refused, after which the connection
        ends."""
        if isinstance(frame, str):
            raise Refused(Error(ErrorCode.MALFORMED, "Messages are binary frames."))
        try:
            message = codec.decode(frame)
        except MalformedFrame as e:
            raise Refused(Error(ErrorCode.MALFORMED, e.message)) from e
        if isinstance(message, Hello) is self.greeted:
            text = "HELLO comes once." if self.greeted else "HELLO comes first."
            raise Refused(Error(ErrorCode.UNEXPECTED, text))
        match message:
            case Hello():
                self.greeted, self.features = True, message.features & FEATURES
                if self._tokens is not None:
                    self.grant = permitted(self._tokens.check, message.token)
                return self._welcome()
            case Presence() if not self.features & PRESENCE:
                raise Refused(Error(ErrorCode.UNEXPECTED, "PRESENCE is for who said so in HELLO."))
            case Offer() | Data() | Fetch() | Discard() if not self.features & ATTACHMENTS:
                raise Refused(Error(ErrorCode.UNEXPECTED, "Attachments are for who said so in HELLO."))
            case (
                Open()
                | Close()
                | Push()
                | Barrier()
                | Fold()
                | Presence()
                | Delete()
                | Offer()
                | Data()
                | Fetch()
                | Discard()
            ):
                return self._forbidden(message) or message
        raise Refused(Error(ErrorCode.UNEXPECTED, f"{type(message).__name__.upper()} is for the relay to send."))

    def join_following(
        self, message: Request, frame: bytes | str, unread: deque[bytes | str]
    ) -> tuple[Request, int, int]:
        """Pushes that go on where the one before ends are one."""
        if isinstance(message, Push) and isinstance(frame, bytes):
            return take_following(message, frame, unread)
        return message, 1, len(frame)

    def encode(self, message: PeerMessage) -> Sequence[bytes]:
        if isinstance(message, (DiffResponse, Updates)):
            return ()  # nobody asks for one here, and everybody knows records
        return (codec.encode(message),)

    def ask_back(self, answer: DiffResponse) -> None:
        """The client pushes by itself all that it has."""

    def close_frame(self, error: Error) -> CloseFrame:
        return CloseFrame(codec.encode(error), CLOSE_CODES.get(error.code, 1008), "")

    def confirm(self) -> None:
        """Raises Refused where the token is no longer good."""
        if self._tokens is not None and self.grant is not None:
            permitted(self._tokens.confirm, self.grant)

    def _forbidden(self, message: ClientMessage) -> Error | Deleted | None:
        """The answer to a message which the token doesn't allow."""
        self.confirm()
        grant = self.grant
        match message:
            case Open(document) if grant and not grant.allows("read", document):
                return Error(ErrorCode.FORBIDDEN, "The token is not for this document.", document)
            case Push(document) if grant and not grant.allows("append", document):
                text = "The token lets nothing be written here."
                return Error(ErrorCode.READ_ONLY, text, document, message.session, message.n)
            case Fold(document) if grant and not grant.allows("append", document):
                return Error(ErrorCode.READ_ONLY, "The token lets nothing be compacted here.", document)
            case Presence(document) if grant and not grant.allows("append", document):
                return Error(ErrorCode.PRESENCE_REFUSED, "The token lets nothing be announced here.", document)
            case Fetch(document) if grant and not grant.allows("read", document):
                return Error(ErrorCode.FORBIDDEN, "The token is not for this document.", document)
            case Offer(document) | Data(document) | Discard(document) if grant and not grant.allows("append", document):
                return Error(ErrorCode.READ_ONLY, "The token lets no attachment be changed here.", document)
            case Delete(document) if grant and not grant.allows("append", document):
                return Deleted(document, DELETE_REFUSED)
        return None

    def _welcome(self) -> Welcome:
        limits = self._limits
        return Welcome(self._agent, limits.record, limits.window_records, limits.window, limits.documents, FEATURES)


DOOR = DoorType(
    "The sync protocol",
    PATH,
    SUBPROTOCOL,
    lambda _, context: NativeDoor(context.limits, context.agent, context.tokens),
)
