"""The repairs that every provider needs, made when a transcript is rendered and never written back (O8 of
docs/semantics.md): each tool call gets exactly one result, right after it.

Pure and prefix-stable: the items for a frame stay the first items, whatever comes after the generation computed on it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from ..ids import EntryId
from .entry import Entry, Text

NO_RESULT = "No result was recorded."
"""The content of a result that is made up."""


@dataclass(frozen=True)
class Call:
    """One call of an entry; ``index`` among those of the entry."""

    entry: EntryId
    index: int
    id: str
    name: str


@dataclass(frozen=True)
class Said:
    """An entry that is no result."""

    entry: Entry


@dataclass(frozen=True)
class Result:
    """The one result of a call, in its place; ``entry`` is None where it is made up (``NO_RESULT``)."""

    call: Call
    entry: Entry | None


@dataclass(frozen=True)
class Late:
    """A result that can't stand as one: its call has a result already, or isn't there (then ``call`` is None)."""

    entry: Entry
    call: Call | None

    @property
    def introduction(self) -> str:
        """The words before its text, where it is told as a message of the user's."""
        return f"Late result of {self.call.name}: " if self.call else "Result of a tool: "


def with_results(
    entries: Iterable[Entry], calls_of: Callable[[Entry], Sequence[tuple[str, str]]]
) -> Iterator[Said | Result | Late]:
    """The items to send for ``entries``, in order. ``calls_of``: the calls that are sent for an entry, each as id and
    name.

    A call whose result is not there before the next entry that is no result gets one that is made up. A second
    result, or one that comes after that, follows as an item of its own.
    """
    known: dict[tuple[EntryId, str], Call] = {}
    waiting: list[Call] = []  # calls of the last entry that has some, still without a result
    late: list[Late] = []  # they wait, so as not to part a call from its result
    for entry in entries:
        if entry.role != "tool":
            yield from _made_up(waiting)
            yield from late
            made = [Call(entry.id, index, id, name) for index, (id, name) in enumerate(calls_of(entry))]
            known.update({(call.entry, call.id): call for call in made})
            waiting, late = made, []
            yield Said(entry)
            continue
        call = next((call for call in waiting if (call.entry, call.id) == entry.answers), None)
        if call is None:
            late.append(Late(entry, known.get(entry.answers) if entry.answers else None))
        else:
            waiting.remove(call)
            yield Result(call, entry)
    yield from _made_up(waiting)
    yield from late


def _made_up(calls: Iterable[Call]) -> Iterator[Result]:
    return (Result(call, None) for call in calls)


def is_shown(entry: Entry) -> bool:
    """Whether an entry takes part in prompts with a message."""
    if not entry.sealed or entry.status in ("erased", "streaming"):
        return False
    if entry.role == "system":
        return any(isinstance(part, Text) for part in entry.parts)
    if entry.role == "assistant" and entry.status in ("failed", "stopped"):
        return bool(entry.text or entry.reasoning or entry.tool_calls)
    return True
