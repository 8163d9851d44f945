"""A library of many conversations, each said one entry at a time: a first sync, a reconnection with nothing new, a new
device and its first search; the command that lists them; an import of many files.

The relay is a process of its own, as it is for people. Times of the CPU stand beside those of the clock: the disk's
commits and whatever else the machine does are in the latter.
"""

from __future__ import annotations

import json
import random
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import llmcrdt

from ..report import Report, median, seconds
from .talk import say, words

PATIENCE = 600
ROUNDS = 5
EXPORT_CHARS = 1_500
"""Letters of a message of an export, about: people paste, and models go on."""


def measure(report: Report, folder: Path, *, conversations: int, entries: int, megabytes: float) -> None:
    folder = folder / "library"
    folder.mkdir()
    _sync(report, folder, conversations, entries)
    _start(report, folder / "one.db")
    _import(report, folder, megabytes)


def _sync(report: Report, folder: Path, size: int, entries: int) -> None:
    text = words(9)
    with llmcrdt.open(folder / "one.db") as repo:
        for n in range(size):
            conversation = repo.create(f"conversation {n}")
            say(conversation, entries, text)
            conversation.close()
    with _relay(folder / "relay") as url:
        with llmcrdt.open(folder / "one.db") as repo:
            first = _Timed(lambda: _synced(repo, url))
            again = [_Timed(lambda: _synced(repo, url)) for _ in range(ROUNDS)]
            library = repo.library
        device = llmcrdt.open(folder / "two.db", library)
        new = _Timed(lambda: _synced(device, url))
        assert len(device.list(size)) == size
        unread = 0

        def search() -> None:
            nonlocal unread
            unread = device.search(next(text).split()[0]).unread

        found = _Timed(search)
        left = _Timed(lambda: device.search(next(text).split()[0], wait=None))
        close = _Timed(device.close)
    report.add(f"{size:,} conversations of {entries} entries: first sync", first.took, "s", 5)
    report.add("    CPU of the device", first.cpu, "s")
    report.add("  reconnect, nothing new", median([each.took for each in again]), "s", 0.2)
    report.add("    CPU of the device that reconnects", median([each.cpu for each in again]), "s")
    report.add("  a new device has them", new.took, "s", 5)
    report.add("    CPU of the new device", new.cpu, "s")
    report.add("  the new device's first search", found.took, "s", 0.5)
    report.add("    conversations that it did not read yet", unread, "of them")
    report.add("    a search that reads those first", left.took, "s")
    report.add("  close", close.took, "s", 0.3)


def _start(report: Report, path: Path) -> None:
    took = []
    for _ in range(ROUNDS):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-m", "llmcrdt", "--db", path, "list"], capture_output=True, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        took.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    report.add("llmcrdt list, CPU", median(took), "s", 0.2)


def _import(report: Report, folder: Path, megabytes: float) -> None:
    export = folder / "export"
    size = write_export(export, int(megabytes * 1e6))
    began, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-c", _IMPORT, str(folder / "import.db"), str(export)]
    found = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    took, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    assert found["files"] == len(list(export.iterdir()))
    report.add(f"import of {size / 1e6:,.3g} MB in {found['files']:,} files", took, "s", 30 * megabytes / 100)
    report.add("  CPU", cpu, "s")
    report.add("  memory", found["memory"], "MiB", 300)


_IMPORT = """
import json, sys
import llmcrdt
with llmcrdt.open(sys.argv[1]) as repo:
    files = sum(isinstance(each, llmcrdt.Imported) for each in llmcrdt.import_files(repo, [sys.argv[2]]))
status = open("/proc/self/status").read()
print(json.dumps({"files": files, "memory": int(status.split("VmHWM:")[1].split()[0]) / 1024}))
"""


def write_export(folder: Path, size: int) -> int:
    """Files as an export of a person's chats has them: most are short, some are long, a few have tools in them. The
    bytes that they have."""
    folder.mkdir()
    draw, text = random.Random(11), words(11)
    written = number = 0
    while written < size:
        turns = max(1, min(400, int(draw.lognormvariate(2.2, 1.0))))
        messages: list[dict[str, object]] = [{"role": "system", "content": "You are helpful."}]
        for turn in range(turns):
            messages.append({"role": "user", "content": next(text)})
            if draw.random() < 0.1:
                call = {"name": "search", "arguments": json.dumps({"query": next(text)[:40], "page": turn})}
                name = f"call_{number}_{turn}"
                calls = [{"id": name, "type": "function", "function": call}]
                messages.append({"role": "assistant", "content": None, "tool_calls": calls})
                messages.append({"role": "tool", "tool_call_id": name, "content": next(text)})
            length = draw.randint(EXPORT_CHARS // 4, EXPORT_CHARS * 2)
            answer = "\n\n".join(next(text) for _ in range(max(1, length // 240)))
            messages.append({"role": "assistant", "content": answer})
        data = json.dumps({"title": f"Chat {number}", "messages": messages}, indent=1).encode()
        (folder / f"{number:05}.json").write_bytes(data)
        written, number = written + len(data), number + 1
    return written


class _Timed:
    """One call: ``took`` by the clock, ``cpu`` of this process, both in seconds."""

    def __init__(self, do: Callable[[], object]) -> None:
        before = time.process_time()
        self.took = seconds(do)
        self.cpu = time.process_time() - before


def _synced(repo: llmcrdt.Repo, url: str) -> None:
    with repo.connect(url) as link:
        link.wait_synced(PATIENCE)


@contextmanager
def _relay(folder: Path) -> Iterator[str]:
    command = [sys.executable, "-m", "sync_server", "--data", str(folder), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().split()[-1]
        finally:
            process.terminate()
