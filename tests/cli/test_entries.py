"""Commands that write entries, or decide between them, and those about whole conversations and copies."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.shell_completion import ShellComplete, ZshComplete

import llmcrdt
from llmcrdt.cli import main
from llmcrdt.crdt.registry import kinds

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def trip(run: Run) -> str:
    id_ = json.loads(run("new", "Trip", "--json")[1])["id"]
    run("append", id_, "Where to?")
    run("append", id_, "To Rome.", "--role", "assistant")
    return str(id_)


def texts(run: Run, id_: str) -> list[str]:
    return [entry["text"] for entry in json.loads(run("show", id_, "--json")[1])["entries"]]


def ids(run: Run, id_: str) -> list[str]:
    return [entry["id"] for entry in json.loads(run("show", id_, "--json")[1])["entries"]]


def test_edit_others_and_select(run: Run, trip: str) -> None:
    question, _ = ids(run, trip)
    code, new, _ = run("edit", trip, question[:10], "Where to in May?")
    assert code == 0 and texts(run, trip) == ["Where to in May?"]
    found = json.loads(run("others", trip, new.strip(), "--json")[1])
    assert [(other["text"], other["shown"]) for other in found] == [("Where to?", False), ("Where to in May?", True)]
    assert run("others", trip, question)[1].count("── shown") == 1
    assert run("select", trip, question)[0] == 0
    assert texts(run, trip) == ["Where to?", "To Rome."]


def test_an_entry_is_named_by_its_first_letters_if_only_one_begins_so(run: Run, trip: str) -> None:
    code, _, err = run("select", trip, "zzz")
    assert code == 1 and "There is no entry" in err and "show --elsewhere" in err
    code, _, err = run("select", trip, "")
    assert code == 1 and "There is no entry" in err


def test_erase_asks_first_and_lists_what_still_holds_the_words(run: Run, trip: str) -> None:
    question, answer = ids(run, trip)
    run("append", trip, "You said: To Rome.")
    assert run("erase", trip, answer)[0] == 2, "nobody can be asked here"
    assert "To Rome." in texts(run, trip)
    code, out, _ = run("erase", trip, answer, "--yes", "--json")
    done = json.loads(out)
    assert code == 0 and done["erased"] == [answer]
    assert [held["kind"] for held in done["still_held"]] == ["entry"]
    code, out, err = run("erase", trip, question, "--also", done["still_held"][0]["entry"], "--yes")
    assert code == 0 and len(out.split()) == 2 and err == ""
    assert texts(run, trip) == ["", "", ""]


@pytest.mark.skipif("automerge" not in kinds(), reason="automerge is not installed: pip install 'llmcrdt[automerge]'")
def test_a_conversation_of_another_kind_and_back(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    made = json.loads(run("new", "Trip", "--crdt", "automerge", "--json")[1])["id"]
    run("append", made, "Where to?")
    run("append", made, "And when?")
    assert run("erase", made, ids(run, made)[1], "--yes")[0] == 0
    assert texts(run, made) == ["Where to?", ""]
    other = json.loads(run("convert", made, "--crdt", "yjs", "--json")[1])["id"]
    assert ids(run, other) == ids(run, made) and other != made
    assert run("erase", other, ids(run, other)[0], "--yes")[0] == 0
    code, _, err = run("convert", other, "--crdt", "loro")
    assert code == 1 and "automerge, yjs" in err
    monkeypatch.setenv("LLMCRDT_CRDT", "automerge")
    again = json.loads(run("new", "Another", "--json")[1])["id"]
    run("append", again, "Hello")
    assert run("erase", again, ids(run, again)[0], "--yes")[0] == 0


def test_fork_rename_archive_and_delete(run: Run, trip: str) -> None:
    question, _ = ids(run, trip)
    forked = json.loads(run("fork", trip, "--at", question, "--title", "Other trip", "--json")[1])["id"]
    assert texts(run, forked) == ["Where to?"]
    assert run("fork", trip)[0] == 0
    assert run("rename", forked, "Third trip") == (0, "", "")
    assert run("archive", forked)[0] == 0
    assert "Third trip  (archived)" in run("list")[1]
    assert run("archive", forked, "--undo")[0] == 0
    assert "(archived)" not in run("list")[1]
    assert run("delete", forked)[0] == 2, "nobody can be asked here"
    assert run("delete", forked, "--yes")[0] == 0
    assert forked not in run("list")[1]
    empty = run("new")[1].strip()
    assert run("fork", empty)[0] == 1
    code, _, err = run("fork", trip, "--at", "")
    assert code == 1 and "There is no entry" in err


def test_backup_and_restore(run: Run, trip: str, tmp_path: Path) -> None:
    copy = tmp_path / "copy.db"
    assert run("backup", copy) == (0, "", "")
    run("append", trip, "Later.")
    assert run("backup", copy)[0] == 1, "a backup is never replaced"
    code, _, err = run("restore", copy, db="new.db")
    assert code == 0 and "new.db is what" in err
    code, _, err = run("restore", copy)
    assert code == 1 and "Move it away first" in err, "a database is never replaced"
    with llmcrdt.open(tmp_path / "new.db") as repo:
        assert [entry.text for entry in repo.get(trip).transcript()] == ["Where to?", "To Rome."]
    assert texts(run, trip)[-1] == "Later."
    code, _, err = run("restore", tmp_path / "slip.db", db="other.db")
    assert code == 1 and "There is no database" in err and '"llmcrdt backup FILE" made' in err
    code, _, err = run("import", tmp_path / "slip.json", db="other.db")
    assert code == 1 and "slip.json: No such file or directory. Check the name" in err and "Errno" not in err


def test_an_id_or_a_text_that_begins_with_a_dash_is_no_option(run: Run, trip: str) -> None:
    dashed = "-hyAbcDefGhi_012"
    for command in (("others",), ("select",), ("erase", "--yes"), ("edit", "x")):
        code, _, err = run(command[0], trip, dashed, *command[1:])
        assert code == 1 and f"There is no entry '{dashed}'" in err
        code, _, err = run(command[0], trip, dashed[:8], *command[1:])
        assert code == 1 and f"There is no entry '{dashed[:8]}'" in err
    code, _, err = run("erase", trip, ids(run, trip)[0], "--also", dashed, "--yes")
    assert code == 1 and f"There is no entry '{dashed}'" in err
    assert run("edit", trip, ids(run, trip)[0], dashed)[0] == 0
    assert texts(run, trip)[0] == dashed


def offered(db: Path, *words: str) -> list[str]:
    found = ShellComplete(main, {}, "llmcrdt", "_LLMCRDT_COMPLETE").get_completions(
        ["--db", str(db), *words[:-1]], words[-1]
    )
    return [item.value for item in found]


def test_a_shell_completes_conversations_and_entries(run: Run, trip: str, tmp_path: Path) -> None:
    question, answer = ids(run, trip)
    assert offered(tmp_path / "a.db", "show", trip[:4]) == [trip]
    assert offered(tmp_path / "a.db", "show", "zzz") == []
    assert offered(tmp_path / "a.db", "edit", trip, "") == [answer, question]
    assert offered(tmp_path / "a.db", "fork", trip, "--at", question[:8]) == [question]
    assert offered(tmp_path / "none.db", "show", "") == []
    assert not (tmp_path / "none.db").exists()


def test_what_others_wrote_completes_nothing_else(run: Run, tmp_path: Path) -> None:
    """zsh and fish read an answer line by line."""
    id_ = json.loads(run("new", "Trip\nplain\n--evil\n\x1b[31m", "--json")[1])["id"]
    entry = run("append", id_, "Hi\nplain\n--evil\n\x1b[31m")[1].strip()
    for words, value in ((["show", ""], id_), (["edit", id_, ""], entry)):
        complete = ZshComplete(main, {}, "llmcrdt", "_LLMCRDT_COMPLETE")
        (item,) = complete.get_completions(["--db", str(tmp_path / "a.db"), *words[:-1]], words[-1])
        kind, offered_value, help_ = complete.format_completion(item).split("\n")
        assert (kind, offered_value) == ("plain", value)
        assert "\x1b" not in help_ and "--evil" in help_


def test_an_error_about_a_file_obeys_nobody(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text(json.dumps([{"role": "user", "content": "a", "\x1b[31m\x07": "\ud83d"}]))
    code, _, err = run("import", path)
    assert code == 1 and "half of a surrogate pair" in err
    assert not {"\x1b", "\x07"} & set(err)
