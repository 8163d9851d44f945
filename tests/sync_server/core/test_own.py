"""Peers whose tokens are for what belongs to their subject: of a document that is another's they get nothing."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from llmcrdt.sync.messages import (
    DELETE_REFUSED,
    FEATURES,
    Ack,
    Announcement,
    Barrier,
    Close,
    Delete,
    Deleted,
    Error,
    ErrorCode,
    Fold,
    Message,
    Open,
    Opened,
    Presence,
    Push,
    Records,
)
from sync_server.core.events import Greeted, Send, Tick
from sync_server.core.rooms import Rooms
from sync_server.core.validation import (
    DiffRequest,
    MergeRequest,
    Received,
    ReplicaDropped,
    ValidateRequest,
    ValidateResult,
    Validation,
)

from .rooms_relay import D, E, Relay, end, opened, push

ANN, ANN_TOO, EVE, GUEST = 1, 2, 3, 4
WHOSE = {ANN: "ann", ANN_TOO: "ann", EVE: "eve", GUEST: "bob"}
NAMED = {GUEST: {E}}
F = b"f" * 16


def greeted(peer: int) -> Greeted:
    return Greeted(peer, FEATURES, WHOSE[peer], False, lambda document: document in NAMED.get(peer, ()))


def relay(folder: Path, **limits: int) -> Relay:
    made = Relay(folder, **limits)
    made.join(*WHOSE)
    made.step(*map(greeted, WHOSE))
    return made


@pytest.mark.parametrize("seed", range(8))
def test_nobody_gets_anything_of_what_is_another_s(seed: int, tmp_path: Path) -> None:
    rng, made, numbers = (
        random.Random(seed),
        relay(tmp_path),
        dict.fromkeys(((p, d) for p in WHOSE for d in (D, E, F)), 0),
    )
    done = 0
    for _ in range(150):
        events = []
        for _ in range(rng.randint(1, 4)):
            peer, document = rng.choice(list(WHOSE)), rng.choice((D, E, F))
            events.append(Received(peer, _message(rng, peer, document, numbers)))
        before = {document: made.log.quotas.owner(document) for document in (D, E, F)}
        made.step(*events, *([Tick()] if rng.random() < 0.3 else []))
        for peer, subject in WHOSE.items():
            for message in made.got(peer):
                done += not isinstance(message, Error)
                document = getattr(message, "document", b"")
                owner = before.get(document) or made.log.quotas.owner(document)
                if owner not in ("", subject) and document not in NAMED.get(peer, ()):
                    refused = isinstance(message, Error) or message == Deleted(document, DELETE_REFUSED)
                    empty = isinstance(message, Opened) and not before[document] and not message.head.position
                    assert refused or empty, (subject, owner, message)
        for document in (D, E, F):
            assert before[document] in ("", made.log.quotas.owner(document)) or made.log.tombstones.is_deleted(document)
    assert done > 60


def _message(rng: random.Random, peer: int, document: bytes, numbers: dict[tuple[int, bytes], int]) -> Message:
    match rng.choice(("open", "open", "push", "push", "push", "fold", "present", "close", "barrier", "delete")):
        case "open":
            return Open(document, "blobs")
        case "push":
            # A session for each push: nobody minds whether the last one came in.
            return Push(document, rng.randbytes(16), 1, (b"words of %d" % peer,))
        case "fold":
            return Fold(document)
        case "present":
            numbers[peer, document] += 1
            return Presence(document, (Announcement(peer, numbers[peer, document], "{}"),))
        case "close":
            return Close(document)
        case "barrier":
            return Barrier(1)
    return Delete(document) if rng.random() < 0.1 else Close(document)


def test_who_had_a_document_open_before_it_was_another_s_has_it_no_more(tmp_path: Path) -> None:
    made = relay(tmp_path)
    for peer in (ANN, ANN_TOO, EVE, GUEST):
        opened(made, peer)
    made.inbox.clear()
    assert isinstance(made.say(ANN, push(b"mine"))[0], Ack)
    assert [type(m) for m in made.got(ANN_TOO)] == [Records]
    for peer in (EVE, GUEST):
        (error,) = made.got(peer)
        assert isinstance(error, Error) and (error.code, error.document) == (ErrorCode.FORBIDDEN, D)
        (error,) = made.say(peer, push(b"not mine", session=b"e" * 16))
        assert isinstance(error, Error) and error.code == ErrorCode.FORBIDDEN
    assert end(made).position == 1


def test_a_guest_has_the_document_that_its_token_names(tmp_path: Path) -> None:
    made = relay(tmp_path)
    opened(made, ANN, E)
    made.say(ANN, push(b"mine", document=E))
    assert opened(made, GUEST, E).head.position == 1
    assert isinstance(made.say(GUEST, push(b"a guest's", document=E, session=b"g" * 16))[-1], Ack)
    assert made.log.quotas.owner(E) == "ann"
    (error,) = made.say(EVE, Open(E, "yjs"))
    assert isinstance(error, Error) and error.code == ErrorCode.FORBIDDEN


def test_what_belongs_to_nobody_is_for_who_is_named(tmp_path: Path) -> None:
    made = relay(tmp_path)
    made.join(9)
    made.step(Greeted(9, FEATURES))  # as before tokens were turned on
    for document in (D, E):
        opened(made, 9, document)
        made.say(9, push(b"old", document=document))
    assert isinstance(made.say(ANN, Open(D, "yjs"))[0], Error)
    assert made.say(ANN, Delete(D)) == [Deleted(D, DELETE_REFUSED)]
    assert isinstance(made.say(GUEST, Open(E, "yjs"))[0], Opened)


def test_nobody_is_seen_in_a_document_before_it_is_anybody_s(tmp_path: Path) -> None:
    made = relay(tmp_path)
    for peer in (ANN, ANN_TOO, EVE):
        opened(made, peer)
    made.inbox.clear()
    here = Presence(D, (Announcement(1, 1, '{"name":"ann"}'),))
    made.say(ANN, here)
    made.step(Tick())
    assert not made.got(EVE) and not made.got(ANN_TOO)
    made.say(ANN, push(b"mine"))
    made.got(ANN_TOO)
    made.say(ANN, Presence(D, (Announcement(1, 2, '{"name":"ann"}'),)))
    made.step(Tick())
    assert [type(m) for m in made.got(ANN_TOO)] == [Presence]
    assert not any(isinstance(m, Presence) for m in made.got(EVE))


@pytest.mark.parametrize("request_", [DiffRequest(D, "yjs", b"\x00"), MergeRequest(D, "yjs", (b"\x00\x00",))])
def test_what_was_asked_before_a_document_was_another_s_is_not_answered_after(
    tmp_path: Path, request_: DiffRequest | MergeRequest
) -> None:
    """A page asked while the document wasn't there, and the validator answers when it is."""
    made = relay(tmp_path)
    made.rooms = Rooms(made.log, validation=Validation(available=True, always=True))
    made.join(ANN, EVE)
    made.step(greeted(ANN), greeted(EVE))
    (asked,) = made.rooms.step([Received(EVE, request_)])
    assert isinstance(asked, ValidateRequest)
    opened(made, ANN)
    (first,) = (o for o in made.rooms.step([Received(ANN, push(b"\x00\x00"))]) if isinstance(o, ValidateRequest))
    made.step(ValidateResult(first.ticket, 1))
    assert end(made).position == 1
    data = (b"all of it", b"\x00") if isinstance(request_, DiffRequest) else (b"of a page",)
    out = made.rooms.step([ValidateResult(asked.ticket, 1, data)])
    (error,) = (output.message for output in out if isinstance(output, Send))
    assert isinstance(error, Error) and error.code == ErrorCode.FORBIDDEN
    assert end(made).position == 1
    if isinstance(request_, MergeRequest):
        assert any(isinstance(o, ReplicaDropped) for o in out), "what the page wrote is in no replica either"
