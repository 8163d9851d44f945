"""Clients, a relay and their disks in one process on virtual time: a seed decides what happens."""

from __future__ import annotations

import random
import shutil
import sqlite3
from contextlib import suppress
from pathlib import Path
from unittest import mock

from sim_clients import DAY, ClientProcess, LLMCRDTError, Machine
from sim_disk import Disks
from sim_network import Clock
from sim_relay import Ledger, RelayProcess, copy_files

import llmcrdt
from llmcrdt.crdt.yjs import YjsReplica
from llmcrdt.document import library as library_document
from llmcrdt.document import schema
from llmcrdt.exceptions import NotSealed, RelayRefused, StoreError
from llmcrdt.ids import document_bytes
from sync_server.log import DATABASE, LogError

MOST_MACHINES, MOST_PROCESSES = 4, 6
_QUIET = 300.0
"""Virtual seconds within which everything comes to rest once nothing breaks any more."""


class World:
    """``with`` it. ``rng`` decides what the network and the disks do; each step brings its own."""

    def __init__(self, seed: int, folder: Path) -> None:
        self.rng = random.Random(seed)
        self.folder = folder
        self.clock, self.ledger, self.disks = Clock(), Ledger(), Disks(folder)
        self.machines: list[Machine] = []
        self.relay_folder = folder / "relay"
        self.relay_copy: Path | None = None
        self.relay_rolled_back = self.client_rolled_back = False
        self.folds_work = False
        self.names = self.words = 0
        self.erased: dict[str, str] = {}
        self.goals_met = 0
        self.library: str | None = None
        self._patches = [
            mock.patch("llmcrdt.repo.YjsReplica", lambda roots: YjsReplica(roots, client_id=self.rng.getrandbits(32)))
        ]

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

    def word(self) -> str:
        self.words += 1
        return f"word{self.words:05d}" + "x" * self.rng.choice((0, 3, 300))

    def processes(self) -> list[ClientProcess]:
        return [process for machine in self.machines for process in machine.processes]

    # ---------------------------------------------------------------- starting and ending

    def start_relay(self) -> None:
        args = (self.disks, self.clock, self.rng, self.ledger, self._relay_lost_power)
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
        """What a device wrote or took in is there after every crash."""
        there = {c.id: process.entries(c) for c in process.conversations()}
        for document, entries in process.machine.said.items():
            assert entries <= there.get(document, set()), "what a device had on its disk is there after a crash"

    def check_acked(self) -> None:
        """Nothing that was acknowledged is lost, as long as the relay's data was not put back or wiped."""
        if not self.relay.alive:
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
            finally:
                db.close()
        for (document, session, n), data in self.ledger.acked.items():
            if n > folded.get((document, session), 0):
                assert stored.get((document, session, n)) == data, "what was acknowledged is in the log, as it was sent"

    # ---------------------------------------------------------------- goals

    def set_goal(self, process: ClientProcess) -> None:
        """``synced``: all that was local at the call is durable on the relay, all that the relay had is here."""
        ours, theirs, epoch = process.state(), self.relay_state(), self.ledger.epoch
        made = process.machine

        def done(why: RelayRefused | None) -> None:
            assert why is None, why
            self.goals_met += 1
            if self.ledger.epoch == epoch and self.relay.alive:
                now = self.relay_state()
                for document, update in ours.items():
                    if document in process.repo.following():
                        assert says_all(document, self.library, now.get(document, []), update), "ours is on the relay"
            if self.ledger.epoch == epoch and made in self.machines:
                here = process.state()
                for document, updates in theirs.items():
                    for update in updates if document in here else ():
                        assert says_all(document, self.library, [here[document]], update), "the relay's is here"

        process.follower.goal(done)
        process._pump()

    def relay_state(self) -> dict[str, list[bytes]]:
        """All that the relay has, record by record."""
        if not self.relay.alive:
            return {}
        with self.disks.running(self.relay.name):
            return {
                llmcrdt.ids.document_id(raw): list(self.relay.log.contents(raw, 1 << 30))
                for raw in self.relay.log.documents()
            }

    # ---------------------------------------------------------------- what a person does

    def step(self, name: str, rng: random.Random) -> None:
        if self.processes() or not name.startswith("do_c_"):
            getattr(self, name)(rng)

    def _process(self, rng: random.Random) -> ClientProcess:
        return rng.choice(self.processes())

    def _say(self, rng: random.Random, say: str) -> None:
        process = self._process(rng)

        def act() -> None:
            conversations = process.conversations()
            if conversations:
                conversation = rng.choice(conversations)
                with suppress(NotSealed):
                    getattr(self, say)(process, conversation, rng)
                process.note_said()

        process.run(act)

    def do_c_create(self, rng: random.Random) -> None:
        process = self._process(rng)
        if len(process.repo.following()) < 4:
            process.run(lambda: process.repo.create(self.word()))

    def do_c_say(self, rng: random.Random) -> None:
        self._say(rng, "_append")

    def _append(self, process: ClientProcess, conversation: llmcrdt.Conversation, rng: random.Random) -> None:
        for _ in range(rng.choice((1, 1, 4, 12))):
            if not self.disks.power_is_gone(process.machine.folder):
                conversation.append("user", self.word())

    def do_c_answer(self, rng: random.Random) -> None:
        self._say(rng, "_answer")

    def _answer(self, process: ClientProcess, conversation: llmcrdt.Conversation, rng: random.Random) -> None:
        with conversation.stream("assistant", frame=conversation.transcript(), interval=0) as stream:
            for _ in range(rng.randint(1, 8)):
                stream.write(self.word())

    def do_c_edit(self, rng: random.Random) -> None:
        self._say(rng, "_edit")

    def _edit(self, process: ClientProcess, conversation: llmcrdt.Conversation, rng: random.Random) -> None:
        entries = conversation.transcript()
        if len(entries):
            conversation.edit(rng.choice(entries), self.word())

    def do_c_erase(self, rng: random.Random) -> None:
        self._say(rng, "_erase")

    def _erase(self, process: ClientProcess, conversation: llmcrdt.Conversation, rng: random.Random) -> None:
        entries = [e for e in conversation.transcript() if e.text]
        if entries:
            entry = rng.choice(entries)
            conversation.erase(entry)
            self.erased[entry.id] = entry.text

    def do_c_goal(self, rng: random.Random) -> None:
        process = self._process(rng)
        process.run(lambda: self.set_goal(process))

    # ---------------------------------------------------------------- what happens to networks, processes and disks

    def do_c_cut(self, rng: random.Random) -> None:
        self._process(rng).cut(rng.choice((0.0, 0.1, 15.0)), rng.choice((0.0, 0.1, 15.0)))

    def do_c_stall(self, rng: random.Random) -> None:
        process = self._process(rng)
        if process.wire is not None:
            process.wire.stall(rng.uniform(1, 20))

    def do_c_kill(self, rng: random.Random) -> None:
        self.end_process(self._process(rng), rng.uniform(0, 3))

    def do_c_power(self, rng: random.Random) -> None:
        self.disks.lose_power_after(self._process(rng).machine.folder, rng.randint(1, 30))

    def do_c_full(self, rng: random.Random) -> None:
        folder = self._process(rng).machine.folder
        self.disks.fill(folder, True)
        self.clock.after(rng.uniform(0.1, 4), lambda: self.disks.fill(folder, False))

    def do_c_clock(self, rng: random.Random) -> None:
        self._process(rng).machine.offset = rng.uniform(-DAY, DAY)

    def do_c_second_process(self, rng: random.Random) -> None:
        if len(self.processes()) < MOST_PROCESSES:
            self.start_process(self._process(rng).machine)

    def do_c_copy(self, rng: random.Random) -> None:
        if len(self.machines) < MOST_MACHINES:
            self.add_machine(self._process(rng).machine)

    def do_c_backup(self, rng: random.Random) -> None:
        machine = self._process(rng).machine
        machine.backup = self.folder / self.name("backup")
        copy_files(machine.folder, machine.backup)

    def do_c_roll_back(self, rng: random.Random) -> None:
        machine = self._process(rng).machine
        if machine.backup is not None and not self.disks.power_is_gone(machine.folder):
            self.client_rolled_back = True
            for process in tuple(machine.processes):
                process.die()
            self._replace(machine.folder, machine.backup)
            machine.said.clear()
            self.start_process(machine)

    def _replace(self, folder: Path, by: Path | None) -> None:
        shutil.rmtree(folder)
        if by is None:
            folder.mkdir()
        else:
            copy_files(by, folder)
        self.disks.forget(folder)

    def do_r_kill(self, rng: random.Random) -> None:
        self.end_relay(rng.uniform(0, 4))

    def do_r_power(self, rng: random.Random) -> None:
        self.disks.lose_power_after(self.relay_folder, rng.randint(1, 30))

    def do_r_full(self, rng: random.Random) -> None:
        self.disks.fill(self.relay_folder, True)
        self.clock.after(rng.uniform(0.1, 4), lambda: self.disks.fill(self.relay_folder, False))

    def do_r_backup(self, rng: random.Random) -> None:
        self.relay_copy = self.folder / self.name("backup")
        copy_files(self.relay_folder, self.relay_copy)

    def do_r_roll_back(self, rng: random.Random) -> None:
        if self.relay_copy is not None:
            self._put_back(self.relay_copy)

    def do_r_wipe(self, rng: random.Random) -> None:
        self._put_back(None)

    def _put_back(self, copy: Path | None) -> None:
        if self.relay.alive and not self.disks.power_is_gone(self.relay_folder):
            self.relay.die()
            self.relay_rolled_back = True
            self._replace(self.relay_folder, copy)
            self.ledger.start_over()
            self.start_relay()

    def do_check(self, rng: random.Random) -> None:
        """The promise of local.py, and the relay's."""
        self.check_acked()
        state = self.relay_state() if self.relay.alive else {}
        for process in self.processes():
            process.run(lambda process=process: self.check_promise(process, state))  # type: ignore[misc]

    def check_promise(self, process: ClientProcess, relay: dict[str, list[bytes]]) -> None:
        """(the log up to the cursor) + (the outbox) contain all that the document has on this device."""
        for document, update in process.state().items():
            raw, cursor = document_bytes(document), process.local.cursor(document)
            head = self.relay.log.head(raw) if self.relay.alive else None
            if cursor is None or head is None or head.cursor.log != cursor.log:
                continue
            with self.disks.running(self.relay.name):
                if not self.relay.log.holds(raw, cursor):
                    continue
                log = list(self.relay.log.contents(raw, cursor.position))
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
        for process in self.processes():
            self.end_process(process, 0)  # the next one asks for the folds that failed
        self.clock.run(self.clock.now + 1)
        for _ in range(3):
            left = len(self.processes())

            def done(why: RelayRefused | None) -> None:
                nonlocal left
                assert why is None, why
                left -= 1

            for process in self.processes():
                process.follower.goal(done)
                process._pump()
            end = self.clock.now + _QUIET
            while left and self.clock.now < end:
                self.clock.run(self.clock.now + 5)
            assert not left, "once the network is whole, everything comes to rest"
        self.clock.run(self.clock.now + 5)


def says_all(document: str, library: str | None, updates: list[bytes], update: bytes) -> bool:
    """Whether an update says nothing that the others don't say."""
    replica = YjsReplica(library_document.ROOTS if document == library else schema.ROOTS)
    for one in updates:
        replica.apply(one)
    return not replica.apply(update).news


OPERATIONS = tuple(sorted(name for name in vars(World) if name.startswith("do_")))
"""Every operation, by name."""

WEIGHTS = {
    "do_c_say": 14,
    "do_c_answer": 5,
    "do_c_edit": 3,
    "do_c_create": 4,
    "do_c_goal": 3,
    "do_c_cut": 5,
    "do_check": 4,
}
"""How often each is drawn; 1 where nothing is said."""

__all__ = ["OPERATIONS", "WEIGHTS", "LLMCRDTError", "World", "says_all"]
