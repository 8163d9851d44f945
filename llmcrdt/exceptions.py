"""Every error this library raises on purpose.

Each says what happened and, in ``hint``, what to do next. Catch the branch you can act on::

    LLMCRDTError
    ├── DocumentError             the conversation itself
    │   ├── MalformedUpdate         bytes that are not an update, or would harm the replica; nothing was applied
    │   │   └── OtherDocument         an update of another conversation
    │   ├── NewerDocument           written by a newer major schema version; it can be carried, not read
    │   ├── InvalidContent          a value that can't be stored (also a ValueError)
    │   ├── EntryNotFound           no such entry in this conversation (also a KeyError)
    │   ├── NotSealed               the operation needs an entry whose writer has finished
    │   ├── Withheld                an entry that an erase keeps out of sight
    │   ├── AskFailed               nobody answers what was asked (``code`` says why)
    │   ├── AlreadySealed           a stream that was written to after its seal
    │   ├── CannotOpen              an encrypted hidden field that was changed, or moved from another place
    │   │   └── KeyMissing            its key is not here
    │   ├── SealingMissing          PyNaCl is not installed
    │   └── CRDTMissing             the package of a kind of CRDT is not installed
    ├── StoreError                the SQLite file
    │   ├── NotADatabase            the file is something else
    │   ├── NewerDatabase           made by a newer version of this library
    │   ├── ConversationNotFound    not in this repo (also a KeyError)
    │   │   └── ConversationDeleted   deleted, here or on another device
    │   ├── LibraryMismatch         the file already belongs to another library
    │   ├── CRDTMismatch            the file's documents are of another kind of CRDT
    │   ├── RepoClosed              used after close()
    │   ├── KeyringUnusable         a file of secrets can be read by others, or can't be read at all
    │   └── BlobMissing             an attachment whose content is not here
    ├── SyncError                 the relay, or what it said
    │   ├── RelayUnreachable        nobody answers at that address
    │   ├── RelayRefused            it answered with an error code (``code``)
    │   ├── MalformedFrame          bytes that are not a message of the protocol
    │   ├── NeverSyncs              the database, or a conversation, is set never to sync
    │   ├── TokenUnavailable        the token provider of a link failed
    │   ├── SyncTimeout             not synced in the time given (also a TimeoutError)
    │   └── InvalidInvite           not an invite, damaged, or of a newer version (also a ValueError)
    ├── PromptError               document -> token ids
    │   └── TemplateFailed          the model's chat template refused or broke
    ├── EngineError               token ids -> KV state -> token ids
    │   ├── EngineMissing           llama-cpp-python is not installed
    │   ├── NotAModel               the file is not a GGUF that llama.cpp can load
    │   ├── ContextOverflow         the prompt is longer than the context (``needed``, ``available``)
    │   ├── DecodeFailed            llama.cpp refused a batch
    │   └── EngineClosed            used after close()
    ├── ProviderError             a provider's API, or the way to it
    │   ├── ProviderMissing         its SDK is not installed
    │   ├── ProviderUnreachable     nobody answered, or the connection broke off
    │   └── ProviderRefused         it answered with an error (``status``, ``code``, ``body``, ``retry_after``)
    └── FormatError               JSON or a conversation in another format that can't be read (also a ValueError)
        └── ResponseFailed          the provider gave up in the middle of its answer (``error``)
"""

from __future__ import annotations


class LLMCRDTError(Exception):
    """Base of all errors here. ``hint`` says what to do next; ``str()`` holds both."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} {self.hint}".rstrip()


class DocumentError(LLMCRDTError):
    """Something about a conversation."""


class MalformedUpdate(DocumentError):
    """Bytes that are not an update, or would harm the replica. Nothing was applied."""


class OtherDocument(MalformedUpdate):
    """An update of another conversation, a fork for instance. Nothing was applied."""


class NewerDocument(DocumentError):
    """A document with a newer major schema version."""


class InvalidContent(DocumentError, ValueError):
    """A value that can't be stored in a conversation."""


class EntryNotFound(DocumentError, KeyError):
    """No such entry in this conversation."""

    __str__ = LLMCRDTError.__str__


class NotSealed(DocumentError):
    """The operation needs an entry whose writer has finished."""


class Withheld(DocumentError):
    """An erase keeps this entry out of sight, for its author had not seen the erase."""


class AskFailed(DocumentError):
    """An ask that ended without an answer. ``code``: "stopped", "outdated", or what the worker says."""

    def __init__(self, message: str, code: str, *, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.code = code


class AlreadySealed(DocumentError):
    """Something was written to a stream after its seal."""


class CannotOpen(DocumentError):
    """A hidden field that does not open: it is not what its entry was sealed with, or was moved from another place."""


class KeyMissing(CannotOpen):
    """The key of an encrypted hidden field is not here."""


class SealingMissing(DocumentError):
    """An optional dependency that encryption needs is not installed."""


class CRDTMissing(DocumentError):
    """The package that reads one kind of document is not installed, or is another one of that name."""


class StoreError(LLMCRDTError):
    """Something about the SQLite file."""


class NotADatabase(StoreError):
    """The file is not a database of this library."""


class NewerDatabase(StoreError):
    """The file was made by a newer version of this library."""


class ConversationNotFound(StoreError, KeyError):
    """No such conversation in this repo: it was never here, or (ConversationDeleted) it was deleted."""

    __str__ = LLMCRDTError.__str__


class ConversationDeleted(ConversationNotFound):
    """The conversation was deleted from the library, here, by another process, or on another device. Its objects raise
    it at every use, and so does whoever writes in it just then: nothing of that is kept. ``id``: the conversation's."""

    def __init__(self, id: str) -> None:
        super().__init__(
            f"Conversation {id} was deleted from the library.",
            hint="A deleted id never comes back; repo.create() makes another conversation.",
        )
        self.id = id


class LibraryMismatch(StoreError):
    """The file already belongs to another library."""


class CRDTMismatch(StoreError):
    """The file's documents are of another kind of CRDT than the one that it was opened with."""


class RepoClosed(StoreError):
    """A repo, or something of it, was used after ``close()``."""


class KeyringUnusable(StoreError):
    """A file of secrets (keys, a relay's token) can be read by other people, or is damaged. Nothing was read from it or
    written to it."""


class BlobMissing(StoreError):
    """The content of an attachment is not on this device."""


class SyncError(LLMCRDTError):
    """Something about the relay."""


class RelayUnreachable(SyncError):
    """Nobody answers at that address."""


class RelayRefused(SyncError):
    """The relay answered with an error; ``code`` is one of docs/protocol.md."""

    def __init__(self, message: str, *, code: int = 0, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.code = code


class NeverSyncs(SyncError):
    """The database, or a conversation of it, is set never to sync."""


class TokenUnavailable(SyncError):
    """The token provider of a link failed, took too long, or gave no text. The link tries again after a pause."""


class MalformedFrame(SyncError):
    """Bytes that are not a message of the sync protocol."""


class SyncTimeout(SyncError, TimeoutError):
    """Not synced in the time given. Nothing is lost; the link goes on trying."""


class InvalidInvite(SyncError, ValueError):
    """A string that is not an invite, is damaged, or is of a newer version."""


class PromptError(LLMCRDTError):
    """A prompt could not be made from the document."""


class TemplateFailed(PromptError):
    """The model's chat template refused these messages, or is broken."""


class EngineError(LLMCRDTError):
    """Something about the engine that computes KV state."""


class EngineMissing(EngineError):
    """An optional dependency of the engine is not installed."""


class NotAModel(EngineError):
    """The file is not a model that llama.cpp can load."""


class ContextOverflow(EngineError):
    """The prompt does not fit the context. ``needed`` and ``available`` are token counts."""

    def __init__(self, message: str, *, needed: int, available: int, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.needed = needed
        self.available = available


class DecodeFailed(EngineError):
    """llama.cpp refused a batch."""


class EngineClosed(EngineError):
    """An engine was used after ``close()``."""


class ProviderError(LLMCRDTError):
    """Something about a model that answers elsewhere."""


class ProviderMissing(ProviderError):
    """The SDK of a provider is not installed."""


class ProviderUnreachable(ProviderError):
    """Nobody answered, or the connection broke off. ``sent``: whether the request may have arrived; then nobody knows
    whether it is computed."""

    def __init__(self, message: str, *, sent: bool = True, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.sent = sent


class ProviderRefused(ProviderError):
    """The provider answered with an error. ``status``: of HTTP. ``code``: its word for it, or its type, else "".
    ``body``: all that it said. ``retry_after``: so many seconds it asks to wait, None where it says nothing."""

    def __init__(
        self,
        message: str,
        *,
        status: int = 0,
        code: str = "",
        body: object = None,
        retry_after: float | None = None,
        hint: str = "",
    ) -> None:
        super().__init__(message, hint=hint)
        self.status = status
        self.code = code
        self.body = body
        self.retry_after = retry_after


class FormatError(LLMCRDTError, ValueError):
    """JSON, or a conversation in another format, that can't be read."""


class ResponseFailed(FormatError):
    """The provider gave up in the middle of its answer; what came before is kept, as a stopped entry. ``error``: all
    that the provider said about it."""

    def __init__(self, message: str, error: object = None) -> None:
        super().__init__(f"The provider gave up: {message}", hint="Send the request again.")
        self.error = error
