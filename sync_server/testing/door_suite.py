"""The suite for the contract of ``Door``: subclass it in a test module and say how to make a door, and how its client
speaks."""

from __future__ import annotations

import random
from abc import abstractmethod
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar, get_args

import pytest

from llmcrdt.ids import document_id
from llmcrdt.sync.messages import (
    DELETE_DONE,
    FOLD_DONE,
    MAX_FRAME,
    RESET,
    Ack,
    Announcement,
    Cursor,
    Deleted,
    Error,
    ErrorCode,
    Folded,
    Message,
    Opened,
    Presence,
    Push,
    Reached,
    Record,
    Records,
    Snapshot,
    Welcome,
)

from ..auth.tokens import Tokens
from ..core.limits import Limits
from ..core.validation import DiffResponse, MergeRequest, PresenceQuery, Request
from ..doors.base import Answer, Door, DoorContext, Refused

_T = TypeVar("_T")

D, E, S = b"d" * 16, b"e" * 16, b"s" * 16
_CURSOR = Cursor(b"l" * 16, 1, b"c" * 32)
MESSAGES: tuple[Message | DiffResponse, ...] = (
    Opened(D, RESET, _CURSOR, 0),
    Ack(D, S, 1, 2, 3),
    Records(D, 1, (Record(S, 1, b"a"), Record(S, 2, b"bc"))),
    Snapshot(D, 1, b"c" * 32, S, 1, 1, 1, 0, b"a"),
    Presence(D, (Announcement(1, 0, "{}"), Announcement(2, 1, ""))),
    Reached(1),
    Folded(D, FOLD_DONE),
    Deleted(D, DELETE_DONE),
    DiffResponse(D, b"\x00\x00", b"\x00"),
    *(Error(code, "for a reason") for code in ErrorCode),
)


class DoorSuite:
    """The contract of Door, for documents D and E."""

    read_only = False
    """Whether the door takes no writes; then ``writing`` is a frame that it answers or refuses."""

    @abstractmethod
    def make(self, context: DoorContext, document: bytes, token: bytes) -> Door:
        """A new door, whose client is about a document and shows a token, now or when it greets."""

    def greeting(self, document: bytes, token: bytes) -> bytes | str | None:
        """The frame with which a client greets the relay; None where the door is greeted when it has begun."""
        return None

    @abstractmethod
    def reading(self, document: bytes) -> bytes | str:
        """A frame that only reads."""

    @abstractmethod
    def writing(self, document: bytes) -> bytes | str:
        """A frame that adds something to the document."""

    # ---------------------------------------------------------------- what the tests are made of

    @pytest.fixture
    def tokens(self, tmp_path: Path) -> Tokens:
        return Tokens(tmp_path)

    @pytest.fixture
    def context(self, tokens: Tokens) -> DoorContext:
        return DoorContext(Limits(), tokens, "relay")

    def token(self, tokens: Tokens, level: str, document: bytes = D) -> bytes:
        """Tokens are on from the first one that is made; the relay of the fixture looks for it again."""
        return tokens.make("ann", level, [document_id(document)]).encode()

    def open(self, context: DoorContext, document: bytes = D, token: bytes = b"") -> Door:
        door = self.make(context, document, token)
        door.begin()
        greeting = self.greeting(document, token)
        if greeting is not None:
            assert not door.greeted
            assert isinstance(door.receive(greeting), Welcome)
        assert door.greeted
        return door

    def guarded(self, folder: Path, level: str, document: bytes = D) -> tuple[DoorContext, bytes, Tokens]:
        """A relay that asks for tokens, and a token."""
        token = self.token(Tokens(folder), level, document)
        tokens = Tokens(folder)
        return DoorContext(Limits(), tokens, "relay"), token, tokens

    # ---------------------------------------------------------------- the contract

    def test_a_greeted_client_has_a_grant_and_room_for_a_record(self, context: DoorContext) -> None:
        door = self.open(context)
        assert door.grant is not None and door.grant.allows("read", D)
        assert context.limits.record <= door.max_frame
        assert door.protocol == self.open(context, E).protocol

    def test_before_the_greeting_nothing_reaches_the_rooms(self, context: DoorContext) -> None:
        door = self.make(context, D, b"")
        door.begin()
        if not door.greeted:
            with pytest.raises(Refused):
                door.receive(self.writing(D))

    def test_what_a_client_sends_is_read_or_refused(self, context: DoorContext) -> None:
        rng = random.Random(16)
        good = [self.reading(D), self.writing(D)]
        for _ in range(2_000):
            door = self.open(context)
            frame = rng.choice(good)
            raw = bytearray(frame if isinstance(frame, bytes) else frame.encode())
            for _ in range(rng.randrange(4)):
                raw[rng.randrange(len(raw))] = rng.randrange(256)
            cut = bytes(raw[: rng.randrange(len(raw) + 1)]) if rng.random() < 0.3 else bytes(raw)
            self.receive(door, cut if rng.random() < 0.7 else cut.decode("utf-8", "replace"))

    def receive(self, door: Door, frame: bytes | str) -> Answer | Request | None:
        """A message or an answer, or the error with which the connection ends; None where nothing is to be done."""
        found = _outcome(lambda: door.receive(frame))
        assert found is None or isinstance(found, (*get_args(Request), *get_args(Answer)))
        return found

    def test_a_client_that_may_write_does(self, tmp_path: Path) -> None:
        context, token, _ = self.guarded(tmp_path, "append")
        door = self.open(context, token=token)
        assert isinstance(self.receive(door, self.reading(D)), get_args(Request))
        found = self.receive(door, self.writing(D))
        assert self.read_only != isinstance(found, Push | MergeRequest)
        assert not isinstance(found, Push | MergeRequest) or found.document == D

    def test_what_follows_is_taken_from_the_front_or_not_at_all(self, context: DoorContext) -> None:
        door, frame = self.open(context), self.reading(D) if self.read_only else self.writing(D)
        message = door.receive(frame)
        assert isinstance(message, get_args(Request))
        unread = deque([self.reading(D), self.writing(D)])
        joined, frames, size = door.join_following(message, frame, unread)
        assert (joined, frames, size) == (message, 1, len(frame)) and len(unread) == 2

    def test_what_writes_on_is_one_message_or_stays_where_it_is(self, context: DoorContext) -> None:
        """However many are joined: what is left behind them is what was there, and each is counted once."""
        if self.read_only:
            pytest.skip("it takes no writes")
        rng = random.Random(4)
        for _ in range(50):
            door, frame = self.open(context), self.writing(D)
            message = door.receive(frame)
            assert isinstance(message, Push | MergeRequest)
            frames = [rng.choice((self.writing(D), self.writing(D), self.reading(D))) for _ in range(8)]
            unread = deque(frames)
            joined, count, size = door.join_following(message, frame, unread)
            taken = frames[: count - 1]
            assert list(unread) == frames[count - 1 :] and all(f == self.writing(D) for f in taken)
            assert size == len(frame) + sum(map(len, taken))
            assert isinstance(joined, type(message)) and joined.document == D
            if isinstance(joined, MergeRequest) and isinstance(message, MergeRequest):
                assert joined.updates == message.updates * count and joined.may_append

    def test_a_client_that_only_reads_writes_nothing(self, tmp_path: Path) -> None:
        context, token, _ = self.guarded(tmp_path, "read")
        door = self.open(context, token=token)
        assert isinstance(self.receive(door, self.reading(D)), get_args(Request))
        found = self.receive(door, self.writing(D))
        assert not isinstance(found, Push | PresenceQuery)
        assert not isinstance(found, MergeRequest) or not found.may_append

    @pytest.mark.parametrize("token", [b"", b"forged", b"\xff" * 40])
    def test_without_a_good_token_nobody_is_greeted(self, tmp_path: Path, token: bytes) -> None:
        context, _, _ = self.guarded(tmp_path, "admin")
        with pytest.raises(Refused) as refused:
            self.open(context, token=token)
        assert refused.value.error.code == ErrorCode.TOKEN_REFUSED

    def test_another_document_is_not_shown(self, tmp_path: Path) -> None:
        context, token, _ = self.guarded(tmp_path, "append", E)
        found = _outcome(lambda: self.receive(self.open(context, D, token), self.reading(D)))
        assert isinstance(found, Error) and found.code == ErrorCode.FORBIDDEN

    @pytest.mark.parametrize("act", ["confirm", "reading", "writing"])
    def test_a_token_that_is_revoked_is_noticed_at_once(self, tmp_path: Path, act: str) -> None:
        context, token, tokens = self.guarded(tmp_path, "append")
        door = self.open(context, token=token)
        door.confirm()
        tokens.revoke(tokens.check(token).id)
        tokens.refresh()
        acts: dict[str, Callable[[], object]] = {
            "confirm": door.confirm,
            "reading": lambda: door.receive(self.reading(D)),
            "writing": lambda: door.receive(self.writing(D)),
        }
        with pytest.raises(Refused) as refused:
            acts[act]()
        assert refused.value.error.code == ErrorCode.TOKEN_REFUSED

    def test_every_message_has_frames_or_ends_the_connection(self, context: DoorContext) -> None:
        one, other = self.open(context, D), self.open(context, E)
        for message in MESSAGES:
            frames = _outcome(lambda message=message: one.encode(message))  # type: ignore[misc]
            for door in (one, other):
                assert _outcome(lambda door=door, message=message: door.encode(message)) == frames  # type: ignore[misc]
            if not isinstance(frames, Error):
                assert all(isinstance(frame, bytes) and 0 < len(frame) <= MAX_FRAME for frame in frames)

    def test_records_reach_a_client(self, context: DoorContext) -> None:
        records = tuple(Record(S, n, bytes([0x60 + n]) * 9) for n in (1, 2))
        sent = b"".join(self.open(context).encode(Records(D, 1, records)))
        assert all(r.data in sent or r.data.hex().encode() in sent for r in records)

    def test_every_error_has_a_close_frame(self, context: DoorContext) -> None:
        door = self.make(context, D, b"")
        for code in ErrorCode:
            last, number, words = door.close_frame(Error(code, "for a reason"))
            assert last is None or 0 < len(last) <= MAX_FRAME
            assert number in (1008, 1011, 1012, 1013) or 4000 <= number < 5000
            assert words in ("", "for a reason")

    def test_a_keepalive_is_a_frame_now_and_then(self, context: DoorContext) -> None:
        keepalive = self.open(context).keepalive
        assert keepalive is None or (keepalive.seconds > 0 and keepalive.frame)


def _outcome(act: Callable[[], _T]) -> _T | Error:
    """The value of a call, or the error of Refused."""
    try:
        return act()
    except Refused as e:
        return e.error
