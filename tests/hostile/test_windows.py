"""Work that waits for the check has bounds, by connection and by subject; the relay says when it waits in vain."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest
from websockets.sync.client import ClientConnection

from llmcrdt.sync import codec
from llmcrdt.sync.messages import Ack, Hello, Open, Opened, Push, Welcome
from sync_server.auth.tokens import Tokens
from sync_server.core.limits import Limits
from sync_server.thread import RelayThread

from ..sync_server.core.test_limits import connected
from ..sync_server.core.test_validation import ask, edits, hear, native, workers
from ..waiting import eventually
from .test_the_check_is_fair import count

D, S = b"d" * 16, b"s" * 16

pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")


@contextmanager
def stopped_worker() -> Iterator[None]:
    """The worker that checks records does nothing for a while."""
    (pid,) = eventually(lambda: workers(os.getpid()))
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def health(relay: RelayThread) -> tuple[int, str]:
    try:
        with urlopen(relay.url.replace("ws", "http", 1) + "/healthz", timeout=20) as answer:
            return answer.status, answer.read().decode()
    except HTTPError as error:
        with error:
            return error.code, error.read().decode()


def test_a_relay_whose_check_does_nothing_says_that_it_is_not_well(tmp_path: Path) -> None:
    with RelayThread(tmp_path, limits=Limits(check_wait=0.2)) as relay, native(relay.url, D) as client:
        assert isinstance(ask(client, Push(D, S, 1, tuple(edits(1)))), Ack)
        assert health(relay) == (200, "ok\n")
        with stopped_worker():
            client.send(codec.encode(Push(D, S, 2, tuple(edits(1)))))
            code, words = eventually(lambda: health(relay), lambda answer: answer[0] != 200)
            assert code == 503 and "have waited" in words
        assert isinstance(hear(client), Ack)
        eventually(lambda: health(relay)[0], lambda code: code == 200)


@contextmanager
def greeted(url: str, token: str, document: bytes) -> Iterator[ClientConnection]:
    with connected(url) as client:
        for message, answer in ((Hello("t", token.encode()), Welcome), (Open(document, "yjs"), Opened)):
            assert isinstance(ask(client, message), answer)
        yield client


def settled(ask: Callable[[], float]) -> float:
    """A number that has not changed for half a second."""
    found = [ask()]
    while len(found) < 10 or found[-1] != found[-10]:
        time.sleep(0.05)
        found.append(ask())
    return found[-1]


def test_all_connections_of_a_subject_wait_where_one_has_filled_its_window_and_others_do_not(tmp_path: Path) -> None:
    tokens, frames = Tokens(tmp_path), 300
    ann, bob = (tokens.make(subject, "append", ["*"]) for subject in ("ann", "bob"))
    limits = Limits(subject_window=100 << 10)
    with RelayThread(tmp_path, limits=limits) as relay, ExitStack() as stack:
        clients = [
            stack.enter_context(greeted(relay.url, token, bytes([n]) * 16)) for n, token in enumerate((ann, ann, bob))
        ]
        root = tokens.make("root", "admin", ["*"])
        before = count(relay, "frames_received_total", root)

        def taken() -> float:
            return count(relay, "frames_received_total", root) - before

        made = edits(1)
        with stopped_worker():
            for n, client in enumerate(clients[:2]):
                for number in range(1, frames + 1):
                    client.send(codec.encode(Push(bytes([n]) * 16, S, number, (made[0],))))
            eventually(taken, lambda found: found > 50)
            clients[2].send(codec.encode(Push(bytes([2]) * 16, S, 1, (made[0],))))
            # Bob's is taken. Of Ann's two connections no more than her window, and what stood behind in the last read.
            eventually(taken, lambda found: found > 51)
            assert settled(taken) < 2 * frames
        assert isinstance(hear(clients[2]), Ack)
        for client in clients[:2]:
            acked = 0
            while acked < frames:
                answer = hear(client)
                assert isinstance(answer, Ack), answer
                acked += answer.count
        assert taken() == 2 * frames + 1
