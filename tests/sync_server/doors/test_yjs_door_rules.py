"""Rules of each door hold at the Yjs door: gaps wait, deleted and foreign documents are refused, limits count."""

from __future__ import annotations

import socket
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

import pycrdt
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect
from websockets.typing import Subprotocol

import llmcrdt
from llmcrdt.ids import document_bytes, new_document_id
from llmcrdt.sync.messages import (
    DELETE_DONE,
    FOLD_DONE,
    PATH,
    SUBPROTOCOL,
    Ack,
    Delete,
    Deleted,
    Error,
    Fold,
    Folded,
    Open,
    Opened,
    Push,
    Records,
    Snapshot,
)
from sync_server.core.limits import Limits
from sync_server.doors import yjs
from sync_server.log.file import DATABASE
from sync_server.net import connection as connection_module
from sync_server.thread import RelayThread

from ...waiting import eventually
from ..core.test_validation import CORE_REFUSES, ask, edits, hear, native, nested
from ..yjs_peers import Bare, NodeClient, needs_node, texts, update

OpenRepo = Callable[..., llmcrdt.Repo]
S = b"s" * 16


def say_at_once(page: Bare, *messages: yjs.YjsMessage | bytes) -> None:
    """In one piece, so that the relay reads all of it in one."""
    with page.socket.protocol_mutex:  # the thread that reads may send, too
        for message in messages:
            page.socket.protocol.send_binary(message if isinstance(message, bytes) else yjs.encode(message))
        page.socket.socket.sendall(b"".join(page.socket.protocol.data_to_send()))


def chained() -> list[bytes]:
    """Three updates of one text: each needs the one before."""
    doc: pycrdt.Doc[pycrdt.Text] = pycrdt.Doc()
    shared = doc.get("t", type=pycrdt.Text)
    made = []
    for piece in "xyz":
        before = doc.get_state()
        shared += piece
        made.append(doc.get_update(before))
    return made


def said(whole: bytes) -> str:
    doc: pycrdt.Doc[pycrdt.Text] = pycrdt.Doc()
    doc.apply_update(whole)
    return str(doc.get("t", type=pycrdt.Text))


def fold(url: str, document: bytes) -> None:
    with native(url, document) as client:
        answer = ask(client, Fold(document))
        while not isinstance(answer, Folded):
            answer = hear(client)
        assert answer.outcome == FOLD_DONE


@pytest.mark.parametrize("folded", [False, True])
def test_an_update_that_waits_for_another_survives_a_restart_and_a_fold(tmp_path: Path, folded: bool) -> None:
    document, (first, second, third) = new_document_id(), chained()
    with RelayThread(tmp_path) as relay:
        with Bare(relay.url, document) as page:
            page.send(yjs.Update(first), yjs.Update(third))
            eventually(lambda: said(page.sync()), lambda text: text == "x")
        if folded:
            fold(relay.url, document_bytes(document))
    with RelayThread(tmp_path) as relay, Bare(relay.url, document) as page, Bare(relay.url, document) as other:
        assert said(page.sync()) == "x"
        page.send(yjs.Update(second))
        eventually(lambda: said(page.sync()), lambda text: text == "xyz")
        eventually(lambda: said(other.sync()), lambda text: text == "xyz")
        with native(relay.url) as client:  # and the log has all of it, for native clients
            found: list[bytes] = []
            assert isinstance(ask(client, Open(document_bytes(document), "yjs")), Opened)
            doc: pycrdt.Doc[pycrdt.Text] = pycrdt.Doc()
            while str(doc.get("t", type=pycrdt.Text)) != "xyz":
                message = hear(client)
                if isinstance(message, Records):
                    found += (record.data for record in message.records)
                elif isinstance(message, Snapshot):
                    found.append(message.data)
                for data in found:
                    doc.apply_update(data)


def test_a_document_of_another_kind_is_refused(tmp_path: Path) -> None:
    document = new_document_id()
    with RelayThread(tmp_path) as relay:
        with native(relay.url) as client:
            raw = document_bytes(document)
            assert isinstance(ask(client, Open(raw, "sealed")), Opened)
            assert isinstance(ask(client, Push(raw, S, 1, (b"opaque",))), Ack)
        with Bare(relay.url, document) as page:
            page.send(yjs.StepOne(b"\x00"))
            assert page.close_code() == 4409


def test_a_deleted_document_is_gone_here_too(tmp_path: Path) -> None:
    document = new_document_id()
    with RelayThread(tmp_path) as relay:
        with Bare(relay.url, document) as page, native(relay.url) as client:
            page.send(yjs.Update(update("k", "v")))
            eventually(lambda: texts(page.sync()), lambda found: found == {"k": "v"})
            answer = ask(client, Delete(document_bytes(document)))
            assert isinstance(answer, Deleted) and answer.outcome == DELETE_DONE
            assert page.close_code() == 4410
        with Bare(relay.url, document) as page:
            with suppress(ConnectionClosed):  # after the first of them, perhaps
                page.send(yjs.StepOne(b"\x00"), yjs.Update(update("k", "again")))
            assert page.close_code() == 4410
    with closing(sqlite3.connect(tmp_path / DATABASE)) as db:
        assert db.execute("SELECT count(*) FROM records").fetchone() == (0,)


@pytest.mark.parametrize("how", ["fold", "delete"])
def test_what_was_refused_goes_with_what_is_folded_or_deleted(tmp_path: Path, how: str) -> None:
    document, secret = document_bytes(new_document_id()), b"a secret that is no update"
    with RelayThread(tmp_path) as relay:
        with native(relay.url, document) as client:
            assert isinstance(ask(client, Push(document, S, 1, (update("k", "v"),))), Ack)
            assert isinstance(ask(client, Push(document, S, 2, (secret,))), Error)
        assert any(secret in path.read_bytes() for path in tmp_path.iterdir())
        if how == "fold":
            fold(relay.url, document)
        else:
            with native(relay.url) as client:
                assert isinstance(ask(client, Delete(document)), Deleted)
        eventually(lambda: not any(secret in path.read_bytes() for path in tmp_path.iterdir()))


def test_a_value_above_the_limit_is_refused_and_others_go_on(tmp_path: Path) -> None:
    document = new_document_id()
    with (
        RelayThread(tmp_path, limits=Limits(record=2_000)) as relay,
        Bare(relay.url, document) as other,
        Bare(relay.url, document) as page,
    ):
        page.send(yjs.Update(update("k", "x" * 5_000)))
        assert page.close_code() == 4422
        other.send(yjs.Update(update("small", "v")))
        eventually(lambda: texts(other.sync()), lambda found: found == {"small": "v"})


def test_a_frame_above_the_limit_closes_with_1009_and_others_go_on(tmp_path: Path) -> None:
    document = new_document_id()
    with (
        RelayThread(tmp_path, limits=Limits(yjs_frame=10_000)) as relay,
        Bare(relay.url, document) as other,
        Bare(relay.url, document) as page,
    ):
        page.send(yjs.Update(update("small", "x" * 9_000)))
        eventually(lambda: list(texts(page.sync())), lambda found: found == ["small"])
        page.send(yjs.Update(update("large", "x" * 11_000)))
        assert page.close_code() == 1009
        assert list(texts(other.sync())) == ["small"]


def test_a_state_vector_above_the_limit_is_refused_and_others_go_on(tmp_path: Path) -> None:
    document = new_document_id()
    with (
        RelayThread(tmp_path, limits=Limits(version=100)) as relay,
        Bare(relay.url, document) as other,
        Bare(relay.url, document) as page,
    ):
        page.send(yjs.StepOne(bytes([50]) + bytes(100)))
        assert page.close_code() == 4413
        assert other.sync() == b"\x00\x00"


def test_a_page_that_says_too_much_is_slowed_down_and_loses_nothing(tmp_path: Path) -> None:
    document, count = new_document_id(), 60
    with RelayThread(tmp_path, limits=Limits(rate=20_000, burst=20_000)) as relay:
        began = time.monotonic()
        with Bare(relay.url, document) as page:
            for n in range(count):
                page.send(yjs.Update(update(f"k{n}", "x" * 1_000)))
            eventually(lambda: len(texts(page.sync())), lambda found: found == count)
        assert time.monotonic() - began > 1, "60 kB at 20 kB a second take two seconds behind the burst"


def test_what_waits_for_the_rate_is_not_lost_with_its_connection(tmp_path: Path) -> None:
    document, names = new_document_id(), {f"k{n}" for n in range(20)}
    with RelayThread(tmp_path, limits=Limits(rate=3_000, burst=3_000)) as relay, Bare(relay.url, document) as other:
        other.sync()
        with Bare(relay.url, document) as page:
            say_at_once(page, *(yjs.Update(update(name, "x" * 500)) for name in sorted(names)))
            assert isinstance(other.hear(), yjs.StepOne | yjs.Update)
            page.socket.socket.shutdown(socket.SHUT_RDWR)  # no closing handshake
        for n in range(3):  # while the relay reads nothing from the page, it finds out when it writes to it
            other.send(yjs.Update(update("other", n)))
            other.sync()
        eventually(lambda: texts(other.sync()), lambda found: names < set(found))


@needs_node
def test_a_page_and_a_device_see_each_other(tmp_path: Path, open_repo: OpenRepo) -> None:
    repo = open_repo("ann")
    conversation = repo.create("talk")
    conversation.append("user", "Hello")
    with RelayThread(tmp_path / "relay") as relay, repo.connect(relay.url) as link:
        link.wait_synced(60)
        with NodeClient(3, relay.url, conversation.id) as page:
            page("announce", state={"name": "page", "typing": True})
            eventually(
                lambda: [present.state for present in conversation.presence()],
                lambda states: any(state.get("name") == "page" for state in states),
            )
            conversation.present({"name": "device"})
            eventually(lambda: page("present"), lambda found: "device" in str(found))
            page("leave")
            eventually(lambda: conversation.presence(), lambda found: not found)


def test_updates_that_come_at_once_are_fewer_records_and_the_same_document(tmp_path: Path) -> None:
    document, doc, count = new_document_id(), pycrdt.Doc[pycrdt.Text](), 200
    made: list[bytes] = []
    doc.observe(lambda event: made.append(event.update))
    text = doc.get("t", type=pycrdt.Text)
    for n in range(count):
        text += f"{n} "
    with (
        RelayThread(tmp_path) as relay,
        Bare(relay.url, document) as reader,
        Bare(relay.url, document) as page,
        native(relay.url, document_bytes(document)) as device,
    ):
        reader.sync()
        say_at_once(page, *map(yjs.Update, made))
        seen, records = pycrdt.Doc[pycrdt.Text](), pycrdt.Doc[pycrdt.Text]()
        while seen.get_state() != doc.get_state():
            message = reader.hear()
            if isinstance(message, yjs.Update):
                seen.apply_update(message.update)
        while records.get_state() != doc.get_state():
            if isinstance(message := hear(device), Records):
                for record in message.records:
                    records.apply_update(record.data)
        assert str(seen.get("t", type=pycrdt.Text)) == str(records.get("t", type=pycrdt.Text)) == str(text)
    with closing(sqlite3.connect(tmp_path / DATABASE)) as db:
        assert db.execute("SELECT count(*) FROM records").fetchone()[0] < count / 4


@pytest.mark.parametrize("bad", [b"no update", *map(bytes.fromhex, CORE_REFUSES)], ids=range(4))
def test_a_bad_update_among_many_takes_no_good_one_with_it(tmp_path: Path, bad: bytes) -> None:
    """Nor does it get in with them: its page is sent off, and the operator has just that one."""
    document, before = new_document_id(), nested()
    with RelayThread(tmp_path) as relay, Bare(relay.url, document) as reader:
        for one in before:
            reader.send(yjs.Update(one))
        reader.sync()  # else the bad one might come first, and wait
        with Bare(relay.url, document) as page:
            good = edits(20)
            say_at_once(page, *map(yjs.Update, (*good[:8], bad, *good[8:])))
            assert page.close_code() == 4422
        eventually(lambda: texts(reader.sync()), lambda found: found == texts(*before, *good))
    with closing(sqlite3.connect(tmp_path / DATABASE)) as db:
        assert [bytes(data) for (data,) in db.execute("SELECT data FROM refused")] == [bad]


def test_a_question_between_updates_is_answered_with_those_before_it(tmp_path: Path) -> None:
    document, good = new_document_id(), edits(30)
    with RelayThread(tmp_path) as relay, Bare(relay.url, document) as page:
        for at in range(0, 30, 10):
            say_at_once(page, *map(yjs.Update, good[at : at + 10]), yjs.StepOne(b"\x00"), yjs.QueryAwareness())
        answers = []
        while len(answers) < 3:
            if isinstance(message := page.hear(), yjs.StepTwo):
                answers.append(texts(message.update))
        assert answers == [texts(*good[:end]) for end in (10, 20, 30)]


@pytest.mark.parametrize("room", [0, 1, 5])
def test_where_not_all_of_what_came_at_once_has_room_some_has(tmp_path: Path, room: int) -> None:
    """As if each had come alone."""
    document, good = new_document_id(), edits(8, size=100)
    with RelayThread(tmp_path, limits=Limits(log=room * len(good[0]) + 20)) as relay, Bare(relay.url, document) as page:
        page.sync()
        say_at_once(page, *map(yjs.Update, good))
        assert page.close_code() == 4413
        with Bare(relay.url, document) as other:
            assert len(texts(other.sync())) == room


def test_a_page_that_offers_compression_goes_without(tmp_path: Path) -> None:
    """Each small frame would be compressed again for every reader. A native client gets it."""
    document = new_document_id()
    with (
        RelayThread(tmp_path) as relay,
        Bare(relay.url, document, compression="deflate") as page,
        connect(f"{relay.url}{PATH}", subprotocols=[Subprotocol(SUBPROTOCOL)], proxy=None) as device,
    ):
        assert page.socket.protocol.extensions == []
        assert len(device.protocol.extensions) == 1
        page.send(yjs.Update(update("k", "x" * 1_000)))
        eventually(lambda: texts(page.sync()), lambda found: found == {"k": "x" * 1_000})


def test_silence_is_broken_before_a_page_gives_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert 0 < yjs.KEEPALIVE.seconds < 30 / 2, "y-websocket 1.5, 2.1 and 3.1: messageReconnectTimeout = 30000"
    monkeypatch.setattr(yjs.YjsDoor, "keepalive", yjs.KEEPALIVE._replace(seconds=0.2))
    with RelayThread(tmp_path) as relay, Bare(relay.url, new_document_id()) as page:
        page.sync()
        while page.socket.recv(timeout=30) != yjs.KEEPALIVE.frame:
            pass


def test_a_slow_page_is_not_buffered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is read to from the log when it takes more; what waits for it at the relay stays below the limit."""
    document, waits = new_document_id(), []
    queued = connection_module.Connection.send

    def send(self: connection_module.Connection, *rest: object, **more: object) -> None:
        queued(self, *rest, **more)  # type: ignore[arg-type]
        if self.peer == 1:
            waits.append(sum(self.waiting))

    monkeypatch.setattr(connection_module.Connection, "send", send)
    with (
        RelayThread(tmp_path, limits=Limits(outgoing=100_000, compaction_bytes=1 << 40)) as relay,
        Bare(relay.url, document, max_queue=1, close_timeout=0.1) as slow,
        Bare(relay.url, document) as writer,
        Bare(relay.url, document) as quick,
    ):
        for page in (slow, writer, quick):
            page.sync()
        doc: pycrdt.Doc[pycrdt.Map[object]] = pycrdt.Doc()
        for n in range(100):
            writer.send(yjs.Update(update(f"k{n}", "x" * 100_000, doc)))
        eventually(lambda: len(texts(quick.sync())), lambda found: found == 100)
        assert max(waits) < 500_000, "10 MB were written"
        eventually(lambda: len(texts(slow.sync())), lambda found: found == 100)


def test_a_page_that_falls_behind_a_fold_has_to_come_back(tmp_path: Path) -> None:
    document, count = new_document_id(), 120
    # Folded when it is asked for, and not before: the quick one may be a little slow.
    with RelayThread(tmp_path, limits=Limits(outgoing=100_000, compaction_bytes=1 << 40)) as relay:
        with (
            Bare(relay.url, document, max_queue=1, close_timeout=0.1) as slow,
            Bare(relay.url, document) as writer,
            Bare(relay.url, document) as quick,
        ):
            for page in (slow, quick):
                page.sync()
            doc: pycrdt.Doc[pycrdt.Map[object]] = pycrdt.Doc()
            for n in range(count):  # each takes the place of the one before: the log is long, the document is not
                writer.send(yjs.Update(update("k", f"{n} " + "x" * 100_000, doc)))
                assert isinstance(quick.hear(), yjs.Update), "each by itself: merged, those before would be gone"
            fold(relay.url, document_bytes(document))
            assert slow.close_code() == 1013
            writer.send(yjs.Update(update("k", "last", doc)))
            eventually(lambda: texts(quick.sync()), lambda found: found == {"k": "last"})
        with Bare(relay.url, document) as back:
            assert texts(back.sync()) == {"k": "last"}
