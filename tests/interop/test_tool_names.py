"""Tools with names that an API doesn't take are sent under others, and called by their own."""

from __future__ import annotations

import json
import random
import re
import sys
from pathlib import Path
from typing import Any

import pytest

import llmcrdt
from llmcrdt.document.canonical import exact_json
from llmcrdt.interop.registry import names
from llmcrdt.interop.tool_names import NameForm

sys.path.insert(0, str(Path(__file__).parent))
from providers import RESPONSES, VALIDATORS

FORMS = {
    "openai-chat": r"[a-zA-Z0-9_-]{1,64}",
    "openrouter": r"[a-zA-Z0-9_-]{1,64}",
    "reasoning-content": r"[a-zA-Z0-9_-]{1,64}",
    "openai-responses": r"[a-zA-Z0-9_-]{1,64}",
    "anthropic": r"[a-zA-Z0-9_-]{1,128}",
    "gemini": r"[a-zA-Z_][a-zA-Z0-9_.:-]{0,63}",
    "gemini-interactions": r"[a-zA-Z_][a-zA-Z0-9_.:-]{0,63}",
}
ODD = ["look at", "look_at", "look.at", "1st", "été", "n" * 64, "n" * 65, "n" * 300, "n" * 299 + "m", " ", "-"]


def declared(body: Any) -> list[str]:
    """The names of the tools of a request."""
    found: list[str] = []
    for tool in body.get("tools", []):
        each = tool.get("functionDeclarations", [tool.get("function", tool)])
        found += [one["name"] for one in each]
    return found


def calls_of(name: str, api: str) -> str:
    """The response of an API, whose call is of another tool."""
    return json.dumps(RESPONSES[api]).replace('"look"', json.dumps(name)).replace("tool-look", f"tool-{name}")


def test_a_name_gets_the_form_once_and_for_all() -> None:
    rng = random.Random(1)
    letters = "ab_-.:/ 1\u00e9\u4e2d"
    for form in (NameForm(), NameForm(longest=128), NameForm("[a-zA-Z0-9_.:-]", "[a-zA-Z_]")):
        made: dict[str, str] = {}
        for _ in range(3000):
            name = "".join(rng.choice(letters) for _ in range(rng.choice((1, 2, 3, 70, 140))))
            sent = form.of(name)
            assert re.fullmatch(f"{form.first}{form.signs}*", sent) and len(sent) <= form.longest
            assert form.of(sent) == sent, "a name that has the form stays"
            assert made.setdefault(sent, name) == name, "two names never become one"
    assert NameForm().of("") == ""


@pytest.mark.parametrize("api", FORMS)
def test_tools_with_odd_names_are_sent_and_called(tmp_path: Path, api: str) -> None:
    tools = [{"type": "function", "function": {"name": name, "description": name[:9]}} for name in (*ODD, "", *ODD[:2])]
    with llmcrdt.open(tmp_path / "a.db") as repo:
        conv = repo.create()
        conv.append("system", "Be brief.", tools=tools)
        conv.append("user", "What is there?")
        request = conv.messages(api, model="m-1")
        assert VALIDATORS[api](request.body) == []
        sent = declared(request.body)
        assert len(sent) == len(set(sent)) == len(ODD), "each name once, and none for the one without"
        assert all(re.fullmatch(FORMS[api], name) for name in sent)
        assert [request.tool_names.get(name, name) for name in sent] == ODD
        for name, true in zip(sent, ODD, strict=True):
            entry = conv.append_response(request, calls_of(name, api))
            assert [call.name for call in entry.tool_calls] == [true]
            conv.append("tool", "a cat", call=entry.tool_calls[0])
            then = conv.messages(api, model="m-1")
            assert VALIDATORS[api](then.body) == [] and f'"{name}"' in exact_json(then.messages)
            assert declared(then.body) == sent
            conv.erase(entry)


@pytest.mark.parametrize("api", FORMS)
def test_tools_of_a_file_of_the_api_s_own_get_names_that_it_takes(tmp_path: Path, api: str) -> None:
    wrong = {"name": "look at", "input_schema": {"type": "object"}}
    chat = {"type": "function", "function": {"name": "look at"}}
    own: dict[str, tuple[Any, str, Any]] = {
        "anthropic": (wrong, "tool_choice", {"type": "tool", "name": "look at"}),
        "gemini": (
            {"functionDeclarations": [{"name": "look at"}]},
            "toolConfig",
            {"functionCallingConfig": {"mode": "ANY", "allowedFunctionNames": ["look at"]}},
        ),
        "openai-responses": (
            {"type": "function", "name": "look at"},
            "tool_choice",
            {"type": "function", "name": "look at"},
        ),
        "gemini-interactions": ({"type": "function", "name": "look at"}, "store", False),
    }
    tool, key, choice = own.get(api, (chat, "tool_choice", chat))
    kept = {api: {"tools": [tool, tool], key: choice}} if api in own else {"openai_chat": {key: choice}}
    with llmcrdt.open(tmp_path / "a.db") as repo:
        conv = repo.create()
        conv.append("system", "Be brief.", tools=[chat], **kept)
        conv.append("user", "What is there?")
        request = conv.messages(api, model="m-1")
        assert VALIDATORS[api](request.body) == []
        (sent,) = declared(request.body)
        assert request.tool_names == {sent: "look at"}
        assert "look at" not in exact_json({**request.body, "messages": []}), "also where it is chosen"


def test_every_api_with_tools_has_a_form() -> None:
    assert set(FORMS) == set(names()) - {"ollama", "ai-sdk"}
