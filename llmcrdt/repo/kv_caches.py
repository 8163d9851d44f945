"""Which KV caches hold state computed from this repo's conversations: so that an erase reaches them (O7)."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol
from weakref import WeakSet

from ..document.canonical import canonical_json, parse_json
from ..exceptions import ConversationDeleted, RepoClosed
from ..ids import DocumentId
from ..store.base import Store

if TYPE_CHECKING:
    from ..document.conversation import Conversation
    from ..document.entry import Entry

_SETTING = "kv caches"


class Forgetful(Protocol):
    def forget(self, owner: str) -> object: ...


class CachingEngine(Forgetful, Protocol):
    """An engine, as far as this needs it."""

    @property
    def cache_folder(self) -> Path | None: ...


class KVCaches:
    """Folders are remembered in the repo's file, before anything is stored in them; engines as long as they live."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._engines: WeakSet[CachingEngine] = WeakSet()

    def note(self, engine: CachingEngine) -> None:
        """An engine is about to compute on a conversation of this repo."""
        self._engines.add(engine)
        folder = engine.cache_folder
        if folder is not None:
            known = self.folders()
            if str(folder.absolute()) not in known:
                self._store.settings.put(_SETTING, canonical_json([*known, str(folder.absolute())]))

    def folders(self) -> list[str]:
        """Every cache folder that was ever used with this repo."""
        text = self._store.settings.get(_SETTING)
        return [str(folder) for folder in parse_json(text)] if text else []

    def forget(self, conversation: DocumentId) -> None:
        """Delete all KV state computed for a conversation. A folder that is gone has nothing to forget."""
        from ..kvcache.forget import forget_owner  # the cache's modules: most processes have none

        for engine in list(self._engines):
            engine.forget(conversation)
        for folder in self.folders():
            with contextlib.suppress(FileNotFoundError):
                forget_owner(os.fspath(folder), conversation)


def forget_erased(conversation: Conversation, engine: Forgetful, entries: Sequence[Entry]) -> None:
    """State computed from what of ``entries`` was erased meanwhile, here or by a merge, doesn't stay."""
    with contextlib.suppress(ConversationDeleted, RepoClosed):
        shown = [entry.id for entry in entries if entry.status != "erased"]
        if any(conversation.entry(entry).status == "erased" for entry in shown):
            engine.forget(conversation.id)
