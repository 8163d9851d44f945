"""A grammar that has a model call a tool, in the words in which it writes calls. Pure."""

from __future__ import annotations

import json
from collections.abc import Sequence

from ...document.canonical import JSON
from ...interop.turns import functions
from ...prompt.tool_calls import ToolFormat, tool_format
from .errors import HttpError, bad_request

_FORMS: dict[ToolFormat, tuple[str, str, str]] = {
    "hermes": ('<tool_call>\n{"name": ', ', "arguments": ', "}\n</tool_call>"),
    "llama3": ('{"name": ', ', "parameters": ', "}"),
    "mistral": ('[TOOL_CALLS][{"name": ', ', "arguments": ', "}]"),
}
_JSON = r"""
object ::= "{" ws (pair ("," ws pair)*)? "}"
pair ::= string ":" ws value
array ::= "[" ws (value ("," ws value)*)? "]"
value ::= object | array | string | number | "true" | "false" | "null"
string ::= "\"" ([^"\\\x7F\x00-\x1F] | "\\" (["\\bfnrt/] | "u" [0-9a-fA-F]{4}))* "\""
number ::= "-"? ("0" | [1-9] [0-9]{0,15}) ("." [0-9]{1,15})? ([eE] [-+]? [0-9]{1,3})?
ws ::= " "?
"""


def call_grammar(template: str, tools: Sequence[JSON], name: str | None) -> str:
    """A grammar (GBNF) for a call of one of ``tools``, or of the one called ``name``, by a model with this chat
    template. Tools that take nothing get ``{}``. Raises HttpError where there is no such tool, or no such form."""
    offered = [function for function in functions(tools) if name in (None, function.name)]
    if not offered:
        said = "No tool is offered" if name is None else f"There is no tool {name[:80]!r} among those that are offered"
        raise bad_request(f"{said}, and tool_choice asks for a call.", "tool_choice", "invalid_value")
    form = tool_format(template)
    if form not in _FORMS:
        raise _unable()
    before, between, after = _FORMS[form]
    calls = []
    for function in offered:
        takes = isinstance(function.parameters, dict) and function.parameters.get("properties")
        arguments = "object" if takes else _literal("{}")
        calls.append(f"{_literal(json.dumps(function.name))} {_literal(between)} {arguments}")
    choice = " | ".join(calls)
    return f"root ::= {_literal(before)} ({choice}) {_literal(after)}\n{_JSON}"


def _unable() -> HttpError:
    message = "This model's way to write calls can't be enforced; tool_choice is auto or none."
    return bad_request(message, "tool_choice", "unsupported_value")


def _literal(text: str) -> str:
    """A text as GBNF has it."""
    escaped = "".join(
        f"\\{each}"
        if each in '"\\'
        else "\\n"
        if each == "\n"
        else each
        if each.isprintable()
        else f"\\U{ord(each):08X}"
        for each in text
    )
    return f'"{escaped}"'
