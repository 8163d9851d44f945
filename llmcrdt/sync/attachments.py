"""A connection of its own to a relay, for attachments: what is large must not stand before what is said.

It speaks the native protocol as every link does, opens no document, and blocks: whoever uses it has a thread for it.
Nothing here knows what an attachment holds.
"""

from __future__ import annotations

import os
import ssl
import time
from collections.abc import Callable
from contextlib import ExitStack
from types import TracebackType
from typing import Final

from websockets.exceptions import ConnectionClosed, WebSocketException
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Subprotocol

from ..exceptions import LLMCRDTError, MalformedFrame, RelayRefused, SyncError
from . import codec
from .address import is_loopback, relay_address
from .failures import explained, trusting
from .messages import (
    ATTACHMENTS,
    MAX_PIECE,
    SUBPROTOCOL,
    AttachmentName,
    Data,
    Discard,
    Error,
    ErrorCode,
    Fetch,
    Held,
    Hello,
    Message,
    Offer,
    Outcome,
    Welcome,
)

_OPEN_TIMEOUT: Final = 10.0
_LOOK: Final = 0.25
"""Seconds between two looks whether it is still wanted."""
_PATIENCE: Final = 60.0
"""Seconds without an answer after which the relay is given up."""
_MAX_ANSWER: Final = MAX_PIECE + 4096
"""Bytes of one answer."""
_AHEAD: Final = 8
"""Pieces that are under way at once."""


class NoLongerWanted(SyncError):
    """Nobody wants it any more."""


class AttachmentConnection:
    """Connects at once. ``wanted``: asked now and then; where it says no, NoLongerWanted is raised.

    Every method raises RelayRefused where the relay refuses for good, and SyncError, RelayUnreachable or MalformedFrame
    where another connection may do better; what was acknowledged stays so.
    """

    def __init__(
        self,
        url: str,
        token: str | None = None,
        tls: ssl.SSLContext | str | os.PathLike[str] | None = None,
        wanted: Callable[[], bool] = lambda: True,
    ) -> None:
        address, self._wanted = relay_address(url), wanted
        self._open = ExitStack()
        try:
            connecting = connect(
                address,
                subprotocols=[Subprotocol(SUBPROTOCOL)],
                compression=None,  # pictures are compressed, and what is encrypted can't be
                proxy=None if is_loopback(address) else True,
                ssl=trusting(tls) if address.startswith("wss:") else None,
                open_timeout=_OPEN_TIMEOUT,
                close_timeout=1.0,
                max_size=_MAX_ANSWER,
                user_agent_header=None,
            )
            self._socket: ClientConnection = self._open.enter_context(connecting)
        except (OSError, WebSocketException) as e:
            raise explained(e) from e
        try:
            self._send(Hello("llmcrdt attachments", (token or "").encode(), ATTACHMENTS))
            welcome = self._receive()
            if not isinstance(welcome, Welcome):
                raise MalformedFrame("The relay did not say WELCOME.")
            if not welcome.features & ATTACHMENTS:
                raise RelayRefused(
                    "This relay is older than attachments.", hint="Upgrade it, or bring them over with repo.blobs.put."
                )
        except BaseException:
            self.close()
            raise

    def offer(self, document: bytes, name: AttachmentName, size: int) -> Held:
        """Say that there is an attachment of so many bytes. The answer says how much of it the relay has."""
        self._send(Offer(document, name, size))
        return self._held(document, name)

    def bring(self, document: bytes, name: AttachmentName, held: Held, read: Callable[[int, int], bytes]) -> Held:
        """Send what the relay lacks, after ``offer`` said what it holds. ``read(offset, length)`` gives the bytes. What
        the relay says last: all of it is on its disk, or why not."""
        size, at, done = held.size, held.held, held.held
        if done == size:
            return held
        while True:
            while at < size and at - done < _AHEAD * MAX_PIECE:
                piece = read(at, min(MAX_PIECE, size - at))
                self._send(Data(document, name, size, at, piece))
                at += len(piece)
            held = self._held(document, name)
            if held.outcome != Outcome.HELD:
                return held
            done = held.held
            if done == size:
                return held

    def fetch(
        self, document: bytes, name: AttachmentName, size: int, offset: int, write: Callable[[bytes], object]
    ) -> Held | None:
        """Give all from ``offset`` on to ``write``, in order. None when that was all; else why there is none, as where
        its size is not ``size``."""
        asked, come, known = offset, offset, False
        while True:
            while asked - come < _AHEAD * MAX_PIECE and (asked < size or not known):
                length = MAX_PIECE - asked % MAX_PIECE
                self._send(Fetch(document, name, asked, length))
                asked += length
                if not known:
                    break
            answer = self._answer(document, name)
            if isinstance(answer, Held):
                return answer
            if answer.size != size:
                return Held(document, name, Outcome.DAMAGED, answer.size, answer.size)
            if answer.offset != come or (not answer.data and come < size):
                raise MalformedFrame("The relay sent another piece than the one that was asked for.")
            known = True
            write(answer.data)
            come += len(answer.data)
            if come == size:
                return None

    def discard(self, document: bytes, name: AttachmentName) -> None:
        """Have the relay take an attachment away. When this returns, nothing of it is in any file of the relay."""
        self._send(Discard(document, name))
        self._held(document, name)

    def close(self) -> None:
        """Close the connection. Twice is harmless."""
        self._open.close()

    def __enter__(self) -> AttachmentConnection:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    # ---------------------------------------------------------------- inside

    def _send(self, message: Message) -> None:
        if not self._wanted():
            raise NoLongerWanted("It is not wanted any more.")
        try:
            self._socket.send(codec.encode(message))
        except ConnectionClosed as e:
            raise self._why_closed(e) from e

    def _held(self, document: bytes, name: AttachmentName) -> Held:
        answer = self._answer(document, name)
        if not isinstance(answer, Held):
            raise MalformedFrame("The relay sent a piece that nobody asked for.")
        return answer

    def _answer(self, document: bytes, name: AttachmentName) -> Held | Data:
        answer = self._receive()
        if not isinstance(answer, (Held, Data)) or answer.document != document or answer.name != name:
            raise MalformedFrame("The relay answered something else than was asked.")
        return answer

    def _receive(self) -> Message:
        until = time.monotonic() + _PATIENCE
        while True:
            try:
                frame = self._socket.recv(timeout=_LOOK)
                break
            except TimeoutError:
                if not self._wanted():
                    raise NoLongerWanted("It is not wanted any more.") from None
                if time.monotonic() > until:
                    raise SyncError(f"The relay gave no answer for {_PATIENCE:g} s.") from None
            except ConnectionClosed as e:
                raise self._why_closed(e) from e
        if isinstance(frame, str):
            raise MalformedFrame("The relay sent a text frame.")
        message = codec.decode(frame)
        if isinstance(message, Error):
            raise refusal(message)
        return message

    def _why_closed(self, error: ConnectionClosed) -> LLMCRDTError:
        return SyncError(f"The connection to the relay was lost: {error}.")


_FOR_GOOD: Final = (
    ErrorCode.READ_ONLY,
    ErrorCode.TOKEN_REFUSED,
    ErrorCode.FORBIDDEN,
    ErrorCode.GONE,
    ErrorCode.MALFORMED,
    ErrorCode.UNEXPECTED,
    ErrorCode.WINDOW_EXCEEDED,
)


def refusal(error: Error) -> SyncError:
    """The error of this library for one that a relay sent: RelayRefused where another try would end the same way."""
    text = f"The relay refused an attachment: {error.text}"
    return RelayRefused(text, code=error.code) if error.code in _FOR_GOOD else SyncError(text)
