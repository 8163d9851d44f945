"""The outputs of a step of the rooms go to the connections that it is for, in the protocol of each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

from llmcrdt.sync.messages import Ack

from .admin.metrics import Metrics
from .answers import Answers
from .connections import Connections, Encoded, encode
from .core.events import Drop, Send
from .core.validation import DiffResponse
from .net.connection import Connection
from .net.outgoing import Outgoing
from .workers.scheduler import Order

Frames: TypeAlias = dict[str, Encoded]
"""A message in each protocol that one of its peers speaks."""


class Step(NamedTuple):
    """The work that a step of the rooms leaves: orders for the validator, sizes of messages that were dealt with, by
    peer, and messages with their frames. ``counts`` and ``times`` are for the metrics."""

    orders: Sequence[Order]
    taken: Sequence[tuple[int, int]]
    messages: Sequence[tuple[Drop | Send, Frames]]
    counts: dict[str, float]
    times: dict[str, float]


class Dispatch:
    """``frames`` is called where a step is taken, on the loop or on a thread, never both at once; ``dispatch`` on the
    loop."""

    def __init__(self, connections: Connections, metrics: Metrics, answers: Answers) -> None:
        self._connections, self._metrics, self._answers = connections, metrics, answers
        # The last answer to a question that many may ask, and its frames.
        self._answered: tuple[DiffResponse, Frames] | None = None

    def frames(self, output: Drop | Send) -> Frames:
        """The frames of a message; none for Drop."""
        if isinstance(output, Drop):
            return {}
        message, by_peer = output.message, self._connections.by_peer
        frames: Frames = {}
        if isinstance(message, DiffResponse):
            # Many get the same answer when they all come back at once.
            if self._answered is None or self._answered[0] != message:
                self._answered = message, frames
            frames = self._answered[1]
        for peer in output.peers:
            connection = by_peer.get(peer)
            if connection is not None and connection.door.protocol not in frames:
                frames[connection.door.protocol] = encode(connection.door, message)
        return frames

    def forget(self) -> None:
        """Hold no answer that nobody waits for. Not while a step is taken."""
        self._answered = None

    def dispatch(self, step: Step) -> None:
        """Send the messages of a step, in order, and let connections read on whose messages were dealt with."""
        self._metrics.note_step(step.counts, step.times)
        by_peer, each = self._connections.by_peer, self._connections.each
        for output, frames in step.messages:
            if isinstance(output, Drop):
                if connection := by_peer.get(output.peer):
                    each((connection,), self._connections.end, output.error)
            else:
                self._send(output, frames)
        taken: dict[int, int] = {}
        for peer, size in step.taken:
            taken[peer] = taken.get(peer, 0) + size
        for peer, size in taken.items():
            self._answers.dealt_with(peer)
            if connection := by_peer.get(peer):
                each((connection,), Connection.end_work, size)

    def _send(self, output: Send, frames: Frames) -> None:
        message, by_peer = output.message, self._connections.by_peer
        if isinstance(message, Ack):
            self._metrics.count("records_acknowledged_total", message.count)
        connections = [c for peer in output.peers if (c := by_peer.get(peer))]
        if isinstance(message, DiffResponse):
            self._connections.each(connections, self._ask_back, message)
            for out in frames.values():
                if isinstance(out, Outgoing):
                    self._answers.answered(connections, message.document, out)
        for protocol, out in frames.items():
            same = connections if len(frames) == 1 else [c for c in connections if c.door.protocol == protocol]
            self._connections.send_encoded(same, message, out, output.weight)
        self._connections.report_all(connections)

    def _ask_back(self, connection: Connection, answer: DiffResponse) -> None:
        question = connection.door.ask_back(answer)
        if question is not None:
            self._connections.send([connection], Outgoing(question), 0)
