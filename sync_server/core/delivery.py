"""Sends readers what the log has for them: records, snapshots, and acks in the place of their own records."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial

from llmcrdt.sync.messages import MAX_RECORDS, Ack, Error, ErrorCode, Message, Presence, Reached, Records, Snapshot

from ..log.admin import Part, Storage, StoredSnapshot
from ..log.base import Stored
from .appender import acks
from .catch_up import CatchUp, CatchUpSnapshot
from .events import CONTROL_WEIGHT, CatchUpRequest, CatchUpResult, Output, Send
from .limits import Limits
from .presence import Update
from .subscriptions import PeerState, Room, Subscription, Subscriptions
from .validation import Peer, Updates

Waiter = tuple[Peer, Subscription]


class Delivery:
    """The outputs of a step, and the queues of peers. ``drop`` ends a peer's connection.

    Invariants:

    1. A reader is sent positions in order and without holes: each as a record, as an ack of its own record, or within a
       snapshot.
    2. A reader whose queue is full (``Limits.outgoing``) is sent nothing of a log; it is read to later, from the log.
    3. Readers take turns: one piece of one document each.
    4. A barrier is answered after all that its documents had when it came.
    """

    def __init__(
        self,
        storage: Storage,
        limits: Limits,
        subscriptions: Subscriptions,
        catch_up: CatchUp[Waiter],
        drop: Callable[[Peer, Error], None],
    ) -> None:
        self._storage, self._limits, self._subscriptions = storage, limits, subscriptions
        self._catch_up, self._drop = catch_up, drop
        self._asking: set[Peer] = set()
        self.outputs: list[Output] = []

    # ---------------------------------------------------------------- queues

    def send(self, peer: Peer, message: Message) -> None:
        self._subscriptions.peers[peer].outstanding += CONTROL_WEIGHT
        self.outputs.append(Send((peer,), message, CONTROL_WEIGHT))

    def send_heavy(self, peers: Sequence[Peer], output: Send) -> None:
        """A message of some weight, which counts in the queue of each."""
        for peer in peers:
            self._subscriptions.peers[peer].outstanding += output.weight
        self.outputs.append(output)

    def refuse(
        self, peer: Peer, code: ErrorCode, text: str, document: bytes, session: bytes | None = None, n: int = 0
    ) -> None:
        self.send(peer, Error(code, text, document, session, n))

    def tell_presence(self, updates: Iterable[Update]) -> None:
        for peers, document, entries in updates:
            weight = CONTROL_WEIGHT + sum(len(entry.state) + 16 for entry in entries)
            self.send_heavy(peers, Send(peers, Presence(document, entries), weight))

    def drain(self, peer: Peer, weight: int) -> bool:
        """``weight`` of a peer's queue has left. Whether the queue has room now."""
        state = self._subscriptions.peers.get(peer)
        if state is None:
            return False
        state.outstanding -= weight
        return state.outstanding < self._limits.outgoing

    def is_full(self, peer: Peer) -> bool:
        return self._subscriptions.peers[peer].outstanding >= self._limits.outgoing

    @property
    def has_more(self) -> bool:
        """Whether somebody lags and its queue has room."""
        peers = self._subscriptions.peers
        return any(peers[peer].outstanding < self._limits.outgoing for peer, _ in self._subscriptions.lagging)

    # ---------------------------------------------------------------- barriers

    def add_barrier(self, peer: Peer, number: int) -> None:
        state, rooms = self._subscriptions.peers[peer], self._subscriptions.rooms
        if len(state.barriers) >= self._limits.barriers:
            text = f"At most {self._limits.barriers} barriers."
            return self._drop(peer, Error(ErrorCode.WINDOW_EXCEEDED, text))
        ends = ((d, s.sent, rooms[d].head.position) for d, s in state.subscriptions.items())
        state.barriers.append((number, {d: end for d, sent, end in ends if sent < end}))
        self._asking.add(peer)

    def answer_barriers(self) -> None:
        for peer in tuple(self._asking):
            state = self._subscriptions.peers[peer]
            while state.barriers and self._is_reached(state, state.barriers[0][1]):
                self.send(peer, Reached(state.barriers.pop(0)[0]))
            if not state.barriers:
                self._asking.discard(peer)

    def leave(self, peer: Peer) -> None:
        """A peer is gone, and its barriers with it."""
        self._asking.discard(peer)

    def _is_reached(self, state: PeerState, ends: dict[bytes, int]) -> bool:
        for document in tuple(ends):
            subscription = state.subscriptions.get(document)
            if subscription is not None and subscription.sent < ends[document]:
                return False
            del ends[document]
        return True

    # ---------------------------------------------------------------- turns

    def deliver(self, recent: dict[bytes, list[Stored]]) -> None:
        """One piece of log to every reader that lags and has room in its queue. ``recent``: records of this step, by
        document. Raises LogError."""
        subscriptions, limit = self._subscriptions, self._limits.outgoing
        subscriptions.mark_all_lagging(recent)
        parts: dict[tuple[bytes, int], Part] = {}
        pieces: dict[tuple[bytes, int], Sequence[Stored]] = {}
        weights: dict[tuple[bytes, int], int] = {}
        together: dict[tuple[bytes, int, bytes], list[Peer]] = {}
        for peer, document in tuple(subscriptions.lagging):
            state = subscriptions.peers.get(peer)
            if state is None or state.outstanding >= limit:
                continue
            # To the end of the line, so that one long log doesn't hold up the others.
            del subscriptions.lagging[peer, document]
            subscription, room = state.subscriptions[document], subscriptions.rooms[document]
            if subscription.follows and room.snapshot is None:
                pass  # nearly all: nothing but records is for it
            elif self._send_snapshot(peer, document, subscription, room, parts):
                continue
            start = (document, subscription.sent)
            piece = pieces.get(start)
            if piece is None:
                piece = pieces[start] = self._piece(document, subscription.sent, recent.get(document))
            if not piece:
                continue
            subscription.sent = piece[-1].position
            marked = subscription.updates_only and room.mark[0] == subscription.sent
            mark = room.mark[1] if marked else b""
            if subscription.own.count:
                self._send_mixed(peer, document, subscription, piece, mark)
            else:
                if start not in weights:
                    weights[start] = _weight(piece)
                state.outstanding += weights[start]
                together.setdefault((*start, mark), []).append(peer)
            if subscription.sent < room.head.position:
                subscriptions.lagging[peer, document] = None
        for (document, sent, mark), peers in together.items():
            self._send_records(peers, document, pieces[document, sent], weights[document, sent], mark)

    def _piece(self, document: bytes, after: int, recent: list[Stored] | None) -> Sequence[Stored]:
        """The log after a position, one message long; from memory where it was appended just now."""
        if not recent or recent[0].position > after + 1:
            return self._storage.records.read(document, after, self._limits.batch, MAX_RECORDS)
        start = end = after + 1 - recent[0].position
        size, most = 0, recent[start : start + MAX_RECORDS]
        if sum([len(stored.record.data) for stored in most]) <= self._limits.batch:
            return most
        while end < len(recent) and end - start < MAX_RECORDS:
            size += len(recent[end].record.data)
            if end > start and size > self._limits.batch:
                break
            end += 1
        return recent[start:end]

    def _send_mixed(
        self, peer: Peer, document: bytes, subscription: Subscription, piece: Sequence[Stored], mark: bytes
    ) -> None:
        """A piece that holds records of the peer itself: it gets acks for those, the rest as records, in order. With a
        mark, which says as much as acks, the rest comes as one."""
        state, first, at = self._subscriptions.peers[peer], piece[0].position, 0
        own = subscription.own.take(first, piece[-1].position + 1)
        if mark:
            state.unacked -= sum(run.length for run in own)
            mine = {run.position + n for run in own for n in range(run.length)}
            rest = [stored for stored in piece if stored.position not in mine]
            weight = _weight(rest)
            state.outstanding += weight
            return self._send_records([peer], document, rest, weight, mark)
        for run in own:
            self._send_others(peer, document, piece[at : run.position - first])
            state.unacked -= run.length
            self.send(peer, Ack(document, run.session, run.n, run.length, run.position))
            at = run.position - first + run.length
        self._send_others(peer, document, piece[at:])

    def _send_others(self, peer: Peer, document: bytes, piece: Sequence[Stored]) -> None:
        if piece:
            weight = _weight(piece)
            self._subscriptions.peers[peer].outstanding += weight
            self._send_records([peer], document, piece, weight)

    def _send_records(
        self, peers: Sequence[Peer], document: bytes, piece: Sequence[Stored], weight: int, mark: bytes = b""
    ) -> None:
        records = tuple([s.record for s in piece])
        message = Updates(document, records, mark) if mark else Records(document, piece[0].position, records)
        self.outputs.append(Send(peers, message, weight))

    # ---------------------------------------------------------------- snapshots

    def _send_snapshot(
        self,
        peer: Peer,
        document: bytes,
        subscription: Subscription,
        room: Room,
        parts: dict[tuple[bytes, int], Part],
    ) -> bool:
        """The next part of a snapshot, where one stands for the records that come next, or is still to come. Whether
        that is so."""
        if room.snapshot is not None and room.covers(subscription.sent):
            if subscription.updates_only:
                self._drop(peer, Error(ErrorCode.TOO_SLOW, "It fell behind what the log still has; connect again."))
                return True
            subscription.catch_up, subscription.awaits_catch_up = None, False
            self._send_part(peer, document, subscription, room.snapshot, partial(self._part, document, parts))
        elif self._awaits_catch_up(peer, document, subscription, room):
            return True
        elif subscription.catch_up is not None:
            found = subscription.catch_up
            self._send_part(peer, document, subscription, found.snapshot, found.parts.__getitem__)
        else:
            return False
        if subscription.sent < room.head.position:
            self._subscriptions.lagging[peer, document] = None
        return True

    def _awaits_catch_up(self, peer: Peer, document: bytes, subscription: Subscription, room: Room) -> bool:
        """Whether a catch-up snapshot is still to come; it is asked for here."""
        if (
            subscription.catch_up is None
            and not subscription.awaits_catch_up
            and subscription.sent < subscription.catch_up_to
        ):
            waiter, upto = (peer, subscription), subscription.catch_up_to
            found = self._catch_up.find(waiter, document, room.kind, subscription.sent, upto)
            if isinstance(found, CatchUpRequest):
                self.outputs.append(found)
            if isinstance(found, CatchUpSnapshot):
                subscription.catch_up = found
            elif found:
                subscription.awaits_catch_up = True
            else:
                subscription.catch_up_to = 0
        return subscription.awaits_catch_up

    def end_wait(self, result: CatchUpResult) -> None:
        """Readers that waited for it go on, with the catch-up snapshot or with the records."""
        waiting, found = self._catch_up.handle_result(result)
        for peer, subscription in waiting:
            state = self._subscriptions.peers.get(peer)
            # It may have opened the document anew, or have got a snapshot and asked again.
            there = state is not None and state.subscriptions.get(result.document) is subscription
            if there and subscription.awaits_catch_up and subscription.sent == result.after:
                subscription.awaits_catch_up, subscription.catch_up = False, found
                subscription.catch_up_to = subscription.catch_up_to if found else 0
                self._subscriptions.lagging[peer, result.document] = None

    def _part(self, document: bytes, parts: dict[tuple[bytes, int], Part], index: int) -> Part:
        """A part of the stored snapshot, read once for all who get it in this step."""
        part = parts[document, index] = parts.get((document, index)) or self._storage.snapshots.part(document, index)
        return part

    def _send_part(
        self,
        peer: Peer,
        document: bytes,
        subscription: Subscription,
        snapshot: StoredSnapshot,
        part_at: Callable[[int], Part],
    ) -> None:
        """The next part of a snapshot."""
        session, index = subscription.part
        if session != snapshot.session:
            index = 0
        part = part_at(index)
        message = Snapshot(
            document,
            snapshot.position,
            snapshot.chain,
            snapshot.session,
            part.n,
            part.of,
            part.size,
            part.offset,
            part.data,
        )
        self.send_heavy((peer,), Send((peer,), message, CONTROL_WEIGHT + len(part.data)))
        subscription.part = (snapshot.session, index + 1)
        if index + 1 == snapshot.parts:
            self._end_snapshot(peer, document, subscription, snapshot)

    def _end_snapshot(self, peer: Peer, document: bytes, subscription: Subscription, snapshot: StoredSnapshot) -> None:
        """After the last part: acks for what the peer pushed and the snapshot stands for."""
        subscription.sent = snapshot.position
        subscription.catch_up = None
        own = subscription.own.take(0, snapshot.position + 1)
        compacted = [
            (min(i, snapshot.position), session, n) for i, (session, n) in enumerate(subscription.own_compacted, 1)
        ]
        subscription.own_compacted = []
        self._subscriptions.peers[peer].unacked -= sum(run.length for run in own) + len(compacted)
        for run in own:
            self.send(peer, Ack(document, run.session, run.n, run.length, run.position))
        for ack in acks(document, compacted):
            self.send(peer, ack)


def storage_error(limits: Limits, text: str = "The relay can't use its storage.") -> Error:
    return Error(ErrorCode.STORAGE, text, retry_after=int(limits.retry_after * 1000))


def _weight(piece: Sequence[Stored]) -> int:
    """The weight of a piece of log in the queue of a peer that gets it."""
    return CONTROL_WEIGHT + 24 * len(piece) + sum([len(stored.record.data) for stored in piece])
