"""All that changes, as lines of JSON that one page reads for as long as it is open.

Observers run on the repo's threads and only say that something changed; the loop gathers that for a moment and asks
then how things stand. So a model that writes a hundred words a second costs a page ten lines.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack
from functools import partial
from typing import Any

from starlette.concurrency import run_in_threadpool

from ..document.conversation import Conversation
from ..document.observers import Change
from ..exceptions import LLMCRDTError
from ..ids import EntryId
from ..repo.repo import Repo
from ..sync.link import Link
from .views import JSONObject, turn_json

GATHER = 0.1  # seconds in which changes become one line
LOOK = 1.0  # seconds between two looks at the library and the link


def line(value: JSONObject) -> bytes:
    """One JSON object and a newline."""
    return json.dumps(value, ensure_ascii=True).encode() + b"\n"


def link_json(link: Link | None) -> JSONObject:
    """The state of the relay."""
    if link is None:
        return {"state": "none"}
    progress = link.progress
    return {
        "state": link.state,
        "error": None if link.state == "online" else str(link.last_error or "") or None,
        "waiting": progress.of_sent - progress.sent,
        "documents": progress.documents,
        "of_documents": progress.of_documents,
    }


def library_json(repo: Repo, limit: int = 200, before: str | None = None) -> JSONObject:
    """A page of the library."""
    return {"conversations": [row._asdict() for row in repo.list(limit, before)]}


class Gathered:
    """Collects, on any thread, what changed in one conversation; the loop takes it."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._changed: dict[EntryId, None] = {}
        self._arrived: dict[EntryId, None] = {}
        self._moved = False
        self.event = asyncio.Event()

    def change(self, change: Change) -> None:
        """An observer of the conversation."""
        moved = bool(change.added or change.removed)
        entries = [entry.id for entry in (*change.added, *change.changed)]
        arrived = [] if change.local else [entry.id for entry in change.added]
        self._tell(partial(self._add, entries, arrived, moved))

    def other(self, _: object) -> None:
        """An observer of anything else about it: asks, and who is here."""
        self._tell(partial(self._add, [], [], True))

    def take(self) -> tuple[list[EntryId], list[EntryId], bool]:
        """The entries that came or changed, those that others brought, and whether the page is another one."""
        taken = list(self._changed), list(self._arrived), self._moved
        self._changed, self._arrived, self._moved = {}, {}, False
        self.event.clear()
        return taken

    def _add(self, entries: list[EntryId], arrived: list[EntryId], moved: bool) -> None:
        self._changed.update(dict.fromkeys(entries))
        self._arrived.update(dict.fromkeys(arrived))
        self._moved = self._moved or moved
        self.event.set()

    def _tell(self, call: Callable[[], None]) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(call)


async def conversation_changes(conversation: Conversation, stopping: Callable[[], bool]) -> AsyncIterator[bytes]:
    """Lines for as long as the conversation is there and the page is open: ``turns`` that say something else now;
    ``moved`` where the window is to be read again, with the entries that others brought (``arrived``)."""
    gathered = Gathered(asyncio.get_running_loop())
    with ExitStack() as stack:
        stack.callback(conversation.observe(gathered.change))
        stack.callback(conversation.observe_presence(gathered.other))
        watched: dict[EntryId, Callable[[], None]] = {}
        stack.callback(lambda: [stop() for stop in watched.values()])
        yield line({"type": "hello"})
        while not stopping():
            try:
                await run_in_threadpool(_watch_asks, conversation, watched, gathered)
                async with asyncio.timeout(LOOK):
                    await gathered.event.wait()
            except TimeoutError:
                yield line({"type": "alive"})  # how a page that has gone away is noticed
                continue
            except LLMCRDTError as error:
                yield line({"type": "gone", "error": str(error)})
                return
            await asyncio.sleep(GATHER)
            entries, arrived, moved = gathered.take()
            try:
                message = await run_in_threadpool(_told, conversation, entries, moved)
            except LLMCRDTError as error:
                yield line({"type": "gone", "error": str(error)})
                return
            yield line({**message, "arrived": arrived})


def _told(conversation: Conversation, entries: list[EntryId], moved: bool) -> JSONObject:
    if moved:
        return {"type": "moved"}
    return {"type": "turns", "turns": [turn_json(conversation, conversation.entry(entry)) for entry in entries]}


def _watch_asks(conversation: Conversation, watched: dict[EntryId, Callable[[], None]], gathered: Gathered) -> None:
    """Observe the asks that are not over, and no other ones."""
    pending = {ask.id: ask for ask in conversation.asks()[-20:] if ask.state in ("waiting", "taken", "streaming")}
    for id_ in watched.keys() - pending.keys():
        watched.pop(id_)()
    for id_, ask in pending.items():
        if id_ not in watched:
            watched[id_] = ask.observe(gathered.other)


async def library_changes(repo: Repo, link: Link | None, stopping: Callable[[], bool]) -> AsyncIterator[bytes]:
    """A line with the library, and one with the relay's state, each time that it is another one."""
    before: dict[str, Any] = {}
    while not stopping():
        now = {
            "library": await run_in_threadpool(library_json, repo),
            "link": link_json(link),
        }
        told = [name for name, value in now.items() if before.get(name) != value]
        for name in told:
            yield line({"type": name, **now[name]})
        if not told:
            yield line({"type": "alive"})
        before = now
        await asyncio.sleep(LOOK)
