"""Runs all tests, and checks types and arrows meanwhile: ``make test``.

    .venv/bin/python scripts/run_tests.py [ARGUMENT OF PYTEST ...]

Tests' files lie in memory where there is room, for most tests write small files and wait for the disk at each. They are
kept where a test failed. The code is compiled once, before several processes load it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TOOLS = Path(sys.executable).parent

MEMORY = Path("/dev/shm")
ROOM = 6 << 30
"""Bytes: a run writes some 1.5 GB."""
FAILED, STOPPED = 1, 130
"""Exit codes: a test failed; somebody stopped it."""


def main(arguments: Sequence[str]) -> int:
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": ""}
    memory = room_in_memory(MEMORY, Path("/proc/meminfo"))
    if memory is not None:
        environment["TMPDIR"] = str(memory)
    checks = [(name, start(name, environment)) for name in ("mypy", "lint-imports")]
    pytest = str(TOOLS / "pytest")
    command = [pytest, "--dist", "worksteal", "-n", str(workers()), *arguments]
    try:
        if not (ROOT / "tests" / "__pycache__").exists():
            quiet = subprocess.DEVNULL
            subprocess.run([pytest, "--collect-only"], cwd=ROOT, env=environment, stdout=quiet, stderr=quiet)
        tested = subprocess.run(command, cwd=ROOT, env=environment).returncode
    except KeyboardInterrupt:
        for _, check in checks:
            check.kill()
        tested = STOPPED
    said = [(name, check.communicate()[0].strip(), check.returncode) for name, check in checks]
    for name, text, _ in said:
        print(f"{name}: {text}")
    if memory is not None and tested == FAILED:
        print(f"The files of the tests are in {memory}, which is memory: delete them.")
    elif memory is not None:
        shutil.rmtree(memory, ignore_errors=True)
    return tested or max(code for *_, code in said)


def workers() -> int:
    """One more than there are cores: many tests wait for clocks and child processes."""
    return (os.cpu_count() or 1) + 1


def start(name: str, environment: dict[str, str]) -> subprocess.Popen[str]:
    """One of the checks that need no test."""
    together = subprocess.STDOUT
    return subprocess.Popen(
        [TOOLS / name], cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=together, text=True
    )


def room_in_memory(shared: Path, meminfo: Path, room: int = ROOM) -> Path | None:
    """A new folder in a file system of memory; None where there is none, not enough room, or programs don't run."""
    try:
        lines = dict(line.split(":", 1) for line in meminfo.read_text().splitlines())
        free = min(shutil.disk_usage(shared).free, int(lines["MemAvailable"].split()[0]) << 10)
        if free < room or os.statvfs(shared).f_flag & os.ST_NOEXEC:
            return None
        return Path(tempfile.mkdtemp(prefix="t-", dir=shared))
    except (OSError, ValueError, LookupError):
        return None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
