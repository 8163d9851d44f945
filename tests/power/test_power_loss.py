"""Power failures: what was acknowledged is there, and whoever starts again works on. ``make power`` has thousands."""

from __future__ import annotations

import hashlib
import random
import re
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from power_disk import Disk
from power_loss import RECORDINGS, Recorded, recorder
from power_recording import Event, Recorder

from llmcrdt.store.blobs import BlobStore


@pytest.fixture(scope="module")
def recorded() -> Callable[[str], Recorded]:
    """A recording of a client, a relay or an operator, made once."""
    made: dict[str, Recorded] = {}

    def recorded(what: str) -> Recorded:
        for module in {"client": ["nacl"], "relay": [], "operator": ["jwt", "cryptography"]}[what]:
            pytest.importorskip(module)
        if what not in made:
            try:
                with recorder() as record:
                    made[what] = RECORDINGS[what](record, 1, 50)
            except OSError as missing:
                pytest.skip(str(missing))
        return made[what]

    return recorded


@pytest.mark.parametrize("what", RECORDINGS)
def test_what_was_acknowledged_is_there_after_a_power_failure(recorded: Callable[[str], Recorded], what: str) -> None:
    recorded(what).lose_power(40)


@pytest.mark.parametrize("what", RECORDINGS)
def test_whoever_lost_power_while_files_were_made_makes_them(recorded: Callable[[str], Recorded], what: str) -> None:
    events = recorded(what).events
    first = next(number for number, event in enumerate(events) if event.kind in "MS")
    recorded(what)._replace(events=events[:first]).lose_power(40)


@pytest.mark.parametrize(
    ("what", "pattern"),
    [
        ("client", r"chats\.db-wal"),
        ("client", r".*\.blobs/new/.*"),
        ("client", r".*\.blobs"),
        ("client", r".*\.keys.*"),
        ("relay", r".*/relay\.db-wal"),
        ("relay", r"var"),
        ("operator", r".*/tokens\.jsonl"),
        ("operator", r"etc/relay"),
        ("operator", r"backup-.*"),
    ],
)
def test_an_fsync_that_is_left_out_is_noticed(recorded: Callable[[str], Recorded], what: str, pattern: str) -> None:
    with pytest.raises(AssertionError, match="power lost at event"):
        recorded(what).lose_power(100, lambda name: re.fullmatch(pattern, name) is not None)


def test_a_process_that_is_killed_leaves_nothing_that_the_next_one_takes_for_durable(tmp_path: Path) -> None:
    """A folder or a file that was made, and not brought to disk before its maker was killed."""
    code = "import sys; from llmcrdt.store.blobs import BlobStore; BlobStore(sys.argv[1]).put(b'content')"

    def run(record: Recorder, kill_at: int = 0) -> list[str]:
        """The kinds of all changes and fsyncs there are now."""
        done = record.run("-c", code, str(record.root / "chats.db.blobs"), kill_at=kill_at)
        assert done.returncode == (-signal.SIGKILL if kill_at else 0), done.stderr
        return [event.kind for event in record.events() if event.kind in "CDULRWTf"]

    try:
        with recorder() as record:
            syncs = [number for number, kind in enumerate(run(record), 1) if kind == "f"]
    except OSError as missing:
        pytest.skip(str(missing))
    assert len(syncs) >= 5
    for kill_at in syncs:
        with recorder() as record:
            run(record, kill_at)
            run(record)
            disk = Disk()
            for event in record.events():
                disk.take(event)
        for seed in range(20):
            left = tmp_path / f"{kill_at}-{seed}"
            disk.after_power_loss(random.Random(seed), left)
            store = BlobStore(left / "chats.db.blobs")
            assert store.get(hashlib.sha256(b"content").hexdigest()), f"killed at {kill_at}"


# Four changes of one process: a file is made, written and named anew, then its folder is brought to disk.
_NEW = [
    Event("C", 1, 7, 0o600, ("a.new",), b""),
    Event("W", 1, 7, 0, (), b"x" * 700),
    Event("R", 1, 7, 0, ("a.new", "a"), b""),
]


@pytest.mark.parametrize(
    ("synced", "possible"),
    [
        # Nothing, either name, both parts of the rename or none; and any sectors of what was written.
        ([], {None, (), ("a.new",), ("a",)}),
        ([("f", 0), ("F", 0)], {("a",)}),
    ],
    ids=["nothing is synced", "the folder is synced"],
)
def test_the_disk_keeps_what_was_synced_and_any_of_the_rest(
    tmp_path: Path, synced: list[tuple[str, int]], possible: set[tuple[str, ...] | None]
) -> None:
    disk = Disk()
    for event in (*_NEW, *(Event(kind, 1, 99, at, (), b"") for kind, at in synced)):
        disk.take(event)
    seen: set[tuple[str, ...]] = set()
    contents: set[bytes] = set()
    for seed in range(300):
        disk.after_power_loss(random.Random(seed), tmp_path / str(seed))
        files = sorted((tmp_path / str(seed)).iterdir())
        seen.add(tuple(file.name for file in files))
        contents |= {file.read_bytes() for file in files}
    assert seen == possible - {None}
    whole = b"x" * 700
    assert contents >= {b"", whole, whole[:512], bytes(512) + whole[512:]} and len(contents) <= 8


def test_a_file_that_was_synced_has_its_content_under_whatever_name(tmp_path: Path) -> None:
    disk = Disk()
    events = [*_NEW[:2], Event("f", 1, 7, 1, (), b""), Event("F", 1, 7, 1, (), b""), _NEW[2]]
    for event in events:
        disk.take(event)
    for seed in range(100):
        disk.after_power_loss(random.Random(seed), tmp_path / str(seed))
        assert all(file.read_bytes() == b"x" * 700 for file in (tmp_path / str(seed)).iterdir())
