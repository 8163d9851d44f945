"""Plain records are checked before they are acknowledged: what is bad goes nowhere, and nobody else notices."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
import threading
from collections import Counter, OrderedDict
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import pycrdt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Subprotocol

import llmcrdt
from llmcrdt.exceptions import RelayRefused
from llmcrdt.ids import document_id
from llmcrdt.sync import codec
from llmcrdt.sync.link import Link, control_of
from llmcrdt.sync.messages import (
    MAX_FRAME,
    PATH,
    SUBPROTOCOL,
    Ack,
    Barrier,
    Close,
    Error,
    ErrorCode,
    Hello,
    Message,
    Open,
    Opened,
    Push,
    Reached,
    Record,
    Records,
)
from llmcrdt.testing.local_documents import BlobDocuments
from llmcrdt.varint import write_uint
from sync_server.core.events import Drop, Greeted, Joined, Send
from sync_server.core.limits import Limits
from sync_server.core.rooms import Rooms
from sync_server.core.validation import (
    DiffRequest,
    Flush,
    Flushed,
    Left,
    MergeRequest,
    Received,
    ReplicaDropped,
    ValidateRequest,
    ValidateResult,
    Validation,
)
from sync_server.doors import yjs
from sync_server.log.base import LogError, Origin
from sync_server.log.file import DATABASE
from sync_server.log.records import SqliteRecords
from sync_server.log.sqlite import SqliteStorage
from sync_server.thread import RelayThread
from sync_server.workers import framing, starter, validator, validator_worker
from sync_server.workers.validator import Validator

from ...hostile.updates import far_apart, text
from ...waiting import eventually
from ..hostile_updates import GOOD, UPDATES
from ..yjs_peers import Bare, texts, update

D, E, S, T = b"d" * 16, b"e" * 16, b"s" * 16, b"t" * 16
WAIT = 60


@contextmanager
def native(url: str, *documents: bytes) -> Iterator[ClientConnection]:
    options = {"subprotocols": [Subprotocol(SUBPROTOCOL)], "proxy": None, "max_size": MAX_FRAME}
    with connect(url + PATH, **options) as client:  # type: ignore[arg-type]
        ask(client, Hello("test"))
        for document in documents:
            assert isinstance(ask(client, Open(document, "yjs")), Opened)
        yield client


def hear(client: ClientConnection) -> Message:
    frame = client.recv(timeout=WAIT)
    assert isinstance(frame, bytes)
    return codec.decode(frame)


def ask(client: ClientConnection, *messages: Message) -> Message:
    for message in messages:
        client.send(codec.encode(message))
    return hear(client)


def pieces(request: Push | DiffRequest | MergeRequest) -> int:
    """How many records or updates are to be validated."""
    match request:
        case Push(_, _, _, data):
            return len(data)
        case MergeRequest(_, _, updates):
            return len(updates)
    return 0


def edits(count: int, size: int = 10, key: str = "k") -> list[bytes]:
    """The updates of one writer."""
    doc = pycrdt.Doc()
    return [update(f"{key}{n}", "x" * size, doc) for n in range(count)]


def test_a_bad_record_is_refused_kept_for_the_operator_and_goes_nowhere(tmp_path: Path) -> None:
    one, two = edits(2)
    with RelayThread(tmp_path) as relay, native(relay.url, D) as client:
        with native(relay.url, D) as other:
            client.send(codec.encode(Push(D, S, 1, (one, b"no update", two))))
            answers = [hear(client), hear(client)]
            (refused,) = (m for m in answers if isinstance(m, Error))
            assert (refused.code, refused.document, refused.session, refused.n) == (ErrorCode.BAD_RECORD, D, S, 2)
            assert Ack(D, S, 1, 1, 1) in answers
            assert hear(other) == Records(D, 1, (Record(S, 1, one),))
            assert ask(client, Push(D, S, 2, (two,))) == Ack(D, S, 2, 1, 2)
            assert hear(other) == Records(D, 2, (Record(S, 2, two),))
        command = [sys.executable, "-m", "sync_server", "inspect", "--data", str(tmp_path)]
        shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
        assert dict(zip(*(line.split("\t") for line in shown), strict=True))["refused"] == "1"
    with closing(SqliteStorage(tmp_path / DATABASE)) as log:
        assert list(log.snapshots.contents(D, 9)) == [one, two]
        ((reason, data),) = log.database.connection.execute("SELECT reason, data FROM refused").fetchall()
        assert data == b"no update" and "update" in reason


def test_a_document_of_which_nothing_was_taken_is_not_there(tmp_path: Path) -> None:
    """It would belong to whoever pushed what was refused."""
    with RelayThread(tmp_path) as relay, native(relay.url, D) as client:
        assert isinstance(refused := ask(client, Push(D, S, 1, (b"no update",))), Error)
        assert refused.code == ErrorCode.BAD_RECORD
    with closing(SqliteStorage(tmp_path / DATABASE)) as log:
        assert log.records.head(D) is None and not log.documents()


@pytest.fixture(scope="module")
def relay(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RelayThread]:
    with RelayThread(tmp_path_factory.mktemp("relay"), limits=Limits(keep_memory=1 << 30)) as relay:
        yield relay


@pytest.mark.parametrize("before", [(), (GOOD,)], ids=["empty", "not empty"])
@pytest.mark.parametrize("name", UPDATES)
def test_known_bad_updates_harm_nobody_at_either_door(relay: RelayThread, name: str, before: tuple[bytes, ...]) -> None:
    document = random.randbytes(16)
    with native(relay.url, document) as watcher, Bare(relay.url, document_id(document)) as page:
        page.sync()
        for n, good in enumerate(before, 1):
            assert isinstance(ask(watcher, Push(document, S, n, (good,))), Ack)
        with native(relay.url, document) as client:
            client.send(codec.encode(Push(document, T, 1, (UPDATES[name],))))
            while not isinstance(answer := hear(client), Error):
                pass
            assert (answer.code, answer.session, answer.n) == (ErrorCode.BAD_RECORD, T, 1)
        with Bare(relay.url, document_id(document)) as client:
            client.sync()
            client.send(b"\x00\x02" + write_uint(len(UPDATES[name])) + UPDATES[name])
            assert client.close_code() == 4422
        later = edits(1)[0]
        assert isinstance(ask(watcher, Push(document, S, len(before) + 1, (later,))), Ack)
        assert texts(*before, page_updates(page, len(before) + 1)[-1]) == {"k0": "x" * 10}


def page_updates(page: Bare, count: int) -> list[bytes]:
    got: list[bytes] = []
    while len(got) < count:
        message = page.hear()
        if hasattr(message, "update"):
            got.append(message.update)
    return got


def test_a_device_with_a_bad_record_goes_on_and_its_user_is_told(tmp_path: Path) -> None:
    name, local = document_id(D), BlobDocuments(1)
    good = edits(3)
    local.follow(name, "yjs")
    with RelayThread(tmp_path) as relay, Link(relay.url, local) as link:
        link.wait_synced(WAIT)
        with pytest.MonkeyPatch.context() as patch:
            data = iter([good[0], b"bad", good[1], good[2]])
            patch.setattr("llmcrdt.testing.local_documents.pack", lambda _: next(data))
            for n in range(4):
                local.put(name, b"%d" % n)
        control_of(link).notify(name)
        with pytest.raises(RelayRefused) as refused:
            link.wait_synced(WAIT)
        assert refused.value.code == ErrorCode.BAD_RECORD
        eventually(lambda: not local.outbox(name))
        assert b"bad" in [r.data for r in local[name].quarantine]
    with RelayThread(tmp_path) as relay, Bare(relay.url, name) as page:
        assert texts(page.sync()) == texts(*good)
        with Link(relay.url, local) as link:
            link.wait_synced(WAIT)


def test_without_checks_everything_is_appended(tmp_path: Path) -> None:
    with RelayThread(tmp_path, check=False) as relay, native(relay.url, D) as client:
        assert ask(client, Push(D, S, 1, (b"no update",))) == Ack(D, S, 1, 1, 1)
        with Bare(relay.url, document_id(D)) as page:  # now somebody is there who can't look for himself
            assert page.sync() == b"\x00\x00"
            refused = ask(client, Push(D, S, 2, (b"no update either",)))
            assert isinstance(refused, Error) and refused.code == ErrorCode.BAD_RECORD
            assert ask(client, Push(D, S, 2, tuple(edits(1)))) == Ack(D, S, 2, 1, 2)
            assert texts(page_updates(page, 1)[0]) == {"k0": "x" * 10}


def test_a_worker_killed_again_and_again_loses_and_refuses_nothing(tmp_path: Path) -> None:
    made, stop = edits(120, 200), threading.Event()
    child, url = start(tmp_path)

    def killer() -> None:
        rng = random.Random(5)
        for _ in range(8):  # no more: a busy machine starts workers more slowly than this kills them
            if stop.wait(0.5 + rng.random()):
                return
            for pid in workers(child.pid):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    thread = threading.Thread(target=killer)
    thread.start()
    try:
        with native(url, D) as client, Bare(url, document_id(E)) as page:
            page.sync()
            mine = edits(30, key="p")
            for n in range(30):
                client.send(codec.encode(Push(D, S, 4 * n + 1, tuple(made[4 * n : 4 * n + 4]))))
                page.send(b"\x00\x02" + write_uint(len(mine[n])) + mine[n])
                stop.wait(0.1)
            acked = 0
            while acked < 120:
                answer = hear(client)
                assert isinstance(answer, Ack), answer
                acked += answer.count
            stop.set()
            thread.join()
            assert texts(page.sync()) == texts(*mine)
        with Bare(url, document_id(D)) as late:
            assert texts(late.sync()) == texts(*made)
    finally:
        stop.set()
        thread.join()
        child.terminate()
        child.communicate()
    with closing(SqliteStorage(tmp_path / DATABASE)) as log:
        assert log.database.connection.execute("SELECT count(*) FROM refused").fetchone() == (0,)


def workers(relay: int, module: str = starter.VALIDATOR) -> list[int]:
    """The running workers of one kind that a relay started, or its fork server."""
    parents, found = {}, []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            status, command = (path / "stat").read_text(), (path / "cmdline").read_text().split("\0")
        except OSError:
            continue
        before, _, after = status.rpartition(")")
        state, parent, *_ = after.split()
        parents[int(path.name)] = int(parent)
        forked = before.partition("(")[2] == module.rpartition(".")[2].removesuffix("_worker")
        if state != "Z" and (forked or command[1:3] == ["-m", module]):
            found.append(int(path.name))
    return [pid for pid in found if relay in (parents[pid], parents.get(parents[pid]))]


def start(data: Path) -> tuple[subprocess.Popen[str], str]:
    command = [sys.executable, "-m", "sync_server", "--port", "0", "--data", str(data)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    assert child.stdout
    return child, child.stdout.readline().split()[-1]


# ---------------------------------------------------------------- the validator alone


class Kept:
    """A validator over a real log, and the rooms' part in it: what passed is appended before a Flush is answered."""

    def __init__(self, folder: Path, **limits: int) -> None:
        self.log = SqliteStorage(folder / DATABASE)
        self.answers: dict[int, ValidateResult] = {}
        self.parts = Counter[int]()
        self.flushes: list[Flush] | None = None
        self._got = threading.Condition()
        self._ticket = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self.validator = Validator(self.log.snapshots, Limits(**limits), self._take)
        self._loop.call_soon_threadsafe(self.validator.start)

    def _take(self, answer: ValidateResult | Flush) -> None:
        if isinstance(answer, Flush):
            if self.flushes is not None:
                return self.flushes.append(answer)
            head = self.log.records.head(answer.document)
            return self.tell(Flushed(answer.document, head.cursor.position if head else 0))
        with self._got:
            self.parts[answer.ticket] += answer.good
            if not answer.more:
                self.answers[answer.ticket] = answer._replace(good=self.parts[answer.ticket])
            self._got.notify_all()

    def tell(self, *orders: ValidateRequest | ReplicaDropped | Flushed) -> None:
        self._loop.call_soon_threadsafe(self.validator.put, *orders)

    def put(self, request: Push | DiffRequest | MergeRequest) -> int:
        self._ticket += 1
        self.tell(ValidateRequest(self._ticket, request, "yjs", pieces(request)))
        return self._ticket

    def wait(self, *tickets: int) -> list[ValidateResult]:
        with self._got:
            assert self._got.wait_for(lambda: self.answers.keys() >= set(tickets), WAIT)
        return [self.answers[ticket] for ticket in tickets]

    def append(self, document: bytes, *data: bytes, session: bytes = S) -> None:
        first = self.log.records.last(document, session) + 1
        self.log.records.append(document, session, first, data, Origin("yjs", b"l" * 16))
        assert not self.log.records.commit()

    def close(self) -> None:
        asyncio.run_coroutine_threadsafe(self.validator.stop(), self._loop).result(WAIT)
        assert self.validator.scheduler.size == 0, "what it counts is what there is"
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self.log.close()


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[Kept]:
    kept = Kept(tmp_path)
    yield kept
    kept.close()


async def die(transport: Any, worker: Any) -> None:
    transport.kill()
    while not worker.over:
        await asyncio.sleep(0.01)


async def speak(transport: Any, worker: Any) -> None:
    worker.pipe_data_received(1, framing.joined([b"ok", b"", b"0"]))
    assert worker.over


@pytest.mark.parametrize("go_wrong", [die, speak])
def test_a_worker_that_goes_wrong_before_it_is_known_is_started_again(
    kept: Kept, monkeypatch: pytest.MonkeyPatch, go_wrong: Callable[[Any, Any], Awaitable[None]]
) -> None:
    """It ends, or speaks before it is asked."""
    start, times = starter.connect, list[int]()

    async def started(*arguments: Any, **options: Any) -> Any:
        transport, worker = await start(*arguments, **options)
        times.append(1)
        if len(times) == 1:
            await go_wrong(transport, worker)
        return transport, worker

    monkeypatch.setattr(validator.starter, "connect", started)
    monkeypatch.setattr(validator, "_PAUSE", 0.1)
    ticket = kept.put(Push(D, S, 1, tuple(edits(1))))
    assert kept.wait(ticket) == [ValidateResult(ticket, 1)]
    assert len(times) == 2


def spoil_first_answers(kept: Kept, monkeypatch: pytest.MonkeyPatch, malformed: list[bytes]) -> list[list[bytes]]:
    """The first answers of the worker are these; what it really said. If the validator fails, ticket 1 is told."""
    feed, said = framing.Reader.feed, list[list[bytes]]()

    def wrong(reader: framing.Reader, data: bytes) -> list[bytes] | None:
        answers = feed(reader, data)
        if answers:
            said.append(answers)
        return malformed if answers and len(said) == 1 else answers

    monkeypatch.setattr(framing.Reader, "feed", wrong)
    monkeypatch.setattr(kept.validator, "_failed", lambda: kept._take(ValidateResult(1, failed=True)))
    return said


MALFORMED = [
    [b"ok"],
    [b"ok", b"", b"x"],
    [b"ok", b"", b"-1"],
    [b"ok", b"", b"3", b"1", b""],
    [b"ok", b"", b"0", b"ok", b"", b"0"],
    [b"ok", b"", b"0", b"ok", b"", b"1", b"2"],
    [b"ok", b"", b"0", b"ok", b"", b"2", b"1", b""],
    [b"ok", b"", b"0", b"ok", b"", b"2", b"3", b""],
    [b"ok", b"", b"0", b"ok", b"", b"2", b"2", b"", b"more"],
    [b"ok", b"", b"0", b"ok", b"", b"3", b"2", b"", b"more"],
    [b"ok", b"", b"0", b"bad", b"no update", b"2", b"2", b""],
    [b"ok", b"", b"0", b"bad", b"no update", b"2", b"-1", b""],
    [b"ok", b"", b"0", b"bad", b"", b"2", b"1", b""],
    [b"ok", b"", b"0", b"fine", b"", b"2", b"2", b""],
    [b"gone", b"", b"0", b"ok", b"", b"2", b"2", b""],
    [b"bad", b"\xff", b"0"],
    [],
]


@pytest.mark.parametrize("malformed", MALFORMED)
def test_a_worker_that_says_what_can_not_be_is_started_again(
    kept: Kept, monkeypatch: pytest.MonkeyPatch, malformed: list[bytes]
) -> None:
    """Nothing of such an answer is believed, and the relay goes on."""
    said = spoil_first_answers(kept, monkeypatch, malformed)
    assert kept.put(Push(D, S, 1, tuple(edits(2)))) == 1
    assert kept.wait(1) == [ValidateResult(1, 2)]
    loaded, checked = [b"ok", b"", b"0"], [b"ok", b"", b"2", b"2", b""]
    assert said[0] == loaded + checked, "the document is loaded, and the records are checked"
    assert kept.validator.restarts == 1


@pytest.mark.parametrize(
    ("order", "malformed"),
    [
        (b"merge", [b"which", b"", b"0"]),
        (b"merge", [b"bad", b"", b"0"]),
        (b"cover", [b"ok", b"", b"1", b""]),
        (b"diff", [b"ok", b"", b"1", b""]),
        (b"diff", [b"ok", b"", b"2", b"", b""]),
    ],
)
def test_other_answers_are_not_believed_either(
    kept: Kept, monkeypatch: pytest.MonkeyPatch, order: bytes, malformed: list[bytes]
) -> None:
    """Which of one update; bad, for no reason; and one thing in place of none, or two of three."""
    spoil_first_answers(kept, monkeypatch, [b"ok", b"", b"0", *malformed])
    kept.put(
        DiffRequest(D, "yjs", b"\x00")
        if order == b"diff"
        else MergeRequest(D, "yjs", (b"\x00\x00",), order == b"merge")
    )
    (answer,) = kept.wait(1)
    assert (answer.failed, answer.refused, len(answer.data)) == (False, "", 2 if order == b"diff" else 0)
    assert kept.validator.restarts == 1


def test_a_batch_costs_the_same_however_many_documents_are_held(kept: Kept) -> None:
    class Documents(OrderedDict[bytes, Any]):
        looked = 0

        def __iter__(self) -> Iterator[bytes]:
            Documents.looked += 1
            return super().__iter__()

        def values(self) -> Any:
            Documents.looked += 1
            return super().values()

    kept.validator.scheduler._documents.by_id = Documents()
    for document in (D, E):
        for n, record in enumerate(edits(3), 1):
            kept.wait(kept.put(Push(document, S, n, (record,))))
    assert Documents.looked == 0
    assert kept.validator.held == 2


def test_a_cold_document_is_loaded_with_all_that_its_log_has(kept: Kept) -> None:
    made = edits(50)
    kept.append(D, *made[:40])
    asked, pushed = kept.put(DiffRequest(D, "yjs", b"\x00")), kept.put(Push(D, S, 41, tuple(made[40:])))
    told, passed = kept.wait(asked, pushed)
    assert texts(told.data[0]) == texts(*made[:40])
    assert (passed.good, passed.refused) == (10, "")


def test_what_a_log_has_that_can_not_be_applied_is_passed_over(kept: Kept) -> None:
    made = edits(6)
    kept.append(D, *made[:3], b"rubbish", *made[3:], UPDATES["bad-0"])
    (told,) = kept.wait(kept.put(DiffRequest(D, "yjs", b"\x00")))
    assert texts(told.data[0]) == texts(*made)


def nested() -> list[bytes]:
    """Updates of client 3: a map in a map, and a text."""
    doc, made = pycrdt.Doc(client_id=3), list[bytes]()
    values, text = doc.get("m", type=pycrdt.Map), doc.get("t", type=pycrdt.Text)
    doc.observe(lambda event: made.append(event.update))
    values["a"] = 1
    values["b"] = pycrdt.Map({"x": "y"})
    text += "hello"
    text.insert(2, "zz")
    return made


CORE_REFUSES = [
    "0102030a270003070171000800030a027c3f8000007c4000000000",  # it gives up in the middle
    "0102030a020003010101000800030a027c3f8000007c4000000000",  # it doesn't read this
    "01010308c503040305027a7a00",  # the same, within its content
]


@pytest.mark.parametrize("bad", CORE_REFUSES)
def test_what_only_the_core_refuses_is_found_among_many_records(kept: Kept, bad: str) -> None:
    before, after = nested(), edits(3)
    data = (*before, bytes.fromhex(bad), *after)
    # Both wait for the document, so they are looked at together.
    answer, merged = kept.wait(kept.put(Push(D, S, 1, data)), kept.put(MergeRequest(D, "yjs", (after[0],))))
    assert (answer.good, bool(answer.refused)) == (len(before), True)
    assert texts(*merged.data) == texts(after[0]), "what came behind the bad one is not there"
    kept.append(D, *before)
    kept.tell(ReplicaDropped(D))
    assert kept.wait(kept.put(Push(D, S, len(before) + 1, tuple(after))))[0].good == len(after)
    (told,) = kept.wait(kept.put(DiffRequest(D, "yjs", b"\x00")))
    whole = pycrdt.Doc()
    whole.apply_update(told.data[0])
    assert str(whole.get("t", type=pycrdt.Text)) == "hezzllo"
    assert texts(told.data[0]) == texts(*before, *after)
    assert kept.validator.restarts == 0


def test_a_document_in_doubt_is_gone_until_it_is_loaded_again() -> None:
    """Updates after it in the same batch must not be looked at with it."""
    before, breaks = nested(), bytes.fromhex(CORE_REFUSES[0])
    for many in (True, False):
        worker = validator_worker.ValidatorWorker(1 << 20)
        assert worker.obey(b"loaded", b"yjs", D, before)[0] == b"ok"
        state = worker.obey(b"check", b"yjs", D, [*edits(1), breaks] if many else [breaks])[0]
        assert state == (b"which" if many else b"broken")
        assert worker.obey(b"check", b"yjs", D, edits(1))[0] == b"gone"
        assert worker.obey(b"diff", b"yjs", D, [b"\x00"])[0] == b"gone"


def test_a_replica_that_was_dropped_is_loaded_again(kept: Kept) -> None:
    one, two = edits(2)
    kept.append(D, one)
    (emitted,) = kept.wait(kept.put(MergeRequest(D, "yjs", (two,))))
    assert texts(one, *emitted.data) == texts(one, two)
    kept.tell(ReplicaDropped(D))  # it did not get into the log
    assert kept.wait(kept.put(MergeRequest(D, "yjs", (two,)))) == [ValidateResult(2, 1, emitted.data)]
    assert kept.wait(kept.put(MergeRequest(D, "yjs", (two,)))) == [ValidateResult(3, 1)], "nothing new any more"


def test_a_document_that_is_dropped_before_it_is_loaded_is_loaded_with_all_that_was_answered_before(kept: Kept) -> None:
    (one,) = edits(1)
    flushes = kept.flushes = []
    ticket = kept.put(DiffRequest(D, "yjs", b"\x00"))
    eventually(lambda: len(flushes) == 1)
    kept.tell(ReplicaDropped(D))
    eventually(lambda: len(flushes) == 2)
    kept.append(D, one)  # between the two
    kept.tell(Flushed(D, 0))
    kept.tell(Flushed(D, 1))
    (told,) = kept.wait(ticket)
    assert texts(told.data[0]) == texts(one)


def test_word_of_a_document_that_is_held_no_longer_ends_nothing(kept: Kept) -> None:
    """As it comes where one was dropped, loaded and dropped again, each time before the word on it."""
    kept.tell(Flushed(D, 0))
    assert kept.wait(kept.put(DiffRequest(D, "yjs", b"\x00")))


def test_who_may_only_read_may_say_nothing_new(kept: Kept) -> None:
    doc = pycrdt.Doc()
    one, two = update("a", 1, doc), update("b", 2, doc)
    before = doc.get_state()
    del doc.get("m", type=pycrdt.Map)["a"]
    gone = doc.get_update(before)
    kept.append(D, one, two)
    for said, fine in ((one, True), (two, True), (gone, False), (update("c", 3, doc), False)):
        (answer,) = kept.wait(kept.put(MergeRequest(D, "yjs", (said,), may_append=False)))
        assert (answer.refused == "") is fine
    kept.append(D, gone)
    kept.tell(ReplicaDropped(D))
    (answer,) = kept.wait(kept.put(MergeRequest(D, "yjs", (gone,), may_append=False)))
    assert answer.refused == ""


def test_documents_are_thrown_away_to_make_room_and_come_back(tmp_path: Path) -> None:
    kept = Kept(tmp_path, keep=3000 + 3 * (4 << 10))
    try:
        names = [bytes([n]) * 16 for n in range(8)]
        made = {name: edits(1, 1000)[0] for name in names}
        for _ in range(3):
            for name in names:
                kept.append(name, *([made[name]] if not kept.log.records.head(name) else []))
                (told,) = kept.wait(kept.put(DiffRequest(name, "yjs", b"\x00")))
                assert texts(told.data[0]) == texts(made[name])
                assert kept.validator.held <= 4
    finally:
        kept.close()


def make_deadly(monkeypatch: pytest.MonkeyPatch, folder: Path, method: str) -> None:
    """Workers die when one method of a replica gets certain bytes; else they are the real ones."""
    (folder / "deadly.py").write_text(
        "import os, sys\n"
        "from llmcrdt.crdt.yjs.replica import YjsReplica\n"
        "from sync_server.workers import validator_worker\n"
        f"real = YjsReplica.{method}\n"
        "def deadly(self, *given):\n"
        "    if b'deadly' in repr(given).encode(): os.abort()\n"
        "    return real(self, *given)\n"
        f"YjsReplica.{method} = deadly\n"
        "main = validator_worker.main\n"
        "if __name__ == '__main__':\n"
        "    sys.exit(validator_worker.process.serve(main))\n"
    )
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setattr(validator.starter, "VALIDATOR", "deadly")


def test_what_kills_the_worker_is_refused_and_what_stands_beside_it_passes(
    kept: Kept, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    make_deadly(monkeypatch, tmp_path, "apply_together")
    good = edits(20)
    deadly = update("k", "deadly")
    tickets = [
        kept.put(Push(D, S, 1, tuple(good))),
        kept.put(Push(E, T, 1, (*good[:3], deadly, good[3]))),
        kept.put(MergeRequest(b"f" * 16, "yjs", (good[0],))),
        kept.put(DiffRequest(D, "yjs", b"\x00")),
    ]
    one, two, three, four = kept.wait(*tickets)
    assert (one.good, one.refused) == (20, "")
    assert (two.good, bool(two.refused)) == (3, True)
    assert texts(*three.data) == texts(good[0])
    assert not four.failed
    assert kept.validator.restarts >= 3
    assert kept.wait(kept.put(Push(E, T, 4, (good[3],))))[0].good == 1


def test_a_worker_that_hangs_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(validator, "_PATIENCE", 1)
    kept = Kept(tmp_path, check_seconds=1)
    try:
        kept.wait(kept.put(Push(D, S, 1, tuple(edits(1)))))
        (pid,) = kept.validator.pids
        os.kill(pid, signal.SIGSTOP)
        (answer,) = kept.wait(kept.put(Push(E, S, 1, tuple(edits(1)))))
        assert answer.good == 1
        assert pid not in kept.validator.pids
    finally:
        kept.close()


def test_the_slow_worker_is_there_while_something_is_slow(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(validator, "_IDLE", 0.2)
    kept.wait(kept.put(Push(D, S, 1, (text(1_000),))))
    quick = kept.validator.pids
    assert len(quick) == 1
    slow, other = kept.put(Push(D, S, 2, (far_apart(1_000),))), kept.put(Push(E, T, 1, tuple(edits(1))))
    assert [answer.good for answer in kept.wait(slow, other)] == [1, 1]
    eventually(lambda: kept.validator.pids, lambda pids: pids == quick)
    assert kept.wait(kept.put(Push(D, S, 3, tuple(edits(1)))))[0].good == 1
    assert kept.validator.restarts == 0


def test_a_document_that_can_not_be_loaded_takes_nothing(
    kept: Kept, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Nobody has looked at what comes for it, so nothing of that is acknowledged."""
    make_deadly(monkeypatch, tmp_path, "load")
    kept.append(D, edits(1)[0], update("k", "deadly"))
    first = kept.wait(kept.put(Push(D, S, 1, tuple(edits(2)))), kept.put(DiffRequest(D, "yjs", b"\x00")))
    restarts = kept.validator.restarts
    later = kept.wait(
        kept.put(Push(D, T, 1, tuple(edits(1)))),
        kept.put(MergeRequest(D, "yjs", (edits(1)[0],))),
        kept.put(MergeRequest(D, "yjs", (b"\x00\x00",), may_append=False)),
        kept.put(Push(D, T, 2, (b"rubbish",))),
    )
    assert {(answer.good, answer.failed, answer.refused) for answer in (*first, *later)} == {(0, True, "")}
    assert kept.validator.restarts == restarts, "it is not tried again"
    assert kept.wait(kept.put(Push(E, S, 1, tuple(edits(1)))))[0].good == 1


def test_a_document_that_harmed_a_worker_is_read_on_and_who_writes_is_told_by_a_code(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    one, two = edits(1)[0], update("k", "deadly")
    with RelayThread(tmp_path / "data", check=False) as relay, native(relay.url, D) as client:
        assert isinstance(ask(client, Push(D, S, 1, (one, two))), Ack)
    make_deadly(monkeypatch, tmp_path, "load")
    with RelayThread(tmp_path / "data") as relay, native(relay.url, E) as client:
        assert isinstance(ask(client, Open(D, "yjs")), Opened)
        assert hear(client) == Records(D, 1, (Record(S, 1, one), Record(S, 2, two)))
        for n in (3, 3):
            refused = ask(client, Push(D, S, n, tuple(edits(2))))
            assert isinstance(refused, Error)
            assert (refused.code, refused.document, refused.session, refused.n) == (ErrorCode.READ_ONLY, D, S, n)
        assert isinstance(ask(client, Push(E, T, 1, tuple(edits(1)))), Ack)
        with Bare(relay.url, document_id(D)) as page:
            page.send(yjs.StepOne(b"\x00"))
            assert page.close_code() == 4403
    with closing(SqliteStorage(tmp_path / "data" / DATABASE)) as log:
        assert list(log.snapshots.contents(D, 9)) == [one, two]


# ---------------------------------------------------------------- order, without a validator


class CheckedRooms:
    """Rooms whose validator answers when it is told to, in any order between documents."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.log = SqliteStorage(folder / DATABASE)
        self.checking = Validation(available=True, always=True)
        self.rooms = Rooms(self.log, Limits(), random.Random(seed).randbytes, self.checking)
        self.todo: list[ValidateRequest] = []
        self.heard: list[tuple[int, object]] = []
        self.weights: list[int] = []

    def step(self, *events: object) -> None:
        outputs = self.rooms.step(events)  # type: ignore[arg-type]
        self.weights += (size for _, size in self.rooms.taken)
        for output in outputs:
            if isinstance(output, ValidateRequest):
                self.todo.append(output)
            elif isinstance(output, Send):
                self.heard += ((peer, output.message) for peer in output.peers)
            elif isinstance(output, Drop):
                self.heard.append((output.peer, output.error))

    def answer(self, rng: random.Random) -> None:
        """The validator answers one document's first job, or a part of it."""
        if self.todo:
            document = rng.choice(self.todo).request.document
            at = next(at for at, todo in enumerate(self.todo) if todo.request.document == document)
            todo = self.todo[at]
            if todo.records > 1 and rng.random() < 0.5:
                part = rng.randrange(1, todo.records)
                self.todo[at] = todo._replace(records=todo.records - part)
                return self.step(ValidateResult(todo.ticket, part, more=True))
            del self.todo[at]
            self.step(ValidateResult(todo.ticket, todo.records))


@settings(max_examples=80, deadline=None)
@given(seed=st.integers(0, 1 << 30))
def test_messages_of_one_peer_about_one_document_keep_their_order(
    tmp_path_factory: pytest.TempPathFactory, seed: int
) -> None:
    rng = random.Random(seed)
    net = CheckedRooms(tmp_path_factory.mktemp("rooms"), seed)
    net.step(Joined(1))
    n = dict.fromkeys((D, E), 0)
    opened = dict.fromkeys((D, E), False)
    pushed, barriers = dict.fromkeys((D, E), 0), 0
    for _ in range(rng.randint(5, 40)):
        document = rng.choice((D, E))
        match rng.randrange(5):
            case 0 if not opened[document]:
                net.step(Received(1, Open(document, "yjs")))
                opened[document] = True
            case 1 | 2 if opened[document]:
                size = rng.randint(1, 4)
                net.step(Received(1, Push(document, S, n[document] + 1, (b"x",) * size), size))
                n[document] += size
                pushed[document] += size
            case 3 if opened[document] and rng.random() < 0.3:
                net.step(Received(1, Close(document)))
                opened[document] = False
            case 4 if rng.random() < 0.3:
                barriers += 1
                net.step(Received(1, Barrier(barriers)))
            case _:
                net.answer(rng)
    leaves = rng.random() < 0.5
    if leaves:
        net.step(Left(1))
    while net.todo:
        net.answer(rng)
    assert not any(isinstance(m, Error) for _, m in net.heard), net.heard
    assert sum(net.weights) == sum(pushed.values()), "each frame is taken off its connection's window once"
    for document in (D, E):
        head = net.log.records.head(document)
        assert (head.cursor.position if head else 0) == pushed[document], "what was sent before it left is there"
    reached = [m.id for _, m in net.heard if isinstance(m, Reached)]
    assert leaves or reached == list(range(1, barriers + 1))
    assert not net.checking.busy and not net.checking._queues and not net.checking._names
    net.log.close()


def test_what_is_checked_is_on_the_time_of_a_subject_or_of_a_connection_that_has_none(tmp_path: Path) -> None:
    net = CheckedRooms(tmp_path, 1)
    for peer, subject in ((1, "ann"), (2, "ann"), (3, "")):
        net.step(Joined(peer), Greeted(peer, 0, subject), Received(peer, Open(D, "yjs")))
        net.step(Received(peer, Push(D, bytes([peer]) * 16, 1, (b"x",))))
    assert [todo.source for todo in net.todo] == ["ann", "ann", 3]
    net.log.close()


def test_a_flush_is_answered_also_where_the_log_could_not_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rooms = CheckedRooms(tmp_path, 1).rooms

    def fails(*_: object) -> None:
        raise LogError("no disk")

    with monkeypatch.context() as patch:
        patch.setattr(SqliteRecords, "head", fails)
        assert rooms.step([Flush(D)]) == []
    assert rooms.step([Flush(E)]) == [Flushed(D, 0), Flushed(E, 0)]


def test_a_merge_that_rests_on_what_is_not_in_the_log_is_looked_at_again(tmp_path: Path) -> None:
    net = CheckedRooms(tmp_path, 1)
    net.step(Joined(1), Joined(2), Received(1, Open(D, "yjs")))
    net.step(Received(1, Push(D, S, 1, (b"a",))), Received(2, MergeRequest(D, "yjs", (b"m",))))
    net.step(Received(3, Push(D, S, 1, (b"b",))))
    push, merge = net.todo
    net.todo = []
    net.rooms._drop(1, Error(1))  # its record is in the replica, and will not be in the log
    net.step(ValidateResult(push.ticket, 1), ValidateResult(merge.ticket, data=(b"rests on it",)))
    (again,) = net.todo
    net.step(ValidateResult(again.ticket, data=(b"m",)))
    assert [s.record.data for s in net.log.records.read(D, 0, 1 << 20, 10)] == [b"m"]
    net.log.close()


def test_what_is_to_be_checked_does_not_wait_for_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The validator works while a step is committed; also where that fails, and the answer comes to nobody."""
    net = CheckedRooms(tmp_path, 1)
    net.step(Joined(1), Received(1, MergeRequest(D, "yjs", (b"one",))))
    (first,) = net.todo
    handed: list[ValidateRequest | ReplicaDropped] = []
    commit = SqliteRecords.commit

    def fails(records: SqliteRecords) -> dict[bytes, LogError]:
        assert [type(order) for order in handed] == [ValidateRequest], "before the commit"
        assert not commit(records)
        return {D: LogError("no disk")}

    events = (ValidateResult(first.ticket, 1, (b"one",)), Received(1, MergeRequest(D, "yjs", (b"two",))))
    with monkeypatch.context() as patch:
        patch.setattr(SqliteRecords, "commit", fails)
        outputs = net.rooms.step(events, handed.extend)
    assert [type(output) for output in outputs] == [ReplicaDropped, Drop]
    (second,) = handed
    assert isinstance(second, ValidateRequest)
    assert net.rooms.step([ValidateResult(second.ticket, 1, (b"two",))]) == [ReplicaDropped(D)]
    assert b"two" not in [s.record.data for s in net.log.records.read(D, 0, 1 << 20, 10)]
    assert not net.checking.busy and not net.checking._queues
    net.log.close()


def test_conversations_sync_as_ever_with_checks(tmp_path: Path) -> None:
    with (
        RelayThread(tmp_path / "relay") as relay,
        llmcrdt.open(tmp_path / "a.db") as a,
        llmcrdt.open(tmp_path / "b.db", library=a.library) as b,
        a.connect(relay.url) as one,
        b.connect(relay.url) as two,
    ):
        conv = a.create("talk")
        for n in range(30):
            conv.append("user", f"line {n}")
        one.wait_synced(WAIT)
        two.wait_synced(WAIT)
        assert b.get(conv.id).transcript().hash == conv.transcript().hash
