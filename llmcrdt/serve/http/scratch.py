"""Scratch: conversations that are kept nowhere, for requests that say ``store: false``."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from ...document.canonical import JSON
from ...document.conversation import Conversation, core_of
from ...document.entry import Config, Entry
from ...document.writer import EntryWriter
from ...exceptions import LLMCRDTError
from ...ids import EntryId
from ...interop.format import Draft
from ...repo.repo import Repo
from ...repo.repo import open as open_repo
from .errors import bad_request
from .keys import Caller
from .placing import Placed


class Scratch:
    """A repo in a folder of its own, which goes with it. Any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._repo: Repo | None = None

    def place(self, caller: Caller, drafts: Sequence[Draft], tools: Sequence[JSON], base: Sequence[Entry]) -> Placed:
        """A conversation with what a request says, after what the entries of ``base`` say. ``drop`` it."""
        conversation = self._open().create()
        core = core_of(conversation)
        writer, calls = EntryWriter(core), dict[str, EntryId]()
        ends: tuple[EntryId, ...] = ()
        said = [(entry.role, entry.parts, entry.answers[1] if entry.answers else None) for entry in base]
        said += [(draft.role, draft.parts, draft.answers_call) for draft in drafts]
        if tools:
            said.append(("system", (Config({"tools": list(tools)}),), None))
        with core.editing():
            for role, parts, answered in said:
                if answered is not None and answered not in calls:
                    raise bad_request(f"There is no call {answered[:80]!r} before its result.", "messages")
                answers = (calls[answered], answered) if answered is not None else None
                entry = writer.append_after(
                    core.view.transcript(ends), role, parts, answers=answers, author=caller.author
                )
                calls.update({call.id: entry.id for call in entry.tool_calls})
                follows = core.view.order.sound()[entry.id].follows
                ends = (*(each for each in ends if each not in follows), entry.id)
            return Placed(conversation, core.view.transcript(ends), 0, len(said))

    def drop(self, conversation: Conversation) -> None:
        """Keep nothing of it, nor any state that was computed for it."""
        repo = self._repo
        if repo is not None:
            with suppress(LLMCRDTError):
                repo.delete(conversation.id)

    def close(self) -> None:
        """Close the repo, and delete its folder."""
        with self._lock:
            if self._repo is not None:
                self._repo.close()
            if self._folder is not None:
                self._folder.cleanup()
            self._repo = self._folder = None

    def _open(self) -> Repo:
        with self._lock:
            if self._repo is None:
                self._folder = tempfile.TemporaryDirectory(prefix="llmcrdt-scratch-")
                self._repo = open_repo(Path(self._folder.name) / "scratch.db")
            return self._repo
