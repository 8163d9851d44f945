"""The histories of docs/semantics.md read as they stand there."""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import count
from pathlib import Path

import pytest

import llmcrdt
from llmcrdt.document import writer
from llmcrdt.ids import EntryId

PAGE = Path(__file__).parents[2] / "docs" / "semantics.md"
HISTORIES = re.findall(r"```history\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


def exchange(devices: list[llmcrdt.Conversation]) -> None:
    for a in devices:
        for b in devices:
            a.apply(b.diff(since=a.version()))


def say(conversation: llmcrdt.Conversation, verb: str, what: str) -> None:
    transcript = conversation.transcript()
    entries = [*transcript, *(found.entry for found in transcript.elsewhere)]
    known = {entry.text: entry for entry in entries}
    called = {call.name: (entry, call) for entry in entries for call in entry.tool_calls}
    old, _, new = what.partition(" / ")
    match verb:
        case "system" | "user":
            conversation.append(verb, what)
        case "says":
            conversation.append("assistant", what)
        case "answers":
            conversation.append("assistant", what, frame=transcript)
        case "calls":
            conversation.append("assistant", [llmcrdt.ToolCall("1", what, "{}")], frame=transcript)
        case "result":
            conversation.append("tool", new, call=called[old][1])
        case "again":
            conversation.append("assistant", new, instead_of=called[old][0])
        case "edits":
            conversation.edit(known[old], new)
        case _:
            raise AssertionError(verb)


@pytest.mark.parametrize("history", HISTORIES)
def test_a_history_reads_as_the_page_shows_it(
    history: str, open_repo: Callable[..., llmcrdt.Repo], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of entries that are as old, the one with the smaller id is first: here the one that the page has first."""
    numbers = count()
    monkeypatch.setattr(writer, "new_entry_id", lambda random: EntryId(f"{next(numbers):016d}"))
    said, _, read = history.partition("reads\n")
    laptop = open_repo("laptop").create()
    devices = {"laptop": laptop, **{name: open_repo(name).join(laptop.id) for name in ("phone", "tablet")}}
    for line in said.splitlines():
        if line == "sync":
            exchange([*devices.values()])
        else:
            device, verb, what = line.split(" ", 2)
            say(devices[device], verb, what)
    exchange([*devices.values()])
    for conversation in devices.values():
        assert [f"{entry.role} {entry.text}" for entry in conversation.transcript()] == read.splitlines()
        every = {*conversation.transcript().ids, *(found.entry.id for found in conversation.transcript().elsewhere)}
        assert len(every) == len(re.findall(r"(?m)^(?!sync$)", said.strip()))


def test_there_are_five() -> None:
    assert len(HISTORIES) == 5
