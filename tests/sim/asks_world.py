"""One schedule of asks: devices that ask, workers that claim, answer, fall silent and die, and the log of a relay.

Virtual time, no threads: the seed decides everything. A worker does step by step what ``llmcrdt.serve`` does; its
lease is what others heard of it, and those who are cut off hear nothing.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

from sim_checks import ask_states, oracle_state
from sim_devices import Device, MemoryDevice

import llmcrdt
from llmcrdt.document.act_writer import ActWriter
from llmcrdt.document.acts import Claim, ToolClaim, ask_hash
from llmcrdt.document.asks import ENDED, HANDED_OVER
from llmcrdt.document.entry import Entry
from llmcrdt.document.stream import Stream
from llmcrdt.exceptions import NotSealed
from llmcrdt.ids import EntryId, SessionId

PATIENCE = 6.0
GRANT = 5.0  # seconds that a worker waits for the relay


@dataclass
class Job:
    """An ask that a worker is at work on. ``session``: the one that claimed it; a document that is read anew has
    another one. ``decided``: whether the relay's order has decided the claim."""

    ask: llmcrdt.Ask
    session: SessionId
    claim: ToolClaim
    since: float
    dead: frozenset[SessionId]
    decided: bool = False
    stream: Stream | None = None
    left: int = 3  # words until the end


@dataclass
class Node:
    """A process. ``outbox``: what it wrote and the relay has not, each with what its record in the log decides."""

    device: MemoryDevice
    worker: bool
    linked: bool = True
    stalled: bool = False
    outbox: list[tuple[bytes, Callable[[], None] | None]] = field(default_factory=list)
    cursor: int = 0
    heard: dict[str, float] = field(default_factory=dict)
    seen: dict[str, tuple[object, float]] = field(default_factory=dict)  # of an ask or entry: how it was, since when
    job: Job | None = None

    @property
    def conv(self) -> llmcrdt.Conversation:
        return self.device.conv

    @property
    def session(self) -> SessionId:
        return self.device.core.document.session


class AsksWorld:
    """``done`` counts what happened. ``trouble``: whether anybody was cut off, silent or dead, or waited in vain."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.ids = random.Random(self.rng.getrandbits(64))
        self.now, self.words = 0.0, 0
        self.log: list[tuple[Node, bytes, Callable[[], None] | None]] = []
        self.done: Counter[str] = Counter()
        self.trouble = False
        self.granted: dict[EntryId, list[Claim]] = {}  # claims that the relay's order granted, by ask
        self.nodes: list[Node] = []
        calm = self.rng.random() < 0.25
        for n in range(self.rng.randint(3, 5)):
            device = MemoryDevice(f"d{n}", self.ids, self._wrote, crdt="yjs")
            self.nodes.append(Node(device, worker=n > self.rng.randint(0, 1)))
        self.nodes[0].device.core.write_identity(1.8e9)
        self._operations = [name for name in OPERATIONS if not (calm and name in TROUBLES)]
        self._weights = [WEIGHTS.get(name, 1) for name in self._operations]

    def close(self) -> None:
        for node in self.nodes:
            node.device.close()

    def run(self, steps: int) -> Counter[str]:
        """Do so many things, then let everything work until every ask is over. Raises AssertionError if a rule is
        broken."""
        for _ in range(steps):
            node = self.rng.choice(self.nodes)
            if node.stalled:
                continue
            name = self.rng.choices(self._operations, self._weights)[0]
            self.done[name] += 1
            getattr(self, name)(node)
            self._pass(self.rng.uniform(0.0, 0.5))
        self._settle()
        self._check()
        return self.done

    def _wrote(self, device: Device, update: bytes) -> None:
        if node := next((node for node in self.nodes if node.device is device), None):
            node.outbox.append((update, None))

    def _pass(self, seconds: float) -> None:
        """Time goes on; workers that live and have a link say so."""
        self.now += seconds
        for node in self.nodes:
            if node.worker and node.linked and not node.stalled:
                for other in self.nodes:
                    if other.linked:
                        other.heard[node.session] = self.now

    # people

    def do_ask(self, node: Node) -> None:
        self.words += 1
        with suppress(NotSealed):
            question = f"Question {self.words}?" if self.rng.random() < 0.8 else None
            node.conv.ask(question, valid_while=self.rng.choice(("frame", "always")))  # type: ignore[arg-type]

    def do_say(self, node: Node) -> None:
        self.words += 1
        node.conv.append("user", f"Word {self.words}.")

    def do_edit(self, node: Node) -> None:
        if found := [e for e in node.conv.transcript() if e.role == "user"]:
            self.words += 1
            node.conv.edit(self.rng.choice(found), f"Word {self.words}.")

    def do_select(self, node: Node) -> None:
        if aside := [found.entry for found in node.conv.transcript().elsewhere if found.entry.sealed]:
            node.conv.select(self.rng.choice(aside))

    def do_ask_again(self, node: Node) -> None:
        if found := [e for e in node.conv.transcript() if e.frame is not None and e.sealed]:
            with suppress(NotSealed):
                node.conv.ask(instead_of=self.rng.choice(found), valid_while="always")

    def do_cancel(self, node: Node) -> None:
        if asks := node.conv.asks():
            self.rng.choice(asks).cancel()

    # the network and the processes

    def do_push(self, node: Node) -> None:
        if node.linked and node.outbox:
            for update, decide in node.outbox[: self.rng.randint(1, len(node.outbox))]:
                self.log.append((node, update, decide))
                node.outbox.pop(0)

    def do_pull(self, node: Node) -> None:
        """Read the log in its order; what stands before an own claim is here when that is decided."""
        if node.linked:
            end = self.rng.randint(node.cursor, len(self.log))
            for writer, update, decide in self.log[node.cursor : end]:
                if writer is not node:
                    node.conv.apply(update)
                elif decide is not None:
                    decide()
            node.cursor = end

    def do_cut(self, node: Node) -> None:
        self.trouble, node.linked = True, False

    def do_heal(self, node: Node) -> None:
        node.linked = True

    def do_stall(self, node: Node) -> None:
        """It stands still, and is not dead."""
        self.trouble = node.stalled = True

    def do_wake(self, node: Node) -> None:
        for other in self.nodes:
            other.stalled = False

    def do_kill(self, node: Node) -> None:
        self.trouble, node.job = True, None
        node.device.kill()

    def do_long_silence(self, node: Node) -> None:
        self.trouble = True
        self.now += PATIENCE + 1

    def do_end(self, node: Node) -> None:
        """A worker is told to end: it hands over, and another process of its takes its place."""
        if (job := node.job) is not None:
            if job.stream is not None:
                job.stream.seal("stopped")
            ActWriter(node.device.core).reply(job.ask.id, job.stream.id if job.stream else None, code=HANDED_OVER)
            node.job, self.trouble = None, True

    # workers

    def do_work(self, node: Node) -> None:
        if node.worker and node.job is None:
            self._end_leftovers(node)
            for ask in node.conv.asks():
                if node.job is None:
                    self._consider(node, ask)
        elif node.job is not None:
            self._go_on(node, node.job)

    def _consider(self, node: Node, ask: llmcrdt.Ask) -> None:
        status = ask.status()
        was, since = node.seen.get(ask.id, (None, 0.0))
        if was != status:
            node.seen[ask.id] = status, (since := self.now)
        if status.state == "waiting":
            self._claim(node, ask, frozenset())
        elif status.state in ("taken", "streaming"):
            writing = [status.answer.session] if status.answer and status.answer.status == "streaming" else []
            holders = frozenset([*status.workers, *writing])
            silent = all(self.now - max(node.heard.get(each, 0.0), since) > PATIENCE for each in holders)
            if silent and (status.answer is None or status.answer.id not in node.device.core.streams):
                self._claim(node, ask, holders)

    def _claim(self, node: Node, ask: llmcrdt.Ask, dead: frozenset[SessionId]) -> None:
        core = node.device.core

        def idle(claim: Claim) -> bool:
            reply = core.view.acts.replies.get(ask.id, {}).get(claim.session)
            return claim.session in dead or (reply is not None and reply.lamport > claim.lamport)

        with suppress(NotSealed):
            node.conv.transcript().frame() if not dead else None
            before = len(node.outbox)
            claim = ActWriter(core).claim_ask(ask.id, idle)
            node.job = job = Job(ask, node.session, claim, self.now, dead)
            self.trouble = self.trouble or bool(dead)
            key = Claim(ask_hash(ask.id), node.session, 0).key

            def decide() -> None:
                if core is node.device.core and key in core.claims:
                    core.claims[key].decide()
                job.decided = True

            if len(node.outbox) > before:
                node.outbox[-1] = node.outbox[-1][0], decide

    def _go_on(self, node: Node, job: Job) -> None:
        conv, ask = node.conv, job.ask
        if job.stream is None:
            self._begin(node, job)
        elif job.claim.taken_over or conv.stop_asked(ask.id) or job.stream.stop_asked:
            job.stream.seal("stopped")
            node.job = None
        elif job.left:
            job.left -= 1
            job.stream.write("word ")
        else:
            job.stream.seal("failed" if self.rng.random() < 0.03 else "complete")
            node.job = None

    def _begin(self, node: Node, job: Job) -> None:
        late = self.now - job.since > GRANT
        if node.linked and not job.decided and not late:
            return
        self.trouble = self.trouble or not job.decided
        writer = ActWriter(node.device.core)
        if not job.claim.granted(0, offline=True):
            writer.reply(job.ask.id, None, code=HANDED_OVER)
            node.job = None
            return
        if job.decided:
            self._note_grant(node, job)
        left = self._left_over(node, job)
        if job.ask.state != "taken" or job.claim.taken_over:
            writer.reply(job.ask.id, None, code=HANDED_OVER)
            node.job = None
            return
        if self.rng.random() < 0.05:
            writer.reply(job.ask.id, None, code="engine", text="No.")
            node.job = None
            return
        instead_of = job.ask.instead_of or (left.id if left is not None and left.frame is not None else None)
        with suppress(NotSealed):
            frame = None if instead_of else node.conv.transcript()
            job.stream = node.conv.stream("assistant", frame=frame, instead_of=instead_of, interval=0, ask=job.ask)

    def _note_grant(self, node: Node, job: Job) -> None:
        """The relay's order grants a claim only over those that were granted before."""
        mine = node.device.core.view.acts.claims[ask_hash(job.ask.id)][job.session]
        before = self.granted.setdefault(job.ask.id, [])
        assert all(each.session == mine.session or mine.takes_over(each) for each in before), "two hold one ask"
        before.append(mine)

    def _left_over(self, node: Node, job: Job) -> Entry | None:
        answer = job.ask.answer
        if answer is not None and answer.status == "streaming" and answer.session in job.dead:
            return node.conv.seal(answer)
        return answer

    def _end_leftovers(self, node: Node) -> None:
        for entry in node.conv.unsealed():
            was, since = node.seen.get(entry.id, (None, 0.0))
            if was != entry.text:
                node.seen[entry.id] = entry.text, self.now
            elif self.now - max(since, node.heard.get(entry.session, 0.0)) > PATIENCE:
                node.conv.seal(entry)

    # the end

    def _settle(self) -> None:
        """Everything works again; every ask ends, and everything arrives everywhere."""
        for node in self.nodes:
            node.linked, node.stalled = True, False
            node.worker = node.worker or node is self.nodes[-1]
        for _ in range(600):
            for node in self.nodes:
                self.do_push(node)
                self.do_pull(node)
                self.do_work(node)
            self._pass(0.5)
            arrived = all(node.cursor == len(self.log) and not node.outbox for node in self.nodes)
            if arrived and not any(node.job or node.conv.unsealed() for node in self.nodes):
                open_ = [ask for node in self.nodes for ask in node.conv.asks() if ask.state not in ENDED]
                if not open_:
                    return
        raise AssertionError(f"an ask is open for ever: {[ask.state for ask in self.nodes[0].conv.asks()]}")

    def _check(self) -> None:
        first = self.nodes[0]
        for node in self.nodes:
            assert node.conv.transcript().hash == first.conv.transcript().hash, "one transcript"
            assert oracle_state(node.conv.diff()) == oracle_state(first.conv.diff()), "one document"
            assert ask_states(node.device.core.view) == ask_states(first.device.core.view), "one state of each ask"
        assert first.conv.verify() == []
        for ask in first.conv.asks():
            self.done[f"asks {ask.state}"] += 1
            self._check_once(first, ask)

    def _check_once(self, node: Node, ask: llmcrdt.Ask) -> None:
        conv, replies = node.conv, node.device.core.view.acts.replies.get(ask.id, {}).values()
        answers = sorted({reply.entry for reply in replies if reply.entry is not None})
        whole = [entry for entry in map(conv.entry, answers) if entry.status == "complete"]
        if len(whole) < 2:
            return
        assert self.trouble, "nobody was cut off, silent or dead, and one ask is answered twice"
        self.done["answered twice"] += 1
        self.done["on different lists"] += len({entry.frame and entry.frame.hash for entry in whole}) > 1
        for one in whole:
            for other in whole:
                held = {e.id for e in conv.frame_entries(one)} & set(members(conv, other.id))
                alike = one.id in members(conv, other.id)
                assert alike or held or {e.id for e in conv.frame_entries(other)} & set(members(conv, one.id))


def members(conv: llmcrdt.Conversation, entry: EntryId) -> list[EntryId]:
    return [each.id for each in conv.alternatives(entry)]


OPERATIONS = tuple(sorted(name for name in vars(AsksWorld) if name.startswith("do_")))
TROUBLES = ("do_cut", "do_stall", "do_kill", "do_long_silence", "do_end")
WEIGHTS = {"do_work": 30, "do_push": 12, "do_pull": 16, "do_ask": 5, "do_say": 2, "do_heal": 3, "do_wake": 2}


def run_asks(seed: int) -> Counter[str]:
    """One schedule, decided by its seed. Raises AssertionError where a rule is broken. Returns what was done."""
    world = AsksWorld(seed)
    try:
        return world.run(world.rng.randint(30, 120))
    finally:
        world.close()
