"""The command that lists and fetches attachments."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

from sync_server.thread import RelayThread

Run = Callable[..., tuple[int, str, str]]


def test_attachments_are_listed_and_fetched(run: Run, tmp_path: Path) -> None:
    (tmp_path / "cat.png").write_bytes(b"a picture")
    id_ = json.loads(run("new", "Trip", "--json")[1])["id"]
    run("append", id_, "See", "--attach", tmp_path / "cat.png")
    hash_ = hashlib.sha256(b"a picture").hexdigest()
    code, out, _ = run("attachments", id_[:8])
    assert code == 0 and out == f"{hash_}\t9\timage/png\there\tcat.png\n"
    with RelayThread(tmp_path / "relay") as relay:
        library = json.loads(run("sync", relay.url, "--json")[1])["library"]
        run("--library", library, "sync", relay.url, db="b.db")
        assert "\tnot here\t" in run("attachments", id_, db="b.db")[1]
        code, out, err = run("attachments", id_, "--fetch", "--relay", relay.url, "--json", db="b.db")
        (row,) = json.loads(out)["attachments"]
        assert code == 0 and row["present"] and Path(row["path"]).read_bytes() == b"a picture", err
        Path(row["path"]).unlink()
    code, out, err = run("attachments", id_, "--fetch", "--relay", relay.url, "--timeout", 0.2, db="b.db")
    assert code == 1 and "\tnot here\t" in out and "0 of 9 bytes" in err


def test_the_limit_is_a_setting(run: Run, tmp_path: Path) -> None:
    id_ = json.loads(run("new", "Trip", "--json")[1])["id"]
    assert json.loads(run("attachments", "--limit", 1000, "--json")[1]) == {"limit": 1000}
    assert json.loads(run("attachments", id_, "--json")[1])["limit"] == 1000
    assert run("attachments")[0] == 2 and run("attachments", "--limit", -1)[0] == 2
