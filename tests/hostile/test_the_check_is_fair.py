"""A client that fills the check with work holds up nobody else."""

from __future__ import annotations

import time
from pathlib import Path
from statistics import median
from urllib.request import Request, urlopen

import pytest

from llmcrdt.ids import document_id
from llmcrdt.sync.messages import Ack, Error, ErrorCode, Push
from llmcrdt.varint import write_uint
from sync_server.core.limits import Limits
from sync_server.thread import RelayThread

from ..sync_server.core.test_validation import ask, edits, native, start
from ..sync_server.yjs_peers import Bare
from .bystander import Bystander, wait_for
from .updates import far_apart, text

D, E, S = b"d" * 16, b"e" * 16, b"s" * 16
UPDATES = 20_000


def test_a_connection_that_fills_the_check_has_a_turn_like_all_others(tmp_path: Path) -> None:
    """At the Yjs door, which has no acks to wait for, it always has as much under way as its window takes."""
    updates = [b"\x00\x02" + write_uint(len(made)) + made for made in edits(UPDATES, 5)]
    child, url = start(tmp_path)
    try:
        with Bystander(url, E) as bystander, Bare(url, document_id(D)) as page:
            page.sync()
            wait_for(bystander, 3)
            before = bystander.read
            page.send(*updates)
            page.sync()
            assert bystander.read - before >= 20, "before the last of them was looked at"
    finally:
        child.terminate()
        child.communicate()


def count(relay: RelayThread, name: str, token: str = "") -> float:
    """One of a relay's counters."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    with urlopen(Request(relay.url.replace("ws", "http", 1) + "/metrics", headers=headers)) as answer:
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
        wait_for(bystander, 10)
        before, usual, began = bystander.read, median(bystander.times), time.monotonic()
        refused = ask(client, Push(D, S, 2, (far_apart(8_000),)))
        assert isinstance(refused, Error) and (refused.code, refused.n) == (ErrorCode.BAD_RECORD, 2)
        # On a machine where he isn't read so often in a second: as often as a tenth of that time allows.
        often = min(20, (time.monotonic() - began) / usual / 10)
        assert bystander.read - before >= often, "it took a second, and he goes on all the time"
        assert count(relay, "keeper_restarts_total") == workers_lost
        good = ask(client, Push(D, S, 2, (edits(1)[0],)))
        assert isinstance(good, Ack), "its document goes on"
