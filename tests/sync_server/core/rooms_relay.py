"""Rooms over a log in SQLite, and what each peer was sent: for the tests of the rooms' parts."""

from __future__ import annotations

import random
from pathlib import Path

from llmcrdt.sync.messages import Cursor, Error, Message, Open, Opened, Push
from sync_server.core.events import Drop, Event, Joined, Output, Sent
from sync_server.core.limits import Limits
from sync_server.core.rooms import Rooms
from sync_server.core.validation import Received
from sync_server.log.sqlite import SqliteStorage

D, E, S, T = b"d" * 16, b"e" * 16, b"s" * 16, b"t" * 16


class Relay:
    """Rooms, with what each peer was sent."""

    def __init__(self, folder: Path, **limits: int) -> None:
        self.log = SqliteStorage(folder / "relay.db")
        self.rooms = Rooms(self.log, Limits(**limits), random.Random(1).randbytes)
        self.inbox: dict[int, list[Message]] = {}
        self.weights: dict[int, int] = {}
        self.dropped: dict[int, Error] = {}

    def join(self, *peers: int) -> None:
        self.step(*(Joined(peer) for peer in peers))

    def step(self, *events: Event) -> list[Output]:
        outputs = self.rooms.step(events)
        for output in outputs:
            if isinstance(output, Drop):
                self.dropped[output.peer] = output.error
                continue
            for peer in output.peers:
                self.inbox.setdefault(peer, []).append(output.message)
                self.weights[peer] = self.weights.get(peer, 0) + output.weight
        return outputs

    def say(self, peer: int, *messages: Message) -> list[Message]:
        """One step with these messages; what the peer got in it."""
        self.inbox[peer] = []
        self.step(*(Received(peer, m) for m in messages))
        return self.inbox[peer]

    def got(self, peer: int) -> list[Message]:
        return self.inbox.pop(peer, [])

    def sent(self, *peers: int) -> None:
        """All that was queued to these peers has left."""
        self.step(*(Sent(peer, self.weights.pop(peer, 0)) for peer in peers))


def push(*data: bytes, n: int = 1, session: bytes = S, document: bytes = D) -> Push:
    return Push(document, session, n, data)


def opened(relay: Relay, peer: int, document: bytes = D, cursor: Cursor | None = None) -> Opened:
    (message, *_) = relay.say(peer, Open(document, "yjs", cursor))
    assert isinstance(message, Opened)
    return message


def end(relay: Relay, document: bytes = D) -> Cursor:
    head = relay.log.records.head(document)
    assert head
    return head.cursor
