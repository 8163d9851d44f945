"""Somebody who wants nothing but to write, and be read, while others attack."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import ExitStack

import pycrdt

from llmcrdt.sync import codec
from llmcrdt.sync.messages import Ack, Push, Records

from ..sync_server.core.test_validation import hear, native
from ..sync_server.yjs_peers import update

SESSION = b"bystander's name"


class Bystander:
    """Writes to a document of his own, one record after the other, and reads it on a second connection. ``times``: how
    many seconds each took until it was read there; ``work``: how much of another clock, which tells what the relay did
    meanwhile."""

    def __init__(self, url: str, document: bytes, worked: Callable[[], float] = lambda: 0.0) -> None:
        self._url, self._document, self._worked = url, document, worked
        self.times: list[float] = []
        self.work: list[float] = []
        self.failed: BaseException | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Bystander:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        assert self.failed is None, self.failed

    @property
    def read(self) -> int:
        """How many of his records were read."""
        return len(self.times)

    def _run(self) -> None:
        try:
            with ExitStack() as stack:
                writer, reader = (stack.enter_context(native(self._url, self._document)) for _ in range(2))
                doc = pycrdt.Doc()
                while not self._stop.is_set():
                    n = self.read + 1
                    record = update(f"k{n % 50}", n, doc)
                    began, worked = time.monotonic(), self._worked()
                    writer.send(codec.encode(Push(self._document, SESSION, n, (record,))))
                    heard = hear(reader)
                    assert isinstance(heard, Records), heard
                    assert isinstance(heard := hear(writer), Ack), heard
                    self.work.append(self._worked() - worked)
                    self.times.append(time.monotonic() - began)
        except BaseException as e:
            self.failed = e


def wait_for(bystander: Bystander, more: int, until: Callable[[], object] = lambda: False) -> int:
    """Until he has been read so many times more, or something else is so. How many times he was."""
    before, end = bystander.read, time.monotonic() + 60
    while bystander.read < before + more and not until() and bystander.failed is None:
        assert time.monotonic() < end, "the bystander waits"
        time.sleep(0.005)
    return bystander.read - before
