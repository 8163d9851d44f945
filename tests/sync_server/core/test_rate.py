"""How fast a client may send."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.sync.client import connect
from websockets.typing import Subprotocol

from llmcrdt.sync import codec
from llmcrdt.sync.messages import PATH, SUBPROTOCOL, Ack, Hello, Open, Opened, Push
from sync_server.core.limits import Limits
from sync_server.core.rate import Rate
from sync_server.thread import RelayThread


@given(st.integers(1, 1000), st.integers(1, 1000), st.lists(st.tuples(st.integers(1, 500), st.floats(0, 10))))
def test_who_obeys_the_pauses_never_sends_more_than_rate_and_burst(
    rate: int, burst: int, sends: list[tuple[int, float]]
) -> None:
    bucket, now, total = Rate(rate, burst), 0.0, 0
    for size, rest in sends:
        now += rest
        total += size
        pause = bucket.pause(size, now)
        assert pause >= 0
        now += pause
        assert total <= burst + rate * now + 1e-6 * total


@given(st.integers(1, 1000), st.integers(1, 1000))
def test_nobody_waits_who_is_slower_than_the_rate(rate: int, size: int) -> None:
    bucket = Rate(rate, max(rate, size))
    assert not any(bucket.pause(size, n * size / rate * 1.001) for n in range(20))


def test_a_relay_reads_no_faster_than_the_rate(tmp_path: Path) -> None:
    document, session = b"d" * 16, b"s" * 16
    limits = Limits(rate=100_000, burst=100_000)
    with (
        RelayThread(tmp_path, limits=limits) as relay,
        connect(relay.url + PATH, subprotocols=[Subprotocol(SUBPROTOCOL)], proxy=None) as client,
    ):
        for message in (Hello(), Open(document, "sealed")):
            client.send(codec.encode(message))
        while not isinstance(codec.decode(client.recv(timeout=20)), Opened):  # type: ignore[arg-type]
            pass  # before WELCOME no large frame is taken
        began = time.monotonic()
        for n in range(1, 16):
            client.send(codec.encode(Push(document, session, n, (bytes([n]) * 10_000,))))
        acked = 0
        while acked < 15:
            message = codec.decode(client.recv(timeout=20))  # type: ignore[arg-type]
            acked += message.count if isinstance(message, Ack) else 0
        # 150,000 bytes, of which the burst takes two thirds. Faster can't be; how much slower says nothing.
        assert time.monotonic() - began > 0.45


@pytest.mark.parametrize("wrong", [{"rate": 0}, {"rate": 10, "burst": 9}])
def test_limits_that_can_not_be(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError):
        Limits(**wrong)
