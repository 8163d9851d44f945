"""A handful of the kills of ``make kvsoak``: nothing that was stored is lost, and nothing bad is found."""

import subprocess
import sys
from pathlib import Path

import pytest

SOAK = Path(__file__).with_name("kill_soak.py")


@pytest.mark.skipif(sys.platform == "win32", reason="kill -9 and fork are of Unix")
@pytest.mark.parametrize("what", [["--kills", "12"], ["--kills", "4", "--engine", "--arch", "lfm2"]], ids=" ".join)
def test_killed_writers_lose_nothing_and_leave_nothing_bad(what):
    done = subprocess.run([sys.executable, SOAK, *what], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "nothing lost, no bad hit" in done.stdout or "every logit the same" in done.stdout
