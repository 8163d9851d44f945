"""The relay as a process and a server: what a peer at its socket gets."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Origin, Subprotocol

import llmcrdt
from llmcrdt.ids import document_bytes
from llmcrdt.sync import codec
from llmcrdt.sync.messages import (
    FEATURES,
    MAX_AGENT,
    MAX_FRAME,
    MAX_GREETING,
    MAX_TOKEN,
    PATH,
    PRESENCE,
    SUBPROTOCOL,
    Ack,
    Announcement,
    Barrier,
    Close,
    Error,
    ErrorCode,
    Hello,
    Message,
    Open,
    Opened,
    Presence,
    Push,
    Reached,
    Record,
    Records,
    Welcome,
)
from llmcrdt.varint import MAX_UINT
from sync_server.core.limits import Limits
from sync_server.log.file import DATABASE
from sync_server.testing.memory import MemoryData, MemoryStorage
from sync_server.thread import RelayThread

D, E, S = b"d" * 16, b"e" * 16, b"s" * 16
SUBPROTOCOLS = [Subprotocol(SUBPROTOCOL)]


@pytest.fixture(scope="module")
def relay(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RelayThread]:
    with RelayThread(tmp_path_factory.mktemp("relay"), limits=Limits(outgoing=64 << 10, batch=16 << 10)) as relay:
        yield relay


@contextmanager
def plain(url: str, **options: object) -> Iterator[ClientConnection]:
    options = {"subprotocols": SUBPROTOCOLS, "compression": None, "max_size": MAX_FRAME, "proxy": None, **options}
    with connect(url + PATH, **options) as client:  # type: ignore[arg-type]
        yield client


@contextmanager
def greeted(url: str, **options: object) -> Iterator[ClientConnection]:
    with plain(url, **options) as client:
        assert isinstance(ask(client, Hello("test")), Welcome)
        yield client


def ask(client: ClientConnection, *messages: Message | bytes) -> Message:
    for message in messages:
        client.send(message if isinstance(message, bytes) else codec.encode(message))
    return hear(client)


def hear(client: ClientConnection) -> Message:
    frame = client.recv(timeout=20)
    assert isinstance(frame, bytes)
    return codec.decode(frame)


def last_words(client: ClientConnection) -> tuple[int, int | None]:
    """The code of the error that ends a connection, and the WebSocket close code behind it."""
    message = hear(client)
    assert isinstance(message, Error)
    assert message.document is None
    with pytest.raises(ConnectionClosed) as closed:
        client.recv(timeout=20)
    return message.code, closed.value.rcvd and closed.value.rcvd.code


def test_a_conversation_with_it(relay: RelayThread) -> None:
    with greeted(relay.url) as client, greeted(relay.url) as other:
        first = ask(client, Open(D, "blobs"))
        assert isinstance(first, Opened)
        assert isinstance(ask(other, Open(D, "blobs")), Opened)
        assert ask(client, Push(D, S, 1, (b"a", b"b"))) == Ack(D, S, 1, 2, 1)
        assert hear(other) == Records(D, 1, (Record(S, 1, b"a"), Record(S, 2, b"b")))
        assert ask(other, Barrier(5)) == Reached(5)


MALFORMED = ["", "00", "0c", "05", "0503", "0100", "6301", "09ffffffffffffffff7f", "ff" * 40]


@pytest.mark.parametrize("frame", MALFORMED)
@pytest.mark.parametrize("greet", [True, False])
def test_malformed_frames_get_a_code_and_others_are_undisturbed(relay: RelayThread, frame: str, greet: bool) -> None:
    with greeted(relay.url) as other:
        assert isinstance(ask(other, Open(E, "blobs")), Opened)
        with (greeted if greet else plain)(relay.url) as client:
            client.send(bytes.fromhex(frame))
            assert last_words(client) == (ErrorCode.MALFORMED, 1008)
        assert ask(other, Barrier(1)) == Reached(1)


def test_it_keeps_all_in_the_storage_that_it_is_given(tmp_path: Path) -> None:
    data, folder, limits = MemoryData(), tmp_path / "relay", Limits(cached=7)
    opened: list[tuple[Path, int]] = []

    def open_storage(folder: Path, limits: Limits) -> MemoryStorage:
        opened.append((folder, limits.cached))
        return MemoryStorage(data)

    with llmcrdt.open(tmp_path / "one.db") as one, llmcrdt.open(tmp_path / "other.db", one.library) as other:
        conversation = one.create("Trip")
        with RelayThread(folder, limits=limits, storage=open_storage) as relay, one.connect(relay.url) as link:
            conversation.append("user", "Hello")
            link.wait_synced(30)
        assert not data.relays, "closed with its relay"
        with RelayThread(folder, limits=limits, storage=open_storage) as relay, other.connect(relay.url) as link:
            link.wait_synced(30)
        assert [entry.text for entry in other.get(conversation.id).transcript()] == ["Hello"]
    assert opened == [(folder, 7)] * 2
    assert document_bytes(conversation.id) in data.documents
    assert not (folder / DATABASE).exists()


def test_many_messages_in_one_read_and_one_message_in_many_frames(relay: RelayThread) -> None:
    document, session = os.urandom(16), os.urandom(16)
    pushes = [codec.encode(Push(document, session, n, (b"x" * n,))) for n in range(1, 40)]
    with greeted(relay.url) as client, greeted(relay.url) as other:
        assert isinstance(ask(other, Open(document, "blobs")), Opened)
        assert isinstance(ask(client, Open(document, "blobs")), Opened)
        # So that they leave together, as they do on a busy line.
        with client.protocol_mutex:
            for push in pushes:
                client.protocol.send_binary(push)
            client.socket.sendall(b"".join(client.protocol.data_to_send()))
        last = codec.encode(Push(document, session, 40, (b"y" * 40,)))
        client.send([last[:5], last[5:30], last[30:]])
        heard: list[Record] = []
        while len(heard) < 40:
            message = hear(other)
            assert isinstance(message, Records)
            heard += message.records
        assert heard == [Record(session, n, (b"y" if n == 40 else b"x") * n) for n in range(1, 41)]


def test_text_frames_are_malformed(relay: RelayThread) -> None:
    with greeted(relay.url) as client:
        client.send("hello")
        assert last_words(client) == (ErrorCode.MALFORMED, 1008)


def test_messages_at_the_wrong_place_are_refused(relay: RelayThread) -> None:
    for early in (Open(D, "blobs"), Welcome()):
        with plain(relay.url) as client:
            client.send(codec.encode(early))
            assert last_words(client) == (ErrorCode.UNEXPECTED, 1008)
    here = Presence(D, (Announcement(1, 0, "{}"),))  # nothing was said of it in HELLO
    for wrong in (Hello(), Welcome(), Reached(1), Ack(D, S, 1, 1, 1), Error(1), here):
        with greeted(relay.url) as client:
            client.send(codec.encode(wrong))
            assert last_words(client) == (ErrorCode.UNEXPECTED, 1008)


def test_presence_reaches_others_and_goes_with_its_connection(relay: RelayThread) -> None:
    here = Announcement(1, 0, "{}")
    with plain(relay.url) as one, greeted(relay.url) as old:
        answer = ask(one, Hello("test", features=FEATURES))
        assert isinstance(answer, Welcome) and answer.features & PRESENCE
        assert isinstance(ask(one, Open(E, "yjs")), Opened)
        assert isinstance(ask(old, Open(E, "yjs")), Opened)
        with plain(relay.url) as two:
            ask(two, Hello("test", features=FEATURES))
            assert isinstance(ask(two, Open(E, "yjs")), Opened)
            two.send(codec.encode(Presence(E, (here,))))
            assert hear(one) == Presence(E, (here,))
        assert hear(one) == Presence(E, (here._replace(state=""),))
        assert ask(old, Barrier(1)) == Reached(1)


def test_before_welcome_frames_are_small(relay: RelayThread) -> None:
    hello = codec.encode(Hello("a" * MAX_AGENT, bytes(MAX_TOKEN), MAX_UINT))
    with plain(relay.url) as client:
        assert isinstance(ask(client, hello), Welcome)
        assert isinstance(ask(client, Open(b"g" * 16, "big")), Opened)
        assert ask(client, Push(b"g" * 16, b"b" * 16, 1, (bytes(100_000),))) == Ack(b"g" * 16, b"b" * 16, 1, 1, 1)
    for first in (bytes(MAX_GREETING + 1), bytes(MAX_FRAME)):
        with plain(relay.url) as client, pytest.raises(ConnectionClosed) as closed:
            ask(client, first)
        assert closed.value.rcvd and closed.value.rcvd.code == 1009


def test_a_frame_above_the_limit_closes_with_1009(relay: RelayThread) -> None:
    with greeted(relay.url) as client, pytest.raises(ConnectionClosed) as closed:
        ask(client, Close(D), bytes(MAX_FRAME + 1))
    assert closed.value.rcvd
    assert closed.value.rcvd.code == 1009


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(frames=st.lists(st.binary(max_size=80) | st.sampled_from([codec.encode(Open(D, "blobs"))]), max_size=5))
def test_fuzzed_connections_harm_nobody(relay: RelayThread, frames: list[bytes]) -> None:
    with plain(relay.url) as client:
        try:
            for frame in [codec.encode(Hello()), *frames]:
                client.send(frame)
        except ConnectionClosed:
            pass
    with greeted(relay.url) as other:
        assert ask(other, Barrier(1)) == Reached(1)


def test_http_answers(relay: RelayThread) -> None:
    address = relay.url.replace("ws", "http", 1)
    with urllib.request.urlopen(address + "/healthz", timeout=20) as response:
        assert (response.status, response.read()) == (200, b"ok\n")
    with pytest.raises(urllib.error.HTTPError) as missing:
        urllib.request.urlopen(address + "/nothing", timeout=20)
    with missing.value:
        assert missing.value.code == 404
    for options, status in [
        ({"subprotocols": None}, 400),
        ({"subprotocols": [Subprotocol("llmcrdt.sync.v9")]}, 400),
        ({"origin": Origin("https://example.org")}, 403),
    ]:
        with pytest.raises(InvalidStatus) as refused, plain(relay.url, **options):
            pass
        assert refused.value.response.status_code == status


def test_only_so_many_connections(tmp_path: Path) -> None:
    with RelayThread(tmp_path, limits=Limits(connections=2)) as relay:
        with greeted(relay.url), greeted(relay.url) as second:
            with plain(relay.url) as third:
                assert last_words(third) == (ErrorCode.TOO_MANY_CONNECTIONS, 1013)
            assert ask(second, Barrier(1)) == Reached(1)
        with greeted(relay.url):
            pass


def test_who_never_says_hello_is_let_go(tmp_path: Path) -> None:
    with RelayThread(tmp_path, limits=Limits(handshake=0.1)) as relay, plain(relay.url) as client:
        assert last_words(client) == (ErrorCode.UNEXPECTED, 1008)


# ---------------------------------------------------------------- as a process


@contextmanager
def process(*arguments: str | Path) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "sync_server", *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    try:
        yield child
    finally:
        child.kill()
        child.communicate()


def address(child: subprocess.Popen[str]) -> str:
    assert child.stdout
    line = child.stdout.readline()
    assert line.startswith("listening on ws://127.0.0.1:"), line
    return line.split()[-1]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_stops_when_told_and_loses_nothing(tmp_path: Path, number: int) -> None:
    with process("--port", "0", "--data", tmp_path) as child:
        with greeted(address(child)) as client:
            ask(client, Open(D, "blobs"))
            client.send(codec.encode(Push(D, S, 1, (b"a",) * 100)))
            child.send_signal(number)
            messages = [hear(client)]
            while not isinstance(messages[-1], Error):
                messages.append(hear(client))
            assert messages[-1].code == ErrorCode.SHUTTING_DOWN
            assert messages[-1].retry_after == 1000
        assert child.wait(20) == 0
        assert child.stderr
        assert child.stderr.read() == ""
    acknowledged = sum(m.count for m in messages if isinstance(m, Ack))
    with process("--port", "0", "--data", tmp_path) as child, greeted(address(child)) as client:
        opened = ask(client, Open(D, "blobs"))
        assert isinstance(opened, Opened)
        assert opened.head.position >= acknowledged


def test_what_it_cannot_do_is_one_line_and_a_code(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "relay.db").write_text("no database " * 100)
    with socket.create_server(("127.0.0.1", 0)) as taken, RelayThread(tmp_path / "used"):
        cases = [
            (["--port", "0", "--data", tmp_path / "file"], 4, "file"),
            (["--port", "0", "--data", tmp_path / "text"], 4, "not a database"),
            (["--port", "0", "--data", tmp_path / "used"], 4, "Another relay"),
            (["--port", str(taken.getsockname()[1]), "--data", tmp_path / "free"], 3, "in use"),
            (["--port", "0", "--host", "0.0.0.0", "--data", tmp_path / "free"], 2, "--allow-remote"),
            (["--port", "70000", "--data", tmp_path / "free"], 2, "--port"),
            (["--port", "0"], 2, "--data"),
        ]
        for arguments, code, words in cases:
            with process(*arguments) as child:
                out, err = child.communicate(timeout=30)
            assert (child.returncode, out) == (code, "")
            assert words in err
            assert "Traceback" not in err
            if code != 2:
                assert len(err.splitlines()) == 1


def peak(child: subprocess.Popen[str]) -> int:
    """The most memory that a process ever held, in bytes."""
    status = Path(f"/proc/{child.pid}/status").read_text()
    return 1024 * next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc")
def test_readers_that_do_not_read_cost_the_relay_no_memory(tmp_path: Path) -> None:
    """20 of them, 24 MiB for each: buffered, that would be 480 MiB. Of a kind that is not folded."""
    with process("--port", "0", "--data", tmp_path) as child:
        url = address(child)
        lazy = [socket.create_connection(("127.0.0.1", int(url.rsplit(":", 1)[1]))) for _ in range(20)]
        try:
            with greeted(url) as writer:
                ask(writer, Open(D, "sealed"))
                for reader in lazy:
                    begin_lazily(reader)
                before = peak(child)
                for n in range(1, 97):
                    assert ask(writer, Push(D, S, n, (bytes(256 << 10),))) == Ack(D, S, n, 1, n)
                assert peak(child) - before < 100 << 20
                # It still serves those who read.
                with greeted(url) as eager:
                    assert isinstance(ask(eager, Open(D, "sealed")), Opened)
                    for n in range(1, 97):
                        message = hear(eager)
                        assert isinstance(message, Records)
                        assert message.position == n
        finally:
            for reader in lazy:
                reader.close()


def begin_lazily(reader: socket.socket) -> None:
    """Upgrade by hand, greet, open the document, and never read again."""
    reader.sendall(
        b"GET /sync HTTP/1.1\r\nHost: relay\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Version: 13\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: llmcrdt.sync.v1\r\n\r\n"
    )
    assert b"101" in reader.recv(4096)
    for message in (Hello(), Open(D, "sealed")):
        frame = codec.encode(message)
        reader.sendall(bytes([0x82, 0x80 | len(frame), 0, 0, 0, 0]) + frame)
