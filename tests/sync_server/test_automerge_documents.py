"""Automerge documents at the relay: its workers check and compact them as they do others, and nobody's bytes harm
another's."""

from __future__ import annotations

import random
import sys
from pathlib import Path

from llmcrdt.crdt.automerge.chunks import read_chunks, write_chunk
from llmcrdt.crdt.automerge.columns import Reader
from llmcrdt.crdt.registry import backend
from llmcrdt.sync.messages import Ack, Error, ErrorCode, Open, Opened, Push
from sync_server.thread import RelayThread

from .core.test_compaction import FOLD_DONE, D, S, T, ask_fold, fill, stored
from .core.test_validation import ask, native

sys.path.insert(0, str(Path(__file__).parents[1] / "crdt" / "automerge"))
from needs_automerge import needs_automerge

pytestmark = needs_automerge

KIND, ROOTS = "automerge", ("meta", "entries", "acts")


def written(count: int) -> list[bytes]:
    replica, made = backend(KIND).make_replica(ROOTS), []
    for n in range(count):
        with replica.edit() as edit:
            edit.put_node("entries", f"e{n}", {"head": "h" * n})
            edit.put_text("entries", f"e{n}", "live")
            edit.append_text("entries", f"e{n}", "live", "words 😀")
        made.append(edit.update)
    return made


def keys(updates: list[bytes]) -> set[str]:
    replica = backend(KIND).make_replica(ROOTS)
    replica.load(None, updates)
    return set(replica.keys("entries"))


def test_records_are_checked_and_a_bad_one_harms_nobody(tmp_path: Path) -> None:
    """Some of the bad ones make the core panic: the worker throws its replica away, and goes on."""
    rng, updates = random.Random(1), written(6)
    stranger = Reader(read_chunks(written(2)[0])[-1].raw, 9).prefixed()
    with RelayThread(tmp_path) as relay, native(relay.url) as client:
        assert isinstance(ask(client, Open(D, KIND)), Opened)
        assert isinstance(ask(client, Push(D, S, 1, (updates[0],))), Ack)
        refused = 0
        for n in range(40):
            bad = bytearray(stranger)
            bad[rng.randrange(40, len(bad))] = rng.randrange(256)
            answer = ask(client, Push(D, T, n + 1 - refused, (write_chunk(bytes(bad)),)))
            assert isinstance(answer, Ack) or answer.code == ErrorCode.BAD_RECORD, answer  # type: ignore[attr-defined]
            refused += isinstance(answer, Error)
        assert refused > 10
        for n, update in enumerate(updates[1:], 2):
            assert isinstance(ask(client, Push(D, S, n, (update,))), Ack)
        assert keys(stored(relay.url, KIND)) >= keys(updates)


def test_a_log_is_folded_with_what_waits(tmp_path: Path) -> None:
    updates = written(30)
    with RelayThread(tmp_path) as relay:
        fill(relay.url, [*updates[:10], *updates[11:]], kind=KIND)
        assert ask_fold(relay.url, KIND) == FOLD_DONE
        assert keys(stored(relay.url, KIND)) == keys(updates[:10])
        fill(relay.url, [updates[10]], T, KIND)
        assert ask_fold(relay.url, KIND) == FOLD_DONE
        [whole] = stored(relay.url, KIND)
        assert keys([whole]) == keys(updates)
        assert len(whole) < sum(map(len, updates)) / 2
