"""kill -9 of a relay in the middle of an upload: all that it said is held is held, nothing half is served."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing, suppress
from pathlib import Path

from websockets.sync.client import connect
from websockets.typing import Subprotocol

from llmcrdt.exceptions import LLMCRDTError
from llmcrdt.sync import codec
from llmcrdt.sync.attachments import AttachmentConnection
from llmcrdt.sync.messages import (
    FEATURES,
    MAX_PIECE,
    PLAIN,
    SUBPROTOCOL,
    Ack,
    AttachmentName,
    Hello,
    Open,
    Outcome,
    Push,
)
from sync_server.log.file import DATABASE
from sync_server.log.verify import faults

ROOT = Path(__file__).parents[2]
D = b"d" * 16


def start(folder: Path) -> tuple[subprocess.Popen[str], str]:
    command = [sys.executable, "-m", "sync_server", "--data", str(folder), "--port", "0"]
    process = subprocess.Popen(
        command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    return process, process.stdout.readline().rpartition(" ")[2].strip()


def begin(url: str) -> None:
    """A document needs a record before it has attachments."""
    with connect(f"{url}/sync", subprotocols=[Subprotocol(SUBPROTOCOL)]) as socket:
        for message in (Hello("t", b"", FEATURES), Open(D, "opaque"), Push(D, b"s" * 16, 1, (b"x",))):
            socket.send(codec.encode(message))
        while not isinstance(codec.decode(bytes(socket.recv(timeout=30))), Ack):  # type: ignore[arg-type]
            pass


def test_what_is_held_is_held_when_the_relay_is_killed(tmp_path: Path) -> None:
    rng = random.Random(5)
    content = rng.randbytes(6 << 20)
    name, acknowledged = AttachmentName(PLAIN, hashlib.sha256(content).digest()), 0

    def read(offset: int, length: int) -> bytes:
        nonlocal acknowledged
        acknowledged = max(acknowledged, offset - 8 * MAX_PIECE)  # so many pieces are under way
        return content[offset : offset + length]

    for kill in (True, True, False):
        process, url = start(tmp_path)
        try:
            begin(url)
            with AttachmentConnection(url) as connection:
                held = connection.offer(D, name, len(content))
                assert held.outcome == Outcome.HELD and held.held >= acknowledged
                if kill:
                    threading.Timer(0.02 + rng.random() * 0.05, process.send_signal, (signal.SIGKILL,)).start()
                with suppress(LLMCRDTError):
                    held = connection.bring(D, name, held, read)
                if not kill:
                    come = bytearray()
                    assert held.held == len(content)
                    assert connection.fetch(D, name, len(content), 0, come.extend) is None and bytes(come) == content
        finally:
            process.kill()
            process.wait(30)
            assert process.stdout is not None
            process.stdout.close()
        with closing(sqlite3.connect(tmp_path / DATABASE)) as db:
            assert [*faults(db)] == []
