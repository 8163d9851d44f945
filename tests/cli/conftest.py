"""The command line, called as a function."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from llmcrdt.cli import main


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """``run(*arguments)`` -> (exit code, stdout, stderr), with a database in the test's folder."""

    def run_(*arguments: object, db: str = "a.db") -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main(["--db", str(tmp_path / db), *map(str, arguments)])
        out, err = capsys.readouterr()
        return int(ended.value.code or 0), out, err

    return run_
