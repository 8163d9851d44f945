"""Import large files of each kind, each in a process of its own, and print the most memory that it had:
python tests/repo/import_soak.py --megabytes 100 --limit 300

Fails where one had more than the limit, or lost an entry.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import sqlite3
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))
VECTORS = Path(__file__).parents[1] / "vectors" / "interop"
_DAY = "2026-01-01T00:00:00Z"
_rng = random.Random(1)
_WORDS = ("cat", "dog", "moon", "river", "stone", "cloud", "Zürich", "雨")


def words() -> str:
    return " ".join(_rng.choices(_WORDS, k=300))


def is_user(n: int) -> bool:
    return n % 2 == 0


def anthropic(n: int) -> Any:
    thinking = {"type": "thinking", "thinking": "Hm.", "signature": "A" * 400}
    said = words() if is_user(n) else [thinking, {"type": "text", "text": words()}]
    return {"role": "user" if is_user(n) else "assistant", "content": said}


def claude_code(n: int) -> Any:
    role = "user" if is_user(n) else "assistant"
    said = {"content": words()} if is_user(n) else {"id": f"msg_{n}", "content": [{"type": "text", "text": words()}]}
    line = {"type": role, "uuid": f"u{n}", "parentUuid": f"u{n - 1}" if n else None, "sessionId": "s1"}
    return {**line, "timestamp": _DAY, "message": {"role": role, "model": "m", **said}}


def codex(n: int) -> Any:
    if n == 0:
        return {"timestamp": _DAY, "type": "session_meta", "payload": {"id": "s1", "timestamp": _DAY, "cwd": "/"}}
    role, kind = ("user", "input_text") if is_user(n) else ("assistant", "output_text")
    said = {"type": "message", "role": role, "content": [{"type": kind, "text": words()}]}
    return {"timestamp": _DAY, "type": "response_item", "payload": said}


def claude(n: int) -> Any:
    messages = [
        {
            "uuid": f"c{n}m{i}", "sender": "human" if is_user(i) else "assistant", "text": "", "created_at": _DAY,
            "content": [{"type": "text", "text": words()}], "attachments": [], "files": [],
        }
        for i in range(200)
    ]  # fmt: skip
    return {"uuid": f"c{n}", "name": f"C {n}", "created_at": _DAY, "updated_at": _DAY, "chat_messages": messages}


def chatgpt(n: int) -> Any:
    def node(i: int) -> Any:
        role = "user" if is_user(i) else "assistant"
        content = {"content_type": "text", "parts": [words()]}
        message = {"id": f"c{n}m{i}", "author": {"role": role}, "content": content, "recipient": "all", "metadata": {}}
        return {"id": f"c{n}m{i}", "message": message, "parent": f"c{n}m{i - 1}" if i else None, "children": []}

    mapping = {f"c{n}m{i}": node(i) for i in range(200)}
    return {"conversation_id": f"c{n}", "title": f"C {n}", "mapping": mapping, "current_node": f"c{n}m199"}


def _pieces(item: Callable[[int], Any], size: int) -> Iterator[tuple[int, str]]:
    """Items, each with its number, until there are ``size`` bytes of them."""
    n = written = 0
    while written < size:
        piece = json.dumps(item(n))
        yield n, piece
        written += len(piece)
        n += 1


def _list(path: Path, item: Callable[[int], Any], size: int, head: str, tail: str) -> int:
    n = 0
    with path.open("w", encoding="utf-8") as file:
        file.write(head)
        for n, piece in _pieces(item, size):
            file.write(("," if n else "") + piece)
        file.write(tail)
    return n + 1


def _lines(path: Path, item: Callable[[int], Any], size: int) -> int:
    with path.open("w", encoding="utf-8") as file:
        return sum(bool(file.write(piece + "\n")) for _, piece in _pieces(item, size))


def _zip(path: Path, item: Callable[[int], Any], size: int) -> int:
    whole = path.with_name("conversations.json")
    n = _list(whole, item, size, "[", "]")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as zipped:
        zipped.write(whole, whole.name)
    whole.unlink()
    return 200 * n


def _llm(path: Path, size: int) -> int:
    db = sqlite3.connect(path)
    db.executescript((VECTORS / "llm" / "plain.sql").read_text("utf-8"))
    db.execute("delete from responses")
    insert = "insert into responses (id, model, prompt, response, conversation_id, datetime_utc) values (?,?,?,?,?,?)"
    n = written = 0
    while written < size:
        row = (f"r{n:08}", "m", words(), words(), f"k{n // 100}", f"2026-01-01T00:{n // 60 % 60:02}:{n % 60:02}")
        db.execute(insert, row)
        written += 2 * len(row[2].encode())
        n += 1
    db.commit()
    db.close()
    return 2 * n


KINDS: dict[str, tuple[str, Callable[[Path, int], int]]] = {
    "anthropic": (".json", lambda path, size: _list(path, anthropic, size, '{"model":"m","messages":[', "]}")),
    "claude-code": (".jsonl", lambda path, size: _lines(path, claude_code, size)),
    "codex": (".jsonl", lambda path, size: _lines(path, codex, size) - 1),
    "claude": (".zip", lambda path, size: _zip(path, claude, size)),
    "chatgpt": (".zip", lambda path, size: _zip(path, chatgpt, size)),
    "llm": (".db", _llm),
}
"""The ending of each kind's files; and what writes one of a size in bytes, and says how many entries it has."""


def import_one(path: str) -> None:
    """In a process of its own: import a file, and print the entries and this process's peak in MiB."""
    import llmcrdt

    with tempfile.TemporaryDirectory() as folder, llmcrdt.open(Path(folder) / "a.db") as repo:
        entries = sum(getattr(result, "entries", 0) for result in llmcrdt.import_files(repo, [path]))
    print(json.dumps([entries, peak()]))


def peak() -> float:
    """The most memory that this process had, in MiB."""
    status = Path("/proc/self/status")
    if status.exists():  # there ru_maxrss begins with that of the process that started this one
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) / 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=float, default=100, help="of JSON or text in each file")
    parser.add_argument("--limit", type=int, default=300, help="MiB that a process may have")
    parser.add_argument("--kinds", nargs="*", choices=KINDS, default=list(KINDS))
    parser.add_argument("--one", help=argparse.SUPPRESS)
    args = parser.parse_args(arguments)
    if args.one:
        import_one(args.one)
        return 0
    failed = False
    for kind in args.kinds:
        ending, write = KINDS[kind]
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"large{ending}"
            wanted = write(path, int(args.megabytes * 1e6))
            start = time.monotonic()
            done = subprocess.run([sys.executable, __file__, "--one", path], capture_output=True, text=True, check=True)
            entries, peak = json.loads(done.stdout)
        fine = entries >= wanted and peak <= args.limit
        failed = failed or not fine
        print(
            f"{kind}: {entries:,} entries of {wanted:,}, {peak:.0f} MiB, {time.monotonic() - start:.0f} s", flush=True
        )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
