"""Conversations as people have them: a question, an answer with the frame that it was computed on, one at a time."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pycrdt

import llmcrdt

from ..report import seconds

CHARS, HIDDEN = 240, 256


@dataclass
class Said:
    """The time that saying it took: every append, in seconds; and, of the last ones, the same bytes elsewhere."""

    appends: list[float] = field(default_factory=list)
    last: list[float] = field(default_factory=list)
    sqlite: list[float] = field(default_factory=list)
    pycrdt: list[float] = field(default_factory=list)
    transcript: list[float] = field(default_factory=list)


def words(seed: int) -> Iterator[str]:
    """Texts of 240 characters, out of words that nobody else uses often."""
    draw = random.Random(seed)
    vocabulary = ["".join(draw.choices("abcdefghijklmnopqrstuvwxyz", k=draw.randint(3, 9))) for _ in range(20_000)]
    while True:
        yield " ".join(draw.choices(vocabulary, k=60))[:CHARS]


def say(conversation: llmcrdt.Conversation, size: int, text: Iterator[str], chars: int = CHARS) -> list[float]:
    """Append so many entries, one at a time; the seconds that each took."""
    took = []
    for n in range(size):
        said, generated = next(text)[:chars], n % 2 == 1
        frame = conversation.transcript() if generated else None
        hidden = {"bench/signature": random.Random(said).randbytes(HIDDEN)} if generated and chars == CHARS else None
        role: llmcrdt.document.entry.Role = "assistant" if generated else "user"
        took.append(seconds(partial(conversation.append, role, said, frame=frame, hidden=hidden)))
    return took


def say_beside_others(path: Path, id_: str, count: int, text: Iterator[str]) -> Said:
    """Go on, and after each append have bare SQLite and bare pycrdt keep the same."""
    out, draw = Said(), random.Random(2)
    bare = sqlite3.connect(path.with_suffix(".bare"), isolation_level=None)
    for query in (
        "PRAGMA journal_mode=WAL",
        "PRAGMA synchronous=FULL",
        "CREATE TABLE IF NOT EXISTS updates (place INTEGER PRIMARY KEY, data BLOB)",
    ):
        bare.execute(query)
    document: pycrdt.Doc[pycrdt.Map[object]] = pycrdt.Doc()
    entries: pycrdt.Map[object] = document.get("entries", type=pycrdt.Map)
    with llmcrdt.open(path) as repo:
        conversation = repo.get(id_)
        conversation.append("user", "warm")
        for _ in range(count):
            said, hidden = next(text), draw.randbytes(HIDDEN)
            before = conversation.version()
            out.last.append(seconds(partial(conversation.append, "user", said, hidden={"h/h": hidden})))
            update = conversation.diff(since=before)
            out.sqlite.append(seconds(partial(bare.execute, "INSERT INTO updates (data) VALUES (?)", [update])))
            fields: dict[str, object] = {"head": "x" * 200, "version": said, "hidden": hidden}
            out.pycrdt.append(seconds(partial(_bare_append, document, entries, fields)))
            out.transcript.append(seconds(conversation.transcript))
    bare.close()
    return out


def content_of(conversation: llmcrdt.Conversation) -> int:
    """Bytes of visible text and of the hidden fields that were supplied."""
    entries = conversation.transcript()
    return sum(len(e.text.encode()) + sum(len(h.data) for h in e.hidden.values()) for e in entries)


def _bare_append(
    document: pycrdt.Doc[pycrdt.Map[object]], entries: pycrdt.Map[object], fields: dict[str, object]
) -> None:
    with document.transaction():
        entries[f"e{len(entries)}"] = pycrdt.Map(fields)
