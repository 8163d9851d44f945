"""A record of all that processes did to a folder's files, in order, by ``record.c`` between them and libc."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
_HEAD = struct.Struct("<B3xiQqII")
_SOURCE = Path(__file__).with_name("record.c")
MARK = "M"


class Event(NamedTuple):
    """``kind``: C file made, D folder made, U name removed, R renamed, L linked, W written, T cut, m mapped, f and F
    begin and end of an fsync, S offered to a peer, s taken of that, M a mark. ``file``: inode, or the port of a peer;
    ``at``: offset, size, mode, number of the fsync, bytes taken; ``names`` relative to the folder."""

    kind: str
    process: int
    file: int
    at: int
    names: tuple[str, ...]
    data: bytes


class Recorder:
    """Runs processes whose changes below ``root``, a folder in ``folder``, are recorded. Raises OSError where nothing
    can be recorded: no Linux, no compiler."""

    def __init__(self, folder: Path) -> None:
        compiler = shutil.which("cc") or shutil.which("gcc")
        if sys.platform != "linux" or compiler is None:
            raise OSError("the recorder is built by a C compiler, on Linux")
        self.root, self.log = folder / "root", folder / "recording"
        self.root.mkdir()
        self.log.touch()
        self._library = folder / "record.so"
        command = [compiler, "-shared", "-fPIC", "-O1", "-o", str(self._library), str(_SOURCE), "-ldl", "-lpthread"]
        subprocess.run(command, check=True)

    def environment(self, *, sockets: bool = False, kill_at: int = 0) -> Mapping[str, str]:
        """That of a recorded process. ``kill_at``: it is killed instead of its so many-th change or fsync."""
        more = {"LD_PRELOAD": str(self._library), "POWER_ROOT": str(self.root), "POWER_LOG": str(self.log)}
        more |= {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
        more |= {"POWER_SOCKETS": "1"} if sockets else {}
        more |= {"POWER_KILL_AT": str(kill_at)} if kill_at else {}
        return {**os.environ, **more}

    def run(self, *arguments: str, kill_at: int = 0) -> subprocess.CompletedProcess[str]:
        """Python with these arguments, to its end."""
        environment = self.environment(kill_at=kill_at)
        return subprocess.run([sys.executable, *arguments], env=environment, capture_output=True, text=True)

    def mark(self, text: str) -> None:
        mark(self.log, text)

    def events(self) -> Sequence[Event]:
        return [*_events(self.log.read_bytes())]


def mark(log: Path, text: str) -> None:
    """Note that by now something was promised."""
    data = text.encode()
    with open(log, "ab", buffering=0) as file:
        file.write(_HEAD.pack(ord(MARK), os.getpid(), 0, 0, 0, len(data)) + data)


def _events(content: bytes) -> Iterator[Event]:
    at = 0
    while at < len(content):
        kind, process, file, where, name, size = _HEAD.unpack_from(content, at)
        at += _HEAD.size
        names = content[at : at + name].decode().split("\0") if name else []
        yield Event(chr(kind), process, file, where, tuple(names), content[at + name : at + name + size])
        at += name + size
