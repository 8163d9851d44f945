"""Attachments travel: what is attached here goes to the relays, what is attached elsewhere comes when it is wanted."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Final, NamedTuple

from ..arguments import check_type
from ..exceptions import (
    ConversationNotFound,
    InvalidContent,
    LLMCRDTError,
    NeverSyncs,
    RelayUnreachable,
    SyncError,
    SyncTimeout,
)
from ..ids import DocumentId, document_bytes
from .carrier import Carrier, Shared, Transfer, end_transfer
from .links import Links
from .open_documents import OpenDocuments
from .resources import Resources

if TYPE_CHECKING:
    import os
    import ssl

    from ..document.blob import Blob
    from ..sync.link_control import LinkControl

logger = logging.getLogger("llmcrdt.attachments")

LIMIT: Final = "fetch attachments"
"""The setting: bytes of attachments that are fetched without being asked for."""
_HARD_LIMIT: Final = 1 << 36


class Attachment(NamedTuple):
    """An attachment that a conversation names. ``blob`` has its hash, size, media type and name, and reads it."""

    conversation: DocumentId
    blob: Blob
    present: bool


class Attachments:
    """Of one repo: ``repo.attachments``. Any method from any thread."""

    def __init__(self, resources: Resources, documents: OpenDocuments, links: Links) -> None:
        self._resources, self._documents = resources, documents
        self._tasks, self._blobs = resources.store.attachment_tasks, documents.blobs
        self._shared = Shared(
            self._tasks,
            self._blobs,
            resources.keyring,
            documents.attachments,
            self._next_fetch,
            self._tried,
            self._fetch_small,
            resources.store.catalog.is_local,
        )
        self._lock = threading.Lock()
        self._carriers: list[Carrier] = []
        self._fetches: dict[tuple[DocumentId, str], Transfer] = {}
        self._limit = 0
        # Whose relays do not have what.
        self._tried_by: set[tuple[Transfer, object]] = set()
        links.notify_attachments, links.note_news = self._notify, self._note_news

    # ---------------------------------------------------------------- for people

    @property
    def limit(self) -> int:
        """Attachments of at most so many bytes are fetched without being asked for, as entries come that name them; 0:
        none are. It is a setting of this device, and stays."""
        self._limit = int(self._resources.store.settings.get(LIMIT) or 0)
        return self._limit

    @limit.setter
    def limit(self, size: int) -> None:
        check_type(size, int, name="limit", hint="Give a number of bytes; 0 fetches nothing without being asked.")
        if not 0 <= size < _HARD_LIMIT:
            raise InvalidContent(f"limit must be 0 to {_HARD_LIMIT - 1} bytes, not {size}.")
        self._resources.store.settings.put(LIMIT, str(size))
        self._limit = size

    def list(self, conversation: str) -> Sequence[Attachment]:
        """All attachments that any entry of a conversation names, shown or not. It is loaded for that."""
        id_ = self._known(conversation)
        storage = self._documents.blobs_of(id_)
        found = self._documents.attachments(id_)
        kept = [blob.kept_by(storage) for _, blob in sorted(found.items()) if blob is not None]
        return [Attachment(id_, blob, blob.present) for blob in kept]

    def fetch(self, conversation: str, blob: Blob | str) -> Transfer:
        """Have the content of an attachment come from a relay; ``blob``: the part of the entry, or its hash. Returns at
        once; one that is under way already is the same. It is tried until a relay has answered, so without a time limit
        of yours it may take long. Raises InvalidContent where no entry of the conversation names it,
        ConversationNotFound, NeverSyncs for one that is local, RelayUnreachable where there is no link."""
        id_ = self._known(conversation)
        hash_ = blob if isinstance(blob, str) else blob.hash
        named = self._documents.attachments(id_).get(hash_)
        if named is None:
            raise InvalidContent(f"No entry of {id_} names the attachment {hash_}.", hint="Take it from entry.parts.")
        return self._fetch(id_, named)

    def fetch_all(self, conversation: str) -> Sequence[Transfer]:
        """The same for all attachments of a conversation that are not here."""
        return [self._fetch(each.conversation, each.blob) for each in self.list(conversation) if not each.present]

    @property
    def transfers(self) -> Sequence[Transfer]:
        """Those that are on their way to this device."""
        with self._lock:
            return [transfer for transfer in self._fetches.values() if not transfer.ended]

    @property
    def refused(self) -> Mapping[tuple[DocumentId, str], LLMCRDTError]:
        """(conversation, hash) of what the relay of an open link refused, or what could not be sent, and why."""
        with self._lock:
            return {which: error for carrier in self._carriers for which, error in carrier.refused.items()}

    def wait_sent(self, timeout: float | None = None) -> None:
        """Block until every relay that there is a link to has all attachments that are here and named, but for those in
        ``refused``, and has taken away what was erased. ``timeout`` in seconds. Raises SyncTimeout, which says how many
        are left."""
        until, pause = None if timeout is None else time.monotonic() + timeout, 0.02
        while left := sum(carrier.left() for carrier in self._open()):
            if until is not None and time.monotonic() > until:
                text = f"{left} attachments are not at the relay, or not taken away there, after {timeout:g} s."
                raise SyncTimeout(text, hint="They go on their way while a link is open.")
            for carrier in self._open():
                carrier.wake()
            time.sleep(pause)
            pause = min(0.25, 1.5 * pause)

    async def sent(self) -> None:
        """As ``wait_sent``, for any event loop; put ``asyncio.timeout`` around it for a limit."""
        import asyncio  # which loads ssl

        while await asyncio.to_thread(lambda: any(carrier.left() for carrier in self._open())):
            await asyncio.sleep(0.05)

    def send_again(self, conversation: str) -> None:
        """Offer all attachments of a conversation that are here to every relay anew, as if nothing had been sent: a
        relay that has them says so in one round trip each."""
        id_ = self._known(conversation)
        with self._resources.store.transaction():
            for carrier in self._open():
                self._tasks.send_again(carrier.link.url, id_)
        self._documents.blobs_of(id_).named({*self._documents.attachments(id_)})
        for carrier in self._open():
            carrier.forgive()

    # ---------------------------------------------------------------- for the repo

    def linked(
        self,
        link: LinkControl,
        tls: ssl.SSLContext | str | os.PathLike[str] | None,
        only: Collection[DocumentId] | None,
    ) -> None:
        """There is a link: what waits for its relay goes there."""
        self._limit = self.limit
        with self._lock:
            self._carriers = [carrier for carrier in self._carriers if carrier.wanted()]
            made = Carrier(self._shared, link, tls, only)
            self._carriers.append(made)
        made.wake()

    def close(self) -> None:
        """The repo is closed: carriers end, and whatever is under way with them."""
        with self._lock:
            carriers, self._carriers = self._carriers, []
            fetches, self._fetches = self._fetches, {}
        for carrier in carriers:
            carrier.stop()
        for transfer in fetches.values():
            end_transfer(transfer, None, SyncError("The repo was closed.", hint="What came is kept; fetch it again."))

    def _next_fetch(self, carrier: object) -> Transfer | None:
        """One that this carrier has not tried yet."""
        with self._lock:
            self._fetches = {which: each for which, each in self._fetches.items() if not each.ended}
            self._tried_by = {pair for pair in self._tried_by if not pair[0].ended}
            return next((each for each in self._fetches.values() if (each, carrier) not in self._tried_by), None)

    def _tried(self, transfer: Transfer, carrier: object, error: Exception) -> None:
        """This carrier's relay does not have it; where no other may, it has failed."""
        with self._lock:
            self._tried_by.add((transfer, carrier))
            left = [each for each in self._carriers if each.wanted() and (transfer, each) not in self._tried_by]
        if not left:
            end_transfer(transfer, None, error)

    # ---------------------------------------------------------------- inside

    def _known(self, conversation: str) -> DocumentId:
        check_type(conversation, str, name="conversation", hint="Give the id of a conversation.")
        document_bytes(conversation)
        if self._resources.store.catalog.kind(conversation) != "conversation":
            raise ConversationNotFound(
                f"There is no conversation {conversation!r} in {self._resources.store.path}.", hint="Sync first."
            )
        return DocumentId(conversation)

    def _open(self) -> Sequence[Carrier]:
        with self._lock:
            return [carrier for carrier in self._carriers if carrier.wanted()]

    def _fetch(self, conversation: DocumentId, blob: Blob) -> Transfer:
        made, path = Transfer(conversation, blob.hash, blob.size), self._blobs.get(blob.hash)
        if path is not None:
            made.done = made.size
            end_transfer(made, path)
            return made
        if self._shared.is_local(conversation):
            text = f"{conversation} is on this device alone, so no relay is asked for its attachments."
            raise NeverSyncs(text, hint="repo.share(id) lets it.")
        with self._lock:
            known = self._fetches.get((conversation, blob.hash))
            if known is not None and not known.ended:
                return known
            if not any(carrier.wanted() for carrier in self._carriers):
                raise RelayUnreachable("There is no link to a relay.", hint="Call repo.connect(...) first.")
            self._fetches[conversation, blob.hash] = made
        self._notify()
        return made

    def _notify(self) -> None:
        for carrier in self._open():
            carrier.wake()

    def _note_news(self, document: DocumentId) -> None:
        if self._limit:
            for carrier in self._open()[:1]:
                carrier.look(document)

    def _fetch_small(self, document: DocumentId) -> bool:
        """Something came for a conversation: fetch what the setting says. Whether that is anything."""
        limit, some = self.limit, False
        for blob in self._documents.attachments(document).values():
            if blob is not None and blob.size <= limit and not self._blobs.has(blob.hash):
                with suppress(RelayUnreachable):
                    self._fetch(document, blob)
                    some = True
        return some
