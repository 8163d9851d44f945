"""Files of every format become conversations, and give their JSON back, whatever happens in between."""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import llmcrdt
from llmcrdt.document import schema
from llmcrdt.document.canonical import exact_json, with_written_numbers
from llmcrdt.document.conversation import core_of
from llmcrdt.interop.export import Export, export
from llmcrdt.interop.json_input import parse
from llmcrdt.interop.registry import format_of, names, sources
from llmcrdt.repo.importer import Imported, NotImported, import_files

sys.path.insert(0, str(Path(__file__).parent))
from providers import VALIDATORS

VECTORS = Path(__file__).parents[1] / "vectors" / "interop"
NOW = 1_800_000_000.0


@pytest.fixture
def repo(tmp_path: Path) -> Iterator[llmcrdt.Repo]:
    with llmcrdt.open(tmp_path / "a.db") as opened:
        yield opened


def imported(repo: llmcrdt.Repo, path: Path) -> llmcrdt.Conversation:
    (result,) = import_files(repo, [path])
    assert isinstance(result, Imported), result
    return repo.get(result.conversation)


def exported(conv: llmcrdt.Conversation, name: str, **target: Any) -> Export:
    """The export, which is valid."""
    form = format_of(name)
    entries = list(conv.transcript())
    target.setdefault("model", form.model_of(entries))
    made = export(form, entries, form.target(**target), now=NOW)
    assert VALIDATORS[name](made.body) == [], exact_json(made.body)
    return made


def _copy(conv: llmcrdt.Conversation, there: llmcrdt.Repo) -> llmcrdt.Conversation:
    copy = there.join(conv.id)
    copy.apply(conv.diff())
    return copy


def reasons(made: Export) -> set[str]:
    return {line.reason for line in made.left_out}


def test_every_format_has_a_validator_and_vectors() -> None:
    assert set(VALIDATORS) == set(names())
    assert {*names(), *sources()} == {folder.name for folder in VECTORS.iterdir()}


@pytest.mark.parametrize("name", names())
def test_a_folder_is_imported_and_exported_again(tmp_path: Path, name: str) -> None:
    files = sorted((VECTORS / name).glob("*.json"))
    with llmcrdt.open(tmp_path / "a.db") as repo:
        results = list(import_files(repo, [VECTORS / name]))
        assert len({r.conversation for r in results if isinstance(r, Imported)}) == len(files), results
    with llmcrdt.open(tmp_path / "a.db") as repo:  # as it stands in the file
        for path, result in zip(files, results, strict=True):
            assert isinstance(result, Imported)
            value, conv = parse(path.read_text("utf-8")), repo.get(result.conversation)
            assert conv.verify() == [], path
            made = exported(conv, name)
            assert not made.left_out, path
            member = format_of(name).member
            if isinstance(value, list) or isinstance(value[member], list):
                said = value if isinstance(value, list) else value[member]
                assert exact_json(made.messages) == exact_json(said), path
            if isinstance(value, dict) and not VALIDATORS[name](value):
                assert exact_json(made.body) == exact_json(value), path
            for other in names():
                assert other == name or "OPAQUE" not in exact_json(exported(conv, other).body), (path, other)


@pytest.mark.parametrize("name", names())
def test_two_devices_import_the_same_entries_with_the_same_fields(tmp_path: Path, name: str) -> None:
    with llmcrdt.open(tmp_path / "a.db") as here, llmcrdt.open(tmp_path / "b.db", library=here.library) as there:
        for path in sorted((VECTORS / name).glob("*.json")):
            one, other = imported(here, path), imported(there, path)
            assert one.transcript().hash == other.transcript().hash, path
            one.apply(other.diff())
            assert one.transcript().hash == other.transcript().hash, path
            assert [e.hidden for e in one.transcript()] == [e.hidden for e in other.transcript()]
            (again,) = import_files(here, [path])
            assert isinstance(again, Imported)
            assert (again.conversation, again.added, again.diverged) == (one.id, 0, False), path


@pytest.mark.parametrize("seed", range(8))
def test_what_devices_merge_is_valid_in_every_format(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    path = rng.choice(sorted(path for name in names() for path in (VECTORS / name).glob("*.json")))
    with llmcrdt.open(tmp_path / "a.db") as here, llmcrdt.open(tmp_path / "b.db", library=here.library) as there:
        conv = imported(here, path)
        other = there.join(conv.id)
        other.apply(conv.diff())
        for device in (conv, other):
            for _ in range(rng.randrange(2, 7)):
                _write(device, rng)
        conv.apply(other.diff())
        other.apply(conv.diff())
        for name in names():
            assert exact_json(exported(conv, name).body) == exact_json(exported(other, name).body)


def _write(conv: llmcrdt.Conversation, rng: random.Random) -> None:
    shown = [entry for entry in conv.transcript() if entry.sealed and entry.status != "erased"]
    calls = [call for entry in shown for call in entry.tool_calls]
    match rng.randrange(7):
        case 0:
            conv.append("user", f"words {rng.random()}")
        case 1:
            conv.append("system", "Be brief.", tools=[{"type": "function", "function": {"name": "look"}}])
        case 2:
            made = llmcrdt.ToolCall(rng.choice(("c1", "")), "look", rng.choice(('{"at": 1.10}', "")))
            conv.append("assistant", [llmcrdt.Text("I look."), made], frame=conv.transcript())
        case 3 if calls:
            conv.append("tool", "found", call=rng.choice(calls))
        case 4 if any(entry.role == "user" for entry in shown):
            conv.edit(rng.choice([entry for entry in shown if entry.role == "user"]), "edited")
        case 5 if shown:
            conv.erase(rng.choice(shown))
        case _:
            conv.append("assistant", "an answer", frame=conv.transcript())


THINKING = VECTORS / "anthropic" / "thinking.json"
FIELD = "anthropic/thinking"


def test_a_signature_does_not_go_out_after_another_list_and_comes_back_with_its_own(repo: llmcrdt.Repo) -> None:
    conv = imported(repo, THINKING)
    before = exported(conv, "anthropic")
    first = next(entry for entry in conv.transcript() if entry.role == "user")
    edited = conv.edit(first, "Other words")
    assert "OPAQUE" not in exact_json(exported(conv, "anthropic").body)
    conv.select(first)
    assert exact_json(exported(conv, "anthropic").body) == exact_json(before.body)
    conv.erase(edited)
    assert exact_json(exported(conv, "anthropic").body) == exact_json(before.body)
    conv.erase(first)
    after = exported(conv, "anthropic")
    assert "OPAQUE" not in exact_json(after.body)
    assert reasons(after) == {"erased"}


def test_an_edit_of_an_answer_takes_no_signature_along(repo: llmcrdt.Repo) -> None:
    conv = imported(repo, THINKING)
    answer = next(entry for entry in conv.transcript() if FIELD in entry.hidden)
    edited = conv.edit(answer, answer.parts)
    assert not edited.hidden
    made = exported(conv, "anthropic")
    assert "OPAQUE+/8AYWJj==" not in exact_json(made.body)
    assert "elsewhere" in {line.reason for line in conv.hidden_report(format_of("anthropic").target())}
    conv.select(answer)
    assert "OPAQUE+/8AYWJj==" in exact_json(exported(conv, "anthropic").body)


def test_fields_are_for_their_provider_and_model(repo: llmcrdt.Repo) -> None:
    conv = imported(repo, THINKING)
    assert reasons(exported(conv, "anthropic", model="another")) == {"model"}
    assert reasons(exported(conv, "anthropic", provider="bedrock")) == {"provider"}
    assert reasons(exported(conv, "openai-chat")) == {"provider"}
    assert not exported(conv, "anthropic").left_out


@pytest.mark.parametrize("name", ["openai-chat", "anthropic"])
def test_nobody_adds_a_field_to_an_imported_answer(repo: llmcrdt.Repo, tmp_path: Path, name: str) -> None:
    value = [{"role": "user", "content": "go"}, {"role": "assistant", "content": "done"}]
    path = tmp_path / "chat.json"
    path.write_text(json.dumps({"system": "s", "messages": value} if name == "anthropic" else value))
    conv = imported(repo, path)
    answer = conv.transcript()[-1]
    with (
        llmcrdt.open(tmp_path / "b.db", library=repo.library) as there,
        core_of(_copy(conv, there)).replica.edit() as edit,
    ):
        binding = exact_json({"provider": "anthropic", "api": "anthropic"}).encode()
        edit.put_field(schema.ENTRIES, answer.id, f"hidden:{FIELD}", binding + b'\0[[[0,"signature"],"OPAQUE"]]')
    conv.apply(edit.update)
    assert conv.entry(answer.id).hidden[FIELD].refused == "added"
    assert reasons(exported(conv, "anthropic")) == {"added"}


def test_a_value_in_a_hidden_place_of_a_part_does_not_go_out(repo: llmcrdt.Repo) -> None:
    conv = repo.create()
    conv.append("user", "go")
    signed = llmcrdt.Reasoning("thinks", {"llmcrdt:anthropic": {"signature": "OPAQUE"}})
    details = llmcrdt.Unknown({"type": "openai_chat/message", "fields": {"reasoning_details": [{"type": "OPAQUE"}]}})
    conv.append("assistant", [signed, llmcrdt.Text("x"), details], frame=conv.transcript())
    for name in names():
        assert "OPAQUE" not in exact_json(exported(conv, name).body), name


def test_an_expired_container_is_not_asked_for(repo: llmcrdt.Repo, tmp_path: Path) -> None:
    for moment, there in (("2020-01-01T00:00:00Z", False), ("2099-01-01T00:00:00Z", True)):
        answer = {"role": "assistant", "content": "x", "container": {"id": f"container_{there}", "expires_at": moment}}
        messages = [{"role": "user", "content": f"go {there}"}, answer, {"role": "user", "content": "more"}]
        path = tmp_path / f"{there}.json"
        path.write_text(json.dumps({"system": "s", "max_tokens": 5, "messages": messages}))
        made = exported(imported(repo, path), "anthropic")
        assert ("container" in made.body) == there
        assert reasons(made) == (set() if there else {"expired"})
        assert all("container" not in message for message in made.messages)


def test_handles_of_a_server_do_not_come_back(repo: llmcrdt.Repo, tmp_path: Path) -> None:
    path = tmp_path / "chat.json"
    path.write_text(json.dumps({"model": "m", "previous_response_id": "resp_1", "input": "go"}))
    assert "previous_response_id" not in exported(imported(repo, path), "openai-responses").body


def test_reasoning_that_stays_takes_the_ids_after_it_along(repo: llmcrdt.Repo) -> None:
    conv = imported(repo, VECTORS / "openai-responses" / "reasoning.json")
    made = exported(conv, "openai-responses", model="another")
    assert not any(item.get("type") == "reasoning" or "id" in item for item in made.messages)
    assert [item["type"] for item in made.messages if "type" in item] == [
        "function_call",
        "function_call_output",
        "message",
    ]


def test_a_call_of_another_provider_says_that_it_is_not_signed(repo: llmcrdt.Repo) -> None:
    conv = imported(repo, VECTORS / "anthropic" / "tools.json")
    (call,) = [
        part for content in exported(conv, "gemini").messages for part in content["parts"] if "functionCall" in part
    ]
    assert call["thoughtSignature"] == "skip_thought_signature_validator"


def test_what_is_in_no_format_is_told_with_the_way_out(repo: llmcrdt.Repo, tmp_path: Path) -> None:
    for text, says in (
        ('{"a": 1}', "no format that is known"),
        ("[]", "no message"),
        ('{"contents": [{}]}', "parts"),
        ('[{"role": ["user"], "content": "x"}]', "role"),
        ('{"messages": [{"role": {}, "content": "x"}]}', "role"),
    ):
        path = tmp_path / "x.json"
        path.write_text(text)
        (result,) = import_files(repo, [path])
        assert isinstance(result, NotImported)
        assert says in result.error.message and result.error.hint
    path.write_text(json.dumps([{"role": "user", "content": "plain"}]))
    results = [next(iter(import_files(repo, [path], format=name))) for name in ("openai-chat", "anthropic")]
    assert len({r.conversation for r in results if isinstance(r, Imported)}) == 2, "a format's file is its own source"


def test_numbers_stand_as_they_were_written(repo: llmcrdt.Repo) -> None:
    conv = imported(repo, VECTORS / "anthropic" / "tools.json")
    for name in ("anthropic", "gemini", "ollama"):
        text = with_written_numbers(exported(conv, name).body, json.dumps)
        assert '"n": 1.10' in text and "1e400" in text and '"zero": -0' in text, name
