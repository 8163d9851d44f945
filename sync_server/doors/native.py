"""The door for the native protocol: frames of one connection to messages for the rooms, and back."""

from __future__ import annotations

from typing import TypeAlias

from llmcrdt.exceptions import MalformedFrame
from llmcrdt.sync import wire
from llmcrdt.sync.wire import Error, ErrorCode

from ..limits import Limits

Request: TypeAlias = wire.Open | wire.Close | wire.Push | wire.Barrier | wire.Fold
"""What a client may say to the rooms."""


class Refused(Exception):
    """The connection has to end with this error."""

    def __init__(self, error: Error) -> None:
        super().__init__(error.text)
        self.error = error


class NativeDoor:
    """What one connection has said so far. ``agent`` is the relay's own name and version."""

    def __init__(self, limits: Limits, agent: str) -> None:
        self._limits = limits
        self._agent = agent
        self.greeted = False

    def receive(self, frame: bytes | str) -> wire.Welcome | Request:
        """A message for the rooms, or the WELCOME to send back. Raises Refused, after which the connection ends."""
        if isinstance(frame, str):
            raise Refused(Error(ErrorCode.MALFORMED, "Messages are binary frames."))
        try:
            message = wire.decode(frame)
        except MalformedFrame as e:
            raise Refused(Error(ErrorCode.MALFORMED, e.message)) from e
        if isinstance(message, wire.Hello) is self.greeted:
            text = "HELLO comes once." if self.greeted else "HELLO comes first."
            raise Refused(Error(ErrorCode.UNEXPECTED, text))
        match message:
            case wire.Hello():
                self.greeted = True
                return self._welcome()
            case wire.Open() | wire.Close() | wire.Push() | wire.Barrier() | wire.Fold():
                return message
        raise Refused(Error(ErrorCode.UNEXPECTED, f"{type(message).__name__.upper()} is for the relay to send."))

    def _welcome(self) -> wire.Welcome:
        limits = self._limits
        return wire.Welcome(self._agent, limits.record, limits.window_records, limits.window, limits.documents)


CLOSE_CODES = {
    ErrorCode.STORAGE: 1011,
    ErrorCode.SHUTTING_DOWN: 1012,
    ErrorCode.TOO_MANY_CONNECTIONS: 1013,
}


def close_code(error: Error) -> int:
    """The WebSocket close code that goes with an error."""
    return next((close for code, close in CLOSE_CODES.items() if code == error.code), 1008)
