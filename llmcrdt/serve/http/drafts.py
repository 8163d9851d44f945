"""The messages of a request as drafts of entries, read by the formats of ``interop``."""

from __future__ import annotations

import re
from typing import Any

from ...document.canonical import JSON
from ...document.entry import Config
from ...exceptions import FormatError
from ...interop.format import Draft
from ...interop.json_input import parse
from ...interop.registry import format_of
from ...interop.turns import functions
from .errors import bad_request
from .said import other_than_text, said

_PATH = re.compile(r"[\w.\[\]-]{1,120}(?= )")


def parsed(body: bytes) -> JSON:
    """The JSON of a body. Raises HttpError."""
    try:
        return parse(body.decode("utf-8"))
    except UnicodeDecodeError:
        raise bad_request("The body is not UTF-8 text.") from None
    except FormatError as error:
        raise bad_request(f"The body is not valid JSON: {error.message}", code="invalid_json") from None


def drafts_of(format: str, value: dict[str, JSON], model: str, *, most: int) -> list[Draft]:
    """The drafts of the list in ``value``, and of its instructions. Raises HttpError, with the path of what is wrong;
    also for content that ``model`` can't read, and for more than ``most``."""
    try:
        read = format_of(format).read(value)
    except FormatError as error:
        found = _PATH.match(error.message)
        raise bad_request(f"{error.message} {error.hint}".strip(), found[0] if found else None) from None
    if len(read) > most:
        raise bad_request(f"The request has {len(read)} messages; {most} may be.")
    for draft in read:
        other = other_than_text(draft.parts)
        if other is not None:
            raise bad_request(f"{model} reads text alone; there is {_kind(other)} in a message.", code="unsupported")
    return [draft for draft in read if said(draft.role, draft.parts, draft.answers_call) is not None]


def tools_of(format: str, tools: JSON) -> list[JSON]:
    """Tools of a request, in the form in which conversations keep them. Raises HttpError."""
    member = format_of(format).member
    try:
        drafts = format_of(format).read({member: [{"role": "user", "content": "-"}], "tools": tools})
    except FormatError as error:
        raise bad_request(f"{error.message} {error.hint}".strip(), "tools") from None
    found = [part.values.get("tools") for draft in drafts for part in draft.parts if isinstance(part, Config)]
    made = next((each for each in found if isinstance(each, list)), [])
    if len(functions(made)) != len(tools):
        raise bad_request("Only functions that the client runs can be offered as tools.", "tools", "unsupported_value")
    return made


def _kind(part: Any) -> str:
    value = getattr(part, "json", {})
    inner = value.get("item") or value.get("block") or value
    kind = inner.get("type") if isinstance(inner, dict) else None
    return f"content of type {kind!r}"[:80] if isinstance(kind, str) else "other content"
