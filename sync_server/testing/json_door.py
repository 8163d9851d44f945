"""A third door, small enough to read at one sitting: lines of JSON, for scripts and for the tests of ``Door``.

Its path is ``/json/ID``, with ``?token=`` where the relay asks for one. Each frame is one line; bytes are in
hexadecimal.

    {"open": "yjs"}                                          open the document
    {"push": ["..."], "session": "...", "n": 1}              append records to it
    {"close": true}                                          close it

The relay answers with ``{"opened": POSITION}``, ``{"ack": N, "position": P}``, ``{"records": [...], "position": P}``,
``{"error": CODE, "text": "..."}``. Snapshots are not for this door: a log that is compacted ends the connection.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Sequence
from typing import Any

from llmcrdt.sync.messages import (
    KIND,
    MAX_RECORDS,
    Ack,
    Close,
    Error,
    ErrorCode,
    Open,
    Opened,
    Push,
    Records,
    Snapshot,
)
from llmcrdt.varint import MAX_UINT

from ..auth.tokens import Grant
from ..core.events import PeerMessage
from ..core.validation import DiffResponse, Request
from ..doors.base import Answer, CloseFrame, DoorContext, DoorType, Keepalive, Refused, Upgrade, enter, permitted

PATH = "/json/"
_CLOSE_CODE = 4400


class JsonDoor:
    """One connection: one document, in lines of JSON."""

    protocol = "json"
    greeted = True
    features = 0
    keepalive: Keepalive | None = None

    def __init__(self, upgrade: Upgrade, context: DoorContext) -> None:
        self._upgrade, self._tokens = upgrade, context.tokens
        self.max_frame = 4 * context.limits.record
        self.document = b""
        self.grant: Grant | None = None

    def begin(self) -> None:
        self.document, self.grant = enter(self._upgrade, PATH, self._tokens)

    def receive(self, frame: bytes | str) -> Answer | Request | None:
        self.confirm()
        try:
            line = json.loads(frame)
            match line:
                case {"open": str(kind)} if KIND.fullmatch(kind):
                    return Open(self.document, kind)
                case {"close": True}:
                    return Close(self.document)
                case {"push": list(data), "session": str(session), "n": int(n)}:
                    return self._push(data, bytes.fromhex(session), n)
        except (ValueError, TypeError, RecursionError) as e:
            raise Refused(Error(ErrorCode.MALFORMED, f"A frame is a line of JSON: {type(e).__name__}.")) from None
        raise Refused(Error(ErrorCode.MALFORMED, "A line opens, pushes or closes."))

    def _push(self, data: Sequence[Any], session: bytes, n: int) -> Answer | Request:
        records = tuple(map(bytes.fromhex, data))
        if not (0 < len(records) <= MAX_RECORDS and len(session) == 16 and 0 < n <= MAX_UINT - MAX_RECORDS):
            raise Refused(Error(ErrorCode.MALFORMED, "A push has records, a session of 16 bytes, and an n above 0."))
        if self.grant is not None and not self.grant.allows("append", self.document):
            text = "The token lets nothing be written here."
            return Error(ErrorCode.READ_ONLY, text, self.document, session, n)
        return Push(self.document, session, n, records)

    def join_following(
        self, message: Request, frame: bytes | str, unread: deque[bytes | str]
    ) -> tuple[Request, int, int]:
        return message, 1, len(frame)

    def encode(self, message: PeerMessage) -> Sequence[bytes]:
        match message:
            case Opened(_, _, cursor):
                return (_line(opened=cursor.position),)
            case Ack(_, _, n, count, position):
                return (_line(ack=n + count - 1, position=position),)
            case Records(_, position, records):
                return (_line(records=[record.data.hex() for record in records], position=position),)
            case Error(code, text):
                return (_line(error=int(code), text=text),)
            case Snapshot():
                raise Refused(Error(ErrorCode.TOO_SLOW, "This door has no snapshots."))
            case _:
                return ()

    def ask_back(self, answer: DiffResponse) -> None:
        return None

    def confirm(self) -> None:
        if self.grant is not None:
            permitted(self._tokens.confirm, self.grant)

    def close_frame(self, error: Error) -> CloseFrame:
        return CloseFrame(_line(error=int(error.code), text=error.text), _CLOSE_CODE, error.text)


DOOR = DoorType("JSON", PATH, None, JsonDoor)


def _line(**fields: object) -> bytes:
    return json.dumps(fields).encode() + b"\n"
