"""Clients, a relay and their disks in one process on virtual time: a seed decides what happens."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

from sim_clients import URL, ClientProcess, Machine
from sim_disk import Disks, kept
from sim_network import Clock
from sim_page import Page
from sim_relay import Ledger, RelayProcess, copy_files
from sim_validator import FragileReplica

import llmcrdt
from llmcrdt.crdt.yjs.backend import YjsBackend
from llmcrdt.crdt.yjs.replica import YjsReplica
from llmcrdt.crdt.yjs.update import read_structs, read_update
from llmcrdt.document import library as library_document
from llmcrdt.document import schema
from llmcrdt.document.presence import Presence
from llmcrdt.exceptions import RelayRefused, StoreError
from llmcrdt.ids import document_bytes, document_id
from sync_server.log.base import LogError
from sync_server.log.file import DATABASE

_QUIET = 300.0
"""Virtual seconds within which everything comes to rest once nothing breaks any more."""


class World:
    """``with`` it. ``rng`` decides what the network and the disks do; each step brings its own."""

    def __init__(self, seed: int, folder: Path) -> None:
        self.rng = random.Random(seed)
        self.folder = folder
        self.clock, self.ledger, self.disks = Clock(), Ledger(), Disks(folder)
        self.machines: list[Machine] = []
        self.pages: list[Page] = []
        self.relay_folder = folder / "relay"
        self.relay_copy: Path | None = None
        self.relay_rolled_back = self.client_rolled_back = False
        self.folds_work = False
        self.names = self.words = 0
        self.erased: dict[str, str] = {}
        # The words said in each conversation, and the conversations that somebody deleted, or tried to.
        self.words_of: dict[str, list[str]] = {}
        self.deletions: set[str] = set()
        self.goals_met = 0
        self.library: str | None = None
        self._patches = [
            mock.patch("llmcrdt.repo.repo.backend", return_value=YjsBackend(self._replica)),
            mock.patch("llmcrdt.repo.watcher.Watcher.start", return_value=None),  # ClientProcess looks
            mock.patch("llmcrdt.repo.open_documents.Presence", partial(Presence, clock=lambda: self.clock.now)),
            mock.patch("sync_server.workers.validator_worker.backend", return_value=YjsBackend(FragileReplica)),
            mock.patch("sync_server.workers.log_slices._SLICE", 1_500),
            mock.patch("llmcrdt.repo.journal.SMALL", 2_500),
            mock.patch("llmcrdt.crdt.yjs.split.RECORD", 1_000),
        ]

    def _replica(self, roots: Iterable[str], **given: Any) -> YjsReplica:
        return YjsReplica(roots, client_id=self.rng.getrandbits(32), **given)

    def __enter__(self) -> World:
        self.disks.__enter__()
        for patch in self._patches:
            patch.start()
        self.relay_folder.mkdir()
        self.start_relay()
        for _ in range(self.rng.randint(2, 3)):
            self.add_machine()
        first = self.processes()[0]
        first.run(lambda: first.repo.create("first"))
        return self

    def __exit__(self, *error: object) -> None:
        try:
            for process in self.processes():
                process.die()
            if self.relay.alive:
                self.relay.die()
        finally:
            for patch in self._patches:
                patch.stop()
            self.disks.__exit__(None, None, None)

    def name(self, of: str) -> str:
        self.names += 1
        return f"{of}-{self.names}"

    def word(self, conversation: str = "") -> str:
        self.words += 1
        word = f"word{self.words:05d}"
        self.words_of.setdefault(conversation, []).append(word)
        return word + "x" * self.rng.choice((0, 3, 300))

    def processes(self) -> list[ClientProcess]:
        return [process for machine in self.machines for process in machine.processes]

    @property
    def relay_is_up(self) -> bool:
        """Whether its disk can be read: one whose power is gone may not have noticed yet."""
        return self.relay.alive and not self.disks.power_is_gone(self.relay_folder)

    # ---------------------------------------------------------------- starting and ending

    def start_relay(self) -> None:
        args = (self.disks, self.clock, self.rng, self.ledger, self._relay_lost_power, self._deleted)
        try:
            self.relay = RelayProcess(self.name("relay"), self.relay_folder, *args)
            self.relay.folds_work = self.folds_work
        except LogError:
            if self.disks.power_is_gone(self.relay_folder):
                self.disks.restore_power(self.relay_folder, self.rng)
            self.clock.after(self.rng.uniform(0, 3), self.start_relay)

    def end_relay(self, back_after: float) -> None:
        if self.relay.alive:
            self.relay.die()
            self.clock.after(back_after, self.start_relay)

    def _relay_lost_power(self) -> None:
        self.relay.die()
        self.disks.restore_power(self.relay_folder, self.rng)
        self.clock.after(self.rng.uniform(0, 3), self.start_relay)

    def add_machine(self, source: Machine | None = None) -> Machine:
        folder = self.folder / f"m{len(self.machines)}"
        if source is None:
            folder.mkdir()
        else:
            copy_files(source.folder, folder)
        machine = Machine(folder, self.library, self.rng)
        if source is not None:
            machine.said = {document: set(entries) for document, entries in source.said.items()}
            machine.deleted = set(source.deleted)
        self.machines.append(machine)
        self.start_process(machine)
        return machine

    def start_process(self, machine: Machine) -> None:
        machine.starts += 1
        name = self.name(machine.folder.name)
        args = (machine, self.disks, self.clock, self.rng, lambda: self.relay, self._client_lost_power)
        try:
            process = ClientProcess(name, *args)
        except StoreError:
            self.disks.kill(name)
            if self.disks.power_is_gone(machine.folder):
                self._client_lost_power(machine)
            else:  # its disk is full
                self.clock.after(1.0, lambda: self.start_process(machine))
            return
        self.library = process.repo.library
        process.run(lambda: self.check_said(process))

    def end_process(self, process: ClientProcess, back_after: float) -> None:
        machine = process.machine
        process.die()
        self.clock.after(back_after, lambda: self.start_process(machine))

    def _client_lost_power(self, machine: Machine) -> None:
        count = max(1, len(machine.processes))
        for process in tuple(machine.processes):
            process.die()
        self.disks.restore_power(machine.folder, self.rng)
        for _ in range(count):
            self.clock.after(self.rng.uniform(0, 3), lambda: self.start_process(machine))

    def check_said(self, process: ClientProcess) -> None:
        """All that a device wrote, took in or deleted is there, or gone, after every crash."""
        there = {c.id: process.entries(c) for c in process.conversations()}
        deleted = {document for document in self.deletions if process.is_deleted(document)}
        assert deleted >= process.machine.deleted, "what was deleted stays so after a crash"
        for document, entries in process.machine.said.items():
            if document not in deleted:
                assert entries <= there.get(document, set()), "what a device had on its disk is there after a crash"

    def _deleted(self, raw: bytes) -> None:
        """The relay says that nothing is left of a document."""
        assert document_id(raw) in self.deletions
        words = self.words_of.get(document_id(raw), ())
        for path in self.relay_folder.glob(DATABASE + "*"):
            data = b"" if path.name.endswith("-shm") else kept(path)
            assert not [word for word in words if word.encode() in data], f"what was deleted is in {path.name}"

    def check_acked(self) -> None:
        """Nothing that was acknowledged is lost, as long as the relay's data was not put back or wiped."""
        if not self.relay_is_up:
            return
        with self.disks.running(self.relay.name):
            db = sqlite3.connect(self.relay_folder / DATABASE, isolation_level=None)
            try:
                stored = {
                    (document, session, n): data
                    for document, session, n, data in db.execute(
                        "SELECT d.id, s.id, r.n, r.data FROM records r JOIN sessions s ON s.number = r.session"
                        " JOIN documents d ON d.number = s.document"
                    )
                }
                query = "SELECT d.id, s.id, s.folded FROM sessions s JOIN documents d ON d.number = s.document"
                folded = {(document, session): n for document, session, n in db.execute(query)}
                gone = {document for (document,) in db.execute("SELECT id FROM documents WHERE gone > 0")}
            finally:
                db.close()
        assert gone >= self.ledger.deleted, "what was deleted stays so"
        assert {document_id(raw) for raw in gone} <= self.deletions, "nothing else is deleted"
        assert not self.ledger.bad.intersection(stored.values()), "what is bad is in no log"
        for (document, session, n), data in self.ledger.acked.items():
            if document not in gone and n > folded.get((document, session), 0):
                assert stored.get((document, session, n)) == data, "what was acknowledged is in the log, as it was sent"

    # ---------------------------------------------------------------- goals

    def set_goal(self, process: ClientProcess) -> None:
        """``synced``: all that was local at the call is durable on the relay, all that the relay had is here."""
        ours, theirs, epoch = process.state(), self.relay_state(), self.ledger.epoch
        made = process.machine
        deleted = self.deletions_of(process)

        def done(why: RelayRefused | None) -> None:
            assert why is None, why
            self.goals_met += 1
            if self.ledger.epoch == epoch and self.relay_is_up:
                now = self.relay_state()
                assert not deleted & set(self.relay.log.documents()), "what is deleted here is deleted on the relay"
                for document, update in ours.items():
                    # One that was deleted since is not there any more, and the library may still be under way.
                    if document in process.repo._core.following() and (
                        document in now or document not in self.deletions
                    ):
                        assert says_all(document, self.library, now.get(document, []), update), "ours is on the relay"
            if self.ledger.epoch == epoch and made in self.machines:
                here = process.state()
                for document, updates in theirs.items():
                    if document in here:
                        said = Said(document, self.library, [here[document]])
                        assert all(map(said.holds, updates)), "the relay's is here"

        process.follower.add_waiter(done)
        process._pump()

    def deletions_of(self, process: ClientProcess) -> set[bytes]:
        """All that a process has to have deleted at the relay before it is in step."""
        process.repo._core.listing.refresh()
        return set(map(document_bytes, process.repo._core.store.relay_tasks.deletions(URL)))

    def relay_state(self) -> dict[str, list[bytes]]:
        """All that the relay has, record by record."""
        if not self.relay_is_up:
            return {}
        with self.disks.running(self.relay.name):
            return {
                llmcrdt.ids.document_id(raw): list(self.relay.log.snapshots.contents(raw, 1 << 30))
                for raw in self.relay.log.documents()
            }

    def check_promise(self, process: ClientProcess, relay: dict[str, list[bytes]]) -> None:
        """(the log up to the cursor) + (the outbox) contain all that the document has on this device."""
        for document, update in process.state().items():
            raw, cursor = document_bytes(document), process.local.cursor(document)
            head = self.relay.log.records.head(raw) if self.relay_is_up else None
            if cursor is None or head is None or head.cursor.log != cursor.log:
                continue
            with self.disks.running(self.relay.name):
                if not self.relay.log.records.holds(raw, cursor):
                    continue
                log = list(self.relay.log.snapshots.contents(raw, cursor.position))
            waiting = [w.record.data for w in process.local.outbox(document, 0, 1 << 20)]
            assert says_all(document, self.library, [*log, *waiting], update), "log and outbox have all of it"
            if document != self.library:
                there = YjsReplica(schema.ROOTS)
                there.load(None, relay[document])
                durable = {e.id for e in process.repo.get(document).transcript() if e.sync == "durable"}
                assert durable <= set(there.keys(schema.ENTRIES)), "what is said to be durable is on the relay"

    # ---------------------------------------------------------------- the end

    def heal(self) -> None:
        """Nothing breaks any more: everything comes to rest."""
        for folder in (self.relay_folder, *(machine.folder for machine in self.machines)):
            self.disks.fill(folder, False)
            self.disks._left.pop(str(folder), None)
        self.relay.folds_work = self.folds_work = True
        self.clock.run(self.clock.now + 40)
        self.come_to_rest()  # also on connections that were there all the while
        for process in self.processes():
            self.end_process(process, 0)  # the next one asks for the folds that failed
        self.clock.run(self.clock.now + 1)
        for _ in range(3):
            self.come_to_rest()
        self.clock.run(self.clock.now + 5)

    def come_to_rest(self) -> None:
        """All that is said anywhere gets everywhere."""
        left = len(self.processes())

        def done(why: RelayRefused | None) -> None:
            nonlocal left
            assert why is None, why
            left -= 1

        for process in self.processes():
            known = self.deletions_of(process)

            def taken(why: RelayRefused | None, deleted: set[bytes] = known) -> None:
                done(why)
                assert not deleted & set(self.relay.log.documents()), "what is deleted here is deleted on the relay"

            process.follower.add_waiter(taken)
            process._pump()
        end = self.clock.now + _QUIET
        while left and self.clock.now < end:
            self.clock.run(self.clock.now + 5)
        assert not left, "once the network is whole, everything comes to rest"


class Said:
    """All that some updates of a document say."""

    def __init__(self, document: str, library: str | None, updates: list[bytes]) -> None:
        self._updates = updates
        self._replica = YjsReplica(library_document.ROOTS if document == library else schema.ROOTS)
        for one in updates:
            self._replica.apply(one)

    def holds(self, update: bytes) -> bool:
        """Whether an update says nothing beside it. If it does, it is said from now on."""
        applied = self._replica.apply(update)
        # One that waits for others is not in the replica: whether it waited before shows in the updates themselves.
        waits = applied.pending and not _named(update) <= set().union(*map(_named, self._updates))
        return not applied.changed and not waits


def says_all(document: str, library: str | None, updates: list[bytes], update: bytes) -> bool:
    """Whether an update says nothing that the others don't say."""
    return Said(document, library, updates).holds(update)


def _named(update: bytes) -> set[tuple[str, int, int]]:
    """All that an update writes and deletes, one by one."""
    written = {("writes", s.client, clock) for s in read_structs(update)[0] for clock in range(s.clock, s.end)}
    deletes = read_update(update).deletes.items()
    return written | {
        ("deletes", client, n) for client, ranges in deletes for start, end in ranges for n in range(start, end)
    }
