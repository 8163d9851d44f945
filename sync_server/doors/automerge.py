"""The door for Automerge clients that know nothing of this relay: automerge-repo's protocol over WebSocket, version 1,
docs/protocol.md, section 10.

A frame is a CBOR map with ``type`` and ``senderId``; most have ``targetId`` and ``documentId``, too:

    join {peerMetadata, supportedProtocolVersions}       ->  peer {peerMetadata, selectedProtocolVersion}, or error
    request {data}, sync {data}                         <->  sync {data}: a message of Automerge's own sync protocol
    ephemeral {count, sessionId, data}                  <->  the same: presence
                                                         <-  doc-unavailable; error {message}

Source: https://github.com/automerge/automerge-repo, packages/automerge-repo-network-websocket/README.md and src.

The door does not remember what a client was sent, as peers of that protocol otherwise do
(``crdt/automerge/sync.py``): with its updates a client is told all heads, so that it goes on from them.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from llmcrdt.automerge_sync import SyncMessage, cut_chunks, read_message, read_told, write_chunks, write_question
from llmcrdt.exceptions import InvalidContent, MalformedFrame
from llmcrdt.ids import document_bytes, document_id
from llmcrdt.sync.messages import Error, ErrorCode, Presence, Record, Records, Welcome

from ..auth.tokens import Grant
from ..core.events import PeerMessage
from ..core.validation import DiffRequest, DiffResponse, MergeRequest, Request, Updates
from . import cbor
from .base import Answer, CloseFrame, DoorContext, DoorType, Keepalive, Refused, Upgrade, permitted, token_of
from .ephemeral import Ephemeral, announced_messages

PATH = "/automerge"
KIND = "automerge"
_ITEMS, _DEPTH = 2_048, 5
"""Things in a frame, and how deep they stand: a client's messages have a dozen, but for those about other servers."""
_NAME = 256
"""Letters of a peer's name, and of a session's."""
_TOGETHER = 256 << 10
"""Bytes of frames whose changes are merged as one message."""
_VERSION = "1"
_PLAIN, _PREFIX = 1, 8
LOAD_ANEW = "llmcrdt/load-anew"
_REPLACED = "Something of this document was erased. Delete it in your repo, and find it again."
_NOTHING_THERE = b"\x42\0\0"
"""The beginning of a message that tells neither heads nor needs."""

CLOSE_CODES: Mapping[int, int] = {
    ErrorCode.WINDOW_EXCEEDED: 4429,
    ErrorCode.STORAGE: 1011,
    ErrorCode.SHUTTING_DOWN: 1012,
    ErrorCode.TOO_MANY_CONNECTIONS: 1013,
    ErrorCode.TOO_SLOW: 1013,
    ErrorCode.TOKEN_REFUSED: 4401,
}


class AutomergeDoor:
    """One connection: the peer that it says it is, and the documents that it asked for."""

    protocol = "automerge"
    features = 0
    keepalive: Keepalive | None = None

    def __init__(self, upgrade: Upgrade, context: DoorContext) -> None:
        self._upgrade, self._context, self._tokens = upgrade, context, context.tokens
        self._limits = context.limits
        self.max_frame = context.limits.yjs_frame
        self._most_together = max(1, context.limits.window // context.limits.merge_cost)
        self.greeted = False
        self.grant: Grant | None = None
        self._peer = ""
        # Of each document that the client asked for: its last question.
        self._asked: dict[bytes, bytes] = {}
        self._ephemeral = Ephemeral()

    def begin(self) -> None:
        """Raises Refused where the token is refused; a client joins only then."""
        self.grant = permitted(self._tokens.check, token_of(self._upgrade))

    def confirm(self) -> None:
        """Raises Refused where the token is no longer good."""
        if self.grant is not None:
            permitted(self._tokens.confirm, self.grant)

    # ---------------------------------------------------------------- in

    def receive(self, frame: bytes | str) -> Answer | Request | None:
        if isinstance(frame, str):
            raise _malformed("Messages are binary frames.")
        self.confirm()
        try:
            return self._take(_read_frame(frame))
        except MalformedFrame as e:
            raise _malformed(e.message) from None

    def _take(self, message: Mapping[str, Any]) -> Answer | Request | None:
        kind = message["type"]
        if (kind == "join") is self.greeted:
            text = "JOIN comes once." if self.greeted else "JOIN comes first."
            raise Refused(Error(ErrorCode.UNEXPECTED, text))
        match kind:
            case "join":
                return self._join(message)
            case "sync" | "request":
                return self._sync(message, kind == "request")
            case "ephemeral":
                return self._announce(message)
            case "peer" | "error":
                raise Refused(Error(ErrorCode.UNEXPECTED, f"{kind.upper()} is for the relay to send."))
        return None  # leave, doc-unavailable, remote heads, and what a newer version may say

    def _join(self, message: Mapping[str, Any]) -> Welcome:
        versions = message.get("supportedProtocolVersions", [_VERSION])
        if not isinstance(versions, list) or _VERSION not in versions:
            raise Refused(Error(ErrorCode.UNEXPECTED, "unsupported protocol version"))
        self.greeted, self._peer = True, _text(message, "senderId")
        limits = self._limits
        return Welcome(self._context.agent, limits.record, limits.window_records, limits.window, limits.documents, 0)

    def _sync(self, message: Mapping[str, Any], request: bool) -> Answer | Request | None:
        document, sync = _document(message), read_message(_bytes(message, "data"))
        if self.grant is not None and not self.grant.allows("read", document):
            return Error(ErrorCode.FORBIDDEN, "The token is not for this document.", document)
        question = self._question(document, sync, request)
        if len(question) > self._limits.version:
            text = f"A sync message has {len(question)} bytes beside its changes; {self._limits.version} are allowed."
            return Error(ErrorCode.RECORD_TOO_LARGE, text, document)
        if document not in self._asked and len(self._asked) >= self._limits.documents:
            text = f"At most {self._limits.documents} documents on one connection."
            return Error(ErrorCode.TOO_MANY_DOCUMENTS, text, document)
        if question:
            self._asked[document] = hashlib.sha256(question).digest()
        if sync.chunks:
            return MergeRequest(document, KIND, (sync.changes,), self._may_append(document), question)
        return DiffRequest(document, KIND, question) if question else None

    def _question(self, document: bytes, sync: SyncMessage, request: bool) -> bytes:
        """The message without its changes, where it wants an answer. Clients answer everything that they are sent, and
        most say then that they have it. The same question is answered once: a client whose changes are refused would
        ask without end."""
        known = document in self._asked
        if known and not (request or sync.need or sync.starts_over or sync.chunks):
            if self._context.told.holds(document, sync.heads):
                return b""
        elif known and sync.chunks and not sync.need:
            return b""  # with what is told when they are on disk it goes on
        question = sync.question
        if known and not request and self._asked[document] == hashlib.sha256(question).digest():
            return b""
        return question

    def _announce(self, message: Mapping[str, Any]) -> Answer | Request | None:
        document = _document(message)
        count = message.get("count")
        if not isinstance(count, int) or not 0 <= count < 1 << 53:
            raise MalformedFrame("An ephemeral message has a count.")
        if not self._may_append(document):
            return None
        sender, session = _text(message, "senderId"), _text(message, "sessionId")
        announcement = self._ephemeral.take(document, sender, session, count, _bytes(message, "data"))
        if announcement is None:
            return Error(ErrorCode.PRESENCE_REFUSED, "An ephemeral message is too large.", document)
        return Presence(document, (announcement,))

    def _may_append(self, document: bytes) -> bool:
        return self.grant is None or self.grant.allows("append", document)

    def join_following(
        self, message: Request, frame: bytes | str, unread: deque[bytes | str]
    ) -> tuple[Request, int, int]:
        """Changes of one document that wait here are merged as one message."""
        frames, size = 1, len(frame)
        if not isinstance(message, MergeRequest) or not message.may_append or message.question:
            return message, frames, size
        updates = list(message.updates)
        while unread and size < _TOGETHER and len(updates) < self._most_together:
            following = unread[0]
            changes = self._read_changes(following, message.document)
            if changes is None:
                break
            unread.popleft()
            updates.append(changes)
            frames, size = frames + 1, size + len(following)
        return (message if frames == 1 else replace(message, updates=tuple(updates))), frames, size

    def _read_changes(self, frame: bytes | str, document: bytes) -> bytes | None:
        """The changes in a frame that says no more than these."""
        try:
            found = _read_frame(frame) if isinstance(frame, bytes) else {"type": ""}
            if found["type"] != "sync" or _document(found) != document:
                return None
            sync = read_message(_bytes(found, "data"))
        except MalformedFrame:
            return None
        return sync.changes if sync.chunks and not self._question(document, sync, False) else None

    # ---------------------------------------------------------------- out

    def encode(self, message: PeerMessage) -> Sequence[bytes]:
        match message:
            case Welcome():
                fields = {"peerMetadata": {"isEphemeral": True}, "selectedProtocolVersion": _VERSION}
                return (cbor.write({"type": "peer", **self._from_relay(self._peer), **fields}),)
            case Error(code, text, bytes(document)):
                said = self._error(code, text) | {"documentId": document_id(document)}
                if code == ErrorCode.PRESENCE_REFUSED:
                    return (cbor.write(said),)
                return cbor.write(said), self._message("doc-unavailable", document)
            case Error():
                raise Refused(message)
            case DiffResponse(document, b""):
                return self._tell_to_load_anew(document)
            case DiffResponse(document, answer):
                if answer.startswith(_NOTHING_THERE):
                    return (self._message("doc-unavailable", document),)
                return (self._tell(document, answer, b""),)
            case Updates(document, records, mark):
                return (self._tell(document, mark, write_chunks(_chunks(records))),)
            case Records(document, _, records):
                return (self._message("sync", document, data=_in_between(records)),)
            case Presence(document, entries):
                every = [fields for entry in entries for fields in announced_messages(entry)]
                return [self._message("ephemeral", document, **fields) for fields in every]
            case _:
                return ()

    def _tell_to_load_anew(self, document: bytes) -> Sequence[bytes]:
        """A client takes no notice of either for a document that it has. Its app gets to hear of an ephemeral
        message; clients pass over one of a session that they have had."""
        session = self._asked.get(document, b"").hex()
        said = {"sessionId": session, "count": 1, "data": cbor.write({"type": LOAD_ANEW})}
        error = self._error(ErrorCode.REPLACED, _REPLACED) | {"documentId": document_id(document)}
        return (
            cbor.write(error), self._message("ephemeral", document, **said), self._message("doc-unavailable", document)
        )  # fmt: skip

    def ask_back(self, answer: DiffResponse) -> None:
        """The answer says what is wanted."""

    def close_frame(self, error: Error) -> CloseFrame:
        code = CLOSE_CODES.get(error.code, 4400)
        return CloseFrame(cbor.write(self._error(error.code, error.text)), code, error.text)

    def _tell(self, document: bytes, head: bytes, rest: bytes) -> bytes:
        self._context.told.note(document, read_told(head))
        return self._message("sync", document, data=head + rest)

    def _message(self, type_: str, document: bytes, **fields: object) -> bytes:
        return cbor.write({"type": type_, **self._from_relay(""), "documentId": document_id(document), **fields})

    def _error(self, code: int, text: str) -> dict[str, object]:
        return {"type": "error", **self._from_relay(self._peer), "message": text, "code": int(code)}

    def _from_relay(self, target: str) -> dict[str, object]:
        """``target``: no client looks at it; a message that goes to many has none, and is made once."""
        return {"senderId": self._context.name, "targetId": target}


def _chunks(records: Sequence[Record]) -> Iterator[bytes]:
    for record in records:
        yield from cut_chunks(record.data)


def _in_between(records: Sequence[Record]) -> bytes:
    """Records with which a client is not at the end of the log: it is told one change that it has then, and says
    nothing of its own until it is told all heads."""
    chunks = list(_chunks(records))
    plain = next((chunk for chunk in reversed(chunks) if chunk[_PREFIX : _PREFIX + 1] == bytes((_PLAIN,))), None)
    heads = [hashlib.sha256(plain[_PREFIX:]).digest()] if plain else []
    return write_question(heads, [], []) + write_chunks(chunks)


def _read_frame(frame: bytes) -> Mapping[str, Any]:
    message = cbor.read(frame, _ITEMS, _DEPTH)
    if not isinstance(message, dict) or not isinstance(message.get("type"), str):
        raise MalformedFrame("A message is a map with a type.")
    return message


def _text(message: Mapping[str, Any], name: str) -> str:
    value = message.get(name)
    if not isinstance(value, str) or not 0 < len(value) <= _NAME:
        raise MalformedFrame(f"A message has a {name} of 1 to {_NAME} letters.")
    return value


def _bytes(message: Mapping[str, Any], name: str) -> bytes:
    value = message.get(name)
    if not isinstance(value, bytes) or not value:
        raise MalformedFrame(f"A message has {name}, which is bytes.")
    return value


def _document(message: Mapping[str, Any]) -> bytes:
    try:
        return document_bytes(_text(message, "documentId"))
    except InvalidContent as e:
        raise MalformedFrame(e.message) from None


def _malformed(text: str) -> Refused:
    return Refused(Error(ErrorCode.MALFORMED, text))


DOOR = DoorType("Automerge", PATH, None, AutomergeDoor, deflate=False)
