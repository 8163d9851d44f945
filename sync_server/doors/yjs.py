"""The door for Yjs clients that know nothing of this relay: the y-websocket protocol, docs/protocol.md, section 9.

    message   = 0 sync | 1 awareness | 2 auth | 3 (query awareness)        one in each binary frame
    sync      = 0 bytes: state vector (step 1) | 1 bytes: update (step 2) | 2 bytes: update
    awareness = bytes: count (client, clock, text: JSON)*
    auth      = 0 text: why something is not permitted

Source: https://github.com/yjs/y-protocols, sync.js, awareness.js and auth.js; limits are llmcrdt.sync.messages.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice

from llmcrdt.exceptions import MalformedFrame
from llmcrdt.sync.codec import Reader
from llmcrdt.sync.json_check import is_object
from llmcrdt.sync.lazy_sequence import LazySequence, places
from llmcrdt.sync.messages import (
    MAX_PRESENCE,
    MAX_PRESENT,
    MAX_STATE,
    Announcement,
    Error,
    ErrorCode,
    Presence,
    Records,
)
from llmcrdt.varint import write_uint

from ..auth.tokens import Grant, Tokens
from ..core.events import PeerMessage
from ..core.limits import Limits
from ..core.validation import DiffRequest, DiffResponse, MergeRequest, PresenceQuery, Request, Updates
from .base import CloseFrame, DoorType, Keepalive, Refused, Upgrade, enter, permitted

PATH = "/yjs/"
KIND = "yjs"
KEEPALIVE = Keepalive(10.0, b"\x01\x01\x00")
"""Awareness of nobody: y-websocket gives up a connection on which nothing comes for 30 s."""
_NOTHING = b"\x00\x00"
_TOGETHER = 256 << 10
"""Bytes of frames whose updates are merged as one message."""


@dataclass(frozen=True, slots=True)
class StepOne:
    version: bytes


@dataclass(frozen=True, slots=True)
class StepTwo:
    update: bytes


@dataclass(frozen=True, slots=True)
class Update:
    update: bytes


@dataclass(frozen=True, slots=True)
class Awareness:
    """The states of clients, as in PRESENCE: no state (JSON's null) where one is gone."""

    states: Sequence[Announcement]


@dataclass(frozen=True, slots=True)
class QueryAwareness:
    pass


@dataclass(frozen=True, slots=True)
class Denied:
    why: str


YjsMessage = StepOne | StepTwo | Update | Awareness | QueryAwareness | Denied

_GONE = b"null"
_STEP_TWO, _UPDATE = b"\x00\x01", b"\x00\x02"


def encode(message: YjsMessage) -> bytes:
    """A message as one frame."""
    match message:
        case StepOne(version):
            return b"".join((b"\x00\x00", write_uint(len(version)), version))
        case StepTwo(update):
            return b"".join((_STEP_TWO, write_uint(len(update)), update))
        case Update(update):
            return _encode_update(update)
        case Awareness(states):
            body = [write_uint(len(states))]
            for client, clock, state in states:
                data = state.encode() or _GONE
                body += (write_uint(client), write_uint(clock), write_uint(len(data)), data)
            whole = b"".join(body)
            return b"".join((b"\x01", write_uint(len(whole)), whole))
        case QueryAwareness():
            return b"\x03"
        case Denied(why):
            text = why.encode()
            return b"".join((b"\x02\x00", write_uint(len(text)), text))


def _encode_update(update: bytes) -> bytes:
    return b"".join((_UPDATE, write_uint(len(update)), update))


def decode(frame: bytes) -> YjsMessage:
    """The message of a frame. Raises MalformedFrame, and nothing else, for bytes that are none."""
    reader = Reader(frame)
    kind = reader.uint()
    match kind:
        case 0:
            message = _read_sync(reader, len(frame))
        case 1:
            message = _read_awareness(Reader(reader.blob(len(frame))))
        case 2:
            reader.uint(0, 0)
            message = Denied(reader.text(len(frame)))
        case 3:
            message = QueryAwareness()
        case _:
            raise MalformedFrame(f"{kind} is not a type of message.")
    if reader.at != len(frame):
        raise MalformedFrame(f"{len(frame) - reader.at} bytes are left over.")
    return message


def _read_sync(reader: Reader, size: int) -> YjsMessage:
    step = reader.uint(0, 2)
    data = reader.blob(size, 1)
    return (StepOne, StepTwo, Update)[step](data)


def _read_update(frame: bytes) -> bytes | None:
    """The update in a frame of step 2 or an update, where it is one and says something."""
    if frame[:2] not in (_STEP_TWO, _UPDATE):
        return None
    if len(frame) > 2 and frame[2] == len(frame) - 3 < 0x80:  # a small one, as nearly all are
        return frame[3:] if frame[3:] not in (b"", _NOTHING) else None
    try:
        message = decode(frame)
    except MalformedFrame:
        return None
    return message.update if isinstance(message, (StepTwo, Update)) and message.update != _NOTHING else None


def _read_awareness(reader: Reader) -> Awareness:
    """A state too large for PRESENCE is passed over: a page sends on what it heard of others, in its own spelling."""
    starts, left = places(), MAX_PRESENCE
    for _ in range(reader.uint(0, MAX_PRESENT)):
        at = reader.at
        reader.uint()
        reader.uint()
        size = reader.uint(1, len(reader.frame) - reader.at)
        end = reader.at + size
        if end > len(reader.frame):
            raise MalformedFrame("The frame ends inside a state.")
        if size <= min(left, MAX_STATE):
            if reader.frame[reader.at : end] != _GONE and not is_object(reader.frame, reader.at, end):
                raise MalformedFrame("A state is the text of a JSON object, or null.")
            starts.append(at)
            left -= size
        reader.at = end
    if reader.at != len(reader.frame):
        raise MalformedFrame("Awareness goes on after its end.")
    return Awareness(LazySequence(reader.frame, starts, _cut_states))


def _cut_states(frame: bytes, starts: Sequence[int], first: int) -> Iterator[Announcement]:
    reader = Reader(frame)
    for at in islice(starts, first, None):
        reader.at = at
        client, clock, state = reader.uint(), reader.uint(), reader.blob(MAX_STATE)
        yield Announcement(client, clock, "" if state == _GONE else state.decode())


CLOSE_CODES: Mapping[int, int] = {
    ErrorCode.NOT_OPEN: 4404,
    ErrorCode.WRONG_KIND: 4409,
    ErrorCode.RECORD_TOO_LARGE: 4413,
    ErrorCode.READ_ONLY: 4403,
    ErrorCode.LOG_FULL: 4413,
    ErrorCode.SUBJECT_FULL: 4413,
    ErrorCode.GONE: 4410,
    ErrorCode.BAD_RECORD: 4422,
    ErrorCode.WINDOW_EXCEEDED: 4429,
    ErrorCode.STORAGE: 1011,
    ErrorCode.SHUTTING_DOWN: 1012,
    ErrorCode.TOO_MANY_CONNECTIONS: 1013,
    ErrorCode.TOO_SLOW: 1013,
    ErrorCode.TOKEN_REFUSED: 4401,
    ErrorCode.FORBIDDEN: 4403,
}
"""44xx: another attempt would end the same way, and y-websocket 3 makes none."""
_PERMISSIONS = (ErrorCode.TOKEN_REFUSED, ErrorCode.FORBIDDEN, ErrorCode.READ_ONLY)


class YjsDoor:
    """One connection: which document it is about, and what it may.

    ``path`` is the request's, with its parameters; ``authorization`` a token from its headers, if there is one."""

    protocol = "yjs"
    greeted = True
    features = 0
    keepalive: Keepalive | None = KEEPALIVE

    def __init__(self, path: str, authorization: bytes, tokens: Tokens, limits: Limits | None = None) -> None:
        limits = limits or Limits()
        self._upgrade, self._tokens = Upgrade(path, authorization), tokens
        self._max_version, self.max_frame = limits.version, limits.yjs_frame
        # No more than the connection may have in progress: each counts as if it came alone.
        self._most_together = max(1, limits.window // limits.merge_cost)
        self._asked = self._may_append = False
        self.document = b""
        self.grant: Grant | None = None

    def begin(self) -> None:
        """Raises Refused where there is no such document, or it is not for this client."""
        self.document, self.grant = enter(self._upgrade, PATH, self._tokens)
        self._may_append = self.grant.allows("append", self.document)

    def confirm(self) -> None:
        """Raises Refused where the token is no longer good."""
        if self.grant is not None:
            permitted(self._tokens.confirm, self.grant)

    def receive(self, frame: bytes | str) -> DiffRequest | MergeRequest | PresenceQuery | Presence | None:
        """A message for the rooms, if the frame is one. Raises Refused, after which the connection ends."""
        if isinstance(frame, str):
            raise Refused(Error(ErrorCode.MALFORMED, "Messages are binary frames."))
        self.confirm()
        try:
            message = decode(frame)
        except MalformedFrame as e:
            raise Refused(Error(ErrorCode.MALFORMED, e.message)) from e
        match message:
            case StepOne(version) if len(version) > self._max_version:
                text = f"A state vector has {len(version)} bytes; {self._max_version} are allowed."
                raise Refused(Error(ErrorCode.RECORD_TOO_LARGE, text))
            case StepOne(version):
                return DiffRequest(self.document, KIND, version)
            case Awareness(states) if states and self._may_append:
                return Presence(self.document, states)
            case QueryAwareness():
                return PresenceQuery(self.document)
            case StepTwo(update) | Update(update) if update == _NOTHING:
                return None
            case StepTwo(update):
                return MergeRequest(self.document, KIND, (update,), self._may_append)
            case Update(update) if self._may_append:
                return MergeRequest(self.document, KIND, (update,))
            case Update():
                raise Refused(Error(ErrorCode.READ_ONLY, "The token lets nothing be written here."))
            case Denied():
                raise Refused(Error(ErrorCode.UNEXPECTED, "It is for the relay to say what is not permitted."))
        return None

    def join_following(
        self, message: Request, frame: bytes | str, unread: deque[bytes | str]
    ) -> tuple[Request, int, int]:
        """Updates that wait here are merged as one message: each by itself costs every stage as much as all of them."""
        frames, size = 1, len(frame)
        if not isinstance(message, MergeRequest) or not message.may_append:
            return message, frames, size
        updates = list(message.updates)
        while unread and size < _TOGETHER and len(updates) < self._most_together:
            following = unread[0]
            if not isinstance(following, bytes) or (update := _read_update(following)) is None:
                break
            unread.popleft()
            updates.append(update)
            frames, size = frames + 1, size + len(following)
        return (message if frames == 1 else replace(message, updates=tuple(updates))), frames, size

    def encode(self, message: PeerMessage) -> Sequence[bytes]:
        match message:
            case Error(code) if code == ErrorCode.PRESENCE_REFUSED:
                return ()  # its presence is not shown; it may write on
            case Error():
                raise Refused(message)
            case DiffResponse(_, update):
                return (encode(StepTwo(update)),)
            case Presence(_, entries):
                return (encode(Awareness(entries)),)
            case Records(_, _, records) | Updates(_, records, _):
                return tuple(_encode_update(record.data) for record in records)
            case _:
                return ()

    def ask_back(self, answer: DiffResponse) -> bytes | None:
        """Only a client that may write is asked, and once, for the answer may be all it has."""
        asked, self._asked = self._asked, True
        return encode(StepOne(answer.version)) if self._may_append and not asked else None

    def close_frame(self, error: Error) -> CloseFrame:
        last = encode(Denied(error.text)) if error.code in _PERMISSIONS else None
        return CloseFrame(last, CLOSE_CODES.get(error.code, 4400), error.text)


DOOR = DoorType(
    "Yjs",
    PATH,
    None,
    lambda upgrade, context: YjsDoor(upgrade.path, upgrade.bearer, context.tokens, context.limits),
    deflate=False,  # each small frame would be compressed once for every reader
)
