"""One schedule: devices that write, and a network that delays, repeats, reorders and loses what they send.

Everything that happens is one small method of ``World`` whose name begins with ``do_``. Such a method is an operation:
the drivers find it by its name. It takes a device and draws what else it needs from ``world.rng``.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from sim_devices import DAY, Device, FileDevice, MemoryDevice
from sim_kinds import KINDS
from sim_stranger import vandalize

import llmcrdt
from llmcrdt.document.act_writer import ActWriter
from llmcrdt.document.asks import HANDED_OVER
from llmcrdt.document.entry import Config, Entry, Text, ToolCall
from llmcrdt.document.fork_copy import copy_conversation
from llmcrdt.exceptions import NotSealed, Withheld
from llmcrdt.ids import EntryId, new_entry_id

MOST_DEVICES = 5


class World:
    """All that happened so far, and what must therefore be true. ``folder``: real SQLite files there; None: memory."""

    def __init__(self, rng: random.Random, devices: int, folder: Path | None = None, crdt: str = "yjs") -> None:
        self.rng = rng  # what happens
        self.ids = random.Random(rng.getrandbits(64))  # ids and nonces: never the same twice
        self.said: dict[str, str] = {}  # entry -> text that a version of it holds
        self.hidden: dict[tuple[str, str], bytes] = {}
        self.frames: dict[str, tuple[tuple[str, str, str | None], ...]] = {}  # generation -> what it was computed on
        self.at_risk: set[str] = set()  # written to a disk that was then replaced by a backup
        self.wrong: set[str] = set()  # entries that a stranger made
        self.touched: set[str] = set()  # sound entries that a stranger gave a wrong field
        self.words = 0
        self.devices: list[Device] = []
        self.crdt, self.kind = crdt, KINDS[crdt]
        self.folder = folder
        if folder is None:
            self.devices.append(MemoryDevice("d0", self.ids, self.send, crdt=crdt))
            self.devices[0].core.write_identity(1.8e9)
        else:
            self.devices.append(FileDevice("d0", self.ids, self.send, folder / "d0.db", crdt=crdt))
        for n in range(1, devices):
            self.join(f"d{n}")

    def join(self, name: str) -> None:
        if self.folder is None:
            self.devices.append(MemoryDevice(name, self.ids, self.send, crdt=self.crdt))
        else:
            path, id_ = self.folder / f"{name}.db", self.devices[0].conv.id
            self.devices.append(FileDevice(name, self.ids, self.send, path, id_, crdt=self.crdt))

    def close(self) -> None:
        for device in self.devices:
            device.close()

    def step(self, name: str, device: Device) -> None:
        """One operation on one device; what it wrote is on its way to the others afterwards."""
        before = device.conv.version() if self.folder is not None else b""
        operation: Callable[[Device], None] = getattr(self, name)
        operation(device)
        if self.folder is not None and name.startswith("do_say") and device.conv.version() != before:
            self.send(device, device.conv.diff(since=before))

    def send(self, device: Device, update: bytes) -> None:
        for other in self.devices:
            if other is not device:
                other.inbox.append(update)

    # drawing

    def word(self) -> str:
        self.words += 1
        return f"w{self.words}. {self.rng.choice(('one', 'zwei', '三', '😀', ''))}"

    def visible(self, device: Device, role: str | None = None) -> Entry | None:
        ids = device.conv.transcript().ids
        for _ in range(3):
            entry = device.conv.entry(self.rng.choice(ids)) if ids else None
            if entry is not None and role in (None, entry.role):
                return entry
        return None

    def any_entry(self, device: Device) -> Entry | None:
        transcript = device.conv.transcript()
        elsewhere = [found.entry for found in transcript.elsewhere]
        if elsewhere and self.rng.random() < 0.5:
            return self.rng.choice(elsewhere)
        return self.rng.choice(transcript) if transcript else None

    def note(self, device: Device, entry: Entry, text: str | None = None) -> Entry:
        """Remember what was written, as it must be found at the end."""
        if entry.status != "erased":
            self.said[entry.id] = entry.text if text is None else text
        for name, field in entry.hidden.items():
            self.hidden[entry.id, name] = field.data
        if entry.frame is not None and entry.sealed:
            on = device.conv.frame_entries(entry)
            _, pins = device.core.view.order.frame_list(entry.frame)
            # a version that a frame pins may come later than the frame; until then another one stands in for it
            seen = tuple((e.id, str(pins[e.id]), e.text if e.hash == pins[e.id] and e.parts else None) for e in on)
            self.frames.setdefault(entry.id, seen)
        return entry

    # people and models

    def do_say(self, device: Device) -> None:
        entry = self.note(device, device.conv.append("user", self.word()))
        assert entry.id in device.conv.transcript().ids, "what a person says is shown"

    def do_say_config(self, device: Device) -> None:
        self.note(device, device.conv.append("system", [Config({"n": 2**64, "x": 1.0})]))

    def do_say_batch(self, device: Device) -> None:
        with device.conv.batch():
            written = [device.conv.append("user", self.word()), device.conv.append("user", self.word())]
        for entry in written:
            self.note(device, entry)

    def do_say_answer(self, device: Device) -> None:
        """A generation, perhaps on a transcript that has grown since."""
        frame, device.frame = device.frame or device.conv.transcript(), None
        content = [Text(self.word()), ToolCall("1", "f", "{}"), ToolCall("2", "g", "{ }")][: self.rng.randint(1, 3)]
        hidden = {"provider/signature": self.rng.randbytes(8)} if self.rng.random() < 0.5 else None
        with suppress(NotSealed):
            entry = device.conv.append("assistant", content, frame=frame, hidden=hidden)
            on = [e.id for e in device.conv.frame_entries(entry)]
            assert [i for i in frame.ids if i in on] == on, "in the order of the transcript it was computed on"
            assert {e.id for e in frame if e.sealed} <= set(on), "nothing finished is left out"
            self.note(device, entry)

    def do_look(self, device: Device) -> None:
        """Begin a turn: what the next answer is computed on."""
        device.frame = device.conv.transcript()

    def do_say_result(self, device: Device) -> None:
        asked = self.any_entry(device)
        if asked is not None and asked.tool_calls:
            call = self.rng.choice(asked.tool_calls)
            result = self.note(device, device.conv.append("tool", self.word(), call=call))
            shown = device.conv.transcript().ids
            assert (result.id in shown) == (asked.id in shown), "a result stands where its call does"

    def do_say_edit(self, device: Device) -> None:
        old = self.any_entry(device)
        if old is not None:
            was_shown = old.id in device.conv.transcript().ids
            entry = self.note(device, device.conv.edit(old, self.word()))
            if was_shown:
                assert entry.id in device.conv.transcript().ids, "an edit of what is shown is shown"

    def do_say_again(self, device: Device) -> None:
        """Regenerate."""
        old = self.any_entry(device)
        if old is not None and old.role == "assistant":
            was_shown = old.id in device.conv.transcript().ids
            entry = self.note(device, device.conv.append("assistant", self.word(), instead_of=old))
            if was_shown:
                assert entry.id in device.conv.transcript().ids, "a regenerated answer is shown"

    def do_say_select(self, device: Device) -> None:
        chosen = self.any_entry(device)
        if chosen is None:
            return
        hidden = [found.entry.id for found in device.conv.transcript().elsewhere if found.way == "withheld"]
        try:
            device.conv.select(chosen)
        except Withheld:
            assert chosen.id in hidden
        else:
            assert chosen.id in device.conv.transcript().ids, "what a person selects is shown"

    # streams

    def do_say_stream(self, device: Device) -> None:
        with suppress(NotSealed):
            frame = device.conv.transcript() if self.rng.random() < 0.8 else None
            if frame is not None:
                frame.frame()
            device.streams.append(device.conv.stream("assistant", frame=frame, interval=self.rng.choice((0, 5))))
            self.said[device.streams[-1].id] = ""

    def do_say_token(self, device: Device) -> None:
        if device.streams:
            part = "reasoning" if self.rng.random() < 0.2 else "text"
            self.rng.choice(device.streams).write(self.word(), part=part)  # type: ignore[arg-type]

    def do_say_seal(self, device: Device) -> None:
        if device.streams:
            stream = device.streams.pop(self.rng.randrange(len(device.streams)))
            stream.seal(self.rng.choice(("complete", "complete", "stopped", "failed")), hidden={"log": b"\x00\xff"})
            self.note(device, device.conv.entry(stream.id), stream.text)

    def do_say_erase(self, device: Device) -> None:
        entry = self.edited_elsewhere(device) or self.any_entry(device)
        if entry is not None:
            before = withheld(device)
            erased = device.conv.erase(entry).entries
            assert device.conv.entry(entry).status == "erased"
            assert withheld(device) == before - {*erased}, "an erase withholds nothing that was seen"

    def edited_elsewhere(self, device: Device) -> Entry | None:
        """Something that another device says in other words meanwhile."""
        sound = device.core.view.order.sound()
        others = [node for d in self.devices for node in d.core.view.order.sound().values() if node.id not in sound]
        found = sorted({node.alternative_of for node in others if node.alternative_of in sound} - {None})  # type: ignore[type-var]
        return device.conv.entry(self.rng.choice(found)) if found else None  # type: ignore[arg-type]

    def do_say_keep(self, device: Device) -> None:
        """Somebody reads what an erase withholds, and wants it to stay."""
        aside = withheld(device)
        if aside:
            kept = self.rng.choice(sorted(aside))
            device.conv.keep(kept)
            assert withheld(device) == aside - {kept}

    def do_say_summary(self, device: Device) -> None:
        until = self.visible(device)
        if until is not None:
            with suppress(NotSealed):
                summary = self.note(device, device.conv.summarize(until=until, text=self.word()))
                ids = device.conv.transcript().ids
                assert summary.id in ids and until.id in ids, "a summary hides nothing"

    def do_fork(self, device: Device) -> None:
        """A new conversation with everything up to an entry; what stood there is there, in its own order."""
        until = self.visible(device)
        if until is not None:
            transcript = device.conv.transcript()
            fork = MemoryDevice("fork", self.ids, lambda _device, _update: None, crdt=self.crdt)
            try:
                copy_conversation(device.core, fork.core, until, fork.clock())
            except NotSealed:
                return
            before = transcript[: transcript.ids.index(until.id) + 1]
            there = {e.id: e for e in fork.conv.transcript()}
            shown = [e for e in before if e.id in there]
            assert all(there[e.id].text == e.text for e in shown)
            assert until.id in there, "the entry it was made at is shown"
            # Rival answers stay side by side once they are written on (O6); what was written on one later isn't here.
            aside = {e.entry.id for e in fork.conv.transcript().elsewhere}
            assert aside >= {e.id for e in before} - there.keys(), "and nothing is lost"
            fork.close()

    def do_say_stop(self, device: Device) -> None:
        entry = self.any_entry(device)
        if entry is not None:
            device.conv.stop(entry)
            assert device.conv.stop_asked(entry)

    def do_say_claim(self, device: Device) -> None:
        asked = self.visible(device, "assistant")
        if asked is not None and asked.tool_calls:
            claim = device.conv.claim(asked.tool_calls[0])
            assert claim.granted(0, offline=True) == (not claim.others)

    def do_say_take_over(self, device: Device) -> None:
        """Somebody believes that whoever claimed a call is dead. Perhaps it is."""
        asked = self.visible(device, "assistant")
        if asked is not None and asked.tool_calls:
            claim = device.conv.claim(asked.tool_calls[0], take_over=True)
            assert claim.granted(0, offline=True) and not claim.others and not claim.taken_over

    # asks

    def some_ask(self, device: Device) -> llmcrdt.Ask | None:
        asks = device.conv.asks()
        return self.rng.choice(asks) if asks else None

    def do_say_ask(self, device: Device) -> None:
        """A question and the ask for its answer, or an ask alone."""
        valid_while = self.rng.choice(("frame", "always"))
        with suppress(NotSealed):
            ask = device.conv.ask(valid_while=valid_while)  # type: ignore[arg-type]
            assert ask.state == "waiting", "what is asked on what stands here counts"

    def do_say_take_ask(self, device: Device) -> None:
        """A worker claims an ask; those that it believes dead are taken over."""
        ask = self.some_ask(device)
        if ask is not None:
            dead = self.rng.random() < 0.5
            writer = ActWriter(device.core)
            writer.claim_ask(ask.id, lambda claim: dead)
            assert ask.state != "waiting"

    def do_say_answer_ask(self, device: Device) -> None:
        """A worker begins to answer; its stream goes on, is sealed by it or by others, or stays as it is."""
        ask = self.some_ask(device)
        if ask is not None:
            with suppress(NotSealed):
                frame = device.conv.transcript()
                frame.frame()
                device.streams.append(device.conv.stream("assistant", frame=frame, ask=ask))
                self.said[device.streams[-1].id] = ""
                assert ask.state in ("streaming", "answered")

    def do_say_no_answer(self, device: Device) -> None:
        ask = self.some_ask(device)
        if ask is not None:
            code = self.rng.choice((HANDED_OVER, "no_model"))
            ActWriter(device.core).reply(ask.id, None, code=code, text="No.")

    def do_say_cancel_ask(self, device: Device) -> None:
        ask = self.some_ask(device)
        if ask is not None:
            ask.cancel()
            assert ask.state != "waiting", "nobody takes up what was taken back"

    def do_say_seal_other(self, device: Device) -> None:
        """Somebody ends what another one, perhaps still alive, began."""
        for entry in device.conv.unsealed()[:2]:
            sealed = device.conv.seal(entry)
            assert sealed.text == entry.text and sealed.status == "stopped"
            self.note(device, sealed)

    # the network

    def do_deliver(self, device: Device) -> None:
        for _ in range(min(len(device.inbox), self.rng.randint(1, 4))):
            at = self.rng.randrange(len(device.inbox))
            update = device.inbox[at] if self.rng.random() < 0.2 else device.inbox.pop(at)
            device.conv.apply(update)

    def do_exchange(self, device: Device) -> None:
        other = self.rng.choice(self.devices)
        device.conv.apply(other.conv.diff(since=device.conv.version()))

    def do_lose(self, device: Device) -> None:
        device.inbox.clear()

    def do_vandalize(self, device: Device) -> None:
        new = new_entry_id(self.ids.randbytes)
        update, wrong, touched = vandalize(self.kind.stranger(device.conv.diff(), self.ids), self.rng, new)
        self.wrong |= wrong
        self.touched |= touched
        device.conv.apply(update)
        self.send(device, update)

    # processes and files

    def do_set_clock(self, device: Device) -> None:
        device.offset = self.rng.uniform(-DAY, DAY)

    def do_kill(self, device: Device) -> None:
        device.kill()

    def do_restart(self, device: Device) -> None:
        device.restart()

    def do_backup(self, device: Device) -> None:
        device.backup()

    def do_roll_back(self, device: Device) -> None:
        before = set(device.core.view.states)
        if not any(other is not device and same_file(device, other) for other in self.devices) and device.roll_back():
            self.at_risk |= before - set(device.core.view.states)
            self.at_risk |= {entry for entry in before if entry in device.core.view.states}

    def do_copy(self, device: Device) -> None:
        if len(self.devices) < MOST_DEVICES:
            self.devices.append(device.copy(f"d{len(self.devices)}"))

    def do_second_process(self, device: Device) -> None:
        if len(self.devices) < MOST_DEVICES:
            second = device.beside(f"d{len(self.devices)}")
            if second is not None:
                self.devices.append(second)

    def do_fill_disk(self, device: Device) -> None:
        if device.fill_disk():
            device.conv.version()  # which reads what others wrote to the file
            before = self.kind.history(device.core.replica)
            with suppress(OSError):
                device.conv.append("user", "never")
                raise AssertionError("a full disk is an error")
            device.conv.version()
            assert self.kind.history(device.core.replica) == before, "what is not on disk is nowhere"


def withheld(device: Device) -> set[EntryId]:
    """All that erases withhold by itself, without what follows it."""
    return set(device.core.view.order.now().withheld)


def same_file(a: Device, b: Device) -> bool:
    if isinstance(a, MemoryDevice) and isinstance(b, MemoryDevice):
        return a.file is b.file
    return isinstance(a, FileDevice) and isinstance(b, FileDevice) and a.path == b.path


OPERATIONS = tuple(sorted(name for name in vars(World) if name.startswith("do_")))
"""Every operation, by name."""

WEIGHTS = {
    "do_say": 8, "do_say_answer": 8, "do_say_edit": 4, "do_say_select": 4, "do_say_again": 3, "do_say_result": 6,
    "do_deliver": 12, "do_exchange": 8, "do_say_stream": 3, "do_say_token": 5, "do_say_seal": 3, "do_say_seal_other": 2,
    "do_say_erase": 4, "do_say_keep": 2, "do_say_ask": 2, "do_say_take_ask": 2, "do_say_answer_ask": 2,
}  # fmt: skip
"""How often each is drawn; 1 where nothing is said."""
