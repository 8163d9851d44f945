"""Readers that don't read cost the relay little, and no more the more is written. Counted is what waits, not what the
system gives the process, so that nothing else on the machine changes the figure."""

from __future__ import annotations

import random
import socket
import struct
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pycrdt
import pytest

from llmcrdt.ids import document_id
from llmcrdt.sync import codec
from llmcrdt.sync.messages import PATH, SUBPROTOCOL, Ack, Error, ErrorCode, Hello, Open, Push
from sync_server import sessions
from sync_server.auth.tokens import Tokens
from sync_server.core.limits import Limits
from sync_server.doors import yjs
from sync_server.net.connection import OBJECT, Connection
from sync_server.net.outgoing import SLICE, Outgoing
from sync_server.thread import RelayThread

from ...waiting import eventually
from ..core.test_validation import ask, hear, native

D, S = b"d" * 16, b"s" * 16
UNFOLDED = Limits(compaction_bytes=1 << 40)
READERS = 40


@pytest.fixture
def connections(monkeypatch: pytest.MonkeyPatch) -> list[Connection]:
    """All connections of the relays that a test starts."""
    found: list[Connection] = []

    class Noted(Connection):
        def __init__(self, *arguments: object) -> None:
            super().__init__(*arguments)  # type: ignore[arg-type]
            found.append(self)

    monkeypatch.setattr(sessions, "Connection", Noted)
    return found


def frame(payload: bytes, opcode: int = 0x82) -> bytes:
    """A client's WebSocket frame, with a mask of zeros."""
    size = len(payload)
    head = bytes([opcode, 0x80 | size]) if size < 126 else bytes([opcode, 0xFE]) + struct.pack("!H", size)
    return head + bytes(4) + payload


@contextmanager
def upgraded(url: str, path: str, *lines: str) -> Iterator[socket.socket]:
    """A WebSocket that nobody reads from. The system keeps little for it."""
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(("127.0.0.1", int(url.rsplit(":", 1)[1])))
        head = ["GET " + path + " HTTP/1.1", "Host: relay", "Upgrade: websocket", "Connection: Upgrade",
                "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", *lines, "", ""]  # fmt: skip
        client.sendall("\r\n".join(head).encode())
        assert b" 101 " in client.recv(4096)
        yield client


@contextmanager
def silent(url: str, door: str, kind: str = "yjs") -> Iterator[socket.socket]:
    """Somebody who follows D and never reads."""
    if door == "yjs":
        with upgraded(url, yjs.PATH + document_id(D)) as client:
            client.sendall(frame(yjs.encode(yjs.StepOne(b"\x00"))))
            yield client
        return
    deflate = ["Sec-WebSocket-Extensions: permessage-deflate"] if door == "deflated" else []
    with upgraded(url, PATH, f"Sec-WebSocket-Protocol: {SUBPROTOCOL}", *deflate) as client:
        for message in (Hello("silent"), Open(D, kind)):
            client.sendall(frame(codec.encode(message)))
        yield client


def updates(count: int) -> list[bytes]:
    """Of some 16 KiB each, which can't be compressed."""
    made, doc = list[bytes](), pycrdt.Doc[pycrdt.Map[bytes]]()
    doc.observe(lambda event: made.append(event.update))
    entries = doc.get("entries", type=pycrdt.Map)
    for n in range(count):
        entries[str(n)] = random.Random(n).randbytes(SLICE)
    return made


def held(readers: Sequence[Connection]) -> int:
    """All that waits for readers: what each has for itself, objects, and each frame once however many wait for it."""
    frames: set[Outgoing] = {out for reader in readers for out, _ in reader._queue}
    own = sum(reader.socket.writer.waiting + OBJECT * len(reader._queue) for reader in readers)
    return own + sum(len(out.framed) for out in frames)


@pytest.mark.parametrize("door", ["native", "yjs", "deflated"])
def test_what_waits_for_slow_readers_is_small_and_does_not_grow(
    tmp_path: Path, connections: list[Connection], door: str
) -> None:
    made = updates(900)
    with RelayThread(tmp_path, limits=UNFOLDED) as relay, ExitStack() as stack, native(relay.url, D) as writer:
        for _ in range(READERS):
            stack.enter_context(silent(relay.url, door))
        readers = eventually(lambda: [c for c in connections if c.peer != 1], lambda found: len(found) == READERS)
        eventually(lambda: [reader.unreported for reader in readers], all)  # the document is open
        found = []
        for start, end in ((0, 300), (300, 900)):
            for n in range(start, end, 10):
                answer = ask(writer, Push(D, S, n + 1, tuple(made[n : n + 10])))
                while isinstance(answer, Ack) and answer.n + answer.count <= n + 10:
                    answer = hear(writer)
                assert isinstance(answer, Ack)
            eventually(lambda: [sum(reader.waiting) for reader in readers], all)
            found.append(held(readers))
            for reader in readers:
                shared, own = reader.waiting
                assert own < 2 * SLICE + (UNFOLDED.batch if door == "deflated" else 0)
                assert shared < UNFOLDED.outgoing + 2 * UNFOLDED.batch
        assert found[0] / READERS < 48 << 10, "a few tens of kB each"
        assert found[1] < 1.1 * found[0], f"10 MB more were written; {found}"


def push(url: str, count: int) -> None:
    """Write so many records of 1 MiB."""
    with native(url) as writer:
        ask(writer, Open(D, "sealed"))
        for n in range(1, count + 1):
            assert ask(writer, Push(D, S, n, (bytes(1 << 20),))) == Ack(D, S, n, 1, n)


@contextmanager
def clogged(url: str, connections: Sequence[Connection]) -> Iterator[tuple[socket.socket, Connection]]:
    """One who doesn't read, in the middle of a large message."""
    with upgraded(url, PATH, f"Sec-WebSocket-Protocol: {SUBPROTOCOL}") as client:
        for message in (Hello("silent"), Open(D, "sealed")):
            client.sendall(frame(codec.encode(message)))
        eventually(lambda: connections and connections[0].sent_at)
        push(url, 12)
        eventually(lambda: connections[0].waiting[0])
        yield client, connections[0]


def test_pongs_wait_for_the_end_of_a_message_and_not_without_end(tmp_path: Path, connections: list[Connection]) -> None:
    """A client that asks for pongs and takes none is not read from."""
    # A queue that is full would be reason enough.
    limits = Limits(outgoing=1 << 30)
    with RelayThread(tmp_path, limits=limits) as relay, clogged(relay.url, connections) as (client, connection):
        ping = frame(b"p" * 125, 0x89) * 100
        client.settimeout(1)
        with pytest.raises(TimeoutError):
            for _ in range(5_000):  # 65 MB
                client.send(ping)
        assert connection.socket.writer.waiting < 512 << 10, "what one read brings is answered"
        # It reads on: the messages are whole, and the pongs stand between them.
        client.settimeout(60)
        file, opcodes = client.makefile("rb"), set()
        while len(opcodes) < 2:
            head = file.read(2)
            size = head[1] if head[1] < 126 else int.from_bytes(file.read(2 if head[1] == 126 else 8), "big")
            payload = file.read(size)
            opcodes.add(head[0])
            assert payload == b"p" * 125 if head[0] == 0x8A else codec.decode(payload)


def test_a_message_in_any_number_of_frames_is_kept_as_bytes(tmp_path: Path, connections: list[Connection]) -> None:
    with (
        RelayThread(tmp_path) as relay,
        upgraded(relay.url, PATH, f"Sec-WebSocket-Protocol: {SUBPROTOCOL}") as client,
    ):
        hello = codec.encode(Hello("test"))
        client.sendall(frame(hello[:3], 0x02) + frame(b"", 0x00) * 10_000 + frame(hello[3:5], 0x00))
        eventually(lambda: connections and connections[0].socket.reader._begun == hello[:5])
        client.sendall(frame(hello[5:], 0x80))
        assert client.recv(4096)[2] == 0x02, "WELCOME"


@pytest.mark.parametrize("path", [PATH, yjs.PATH + document_id(D)])
@pytest.mark.parametrize("fragments", [1, 100])
def test_who_is_not_known_has_no_large_frame_kept_of_it(
    tmp_path: Path, connections: list[Connection], path: str, fragments: int
) -> None:
    """It could send half of one on each of many connections, and nothing more."""
    Tokens(tmp_path).make("ann", "append", ["*"])
    with RelayThread(tmp_path, limits=Limits(handshake=2)) as relay:
        protocol = [] if path.startswith(yjs.PATH) else [f"Sec-WebSocket-Protocol: {SUBPROTOCOL}"]
        with upgraded(relay.url, path, *protocol) as client:
            whole = bytes([0x82, 0xFF]) + struct.pack("!Q", 4 << 20) + bytes(500_000)
            pieces = [frame(bytes(2_000), 0x00 if n else 0x02) for n in range(fragments)]
            with suppress(ConnectionError):
                client.sendall(whole if fragments == 1 else b"".join(pieces))
            most, _ = 0, eventually(lambda: connections)
            while not connections[0].socket.transport.is_closing():
                most = max(most, relay_holds(connections))
                time.sleep(0.001)
            assert most < 64 << 10


def relay_holds(connections: Sequence[Connection]) -> int:
    """Bytes of messages that have come in part."""
    sockets = [c.socket for c in connections]
    return sum(len(s.protocol.reader.buffer) + len(s.reader._begun or b"") for s in sockets)


def test_a_slow_reader_that_is_cut_off_is_forgotten(tmp_path: Path, connections: list[Connection]) -> None:
    with RelayThread(tmp_path) as relay:
        with clogged(relay.url, connections) as (client, _):
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # ends with a reset
        address = relay.url.replace("ws:", "http:") + "/metrics"
        eventually(
            lambda: urllib.request.urlopen(address).read(), lambda found: b"\nllmcrdt_relay_connections 0\n" in found
        )


def test_who_is_sent_away_and_does_not_read_is_cut_off(tmp_path: Path, connections: list[Connection]) -> None:
    with RelayThread(tmp_path, limits=Limits(close_timeout=0.2)) as relay, clogged(relay.url, connections) as (_, at):
        relay._loop.call_soon_threadsafe(at.end, Error(ErrorCode.TOKEN_REFUSED, "It was revoked."))
        eventually(lambda: at.last is not None and at.socket.transport.is_closing())


def test_who_takes_nothing_is_given_up_and_who_takes_some_is_not(tmp_path: Path, connections: list[Connection]) -> None:
    """While more waits for them than the system takes, so that no ping reaches them."""
    limits = Limits(idle_timeout=1.0)
    with RelayThread(tmp_path, limits=limits) as relay, ExitStack() as stack:
        push(relay.url, 24)
        slow, dead = (stack.enter_context(silent(relay.url, "native", "sealed")) for _ in range(2))
        found = eventually(lambda: [c for c in connections if c.peer != 1], lambda found: len(found) == 2)
        eventually(lambda: [c.waiting[0] for c in found], all)
        ports = {c.socket.remote_address[1]: c for c in found}
        kept, cut = (ports[client.getsockname()[1]] for client in (slow, dead))
        slow.settimeout(10)
        end, late = time.monotonic() + 6, 0.0
        while time.monotonic() < end:
            assert slow.recv(2 << 10)
            late = late or (time.monotonic() if cut.socket.transport.is_closing() else 0.0)
            time.sleep(0.1)
        assert late, "it took nothing"
        assert not kept.socket.transport.is_closing() and kept.waiting[0], "much still waits for it"


def test_who_gives_no_sign_of_life_is_asked_and_given_up(tmp_path: Path, connections: list[Connection]) -> None:
    with RelayThread(tmp_path, limits=Limits(idle_timeout=0.6)) as relay, silent(relay.url, "native") as client:
        client.settimeout(10)
        heard = b""
        with suppress(ConnectionResetError):
            while data := client.recv(4096):
                heard += data
        assert heard.endswith(b"\x89\x00"), "a ping, and then the end"


def test_who_is_held_up_by_the_relay_itself_is_not_given_up(tmp_path: Path, connections: list[Connection]) -> None:
    """It is not read from for seconds, for it sent more than it may."""
    limits = Limits(idle_timeout=0.6, rate=100_000, burst=100_000)
    with RelayThread(tmp_path, limits=limits) as relay, silent(relay.url, "native") as client:
        eventually(lambda: connections and connections[0].door.greeted)
        client.sendall(b"".join(frame(codec.encode(Push(D, S, n, (bytes(50_000),)))) for n in range(1, 9)))
        end = time.monotonic() + 2.5
        while time.monotonic() < end:
            assert not connections[0].socket.transport.is_closing()
            time.sleep(0.05)
