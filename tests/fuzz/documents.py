"""Whole documents of strangers through every door of a repo:  python tests/fuzz/documents.py --documents 5000 --seed 1

Each is merged into a conversation, used in every way that people have, read again from the tables and from the bytes,
and merged into another replica. Nothing may raise, entries that no stranger touched stay, and all read the same. A
failure prints the seed of its document: ``--seed N --documents 1`` repeats it.
"""

from __future__ import annotations

import argparse
import json
import random
import sqlite3
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Sequence
from contextlib import closing, suppress
from functools import cache
from pathlib import Path
from typing import Any

import pycrdt
from click.testing import CliRunner

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "interop"))
import chat_request
from strangers import Stranger

import llmcrdt
from llmcrdt.cli import main as command
from llmcrdt.document import schema
from llmcrdt.document.projector import words_of_row
from llmcrdt.exceptions import TemplateFailed
from llmcrdt.generation.cache_miss import explain
from llmcrdt.ids import SessionId, new_document_id
from llmcrdt.interop import openai_chat
from llmcrdt.prompt import prompt_ids, sources
from llmcrdt.repo.sync_source import SyncSource
from llmcrdt.store.snapshots import Pieces
from llmcrdt.sync.local import Record
from llmcrdt.testing.templates import tokenizers

STYLES = tokenizers()
BATCH = 20
"""Documents in one pair of repos."""
CLIENT = 1 << 40
SOUND = "sound words"


class Broken(AssertionError):
    """A stranger's document did what none may do."""


@cache
def sound_document() -> tuple[bytes, tuple[llmcrdt.Entry, ...]]:
    """A conversation with something of everything, and its entries. It says nothing of itself yet: ``facts`` do."""
    with (
        tempfile.TemporaryDirectory() as folder,
        llmcrdt.open(Path(folder) / "a.db", random=random.Random(7).randbytes) as repo,
    ):
        conv = repo.join(new_document_id(random.Random(8).randbytes))
        tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}
        conv.append("system", SOUND, tools=[tool], date="2026-01-01")
        conv.append("user", f"{SOUND} one")
        call = llmcrdt.ToolCall("c1", "f", "{}")
        answer = conv.append("assistant", [llmcrdt.Text(SOUND), call], frame=conv.transcript(), hidden={"p/x": b"data"})
        conv.append("tool", f"{SOUND} two", call=answer.tool_calls[0])
        said = conv.append("user", "first said")
        conv.edit(said, f"{SOUND} three")
        secret = conv.append("user", "a secret")
        conv.erase(secret)
        with suppress(ZeroDivisionError), conv.stream("assistant", frame=conv.transcript()) as stream:
            stream.write(f"{SOUND} four")
            stream.flush()
            raise ZeroDivisionError  # sealed as failed
        conv.summarize(until=conv.transcript()[1], text=f"{SOUND} five")
        conv.append("user", f"{SOUND} six")
        return conv.diff(), (*conv.transcript(), *(e.entry for e in conv.transcript().elsewhere))


def facts(document: str) -> bytes:
    """The update by which a document says what it is, as whoever creates it writes it."""
    doc: Any = pycrdt.Doc(client_id=CLIENT - 1)
    meta = doc.get(schema.META, type=pycrdt.Map)
    with doc.transaction():
        meta["schema"], meta["kind"], meta["created_at"] = schema.SCHEMA, "conversation", "1700000000000"
        meta[schema.IDENTITY + document] = "1"
    return bytes(doc.get_update())


def untouched(stranger: Stranger) -> dict[str, llmcrdt.Entry]:
    """The sound entries that no stranger changed, and nothing that they refer to."""
    _, entries = sound_document()
    left = {entry.id: entry for entry in entries if entry.id not in stranger.touched}
    before = -1
    while before != len(left):
        before = len(left)
        for entry in tuple(left.values()):
            pins = [frame.pins for frame in (entry.frame, entry.covers) if frame]
            refs = {*entry.parents, *(pin[0] for each in pins for pin in each), entry.alternative_of}
            refs |= {entry.answers[0]} if entry.answers else set()
            if refs - {None} - left.keys():
                del left[entry.id]
    return left


def seen(conv: llmcrdt.Conversation) -> dict[str, object]:
    """The content of a replica, to be compared with that of another one."""
    transcript = conv.transcript()
    return {
        "hash": transcript.hash,
        "entries": [_comparable(entry) for entry in transcript],
        "malformed": dict(transcript.malformed),
        "elsewhere": [_comparable(e.entry) for e in transcript.elsewhere],
        "hidden by": [(e.entry.id, e.hidden_by, e.unseen, e.way) for e in transcript.elsewhere],
        "elsewhere_hash": transcript.elsewhere_hash,
        "created_at": conv.created_at,
        "forked_from": repr(conv.forked_from),
    }


def _comparable(entry: llmcrdt.Entry) -> tuple[str, ...]:
    said = (entry.role, entry.author, entry.created_at, entry.parts, entry.model, entry.usage, sorted(entry.hidden))
    return entry.id, entry.status, str(entry.hash), repr(said)


def same(name: str, one: object, other: object) -> None:
    if one != other:
        raise Broken(f"{name}: {_difference(one, other)}")


def _difference(one: Any, other: Any) -> str:
    if isinstance(one, dict) and isinstance(other, dict):
        return "; ".join(
            f"{k}: {_difference(one.get(k), other.get(k))}"
            for k in sorted(one.keys() | other.keys())
            if one.get(k) != other.get(k)
        )
    if isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)) and len(one) == len(other):
        return "; ".join(
            f"[{i}] {_difference(a, b)}" for i, (a, b) in enumerate(zip(one, other, strict=True)) if a != b
        )
    return f"{str(one)[:300]} is not {str(other)[:300]}"


class World:
    """Two devices, the documents that strangers wrote into, and how often a template refused one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.repo = llmcrdt.open(folder / "laptop.db", random=random.Random(1).randbytes)
        self.other = llmcrdt.open(folder / "phone.db", random=random.Random(2).randbytes)
        self.conversations: list[str] = []
        self.refused: Counter[str] = Counter()

    def close(self) -> None:
        self.repo.close()
        self.other.close()

    def document(self, seed: int) -> None:
        """Merge one, and go through every door."""
        rng = random.Random(seed)
        stranger = Stranger(rng)
        base, _ = sound_document()
        id_ = new_document_id(rng.randbytes)
        known = _merged(base, facts(id_))
        updates = [known]
        for n in range(rng.randint(1, 3)):
            client = CLIENT + 10 * seed + n
            updates.append(stranger.conversation(known, client))
            if rng.random() < 0.5:
                known = _merged(known, updates[-1])  # else it had not seen what the other one wrote
        self.conversations.append(id_)
        conv = self.repo.join(id_)
        told: list[object] = []
        conv.observe(told.append)
        for update in updates:
            conv.apply(update)
            conv.transcript().hash  # noqa: B018  # it is read between two merges, or not, as it happens
        self._reads(conv)
        left = untouched(stranger)
        self._stays(conv, left)
        before = seen(conv)
        again = self._again(conv)
        same("loaded again", before, seen(again))
        other = self.other.join(id_)
        mixed = rng.sample(updates, len(updates))
        if rng.random() < 0.5:
            for update in mixed:
                other.apply(update)
        else:  # as a relay's records
            records = [Record(SessionId("s" * 22), n, update) for n, update in enumerate(mixed, 1)]
            SyncSource(self.other._core, "ws://relay", None).received(other.id, records, None)
        same("on another device", before, seen(other))
        self._writes(again, rng)
        self._stays(again, left)
        other.apply(again.diff(other.version()))
        again.apply(other.diff(again.version()))
        before = seen(again)
        self._reads(again)
        same("after writing, on another device", before, seen(other))
        again = self._again(again)
        same("after writing, loaded again", before, seen(again))
        other.close()
        same("loaded again, on another device", seen(again), seen(self.other.get(id_)))
        self._command("show", id_)
        self._command("show", id_, "--last", "3")
        self._command("show", id_, "--elsewhere", "--json")
        self._command("export", id_)

    def _again(self, conv: llmcrdt.Conversation) -> llmcrdt.Conversation:
        conv.close()
        found = self.repo.get(conv.id)
        page = found.entries(last=1000)  # of the tables
        same("pages", [_comparable(e) for e in page], [_comparable(e) for e in found.transcript()])
        return found

    def _stays(self, conv: llmcrdt.Conversation, left: dict[str, llmcrdt.Entry]) -> None:
        transcript = conv.transcript()
        shown = {e.id: e for e in (*transcript, *(e.entry for e in transcript.elsewhere))}
        for id_, entry in left.items():
            if id_ not in shown or shown[id_].text != entry.text or shown[id_].role != entry.role:
                raise Broken(
                    f"{id_} ({entry.text!r}) does not stay: {transcript.malformed.get(entry.id, shown.get(id_))}"
                )

    def _reads(self, conv: llmcrdt.Conversation) -> None:
        transcript = conv.transcript()
        entries = tuple(transcript)
        everything = [*entries, *(e.entry for e in transcript.elsewhere)]
        for entry in everything:
            conv.entry(entry)
            conv.alternatives(entry)
            conv.frame_entries(entry)
            conv.stop_asked(entry)
            for call in entry.tool_calls:
                conv.results(call)
            _as_utf8(repr(entry), entry.text, entry.reasoning, entry.config, entry.author)
            for field in entry.hidden.values():
                _as_utf8(repr(field), field.locked)
        list(conv.generations())
        conv.unsealed()
        conv.verify()
        conv.blobs()
        conv.entries(last=3)
        _as_utf8(conv.forked_from, conv.created_at, transcript.malformed)
        request: Any = openai_chat.export(entries, title="t")
        _as_json(request)
        if request["messages"] and (wrong := chat_request.problems(request)):
            raise Broken(f"the export is no valid request: {wrong}")
        _as_json(openai_chat.export(entries, bare=True))
        for style, tokenizer in STYLES.items():
            try:
                prompt = prompt_ids(entries, tokenizer, created_at=conv.created_at)
                sources(prompt, entries, tokenizer)
                _as_utf8(explain(conv, tokenizer, entries, prompt, reused=0, chunk=64))
            except TemplateFailed:
                self.refused[style] += 1

    def _writes(self, conv: llmcrdt.Conversation, rng: random.Random) -> None:
        conv.append("user", f"{SOUND} later")
        for act in rng.sample(range(9), 4):
            transcript = conv.transcript()
            everything = [*transcript, *(e.entry for e in transcript.elsewhere)]
            entry = rng.choice(everything)
            match act:
                case 0:
                    conv.edit(entry, "said anew")
                case 1:
                    conv.select(entry)
                case 2:
                    conv.stop(entry)
                case 3:
                    conv.seal(entry)
                case 4:
                    with suppress(llmcrdt.exceptions.NotSealed):
                        conv.append("assistant", "computed", frame=transcript)
                case 5:
                    with suppress(llmcrdt.exceptions.NotSealed):
                        conv.summarize(until=rng.choice(list(transcript)), text="in short")
                case 6:
                    with suppress(llmcrdt.exceptions.NotSealed):
                        fork = self.repo.fork(conv, at=rng.choice(list(transcript)))
                        self._reads(fork)
                        fork.close()
                case 7:
                    for call in [call for each in everything for call in each.tool_calls][:2]:
                        conv.claim(call)
                        conv.append("tool", "a result", call=call)
                case 8 if rng.random() < 0.3 and entry.status != "erased":
                    conv.append("user", [llmcrdt.Text(""), llmcrdt.Text("to be erased")])
                    conv.erase(conv.transcript()[-1])
        if not any(e.text == f"{SOUND} later" for e in conv.transcript()):
            everything = [e.entry for e in conv.transcript().elsewhere]
            if not any(e.text == f"{SOUND} later" for e in everything):
                raise Broken("what was written is nowhere")

    def library(self, seed: int) -> None:
        """A stranger writes into the list of conversations."""
        rng = random.Random(seed)
        stranger = Stranger(rng)
        library = self.repo._core.library.document
        for n in range(2):
            library.apply(stranger.library(library.diff(), CLIENT + 10 * seed + n, self.conversations[-5:]))
            rows = self.repo.list(1000)
            _as_utf8(*rows)
            for row in rows:
                time.localtime(row.created_at)
        self.repo.rename(self.conversations[-1], "renamed")
        if self.repo.get(self.conversations[-1]).title != "renamed":
            raise Broken("a stranger's title can't be changed any more")
        self.repo.create(f"{SOUND} in a new one").append("user", SOUND)

    def end(self) -> None:
        """All that takes the repo as a whole; then it is opened again."""
        for found in (
            self.repo.search(SOUND, 1000),
            self.repo.search(SOUND, 1000, elsewhere=True),
            self.repo.search("stranger"),
        ):
            _as_utf8(*found)
        if len(
            {hit.conversation for hit in self.repo.search(SOUND, 10_000, elsewhere=True)} & set(self.conversations)
        ) < len(self.conversations):
            raise Broken("a search does not find what is sound in every conversation")
        for arguments in (
            ("list",),
            ("list", "--json"),
            ("search", SOUND),
            ("search", SOUND, "--json"),
            ("verify",),
            ("verify", "--json"),
        ):
            self._command(*arguments)
        rows = self.repo.list(1000)
        self.repo.blobs.collect()
        self.close()
        self.repo = llmcrdt.open(self.folder / "laptop.db")
        same("the list, opened again", rows, self.repo.list(1000))
        other = llmcrdt.open(self.folder / "third.db", library=self.repo.library)
        other._core.library.document.apply(self.repo._core.library.document.diff())
        same("the list, on another device", sorted(rows), sorted(other.list(1000)))
        other.close()
        self.repo.search(SOUND)
        self.close()
        with closing(sqlite3.connect(self.folder / "laptop.db")) as file:  # the index holds just the words of the rows
            file.create_function("words_of", 2, words_of_row)
            file.create_function("fields_of", 2, Pieces(file).fields)
            file.execute("INSERT INTO entry_words (entry_words, rank) VALUES ('integrity-check', 1)")

    def _command(self, *arguments: str) -> None:
        """The command line, which must print what UTF-8 holds, and nothing that a terminal obeys."""
        done = CliRunner().invoke(command, ["--db", str(self.folder / "laptop.db"), *arguments])
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise Broken(f"{arguments}: {done.exception!r}") from done.exception
        if done.exit_code and arguments[0] != "verify":
            raise Broken(f"{arguments} ends with {done.exit_code}: {done.output[-300:]}")
        if "--json" in arguments or arguments[0] == "export":
            json.loads(done.stdout, parse_constant=_no_constant)
        elif "\x1b" in done.stdout:
            raise Broken(f"{arguments} prints what a terminal obeys: {done.stdout!r}")


def _no_constant(name: str) -> object:
    raise Broken(f"{name} is printed as JSON")


def _merged(*updates: bytes) -> bytes:
    doc: Any = pycrdt.Doc()
    for update in updates:
        doc.apply_update(update)
    return bytes(doc.get_update())


def _as_utf8(*values: object) -> None:
    for value in values:
        str(value).encode()


def _as_json(value: object) -> None:
    json.dumps(value, ensure_ascii=False, allow_nan=False).encode()


def run(seeds: Sequence[int], *, stop: bool = False) -> tuple[Counter[str], list[int]]:
    """Documents of these seeds: how many each template refused, and the seeds of those that broke something, whose
    cause is printed. ``stop``: raise Broken at the first."""
    refused: Counter[str] = Counter()
    failed: list[int] = []
    for start in range(0, len(seeds), BATCH):
        batch = seeds[start : start + BATCH]
        with tempfile.TemporaryDirectory() as folder:
            world, seed = World(Path(folder)), batch[0]
            try:
                for seed in batch:
                    world.document(seed)
                    world.library(seed)
                world.end()
            except Exception as error:
                if stop:
                    raise Broken(f"document {seed}: {type(error).__name__}: {error}") from error
                failed.append(seed)
                at = traceback.extract_tb(error.__traceback__)[-1]
                where = f"{Path(at.filename).name}:{at.lineno}"
                print(f"document {seed}: {type(error).__name__} at {where}: {str(error)[:800]}", flush=True)
            finally:
                world.close()
            refused += world.refused
    return refused, failed


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1, help="of the first")
    args = parser.parse_args(arguments)
    start = time.monotonic()
    refused, failed = run(range(args.seed, args.seed + args.documents))
    print(
        f"{args.documents:,} documents in {time.monotonic() - start:.0f} s; templates that refused one: {dict(refused)}"
    )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
