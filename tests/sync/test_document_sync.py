"""The phases of a document: the table of what may follow what, which the schedules of test_synchronizer.py keep to."""

from __future__ import annotations

import pytest

from llmcrdt.ids import document_id
from llmcrdt.sync.document_sync import MAY_FOLLOW, DocumentSync, Phase

RAW = b"d" * 16


@pytest.mark.parametrize("before", Phase)
@pytest.mark.parametrize("after", Phase)
def test_only_what_the_table_has_may_follow(before: Phase, after: Phase) -> None:
    doc = DocumentSync(document_id(RAW), RAW, before, log=[b"x"])
    if after in MAY_FOLLOW[before]:
        doc.enter(after)
        assert (doc.phase, doc.log) == (after, [])
    else:
        with pytest.raises(AssertionError):
            doc.enter(after)
        assert (doc.phase, doc.log) == (before, [b"x"])


def test_every_phase_is_reached_and_refused_is_the_end() -> None:
    reached, new = {Phase.WAITING}, {Phase.WAITING}
    while new:
        new = {after for phase in new for after in MAY_FOLLOW[phase]} - reached
        reached |= new
    assert reached == set(Phase) == set(MAY_FOLLOW)
    assert [phase for phase in Phase if not MAY_FOLLOW[phase]] == [Phase.REFUSED]
