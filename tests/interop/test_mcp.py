"""Content of MCP's goes in and out unchanged, also through a document, and to every format as it takes it."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import llmcrdt
from llmcrdt.document.canonical import exact_json
from llmcrdt.document.entry import Part
from llmcrdt.exceptions import FormatError
from llmcrdt.interop.json_input import parse
from llmcrdt.interop.mcp import content_of, parts_of, parts_of_result, result_of
from llmcrdt.interop.native import Native

sys.path.insert(0, str(Path(__file__).parent))
from providers import VALIDATORS

VECTORS = Path(__file__).parents[1] / "vectors" / "mcp"
RESULTS = {path.stem: parse(path.read_text("utf-8")) for path in sorted(VECTORS.glob("*.json"))}
CONTENTS = {path.stem: parse(path.read_text("utf-8")) for path in sorted((VECTORS / "content").glob("*.json"))}
PNG = RESULTS["image"]["content"][0]["data"]
TOOLS = [{"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}]
OpenRepo = Callable[..., llmcrdt.Repo]


def asked(conv: llmcrdt.Conversation) -> llmcrdt.ToolCall:
    """A call of a tool at the end of a conversation."""
    conv.append("user", "Look!")
    call = llmcrdt.ToolCall("c1", "look", "{}")
    return conv.append("assistant", [call], frame=conv.transcript()).tool_calls[0]


@pytest.fixture
def conv(open_repo: OpenRepo) -> llmcrdt.Conversation:
    made = open_repo("laptop").create()
    made.append("system", "Be brief.", tools=TOOLS)
    return made


def test_there_are_vectors_enough() -> None:
    assert len(RESULTS) >= 15


@pytest.mark.parametrize("name", sorted(RESULTS))
def test_a_result_comes_back_as_it_was_through_a_document(conv: llmcrdt.Conversation, name: str) -> None:
    result = RESULTS[name]
    entry = conv.append("tool", parts_of_result(result), call=asked(conv))
    assert exact_json(result_of(entry.parts)) == exact_json(result)
    failed = [part.error for part in entry.parts if isinstance(part, llmcrdt.ToolResult)]
    assert any(failed) == bool(result.get("isError")) and conv.verify() == []


@pytest.mark.parametrize("name", sorted(CONTENTS))
def test_content_comes_back_as_it_was_through_a_document(conv: llmcrdt.Conversation, name: str) -> None:
    entry = conv.append("user", parts_of(CONTENTS[name]))
    assert exact_json(content_of(entry.parts)) == exact_json(CONTENTS[name])


def texts_in(value: Any) -> str:
    """All texts in a JSON value, and those in JSON texts."""
    if isinstance(value, dict):
        return "\n".join(map(texts_in, value.values()))
    return "\n".join(map(texts_in, value)) if isinstance(value, list) else value if isinstance(value, str) else ""


@pytest.mark.parametrize("api", sorted(VALIDATORS))
def test_every_api_takes_every_result_and_content_and_no_text_is_lost(open_repo: OpenRepo, api: str) -> None:
    repo = open_repo("laptop")
    for name, result in RESULTS.items():
        conv = repo.create()
        conv.append("system", "Be brief.", tools=TOOLS)
        entry = conv.append("tool", parts_of_result(result), call=asked(conv))
        conv.append("user", [*parts_of(CONTENTS["sampling-list"]), *parts_of(CONTENTS["prompt-image"])[:1]])
        body = conv.messages(api, model="m-1").body
        assert VALIDATORS[api](body) == [], name
        sent = texts_in(body)
        for part in entry.parts:
            assert getattr(part, "text", "") in sent, name
        assert "What is this?" in sent and PNG in sent
        for own in ("audience", "progressToken", "lastModified"):
            assert own not in json.dumps(body)


@pytest.mark.parametrize("api", sorted(VALIDATORS))
@pytest.mark.parametrize("name", ["image-annotated", "resource-picture"])
def test_a_picture_of_a_result_is_a_picture_there(conv: llmcrdt.Conversation, api: str, name: str) -> None:
    conv.append("tool", parts_of_result(RESULTS[name]), call=asked(conv))
    body = conv.messages(api, model="m-1").body
    assert PNG in json.dumps(body) and VALIDATORS[api](body) == []


@pytest.mark.parametrize("api", sorted(VALIDATORS))
def test_what_a_result_has_and_an_api_does_not_take_is_told(conv: llmcrdt.Conversation, api: str) -> None:
    """Sound, say; in a result that came late as well, whose picture goes along."""
    call = asked(conv)
    conv.append("tool", parts_of_result(RESULTS["audio"]), call=call)
    conv.append("tool", parts_of_result(RESULTS["image-annotated"]), call=call)
    body = conv.messages(api, model="m-1").body
    assert VALIDATORS[api](body) == []
    assert "[attachment: " in json.dumps(body) and PNG in json.dumps(body)


def test_an_edit_takes_no_structured_content_along(conv: llmcrdt.Conversation) -> None:
    entry = conv.append("tool", parts_of_result(RESULTS["structured"]), call=asked(conv))
    edited = conv.edit(entry, "Nothing.")
    assert result_of(edited.parts) == {"content": [{"type": "text", "text": "Nothing."}]}
    conv.select(entry)
    assert result_of(conv.entry(entry.id).parts) == RESULTS["structured"]


def test_what_others_attached_is_content_of_mcp_too(conv: llmcrdt.Conversation) -> None:
    blobs = [
        llmcrdt.Blob(b"cat", "image/png", "cat.png"), llmcrdt.Blob(b"wav", "audio/wav", "a.wav"),
        llmcrdt.Blob(b"%PDF", "application/pdf", "a.pdf"),
    ]  # fmt: skip
    url = Native("anthropic").block({"type": "image", "source": {"type": "url", "url": "https://example.org/a.png"}})
    other = Native("gemini").block({"fileData": {"mimeType": "video/mp4", "fileUri": "x"}})
    parts: list[Part] = [llmcrdt.Text("See:"), *blobs, url, other, llmcrdt.Reasoning("Hm.")]
    entry = conv.append("user", parts)

    def read(blob: llmcrdt.Blob) -> bytes | None:
        return blob.path.read_bytes() if blob.path else None

    assert content_of(entry.parts, read) == [
        {"type": "text", "text": "See:"},
        {"type": "image", "data": "Y2F0", "mimeType": "image/png"},
        {"type": "audio", "data": "d2F2", "mimeType": "audio/wav"},
        {
            "type": "resource",
            "resource": {"uri": "attachment:a.pdf", "mimeType": "application/pdf", "blob": "JVBERg=="},
        },
        {"type": "resource_link", "uri": "https://example.org/a.png", "name": "https://example.org/a.png"},
        {"type": "text", "text": "[attachment: of another kind]"},
    ]
    assert "[attachment: cat.png, image/png, 3 bytes]" in json.dumps(content_of(entry.parts))
    plain = conv.append("tool", [llmcrdt.ToolResult("Rain.", True)], call=asked(conv))
    assert result_of(plain.parts) == {"content": [{"type": "text", "text": "Rain."}], "isError": True}


@pytest.mark.parametrize(
    ("content", "path"),
    [
        ([{"text": "x"}], r"content\[0\].type"), ([{"type": "text"}], r"content\[0\].text"), (5, "content"),
        ([{"type": "image", "data": "AA"}], r"content\[0\].mimeType"), (["x"], r"content\[0\]"),
        ([{"type": "resource", "resource": {"uri": "x"}}], r"content\[0\].resource"),
        ([{"type": "resource", "resource": {"text": "x"}}], r"resource.uri"),
        ([{"type": "text", "text": "a"}, {"type": "resource_link", "name": "x"}], r"content\[1\].uri"),
    ],
)  # fmt: skip
def test_bad_content_is_named_by_its_path(content: Any, path: str) -> None:
    with pytest.raises(FormatError, match=path):
        parts_of_result({"content": content})


def test_what_a_stranger_wrote_is_written_as_whole_content() -> None:
    native = Native("mcp")
    odd = [{"type": "image"}, {"type": "text"}, {"type": "resource", "resource": {"text": "x"}}, {"no": 1}, 5]
    parts: list[Part] = [native.block(block) for block in odd]
    parts += native.whole({"fields": {"content": 5, "isError": 3}, "absent": True, "single": 2})
    parts.append(llmcrdt.ToolResult("x", extra={"llmcrdt:mcp": {"fields": 7, "block": [], "made": 1}}))
    parts.append(llmcrdt.ToolResult("y", extra={"llmcrdt:mcp": {"block": {"type": "resource"}}}))
    result = result_of(parts)
    assert set(result) == {"content"} and parts_of_result(result)
    assert [block["type"] for block in result["content"]] == ["text"] * 7
