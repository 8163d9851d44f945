"""The output that people see on a terminal."""

from __future__ import annotations

import pytest

from llmcrdt.cli.terminal import progress_line
from llmcrdt.sync.progress import Progress


@pytest.mark.parametrize(
    ("progress", "line"),
    [
        (Progress(), "connecting"),
        (Progress(of_sent=3, bytes_waiting=70), "connecting; 0 of 3 sent, 70 bytes to go"),
        (Progress(2, 40, 10, 500), "2 of 40 documents; 10 of 500 records received"),
        (Progress(4, 4, 7, 7, 3, 3), "4 of 4 documents; 7 of 7 records received; 3 of 3 sent"),
    ],
)
def test_progress(progress: Progress, line: str) -> None:
    assert progress_line(progress) == line
