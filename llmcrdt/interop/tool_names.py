"""Names of tools in the form that an API takes, and back to the names that the app gave them. Pure.

A name that has the form stays. Any other one gets it by rule, with a hash of the name at its end: two names never
become one, and what a name becomes depends on nothing else, so it stays what was sent when other tools come.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256

from ..document.canonical import JSON
from ..document.entry import Part, ToolCall
from .native import mapping

NAMES_REPAIRED = "other signs become _, and a hash comes at the end; the call that comes back has the true name"
_HASH = 8


@dataclass(frozen=True)
class NameForm:
    """``signs``: the signs of a name, as a class of a regular expression; ``first``: those that it may begin with;
    ``longest``: how many it may have."""

    signs: str = "[a-zA-Z0-9_-]"
    first: str = "[a-zA-Z0-9_-]"
    longest: int = 64

    def of(self, name: str) -> str:
        """The name as the API takes it; "" of an empty one."""
        if not name or re.fullmatch(f"{self.first}{self.signs}{{0,{self.longest - 1}}}", name):
            return name
        made = "".join(sign if re.fullmatch(self.signs, sign) else "_" for sign in name[: self.longest - _HASH - 2])
        made = made if re.match(self.first, made) else f"_{made}"
        return f"{made}_{sha256(name.encode('utf-8', 'surrogatepass')).hexdigest()[:_HASH]}"


Rename = Callable[[str], str | None]
"""The name of a tool as it is sent; None where the tool is not."""


class ToolNames:
    """The names of the tools of one request. ``true``: those that were changed, by the name that is sent."""

    def __init__(self, form: NameForm) -> None:
        self.true: dict[str, str] = {}
        self._form = form
        self._taken: set[str] = set()

    def declare(self, tools: Sequence[JSON], renamed: Callable[[JSON, Rename], JSON]) -> list[JSON]:
        """The tools as they are sent: a second one of a name is left out, and one without. ``renamed``: a tool with its
        names changed, None for one of which nothing is left."""
        return [tool for tool in (renamed(tool, self._give) for tool in tools) if tool is not None]

    def chosen(self, body: Mapping[str, JSON], *path: str) -> dict[str, JSON]:
        """The body with the name that it says which tool is to be called by, at ``path``, as it is sent."""
        return self._at(body, path)

    def _give(self, name: str) -> str | None:
        sent = self._form.of(name)
        if not sent or sent in self._taken:
            return None
        self._taken.add(sent)
        if sent != name:
            self.true[sent] = name
        return sent

    def _at(self, value: Mapping[str, JSON], path: Sequence[str]) -> dict[str, JSON]:
        inner = value.get(path[0])
        made = dict(value)
        if len(path) > 1 and isinstance(inner, dict):
            made[path[0]] = self._at(inner, path[1:])
        elif len(path) == 1 and isinstance(inner, str):
            made[path[0]] = self._form.of(inner)
        elif len(path) == 1 and isinstance(inner, list):
            made[path[0]] = [self._form.of(one) if isinstance(one, str) else one for one in inner]
        return made


def renamed_at(key: str | None, *kinds: str | None) -> Callable[[JSON, Rename], JSON]:
    """How a tool has its name changed where it stands in its member ``key``, or (None) in the tool itself. ``kinds``:
    the types of tools that the app names (None: one that says no type); the server names the others."""

    def rename(tool: JSON, give: Rename) -> JSON:
        if kinds and mapping(tool).get("type") not in kinds:
            return tool
        inner = tool if key is None else mapping(mapping(tool).get(key))
        name = mapping(inner).get("name")
        sent = give(name) if isinstance(name, str) else None
        if sent is None:
            return None
        return {**tool, "name": sent} if key is None else {**tool, key: {**inner, "name": sent}}

    return rename


def with_true_names(parts: Sequence[Part], true: Mapping[str, str]) -> tuple[Part, ...]:
    """The parts of an answer, whose calls name tools as they were sent, with the names that the app gave these."""
    return tuple(
        replace(part, name=true[part.name]) if isinstance(part, ToolCall) and part.name in true else part
        for part in parts
    )
