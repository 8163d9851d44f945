"""Automerge clients for tests: automerge-repo on Node, and bare frames."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from llmcrdt.automerge_sync import NOTHING, Have, SyncMessage, read_message, write_message
from llmcrdt.crdt.registry import kinds
from sync_server.doors import cbor

from ..waiting import PATIENCE

PEERS = Path(__file__).parents[1] / "peers"
NODE = shutil.which("node")
needs_door = pytest.mark.skipif(
    not cbor.installed() or "automerge" not in kinds(), reason="cbor2 or automerge is missing: make dev"
)
needs_node = pytest.mark.skipif(
    NODE is None or not (PEERS / "node_modules" / "@automerge" / "automerge-repo").is_dir(),
    reason="Node or its packages are missing: run make peers",
)


def _schema() -> Path:
    """The code that docs/schema.md gives to JavaScript developers for Automerge documents."""
    text = (Path(__file__).parents[2] / "docs" / "schema.md").read_text()
    code = re.findall(r"^```js\n(.*?)^```", text, re.M | re.S)[-1]
    path = PEERS / ".automerge-schema.mjs"
    if not path.exists() or path.read_text() != code:
        path.write_text(code)
    return path


class NodeProcess:
    """Some automerge-repo clients in one process; ``client`` makes each."""

    def __init__(self) -> None:
        assert NODE
        self._process = subprocess.Popen(
            [NODE, "automerge_client.mjs", str(_schema())],
            cwd=PEERS,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self._count = 0

    def client(self, url: str, token: str = "") -> NodeClient:
        self._count += 1
        found = NodeClient(self, str(self._count))
        found("connect", url=f"{url}/automerge" + (f"?token={token}" if token else ""))
        return found

    def say(self, **line: object) -> Any:
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(json.dumps(line) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        assert "error" not in answer, answer
        return answer["ok"]

    def __enter__(self) -> NodeProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()


class NodeClient:
    """An unmodified automerge-repo client with a Repo of its own."""

    def __init__(self, process: NodeProcess, name: str) -> None:
        self._process, self._name = process, name

    def __call__(self, word: str, **rest: object) -> Any:
        return self._process.say(at=self._name, do=word, **rest)


class Bare:
    """Frames, one by one."""

    def __init__(self, url: str, token: str = "", name: str = "bare", **options: Any) -> None:
        options = {"compression": None, "max_size": None, "proxy": None, **options}
        self._connecting = connect(f"{url}/automerge" + (f"?token={token}" if token else ""), **options)
        self.name = name

    def __enter__(self) -> Bare:
        self.socket: ClientConnection = self._connecting.__enter__()
        return self

    def __exit__(self, kind: Any, error: Any, tb: Any) -> None:
        self._connecting.__exit__(kind, error, tb)

    def join(self) -> Bare:
        self.send("join", peerMetadata={}, supportedProtocolVersions=["1"])
        assert self.hear()["type"] == "peer"
        return self

    def send(self, type_: str, **fields: object) -> None:
        self.socket.send(frame(type_, self.name, **fields))

    def sync(self, document: str, chunks: list[bytes] | None = None, heads: list[bytes] | None = None) -> None:
        self.send("sync", documentId=document, data=sync(chunks, heads))

    def hear(self) -> dict[str, Any]:
        data = self.socket.recv(timeout=PATIENCE)
        assert isinstance(data, bytes)
        found: dict[str, Any] = cbor.read(data, 1_000, 9)
        return found

    def hear_sync(self) -> SyncMessage:
        while (said := self.hear())["type"] != "sync":
            assert said["type"] != "error", said
        return read_message(said["data"])

    def hear_error(self) -> int:
        while (said := self.hear())["type"] != "error":
            pass
        return int(said["code"])

    def close_code(self) -> int:
        """The code of the close that comes after whatever else comes."""
        with pytest.raises(ConnectionClosed) as closed:
            while True:
                self.hear()
        assert closed.value.rcvd, closed.value
        return closed.value.rcvd.code


def frame(type_: str, sender: str = "bare", **fields: object) -> bytes:
    return cbor.write({"type": type_, "senderId": sender, "targetId": "relay", **fields})


def sync(chunks: list[bytes] | None = None, heads: list[bytes] | None = None) -> bytes:
    return write_message(heads or [], [], [Have([], NOTHING)], chunks or [])
