"""Files that other programs keep become conversations, whatever is in them, and whatever happened here meanwhile."""

from __future__ import annotations

import json
import random
import sqlite3
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import llmcrdt
from llmcrdt.document.canonical import exact_json
from llmcrdt.interop import account_export, source
from llmcrdt.interop.registry import names, sources
from llmcrdt.repo.importer import Imported, NotImported, import_files

sys.path.insert(0, str(Path(__file__).parent))
from test_formats_in_documents import exported
from test_sources import VECTORS, files_of


@pytest.fixture
def repo(tmp_path: Path) -> Iterator[llmcrdt.Repo]:
    with llmcrdt.open(tmp_path / "here.sqlite") as opened:
        yield opened


def imported(repo: llmcrdt.Repo, path: Path) -> llmcrdt.Conversation:
    (result,) = import_files(repo, [path])
    assert isinstance(result, Imported), result
    return repo.get(result.conversation)


def ids(conv: llmcrdt.Conversation) -> set[str]:
    t = conv.transcript()
    return {entry.id for entry in (*t, *(other.entry for other in t.elsewhere))}


def shown(conv: llmcrdt.Conversation) -> list[str]:
    return [entry.text for entry in conv.transcript() if entry.role != "system" and entry.text]


@pytest.mark.parametrize("name", sources())
def test_two_devices_import_the_same_entries_and_every_format_takes_them(tmp_path: Path, name: str) -> None:
    with (
        llmcrdt.open(tmp_path / "a.sqlite") as here,
        llmcrdt.open(tmp_path / "b.sqlite", library=here.library) as there,
    ):
        for path in files_of(name, tmp_path):
            results = [r for r in import_files(here, [path]) if isinstance(r, Imported)]
            assert results, path
            others = [r for r in import_files(there, [path]) if isinstance(r, Imported)]
            assert [r[1:] for r in results] == [r[1:] for r in others], path
            for result in results:
                one, other = here.get(result.conversation), there.get(result.conversation)
                assert one.verify() == [], path
                assert not one.transcript().malformed, path
                assert one.transcript().hash == other.transcript().hash, path
                before = ids(one)
                assert any(f"{name}/kept" in entry.hidden for entry in one.transcript()), path
                one.apply(other.diff())
                assert ids(one) == before, path
                for form in names():
                    made = exported(one, form, model="m")
                    own = {"claude-code": "anthropic", "codex": "openai-responses"}.get(name)
                    assert form == own or "OPAQUE" not in exact_json(made.body), (path, form)
            again = [r for r in import_files(here, [path]) if isinstance(r, Imported)]
            assert [(r.conversation, r.added, r.diverged) for r in again] == [
                (r.conversation, 0, False) for r in results
            ], path


def test_what_a_file_shows_is_shown_and_other_branches_are_alternatives(repo: llmcrdt.Repo) -> None:
    for name, file in (("chatgpt", "branches.json"), ("claude", "branches.json")):
        conv = imported(repo, VECTORS / name / file)
        assert shown(conv) == ["Q", "first", "otherwise", "other answer"]
        answer = conv.transcript()[1]
        assert {e.text for e in conv.alternatives(answer)} == {"first", "regenerated"}
        assert {e.text for e in conv.alternatives(conv.transcript()[2])} == {"on", "otherwise"}
    conv = imported(repo, VECTORS / "claude-code" / "branches.jsonl")
    assert shown(conv) == ["Question", "First answer", "Go on otherwise", "On the second branch", "Shown last"]


def test_signatures_go_back_to_their_own_provider(repo: llmcrdt.Repo) -> None:
    conv = imported(repo, VECTORS / "claude-code" / "thinking.jsonl")
    made = exported(conv, "anthropic", model="claude-sonnet-1")
    assert made.messages[1]["content"][0] == {"type": "thinking", "thinking": "", "signature": "EqQB+/8=OPAQUE"}
    assert {line.name for line in made.left_out} == {"claude-code/kept"}
    conv = imported(repo, VECTORS / "codex" / "reasoning.jsonl")
    made = exported(conv, "openai-responses", model="gpt-5-codex")
    sealed = [item.get("encrypted_content") for item in made.messages if item.get("type") == "reasoning"]
    assert sealed == ["gAAA-OPAQUE"]
    assert {(line.name, line.reason) for line in made.left_out} >= {("openai-responses/reasoning", "model")}


def test_what_is_not_shown_is_counted_and_kept_as_it_was(repo: llmcrdt.Repo) -> None:
    path = VECTORS / "claude-code" / "sidechain.jsonl"
    (result,) = import_files(repo, [path])
    assert isinstance(result, Imported)
    assert result.kept == {"sidechain": 3}
    conv = repo.get(result.conversation)
    kept = [json.loads(e.hidden["claude-code/kept"].data) for e in conv.transcript() if "claude-code/kept" in e.hidden]
    rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    assert [row for group in kept for row in group if row["isSidechain"]] == [r for r in rows if r["isSidechain"]]
    assert not repo.search("found", wait=None) or all("hm" not in str(hit) for hit in repo.search("hm", wait=None))


def test_a_damaged_line_is_named_and_the_rest_comes(repo: llmcrdt.Repo) -> None:
    for name, last in (("claude-code", "The end"), ("codex", "The end")):
        (result,) = import_files(repo, [VECTORS / name / "damaged.jsonl"])
        assert isinstance(result, Imported)
        assert result.refused[0].startswith("line 3: ")
        assert shown(repo.get(result.conversation))[-1] == last


def test_a_rollout_whose_first_line_is_damaged_is_named_by_its_file(repo: llmcrdt.Repo, tmp_path: Path) -> None:
    id_ = "01234567-89ab-4def-8123-456789abcdef"
    text = (VECTORS / "codex" / "plain.jsonl").read_text("utf-8").replace("x-plain", id_)
    path = tmp_path / f"rollout-2026-01-02T03-04-05-{id_}.jsonl"
    path.write_text(text)
    conv = imported(repo, path)
    path.write_text(text[20:])
    again = imported(repo, path)
    assert again.id == conv.id


def a_session(rng: random.Random, turns: int) -> list[str]:
    """Lines of a session that somebody went back in, now and then."""
    lines: list[str] = []
    said: list[tuple[str, str]] = []

    def add(role: str, parent: str | None, content: Any, message: str | None = None, **more: Any) -> str:
        uuid = f"u{len(lines)}"
        inner = {"role": role, "content": content, **({"id": message, "model": "m"} if message else {})}
        base = {"uuid": uuid, "parentUuid": parent, "sessionId": "s", "isSidechain": False, "type": role}
        lines.append(json.dumps({**base, "message": inner, **more}))
        return uuid

    at: str | None = None
    for n in range(turns):
        if said and rng.random() < 0.3:
            at = rng.choice(said)[0]
        at = add("user", at, f"question {n}")
        message = f"msg{n}"
        signed = {"type": "thinking", "thinking": "", "signature": f"sig{n}"}
        at = add("assistant", at, [signed], message)
        if rng.random() < 0.5:
            calls = [f"call{n}-{k}" for k in range(rng.randrange(1, 4))]
            made = []
            for call in calls:
                at = add("assistant", at, [{"type": "tool_use", "id": call, "name": "f", "input": {}}], message)
                made.append((at, call))
            for by, call in made:
                at = add("user", by, [{"type": "tool_result", "tool_use_id": call, "content": f"result {call}"}])
        at = add("assistant", at, [{"type": "text", "text": f"answer {n}"}], f"end{n}")
        said.append((at, f"answer {n}"))
        if rng.random() < 0.3:
            lines.append(json.dumps({"type": "queue-operation", "sessionId": "s", "content": rng.random()}))
    return lines


@pytest.mark.parametrize("seed", range(12))
def test_a_session_that_grows_extends_its_conversation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """Imported at any moments it is what it is imported at once, on a device that saw it all and on one that didn't."""
    monkeypatch.setattr(source, "_GROUP", 1000)
    rng = random.Random(seed)
    lines = a_session(rng, 12)
    path = tmp_path / "s.jsonl"
    # A turn that is under way would go on within its message; these stand where one ended.
    ends = [n + 1 for n, line in enumerate(lines) if '"answer ' in line]
    with (
        llmcrdt.open(tmp_path / "a.sqlite") as here,
        llmcrdt.open(tmp_path / "b.sqlite", library=here.library) as there,
    ):
        for end in sorted(rng.sample(ends, 3)):
            path.write_text("\n".join(lines[:end]) + "\n")
            (result,) = import_files(here, [path])
            assert isinstance(result, Imported) and not result.refused
            assert (
                shown(here.get(result.conversation))[-1] == json.loads(lines[end - 1])["message"]["content"][0]["text"]
            )
        path.write_text("\n".join(lines) + "\n")
        one, other = imported(here, path), imported(there, path)
        kept, kept_at_once = ({e for e in ids(c) if c.entry(e).hidden.get("claude-code/kept")} for c in (one, other))
        assert len(kept_at_once) > 3 and kept_at_once <= kept and len(kept) <= len(kept_at_once) + 3
        assert ids(one) - kept == ids(other) - kept_at_once
        calls = {call.id for entry in one.transcript() for call in entry.tool_calls}
        assert calls == {entry.answers[1] for entry in one.transcript() if entry.answers}
        assert shown(one) == shown(other)
        one.apply(other.diff())
        other.apply(one.diff())
        assert one.transcript().hash == other.transcript().hash
        assert one.verify() == [] and not one.transcript().malformed
        path_now, at = [], json.loads(next(line for line in reversed(lines) if '"answer ' in line))
        by_id = {row["uuid"]: row for row in map(json.loads, lines) if "uuid" in row}
        while at is not None:
            path_now.append(at)
            at = by_id.get(at["parentUuid"])
        texts = [t for row in reversed(path_now) if (t := _text(row["message"]["content"]))]
        assert [t for t in shown(one) if not t.startswith("result")] == texts
        made = exported(one, "anthropic", model="m")
        sent = [
            b["signature"]
            for m in made.messages
            if isinstance(m["content"], list)
            for b in m["content"]
            if b["type"] == "thinking"
        ]
        asked = [int(t.split()[1]) for t in texts if t.startswith("question")]
        alternatives = any(e.alternative_of for e in one.transcript())
        assert sent == [f"sig{n}" for n in asked] or alternatives


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    return "".join(block.get("text", "") for block in content)


def test_what_somebody_went_on_with_here_stays_in_sight(repo: llmcrdt.Repo, tmp_path: Path) -> None:
    lines = (VECTORS / "claude-code" / "branches.jsonl").read_text("utf-8").splitlines()
    path = tmp_path / "s.jsonl"
    path.write_text("\n".join(lines[:4]) + "\n")
    conv = imported(repo, path)
    conv.append("user", "Said here")
    path.write_text("\n".join(lines) + "\n")
    again = imported(repo, path)
    assert again.id == conv.id
    assert shown(again)[-1] == "Said here"


def test_importing_again_does_not_undo_what_somebody_chose_or_erased(repo: llmcrdt.Repo) -> None:
    path = VECTORS / "chatgpt" / "branches.json"
    conv = imported(repo, path)
    other = next(o.entry for o in conv.transcript().elsewhere if o.entry.text == "regenerated")
    conv.select(other)
    erased = next(e for e in conv.transcript() if "chatgpt/kept" in e.hidden)
    conv.erase(erased)
    again = imported(repo, path)
    assert shown(again) == ["Q", "regenerated"]
    assert again.entry(erased.id).status == "erased"
    assert not any("chatgpt/kept" in e.hidden for e in again.transcript())


# -- files of strangers


def failed(repo: llmcrdt.Repo, path: Path) -> str:
    (result,) = import_files(repo, [path])
    assert isinstance(result, NotImported), result
    assert result.error.hint
    assert not list(repo.list())
    return result.error.message


def test_a_zip_is_never_written_out(repo: llmcrdt.Repo, tmp_path: Path) -> None:
    before = set(tmp_path.rglob("*"))
    results = list(import_files(repo, [VECTORS / "chatgpt" / "export.zip"]))
    assert [isinstance(r, Imported) for r in results] == [True, True]
    new = set(tmp_path.rglob("*")) - before
    assert all(path.name.startswith("here.sqlite") for path in new), new


def test_a_zip_that_holds_far_more_than_its_size_is_refused(
    repo: llmcrdt.Repo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(account_export, "FREE", 1 << 20)
    path = tmp_path / "bomb.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as made:
        made.writestr("conversations.json", " " * (64 << 20))
    assert "100 times its size" in failed(repo, path)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as made:
        made.writestr("conversations.json", '["' + "a" * (64 << 20))
    assert "100 times its size" in failed(repo, path)


def test_zips_of_other_kinds_are_refused(repo: llmcrdt.Repo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "other.zip"
    with zipfile.ZipFile(path, "w") as made:
        made.writestr("a.txt", "words")
    assert "no conversations.json" in failed(repo, path)
    whole = (VECTORS / "claude" / "export.zip").read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert "cut short" in failed(repo, path)
    monkeypatch.setattr(account_export, "MAX_DIRECTORY", 20)
    path.write_bytes(whole)
    assert "too many files" in failed(repo, path)


def test_databases_of_other_programs_are_refused_and_left_as_they_are(repo: llmcrdt.Repo, tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    db = sqlite3.connect(path)
    db.execute("CREATE TABLE t (x)")
    endless = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x FROM n) SELECT x, x AS id, x AS prompt, x AS response, x AS model FROM n"  # noqa: E501
    db.execute(f"CREATE VIEW responses AS {endless}")
    db.commit()
    db.close()
    before = path.read_bytes()
    assert "another program" in failed(repo, path)
    assert path.read_bytes() == before
    path.write_bytes(before[:5000])
    failed(repo, path)


def test_json_that_nests_too_deeply_is_one_refusal(repo: llmcrdt.Repo, tmp_path: Path) -> None:
    path = tmp_path / "deep.jsonl"
    lines = (VECTORS / "claude-code" / "plain.jsonl").read_text("utf-8").splitlines()
    path.write_text("\n".join([*lines[:2], "[" * 100_000, '{"a":' * 150 + "1" + "}" * 150, *lines[2:]]) + "\n")
    (result,) = import_files(repo, [path])
    assert isinstance(result, Imported)
    assert [line.partition(":")[0] for line in result.refused] == ["line 3", "line 4"]
    assert len(shown(repo.get(result.conversation))) == 4


def test_an_export_that_ends_in_the_middle_leaves_what_came_before(repo: llmcrdt.Repo, tmp_path: Path) -> None:
    text = (VECTORS / "claude" / "empty.json").read_text("utf-8") + "\0"
    path = tmp_path / "cut.json"
    path.write_text(text[: text.index("k-nothing") + 5])
    results = list(import_files(repo, [path]))
    assert [type(r) for r in results] == [Imported, NotImported]


def test_a_folder_is_searched_for_all_of_them(repo: llmcrdt.Repo, tmp_path: Path) -> None:
    folder = tmp_path / "all"
    folder.mkdir()
    (database,) = (path for path in files_of("llm", tmp_path) if path.stem == "plain")
    for path in (VECTORS / "codex" / "plain.jsonl", VECTORS / "claude" / "export.zip", database):
        (folder / path.name).write_bytes(path.read_bytes())
    (folder / "notes.txt").write_text("no conversation")
    results = list(import_files(repo, [folder]))
    assert all(isinstance(r, Imported) for r in results) and len(results) == 3
