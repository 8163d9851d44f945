"""All that can happen in a simulation. Each is one method of ``EventfulWorld`` whose name begins with ``do_``: the
drivers find it by that. It draws what it needs from the random numbers of its own step."""

from __future__ import annotations

import random
import shutil
from contextlib import suppress
from pathlib import Path

from relay_world import World
from sim_clients import DAY, ClientProcess
from sim_intruder import Intruder, records
from sim_page import Page
from sim_relay import copy_files

import llmcrdt
from llmcrdt.exceptions import NotSealed

MOST_MACHINES, MOST_PROCESSES, MOST_PAGES = 4, 6, 3
PRESENT = "just-now-"
"""The beginning of each presence: it is in no file."""


class EventfulWorld(World):
    """A world in which something happens."""

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
        if len(process.repo._core.following()) < 4:
            process.run(lambda: process.repo.create(self.word()))

    def do_c_say(self, rng: random.Random) -> None:
        self._say(rng, "_append")

    def _append(self, process: ClientProcess, conversation: llmcrdt.Conversation, rng: random.Random) -> None:
        for _ in range(rng.choice((1, 1, 4, 12))):
            if not self.disks.power_is_gone(process.machine.folder):
                conversation.append("user", self.word(conversation.id))

    def do_c_answer(self, rng: random.Random) -> None:
        self._say(rng, "_answer")

    def _answer(self, process: ClientProcess, conversation: llmcrdt.Conversation, rng: random.Random) -> None:
        with conversation.stream("assistant", frame=conversation.transcript(), interval=0) as stream:
            for _ in range(rng.randint(1, 8)):
                stream.write(self.word(conversation.id))

    def do_c_edit(self, rng: random.Random) -> None:
        self._say(rng, "_edit")

    def _edit(self, process: ClientProcess, conversation: llmcrdt.Conversation, rng: random.Random) -> None:
        entries = conversation.transcript()
        if len(entries):
            conversation.edit(rng.choice(entries), self.word(conversation.id))

    def do_c_erase(self, rng: random.Random) -> None:
        self._say(rng, "_erase")

    def _erase(self, process: ClientProcess, conversation: llmcrdt.Conversation, rng: random.Random) -> None:
        entries = [e for e in conversation.transcript() if e.text]
        if entries:
            entry = rng.choice(entries)
            conversation.erase(entry)
            self.erased[entry.id] = entry.text

    def do_c_delete(self, rng: random.Random) -> None:
        process = self._process(rng)
        chosen: list[str] = []

        def act() -> None:
            if conversations := process.conversations():
                chosen.append(rng.choice(conversations).id)
                self.deletions.update(chosen)
                process.repo.delete(chosen[0])

        if process.run(act):
            process.machine.deleted.update(chosen)

    def do_c_present(self, rng: random.Random) -> None:
        self._say(rng, "_present")

    def _present(self, process: ClientProcess, conversation: llmcrdt.Conversation, rng: random.Random) -> None:
        self.names += 1
        conversation.present({"word": f"{PRESENT}{self.names}"} if rng.random() < 0.8 else None)

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
            machine.deleted.clear()
            self.start_process(machine)

    def do_r_kill(self, rng: random.Random) -> None:
        self.end_relay(rng.uniform(0, 4))

    def do_r_power(self, rng: random.Random) -> None:
        self.disks.lose_power_after(self.relay_folder, rng.randint(1, 30))

    def do_r_full(self, rng: random.Random) -> None:
        self.disks.fill(self.relay_folder, True)
        self.clock.after(rng.uniform(0.1, 4), lambda: self.disks.fill(self.relay_folder, False))

    def do_r_worker(self, rng: random.Random) -> None:
        """The worker that checks records dies, perhaps again and again."""
        self.relay.validator.crashes += rng.randint(1, 4)

    def do_intrude(self, rng: random.Random) -> None:
        """Somebody pushes good and bad records into a document of others, deleted or not. Only who may read it knows
        its id, so the relay has had it."""
        documents = sorted({document for document, _, _ in self.ledger.pushed})
        if self.relay.alive and documents:
            self.names += 1
            data, bad = records(rng, self.names)
            self.ledger.bad |= bad
            Intruder(self.clock, rng, self.relay, rng.choice(documents), data, bad)

    def do_p_open(self, rng: random.Random) -> None:
        documents = sorted({document for document, _, _ in self.ledger.pushed})
        if documents and len(self.pages) < MOST_PAGES:
            self.pages.append(Page(self.clock, self.rng, lambda: self.relay, rng.choice(documents)))

    def do_p_edit(self, rng: random.Random) -> None:
        for page in self.pages:
            for _ in range(rng.choice((0, 1, 3, 9))):
                page.edit(rng, self.name("key") + "x" * rng.choice((0, 100)))

    def do_p_cut(self, rng: random.Random) -> None:
        if self.pages:
            rng.choice(self.pages).cut()

    def do_p_close(self, rng: random.Random) -> None:
        if self.pages:
            page = rng.choice(self.pages)
            self.pages.remove(page)
            page.close()

    def do_r_backup(self, rng: random.Random) -> None:
        self.relay_copy = self.folder / self.name("backup")
        copy_files(self.relay_folder, self.relay_copy)

    def do_r_roll_back(self, rng: random.Random) -> None:
        if self.relay_copy is not None:
            self._put_back(self.relay_copy)

    def do_r_wipe(self, rng: random.Random) -> None:
        self._put_back(None)

    def _put_back(self, copy: Path | None) -> None:
        if self.relay_is_up:
            self.relay.die()
            self.relay_rolled_back = True
            self._replace(self.relay_folder, copy)
            self.ledger.start_over()
            self.start_relay()

    def _replace(self, folder: Path, by: Path | None) -> None:
        shutil.rmtree(folder)
        if by is None:
            folder.mkdir()
        else:
            copy_files(by, folder)
        self.disks.forget(folder)

    def do_check(self, rng: random.Random) -> None:
        """The promise of local.py, and the relay's."""
        self.check_acked()
        state = self.relay_state()
        for process in self.processes():
            process.run(lambda process=process: self.check_promise(process, state))  # type: ignore[misc]


OPERATIONS = tuple(sorted(name for name in vars(EventfulWorld) if name.startswith("do_")))
"""Every operation, by name."""

WEIGHTS = {
    "do_c_say": 14,
    "do_c_answer": 5,
    "do_c_edit": 3,
    "do_c_create": 4,
    "do_c_goal": 3,
    "do_c_cut": 5,
    "do_check": 4,
    "do_c_delete": 2,
    "do_intrude": 2,
    "do_p_open": 2,
    "do_p_edit": 3,
    "do_r_backup": 2,
    "do_r_roll_back": 2,
}
"""How often each is drawn; 1 where nothing is said."""
