"""Links against a real relay on a free port: what a program that embeds the library sees."""

from __future__ import annotations

import asyncio
import shutil
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from llmcrdt.exceptions import RelayRefused, RelayUnreachable, SyncError, SyncTimeout
from llmcrdt.ids import DocumentId, document_bytes, document_id
from llmcrdt.sync import link_control
from llmcrdt.sync.address import relay_address
from llmcrdt.sync.backoff import Backoff
from llmcrdt.sync.failures import explained
from llmcrdt.sync.link import Link, control_of
from llmcrdt.sync.local import Record, Waiting
from llmcrdt.sync.messages import Announcement
from llmcrdt.sync.progress import Progress
from llmcrdt.testing.local_documents import BlobDocuments, pack, unpack
from sync_server.core.limits import Limits
from sync_server.log.sqlite import SqliteStorage
from sync_server.thread import RelayThread

from ..waiting import eventually

LIBRARY, ONE, TWO = (document_id(bytes([n]) * 16) for n in (1, 2, 3))
PATIENCE = 30


@pytest.fixture
def relay(tmp_path: Path) -> Iterator[RelayThread]:
    with RelayThread(tmp_path / "relay", check=False) as relay:
        yield relay


def quick(url: str, local: BlobDocuments) -> Link:
    """A link that tries again soon, and fills a relay without a pause."""
    return Link(url, local, backoff=Backoff(lambda: 0.5, first=0.01, cap=0.05), random=lambda: 0.0)


def documents(seed: int, *names: DocumentId) -> BlobDocuments:
    local = BlobDocuments(seed)
    for name in names:
        local.follow(name)
    return local


def named(blob: bytes) -> DocumentId | None:
    """A library whose blobs are the names of other documents."""
    return DocumentId(blob[4:].decode()) if blob.startswith(b"doc:") else None


def test_two_devices_meet_at_the_relay(relay: RelayThread) -> None:
    a, b = documents(1, ONE), documents(2, ONE)
    a.put(ONE, b"from a")
    b.put(ONE, b"from b")
    with Link(relay.url, a) as la, Link(relay.url, b) as lb:
        for link in (la, lb, la):
            link.wait_synced(PATIENCE)
        assert a.blobs(ONE) == b.blobs(ONE) == {b"from a", b"from b"}
        assert la.state == lb.state == "online"
        a.put(ONE, b"later")
        control_of(la).notify(ONE)
        eventually(lambda: b"later" in b.blobs(ONE))
    assert la.state == lb.state == "closed"
    assert not a[ONE].outbox
    assert la.last_error is None


def test_synced_means_local_records_are_durable_and_remote_ones_here(relay: RelayThread) -> None:
    for n in range(10):
        a, b = documents(2 * n, ONE), documents(2 * n + 1, ONE)
        for i in range(50):
            a.put(ONE, b"%d %d" % (n, i))
        with Link(relay.url, a) as link:
            link.wait_synced(PATIENCE)
            assert not a[ONE].outbox
        with Link(relay.url, b) as link:
            link.wait_synced(PATIENCE)
            assert b.blobs(ONE) >= a.blobs(ONE)


def test_documents_that_the_library_names_count_as_well(relay: RelayThread) -> None:
    a = documents(1, LIBRARY, ONE, TWO)
    a.put(LIBRARY, b"doc:" + ONE.encode(), b"doc:" + TWO.encode())
    a.put(ONE, *(b"x" * 1000 + bytes([i]) for i in range(100)))
    a.put(TWO, b"y")
    with Link(relay.url, a) as link:
        link.wait_synced(PATIENCE)
    b = BlobDocuments(2, discover=named)
    b.follow(LIBRARY)
    with Link(relay.url, b) as link:
        link.wait_synced(PATIENCE)
    assert b.blobs(ONE) == a.blobs(ONE)
    assert b.blobs(TWO) == a.blobs(TWO)


def test_what_is_written_while_somebody_waits_does_not_hold_it_up(relay: RelayThread) -> None:
    a = documents(1, ONE)
    stop = threading.Event()

    def write(link: Link) -> None:
        n = 0
        while not stop.is_set():
            n += 1
            a.put(ONE, b"%d" % n)
            control_of(link).notify(ONE)
            stop.wait(0.0005)

    with Link(relay.url, a) as link:
        writer = threading.Thread(target=write, args=(link,))
        writer.start()
        try:
            for _ in range(5):
                link.wait_synced(PATIENCE)
        finally:
            stop.set()
            writer.join()


def test_many_documents_on_one_connection(relay: RelayThread) -> None:
    names = [document_id(n.to_bytes(16, "big")) for n in range(300)]
    a, b = documents(1, *names), documents(2, *names)
    for name in names:
        a.put(name, name.encode())
    with Link(relay.url, a) as la, Link(relay.url, b) as lb:
        la.wait_synced(PATIENCE)
        lb.wait_synced(PATIENCE)
    assert all(b.blobs(name) == {name.encode()} for name in names)
    with Link(relay.url, b) as again:
        again.wait_synced(PATIENCE)
    assert (again.bytes_sent + again.bytes_received) / len(names) < 200


def test_coming_back_with_nothing_new_costs_the_same_at_any_size(relay: RelayThread) -> None:
    a = documents(1, ONE)
    costs = []
    for n in range(3):
        for i in range(200):
            a.put(ONE, b"%d %d" % (n, i) * 50)
        with Link(relay.url, a) as link:
            link.wait_synced(PATIENCE)
        with Link(relay.url, a) as link:
            link.wait_synced(PATIENCE)
            costs.append(link.bytes_sent + link.bytes_received)
    assert max(costs) < 256
    assert max(costs) - min(costs) <= 8


def test_a_relay_that_was_wiped_is_filled_again(tmp_path: Path) -> None:
    a, b = documents(1, ONE), documents(2, ONE)
    with RelayThread(tmp_path / "first", check=False) as relay:
        port = relay.port
        for n in range(20):
            a.put(ONE, b"%d" % n)
        with quick(relay.url, a) as link:
            link.wait_synced(PATIENCE)
        with quick(relay.url, b) as link:
            link.wait_synced(PATIENCE)
    b.put(ONE, b"offline")
    with RelayThread(tmp_path / "second", port=port, check=False) as relay, quick(relay.url, a) as la:
        la.wait_synced(PATIENCE)
        with quick(relay.url, b) as lb:
            lb.wait_synced(PATIENCE)
            la.wait_synced(PATIENCE)
    log = SqliteStorage(tmp_path / "second" / "relay.db")
    stored = [blob for s in log.records.read(document_bytes(ONE), 0, 1 << 20, 1000) for blob in unpack(s.record.data)]
    log.close()
    # Each sent what the log lacked, and no more.
    assert len(stored) == len(set(stored)) == 21
    fresh = documents(3, ONE)
    with RelayThread(tmp_path / "second", check=False) as relay, quick(relay.url, fresh) as link:
        link.wait_synced(PATIENCE)
    assert fresh.blobs(ONE) == a.blobs(ONE) == b.blobs(ONE)
    assert len(fresh.blobs(ONE)) == 21


def test_an_old_backup_of_the_relay_is_noticed_under_running_links(tmp_path: Path) -> None:
    a, b = documents(1, ONE), documents(2, ONE)
    with RelayThread(tmp_path / "relay", check=False) as relay:
        port, url = relay.port, relay.url
        with quick(url, a) as link:
            a.put(ONE, b"old")
            control_of(link).notify(ONE)
            link.wait_synced(PATIENCE)
    shutil.copytree(tmp_path / "relay", tmp_path / "backup")
    with quick(url, a) as la, quick(url, b) as lb:
        with RelayThread(tmp_path / "relay", port=port, check=False):
            for n in range(30):
                a.put(ONE, b"new %d" % n)
            control_of(la).notify()
            la.wait_synced(PATIENCE)
            lb.wait_synced(PATIENCE)
        eventually(lambda: la.state != "online" and lb.state != "online")
        b.put(ONE, b"while it was away")
        with RelayThread(tmp_path / "backup", port=port, check=False):
            for link in (lb, la, lb):
                link.wait_synced(PATIENCE)
            fresh = documents(3, ONE)
            with quick(url, fresh) as link:
                link.wait_synced(PATIENCE)
    assert fresh.blobs(ONE) == a.blobs(ONE) == b.blobs(ONE)
    assert len(fresh.blobs(ONE)) == 32


def test_a_link_starts_offline_and_connects_when_a_relay_is_there(tmp_path: Path) -> None:
    with RelayThread(tmp_path, check=False) as relay:
        port, url = relay.port, relay.url
    a = documents(1, ONE)
    a.put(ONE, b"x")
    with quick(url, a) as link:
        with pytest.raises(RelayUnreachable, match="could not be reached"):
            link.wait_synced(0.1)
        assert link.state in ("offline", "connecting")
        assert isinstance(link.last_error, RelayUnreachable)
        with RelayThread(tmp_path, port=port, check=False):
            link.wait_synced(PATIENCE)
            assert not a[ONE].outbox
        eventually(lambda: link.state != "online")
        a.put(ONE, b"y")
        with pytest.raises(SyncTimeout, match="not acknowledge") as late:
            link.wait_synced(0.1)
        assert isinstance(late.value, TimeoutError)
        with RelayThread(tmp_path, port=port, check=False):
            link.wait_synced(PATIENCE)
    assert link.state == "closed"
    with pytest.raises(SyncError, match="closed"):
        link.wait_synced(1)


def test_closing_wakes_whoever_waits() -> None:
    link = Link("ws://127.0.0.1:1", documents(1, ONE))
    errors: list[Exception] = []

    def wait() -> None:
        try:
            link.wait_synced()
        except SyncError as e:
            errors.append(e)

    waiter = threading.Thread(target=wait)
    waiter.start()
    eventually(lambda: bool(link._loop._futures))
    link.close()
    waiter.join(PATIENCE)
    assert [str(e) for e in errors] == ["The link is closed. Connect again."]
    link.close()
    control_of(link).notify(ONE)


def test_async_use(relay: RelayThread) -> None:
    async def both() -> None:
        async with Link(relay.url, a) as la, Link(relay.url, b) as lb:
            await la.synced()
            await lb.synced()
        assert la.state == "closed"

    a, b = documents(1, ONE), documents(2, ONE)
    a.put(ONE, b"x")
    asyncio.run(both())
    assert b.blobs(ONE) == {b"x"}


def test_a_record_above_the_limit_is_refused_here_and_holds_up_only_its_document(tmp_path: Path) -> None:
    with RelayThread(tmp_path, limits=Limits(record=1000), check=False) as relay:
        a = documents(1, ONE, TWO)
        a.put(ONE, bytes(2000))
        a.put(TWO, b"fine")
        with Link(relay.url, a) as link:
            with pytest.raises(RelayRefused, match="has 2004 bytes; the relay takes 1000") as refused:
                link.wait_synced(PATIENCE)
            assert refused.value.code == 22 and "stays on this device" in refused.value.hint
            eventually(lambda: not a[TWO].outbox)
            assert a[ONE].outbox
            a.forget(ONE)
            control_of(link).notify()
            link.wait_synced(PATIENCE)


def test_another_kind_is_refused_for_good(relay: RelayThread) -> None:
    a, b = documents(1, ONE), BlobDocuments(2)
    b.follow(ONE, kind="automerge")
    a.put(ONE, b"x")
    with Link(relay.url, a) as link:
        link.wait_synced(PATIENCE)
    with Link(relay.url, b) as link, pytest.raises(RelayRefused, match="kind yjs") as refused:
        link.wait_synced(PATIENCE)
    assert refused.value.code == 11


def test_a_copied_database_is_no_danger(relay: RelayThread) -> None:
    """Two processes write on from one copy: one of them gets a conflict in the session they share; nothing is lost."""
    a, b = documents(1, ONE), documents(2, ONE)
    a.put(ONE, b"common")
    with Link(relay.url, a) as la:
        la.wait_synced(PATIENCE)
        b.received(ONE, [Record(a[ONE].session, 1, pack([b"common"]))], a[ONE].cursor)
        b[ONE].session, b[ONE].n = a[ONE].session, a[ONE].n
        a.put(ONE, b"a goes on")
        control_of(la).notify(ONE)
        la.wait_synced(PATIENCE)
        b.put(ONE, b"b goes on")
        with Link(relay.url, b) as lb:
            lb.wait_synced(PATIENCE)
            la.wait_synced(PATIENCE)
    assert a.blobs(ONE) == b.blobs(ONE) == {b"common", b"a goes on", b"b goes on"}


def test_a_record_that_cannot_be_read_is_kept_aside(relay: RelayThread) -> None:
    a, b = documents(1, ONE), documents(2, ONE)
    with Link(relay.url, a) as la, Link(relay.url, b) as lb:
        la.wait_synced(PATIENCE)
        doc = a[ONE]
        doc.n, doc.place = doc.n + 1, doc.place + 1
        doc.outbox.append(Waiting(doc.place, Record(doc.session, doc.n, b"\xff\xff\xff\xff bad")))
        a.put(ONE, b"good")
        control_of(la).notify(ONE)
        la.wait_synced(PATIENCE)
        lb.wait_synced(PATIENCE)
        assert len(b[ONE].quarantine) == 1
        a.put(ONE, b"after")
        control_of(la).notify(ONE)
        la.wait_synced(PATIENCE)
        lb.wait_synced(PATIENCE)
    assert b.blobs(ONE) == {b"good", b"after"}


class Broken(BlobDocuments):
    """Its disk fails until it is mended."""

    broken = ""

    def received(self, *arguments: Any) -> bool:
        self.check("received")
        return super().received(*arguments)

    def outbox(self, *arguments: Any) -> Sequence[Waiting]:
        self.check("outbox")
        return super().outbox(*arguments)

    def check(self, method: str) -> None:
        if self.broken == method:
            raise OSError("the disk is full")


def test_an_error_of_this_device_ends_the_connection_not_the_link(relay: RelayThread) -> None:
    a, b = documents(1, ONE), Broken(2)
    b.follow(ONE)
    a.put(ONE, b"x")
    b.broken = "received"
    with Link(relay.url, a) as la, quick(relay.url, b) as lb:
        la.wait_synced(PATIENCE)
        eventually(lambda: "the disk is full" in str(lb.last_error))
        b.broken = ""
        lb.wait_synced(PATIENCE)
    assert b.blobs(ONE) == {b"x"}


def test_an_error_while_sending_is_no_other(relay: RelayThread) -> None:
    a = Broken(1)
    a.follow(ONE)
    with quick(relay.url, a) as link:
        link.wait_synced(PATIENCE)
        a.broken = "outbox"
        a.put(ONE, b"x")
        control_of(link).notify(ONE)
        eventually(lambda: "the disk is full" in str(link.last_error))
        a.broken = ""
        link.wait_synced(PATIENCE)
        assert not a[ONE].outbox


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("ws://127.0.0.1:8765", "ws://127.0.0.1:8765/sync"),
        ("wss://example.org/relay/", "wss://example.org/relay/sync"),
        ("ws://[::1]:1/sync?x=1", "ws://[::1]:1/sync?x=1"),
    ],
)
def test_addresses(url: str, address: str) -> None:
    assert relay_address(url) == address


@pytest.mark.parametrize(
    "url", ["", "http://127.0.0.1:1", "ws://", "ws://host:99999", "ws://host/#x", "127.0.0.1:8765"]
)
def test_what_is_no_address_is_refused_at_once(url: str) -> None:
    with pytest.raises(RelayUnreachable, match="not the address"):
        Link(url, documents(1))


def test_presence_passes_between_links_and_is_gone_with_them(relay: RelayThread) -> None:
    a, b = documents(1, ONE), documents(2, ONE)
    a[ONE].present = (Announcement(7, 1, "{}"),)
    with quick(relay.url, b) as lb:
        with quick(relay.url, a) as la:
            la.wait_synced(PATIENCE)
            lb.wait_synced(PATIENCE)
            eventually(lambda: b[ONE].heard.get(7, (0, ""))[1] == "{}")
            for clock in range(10, 200):
                a[ONE].present = (Announcement(7, clock, '{"typing":true}'),)
                control_of(la).announce(ONE)
            eventually(lambda: b[ONE].heard[7] == (199, '{"typing":true}'))
            assert la.last_error is None
        eventually(lambda: b[ONE].heard[7] == (199, ""))


def test_what_is_announced_too_soon_is_announced_a_little_later(
    relay: RelayThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link_control, "ANNOUNCE", 0.7)
    a, b = documents(1, ONE), documents(2, ONE)
    with quick(relay.url, a) as la, quick(relay.url, b) as lb:
        la.wait_synced(PATIENCE)
        lb.wait_synced(PATIENCE)
        for clock in (1, 2):
            a[ONE].present = (Announcement(7, clock, "{}"),)
            control_of(la).announce(ONE)
            eventually(lambda clock=clock: b[ONE].heard.get(7) == (clock, "{}"))  # type: ignore[misc]


def test_presence_past_a_limit_ends_for_its_document_and_nothing_else(tmp_path: Path) -> None:
    with RelayThread(tmp_path / "relay", limits=Limits(presence_entries=1), check=False) as relay:
        a = documents(1, ONE)
        a[ONE].present = (Announcement(7, 1, "{}"), Announcement(8, 1, "{}"))
        with quick(relay.url, a) as link:
            link.wait_synced(PATIENCE)
            a.put(ONE, b"later")
            control_of(link).notify(ONE)
            control_of(link).announce(ONE)
            link.wait_synced(PATIENCE)
            assert link.last_error is None and not a[ONE].outbox


def test_progress_counts_what_has_come_and_gone(relay: RelayThread) -> None:
    a, b = documents(1, ONE, TWO), documents(2, ONE, TWO)
    for n in range(300):
        a.put(ONE, b"one %d" % n)
    with quick(relay.url, a) as link:
        link.wait_synced(PATIENCE)
        assert link.progress == Progress(2, 2, 0, 0, 1, 1, 0), "a refill is one record"
        a.put(TWO, b"two")
        control_of(link).notify(TWO)
        link.wait_synced(PATIENCE)
        assert link.progress == Progress(2, 2, 0, 0, 2, 2, 0)
    assert link.progress == Progress(2, 2, 0, 0, 2, 2, 0), "as far as was seen"
    seen: list[Progress] = []
    with quick(relay.url, b) as link:
        link.observe_progress(lambda progress: 1 / 0)  # type: ignore[arg-type, return-value]
        stop = link.observe_progress(seen.append)
        link.wait_synced(PATIENCE)
        assert seen[-1] == link.progress == Progress(2, 2, 2, 2, 0, 0, 0)
        stop()


def test_progress_knows_what_waits_while_nobody_answers() -> None:
    a = documents(1, ONE)
    a.put(ONE, b"x" * 96)
    with quick("ws://127.0.0.1:9", a) as link:
        assert link.progress == Progress(0, 0, 0, 0, 0, 1, 100)


def test_a_link_is_not_in_step_while_something_waits(tmp_path: Path) -> None:
    """A record that the relay refuses waits: the link is not in step, and says why."""
    a = documents(1, ONE)
    a.put(ONE, b"one")
    with RelayThread(tmp_path, limits=Limits(record=1000), check=False) as relay, quick(relay.url, a) as link:
        link.wait_synced(PATIENCE)
        eventually(lambda: link.status, lambda status: status == ("in step", None))
        a.follow(TWO)
        a.put(TWO, bytes(2000))
        control_of(link).notify()
        status = eventually(lambda: link.status, lambda status: status.error is not None)
        assert (status.state, status.code) == ("catching up", 22)
    assert link.status == ("closed", None)


def test_a_relay_that_is_full_says_when_to_come_back_and_is_obeyed(tmp_path: Path) -> None:
    asked: list[float] = []

    class Noted(Backoff):
        def next(self, retry_after: float = 0.0) -> float:
            asked.append(retry_after)
            return 0.01

    with RelayThread(tmp_path / "relay", limits=Limits(connections=1, retry_after=3.0), check=False) as relay:
        a, b = documents(1, ONE), documents(2, ONE)
        a.put(ONE, b"from a")
        with quick(relay.url, a) as first:
            first.wait_synced(PATIENCE)
            second = Link(relay.url, b, backoff=Noted(lambda: 0.5))
            eventually(lambda: 3.0 in asked)
        with second:
            second.wait_synced(PATIENCE)
            assert b.blobs(ONE) == {b"from a"}


@pytest.mark.parametrize(
    ("error", "said"),
    [(ConnectionResetError(), "ConnectionResetError."), (OSError("no route"), "OSError: no route.")],
)
def test_what_ends_a_connection_is_said_in_a_sentence(error: OSError, said: str) -> None:
    assert str(explained(error)) == said


def test_a_link_shows_what_is_documented_and_nothing_else() -> None:
    """All that a repo calls is LinkControl's."""
    page = (Path(__file__).parents[2] / "docs" / "sync.md").read_text(encoding="utf-8")
    shown = {name for name in dir(Link) if not name.startswith("_")} | {"url"}
    assert shown == {
        "bytes_received", "bytes_sent", "close", "kept_there", "last_error", "observe", "observe_progress", "progress",
        "state", "status", "synced", "url", "wait_synced",
    }  # fmt: skip
    assert [name for name in sorted(shown) if name not in page] == []
