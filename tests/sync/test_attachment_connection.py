"""A relay may be broken or hostile: what it says of attachments is held against what was asked before it counts."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.server import ServerConnection, serve
from websockets.typing import Subprotocol

from llmcrdt.exceptions import MalformedFrame, RelayRefused, RelayUnreachable, SyncError
from llmcrdt.sync import codec
from llmcrdt.sync.attachments import AttachmentConnection, NoLongerWanted
from llmcrdt.sync.messages import (
    ATTACHMENTS,
    MAX_PIECE,
    PLAIN,
    PRESENCE,
    SUBPROTOCOL,
    AttachmentName,
    Barrier,
    Data,
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

D, OTHER = b"d" * 16, b"o" * 16
NAME = AttachmentName(PLAIN, b"n" * 32)
SIZE = 2 * MAX_PIECE + 10
Answer = Callable[[Message], Sequence[Message]]


@pytest.fixture
def relay() -> Iterator[Callable[..., str]]:
    """``relay(answer, features)``: the address of one that answers so."""
    with ExitStack() as stack:

        def start(answer: Answer, features: int = ATTACHMENTS) -> str:
            def session(socket: ServerConnection) -> None:
                with suppress(ConnectionClosed):
                    for frame in socket:
                        assert isinstance(frame, bytes)
                        asked = codec.decode(frame)
                        said = [Welcome(features=features)] if isinstance(asked, Hello) else answer(asked)
                        for message in said:
                            socket.send(codec.encode(message))

            server = stack.enter_context(serve(session, "127.0.0.1", 0, subprotocols=[Subprotocol(SUBPROTOCOL)]))
            thread = threading.Thread(target=server.serve_forever)
            thread.start()
            stack.callback(thread.join)
            stack.callback(server.shutdown)
            return f"ws://127.0.0.1:{server.socket.getsockname()[1]}"

        yield start


def piece(asked: Message, **change: object) -> Data:
    assert isinstance(asked, Fetch)
    fields = {"document": D, "name": NAME, "size": SIZE, "offset": asked.offset, "data": b"x" * asked.length, **change}
    fields["data"] = fields["data"][: max(0, SIZE - asked.offset)]  # type: ignore[index]
    return Data(**fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "answer",
    [
        lambda asked: [piece(asked, document=OTHER)],
        lambda asked: [piece(asked, name=AttachmentName(PLAIN, b"o" * 32))],
        lambda asked: [piece(asked, offset=5)],
        lambda asked: [piece(asked, data=b"")],
        lambda asked: [Barrier(1)],
        lambda asked: [Offer(D, NAME, SIZE)],
    ],
)
def test_what_was_not_asked_for_ends_the_connection(relay: Callable[..., str], answer: Answer) -> None:
    come = bytearray()
    with AttachmentConnection(relay(answer)) as connection, pytest.raises(MalformedFrame):
        connection.fetch(D, NAME, SIZE, 0, come.extend)
    assert come == b""


def test_one_of_another_size_is_not_taken(relay: Callable[..., str]) -> None:
    """A device's disk is filled with what an entry says, and no more."""
    come = bytearray()
    with AttachmentConnection(relay(lambda asked: [piece(asked, size=SIZE + 1)])) as connection:
        answer = connection.fetch(D, NAME, SIZE, 0, come.extend)
    assert answer is not None and answer.outcome == Outcome.DAMAGED and come == b""


def test_what_came_before_a_fault_is_kept_and_the_rest_comes_later(relay: Callable[..., str]) -> None:
    def breaks(asked: Message) -> Sequence[Message]:
        assert isinstance(asked, Fetch)
        return [piece(asked) if asked.offset < MAX_PIECE else piece(asked, offset=0)]

    come = bytearray()
    with AttachmentConnection(relay(breaks)) as connection, pytest.raises(MalformedFrame):
        connection.fetch(D, NAME, SIZE, 0, come.extend)
    assert len(come) == MAX_PIECE
    with AttachmentConnection(relay(lambda asked: [piece(asked)])) as connection:
        assert connection.fetch(D, NAME, SIZE, len(come), come.extend) is None
    assert bytes(come) == b"x" * SIZE


def test_small_pieces_are_put_together(relay: Callable[..., str]) -> None:
    """A relay may send fewer bytes than were asked for, if these are what comes next."""
    come = bytearray()
    with AttachmentConnection(relay(lambda asked: [piece(asked)])) as connection:
        assert connection.fetch(D, NAME, SIZE, 3, come.extend) is None
    assert len(come) == SIZE - 3


@pytest.mark.parametrize("code", [ErrorCode.FORBIDDEN, ErrorCode.GONE, ErrorCode.READ_ONLY, ErrorCode.TOKEN_REFUSED])
def test_a_refusal_is_for_good(relay: Callable[..., str], code: ErrorCode) -> None:
    url = relay(lambda asked: [Error(code, "No.", D)])
    with AttachmentConnection(url) as connection, pytest.raises(RelayRefused) as refused:
        connection.offer(D, NAME, SIZE)
    assert refused.value.code == code


def test_other_errors_are_not(relay: Callable[..., str]) -> None:
    url = relay(lambda asked: [Error(ErrorCode.STORAGE, "The disk is full.")])
    with AttachmentConnection(url) as connection, pytest.raises(SyncError) as failed:
        connection.offer(D, NAME, SIZE)
    assert not isinstance(failed.value, RelayRefused)
    with pytest.raises(RelayUnreachable):
        AttachmentConnection("ws://127.0.0.1:9")
    with pytest.raises(RelayUnreachable):
        AttachmentConnection("http://127.0.0.1:9")


def test_a_relay_that_knows_no_attachments_is_told_of(relay: Callable[..., str]) -> None:
    with pytest.raises(RelayRefused, match="older"):
        AttachmentConnection(relay(lambda asked: [], PRESENCE))


def test_what_nobody_wants_any_more_ends(relay: Callable[..., str]) -> None:
    wanted = True

    def silent(asked: Message) -> Sequence[Message]:
        nonlocal wanted
        wanted = False
        return []

    with AttachmentConnection(relay(silent), wanted=lambda: wanted) as connection, pytest.raises(NoLongerWanted):
        connection.offer(D, NAME, SIZE)


def test_of_an_upload_is_sent_what_is_lacking_and_no_more_than_a_few_pieces_ahead(relay: Callable[..., str]) -> None:
    content = bytes(i % 251 for i in range(20 * MAX_PIECE + 5))
    came: dict[int, bytes] = {}
    ahead = 0

    def take(asked: Message) -> Sequence[Message]:
        assert isinstance(asked, Data)
        came[asked.offset] = asked.data
        return [Held(D, NAME, Outcome.HELD, len(content), asked.offset + len(asked.data))]

    def read(offset: int, length: int) -> bytes:
        nonlocal ahead
        ahead = max(ahead, offset - max((at + len(data) for at, data in tuple(came.items())), default=3 * MAX_PIECE))
        return content[offset : offset + length]

    with AttachmentConnection(relay(take)) as connection:
        start = Held(D, NAME, Outcome.HELD, len(content), 3 * MAX_PIECE)
        held = connection.bring(D, NAME, start, read)
    assert held.held == len(content) and min(came) == 3 * MAX_PIECE
    assert b"".join(came[at] for at in sorted(came)) == content[3 * MAX_PIECE :]
    assert ahead <= 8 * MAX_PIECE
