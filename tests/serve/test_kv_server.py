"""Chunks of KV state go to those who may have them: the server and the client of docs/kv.md, *Handed over*."""

from __future__ import annotations

import http.client
import random
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from llmcrdt.cli.group import main
from llmcrdt.exceptions import InvalidContent
from llmcrdt.kvcache import Chunk, DiskCache, HandoverKey, HttpPeer
from llmcrdt.kvcache.chunk_file import encode
from llmcrdt.kvcache.handover import CHUNK_PATH, HAVE_PATH, MAC_HEADER, pack_sizes, unpack_sizes
from llmcrdt.kvcache.peers import PeerFailed
from llmcrdt.serve.http.kv_app import KvLimits, Pace
from llmcrdt.serve.http.kv_server import KvServer
from llmcrdt.testing.chunk_cache_suite import chain, keys_of

KEY, OLD = HandoverKey("k" * 40), HandoverKey("o" * 40)
CHUNKS = chain(4, payload=300_000)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KvServer]:
    folder = tmp_path_factory.mktemp("kv")
    cache = DiskCache(folder / "chunks")
    for chunk in CHUNKS:
        cache.put(chunk)
    with KvServer(folder, [KEY, OLD]) as server:
        yield server


def ask(
    server: KvServer, method: str, path: str, body: bytes | None = None, **headers: str
) -> tuple[int, dict[str, str], bytes]:
    headers = {"authorization": f"Bearer {KEY.token}", **headers}
    connection = http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=20)
    connection.request(method, path, body, {name: value for name, value in headers.items() if value})
    answer = connection.getresponse()
    data = answer.read()
    connection.close()
    return answer.status, {name.lower(): value for name, value in answer.getheaders()}, data


def path(chunk: Chunk) -> str:
    return CHUNK_PATH + chunk.key.hex()


def test_who_has_a_key_is_told_what_is_there_and_given_it(server: KvServer) -> None:
    for key in (KEY, OLD):
        peer = HttpPeer(server.url, key)
        keys = [*keys_of(CHUNKS), chain(1, seed=9)[0].key]
        assert peer.have(keys, 20) == [*(chunk.size for chunk in CHUNKS), 0]
        for chunk in CHUNKS:  # on one connection
            data, mac = peer.read(chunk.key, chunk.size, 20)
            assert data == encode(chunk) and key.vouches(chunk.key, chunk.digest, mac)
        peer.close()


@pytest.mark.parametrize(
    "headers",
    [
        {"authorization": ""},
        {"authorization": f"Bearer {HandoverKey('x' * 40).token}"},
        {"authorization": "Bearer " + "k" * 40},
        {"authorization": f"Basic {KEY.token}"},
        {"authorization": f"Bearer {KEY.token[:-1]}"},
        {"authorization": "Bearer \xe9"},
        {"origin": "http://127.0.0.1:8080"},
    ],
)
def test_nobody_else_learns_whether_it_is_there(server: KvServer, headers: dict[str, str]) -> None:
    told = [ask(server, "GET", path(chunk), **headers)[::2] for chunk in (CHUNKS[0], chain(1, seed=9)[0])]
    assert told[0] == told[1] and told[0][0] == 401
    status, _, body = ask(server, "POST", HAVE_PATH, CHUNKS[0].key, **headers)
    assert status == 401 and len(body) != 8


def test_a_range_is_the_rest_of_the_file(server: KvServer) -> None:
    rng, chunk = random.Random(1), CHUNKS[1]
    whole = encode(chunk)
    for _ in range(10):
        start = rng.randrange(len(whole))
        status, headers, data = ask(server, "GET", path(chunk), range=f"bytes={start}-")
        assert (status, data) == (206, whole[start:])
        assert headers["content-range"] == f"bytes {start}-{len(whole) - 1}/{len(whole)}"
        assert KEY.vouches(chunk.key, chunk.digest, bytes.fromhex(headers[MAC_HEADER]))
    assert ask(server, "GET", path(chunk), range="bytes=5-9")[2] == whole[5:10]
    assert ask(server, "GET", path(chunk), range=f"bytes={len(whole)}-")[0] == 416
    assert ask(server, "GET", path(chunk), range="bytes=9-5")[0] == 416
    for other in ("bytes=-5", "lines=1-2", "bytes=1-2,4-5", "bytes=" + "9" * 400 + "-"):
        assert ask(server, "GET", path(chunk), range=other)[::2] == (200, whole)
    status, headers, data = ask(server, "HEAD", path(chunk))
    assert (status, headers["content-length"], data) == (200, str(len(whole)), b"")


@pytest.mark.parametrize(
    ("method", "where", "body", "status"),
    [
        ("GET", CHUNK_PATH + "0" * 64, None, 404),
        ("GET", CHUNK_PATH + "0" * 63, None, 400),
        ("GET", CHUNK_PATH + "A" * 64, None, 400),
        ("GET", CHUNK_PATH + "%2e%2e%2fx", None, 404),
        ("PUT", CHUNK_PATH + "0" * 64, b"x", 405),
        ("POST", HAVE_PATH, b"", 400),
        ("POST", HAVE_PATH, b"?" * 33, 400),
        ("POST", HAVE_PATH, b"?" * 32 * 2049, 400),
        ("GET", HAVE_PATH, None, 405),
        ("GET", "/v1/models", None, 404),
    ],
)
def test_bad_questions_are_refused(server: KvServer, method: str, where: str, body: bytes | None, status: int) -> None:
    assert ask(server, method, where, body)[0] == status


def test_a_damaged_file_is_not_sent(tmp_path: Path) -> None:
    cache = DiskCache(tmp_path / "chunks")
    for chunk in CHUNKS:
        cache.put(chunk)
    file = tmp_path / "chunks" / f"{CHUNKS[0].key.hex()}.kv"
    file.write_bytes(file.read_bytes()[:-1] + b"?")
    with KvServer(tmp_path, [KEY]) as server:
        assert ask(server, "GET", path(CHUNKS[0]))[0] == 404
        assert unpack_sizes(ask(server, "POST", HAVE_PATH, b"".join(keys_of(CHUNKS)))[2], 4)[0] == 0


def test_so_many_at_once_and_a_slow_reader_is_left(tmp_path: Path) -> None:
    cache, (chunk,) = DiskCache(tmp_path / "chunks"), chain(1, payload=8 << 20)
    cache.put(chunk)
    with KvServer(tmp_path, [KEY], limits=KvLimits(at_once=2, seconds=1.0)) as server:
        readers = []
        for _ in range(2):  # they ask, and read nothing
            reader = socket.socket()
            reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)  # else all of it fits on the way
            reader.connect(("127.0.0.1", int(server.url.rsplit(":", 1)[1])))
            reader.sendall(
                f"GET {path(chunk)} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {KEY.token}\r\n\r\n".encode()
            )
            assert reader.recv(12) == b"HTTP/1.1 200"
            readers.append(reader)
        assert ask(server, "GET", path(chunk))[0] == 429
        until = time.monotonic() + 30
        while (answer := ask(server, "GET", path(chunk)))[0] == 429 and time.monotonic() < until:
            time.sleep(0.05)
        assert answer[0] == 200 and len(answer[2]) == chunk.size, "the places are free again"
        for reader in readers:
            reader.close()


def test_bytes_are_sent_at_a_pace() -> None:
    now = [0.0]
    pace = Pace(1000.0, lambda: now[0])
    assert [pace.wait_for(500) for _ in range(3)] == [0.5, 1.0, 1.5], "all who ask share it"
    now[0] = 10.0
    assert pace.wait_for(100) == pytest.approx(0.1), "what was not used is not saved up"


def test_a_server_without_a_key_or_a_place_is_refused(tmp_path: Path, server: KvServer) -> None:
    with pytest.raises(InvalidContent):
        KvServer(tmp_path, [])
    with pytest.raises(InvalidContent):
        KvServer(tmp_path, [KEY], port=int(server.url.rsplit(":", 1)[1]))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--kv-keys", "keys"], "--kv-keys is for"),
        (["--offer-kv", "0"], "with a key alone"),
        (["--offer-kv", "here:there", "--kv-keys", "keys"], "no address"),
        (["--kv-from", "ftp://x", "--kv-keys", "keys"], "no address"),
        (["--kv-from", "http://x:1", "--kv-keys", "absent"], "can't be read"),
    ],
)
def test_wrong_options_are_refused_before_a_model_is_loaded(
    options: list[str], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LLMCRDT_KV_KEY", raising=False)
    (tmp_path / "keys").write_text("k" * 40)
    (tmp_path / "keys").chmod(0o600)
    result = CliRunner().invoke(main, ["--db", "x.db", "serve", "--model", "absent.gguf", *options])
    assert result.exit_code and says in result.output + str(result.exception)
    assert not (tmp_path / "x.db").exists()


class Stranger:
    """Something else that listens where a server was thought to be. ``talk`` is given each connection."""

    def __init__(self, talk) -> None:  # type: ignore[no-untyped-def]
        self._socket, self._talk = socket.create_server(("127.0.0.1", 0)), talk
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        try:
            with connection:
                connection.recv(65536)
                self._talk(connection)
        except OSError:
            pass

    def close(self) -> None:
        self._socket.close()


def _drip(connection: socket.socket) -> None:
    for letter in b"HTTP/1.1 200 OK\r\nx: " + b"y" * 10_000:
        connection.sendall(bytes([letter]))
        time.sleep(0.05)


@pytest.mark.parametrize(
    "talk",
    [
        lambda connection: time.sleep(30),
        _drip,
        lambda connection: connection.sendall(b"nothing that HTTP knows\r\n\r\n"),
        lambda connection: connection.sendall(
            b"HTTP/1.1 302 Found\r\nlocation: http://x/\r\ncontent-length: 0\r\n\r\n"
        ),
        lambda connection: connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\nshort"),
        lambda connection: connection.sendall(b"HTTP/1.1 200 OK\r\nllmcrdt-mac: zz\r\ncontent-length: 0\r\n\r\n"),
        lambda connection: connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n" + b"?" * (1 << 20)),
        lambda connection: None,
    ],
    ids=["silent", "drips", "no HTTP", "elsewhere", "short", "no MAC", "endless", "hangs up"],
)
def test_whatever_answers_the_wait_ends_and_a_word_is_said(talk) -> None:  # type: ignore[no-untyped-def]
    stranger = Stranger(talk)
    peer = HttpPeer(stranger.url, KEY)
    began = time.monotonic()
    with pytest.raises(PeerFailed):
        peer.read(CHUNKS[0].key, 1000, 0.4)
    assert time.monotonic() - began < 20
    peer.close()
    stranger.close()


def test_what_somebody_without_the_key_says_to_have_is_not_believed() -> None:
    sizes = pack_sizes([1 << 40])
    mac = OLD.answer_mac(CHUNKS[0].key, sizes).hex()
    for line in (f"{MAC_HEADER}: {mac}\r\n", f"{MAC_HEADER}: \r\n", ""):
        head = f"HTTP/1.1 200 OK\r\n{line}content-length: 8\r\n\r\n".encode()
        stranger = Stranger(lambda connection, head=head: connection.sendall(head + sizes))
        peer = HttpPeer(stranger.url, KEY)
        with pytest.raises(PeerFailed, match="vouches"):
            peer.have([CHUNKS[0].key], 20)
        peer.close()
        stranger.close()


def test_closing_ends_a_call_that_waits() -> None:
    stranger, began, failed = Stranger(lambda connection: time.sleep(60)), threading.Event(), threading.Event()
    peer = HttpPeer(stranger.url, KEY)

    def wait() -> None:
        began.set()
        with pytest.raises(PeerFailed):
            peer.read(CHUNKS[0].key, 1000, 50)
        failed.set()

    threading.Thread(target=wait, daemon=True).start()
    assert began.wait(20)
    until = time.monotonic() + 20
    while not failed.wait(0.05) and time.monotonic() < until:  # it may not have connected yet
        peer.close()
    assert failed.is_set()
    stranger.close()


def test_what_broke_off_is_gone_on_with(server: KvServer) -> None:
    """The connection ends in the middle of a file; the rest is asked for by Range, and the whole is right."""
    chunk, asked = CHUNKS[2], []
    whole = encode(chunk)

    def talk(connection: socket.socket) -> None:
        asked.append(1)
        mac = KEY.mac(chunk.key, chunk.digest).hex()
        if len(asked) == 1:
            head = f"HTTP/1.1 200 OK\r\n{MAC_HEADER}: {mac}\r\ncontent-length: {len(whole)}\r\n\r\n"
            connection.sendall(head.encode() + whole[:1000])
        else:
            head = f"HTTP/1.1 206 Partial\r\n{MAC_HEADER}: {mac}\r\ncontent-length: {len(whole) - 1000}\r\n\r\n"
            connection.sendall(head.encode() + whole[1000:])

    stranger = Stranger(talk)
    peer = HttpPeer(stranger.url, KEY)
    data, mac = peer.read(chunk.key, chunk.size, 20)
    assert data == whole and KEY.vouches(chunk.key, chunk.digest, mac) and len(asked) == 2
    peer.close()
    stranger.close()


def test_a_connection_that_the_server_ended_meanwhile_is_made_again(tmp_path: Path) -> None:
    cache = DiskCache(tmp_path / "chunks")
    cache.put(CHUNKS[0])
    first = KvServer(tmp_path, [KEY])
    port = int(first.url.rsplit(":", 1)[1])
    with first:
        peer = HttpPeer(first.url, KEY)
        assert peer.have([CHUNKS[0].key], 20) == [CHUNKS[0].size]
    with pytest.raises(PeerFailed):
        peer.have([CHUNKS[0].key], 20)
    with KvServer(tmp_path, [KEY], port=port):
        assert peer.have([CHUNKS[0].key], 20) == [CHUNKS[0].size]
    peer.close()
