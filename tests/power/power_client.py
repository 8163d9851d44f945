"""A device whose power fails: what it wrote, and what must be in its repo afterwards."""

from __future__ import annotations

import hashlib
import json
import random
import sqlite3
import sys
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
sys.path.append(str(Path(__file__).parents[2]))

from power_recording import MARK, Event, Recorder, mark

import llmcrdt
from llmcrdt.exceptions import ConversationNotFound

DATABASE = "chats.db"


@dataclass
class Promised:
    """The results of calls, by conversation. An erase or a deletion that has begun may have happened."""

    words: dict[str, dict[str, str]] = field(default_factory=dict)
    """Texts by entry."""
    unsure: set[str] = field(default_factory=set)
    """Entries and conversations that are about to go."""
    erased: dict[str, str] = field(default_factory=dict)
    """The conversations of entries."""
    deleted: set[str] = field(default_factory=set)
    blobs: dict[str, tuple[str, str]] = field(default_factory=dict)
    """SHA-256 of contents, with conversation and entry."""
    sealed: dict[str, str] = field(default_factory=dict)
    """Hidden text by entry."""
    library: str = ""

    def take(self, event: Event) -> None:
        if event.kind != MARK:
            return
        what, *words = json.loads(event.data)
        match what, words:
            case "library", [id_]:
                self.library = id_
            case "created", [conv]:
                self.words[conv] = {}
            case "said", [conv, entry, text]:
                self.words[conv][entry] = text
            case "attached", [conv, entry, hash_]:
                self.blobs[hash_] = (conv, entry)
            case "sealed", [entry, text]:
                self.sealed[entry] = text
            case "goes", [id_]:
                self.unsure.add(id_)
            case "erased", [conv, entry]:
                self.words[conv].pop(entry)
                self.erased[entry] = conv
            case "deleted", [conv]:
                self.words.pop(conv)
                self.deleted.add(conv)
            case _:
                raise AssertionError(what)


def record(recorder: Recorder, seed: int, steps: int) -> Sequence[Event]:
    """A process that opens a new repo, writes into it and closes it, again and again."""
    done = recorder.run(__file__, str(recorder.root), str(recorder.log), str(seed), str(steps))
    assert done.returncode == 0, done.stderr
    return recorder.events()


def check(folder: Path, promised: Promised) -> None:
    """All that was promised is there, and the repo works on. Raises AssertionError, or whatever the repo raises."""
    path = folder / DATABASE
    if not path.exists():
        assert not promised.library, "the database is there"
    with llmcrdt.open(path) as repo:
        assert promised.library in ("", repo.library), "the library is the one that it was"
        _check_words(repo, promised)
        _check_gone(repo, promised)
        conv = repo.create("after")
        conv.append("user", [llmcrdt.Text("it works on"), llmcrdt.Blob(b"also with an attachment")])
        again = conv.id
    with llmcrdt.open(path) as repo:
        _check_words(repo, promised)
        (entry,) = repo.get(again).transcript()
        assert entry.text == "it works on" and entry.parts[1].read() == b"also with an attachment"  # type: ignore[union-attr]
        assert repo.search("works"), "what is written is found"
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def _check_words(repo: llmcrdt.Repo, promised: Promised) -> None:
    listed = {row.id for row in repo.list(1000)}
    for id_, words in promised.words.items():
        if id_ not in listed:
            assert id_ in promised.unsure, "what was created is listed"
            continue
        conv = repo.get(id_)
        there = {entry.id: entry for entry in conv.transcript()}
        assert conv.verify() == []
        for entry, text in words.items():
            if entry not in promised.unsure:
                assert entry in there and there[entry].text == text, "what was said is there"
                if entry in promised.sealed:
                    assert there[entry].hidden["a/b"].data == promised.sealed[entry].encode(), "with its hidden field"
    for hash_, named_by in promised.blobs.items():
        if promised.unsure.isdisjoint(named_by):
            with repo.blobs.open(hash_) as file:
                assert hashlib.sha256(file.read()).hexdigest() == hash_, "an attachment is there"


def _check_gone(repo: llmcrdt.Repo, promised: Promised) -> None:
    for entry, id_ in promised.erased.items():
        if id_ not in promised.unsure:
            assert entry not in {e.id for e in repo.get(id_).transcript() if e.text}, "what was erased is gone"
    for id_ in promised.deleted:
        try:
            repo.get(id_)
        except ConversationNotFound:
            continue
        raise AssertionError("what was deleted is gone")


# ---------------------------------------------------------------- the process


def _work(root: Path, log: Path, seed: int, steps: int) -> None:
    rng = random.Random(seed)

    def tell(what: str, *words: str) -> None:
        mark(log, json.dumps([what, *words]))

    done = 0
    living: list[str] = []
    while done < steps:
        with llmcrdt.open(root / DATABASE) as repo:
            tell("library", repo.library)
            for _ in range(rng.randint(1, 30)):
                done += 1
                if len(living) < 2 or rng.random() < 0.05:
                    living.append(repo.create(f"number {done}").id)
                    tell("created", living[-1])
                _act(repo, rng, living, done, tell)


def _act(repo: llmcrdt.Repo, rng: random.Random, living: list[str], n: int, tell: object) -> None:
    assert callable(tell)
    conv = repo.get(rng.choice(living))
    text = f"word {n} " * rng.choice((1, 1, 20, 400))
    match rng.randrange(12):
        case 0 | 1:
            content = rng.randbytes(rng.choice((10, 3_000, 60_000)))
            entry = conv.append("user", [llmcrdt.Text(text), llmcrdt.Blob(content)])
            tell("attached", conv.id, entry.id, hashlib.sha256(content).hexdigest())
        case 2:
            with conv.stream("assistant", frame=conv.transcript()) as stream:
                for word in text.split(" "):
                    stream.write(word + " ")
            entry = conv.entry(stream.id)
            text = entry.text
        case 3:
            hidden = {"a/b": llmcrdt.HiddenField(text.encode(), {}, sealed=True)}
            entry = conv.append("assistant", text, frame=conv.transcript(), hidden=hidden)
            tell("sealed", entry.id, text)
        case 4 if len(there := [entry for entry in conv.transcript() if entry.text]) > 3:
            entry = rng.choice(there)
            tell("goes", entry.id)
            conv.erase(entry)
            tell("erased", conv.id, entry.id)
            return
        case 5 if len(living) > 2:
            doomed = living.pop(rng.randrange(len(living)))
            tell("goes", doomed)
            repo.delete(doomed)
            tell("deleted", doomed)
            return
        case _:
            entry = conv.append("user", text)
    tell("said", conv.id, entry.id, text)


if __name__ == "__main__":
    _work(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
