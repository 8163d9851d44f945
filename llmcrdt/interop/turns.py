"""Shared by formats: settings, input, tool definitions, ids of calls, arguments as objects. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from ..document.canonical import JSON, exact_json, parse_json
from ..document.entry import Config, Entry, oldest_first
from ..exceptions import InvalidContent
from ..ids import EntryId
from .format import Outline, Survey
from .json_input import text_at
from .native import mapping

CONTINUE = "Continue."
"""The words of a user's turn that is made up, where an API wants one."""

_NO_LIST = "\0"
"""The list of a file that has none: no member is called so."""

INSTRUCTIONS = "New instructions: "
"""The words before instructions that come in the middle of a conversation, where an API has no place for them."""


def is_generated(entry: Entry) -> bool:
    """Whether a request was sent for it from here."""
    return entry.frame is not None and not entry.frame.assumed


@dataclass(frozen=True)
class Settings:
    """The settings that count after some entries. ``tools``: in the form of chat completions. ``own_tools``: the same
    tools as the format itself had them, if they came from it. ``whole``: the other members of its files."""

    tools: Sequence[JSON] = ()
    own_tools: JSON = None
    whole: Mapping[str, JSON] = field(default_factory=dict)


def settings_of(entries: Iterable[Entry], key: str) -> Settings:
    """The youngest settings, wherever a merge has put them; ``key``: that of the format."""
    tools: Sequence[JSON] = ()
    own: JSON = None
    whole: dict[str, JSON] = {}
    system = (e for e in entries if e.role == "system" and e.sealed and e.status != "erased")
    for entry in oldest_first(system):
        for part in entry.parts:
            if not isinstance(part, Config):
                continue
            members = mapping(part.values.get(key))
            if isinstance(part.values.get("tools"), list):
                tools, own = [tool for tool in part.values["tools"] if isinstance(tool, dict)], members.get("tools")
            whole |= {name: value for name, value in members.items() if name != "tools"}
    return Settings(tools, own, whole)


def tools_config(tools: JSON, neutral: Sequence[JSON], key: str) -> dict[str, JSON]:
    """The config that tools of a file become: in the form of chat completions, and as they were."""
    return {"tools": list(neutral), key: {"tools": tools}}


def outline_of_input(
    about: Survey,
    provider: str,
    key: str,
    instructions: str,
    read_tools: Callable[[JSON], list[JSON]],
    hint: str,
    *,
    text_of: Callable[[JSON, str], str] = text_at,
) -> Outline:
    """The outline of a file whose list is its "input", which may be a text instead. ``instructions``: its member for
    these, and ``text_of`` the text of its value at a path; ``read_tools``: its tools in the form of chat completions;
    ``hint``: for an input of another kind. Raises FormatError."""
    whole, base = about.whole, about.base
    system: JSON = {}
    if not about.listed or base not in (None, "input"):
        base, system = _NO_LIST, {"input": text_at(whole.get("input"), "input", hint)}
    taken = ["tools", "input"]
    if whole.get(instructions) is not None:
        system[instructions] = text_of(whole[instructions], instructions)
        taken.append(instructions)
    model = whole.get("model")
    return Outline(
        base,
        provider,
        config=tools_config(whole["tools"], read_tools(whole["tools"]), key) if "tools" in whole else {},
        extra={name: value for name, value in whole.items() if name not in taken},
        system=system,
        model=model if isinstance(model, str) else None,
    )


@dataclass(frozen=True)
class Function:
    """A tool that the app runs."""

    name: str
    description: str | None
    parameters: JSON

    def as_chat(self) -> dict[str, JSON]:
        """Its definition as chat completions have it."""
        described = {} if self.description is None else {"description": self.description}
        parameters = {} if self.parameters is None else {"parameters": self.parameters}
        return {"type": "function", "function": {"name": self.name, **described, **parameters}}


def functions(tools: Iterable[JSON]) -> list[Function]:
    """The tools of chat completions that are functions with a name."""
    found: list[Function] = []
    for tool in tools:
        inner = mapping(mapping(tool).get("function"))
        name, description, parameters = inner.get("name"), inner.get("description"), inner.get("parameters")
        if isinstance(name, str) and name:
            described = description if isinstance(description, str) else None
            found.append(Function(name, described, parameters if isinstance(parameters, dict) else None))
    return found


NO_PARAMETERS: Mapping[str, JSON] = {"type": "object", "properties": {}}
"""The schema of a tool that takes nothing."""


def object_of(arguments: str) -> dict[str, JSON]:
    """Arguments as the object that an API wants; what is none stands in it as text."""
    try:
        value = parse_json(arguments) if arguments.strip() else {}
    except InvalidContent:
        return {"arguments": arguments}
    return value if isinstance(value, dict) else {"arguments": arguments}


def text_of_object(value: Mapping[str, JSON]) -> str:
    """An object as the text of a call's arguments: the same object when it is read again, number by number."""
    return exact_json(dict(value))


class CallIds:
    """Ids for the calls of one request: each call has one of its own, in the form that the API takes. An id depends on
    what came before, and on nothing that comes later."""

    def __init__(self, form: str = r"[a-zA-Z0-9_-]{1,64}") -> None:
        self._form = re.compile(form)
        self._taken: set[str] = set()
        self._ids: dict[tuple[EntryId, int], str] = {}

    def give(self, entry: EntryId, index: int, id: str) -> str:
        """The id of a call that its entry calls ``id``; ``index`` among the calls of the entry."""
        made, n = id, 0
        while not self._form.fullmatch(made) or made in self._taken:
            made = f"call_{entry}_{index}" + (f"_{n}" if n else "")
            n += 1
        self._taken.add(made)
        self._ids[entry, index] = made
        return made

    def of(self, entry: EntryId, index: int) -> str:
        """The id that was given."""
        return self._ids[entry, index]
