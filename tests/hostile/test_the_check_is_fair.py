"""Whoever fills the check with work holds up nobody else."""

from __future__ import annotations

import threading
from pathlib import Path
from urllib.request import urlopen

import pytest
from websockets.sync.client import ClientConnection

from llmcrdt.sync import wire
from llmcrdt.sync.wire import Ack, Error, ErrorCode, Push
from sync_server.core.limits import Limits
from sync_server.thread import RelayThread

from ..sync_server.core.test_validation import ask, edits, hear, native
from .bystander import Bystander, wait_for
from .updates import far_apart, text

D, E, S = b"d" * 16, b"e" * 16, b"s" * 16
PUSH, PUSHES = 500, 40


class Flood:
    """One connection that always has as much under way as it may. ``acked``: how many of its records are."""

    def __init__(self, client: ClientConnection, records: list[bytes]) -> None:
        self._client, self._records = client, records
        self.acked = 0
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        sent = 0
        while self.acked < len(self._records):
            while sent < len(self._records) and sent - self.acked <= PUSH:
                self._client.send(wire.encode(Push(D, S, sent + 1, tuple(self._records[sent : sent + PUSH]))))
                sent += PUSH
            answer = hear(self._client)
            assert isinstance(answer, Ack), answer
            self.acked += answer.count

    def __enter__(self) -> Flood:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.join()


def test_a_connection_that_fills_the_check_has_a_turn_like_all_others(tmp_path: Path) -> None:
    """While it sends as much as it may, others are served again and again."""
    records = edits(PUSH * PUSHES, 40)
    with RelayThread(tmp_path) as relay, native(relay.url, D) as client, Bystander(relay.url, E) as bystander:
        wait_for(bystander, 3)
        with Flood(client, records) as flood:
            served = wait_for(bystander, 20, lambda: flood.acked == len(records))
            assert served >= 20 and flood.acked < len(records)


def count(relay: RelayThread, name: str) -> float:
    """One of a relay's counters."""
    with urlopen(relay.url.replace("ws", "http", 1) + "/metrics") as answer:
        (line,) = [line for line in answer.read().decode().splitlines() if line.startswith(f"llmcrdt_relay_{name} ")]
    return float(line.split()[-1])


@pytest.mark.parametrize(
    ("heavy", "workers_lost"), [(Limits().check_heavy, 1), (1_000.0, 2)], ids=["told beforehand", "not told"]
)
def test_a_record_that_takes_long_is_tried_once_where_it_holds_up_nobody(
    tmp_path: Path, heavy: float, workers_lost: int
) -> None:
    """Also where the estimate misses it: then the quick worker is ended over it first."""
    limits = Limits(check_heavy=heavy, check_seconds=1.0)
    with (
        RelayThread(tmp_path, limits=limits) as relay,
        native(relay.url, D) as client,
        Bystander(relay.url, E) as bystander,
    ):
        assert isinstance(ask(client, Push(D, S, 1, (text(8_000),))), Ack)
        wait_for(bystander, 3)
        before = bystander.read
        refused = ask(client, Push(D, S, 2, (far_apart(8_000),)))
        assert isinstance(refused, Error) and (refused.code, refused.n) == (ErrorCode.BAD_RECORD, 2)
        assert bystander.read - before >= 20, "it took a second, and he goes on all the time"
        assert count(relay, "keeper_restarts_total") == workers_lost
        good = ask(client, Push(D, S, 2, (edits(1)[0],)))
        assert isinstance(good, Ack), "its document goes on"
