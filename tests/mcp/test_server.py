"""The MCP server, asked by the official client: what agents read, may write, and are never told."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("mcp")

import anyio
from mcp import Client, StdioServerParameters, stdio_client

import llmcrdt
from llmcrdt import HiddenField, Reasoning, Text
from llmcrdt.mcp.library import LONGEST, AgentLibrary
from llmcrdt.mcp.server import make

OpenRepo = Callable[..., llmcrdt.Repo]


@pytest.fixture
def repo(open_repo: OpenRepo) -> llmcrdt.Repo:
    return open_repo("laptop")


def asked(library: AgentLibrary, *calls: tuple[str, dict[str, Any]]) -> list[Any]:
    """The answers to calls, one after the other: values, or the error's text."""

    async def talk() -> list[Any]:
        found = []
        async with Client(make(library)) as client:
            for name, arguments in calls:
                answer = await client.call_tool(name, arguments)
                if answer.is_error:
                    found.append(answer.content[0].text)  # type: ignore[union-attr]
                else:
                    value = answer.structured_content
                    found.append(value["result"] if value is not None and set(value) == {"result"} else value)
        return found

    return anyio.run(talk)


def tools(library: AgentLibrary) -> dict[str, Any]:
    async def talk() -> dict[str, Any]:
        async with Client(make(library)) as client:
            return {tool.name: tool for tool in (await client.list_tools()).tools}

    return anyio.run(talk)


def test_an_agent_lists_searches_and_reads_page_by_page(repo: llmcrdt.Repo) -> None:
    trip = repo.create(title="Trip")
    for number in range(5):
        trip.append("user", f"Town number {number}")
    repo.create(title="Other")
    listed, found, last = asked(
        AgentLibrary(repo),
        ("list_conversations", {}),
        ("search_conversations", {"text": "town 3"}),
        ("read_conversation", {"conversation": trip.id, "last": 3}),
    )
    assert [row["title"] for row in listed] == ["Other", "Trip"]
    assert [hit["snippet"] for hit in found] == ["[Town] number [3]"]
    assert [entry["text"] for entry in last["entries"]] == ["Town number 2", "Town number 3", "Town number 4"]
    (first,) = asked(
        AgentLibrary(repo), ("read_conversation", {"conversation": trip.id, "last": 3, "before": last["before"]})
    )
    assert [entry["text"] for entry in first["entries"]] == ["Town number 0", "Town number 1"]
    assert first["before"] is None


def test_a_long_entry_is_read_in_pieces(repo: llmcrdt.Repo) -> None:
    trip = repo.create()
    words = "".join(chr(ord("a") + number % 26) for number in range(LONGEST * 2 + 10))
    entry = trip.append("user", words)
    read, start = "", 0
    while True:
        (piece,) = asked(
            AgentLibrary(repo), ("read_entry", {"conversation": trip.id, "entry": entry.id, "start": start})
        )
        read, start = read + piece["text"], start + len(piece["text"])
        if not piece["cut"]:
            break
    assert read == words


def test_hidden_fields_reasoning_and_erased_words_are_never_told(repo: llmcrdt.Repo) -> None:
    trip = repo.create()
    gone = trip.append("user", "SECRET one")
    trip.append(
        "assistant",
        [Reasoning("SECRET two"), Text("Fine.")],
        frame=trip.transcript(),
        hidden={"key": HiddenField(b"SECRET three")},
    )
    replaced = trip.append("user", "SECRET four")
    trip.edit(replaced, "harmless")
    trip.erase(gone)
    told = asked(
        AgentLibrary(repo),
        ("read_conversation", {"conversation": trip.id}),
        ("search_conversations", {"text": "secret"}),
        ("read_entry", {"conversation": trip.id, "entry": replaced.id}),
        ("read_entry", {"conversation": trip.id, "entry": gone.id}),
    )
    assert "SECRET" not in json.dumps(told)


def test_it_writes_only_where_a_person_allowed_it(repo: llmcrdt.Repo) -> None:
    mine, other = repo.create(), repo.create()
    assert "append_to_conversation" not in tools(AgentLibrary(repo))
    reads = tools(AgentLibrary(repo, writable=["all"]))
    assert reads["read_conversation"].annotations.read_only_hint
    assert not reads["append_to_conversation"].annotations.read_only_hint
    only = AgentLibrary(repo, writable=[mine.id], author="helper")
    said, refused, unmade = asked(
        only,
        ("append_to_conversation", {"conversation": mine.id, "text": "Noted."}),
        ("append_to_conversation", {"conversation": other.id, "text": "Noted."}),
        ("create_conversation", {"title": "New"}),
    )
    assert said["author"] == "helper" and mine.transcript()[-1].text == "Noted."
    assert "read only" in refused and "not allowed" in unmade and len(other.transcript()) == 0
    (made,) = asked(AgentLibrary(repo, writable=["all"]), ("create_conversation", {"title": "New"}))
    assert repo.get(made["id"]).title == "New"


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("read_conversation", {"conversation": "none"}),
        ("read_conversation", {"conversation": "none", "last": 10**9}),
        ("read_entry", {"conversation": "none", "entry": "none"}),
        ("list_conversations", {"limit": 0}),
        ("search_conversations", {"text": '"', "limit": -1}),
    ],
)
def test_an_error_is_told_in_words(repo: llmcrdt.Repo, name: str, arguments: dict[str, Any]) -> None:
    (told,) = asked(AgentLibrary(repo), (name, arguments))
    assert isinstance(told, str) and "Traceback" not in told and len(told) > 20


def test_the_command_speaks_mcp(tmp_path: Path) -> None:
    with llmcrdt.open(tmp_path / "a.db") as repo:
        id = repo.create(title="Trip").id
    command = ["-m", "llmcrdt", "--db", str(tmp_path / "a.db"), "mcp", "--write", id[:6]]

    async def talk() -> Any:
        async with Client(stdio_client(StdioServerParameters(command=sys.executable, args=command))) as client:
            await client.call_tool("append_to_conversation", {"conversation": id, "text": "From an agent"})
            return (await client.call_tool("read_conversation", {"conversation": id})).structured_content

    assert anyio.run(talk)["entries"][0]["text"] == "From an agent"
