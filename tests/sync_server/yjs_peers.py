"""Yjs clients for tests: y-websocket on Node, pycrdt's Provider, and bare frames."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import subprocess
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pycrdt
import pytest
import websockets
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from sync_server.doors import yjs

from ..waiting import PATIENCE

PEERS = Path(__file__).parents[1] / "peers"
NODE = shutil.which("node")
needs_node = pytest.mark.skipif(
    NODE is None or not (PEERS / "node_modules" / "y-websocket-3").is_dir(),
    reason="Node or its packages are missing: run make peers",
)


def _schema() -> Path:
    """The code that docs/schema.md gives to JavaScript developers."""
    text = (Path(__file__).parents[2] / "docs" / "schema.md").read_text()
    code = re.search(r"^```js\n(.*?)^```", text, re.M | re.S)
    assert code
    path = PEERS / ".schema.mjs"
    if not path.exists() or path.read_text() != code[1]:
        path.write_text(code[1])
    return path


class NodeClient:
    """An unmodified y-websocket client of one of its versions, in a process of its own."""

    def __init__(self, version: int, url: str, document: str, **params: str) -> None:
        assert NODE
        command = [NODE, "client.mjs", str(version), url + "/yjs", document, json.dumps(params), str(_schema())]
        self._process = subprocess.Popen(
            command, cwd=PEERS, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        self("connect")

    def __call__(self, word: str, **rest: object) -> Any:
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(json.dumps({"do": word, **rest}) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        assert "error" not in answer, answer
        return answer["ok"]

    def __enter__(self) -> NodeClient:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()


class ProviderClient:
    """pycrdt's Provider over websockets, on a thread of its own. Reads are of a copy."""

    def __init__(self, url: str, document: str) -> None:
        self._address, self._path = f"{url}/yjs/{document}", document
        self.doc: Any = pycrdt.Doc()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._run(),), daemon=True)
        self._ready = threading.Event()

    def __enter__(self) -> ProviderClient:
        self._thread.start()
        assert self._ready.wait(PATIENCE)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(PATIENCE)
        self._loop.close()

    def put(self, key: str, value: str) -> None:
        self._do(lambda: self.doc.get("m", type=pycrdt.Map).update({key: value}))

    def map(self) -> dict[str, Any]:
        found: dict[str, Any] = self._do(lambda: self.doc.get("m", type=pycrdt.Map).to_py())
        return found

    def _do(self, what: Callable[[], Any]) -> Any:
        async def do() -> Any:
            return what()

        return asyncio.run_coroutine_threadsafe(do(), self._loop).result(PATIENCE)

    async def _run(self) -> None:
        self._stop = asyncio.Event()
        async with (
            websockets.connect(self._address, proxy=None, max_size=None) as socket,
            pycrdt.Provider(self.doc, _Channel(socket, self._path)),
        ):
            self._ready.set()
            await self._stop.wait()


class _Channel:
    """A connection, as a Provider takes one."""

    def __init__(self, socket: Any, path: str) -> None:
        self._socket, self._path = socket, path

    @property
    def path(self) -> str:
        return self._path

    def __aiter__(self) -> _Channel:
        return self

    async def __anext__(self) -> bytes:
        try:
            return await self.recv()
        except ConnectionClosed:
            raise StopAsyncIteration from None

    async def send(self, message: bytes) -> None:
        with suppress(ConnectionClosed):
            await self._socket.send(message)

    async def recv(self) -> bytes:
        return bytes(await self._socket.recv())


class Bare:
    """Frames, one by one."""

    def __init__(self, url: str, document: str, query: str = "", **options: Any) -> None:
        options = {"compression": None, "max_size": None, "proxy": None, **options}
        self._connecting = connect(f"{url}/yjs/{document}{query}", **options)

    def __enter__(self) -> Bare:
        self.socket: ClientConnection = self._connecting.__enter__()
        return self

    def __exit__(self, kind: Any, error: Any, tb: Any) -> None:
        self._connecting.__exit__(kind, error, tb)

    def send(self, *messages: yjs.YjsMessage | bytes) -> None:
        for message in messages:
            self.socket.send(message if isinstance(message, bytes) else yjs.encode(message))

    def hear(self) -> yjs.YjsMessage:
        """The next message that says something."""
        while True:
            frame = self.socket.recv(timeout=PATIENCE)
            assert isinstance(frame, bytes)
            assert frame[0] <= 3, "a stock client would take the rest for messages"
            if frame != yjs.KEEPALIVE.frame:
                return yjs.decode(frame)

    def sync(self, version: bytes = b"\x00") -> bytes:
        """Ask with step 1; the answer. A question back is not answered."""
        self.send(yjs.StepOne(version))
        while not isinstance(message := self.hear(), yjs.StepTwo):
            pass
        return message.update

    def close_code(self) -> int:
        """The code of the close that comes after whatever else comes."""
        with pytest.raises(ConnectionClosed) as closed:
            while True:
                self.hear()
        assert closed.value.rcvd, closed.value
        return closed.value.rcvd.code


def update(key: str, value: object, doc: Any = None) -> bytes:
    """The update that sets one key of the map "m", by a writer of its own or by ``doc``."""
    doc = pycrdt.Doc() if doc is None else doc
    before = doc.get_state()
    doc.get("m", type=pycrdt.Map)[key] = value
    made: bytes = doc.get_update(before)
    return made


def texts(*updates: bytes) -> dict[str, Any]:
    """The map "m" that updates make."""
    doc: Any = pycrdt.Doc()
    for one in updates:
        doc.apply_update(one)
    found: dict[str, Any] = doc.get("m", type=pycrdt.Map).to_py()
    return found
