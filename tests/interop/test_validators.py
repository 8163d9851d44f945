"""Every sentence that a validator can say is said of some request: none of its checks is dead."""

from __future__ import annotations

import ast
import importlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from merged_logs import LOGS
from providers import VALIDATORS

from llmcrdt.interop.registry import format_of

MODULES = {
    "anthropic": "anthropic_request",
    "openai-chat": "chat_request",
    "openai-responses": "responses_request",
    "gemini": "gemini_request",
    "gemini-interactions": "interactions_request",
    "ai-sdk": "ui_messages",
    "ollama": "test_ollama",
    "openrouter": "test_openrouter",
    "reasoning-content": "test_reasoning_content",
}
"""The module with each format's validator."""

USER = {"role": "user", "content": "go"}


def said(*blocks: Any, **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": list(blocks), **more}


def claude(*messages: Any, **more: Any) -> dict[str, Any]:
    return {"max_tokens": 5, "messages": list(messages), **more}


def result(**more: Any) -> dict[str, Any]:
    return {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", **more}]}


def chat(*messages: Any, **more: Any) -> dict[str, Any]:
    return {"messages": list(messages), **more}


def called(**call: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": None, "tool_calls": [call]}


def parts(role: str, *parts: Any) -> dict[str, Any]:
    return {"role": role, "parts": list(parts)}


USE = {"type": "tool_use", "id": "t", "name": "look", "input": {}}
SEARCH = {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}}
CALL = {"id": "c", "type": "function", "function": {"name": "look", "arguments": "{}"}}
OLLAMA_CALL = {"id": "c", "function": {"name": "look", "arguments": {}}}
STEP = {"type": "user_input", "content": [{"type": "text", "text": "go"}]}
POINTED = {"type": "text", "text": "x", "cache_control": 5}
SCHEMA = {"type": "object"}
MORE: dict[str, list[Any]] = {
    "anthropic": [
        {},
        claude(),
        claude(USER, tools=[{"name": "a b", "input_schema": SCHEMA}, {"name": "ab", "input_schema": {}}]),
        claude(USER, system=5),
        claude(USER, system=[{"type": "image"}, {"type": "text", "text": " "}]),
        claude({"role": "model"}),
        claude({"role": "user", "content": 5}),
        claude({"role": "user", "content": [5, POINTED]}),
        claude(USER, said({"type": "thinking", "signature": "x"})),
        claude(USER, said(USE), result(is_error="no")),
        claude(USER, said(USE), result(content=5)),
        claude(USER, said(USE), result(content=[USE, {"type": "text"}])),
        claude(USER, said(USE)),
        claude(USER, said(USE), {"role": "user", "content": [*result()["content"], *result()["content"]]}),
        claude(USER, said(SEARCH, {"type": "text", "text": "x"})),
        claude(USER, said({"type": "web_search_tool_result", "tool_use_id": "s", "content": []}), USER),
    ],
    "openai-chat": [
        {},
        chat({"role": "robot"}),
        chat(USER, called(**CALL)),
        chat({**USER, "tool_calls": [CALL]}),
        chat({**USER, "tool_call_id": "c"}),
        chat({"role": "user", "content": []}),
        chat({"role": "user", "content": [{}, {"type": "text"}]}),
        chat({"role": "assistant", "tool_calls": []}),
        chat(called(type="function"), called(id="c"), called(id="c", type="function", function={})),
        chat(called(id="c", type="function", function={"name": "a b", "arguments": "{}"})),
        chat(USER, tools=[]),
        chat(USER, tools=[{}, {"type": "function", "function": {}}]),
    ],
    "openai-responses": [
        {"input": [USER], "tools": [{}, {"type": "function", "name": "a b"}]},
        {
            "input": [
                5,
                {"type": ""},
                {"type": "reasoning"},
                {"type": "function_call"},
                {"type": "function_call_output"},
            ]
        },
        {"input": [{"role": "robot"}, {"role": "user"}]},
        {"input": [{"role": "user", "content": [{"type": "input_text"}]}]},
        {"input": [{"role": "assistant", "content": [{"type": "refusal"}]}]},
        {
            "input": [
                {"type": "reasoning", "summary": [], "encrypted_content": "x"},
                {"type": "message", "id": "msg_1", "role": "assistant", "content": "x"},
            ]
        },
    ],
    "gemini": [
        {},
        {"contents": []},
        {"contents": [parts("robot", {"text": "x"})]},
        {"contents": [parts("user", {"text": "x", "thoughtSignature": 5})]},
        {"contents": [parts("user", {"functionResponse": {"name": "look", "response": 5}})]},
        {"contents": [parts("user", {"functionResponse": {"name": "look", "response": {}, "parts": [{"text": "x"}]}})]},
        {
            "contents": [
                parts("user", {"text": "x"}),
                parts("model", {"functionCall": {"id": "a", "name": "look", "args": {}}}),
                parts("user", {"functionResponse": {"id": "b", "name": "look", "response": {}}}),
            ]
        },
        {"contents": [parts("user", {"text": "x"})], "systemInstruction": {"parts": [{}]}, "tools": [5]},
    ],
    "gemini-interactions": [
        {"input": [STEP], "system_instruction": 5, "tools": [5]},
        {"input": [{}]},
        {"input": [{"type": "thought", "signature": 5}]},
        {"input": [{"type": "function_call", "arguments": {}}]},
        {"input": [{"type": "function_result"}]},
        {"input": [{"type": "function_result", "call_id": "c", "result": "x", "is_error": "no"}]},
        {"input": [{**STEP, "content": [{"type": "thought"}, {}, {"type": "text"}]}]},
        {"input": [STEP, {"type": "google_search_call"}]},
    ],
    "ai-sdk": [{}],
    "ollama": [
        {},
        chat(USER, said(tool_calls=[OLLAMA_CALL], role="assistant")),
        chat({"role": "robot"}),
        chat(USER, {"role": "assistant", "tool_calls": [{"function": {}}]}),
        chat(USER, {"role": "tool", "content": "x"}),
        chat(USER, {"role": "assistant", "tool_calls": [OLLAMA_CALL]}, USER),
    ],
    "openrouter": [],
    "reasoning-content": [],
}
"""Requests that break what no rule of the format's names, for it never happens there."""


def sentences(module: str) -> Iterator[re.Pattern[str]]:
    """A pattern for each sentence of a validator: the texts in what it returns, appends or adds to its findings."""
    tree = ast.parse((Path(__file__).parent / f"{module}.py").read_text(encoding="utf-8"))
    for function in (node for node in tree.body if isinstance(node, ast.FunctionDef)):
        if function.returns is not None and "list[str]" in ast.unparse(function.returns):
            patterns = [_pattern(one) for node in ast.walk(function) for one in _said(node)]
            yield from (re.compile(pattern) for pattern in patterns if pattern)


def _said(node: ast.AST) -> Iterator[ast.expr]:
    """The expressions that a statement adds to the findings."""
    added = isinstance(node, ast.AugAssign) and ast.unparse(node.target) == "found"
    value = node.value if added or isinstance(node, ast.Return) else None  # type: ignore[attr-defined]
    if value is not None:
        yield from _elements(value)
    if isinstance(node, ast.Call) and ast.unparse(node.func) == "found.append":
        yield from node.args


def _elements(node: ast.expr) -> Iterator[ast.expr]:
    if isinstance(node, ast.List):
        yield from node.elts
    elif isinstance(node, ast.ListComp):
        yield node.elt
    elif isinstance(node, ast.IfExp):
        yield from _elements(node.body)
        yield from _elements(node.orelse)
    elif isinstance(node, ast.BinOp):
        yield from _elements(node.left)
        yield from _elements(node.right)


def _pattern(node: ast.expr) -> str:
    """A text as a pattern: anything may stand where a value is put in. "" for what is no text."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return re.escape(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(_pattern(one) if isinstance(one, ast.Constant) else ".*" for one in node.values)
    return ""


def broken(name: str) -> list[Any]:
    """All broken requests of a format that stand in the tests."""
    module = {"openai-chat": "test_openai_chat_format"}.get(name, f"test_{name.replace('-', '_')}")
    suite = next(
        value
        for key, value in vars(importlib.import_module(module)).items()
        if key.startswith("Test") and hasattr(value, "broken")
    )
    return [*suite().broken.values(), *MORE[name]]


@pytest.mark.parametrize("name", MODULES)
def test_every_sentence_is_said(name: str) -> None:
    found = [problem for request in broken(name) for problem in VALIDATORS[name](request)]
    if name in LOGS:
        member = format_of(name).member
        logs = [request[member] for request in broken(name) if isinstance(request.get(member), list)]
        found += [problem for log in logs for problem in LOGS[name](log)]
    silent = [pattern.pattern for pattern in sentences(MODULES[name]) if not any(map(pattern.search, found))]
    assert silent == []


def test_every_validator_is_here() -> None:
    assert set(MODULES) == set(VALIDATORS)
    assert sum(len(list(sentences(module))) for module in MODULES.values()) > 100
