"""A flood holds up nobody but its sender. Of each flood that costs nothing to send, a little; ``make hostile``
runs all of them for longer, and measures."""

from __future__ import annotations

import asyncio
import logging
import random
import socket
import sys
import time
from collections import Counter, deque
from contextlib import ExitStack
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.sync.client import ClientConnection

from llmcrdt.sync.messages import Delete, Fold, Hello, Open, Presence, Welcome
from sync_server import server
from sync_server.auth.tokens import Tokens
from sync_server.core.events import Event, Greeted, Joined, Sent, Tick
from sync_server.core.limits import Limits
from sync_server.core.price import price
from sync_server.core.validation import Left, Received
from sync_server.event_queue import EventQueue
from sync_server.log_lines import PAUSE, Seldom
from sync_server.net.large import HUGE, SMALL, LargeRoom
from sync_server.net.strangers import Strangers
from sync_server.net.turns import SocketTurns
from sync_server.thread import RelayThread

from ..sync_server.core.test_limits import connected
from ..sync_server.core.test_validation import ask
from .attacks import FLOODS, run
from .bystander import Bystander, wait_for
from .soak import relay

D, E = b"d" * 16, b"e" * 16


@pytest.mark.skipif(sys.platform == "win32", reason="a socket is no file there")
@pytest.mark.parametrize("name", FLOODS)
def test_a_flood_holds_up_nobody_else(name: str) -> None:
    """It goes on until he has been read ten times more. Each fault has a line in the log, whoever brings it about."""
    with relay() as (_, url, log), Bystander(url, E) as bystander:
        wait_for(bystander, 3)
        before, began = bystander.read, time.monotonic()
        sent, _ = run(name, int(url.rsplit(":", 1)[1]), 60, lambda: bystander.read >= before + 10)
        assert bystander.read >= before + 10, "he waits"
        assert sent
        lines = Counter(line[24:] for line in log.read_text().splitlines())
        minutes = 1 + int((time.monotonic() - began) // PAUSE)
        assert all(number <= minutes for number in lines.values()), lines


def test_who_has_not_said_who_it_is_takes_nobody_s_place(tmp_path: Path) -> None:
    token = Tokens(tmp_path).make("ann", "append", ["*"])
    limits = Limits(connections=10, strangers=20)
    with RelayThread(tmp_path, limits=limits) as relay, ExitStack() as stack:
        first = stack.enter_context(connected(relay.url))
        assert isinstance(ask(first, Hello("t", token.encode())), Welcome)
        silent = []
        for n in range(60):
            if n % 2:
                silent.append(stack.enter_context(socket.create_connection(("127.0.0.1", relay.port), timeout=20)))
            else:
                stack.enter_context(connected(relay.url))
        for _ in range(9):
            client = stack.enter_context(connected(relay.url))
            assert isinstance(ask(client, Hello("t", token.encode())), Welcome)
        assert silent[0].recv(1) == b"", "the oldest gave way"
        assert isinstance(first, ClientConnection) and first.ping().wait(20)


def test_package_metadata_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read, known = [], server.version
    monkeypatch.setattr(server, "version", lambda name: read.append(name) or known(name))
    with RelayThread(tmp_path) as relay:
        for _ in range(3):
            with connected(relay.url) as client:
                assert isinstance(ask(client, Hello("t")), Welcome)
    assert read == ["llmcrdt"]


# ---------------------------------------------------------------- prices and turns


def test_what_costs_a_relay_more_has_a_higher_price() -> None:
    limits = Limits()
    cheap = price(None, limits)
    assert 0 < cheap < price(Open(D, "yjs"), limits) < price(Fold(D), limits) == price(Delete(D), limits)
    assert price(Presence(D, ()), limits) > cheap
    # No more than these wait for a step, of one connection: a few milliseconds of work.
    assert limits.window // price(Fold(D), limits) <= 16 and limits.window // price(Open(D, "yjs"), limits) <= 256


events = st.lists(
    st.one_of(
        st.builds(Joined, st.integers(1, 4)),
        st.builds(Greeted, st.integers(1, 4), st.just(0)),
        st.builds(Left, st.integers(1, 4)),
        st.builds(Received, st.integers(1, 4), st.just(Fold(D)), st.sampled_from([0, 100, 10_000, 1 << 20])),
        st.builds(Sent, st.integers(1, 4), st.integers(1, 9)),
        st.just(Tick()),
    ),
    max_size=60,
)


@given(events, st.integers(1, 8))
def test_what_a_peer_says_keeps_its_order_and_nothing_is_lost(put: list[Event], group: int) -> None:
    queue, taken = EventQueue(Limits(group=group)), []
    for event in put:
        queue.put(event)
    while queue:
        step = queue.take()
        assert 1 <= len(step) <= group
        taken += step

    def of(found: list[Event], peer: int) -> list[Event]:
        return [e for e in found if isinstance(e, Joined | Greeted | Received | Left) and e.peer == peer]

    assert len(taken) == len(put) and all(of(taken, peer) == of(put, peer) for peer in range(1, 5))


def test_a_peer_with_one_message_is_in_the_first_step_whatever_others_have() -> None:
    queue = EventQueue(Limits())
    for _ in range(1000):
        queue.put(Received(1, Fold(D), 64 << 10))
    queue.put(Received(2, Fold(E), 300))
    step = queue.take()
    assert any(event.peer == 2 for event in step) and len(step) < 10  # type: ignore[union-attr]


class Spinner:
    def __init__(self, turns: SocketTurns, source: object, noted: list[object]) -> None:
        self.source, self._turns, self._noted = source, turns, noted

    def work(self) -> None:
        self._noted.append(self.source)
        if len(self._noted) < 600:
            self._turns.add(self)


def test_sources_have_turns_whatever_number_of_sockets_they_have() -> None:
    async def spin() -> list[object]:
        turns, noted = SocketTurns(), list[object]()
        for _ in range(50):
            turns.add(Spinner(turns, "many", noted))
        turns.add(Spinner(turns, "one", noted))
        while len(noted) < 600:
            await asyncio.sleep(0)
        return noted

    noted = asyncio.run(spin())
    assert noted.count("one") >= 250


# ---------------------------------------------------------------- room


class Frames:
    """A connection that wants room for one frame after the other."""

    def __init__(self, room: LargeRoom) -> None:
        self.room, self.heard, self.gone, self.told = room, 0, False, 0

    def room_freed(self) -> None:
        self.told += 1

    def give_way(self) -> None:
        self.gone = True
        self.room.leave(self)


@given(st.integers(0, 1 << 32))
def test_large_frames_never_take_more_than_their_room_and_each_gets_it_at_last(seed: int) -> None:
    rng, most = random.Random(seed), 32 << 20
    room = LargeRoom(most)
    clients = [Frames(room) for _ in range(12)]
    sizes = [100, SMALL + 1, 4 << 20, HUGE, HUGE + 1, 60 << 20]
    wanted = {client: deque(rng.choice(sizes) for _ in range(5)) for client in clients}
    held: dict[Frames, int] = {}
    for step in range(20_000):
        if not any(wanted.values()):
            break
        client = rng.choice(clients)
        if client in held and rng.random() < 0.5:
            room.keep(client, 0)
            del held[client]
        elif wanted[client] and client not in held and room.ask(client, wanted[client][0], step):
            held[client] = wanted[client].popleft()
            small, huge = ([s for s in held.values() if s > SMALL and (s > HUGE) is kind] for kind in (False, True))
            assert all(sum(found) <= most // 2 or len(found) == 1 for found in (small, huge))
    assert not any(wanted.values()), "somebody waits for ever"
    for client in clients:
        room.leave(client)
    assert room.held == 0


def test_who_begins_a_large_frame_and_stops_gives_way_to_those_who_wait() -> None:
    room = LargeRoom(32 << 20)
    slow, other = Frames(room), Frames(room)
    assert room.ask(slow, 60 << 20, 0.0) and not room.ask(other, 60 << 20, 1.0)
    slow.heard = 1 << 20
    room.evict_slow(9.0)
    assert not slow.gone
    room.evict_slow(40.0)
    assert slow.gone and other.told and room.ask(other, 60 << 20, 41.0)
    room.evict_slow(1000.0)
    assert not other.gone, "nobody waits"


def test_strangers_give_way_oldest_first() -> None:
    strangers = Strangers(3)

    class Stranger:
        gone = False

        def give_way(self) -> None:
            self.gone = True

    came = [Stranger() for _ in range(6)]
    for stranger in came[:4]:
        strangers.add(stranger)
    strangers.remove(came[1])
    for stranger in came[4:]:
        strangers.add(stranger)
    assert [stranger.gone for stranger in came] == [True, False, True, False, False, False] and len(strangers) == 3


def test_a_fault_is_logged_once_a_minute_with_how_often_it_was(caplog: pytest.LogCaptureFixture) -> None:
    now = 0.0
    logger = logging.getLogger("tests.hostile.seldom")
    seldom = Seldom(lambda: now)
    logger.addFilter(seldom)
    try:
        for n in range(100):
            logger.warning("document %d is bad", n)
        logger.warning("another fault")
        now = PAUSE
        logger.warning("document %d is bad", 100)
    finally:
        logger.removeFilter(seldom)
    found = [record.getMessage() for record in caplog.records]
    assert found == ["document 0 is bad", "another fault", "document 100 is bad (and 99 times more)"]
