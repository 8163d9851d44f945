"""A fault at one connection of a relay ends that one, and is kept from all others."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection

from llmcrdt.ids import document_id
from llmcrdt.sync import codec
from llmcrdt.sync.messages import Ack, Push, Record, Records
from sync_server.connections import Connections
from sync_server.doors.yjs import YjsDoor
from sync_server.net.connection import Connection
from sync_server.net.outgoing import FrameWriter
from sync_server.server import Relay
from sync_server.thread import RelayThread

from ..waiting import eventually
from .core.test_validation import ask, edits, hear, native
from .yjs_peers import Bare, texts

D, E, S, T = b"d" * 16, b"e" * 16, b"s" * 16, b"t" * 16


@pytest.fixture
def relays(monkeypatch: pytest.MonkeyPatch) -> list[Relay]:
    made, init = list[Relay](), Relay.__init__

    def noting(self: Relay, *arguments: Any, **options: Any) -> None:
        made.append(self)
        init(self, *arguments, **options)

    monkeypatch.setattr(Relay, "__init__", noting)
    return made


@pytest.fixture
def relay(relays: list[Relay], tmp_path: Path) -> Iterator[RelayThread]:
    with RelayThread(tmp_path) as relay:
        yield relay


def breaking(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, broken: Callable[[Any], bool]) -> None:
    """From now on a method raises for some."""
    real = getattr(owner, name)

    def act(*arguments: Any) -> Any:
        if any(map(broken, arguments)):
            raise RuntimeError("as a defect would")
        return real(*arguments)

    monkeypatch.setattr(owner, name, act)


def numbers(relay: Relay, count: int) -> list[int]:
    return eventually(lambda: sorted(relay._connections.by_peer), lambda found: len(found) == count)


def is_closed(client: ClientConnection) -> bool:
    with pytest.raises(ConnectionClosed) as closed:
        while True:
            client.recv(timeout=10)
    assert closed.value.rcvd is not None
    return closed.value.rcvd.code == 1011


@pytest.mark.parametrize(
    ("owner", "name"), [(Connection, "send"), (FrameWriter, "write"), (Connections, "report"), (Connection, "end_work")]
)
def test_all_others_are_told_and_may_go_on(
    relay: RelayThread, relays: list[Relay], monkeypatch: pytest.MonkeyPatch, owner: Any, name: str
) -> None:
    one, two, three = edits(3)
    with native(relay.url, D) as first, native(relay.url, D) as second, native(relay.url, D) as third:
        broken = numbers(relays[0], 3)[0]

        def is_broken(it: Any) -> bool:
            if isinstance(it, FrameWriter):
                return it is relays[0]._connections.by_peer[broken].socket.writer
            return isinstance(it, Connection) and it.peer == broken

        breaking(monkeypatch, owner, name, is_broken)
        # The broken one's words come in the same step as those of others, and are dealt with before.
        first.send(codec.encode(Push(D, S, 1, (one,))))
        assert ask(second, Push(D, T, 1, (two,))) in (Ack(D, T, 1, 1, 1), Records(D, 1, (Record(S, 1, one),)))
        assert is_closed(first)
        numbers(relays[0], 2)
        seen = 0
        while seen < 2:
            message = hear(third)
            assert isinstance(message, Records)
            seen += len(message.records)
        monkeypatch.undo()
        with native(relay.url, D) as again:
            again.send(codec.encode(Push(D, S, 2, (three,))))
            assert isinstance(hear(third), Records)
    assert not relays[0].failed.is_set()


def test_clients_of_the_other_door_are_kept_apart_too(
    relay: RelayThread, relays: list[Relay], monkeypatch: pytest.MonkeyPatch
) -> None:
    name, (one, two) = document_id(D), edits(2)
    with Bare(relay.url, name) as first, native(relay.url, D) as writer:
        first.sync()
        broken = numbers(relays[0], 2)[0]
        door = relays[0]._connections.by_peer[broken].door
        breaking(monkeypatch, YjsDoor, "ask_back", lambda it: it is door)
        breaking(monkeypatch, Connection, "send", lambda it: isinstance(it, Connection) and it.peer == broken)
        assert ask(writer, Push(D, S, 1, (one,))) == Ack(D, S, 1, 1, 1)
        assert first.close_code() == 1011
        with Bare(relay.url, name) as second:
            assert texts(second.sync()) == texts(one)
            assert ask(writer, Push(D, S, 2, (two,))) == Ack(D, S, 2, 1, 2)
            assert texts(second.hear().update) == texts(two)
