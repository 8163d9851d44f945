"""The command line from the outside: results on stdout, one clear line on stderr, exit codes."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import llmcrdt
from llmcrdt.cli import default_db
from llmcrdt.cli.terminal import qr_code
from llmcrdt.exceptions import NotADatabase
from llmcrdt.testing.models import write_model
from sync_server.auth.tokens import Tokens
from sync_server.thread import RelayThread
from tests.waiting import eventually

CHAT = {
    "title": "Trains",
    "messages": [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Is there a train?"},
        {"role": "assistant", "content": None,
         "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "trains", "arguments": '{"to": 1}'}}]},
        {"role": "tool", "tool_call_id": "c1", "content": "at ten"},
        {"role": "assistant", "content": "Yes, at ten."},
    ],
    "tools": [{"type": "function", "function": {"name": "trains", "parameters": {"type": "object"}}}],
}  # fmt: skip


Run = Callable[..., tuple[int, str, str]]


@pytest.mark.parametrize("module", ["llmcrdt", "llmcrdt.cli"])
def test_the_command_is_a_module_too(module: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", module, "--db", str(tmp_path / "a.db"), "new", "Trip", "--json"]
    made = subprocess.run(command, capture_output=True, text=True)
    assert (made.returncode, made.stderr) == (0, "")
    with llmcrdt.open(tmp_path / "a.db") as repo:
        assert repo.get(json.loads(made.stdout)["id"]).title == "Trip"


def test_a_command_that_reads_loads_no_more_than_it_needs(run: Run, tmp_path: Path) -> None:
    """Modules that take long to load, which the time of a command shows: migrations, the wire, numbers, the engine."""
    run("new", "Trip")
    code = "import sys; from llmcrdt.cli import main\n"
    code += f"try: main(['--db', {str(tmp_path / 'a.db')!r}, 'list'])\nfinally: print(*sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {*done.stderr.split()}
    assert "Trip" in done.stdout and "llmcrdt.repo.repo" in loaded
    slow = {"sqlite_utils", "numpy", "websockets", "llama_cpp", "jinja2", "nacl", "ssl", "pycrdt", "llmcrdt.sync.link"}
    ours = {"llmcrdt.document.conversation", "llmcrdt.document.core", "llmcrdt.interop.format", "llmcrdt.store.backup"}
    assert loaded & (slow | ours) == set()


def test_search(run: Run) -> None:
    id_ = json.loads(run("new", "Trip", "--json")[1])["id"]
    run("append", id_, "Where is the Café?")
    code, out, _ = run("search", "cafe", "--json")
    (hit,) = json.loads(out)
    assert (code, hit["conversation"], hit["title"], hit["role"]) == (0, id_, "Trip", "user")
    assert hit["snippet"] == "Where is the [Café]?"
    assert "user: [Where] is the [Café]?" in run("search", "where caf")[1]
    code, out, err = run("search", "nowhere")
    assert (code, out, err) == (0, "", "Nothing found.\n")


def test_a_conversation_by_hand(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code, out, _ = run("new", "Trip", "--json")
    id_ = json.loads(out)["id"]
    assert code == 0
    assert run("append", id_[:8], "Hello")[0] == 0
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("from stdin é".encode())))
    code, out, _ = run("append", id_, "-", "--role", "assistant", "--json")
    entry = json.loads(out)["id"]
    code, out, _ = run("list", "--json")
    assert [row["title"] for row in json.loads(out)["conversations"]] == ["Trip"]
    code, out, _ = run("show", id_, "--json")
    shown = json.loads(out)
    assert [e["text"] for e in shown["entries"]] == ["Hello", "from stdin é"]
    assert shown["entries"][1]["id"] == entry
    code, out, _ = run("show", id_, "--last", "1")
    assert "from stdin é" in out
    assert "Hello" not in out
    assert run("verify")[1] == "1 conversations, 0 problems\n"
    assert json.loads(run("verify", tmp_path / "a.db", "--json")[1]) == {"conversations": 1, "problems": []}


def test_import_and_export_give_the_file_back(run: Run, tmp_path: Path) -> None:
    (tmp_path / "chat.json").write_text(json.dumps(CHAT))
    code, out, err = run("import", tmp_path / "chat.json", "--json")
    assert code == 0, err
    id_ = json.loads(out)["id"]
    assert json.loads(run("list", "--json")[1])["conversations"][0]["title"] == "Trains"
    exported = json.loads(run("export", id_)[1])
    assert exported["title"] == "Trains"
    assert exported["messages"] == CHAT["messages"]
    assert exported["tools"] == CHAT["tools"]
    assert json.loads(run("export", id_, "--format", "openai-chat")[1]) == CHAT["messages"]
    request = json.loads(run("export", id_, "--request", "--model", "m")[1])
    assert request == {"model": "m", "messages": CHAT["messages"], "tools": CHAT["tools"]}
    assert run("verify")[0] == 0


def test_only_what_is_new_since_a_handle_is_exported(run: Run, tmp_path: Path) -> None:
    def respond(n: int) -> dict[str, Any]:
        said = {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": f"Yes {n}."}]}
        return {"id": f"resp_{n}", "status": "completed", "model": "gpt-1", "output": [said]}

    with llmcrdt.open(tmp_path / "a.db") as repo:
        conv = repo.create()
        first = conv.append("user", "Warm in May?")
        one = conv.append_response(conv.messages("openai-responses", model="gpt-1"), respond(1))
        conv.append("user", "And in June?")
    to = ("export", conv.id, "--format", "openai-responses", "--model", "gpt-1")
    new = [{"role": "user", "content": "And in June?"}]
    for handle in ("resp_1", one.id, one.id[:8]):
        code, out, err = run(*to, "--since", handle)
        assert (code, json.loads(out)) == (0, new) and f"only what is new since {handle}: 1 input" in err
    body = json.loads(run(*to, "--since", "resp_1", "--request")[1])
    assert (body["previous_response_id"], body["input"]) == ("resp_1", new)
    told = json.loads(run(*to, "--since", "resp_1", "--json")[1])
    assert (told["since"], told["whole_because"], told["messages"], told["body"]) == (one.id, None, new, body)
    for handle, word, why in (
        ("resp_2", "elsewhere", "no answer that is shown has it"),
        (first.id, "none", "that answer has no handle"),
    ):
        code, out, err = run(*to, "--since", handle)
        assert code == 0 and len(json.loads(out)) == 3 and f"everything, {why}: 3 input" in err
        told = json.loads(run(*to, "--since", handle, "--json")[1])
        assert (told["since"], told["whole_because"], told["why_whole"]) == (None, word, why)
        assert len(told["messages"]) == 3 and "previous_response_id" not in told["body"]
    with llmcrdt.open(tmp_path / "a.db") as repo:
        repo.get(conv.id).edit(first.id, "Cold in May?")
        repo.get(conv.id).append("user", "So?")
    code, out, err = run(*to, "--since", "resp_1")
    assert "everything" in err and "Cold in May?" in out


def test_files_of_several_apis_are_found_out_and_come_back(run: Run, tmp_path: Path) -> None:
    signed = {"type": "thinking", "thinking": "", "signature": "c2lnbmVk+/=="}
    claude = {"role": "assistant", "content": [signed, {"type": "text", "text": "Hi"}]}
    body = {"model": "m", "max_tokens": 9, "system": "s", "messages": [{"role": "user", "content": "Hello"}, claude]}
    gemini = [{"role": "user", "parts": [{"text": "Hello"}]}, {"role": "model", "parts": [{"text": "Hi"}]}]
    folder = tmp_path / "chats"
    folder.mkdir()
    (folder / "a.json").write_text(json.dumps(body))
    (folder / "b.json").write_text(json.dumps(gemini))
    (folder / "c.json").write_text('{"neither": 1}')
    code, out, _ = run("import", folder, "--json")
    said = json.loads(out)
    assert code == 1
    assert "no format that is known" in said["failed"][0]["error"]
    one, other = (c["id"] for c in said["conversations"])
    assert json.loads(run("export", other, "--format", "gemini")[1]) == gemini
    _, out, err = run("export", one, "--format", "anthropic")
    assert (json.loads(out), err) == (body["messages"], "")
    request = json.loads(run("export", one, "--format", "anthropic", "--request")[1])
    assert {**request, "messages": body["messages"]} == body
    assert request["messages"][:2] == body["messages"] and request["messages"][2]["role"] == "user"
    _, out, err = run("export", one, "--format", "anthropic", "--model", "another")
    assert "c2lnbmVk" not in out
    assert "anthropic/thinking" in err and "it is for another model" in err
    assert "c2lnbmVk" not in run("export", one)[1] + run("show", one, "--json")[1]
    code, _, err = run("import", folder / "b.json", "--format", "anthropic")
    assert code == 1 and "[0].content" in err


def test_files_of_other_programs_say_what_is_not_shown_and_what_cannot_be_read(run: Run, tmp_path: Path) -> None:
    vectors = Path(__file__).parents[1] / "vectors" / "interop"
    code, out, err = run("import", vectors / "claude-code" / "sidechain.jsonl")
    assert code == 0 and len(out.split()) == 1
    assert "kept, not shown: 3 sidechain" in err
    code, out, err = run("import", vectors / "codex" / "damaged.jsonl")
    assert code == 1 and len(out.split()) == 1
    assert "can't be read: line 3: The text is not JSON" in err
    code, out, _ = run("import", vectors / "claude" / "empty.json", "--json")
    said = json.loads(out)
    assert (code, len(said["conversations"]), said["failed"][0]["where"]) == (1, 1, "k-nothing")
    assert said["conversations"][0]["kept"] == {}
    code, out, err = run("import", vectors / "chatgpt" / "export.zip")
    assert code == 0 and [line.split()[1] for line in out.splitlines()] == ["T", "T"]
    code, _, err = run("import", "-", "--format", "codex")
    assert code == 1 and "not read from stdin" in err
    code, _, err = run("import", vectors / "codex" / "plain.jsonl", "--format", "claude-code")
    assert code == 1 and "No line names a session" in err
    code, _, err = run("import", vectors / "claude-code" / "plain.jsonl", "--format", "anthropic")
    assert code == 1 and "not JSON" in err


def test_a_folder_is_imported_at_once(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "chats"
    folder.mkdir()
    for name in ("a", "b"):
        (folder / f"{name}.json").write_text(json.dumps([{"role": "user", "content": f"Hello {name}"}]))
    (folder / "c.json").write_text("[")
    code, out, err = run("import", folder, "--json")
    said = json.loads(out)
    assert (code, err) == (1, "")
    assert [(c["title"], c["entries"], c["added"]) for c in said["conversations"]] == [("a", 1, 1), ("b", 1, 1)]
    assert [Path(f["file"]).name for f in said["failed"]] == ["c.json"]
    assert said["interrupted"] is False
    listed = {c["id"] for c in json.loads(run("list", "--json")[1])["conversations"]}
    assert listed == {c["id"] for c in said["conversations"]}
    code, out, err = run("import", folder / "a.json", folder / "b.json")
    assert (code, err) == (0, "")
    assert {line.split()[0] for line in out.splitlines()} == listed
    assert json.loads(run("import", folder / "a.json", "--json")[1])["added"] == 0
    code, _, err = run("import", folder)
    assert code == 1
    assert "c.json" in err
    assert run("import", "slip.json", db="other.db")[0] == 1
    assert not (tmp_path / "other.db").exists()


def test_an_interrupted_import_leaves_whole_conversations(tmp_path: Path) -> None:
    folder = tmp_path / "chats"
    folder.mkdir()
    messages = [{"role": "user", "content": f"message {n}"} for n in range(20)]
    for n in range(2000):
        (folder / f"{n:04}.json").write_text(json.dumps([{"role": "user", "content": f"file {n}"}, *messages]))
    command = [sys.executable, "-m", "llmcrdt", "--db", str(tmp_path / "a.db"), "import", str(folder), "--json"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    log = tmp_path / "a.db-wal"
    eventually(lambda: log.exists() and log.stat().st_size > 600_000)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    said = json.loads(out)
    assert said["interrupted"]
    assert 0 < len(said["conversations"]) < 2000
    with llmcrdt.open(tmp_path / "a.db") as repo:
        listed = {row.id for row in repo.list(limit=5000)}
        assert listed == {c["id"] for c in said["conversations"]}
        assert {len(repo.get(id_).transcript()) for id_ in list(listed)[:20]} == {21}


def test_hidden_fields_are_named_never_shown(run: Run, tmp_path: Path) -> None:
    with llmcrdt.open(tmp_path / "a.db") as repo:
        conversation = repo.create()
        conversation.append("assistant", "visible", hidden={"p/secret": b"topsecret"})
    for arguments in (("show", conversation.id), ("show", conversation.id, "--json"), ("export", conversation.id)):
        code, out, _ = run(*arguments)
        assert code == 0
        assert "topsecret" not in out


def test_two_databases_and_a_relay(run: Run, tmp_path: Path) -> None:
    relay = subprocess.Popen(
        [sys.executable, "-m", "sync_server", "--port", "0", "--data", str(tmp_path / "relay")],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert relay.stdout is not None
        url = relay.stdout.readline().split()[-1]
        id_ = json.loads(run("new", "Trip", "--json")[1])["id"]
        run("append", id_, "Hello")
        code, out, err = run("sync", url, "--json")
        assert code == 0, err
        library = json.loads(out)["library"]
        code, out, err = run("--library", library, "sync", url, "--json", db="b.db")
        assert code == 0, err
        assert json.loads(out)["conversations"] == 1
        assert "Hello" in run("show", id_, db="b.db")[1]
    finally:
        relay.send_signal(signal.SIGTERM)
        relay.wait(10)
        assert relay.stdout is not None
        relay.stdout.close()


def test_generate_and_plan(run: Run, tmp_path: Path) -> None:
    write_model(tmp_path / "m.gguf")
    (tmp_path / "chat.json").write_text(json.dumps(CHAT))
    id_ = json.loads(run("import", tmp_path / "chat.json", "--json")[1])["id"]
    run("append", id_, "And back?")
    engine = ("--model", tmp_path / "m.gguf", "--cache", tmp_path / "kv")
    code, out, err = run("kv", "plan", id_, *engine, "--json")
    assert code == 0, err
    planned = json.loads(out)
    assert planned["why"]["cause"] == "first"
    assert planned["exactness"] == "exact"
    code, out, err = run("generate", id_, *engine, "--max-tokens", "80", "--seed", "1", "--json")
    assert code == 0, err
    answer = json.loads(out)
    assert answer["stats"]["evaluated"] == planned["evaluate"]
    assert "llmcrdt/tokens" in answer["hidden"]
    run("append", id_, "And on?")
    code, out, err = run("generate", id_, *engine, "--max-tokens", "5", "--seed", "1")
    assert code == 0
    assert "prompt tokens reused" in err
    assert run("kv", "pin", id_, *engine)[0] == 0
    (pinned,) = json.loads(run("kv", "pins", *engine[2:], "--json")[1]).items()
    assert pinned[0] == id_ and pinned[1] > 0
    words = " ".join(run("kv", "pins", *engine[2:])[1].split())
    assert words == f"{id_} {pinned[1]} Trains"
    run("new", db="other.db")
    words = " ".join(run("kv", "pins", *engine[2:], db="other.db")[1].split())
    assert words == f"(of another database) {pinned[1]}"
    assert json.loads(run("kv", "stats", *engine[2:], "--json")[1])["pinned"] == pinned[1]
    assert run("kv", "unpin", id_, *engine[2:])[0] == 0
    assert json.loads(run("kv", "pins", *engine[2:], "--json")[1]) == {}
    assert run("kv", "pins", *engine[2:]) == (0, "", "Nothing is pinned.\n")
    stats = json.loads(run("kv", "stats", "--cache", tmp_path / "kv", "--json")[1])
    whole = json.loads(run("kv", "verify", "--cache", tmp_path / "kv", "--json")[1])
    assert whole == {"chunks": stats["chunks"], "held_bytes": stats["held_bytes"], "bad": 0}
    assert stats["chunks"] > 0


def test_a_chat_at_a_relay_uses_the_token_that_is_known_for_it(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_model(tmp_path / "m.gguf")
    token = Tokens(tmp_path / "relay").make("ann", "append", ["*"])
    with RelayThread(tmp_path / "relay") as relay:
        paired = json.loads(run("pair", relay.url, "--token", token, "--json", "--reveal")[1])
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"Hello\n")))
        engine = ("--model", tmp_path / "m.gguf", "--cache", tmp_path / "kv", "--max-tokens", "3")
        code, _, err = run("chat", "--sync", relay.url, *engine)
        assert code == 0 and "relay" not in err, err
        run("pair", "--join", paired["invite"], db="b.db")
        assert json.loads(run("sync", "--json", db="b.db")[1])["conversations"] == 1


def test_ctrl_c_in_a_generation_keeps_what_was_said(run: Run, tmp_path: Path) -> None:
    write_model(tmp_path / "m.gguf", context=32768)
    id_ = json.loads(run("new", "--json")[1])["id"]
    run("append", id_, "Tell me everything.")
    command = [sys.executable, "-m", "llmcrdt.cli", "--db", str(tmp_path / "a.db"), "generate", id_]
    command += [
        "--model",
        str(tmp_path / "m.gguf"),
        "--cache",
        str(tmp_path / "kv"),
        "--max-tokens",
        "30000",
        "--temperature",
        "9",
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0)
    assert process.stdout is not None
    first = process.stdout.read(1)
    time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    said = first + process.communicate(timeout=60)[0]
    shown = json.loads(run("show", id_, "--json")[1])["entries"]
    assert len(shown) == 2
    if shown[1]["status"] == "stopped":  # else the model of noise ended its turn within that moment
        assert process.returncode == 130
    assert shown[1]["text"].startswith(said.decode(errors="replace").rstrip("\n"))


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("show", "nowhere"), 1, "There is no conversation"),
        (("append", "nowhere", "x"), 1, "There is no conversation"),
        (("import", "missing.json"), 1, "missing.json"),
        (("list", "--before", "nowhere"), 1, "There is no conversation"),
        (("list", "--limit", "9" * 30), 2, "is not in the range"),
        (("seal", "nowhere"), 1, "There is no conversation"),
        (("sync", "ws://127.0.0.1:9", "--timeout", "1"), 1, "Is a relay running there? Nothing is lost; sync again.\n"),
        (("sync", "nonsense"), 1, "ws://HOST:PORT"),
        (("generate",), 2, "Missing argument"),
        (("wrong",), 2, "No such command"),
        (("verify", "nothing.db"), 2, "does not exist"),
    ],
)
def test_errors_are_one_line_that_says_what_to_do(run: Run, arguments: tuple[str, ...], code: int, words: str) -> None:
    run("new")
    got, out, err = run(*arguments)
    assert got == code
    assert out == ""
    assert words in err
    assert "Traceback" not in err
    if code == 1:
        assert err.startswith("llmcrdt: ")
        assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("broken.json", b'{"messages": [', "line 1"),
        ("binary.json", b"\xff\xfe\x00", "UTF-8"),
        ("wrong.json", b'{"messages": [{"role": "wizard", "content": "x"}]}', "messages[0].role"),
        ("empty.json", b"[]", "no message"),
    ],
)
def test_a_malformed_file_makes_no_conversation(
    run: Run, tmp_path: Path, name: str, content: bytes, words: str
) -> None:
    run("new", "the only one")
    (tmp_path / name).write_bytes(content)
    code, _, err = run("import", tmp_path / name)
    assert code == 1
    assert words in err
    assert [row["title"] for row in json.loads(run("list", "--json")[1])["conversations"]] == ["the only one"]


def test_a_model_that_is_none_and_a_database_that_is_none(run: Run, tmp_path: Path) -> None:
    id_ = json.loads(run("new", "--json")[1])["id"]
    (tmp_path / "m.gguf").write_bytes(b"not a model")
    code, _, err = run("generate", id_, "--model", tmp_path / "m.gguf")
    assert (code, "m.gguf" in err) == (1, True)
    code, _, err = run("generate", id_, "--model", tmp_path / "missing.gguf")
    assert (code, "missing.gguf" in err) == (1, True)
    (tmp_path / "text.db").write_text("hello")
    code, _, err = run("list", db="text.db")
    assert (code, "not a SQLite database" in err) == (1, True)
    assert (tmp_path / "text.db").read_text() == "hello"


@pytest.mark.parametrize("folder", [".", "", "/"])
def test_a_folder_is_no_database_however_it_is_named(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(NotADatabase, match="is a folder"):
        llmcrdt.open(folder)
    code, _, err = run("verify", folder or ".")
    assert (code, "is a folder" in err) == (1, True)
    assert list(tmp_path.iterdir()) == []


def test_an_id_that_is_no_text_is_unknown(run: Run) -> None:
    """A shell passes on any bytes; those that are no UTF-8 arrive as halves of surrogate pairs."""
    id_ = json.loads(run("new", "--json")[1])["id"]
    for command in (("show", "\udcff"), ("rename", "\udcff", "x"), ("delete", "--yes", "\udcff")):
        code, _, err = run(*command)
        assert (code, "There is no conversation" in err) == (1, True), command
    code, _, err = run("select", id_, "\udcff")
    assert (code, "There is no entry" in err) == (1, True)


def test_a_slip_in_a_name_makes_no_database(run: Run, tmp_path: Path) -> None:
    for arguments in (("list",), ("show", "x"), ("append", "x", "y"), ("verify",), ("export", "x"), ("seal", "x")):
        code, _, err = run(*arguments, db="slip.db")
        assert (code, "There is no database" in err) == (1, True)
        assert not (tmp_path / "slip.db").exists()
    (tmp_path / "empty.db").touch()
    assert run("verify", tmp_path / "empty.db")[0] == 1
    assert (tmp_path / "empty.db").stat().st_size == 0


def test_what_a_crash_left_unfinished_is_sealed(run: Run, tmp_path: Path) -> None:
    with llmcrdt.open(tmp_path / "a.db") as repo:
        conversation = repo.create()
        stream = conversation.stream("assistant", interval=0)
        stream.write("half an ans")
        stream.abandon()
    code, out, _ = run("seal", conversation.id, "--json")
    assert (code, len(json.loads(out)["sealed"])) == (0, 1)
    assert json.loads(run("show", conversation.id, "--json")[1])["entries"][0]["status"] == "stopped"


def test_other_people_s_words_give_the_terminal_no_orders(run: Run, tmp_path: Path) -> None:
    with llmcrdt.open(tmp_path / "a.db", author="\x1b]0;x\x07") as repo:
        conversation = repo.create("\x1b[2Jtitle")
        conversation.append("user", "red \x1b[31m and\ttabs\nlines")
    for arguments in (("list",), ("show", conversation.id)):
        out = run(*arguments)[1]
        assert "\x1b[2J" not in out
        assert "\x1b[31m and" not in out
        assert "\x07" not in out
    assert "and\ttabs\nlines" in run("show", conversation.id)[1]


def test_where_the_database_is_by_default(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LLMCRDT_DB", str(tmp_path / "x.db"))
    assert default_db() == tmp_path / "x.db"
    monkeypatch.delenv("LLMCRDT_DB")
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert default_db() == tmp_path / "llmcrdt" / "chats.db"


def test_kv_verify_fails_on_damage_and_prune_empties(run: Run, tmp_path: Path) -> None:
    from llmcrdt.kvcache import DiskCache
    from llmcrdt.testing.chunk_cache_suite import chain

    cache = DiskCache(tmp_path / "kv" / "chunks")
    for chunk in chain(4):
        cache.put(chunk)
    victim = next((tmp_path / "kv" / "chunks").glob("*.kv"))
    victim.write_bytes(victim.read_bytes()[:-1] + b"?")
    code, out, _ = run("kv", "verify", "--cache", tmp_path / "kv", "--json")
    assert (code, json.loads(out)["bad"], json.loads(out)["chunks"]) == (1, 1, 3)
    code, out, _ = run("kv", "prune", "--cache", tmp_path / "kv", "--json")
    assert (code, json.loads(out)["deleted"], json.loads(out)["chunks"]) == (0, 3, 0)


def test_watching_ends_where_the_token_is_taken_back(run: Run, tmp_path: Path) -> None:
    tokens = Tokens(tmp_path / "relay")
    token = tokens.make("ann", "append", ["*"])
    run("new", "Trip")
    with RelayThread(tmp_path / "relay") as relay:
        command = [sys.executable, "-m", "llmcrdt.cli", "--db", str(tmp_path / "a.db"), "sync", relay.url, "--watch"]
        watching = subprocess.Popen([*command, "--token", token], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        try:
            assert watching.stdout is not None
            assert watching.stdout.readline().startswith(b"In step")
            tokens.revoke(tokens.list()[0][0].id)
            assert watching.wait(20) == 1
        finally:
            watching.kill()
            _, err = watching.communicate()
    assert err == b"llmcrdt: The relay ended the connection: The token was revoked. Connect with another token.\n"


@pytest.mark.parametrize("as_json", [False, True])
def test_watching_says_when_the_relay_is_lost_and_when_it_is_back(run: Run, tmp_path: Path, as_json: bool) -> None:
    run("new", "Trip")
    command = [sys.executable, "-m", "llmcrdt.cli", "--db", str(tmp_path / "a.db"), "sync", "--watch"]
    with RelayThread(tmp_path / "relay") as relay:
        port = relay.port
        watching = subprocess.Popen(
            [*command, relay.url, *(["--json"] if as_json else [])],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        assert watching.stdout is not None
        try:
            assert any(line.startswith(("In step", "}")) for line in iter(watching.stdout.readline, ""))
            relay.close()
            lost = watching.stdout.readline()
            with RelayThread(tmp_path / "relay", port=port):
                back = watching.stdout.readline()
        finally:
            watching.kill()
            watching.communicate()
    if as_json:
        assert json.loads(lost)["state"] == "offline" and json.loads(back) == {"state": "online"}
    else:
        assert lost.startswith("Out of reach: ") and back == f"Connected to ws://127.0.0.1:{port} again.\n"


def test_sync_makes_no_library_that_stands_in_the_way_of_the_one_to_join(run: Run, tmp_path: Path) -> None:
    with RelayThread(tmp_path / "relay") as relay:
        run("new", "Trip")
        invite = run("pair", relay.url)[1].strip()
        run("sync", relay.url)
        code, _, err = run("sync", relay.url, db="b.db")
        assert code == 1 and "pair --join" in err and not (tmp_path / "b.db").exists()
        assert run("pair", "--join", invite, db="b.db")[0] == 0
        assert run("sync", db="b.db")[0] == 0


@pytest.mark.parametrize("command", ["llmcrdt", "relay"])
def test_who_reads_only_the_beginning_hears_no_complaint(run: Run, tmp_path: Path, command: str) -> None:
    if command == "relay":
        for n in range(5):
            Tokens(tmp_path / "relay").make(f"ann{n}", "read", ["*"])
        words = ["sync_server", "token", "list", "--data", str(tmp_path / "relay")]
    else:
        for n in range(5):
            run("new", f"Trip {n}")
        words = ["llmcrdt.cli", "--db", str(tmp_path / "a.db"), "list"]
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run([sys.executable, "-m", *words], stdout=writer, stderr=subprocess.PIPE, check=False)
    os.close(writer)
    assert done.stderr == b"" and done.returncode == 1


def test_pair_and_join(run: Run, tmp_path: Path) -> None:
    with RelayThread(tmp_path / "relay") as relay:
        id_ = json.loads(run("new", "Trip", "--json")[1])["id"]
        assert run("pair")[::2] == (1, "llmcrdt: No relay is known here. Give the relay's address.\n")
        code, out, err = run("pair", relay.url)
        assert code == 0 and out.count("\n") == 1 and "secret" in err and "Only this device" in err
        invite = out.strip()
        code, out, _ = run("pair", "--json")
        assert code == 0 and json.loads(out) == {
            "library": json.loads(run("list", "--json")[1])["library"],
            "relay": relay.url,
        }
        assert json.loads(run("pair", "--json", "--reveal")[1])["invite"] == invite
        assert run("sync", "--timeout", "60")[0] == 0
        code, out, err = run("pair", "--join", invite, db="b.db")
        assert code == 0 and relay.url in out and invite[20:] not in out + err
        assert run("sync", "--json", "--timeout", "60", db="b.db")[0] == 0
        assert json.loads(run("list", "--json", db="b.db")[1])["conversations"][0]["id"] == id_


def test_a_device_that_paired_before_it_had_anything_can_still_join(run: Run, tmp_path: Path) -> None:
    run("new", "Trip")
    invite = run("pair", "ws://relay.example:1")[1].strip()
    library = json.loads(run("list", "--json")[1])["library"]
    code, out, err = run("pair", db="b.db")
    assert (code, out) == (1, "") and "pair --join" in err and not list(tmp_path.glob("b.db*"))
    assert run("pair", "ws://other.example:1", db="b.db")[0] == 0
    assert run("pair", "--join", invite, db="b.db")[0] == 0
    joined = json.loads(run("pair", "--json", db="b.db")[1])
    assert joined == {"library": library, "relay": "ws://relay.example:1"}


def test_joining_with_something_else_says_what_is_wrong(run: Run, tmp_path: Path) -> None:
    invite = run("pair", "ws://relay.example:1")[1].strip()
    run("new", "mine", db="b.db")
    for text, word, db in (
        (invite[:-9], "end", "c.db"),
        ("hello", "not an invite", "c.db"),
        (invite, "belongs", "b.db"),
    ):
        code, out, err = run("pair", "--join", text, db=db)
        assert (code, out) == (1, "") and word in err and invite[20:40] not in err
    assert not (tmp_path / "c.db").exists()
    assert run("pair", "ws://h", "--join", invite, db="c.db")[0] == 2


def test_an_invite_is_drawn_as_a_qr_code(run: Run) -> None:
    pytest.importorskip("segno", reason="segno draws QR codes: pip install 'llmcrdt[qr]'")
    code, out, _ = run("pair", "ws://relay.example:1", "--qr")
    assert code == 0 and out.count("█") > 100 and out.splitlines()[-1].startswith("llmcrdt-invite-1-")
    assert qr_code("x" * 5000) is None


def test_a_qr_code_that_cant_be_drawn_is_told_to_who_asked(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "segno", None)
    code, out, err = run("pair", "ws://relay.example:1", "--qr")
    assert code == 0 and out.startswith("llmcrdt-invite-1-") and "pip install 'llmcrdt[qr]'" in err
    assert "segno" not in run("pair", "ws://relay.example:1")[2]
    monkeypatch.undo()
    pytest.importorskip("segno", reason="segno draws QR codes: pip install 'llmcrdt[qr]'")
    code, out, err = run("pair", f"ws://relay.example:1/{'x' * 5000}", "--qr")
    assert code == 0 and out.startswith("llmcrdt-invite-1-") and "too long" in err


def test_the_list_marks_what_is_archived(run: Run, tmp_path: Path) -> None:
    with llmcrdt.open(tmp_path / "a.db") as repo:
        repo.archive(repo.create("Old").id)
        repo.create("New")
    titles = {line.split(maxsplit=3)[3] for line in run("list")[1].splitlines()}
    assert titles == {"Old  (archived)", "New"}


def test_parts_are_shown_in_their_order(run: Run, tmp_path: Path) -> None:
    (tmp_path / "cat.txt").write_text("cat")
    call, blob = llmcrdt.ToolCall("1", "look", "{}"), llmcrdt.Blob(tmp_path / "cat.txt")
    words = [llmcrdt.Text("be"), llmcrdt.Text("fore"), call, llmcrdt.Text("between"), blob, llmcrdt.Text("after")]
    with llmcrdt.open(tmp_path / "a.db") as repo:
        conversation = repo.create()
        conversation.append("assistant", words)
    lines = run("show", conversation.id)[1].splitlines()[1:6]
    assert lines == ["before", "→ look({})", "between", "['cat.txt', 'text/plain', 3 bytes]", "after"]
