"""Plain frames are taken out of what a socket reads as the WebSocket library would have taken them."""

from __future__ import annotations

import socket
from collections import deque
from pathlib import Path

from hypothesis import example, given
from hypothesis import strategies as st
from websockets.frames import Frame, Opcode
from websockets.protocol import State
from websockets.server import ServerProtocol

from llmcrdt.sync import codec
from llmcrdt.sync.messages import PATH, SUBPROTOCOL, Ack, Hello, Open, Push
from sync_server.core.events import join_pushes
from sync_server.core.validation import Received
from sync_server.doors.native import take_following
from sync_server.net.frames import PlainFrames, frame_head
from sync_server.net.outgoing import Outgoing
from sync_server.thread import RelayThread

MOST = 70_000
D, E, S, T = b"d" * 16, b"e" * 16, b"s" * 16, b"t" * 16


@given(st.sampled_from([0, 1, 125, 126, 127, 128, 65_535, 65_536, 70_000]))
def test_a_frame_that_is_made_is_the_librarys(size: int) -> None:
    payload = bytes(range(256)) * (size // 256 + 1)
    payload = payload[:size]
    made = Outgoing(payload).framed
    assert made == frame_head(size) + payload == Frame(Opcode.BINARY, payload).serialize(mask=False)


class Peer:
    """A server's side of a WebSocket: its messages and what it says, by the library alone, or with plain frames taken
    out."""

    def __init__(self, plain: bool) -> None:
        self.protocol = ServerProtocol(max_size=MOST)
        self.protocol.state = State.OPEN
        # Behind an upgrade the library goes on like this.
        self.protocol.parser = super(ServerProtocol, self.protocol).parse()
        next(self.protocol.parser)
        self.taken = 0
        self.events: list[tuple[int, bool, bytes]] = []
        self._fragments = False
        self._frames = PlainFrames(self._message, self._rest, self._open, lambda: MOST) if plain else None

    def feed(self, data: bytes) -> None:
        if self._frames is not None:
            self._frames.feed(data)
        else:
            self._rest(data)

    def _message(self, data: bytes) -> None:
        self.taken += 1
        self.events.append((Opcode.BINARY, True, data))

    def _rest(self, data: bytes) -> None:
        self.protocol.receive_data(data)
        for event in self.protocol.events_received():
            assert isinstance(event, Frame)
            self.events.append((event.opcode, event.fin, bytes(event.data)))
            if event.opcode in (Opcode.TEXT, Opcode.BINARY, Opcode.CONT):
                self._fragments = not event.fin

    def _open(self) -> bool:
        return self.protocol.state is State.OPEN and not self._fragments

    @property
    def said(self) -> bytes:
        return b"".join(self.protocol.data_to_send())


def frame(opcode: int, data: bytes, fin: bool = True, rsv1: bool = False) -> bytes:
    """A client's frame; its mask is random."""
    raw = bytearray(Frame(Opcode(opcode), data, fin).serialize(mask=True))
    raw[0] |= 0x40 * rsv1
    return bytes(raw)


sizes = st.sampled_from([0, 1, 5, 125, 126, 127, 1_000, 65_535, 65_536, MOST, MOST + 1])
payloads = sizes.map(lambda size: bytes(n % 251 for n in range(size)))
plain = payloads.map(lambda data: frame(Opcode.BINARY, data))
others = st.one_of(
    st.sampled_from([Opcode.PING, Opcode.PONG]).map(lambda opcode: frame(opcode, b"hello")),
    st.just(frame(Opcode.TEXT, "wörd".encode())),
    st.tuples(st.sampled_from([Opcode.BINARY, Opcode.CONT]), st.booleans()).map(lambda f: frame(f[0], b"part", f[1])),
    st.just(frame(Opcode.BINARY, b"squeezed", rsv1=True)),
    st.just(frame(Opcode.CLOSE, b"\x03\xe8")),
    st.just(b"\x82\x03abc"),  # not masked
    st.binary(max_size=20),
)


@given(st.lists(st.one_of(plain, plain, plain, others), max_size=12), st.data())
@example([b"\x03\x80"], None)
def test_what_is_taken_is_what_the_library_takes(frames: list[bytes], data: st.DataObject | None) -> None:
    whole = b"".join(frames)
    cuts = data.draw(st.lists(st.integers(0, len(whole)), max_size=8).map(sorted)) if data else []
    ours, theirs = Peer(True), Peer(False)
    for start, end in zip([0, *cuts], [*cuts, len(whole)], strict=True):
        ours.feed(whole[start:end])
        theirs.feed(whole[start:end])
        assert ours.events == theirs.events
    # A head that is not whole is kept back: what it decides is decided when the rest of it comes.
    for peer in (ours, theirs):
        peer.feed(bytes(14))
    assert ours.events == theirs.events
    assert (ours.said, ours.protocol.state, ours.protocol.close_code) == (
        theirs.said,
        theirs.protocol.state,
        theirs.protocol.close_code,
    )


def test_plain_frames_do_not_pass_through_the_library() -> None:
    peer = Peer(True)
    peer.feed(b"".join(frame(Opcode.BINARY, b"%d" % n) for n in range(100)))
    assert peer.taken == 100


def test_a_frame_that_brings_no_message_costs_more_than_one_that_is_compressed() -> None:
    def weight(*frames: bytes) -> int:
        reader = PlainFrames(lambda _: None, lambda _: None, lambda: True, lambda: MOST)
        reader.feed(b"".join(frames))
        return reader.others

    assert weight(frame(Opcode.BINARY, b"plain")) == 0
    compressed = weight(frame(Opcode.BINARY, b"squeezed", rsv1=True))
    assert compressed == 1
    parts = [frame(Opcode.BINARY, b"", False), frame(Opcode.CONT, b"", False), frame(Opcode.CONT, b"end")]
    for lone in (frame(Opcode.PING, b""), frame(Opcode.PONG, b""), *parts):
        assert weight(lone) == 3 * compressed


def test_a_client_that_does_not_wait_for_the_upgrade_is_understood(tmp_path: Path) -> None:
    messages = (Hello("early"), Open(D, "yjs", None), Push(D, S, 1, (b"\x00\x00",)))
    frames = b"".join(frame(Opcode.BINARY, codec.encode(message)) for message in messages)
    upgrade = (
        f"GET {PATH} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Key: {'A' * 22}==\r\nSec-WebSocket-Version: 13\r\n"
        f"Sec-WebSocket-Protocol: {SUBPROTOCOL}\r\n\r\n"
    ).encode()
    wanted = codec.encode(Ack(D, S, 1, 1, 1))
    with RelayThread(tmp_path) as relay:
        for cut in (0, 1, 7, len(frames)):
            with socket.create_connection(("127.0.0.1", relay.port), timeout=20) as client:
                client.sendall(upgrade + frames[:cut])
                got = client.recv(4096)
                client.sendall(frames[cut:])
                while wanted not in got:
                    piece = client.recv(4096)
                    assert piece, "the relay closed the connection"
                    got += piece


# ---------------------------------------------------------------- pushes that follow one another

pushes = st.builds(
    Push,
    st.sampled_from([D, D, D, E]),
    st.just(S),
    st.integers(1, 6),
    st.lists(st.binary(min_size=1, max_size=200), min_size=1, max_size=3).map(tuple),
)


@st.composite
def streams(draw: st.DrawFn) -> list[Push]:
    """Pushes of which many go on where the one before ends, or would, were it another document or session."""
    out: list[Push] = []
    for push in draw(st.lists(pushes, min_size=1, max_size=12)):
        if out and draw(st.booleans()):
            document, session = draw(st.sampled_from([D, D, E])), draw(st.sampled_from([S, S, S, T]))
            push = Push(document, session, out[-1].n + len(out[-1].data), push.data)
        out.append(push)
    return out


@given(streams(), st.integers(0, 12), st.sampled_from([b"", b"\x06", b"\x06" + D + S + b"\x01\x01\x05a"]))
def test_pushes_taken_together_are_the_same_records(stream: list[Push], place: int, broken: bytes) -> None:
    frames: list[bytes | str] = [codec.encode(push) for push in stream]
    if broken:
        frames.insert(min(place, len(frames)), broken)
    unread, taken, count, size = deque(frames), [], 0, 0
    while unread:
        first = unread.popleft()
        assert isinstance(first, bytes)
        if first == broken:
            count, size = count + 1, size + len(first)
            continue
        push = codec.decode(first)
        assert isinstance(push, Push)
        push, number, length = take_following(push, first, unread)
        taken, count, size = [*taken, push], count + number, size + length
    assert (count, size) == (len(frames), sum(map(len, frames)))
    assert records(taken) == records(stream)
    if not broken:
        assert taken == [event.message for event in join_pushes([Received(1, push) for push in stream])]  # type: ignore[union-attr]


def records(stream: list[Push]) -> list[tuple[bytes, bytes, int, bytes]]:
    return [(push.document, push.session, push.n + at, data) for push in stream for at, data in enumerate(push.data)]
