"""Runs a long command: its output goes to a log, its progress to the person waiting."""

from __future__ import annotations

import os
import queue
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

_NINJA = re.compile(r"^\s*\[(\d+)/(\d+)\] ")
_MAKE = re.compile(r"^\s*\[\s*(\d+)%\] ")
_PHASE = re.compile(r"^\s*(?:\*\*\* )?(Collecting|Downloading|Configuring CMake|Installing collected packages)(.*)")
_FAULT = re.compile(r"^\s*(FAILED|CMake Error|ERROR:)|\b(fatal )?error:", re.IGNORECASE)


class Problem(Exception):
    """Something the person has to do, in the words to show them."""


def say(text: str) -> None:
    print(text, flush=True)


def run_logged(title: str, command: Sequence[str | Path], log: Path, env: Mapping[str, str]) -> None:
    """Run to the end, with every line of output in the log. Raises Problem with its telling lines where it fails."""
    log.parent.mkdir(parents=True, exist_ok=True)
    progress = Progress(title, sys.stdout)
    pipes: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    with (
        log.open("w", encoding="utf-8") as out,
        subprocess.Popen(command, env=env, encoding="utf-8", errors="replace", **pipes) as child,
    ):
        try:
            for line in _lines(child):
                if line is not None:
                    out.write(line)
                progress.show(line)
            status = child.wait()
        finally:
            if child.poll() is None:
                child.terminate()
    progress.end("done" if status == 0 else "failed")
    if status:
        raise Problem(f"{title} failed (exit status {status}). It said:\n\n{telling(log)}\n\nAll of it: {log}")


def step_of(line: str) -> tuple[str, int] | None:
    """The place in the work that a line of pip's, CMake's, ninja's or make's output names, and its percentage or -1."""
    if match := _NINJA.match(line):
        done, total = int(match[1]), int(match[2])
        return f"{done} of {total}", 100 * done // max(1, total)
    if match := _MAKE.match(line):
        return "compiling", int(match[1])
    if match := _PHASE.match(line):
        subject = match[2].split()[0] if match[1] in ("Collecting", "Downloading") and match[2].split() else ""
        return f"{match[1].lower()} {subject}".rstrip(), -1
    return None


def telling(log: Path) -> str:
    """The lines of a log to show: the first that name a fault, and the last."""
    lines = [line[:200] for line in log.read_text(encoding="utf-8", errors="replace").splitlines()]
    last = lines[-12:]
    faults = [line for line in lines[:-12] if _FAULT.search(line)][:8]
    return "\n".join([*faults, *(["..."] if faults else []), *last])


class Progress:
    """One line about a running command: redrawn in place on a terminal, now and then a new one elsewhere."""

    every = 15.0
    """Seconds between two lines where there is no terminal."""

    def __init__(self, title: str, stream: TextIO) -> None:
        self._title = title
        self._stream = stream
        self._terminal = stream.isatty()
        self._start = time.monotonic()
        self._shown = self._start - self.every + 2  # what is done sooner needs one line only
        self._step = ""

    def show(self, line: str | None) -> None:
        """Show a line of output; None is a moment in which nothing came."""
        step = None if line is None else step_of(line)
        if step is not None:
            self._step = step[0] if step[1] < 0 else f"{step[0]}, {step[1]} %"
        if time.monotonic() - self._shown >= (0.2 if self._terminal else self.every):
            self._draw(f"{self._step or 'started'} ({self._elapsed()})")

    def end(self, word: str) -> None:
        self._draw(f"{word} ({self._elapsed()})")
        if self._terminal:
            print(file=self._stream, flush=True)

    def _elapsed(self) -> str:
        seconds = int(time.monotonic() - self._start)
        return f"{seconds // 60}:{seconds % 60:02}"

    def _draw(self, text: str) -> None:
        self._shown = time.monotonic()
        line = f"{self._title}: {text}"
        if self._terminal:
            width = _width(self._stream)
            print(f"\r{line[:width]}\x1b[K", end="", file=self._stream, flush=True)
        else:
            print(line, file=self._stream, flush=True)


def _width(stream: TextIO) -> int:
    try:
        return (os.get_terminal_size(stream.fileno()).columns or 80) - 1
    except (OSError, ValueError):
        return 79


def _lines(child: subprocess.Popen[str]) -> Iterator[str | None]:
    """The child's output line by line, and None for each second in which none came."""
    lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()

    def read() -> None:
        assert child.stdout is not None
        for line in child.stdout:
            lines.put(line)
        lines.put(None)

    threading.Thread(target=read, daemon=True).start()
    while True:
        try:
            line = lines.get(timeout=1)
        except queue.Empty:
            yield None
            continue
        if line is None:
            return
        yield line
