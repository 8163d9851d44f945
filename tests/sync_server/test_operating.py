"""An operator's means: settings from three places, metrics, and commands on a relay's folder."""

from __future__ import annotations

import io
import logging
import os
import re
import socket
import sqlite3
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request
from contextlib import closing, redirect_stderr, redirect_stdout
from pathlib import Path

import pytest
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Subprotocol

from llmcrdt.crdt.yjs.replica import YjsReplica
from llmcrdt.ids import document_id
from llmcrdt.sync import codec
from llmcrdt.sync.messages import (
    PATH,
    RESUMED,
    SUBPROTOCOL,
    Ack,
    Cursor,
    Error,
    Hello,
    Message,
    Open,
    Opened,
    Push,
    Welcome,
)
from sync_server.__main__ import main
from sync_server.admin import settings
from sync_server.auth.tokens import Tokens
from sync_server.core.limits import Limits
from sync_server.log.file import DATABASE
from sync_server.log.verify import faults
from sync_server.thread import RelayThread

D, S = b"d" * 16, b"s" * 16
ROOT = Path(__file__).parents[2]


def command(*words: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """A command in this process, on a folder that no relay uses."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        for name, value in environment.items():
            patch.setenv(name, value)
        try:
            code = main([*map(str, words)])
        except SystemExit as ended:
            code = int(ended.code or 0)
    return subprocess.CompletedProcess(words, code, out.getvalue(), err.getvalue())


def process(*words: object) -> subprocess.CompletedProcess[str]:
    """The same in a process of its own: to close a file here drops the locks of a relay that has it here."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    line = [sys.executable, "-m", "sync_server", *map(str, words)]
    return subprocess.run(line, env=environment, capture_output=True, text=True, timeout=60, check=False)


def updates(count: int) -> list[bytes]:
    replica, made = YjsReplica(["r"]), []
    for i in range(count):
        with replica.edit() as edit:
            edit.put("r", f"k{i}", f"value {i} " * 10)
        made.append(edit.update)
    return made


def ask(client: ClientConnection, *messages: Message) -> Message:
    for message in messages:
        client.send(codec.encode(message))
    frame = client.recv(timeout=20)
    assert isinstance(frame, bytes)
    return codec.decode(frame)


def fill(url: str, data: list[bytes], first: int = 1, kind: str = "yjs") -> Cursor:
    """Push records; the cursor behind them."""
    with connect(url + PATH, subprotocols=[Subprotocol(SUBPROTOCOL)], proxy=None) as client:
        assert isinstance(ask(client, Hello("test")), Welcome)
        client.send(codec.encode(Open(D, kind)))
        client.send(codec.encode(Push(D, S, first, tuple(data))))
        while not isinstance(codec.decode(client.recv(timeout=20)), Ack):  # type: ignore[arg-type]
            pass
        client.send(codec.encode(Open(D, kind)))
        while not isinstance(opened := codec.decode(client.recv(timeout=20)), Opened):  # type: ignore[arg-type]
            pass
    return opened.head


def resumes(url: str, cursor: Cursor) -> bool:
    with connect(url + PATH, subprotocols=[Subprotocol(SUBPROTOCOL)], proxy=None) as client:
        ask(client, Hello("test"))
        opened = ask(client, Open(D, "yjs", cursor))
        assert isinstance(opened, Opened)
        return opened.how == RESUMED


def get(url: str, path: str, token: str = "") -> tuple[int, str]:
    request = urllib.request.Request("http" + url.removeprefix("ws") + path)
    if token:
        request.add_header("Authorization", f"Bearer {token}")
    try:
        with urllib.request.urlopen(request, timeout=20) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as e:
        with e:
            return e.code, e.read().decode()


def test_metrics_count_and_name_nobody(tmp_path: Path) -> None:
    with RelayThread(tmp_path) as relay:
        assert get(relay.url, "/readyz") == (200, "ready\n")
        fill(relay.url, updates(5))
        status, text = get(relay.url, "/metrics")
        assert status == 200
        values = dict(re.findall(r"^llmcrdt_relay_(\w+) ([\d.]+)$", text, re.M))
        assert int(values["records_acknowledged_total"]) == 5
        assert int(values["frames_received_total"]) == 4
        assert float(values["commit_seconds_total"]) >= float(values["commit_longest_seconds"]) > 0
        assert float(values["loop_late_seconds"]) > 0
        # It counts since the last look; a commit of the relay's own may fall between two of them.
        looks = (get(relay.url, "/metrics")[1] for _ in range(50))
        assert any("llmcrdt_relay_commit_longest_seconds 0\n" in look for look in looks)
        assert document_id(D) not in text
        for line in text.splitlines():
            assert re.fullmatch(r'# (HELP|TYPE) \w+ .+|\w+(\{code="\d+"\})? [\d.]+', line), line


def test_metrics_of_a_relay_with_tokens_are_for_who_may_do_all(tmp_path: Path) -> None:
    tokens = Tokens(tmp_path)
    admin, other = tokens.make("ann", "admin", []), tokens.make("bob", "append", ["*"])
    with RelayThread(tmp_path) as relay:
        assert [get(relay.url, "/metrics", token)[0] for token in (admin, other, "", "x")] == [200, 401, 401, 401]
        assert get(relay.url, "/healthz")[0] == 200


def test_no_level_of_logging_shows_tokens_documents_or_content(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    token = Tokens(tmp_path).make("ann", "admin", ["*"])
    head = f"/yjs/{document_id(D)}?token={token}"
    with caplog.at_level(logging.DEBUG), RelayThread(tmp_path) as relay:
        get(relay.url, "/metrics", token)
        with connect(relay.url + PATH, subprotocols=[Subprotocol(SUBPROTOCOL)], proxy=None) as client:
            assert isinstance(ask(client, Hello("test", token.encode())), Welcome)
            client.send(codec.encode(Open(D, "yjs")))
            client.send(codec.encode(Push(D, S, 1, tuple(updates(1)))))
            while not isinstance(codec.decode(client.recv(timeout=20)), Ack):  # type: ignore[arg-type]
                pass
        with connect(relay.url + head, proxy=None) as client:
            client.recv(timeout=20)
        address = urllib.parse.urlsplit(relay.url)
        for request in (
            f"GET {head} HTTP/1.0\r\nHost: x\r\n\r\n",  # as a proxy that knows nothing of WebSocket asks
            f"GET {head}\r\n\r\n",
            f"GET / HTTP/1.1\r\nAuthorization Bearer {token}\r\n\r\n",
            f"GET / HTTP/1.1\r\nAuthorization: Bearer {token}\x01\r\n\r\n",
        ):
            with socket.create_connection((address.hostname, address.port), timeout=20) as peer:
                peer.sendall(request.encode())
                while peer.recv(4096):
                    pass
    theirs = [record for record in caplog.records if record.name.startswith("sync_server")]
    said = "\n".join(map(logging.Formatter().format, theirs))
    assert "connection open" in said
    for secret in (token, document_id(D), D.hex(" "), "value 0", "Traceback"):
        assert secret not in said
    assert not [record for record in caplog.records if record.name == "websockets.server"]


def test_settings_come_from_flags_then_the_environment_then_the_file(tmp_path: Path) -> None:
    file = tmp_path / "relay.toml"
    file.write_text('port = 1\nhost = "::1"\ndata = "a"\n[limits]\nlog = 5\nfold = 6\nretry_after = 2\n')
    found = settings.defaults(file, {"LLMCRDT_RELAY_PORT": "2", "LLMCRDT_RELAY_LIMITS": "log=7, handshake=0.5"})
    assert (found["port"], found["host"], found["data"]) == (2, "::1", Path("a"))
    limits = settings.checked({**found["limits"], **settings.limits(["compaction_bytes=8"])})
    assert limits == Limits(log=7, compaction_bytes=8, retry_after=2, handshake=0.5)


@pytest.mark.parametrize(
    ("toml", "environment", "words"),
    [
        ("prot = 1", {}, "no setting 'prot'"),
        ("port = true", {}, "another kind"),
        ("[limits]\nlgo = 1", {}, "no limit 'lgo'"),
        ("[limits]\nlog = 1.5", {}, "whole number"),
        ("[limits]\nlog = -1", {}, "at least 0"),
        ("port = ", {}, "relay.toml"),
        ("", {"PORT": "x"}, "no number"),
        ("", {"ALLOW_REMOTE": "maybe"}, "true or false"),
        ("", {"LOG_LEVEL": "loud"}, "one of"),
        ("", {"LIMITS": "log"}, "name=number"),
    ],
)
def test_a_wrong_setting_is_one_line_and_a_code(
    tmp_path: Path, toml: str, environment: dict[str, str], words: str
) -> None:
    (tmp_path / "relay.toml").write_text(toml)
    environment = {f"LLMCRDT_RELAY_{name}": value for name, value in environment.items()}
    done = command("--data", tmp_path, "--port", 0, "--config", tmp_path / "relay.toml", **environment)
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", 1)
    assert words in done.stderr


def test_an_address_or_a_folder_that_cant_be_used_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = taken.getsockname()[1]
        done = process("--data", tmp_path / "data", "--port", port)
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr.startswith(f"sync_server: Can't listen at 127.0.0.1, port {port}: ")
    assert done.stderr.endswith(". Choose another --host or --port.\n")
    wrong = [tmp_path / "file", tmp_path / "file" / "below"]
    for folder in [*wrong, Path("/proc/nothing")] if sys.platform == "linux" else wrong:
        done = process("--data", folder, "--port", 0)
        assert (done.returncode, done.stdout) == (4, "")
        assert done.stderr.startswith(f"sync_server: {folder} can't be used: ")
        assert done.stderr.endswith(". Choose another --data.\n")


def test_what_is_no_log_is_not_read_and_not_restored(tmp_path: Path) -> None:
    data, other, garbage, newer = (tmp_path / name for name in ("data", "other.db", "garbage.db", "newer.db"))
    with RelayThread(data) as relay:
        cursor = fill(relay.url, updates(3))
        assert process("backup", "--data", data, newer).returncode == 0
    garbage.write_bytes(b"no database at all " * 999)
    with closing(sqlite3.connect(other)) as db:
        db.execute("CREATE TABLE documents (id, kind)")
    with closing(sqlite3.connect(newer)) as db:
        db.execute("INSERT INTO _sqlite_migrations (migration_set, name) VALUES ('sync_server', 'm999_later')")
        db.commit()
    backup = 'Give the file that "backup" made.'
    for file, words in (
        (tmp_path / "nowhere.db", f"There is no {tmp_path / 'nowhere.db'}. {backup}"),
        (other, f"{other} is no log of a relay. {backup}"),
        (garbage, f"{garbage}: file is not a database. "),
        (newer, f"{newer} was made by a newer relay. Upgrade this one."),
    ):
        done = command("restore", "--data", data, file)
        assert (done.returncode, done.stdout) == (4, "")
        assert done.stderr.startswith(f"sync_server: {words}")
    with RelayThread(data) as relay:
        assert resumes(relay.url, cursor)

    (data / DATABASE).write_bytes(garbage.read_bytes())
    for word in (["inspect"], ["verify"], ["backup", tmp_path / "copy.db"]):
        done = command(*word, "--data", data)
        assert (done.returncode, done.stdout) == (4, "")
        assert f"{data / DATABASE}: file is not a database. " in done.stderr
    assert not list(tmp_path.glob("copy.db*"))


def test_a_copy_that_cant_be_written_leaves_nothing(tmp_path: Path) -> None:
    with RelayThread(tmp_path / "data") as relay:
        fill(relay.url, updates(3))
        done = process("backup", "--data", tmp_path / "data", tmp_path / "nowhere" / "copy.db")
    assert (done.returncode, done.stdout) == (4, "")
    assert "copy.db can't be written: No such file or directory. Name another file.\n" in done.stderr


def test_inspect_verify_and_backup_beside_a_running_relay(tmp_path: Path) -> None:
    copy, left = tmp_path / "copy.db", tmp_path / "copy.db.part"
    left.write_bytes(b"what a killed backup left, readable by all")
    left.chmod(0o644)
    with RelayThread(tmp_path / "data") as relay:
        fill(relay.url, updates(300))
        _, line = process("inspect", "--data", tmp_path / "data").stdout.splitlines()
        assert line.split("\t")[:4] == [document_id(D), "yjs", "300", "0"]
        sound = process("verify", "--data", tmp_path / "data")
        assert (sound.returncode, sound.stdout) == (0, "")
        assert process("backup", "--data", tmp_path / "data", copy).returncode == 0
        assert process("backup", "--data", tmp_path / "data", copy).returncode == 4
        busy = process("compact", "--data", tmp_path / "data")
        assert (busy.returncode, "Another relay" in busy.stderr) == (4, True)
    with closing(sqlite3.connect(copy)) as db:
        assert list(faults(db)) == []
    assert sys.platform == "win32" or copy.stat().st_mode & 0o077 == 0


def test_compact_folds_and_keeps_cursors(tmp_path: Path) -> None:
    made = updates(200)
    with RelayThread(tmp_path) as relay:
        cursors = [fill(relay.url, made[:100]), fill(relay.url, made[100:], 101)]
    before = (tmp_path / DATABASE).stat().st_size
    assert command("compact", "--data", tmp_path).returncode == 0
    assert (tmp_path / DATABASE).stat().st_size < before
    _, line = command("inspect", "--data", tmp_path).stdout.splitlines()
    assert line.split("\t")[1:5] == ["yjs", "200", "200", "0"]
    assert command("verify", "--data", tmp_path).returncode == 0
    with RelayThread(tmp_path) as relay:
        assert [resumes(relay.url, cursor) for cursor in cursors] == [True, True]
        assert not resumes(relay.url, cursors[0]._replace(chain=bytes(32)))


def test_restore_takes_the_log_back_and_clients_notice(tmp_path: Path) -> None:
    data, copy = tmp_path / "data", tmp_path / "copy.db"
    made = updates(20)
    with RelayThread(data) as relay:
        old = fill(relay.url, made[:10])
        process("backup", "--data", data, copy)
        new = fill(relay.url, made[10:], 11)
    assert command("restore", "--data", data, copy).returncode == 0
    with RelayThread(data) as relay:
        assert (resumes(relay.url, old), resumes(relay.url, new)) == (True, False)
    assert command("restore", "--data", tmp_path / "fresh", copy).returncode == 0
    with RelayThread(tmp_path / "fresh") as relay:
        assert resumes(relay.url, old)


DAMAGE = [
    "UPDATE records SET data = x'00' WHERE n = 4",
    "UPDATE records SET n = 70 WHERE n = 7",
    "DELETE FROM records WHERE n = 5",
    "UPDATE documents SET size = size + 1",
    "UPDATE parts SET data = zeroblob(length(data))",
    "DELETE FROM parts",
    "DELETE FROM marks",
    "UPDATE folds SET chain = zeroblob(32)",
]


@pytest.mark.parametrize("damage", DAMAGE)
def test_verify_finds_damage_and_restore_refuses_it(
    tmp_path: Path, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    made = updates(20)
    with RelayThread(tmp_path) as relay:
        fill(relay.url, made[:2])
    assert main(["compact", "--data", str(tmp_path)]) == 0
    with RelayThread(tmp_path) as relay:
        fill(relay.url, made[2:], 3)
    with closing(sqlite3.connect(tmp_path / DATABASE)) as db:
        assert list(faults(db)) == []
        assert db.execute(damage).rowcount > 0
        db.commit()
        assert list(faults(db)) != []
    assert main(["verify", "--data", str(tmp_path)]) == 1
    assert document_id(D) in capsys.readouterr().out
    assert main(["restore", "--data", str(tmp_path / "other"), str(tmp_path / DATABASE)]) == 4
    assert not (tmp_path / "other").exists()


def test_logs_can_be_json_and_name_no_document(tmp_path: Path) -> None:
    child = subprocess.Popen(
        [sys.executable, "-m", "sync_server", "--port", "0", "--data", str(tmp_path), "--log-format", "json"],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert child.stdout
        url = child.stdout.readline().split()[-1]
        fill(url, [b"a"], kind="blobs")
        with connect(url + PATH, subprotocols=[Subprotocol(SUBPROTOCOL)], proxy=None) as client:
            ask(client, Hello("test"))
            ask(client, Open(D, "blobs"))
            client.send(codec.encode(Push(D, S, 1, (b"other",))))
            while not isinstance(codec.decode(client.recv(timeout=20)), Error):  # type: ignore[arg-type]
                pass
    finally:
        child.terminate()
        _, logged = child.communicate()
    (line,) = logged.splitlines()
    assert re.fullmatch(r'\{"time": [\d.]+, "level": "WARNING", .*"message": "document [0-9a-f]{12}: .*"\}', line), line
    assert D.hex() not in line
    assert document_id(D) not in line
