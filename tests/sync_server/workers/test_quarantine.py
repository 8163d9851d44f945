"""A document that workers die of is left alone, after a restart as well, until an operator lifts its mark."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path

import pytest

from llmcrdt.ids import document_id
from sync_server.__main__ import main
from sync_server.core.events import CatchUpRequest, CompactRequest
from sync_server.core.limits import Limits
from sync_server.log.quarantine import FILE, Quarantine
from sync_server.workers.compactor import Compactor
from sync_server.workers.documents import Lane
from sync_server.workers.orders import Sent
from sync_server.workers.scheduler import ValidationScheduler

from ..core.test_validation import edits
from .test_scheduler import D, E, Scheduled, names


class Marked(Scheduled):
    """One whose quarantine is on disk."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        quarantine = Quarantine(folder / FILE, lambda: 1_800_000_000)
        self.scheduler = ValidationScheduler(self.log.snapshots, Limits(), self._take, quarantine)
        self.quick, self.slow = self.scheduler.lanes

    def lose(self, lane: Lane, batch: list[Sent], overran: bool = False) -> None:
        self.scheduler.lost(lane, batch, None, overran, self.now)

    def die_of(self, document: bytes, overran: bool = False) -> int:
        """Push to it, and lose each worker that loads it, until the push is answered."""
        ticket = self.push(document, *edits(1), n=2)
        for _ in range(10):
            for lane in (self.quick, self.slow):
                if ticket not in self.answers and (batch := self.batch(lane)):
                    self.lose(lane, batch, overran)
        return ticket


def test_a_document_that_workers_die_of_is_left_alone_until_its_mark_is_lifted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tokens = ["--data", str(tmp_path)]
    scheduled = Marked(tmp_path)
    with closing(scheduled.log):
        for document in (D, E):
            scheduled.append(document, *edits(1))
        assert scheduled.answers[scheduled.die_of(D)].failed
    scheduled = Marked(tmp_path)
    with closing(scheduled.log):
        ticket = scheduled.push(D, *edits(1), n=2)
        assert scheduled.answers[ticket].failed, "after a restart it is not tried again"
        assert not scheduled.batch(scheduled.quick) and not scheduled.batch(scheduled.slow)
        other = scheduled.push(E, *edits(1), n=2)
        scheduled.run()
        assert scheduled.answers[other].good == 1, "and nobody else is concerned"
        assert main(["quarantine", *tokens, "--json"]) == 0
        (row,) = map(json.loads, capsys.readouterr().out.splitlines())
        assert row == {"document": document_id(D), "since": 1_800_000_000, "why": row["why"]} and "fail" in row["why"]
        assert main(["quarantine", *tokens, "--lift", document_id(E)]) == 4
        assert main(["quarantine", *tokens, "--lift", document_id(D)]) == 0
        ticket = scheduled.push(D, *edits(1), n=2)
        batch = scheduled.batch(scheduled.quick)
        assert names(batch) == [(b"loaded", b"d"), (b"check", b"d")]
        scheduled.say(scheduled.quick, batch)
        assert scheduled.answers[ticket].good == 1, "a relay that runs hears of it"


def test_one_that_takes_too_long_is_tried_again_after_a_restart(tmp_path: Path) -> None:
    """The machine may have been busy."""
    scheduled = Marked(tmp_path)
    with closing(scheduled.log):
        scheduled.append(D, *edits(1))
        assert scheduled.answers[scheduled.die_of(D, overran=True)].failed
    assert not Quarantine(tmp_path / FILE).marks()


def test_no_worker_compacts_a_document_in_quarantine(tmp_path: Path) -> None:
    scheduled = Marked(tmp_path)
    with closing(scheduled.log):
        scheduled.append(D, *edits(3))
        head = scheduled.log.records.head(D)
        assert head
        quarantine = Quarantine()
        compactor = Compactor(scheduled.log, Limits(), lambda result: None, quarantine=quarantine)
        assert compactor.compact(CompactRequest(D, head.cursor))
        quarantine.put(D, "It makes the check fail.")
        assert compactor.compact(CompactRequest(D, head.cursor)) is None
        assert compactor.catch_up(CatchUpRequest(D, 0, head.cursor.position)) == []
        compactor.stop()


@pytest.mark.parametrize("content", [b"", b"{", b'{"x": {"since": 1, "why": ""}}', b'{"x": 1}', b"\xff"])
def test_a_file_that_can_not_be_read_stops_nobody(tmp_path: Path, content: bytes) -> None:
    (tmp_path / FILE).write_bytes(content)
    found = Quarantine(tmp_path / FILE)
    assert not found.marks()
    found.put(D, "why")
    assert Quarantine(tmp_path / FILE).marks().keys() == {D}
    assert found.lift(D) and not found.lift(D)
    assert D not in Quarantine(tmp_path / FILE)
    (tmp_path / FILE).unlink()
    found.put(E, "why")
    (tmp_path / FILE).unlink()
    assert E not in found, "a file that an operator removed holds nothing"


def test_a_folder_that_can_not_be_written_costs_only_what_a_restart_would_know(tmp_path: Path) -> None:
    found = Quarantine(tmp_path / "missing" / FILE)
    found.put(D, "why")
    assert D in found
