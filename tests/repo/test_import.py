"""A history that is imported on several devices is one conversation, whatever each of them does with it meanwhile."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import llmcrdt
from llmcrdt.crdt.yjs.update import read_state_vector
from llmcrdt.document.canonical import with_written_numbers
from llmcrdt.document.conversation import core_of
from llmcrdt.document.imported import ALONE
from llmcrdt.document.projection import RULES
from llmcrdt.document.projector import Projector
from llmcrdt.exceptions import FormatError
from llmcrdt.interop import openai_chat
from llmcrdt.repo.importer import Imported, ImportProgress, NotImported, import_files, import_openai_chat
from llmcrdt.repo.repo import repo_core
from sync_server.thread import RelayThread

from ..replicas import exchange, stands
from . import import_soak

OpenRepo = Callable[..., llmcrdt.Repo]


def a_history(rng: random.Random, turns: int) -> list[Any]:
    """Messages of all roles; calls whose results come late, twice, or never."""
    said: list[Any] = [{"role": "system", "content": "Be brief."}] if rng.random() < 0.6 else []
    calls: list[str] = []
    for n in range(turns):
        said.append({"role": "user", "content": f"question {n} {rng.random()}"})
        answer: dict[str, Any] = {"role": "assistant", "content": f"answer {n}"}
        if rng.random() < 0.4:
            made = [f"c{n}-{k}" for k in range(rng.randrange(1, 3))]
            calls += made
            function = {"name": "f", "arguments": '{"a": 1.10, "b": 1e400}'}
            answer = {"role": "assistant", "content": None}
            answer["tool_calls"] = [{"id": call, "type": "function", "function": function} for call in made]
        if rng.random() < 0.9:
            said.append(answer)
        else:
            calls.clear()
        while calls and rng.random() < 0.6:
            said.append({"role": "tool", "tool_call_id": rng.choice(calls), "content": f"result {n}"})
    return said


def put(repo: llmcrdt.Repo, messages: list[Any], **whole: Any) -> llmcrdt.Conversation:
    return import_openai_chat(repo, json.dumps({"messages": messages, **whole}))


def said(conversation: llmcrdt.Conversation) -> list[str]:
    """All that is shown but results, which are shown wherever their calls are."""
    return [e.text for e in conversation.transcript() if e.role != "tool"]


def exported(conversation: llmcrdt.Conversation) -> Any:
    return openai_chat.write(list(conversation.transcript()))


def two(open_repo: OpenRepo) -> tuple[llmcrdt.Repo, llmcrdt.Repo]:
    laptop = open_repo("laptop")
    return laptop, open_repo("phone", laptop.library)


@pytest.mark.parametrize("seed", range(15))
def test_two_devices_that_import_one_file_have_one_conversation(open_repo: OpenRepo, seed: int) -> None:
    rng = random.Random(seed)
    messages = a_history(rng, rng.randrange(1, 12))
    here, there = (put(repo, messages, tools=[], model="m") for repo in two(open_repo))
    assert here.id == there.id
    assert stands(here) == stands(there)
    assert exported(here)["messages"] == messages
    assert exported(here)["model"] == "m"
    entries = len(here.transcript())
    mine = here.append("user", "only here")
    erased = rng.choice([e for e in there.transcript() if e.text])
    there.erase(erased)
    here.apply(there.diff())
    there.apply(here.diff())
    assert stands(here) == stands(there)
    assert len(here.transcript()) == entries + 1
    assert here.transcript().ids[-1] == mine.id
    for conversation in (here, there):
        assert conversation.entry(erased.id).status == "erased"
        assert conversation.verify() == []
        assert not conversation.transcript().malformed
        assert not conversation.transcript().elsewhere
        assert len(list(core_of(conversation).replica.keys("entries"))) == entries + 1
    assert read_state_vector(here.version()) == read_state_vector(there.version())


def test_devices_that_imported_a_folder_apart_agree_over_a_relay(open_repo: OpenRepo, tmp_path: Path) -> None:
    """Each has all conversations once, a third device as well; erases and new turns of both are there."""
    folder = tmp_path / "chats"
    folder.mkdir()
    for seed in range(4):
        (folder / f"{seed}.json").write_text(json.dumps(a_history(random.Random(seed), 5)))
    laptop, phone = two(open_repo)
    for repo in (laptop, phone):
        assert all(isinstance(result, Imported) for result in import_files(repo, [folder]))
    ids = {row.id for row in laptop.list()}
    erased: dict[str, llmcrdt.Entry] = {}
    for id_ in ids:
        conversation = phone.get(id_)
        erased[id_] = next(e for e in conversation.transcript() if e.role == "user")
        conversation.erase(erased[id_])
        laptop.get(id_).append("user", "from the laptop")
    tablet = open_repo("tablet", laptop.library)
    with RelayThread(tmp_path / "relay") as relay:
        for repo in (laptop, phone, laptop, tablet):
            with repo.connect(relay.url) as link:
                link.wait_synced(60)
    for repo in (laptop, phone, tablet):
        assert {row.id for row in repo.list()} == ids
        for id_ in ids:
            conversation = repo.get(id_)
            assert conversation.entry(erased[id_].id).status == "erased"
            assert erased[id_].text.encode() not in conversation.diff()
            if repo is not phone:
                assert stands(conversation) == stands(laptop.get(id_))
                assert conversation.transcript()[-1].text == "from the laptop"


@pytest.mark.parametrize("seed", range(15))
def test_a_longer_export_extends_it_in_whatever_order_it_comes(open_repo: OpenRepo, seed: int) -> None:
    """Also where one device has only the long one, another both, and people went on meanwhile."""
    rng = random.Random(seed)
    messages = a_history(rng, 8)
    cut = rng.randrange(4, len(messages))
    while messages[cut - 1]["role"] == "user":
        cut += 1
        if cut > len(messages):
            return
    laptop, phone = two(open_repo)
    here = put(laptop, messages[:cut], exported=1)
    whole = [m["content"] for m in messages]
    if rng.random() < 0.5:
        mine = here.append("user", "meanwhile")
        put(laptop, messages, exported=2)
        assert mine.id in here.transcript().ids
    there = put(phone, messages, exported=2)
    assert here.id == there.id
    put(phone, messages[:cut], exported=2)
    assert [e.text or None for e in there.transcript() if e.role != "system"] == [
        m or None for m, said in zip(whole, messages, strict=True) if said["role"] != "system"
    ]
    exchange(here, there)
    put(laptop, messages, exported=2)
    exchange(here, there)
    assert stands(here) == stands(there)
    texts = [e.text for e in here.transcript() if e.text not in ("meanwhile", "")]
    assert sorted(texts) == sorted(text for text in whole if text)
    assert not here.transcript().elsewhere
    assert not here.transcript().malformed
    assert here.verify() == []
    known = [row.id for row in laptop.list()]
    assert known == [here.id]


@pytest.mark.parametrize("role", ["user", "assistant"])
@pytest.mark.parametrize("touched", [False, True])
def test_a_changed_export_adds_alternatives(open_repo: OpenRepo, role: str, touched: bool) -> None:
    laptop, phone = two(open_repo)
    old = a_history(random.Random(3), 6)
    at = [i for i, m in enumerate(old) if m["role"] == role and m["content"]][2]
    new = [*old[:at], {"role": role, "content": "changed"}, {"role": "user", "content": "and on"}]
    here, there = put(laptop, old), put(phone, old)
    was = here.transcript()[at]
    if touched:
        here.append("user", "I went on here")
    again = put(laptop, new)
    assert again.id == here.id
    shown = [e.text for e in here.transcript()]
    if touched:
        assert shown[-1] == "I went on here"
        assert was.id in here.transcript().ids
    else:
        assert said(here)[-2:] == ["changed", "and on"]
        assert len(said(here)) == len([m for m in old[:at] if m["role"] != "tool"]) + 2
    changed = next(e for e in here.alternatives(was) if e.text == "changed")
    assert {e.text for e in here.alternatives(was)} == {was.text, "changed"}
    put(phone, new)
    exchange(here, there)
    assert stands(here) == stands(there)
    count = len(list(core_of(here).replica.keys("entries")))
    assert count == len(old) + 2 + touched, "one copy of each entry"
    for messages in (old, new):
        put(laptop, messages)
    assert len(list(core_of(here).replica.keys("entries"))) == count
    here.select(changed)
    assert said(here)[-2:] == ["changed", "and on"]
    assert here.verify() == []


def test_erased_words_do_not_come_back_with_their_file(open_repo: OpenRepo) -> None:
    laptop, phone = two(open_repo)
    messages = a_history(random.Random(5), 6)
    here, there = put(laptop, messages), put(phone, messages)
    at = next(i for i, m in enumerate(messages) if m["role"] == "user")
    here.erase(here.transcript()[at])
    put(laptop, messages)
    put(laptop, [*messages, {"role": "user", "content": "more"}])
    changed = [*messages[:at], {"role": "user", "content": messages[at]["content"] + "!"}]
    put(laptop, [*messages[: at + 1], {"role": "assistant", "content": "other"}])
    put(laptop, changed) if at else None
    exchange(here, there)
    for conversation in (here, there):
        assert messages[at]["content"] not in [e.text for e in conversation.transcript()]
        assert messages[at]["content"].encode() not in conversation.diff()
    assert stands(here) == stands(there)
    assert laptop.search(f'"{messages[at]["content"]}"', elsewhere=True) == []


def test_what_names_a_conversation(open_repo: OpenRepo) -> None:
    repo = open_repo("laptop")
    hello = {"role": "user", "content": "Hello"}
    answers = [{"role": "assistant", "content": text} for text in ("Hi", "Good day")]
    one = put(repo, [hello])
    assert put(repo, [hello, answers[0]]).id == one.id, "a question, and later its answer"
    first, second = (put(repo, [{"role": "user", "content": "Bye"}, answer]) for answer in answers)
    assert first.id != second.id, "two conversations that only begin alike"
    named = put(repo, [hello, answers[0]], id="conv-1")
    assert named.id not in (one.id, first.id)
    assert put(repo, [{"role": "user", "content": "else"}], id="conv-1").id == named.id
    assert put(repo, [hello], conversation_id="conv-2", id="conv-1").id != named.id
    with llmcrdt.open(repo_core(repo).store.path.parent / "other.db") as other:
        assert put(other, [hello]).id != one.id, "another library"


def test_a_deleted_conversation_does_not_come_back_and_its_file_can_be_imported_again(open_repo: OpenRepo) -> None:
    laptop, phone = two(open_repo)
    messages = a_history(random.Random(1), 2)
    first = put(laptop, messages)
    laptop.delete(first.id)
    second = put(laptop, messages)
    assert second.id != first.id
    assert put(laptop, messages).id == second.id
    library = repo_core(laptop).library.document, repo_core(phone).library.document
    library[1].apply(library[0].diff())
    assert put(phone, messages).id == second.id


def test_titles(open_repo: OpenRepo) -> None:
    repo = open_repo("laptop")
    messages = a_history(random.Random(1), 2)
    text = json.dumps({"title": "Its own", "messages": messages})
    conversation = import_openai_chat(repo, text, default_title="default")
    assert conversation.title == "Its own"
    repo.rename(conversation.id, "Mine")
    assert import_openai_chat(repo, text).title == "Mine"
    assert import_openai_chat(repo, text, title="Given").title == "Given"
    assert import_openai_chat(repo, json.dumps(messages[:1]), default_title="default").title == "default"


NUMBERS = '{"a": 1.10, "b": 1e400, "c": -0, "d": 1E5, "e": 123456789012345678901234567890, "f": -1.0e-400, "g": 0.1}'


def test_numbers_keep_their_text(open_repo: OpenRepo) -> None:
    arguments = NUMBERS.replace('"', '\\"')
    call = f'{{"id": "c", "type": "function", "function": {{"name": "f", "arguments": "{arguments}"}}, "n": {NUMBERS}}}'
    tool = f'{{"type": "function", "function": {{"name": "f", "parameters": {{"default": {NUMBERS}}}}}}}'
    text = (
        '{"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": null, "tool_calls": ['
        + call
        + '], "m": -0}, {"role": "tool", "tool_call_id": "c", "content": "y"}], "tools": ['
        + tool
        + '], "top": 1.50}'
    )
    here, there = (import_openai_chat(repo, text) for repo in two(open_repo))
    there.apply(here.diff())
    phone_again = core_of(there)
    phone_again.document.load_again()
    for conversation in (here, there):
        out = with_written_numbers(exported(conversation), json.dumps)
        assert out.count(NUMBERS) == 2
        assert out.count(json.dumps(NUMBERS)) == 1
        assert '"m": -0' in out
        assert '"top": 1.50' in out
    edited = there.edit(there.transcript()[0], "a system entry")
    assert "1.10" in str(core_of(there).replica.node("entries", edited.id)), "an edit keeps what is no text"


@pytest.mark.parametrize("seed", range(20))
def test_the_entry_index_says_what_the_document_says(open_repo: OpenRepo, seed: int) -> None:
    """It is made without a replica."""
    rng = random.Random(seed)
    repo = open_repo("laptop")
    conversation = put(repo, a_history(rng, rng.randrange(1, 9)), **({"more": 1} if seed % 3 else {}))
    index_is_true(repo, conversation)
    assert len(repo.search("question", limit=99)) == sum(1 for e in conversation.transcript() if e.role == "user")


def index_is_true(repo: llmcrdt.Repo, conversation: llmcrdt.Conversation) -> None:
    """The entry index says what a reader of the document would put there."""
    store = repo_core(repo).store
    core = repo_core(repo).documents.lone_core(conversation.id)
    core.document.load()
    assert store.entries.stale(RULES) == []
    nodes = store.entries.nodes(conversation.id, RULES, store.updates.last_seq(conversation.id))
    page = store.entries.page(conversation.id, RULES, 99, None)
    core.view.read_all(core.replica)
    rows = Projector(core.view, core.replica).changes({})
    assert rows is not None and nodes is not None and page is not None
    place = {entry: at for at, entry in enumerate(rows.shown)}
    made = sorted(rows.put, key=lambda row: (place.get(row.entry, len(place)), row.entry))
    hidden = sorted(node for node in nodes if not node[1])
    assert [*(node for node in nodes if node[1]), *hidden] == [
        (row.entry, row.entry in place, row.node) for row in made
    ]
    assert page == [(row.entry, row.pin, row.fields) for row in made if row.entry in place]
    db = store.entries._connection
    for row in made:
        number = db.one("SELECT number FROM entries WHERE entry = ?", row.entry)
        assert db.one("SELECT fields FROM entry_rows WHERE entry = ?", row.entry) == row.fields
        assert db.one("SELECT words FROM entry_texts WHERE number = ?", number) == row.words


def a_tree(rng: random.Random, size: int) -> list[str]:
    """The lines of a session of Claude Code in which people went on from what stood there before, and asked again."""
    lines: list[str] = []
    roles: list[str] = []
    for n in range(size):
        parent = n - 1 if n == 0 or rng.random() < 0.7 else rng.randrange(-1, n)
        before = roles[parent] if parent >= 0 else "assistant"
        roles.append("assistant" if before == "user" and rng.random() < 0.9 else "user")
        content: Any = f"question {rng.randrange(4)}"
        if roles[-1] == "assistant":
            content = [{"type": "text", "text": f"answer {rng.randrange(4)}"}]
        line = {"parentUuid": str(parent) if parent >= 0 else None, "uuid": str(n), "sessionId": "session"}
        message = {"role": roles[-1], "content": content}
        lines.append(json.dumps({**line, "isSidechain": False, "type": roles[-1], "message": message}))
    return lines


def spoken(conversation: llmcrdt.Conversation) -> tuple[list[str], set[str]]:
    """The entries that are shown and those that aren't, but for what stands beside them."""
    t = conversation.transcript()
    return [e.id for e in t if e.role != "system"], {e.entry.id for e in t.elsewhere}


def import_lines(repo: llmcrdt.Repo, path: Path, lines: list[str]) -> llmcrdt.Conversation:
    path.write_text("\n".join(lines))
    (result,) = import_files(repo, [path])
    assert isinstance(result, Imported), result
    return repo.get(result.conversation)


@pytest.mark.parametrize("seed", range(14))
def test_a_tree_is_the_same_whether_it_is_imported_at_once_or_grew(
    open_repo: OpenRepo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """At once it is written without a replica, a piece at a time."""
    monkeypatch.setattr("llmcrdt.repo.import_writer.PIECE", 800)
    rng = random.Random(seed)
    laptop, phone = two(open_repo)
    lines = a_tree(rng, rng.randrange(2, 25))
    here = import_lines(laptop, tmp_path / "a.jsonl", lines)
    assert not core_of(here).document.loaded
    assert here.verify() == []
    index_is_true(laptop, here)
    import_lines(phone, tmp_path / "b.jsonl", lines[:1])
    there = import_lines(phone, tmp_path / "b.jsonl", lines)
    assert spoken(here) == spoken(there)
    exchange(here, there)
    assert stands(here) == stands(there)
    (again,) = import_files(laptop, [tmp_path / "a.jsonl"])
    assert isinstance(again, Imported) and (again.added, again.diverged) == (0, False)
    assert stands(here) == stands(there)


def test_a_history_longer_than_its_first_part(open_repo: OpenRepo, monkeypatch: pytest.MonkeyPatch) -> None:
    """Later entries share their writers, a block at a time."""
    assert ALONE % 64 == 0
    for module in ("llmcrdt.document.imported", "llmcrdt.repo.import_writer"):
        monkeypatch.setattr(f"{module}.ALONE", 8)
        monkeypatch.setattr(f"{module}.TOGETHER", 4)
    monkeypatch.setattr("llmcrdt.repo.import_writer.PIECE", 200)
    messages = a_history(random.Random(2), 20)
    laptop, phone = two(open_repo)
    here, there = put(laptop, messages), put(phone, messages)
    clocks = [read_state_vector(conversation.version()) for conversation in (here, there)]
    assert len(clocks[0].items() ^ clocks[1].items()) == 2, "each has written who it is"
    assert len(clocks[0]) == 1 + 8 + -(-(len(messages) - 8) // 4)
    there.erase(there.transcript()[-1])
    put(laptop, [*messages, {"role": "user", "content": "more"}])
    exchange(here, there)
    assert stands(here) == stands(there)
    assert here.entry(there.transcript()[len(messages) - 1].id).status == "erased"
    assert len(list(core_of(here).replica.keys("entries"))) == len(messages) + 1


def files_in(folder: Path, count: int) -> list[Path]:
    made = []
    for n in range(count):
        path = folder / f"{n:03}.json"
        path.write_text(json.dumps({"messages": [{"role": "user", "content": f"file {n}"}]}))
        made.append(path)
    return made


def test_a_folder_is_one_call_and_a_bad_file_stops_no_other(open_repo: OpenRepo, tmp_path: Path) -> None:
    repo = open_repo("laptop")
    folder = tmp_path / "chats"
    folder.mkdir()
    files = files_in(folder, 6)
    files[2].write_text('{"messages": [{"role": "user"')
    files[4].write_bytes(b"\xff\xfe")
    told: list[ImportProgress] = []
    results = list(import_files(repo, [folder, tmp_path / "none.json"], progress=told.append))
    assert [type(r) for r in results] == [Imported, Imported, NotImported, Imported, NotImported, Imported, NotImported]
    assert {row.title for row in repo.list()} == {"000", "001", "003", "005"}
    assert told[-1].done == told[-1].total
    assert told[-1].files_done == told[-1].files == 7
    assert [t.done for t in told] == sorted(t.done for t in told)
    again = list(import_files(repo, [folder]))
    assert [r.added for r in again if isinstance(r, Imported)] == [0, 0, 0, 0]


@pytest.mark.parametrize("known", [False, True])
def test_what_is_stopped_leaves_whole_conversations(open_repo: OpenRepo, tmp_path: Path, known: bool) -> None:
    """A file that is being imported leaves nothing, those before it stay."""
    repo = open_repo("laptop")
    (small,) = files_in(tmp_path, 1)
    long = a_history(random.Random(1), 1) + [{"role": "user", "content": "x" * 3000} for _ in range(2000)]
    (tmp_path / "long.json").write_text(json.dumps(long))
    before = put(repo, long[:2]) if known else None
    shown = stands(before) if before else None

    def stop(progress: ImportProgress) -> None:
        if progress.files_done == 1 and progress.done > progress.total * 0.7:
            raise KeyboardInterrupt

    done = []
    with pytest.raises(KeyboardInterrupt):
        for result in import_files(repo, [small, tmp_path / "long.json"], progress=stop):
            done += [result]
    assert [result.file for result in done] == [str(small)]
    assert {row.title for row in repo.list()} == {"000"} | ({""} if known else set())
    core = repo_core(repo)
    assert {hit.title for hit in repo.search("file x", limit=9)} <= {"000"}
    assert len(core.store.catalog.documents("conversation")) == 1 + known
    if before:
        assert stands(before) == stands(repo.get(before.id)) == shown
        before.append("user", "meanwhile")
    (result,) = import_files(repo, [tmp_path / "long.json"])
    assert isinstance(result, Imported)
    assert result.added == len(long) - (2 if known else 0)
    texts = [e.text for e in repo.get(result.conversation).transcript()]
    assert [text for text in texts if text != "meanwhile"] == [m["content"] for m in long]
    assert len(texts) == len(long) + known


def test_a_file_is_read_a_piece_at_a_time(open_repo: OpenRepo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In any pieces, it is the same conversation, and errors are where they are."""
    messages = a_history(random.Random(4), 10)
    text = json.dumps({"messages": messages, "title": "é😀", "n": [1.5, 12, {}]}, indent=1, ensure_ascii=False)
    whole = openai_chat.read(openai_chat.parse(text))
    repo = open_repo("laptop")
    ids = set()
    for piece in (1, 7, 100, 1 << 20):
        monkeypatch.setattr("llmcrdt.interop.json_input._PIECE", piece)
        path = tmp_path / "chat.json"
        path.write_text(text, encoding="utf-8-sig")
        (result,) = import_files(repo, [path])
        assert isinstance(result, Imported)
        ids.add(result.conversation)
        assert openai_chat.read(openai_chat.parse(text)) == whole
        for bad, where in ((text[:-3] + "}}", "line"), (text.replace('"title"', "title"), "property name")):
            path.write_text(bad)
            (failed,) = import_files(repo, [path])
            assert isinstance(failed, NotImported)
            assert where in failed.error.message
        with pytest.raises(FormatError, match="messages stands twice"):
            import_openai_chat(repo, '{"messages": [], "messages": []}')
    assert len(ids) == 1


def test_what_measures_the_memory_of_imports_loses_no_entry(capsys: pytest.CaptureFixture[str]) -> None:
    assert import_soak.main(["--megabytes", "0.2", "--kinds", "codex"]) == 0
    assert capsys.readouterr().out.startswith("codex: ")
    assert import_soak.main(["--megabytes", "0.2", "--kinds", "codex", "--limit", "1"]) == 1
