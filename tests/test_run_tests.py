"""The folder into which ``make test`` puts the files of tests."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from .test_bootstrap import script

run_tests = script("run_tests")
GIB = 1 << 30


def meminfo(folder: Path, available: int) -> Path:
    file = folder / "meminfo"
    file.write_text(f"MemTotal:       24684084 kB\nMemAvailable:   {available >> 10} kB\nHugePages_Total:       0\n")
    return file


def test_a_new_folder_where_there_is_room(tmp_path: Path) -> None:
    made = run_tests.room_in_memory(tmp_path, meminfo(tmp_path, 2 * GIB), room=1 << 20)
    assert made.parent == tmp_path and made.is_dir()
    assert run_tests.room_in_memory(tmp_path, meminfo(tmp_path, 2 * GIB), room=1 << 20) != made


def test_none_where_memory_is_short_or_there_is_no_such_file_system(tmp_path: Path) -> None:
    before = set(os.listdir(tmp_path)) | {"meminfo"}
    assert run_tests.room_in_memory(tmp_path, meminfo(tmp_path, 2 * GIB - 1024), room=2 * GIB) is None
    assert run_tests.room_in_memory(tmp_path, meminfo(tmp_path, 1 << 60), room=1 << 60) is None
    assert run_tests.room_in_memory(tmp_path / "nowhere", meminfo(tmp_path, 2 * GIB), room=1) is None
    assert run_tests.room_in_memory(tmp_path, tmp_path / "nowhere", room=1) is None
    (tmp_path / "odd").write_text("MemFree: 5 kB\n")
    assert run_tests.room_in_memory(tmp_path, tmp_path / "odd", room=1) is None
    assert set(os.listdir(tmp_path)) - {"odd"} == before


def test_none_where_programs_do_not_run(tmp_path: Path) -> None:
    folder = tmp_path / "memory"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m,noexec", "tmpfs", folder], capture_output=True)
    if mounted.returncode:
        pytest.skip("no file system can be mounted here")
    try:
        assert run_tests.room_in_memory(folder, meminfo(tmp_path, 2 * GIB), room=1) is None
        assert not os.listdir(folder)
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)
